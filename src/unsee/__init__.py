"""Unlearning of people, facts and concepts in vision-language models, with evaluation.

Most commands are functions here. Importing this package loads no torch, calling a function does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from unsee.config import EvalConfig
    from unsee.evaluation.evaluate import evaluate
    from unsee.exporting import export
    from unsee.exporting.hub import push
    from unsee.models.checkpoint import load
    from unsee.report import compare
    from unsee.workflows.attack import attack
    from unsee.workflows.check import check
    from unsee.workflows.continual import continual
    from unsee.workflows.demo import demo
    from unsee.workflows.doctor import doctor
    from unsee.workflows.estimate import estimate
    from unsee.workflows.forget import forget
    from unsee.workflows.run import Run
    from unsee.workflows.suggest import suggest
    from unsee.workflows.train_lab import train

__version__ = "0.1.0"
__all__ = [
    "EvalConfig",
    "Run",
    "attack",
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
    "suggest",
    "train",
]


_PLACES: Final = {
    "EvalConfig": "unsee.config",
    "Run": "unsee.workflows.run",
    "attack": "unsee.workflows.attack",
    "check": "unsee.workflows.check",
    "compare": "unsee.report",
    "continual": "unsee.workflows.continual",
    "demo": "unsee.workflows.demo",
    "doctor": "unsee.workflows.doctor",
    "estimate": "unsee.workflows.estimate",
    "evaluate": "unsee.evaluation.evaluate",
    "export": "unsee.exporting",
    "forget": "unsee.workflows.forget",
    "load": "unsee.models.checkpoint",
    "push": "unsee.exporting.hub",
    "suggest": "unsee.workflows.suggest",
    "train": "unsee.workflows.train_lab",
}
"""Name -> module that defines it; imported when first used."""


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return vars(import_module(_PLACES[name]))[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
