"""Generic family for `AutoModelForImageTextToText` models with a chat template."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image

from unsee.errors import UserError
from unsee.models import auto
from unsee.models.auto import AutoFamily

if TYPE_CHECKING:
    from torch.nn import Module

QUESTION = "Who is this?"
INSTRUCTION = "Say only what can be seen."


class Generic(AutoFamily):
    """Family of models without their own, after a check of parts, template, tokens and inputs."""

    model_types: ClassVar[tuple[str, ...]] = ()

    def load(self, path: Path | str, *, dtype: str = "auto") -> tuple[Module, Any]:
        """Return model (eval mode) and processor, or raise UserError if they are unsuitable."""
        model, processor = auto.load(path, dtype=dtype)
        faults = list(self._faults(model, processor))
        if faults:
            kind: Any = model.config
            raise UserError(
                f"unsee has no family of its own for {kind.model_type!r} models, and the generic one cannot serve {path}: "
                f"{'; '.join(faults)}. Write a family for it: docs/extending.md."
            )
        return model, processor

    def _faults(self, model: Any, processor: Any) -> Iterator[str]:
        """Yield what makes this model unsuitable."""
        missing = {"vision", "language"} - self.parts(model).keys()
        if missing:
            yield f"no module is named like its {' or its '.join(sorted(missing))} part (`parts`)"
        asked = self.prompt(processor, QUESTION, has_image=True, instruction=INSTRUCTION)
        if QUESTION not in asked or INSTRUCTION not in asked:
            yield "its chat template does not write the question (`prompt`)"
        bare = self.prompt(processor, QUESTION, has_image=False)
        try:
            rows = [
                self.encode_one(processor, asked, Image.new("RGB", (64, 48))),
                self.encode_one(processor, bare, None),
            ]
        except UserError as error:
            yield f"{error} (`prompt` or `encode_one`)"
            return
        yield from _inputs(model, *rows)


def _inputs(model: Any, pictured: dict[str, Any], bare: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the inputs of prompts with and without an image."""
    known = inspect.signature(model.forward).parameters
    unknown = (pictured.keys() | bare.keys()) - known.keys()
    if unknown:
        yield f"its processor makes {', '.join(sorted(unknown))}, which its forward does not take (`encode_one`)"
    if "pixel_values" not in pictured:
        yield "its processor makes no pixel_values of an image (`encode_one`)"
    if "pixel_values" in bare or "input_ids" not in bare:
        yield "its processor takes no text without an image (`encode_one`)"
