"""The two models of the page: before and after unlearning."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unsee.api import VLM, Example
from unsee.api.request import Completion, Prompt
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.models import builtin

if TYPE_CHECKING:
    from unsee.inference.preflight import Preflight


class Side(Protocol):
    """One of the two models."""

    @property
    def label(self) -> str:
        """Name on the page."""
        ...

    def say(self, example: Example, on_text: Callable[[str], None]) -> Completion:
        """Answer a question, passing on the text so far after every token."""
        ...


@dataclass(frozen=True)
class ModelSide:
    """Opened model, whose adapter may be off."""

    label: str
    loaded: VLM
    max_new_tokens: int
    switched: Callable[[], AbstractContextManager[object]] = nullcontext
    """Context in which the model answers: its adapter is off there if this is the side before."""

    @cached_property
    def _preflight(self) -> Preflight:
        from unsee.inference.preflight import Preflight

        return Preflight(self.loaded)

    def say(self, example: Example, on_text: Callable[[str], None]) -> Completion:
        """Answer greedily.

        Raises:
            UserError: The question cannot be encoded, or the model's output is not a number.
        """
        from unsee.inference.generation import stream

        if fault := self._preflight.fault(example):
            raise UserError(f"{self.label}: {fault}.")
        with self.switched():
            return stream(
                self.loaded,
                Prompt.of(example, self.loaded.instruction),
                max_new_tokens=self.max_new_tokens,
                on_text=on_text,
            )


def open_sides(after: str, before: str, labels: tuple[str, str], max_new_tokens: int) -> tuple[ModelSide, ModelSide]:
    """Open the models before and after.

    An adapter whose base is `before` (or of which nothing else is said) shares one model with it, switched on and off.
    Otherwise there are two models in memory.

    Args:
        after: Unlearned model.
        before: Model to compare with. Empty: the one that the adapter `after` was made from.
        labels: What the page calls them, before and after.
        max_new_tokens: Longest response.

    Returns:
        Sides before and after.

    Raises:
        UserError: One of them is no model, or no `before` is known.
    """
    from unsee.models.checkpoint import load, open_switchable

    switchable = open_switchable(after) if not before or _is_base(after, before) else None
    if switchable is not None:
        base, adapted = switchable
        model: Any = adapted.model.to(processes.device())
        first = ModelSide(labels[0], base, max_new_tokens, model.disable_adapter)
        return first, ModelSide(labels[1], adapted, max_new_tokens)
    if not before:
        raise UserError(f"{after} does not say which model it was made from. Give --before MODEL.")
    models = [load(model) for model in (before, after)]
    for loaded in models:
        loaded.model.to(processes.device())
    first, second = (ModelSide(label, loaded, max_new_tokens) for label, loaded in zip(labels, models, strict=True))
    return first, second


def _is_base(after: str, before: str) -> bool:
    """Tell whether `before` is the checkpoint that the adapter in `after` stands on."""
    from unsee.models.checkpoint import adapter_base
    from unsee.models.location import ADAPTER, folder_of

    folder = folder_of(after)
    if not isinstance(folder, Path) or not (folder / ADAPTER).exists():
        return False
    paths = [Path(builtin.resolve(path)) for path in (adapter_base(folder), before)]
    return paths[0] == paths[1] or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))
