"""Unlearning of people, facts and concepts in vision-language models, with evaluation.

Every verb of the command line is a function here. Importing this package loads no torch; calling a verb does.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unsee.evaluation.evaluate import evaluate
    from unsee.exporting import export
    from unsee.exporting.hub import push
    from unsee.models.checkpoint import load
    from unsee.report import compare
    from unsee.workflows.check import check
    from unsee.workflows.continual import continual
    from unsee.workflows.demo import demo
    from unsee.workflows.doctor import doctor
    from unsee.workflows.estimate import estimate
    from unsee.workflows.forget import forget
    from unsee.workflows.train_lab import train

__version__ = "0.1.0"
__all__ = [
    "check",
    "compare",
    "continual",
    "demo",
    "doctor",
    "estimate",
    "evaluate",
    "export",
    "forget",
    "load",
    "push",
    "train",
]


class _Verb:
    """A public function that is imported when first used.

    A data descriptor, because several verbs bear the name of their module: importing `unsee.check` would otherwise
    put the module in the place of the function.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __get__(self, package: ModuleType, owner: type | None = None) -> Any:
        return vars(import_module(self.module))[self.name]

    def __set__(self, package: ModuleType, value: object) -> None:
        """Ignore the assignment: the import system binds submodules to their package by name."""


class _Package(ModuleType):
    check = _Verb("unsee.workflows.check", "check")
    compare = _Verb("unsee.report", "compare")
    continual = _Verb("unsee.workflows.continual", "continual")
    demo = _Verb("unsee.workflows.demo", "demo")
    doctor = _Verb("unsee.workflows.doctor", "doctor")
    estimate = _Verb("unsee.workflows.estimate", "estimate")
    evaluate = _Verb("unsee.evaluation.evaluate", "evaluate")
    export = _Verb("unsee.exporting", "export")
    forget = _Verb("unsee.workflows.forget", "forget")
    load = _Verb("unsee.models.checkpoint", "load")
    push = _Verb("unsee.exporting.hub", "push")
    train = _Verb("unsee.workflows.train_lab", "train")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
