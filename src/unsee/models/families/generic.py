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
            config: Any = model.config
            raise UserError(
                f"unsee has no family of its own for {config.model_type!r} models, and the generic one cannot serve {path}: "
                f"{'; '.join(faults)}. Write a family for it: docs/extending.md."
            )
        return model, processor

    def _faults(self, model: Any, processor: Any) -> Iterator[str]:
        """Yield what makes this model unsuitable."""
        missing = {"vision", "language"} - self.parts(model).keys()
        if missing:
            yield f"no module is named like its {' or its '.join(sorted(missing))} part (`parts`)"
        prompt = self.prompt(processor, QUESTION, has_image=True, instruction=INSTRUCTION)
        if QUESTION not in prompt or INSTRUCTION not in prompt:
            yield "its chat template does not write the question (`prompt`)"
        text_prompt = self.prompt(processor, QUESTION, has_image=False)
        try:
            rows = [
                self.encode_one(processor, prompt, Image.new("RGB", (64, 48))),
                self.encode_one(processor, text_prompt, None),
            ]
        except UserError as error:
            yield f"{error} (`prompt` or `encode_one`)"
            return
        yield from _inputs(model, *rows)


def _inputs(model: Any, image_row: dict[str, Any], text_row: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the inputs of prompts with and without an image."""
    parameters = inspect.signature(model.forward).parameters
    unknown = (image_row.keys() | text_row.keys()) - parameters.keys()
    if unknown:
        yield f"its processor makes {', '.join(sorted(unknown))}, which its forward does not take (`encode_one`)"
    if "pixel_values" not in image_row:
        yield "its processor makes no pixel_values of an image (`encode_one`)"
    if "pixel_values" in text_row or "input_ids" not in text_row:
        yield "its processor takes no text without an image (`encode_one`)"
