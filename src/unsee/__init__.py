"""Make a vision-language model forget chosen people, facts or concepts, and prove what it says afterwards.

Every verb of the command line is a function here. Importing this package loads no torch; calling a verb does.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unsee.checkpoint import load
    from unsee.continual import continual
    from unsee.demo import demo
    from unsee.doctor import doctor
    from unsee.estimate import estimate
    from unsee.evaluate import evaluate
    from unsee.exporting import export
    from unsee.hub import push
    from unsee.report import compare
    from unsee.run import forget
    from unsee.train import train
    from unsee.workflows.check import check

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
        """Keep the verb: the import system binds a submodule to its package under the submodule's name."""


class _Package(ModuleType):
    check = _Verb("unsee.workflows.check", "check")
    compare = _Verb("unsee.report", "compare")
    continual = _Verb("unsee.continual", "continual")
    demo = _Verb("unsee.demo", "demo")
    doctor = _Verb("unsee.doctor", "doctor")
    estimate = _Verb("unsee.estimate", "estimate")
    evaluate = _Verb("unsee.evaluate", "evaluate")
    export = _Verb("unsee.exporting", "export")
    forget = _Verb("unsee.run", "forget")
    load = _Verb("unsee.checkpoint", "load")
    push = _Verb("unsee.hub", "push")
    train = _Verb("unsee.train", "train")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
