"""Suggestions of full paths for misplaced or misnamed settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Final

from unsee import config
from unsee.api import Training, registry
from unsee.errors import UnknownNameError, nearest

ALSO: Final[Mapping[str, str]] = {
    "learning_rate": "training.lr",
    "num_train_epochs": "training.epochs",
    "num_epochs": "training.epochs",
    "steps": "training.max_steps",
    "num_steps": "training.max_steps",
    "per_device_train_batch_size": "training.batch_size",
    "bs": "training.batch_size",
    "gradient_accumulation_steps": "training.accumulate",
    "max_grad_norm": "training.clip",
    "lr_scheduler": "training.scheduler",
    "lr_scheduler_type": "training.scheduler",
    "lora_r": "training.rank",
    "lora_rank": "training.rank",
    "r": "training.rank",
    "lora_alpha": "training.alpha",
    "lora_dropout": "training.dropout",
    "bf16": "training.precision",
    "dtype": "training.precision",
    "wd": "training.weight_decay",
    "load_in_4bit": "training.quantization",
    "load_in_8bit": "training.quantization",
    "quantization_config": "training.quantization",
    "quantize": "training.quantization",
}
"""Argument names of transformers and PEFT, and short forms -> path of the setting."""


def paths(method: str = "", benchmark: str = "", more: Mapping[str, Any] | None = None) -> list[str]:
    """Return the full paths of all settings of a run, such as `training.lr`.

    `more` maps further sections to their dataclasses.
    """
    sections: dict[str, Any] = {"training": Training, "eval": config.EvalConfig, **(more or {})}
    if method in registry.names("methods"):
        sections["method"] = registry.load("methods", method)
    if benchmark in registry.names("benchmarks"):
        sections["benchmark"] = registry.load("benchmarks", benchmark).settings_type
    return [
        f"{section}.{field.name}"
        for section, settings_type in sections.items()
        for field in fields(settings_type)
        if field.init
    ]


def equivalent_paths(name: str, known: list[str]) -> list[str]:
    """Return the paths that end in `name` or in its equivalent here.

    >>> equivalent_paths("lr", ["training.lr", "method.beta"]), equivalent_paths("learning_rate", ["training.lr"])
    (['training.lr'], ['training.lr'])
    """
    matches = [path for path in known if path.partition(".")[2] == name]
    return matches or [path for path in known if path == ALSO.get(name)]


def similar_paths(name: str, known: list[str]) -> list[str]:
    """Return the paths whose last part resembles `name`.

    >>> similar_paths("max_step", ["training.max_steps", "training.lr"])
    ['training.max_steps']
    """
    by_last_part = {path.partition(".")[2]: path for path in reversed(known)}
    return [by_last_part[last_part] for last_part in get_close_matches(name, by_last_part, n=2, cutoff=0.75)]


@contextmanager
def setting_hints(run: Any, more: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Add suggested paths to the error for an unknown setting.

    `run` is a Run or its mapping.
    """
    try:
        yield
    except UnknownNameError as error:
        if not error.kind.startswith("setting of "):
            raise
        setting_paths = paths(*_names(run), more)
        suggestions = equivalent_paths(error.name, setting_paths)
        if not suggestions and not nearest(error.name, error.known):
            suggestions = similar_paths(error.name, setting_paths)
        raise error.beside(suggestions) from None


def _names(run: Any) -> tuple[str, str]:
    """Return the names of method and benchmark, where given."""
    values = run.to_mapping() if isinstance(run, config.Run) else run
    choices = [values.get(section, "") for section in ("method", "benchmark")]
    method, benchmark = [choice.get("name", "") if isinstance(choice, Mapping) else choice for choice in choices]
    return str(method), str(benchmark)
