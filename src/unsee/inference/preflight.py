"""Check before a run that every row can be encoded.

It finds special tokens in texts, rows that are too long, and images that the processor rejects. A text is tokenised only if
its bytes could exceed the limit, since no tokenizer makes more tokens than bytes. An image is processed once per size, since
its number of tokens depends on nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from PIL import Image

from unsee.api import VLM, Example, ImageFile, ImageSource
from unsee.api.pictures import size_of
from unsee.api.request import ModelBackend
from unsee.errors import UserError, short_repr
from unsee.inference.batching import room, too_long
from unsee.inference.encoder import answer_ids, encoder
from unsee.models.checkpoint import open_config
from unsee.models.meta_device import without_weights
from unsee.utils.progress import track

_SHOWN: Final = 10
_REMEMBERED: Final = 4096
"""Files whose image size is cached."""
_QUESTION: Final = "?"
_MARKS: Final = ("image_token", "video_token", "boi_token", "eoi_token")
"""Attributes of processors that hold special tokens."""


class Preflight:
    """Check of what one model can encode."""

    def __init__(self, vlm: VLM | ModelBackend) -> None:
        """Store processor and limits. The maximum length is known for a model in this process.

        Raises:
            UserError: The instruction holds a special token.
        """
        self.processor, self.family, self.instruction = vlm.processor, vlm.family, vlm.instruction
        self._room = room(vlm.model) if isinstance(vlm, VLM) else None
        self._marks = _marks(self.processor)
        if fault := self._special("instruction", self.instruction):
            raise UserError(f"Rows cannot be encoded for this model: {fault}.")
        self._around = {has_image: self._tokens(_QUESTION, has_image) for has_image in (False, True)}
        self._size_of = lru_cache(_REMEMBERED)(size_of)
        self._expanded: dict[tuple[int, int], int] = {}

    def require(self, examples: Iterable[Example], *, progress: bool = True) -> None:
        """Raise if rows cannot be encoded, naming the first of them."""
        lines = list(self.lines(examples, progress=progress))
        if lines:
            overflow = [f"... and {len(lines) - _SHOWN} more (unsee check --model lists all)"] * (len(lines) > _SHOWN)
            raise UserError("\n  ".join(["Rows cannot be encoded for this model:", *lines[:_SHOWN], *overflow]))

    def lines(self, examples: Iterable[Example], *, progress: bool = True) -> Iterator[str]:
        """Yield one line per row that cannot be encoded: id, file, reason, question."""
        reported: set[tuple[str, str, str]] = set()
        for example in track(examples, "Checking rows", shown=progress):
            fault = self.fault(example)
            if not fault or (example.id, example.question, example.answer) in reported:
                continue
            reported.add((example.id, example.question, example.answer))
            file = f", {example.image.path}" if isinstance(example.image, ImageFile) else ""
            yield f"row {example.id}{file}: {fault} (question: {short_repr(example.question, 60)})"

    def fault(self, example: Example) -> str:
        """Return why the row cannot be encoded, or empty if it can."""
        for name, text in (("question", example.question), *_encoded_answers(example)):
            if fault := self._special(name, text):
                return fault
        try:
            image_tokens = self._picture(example.image) if example.image else 0
        except UserError as error:
            return str(error).removesuffix(".")
        return self._length(example, image_tokens)

    def _special(self, name: str, text: str) -> str:
        """Return which special token a text holds, or empty if none."""
        match = self._marks.search(text)
        return (
            f"the {name} holds {short_repr(match[0])}, a special token of this model; remove it or write it otherwise"
            if match
            else ""
        )

    def _length(self, example: Example, image_tokens: int) -> str:
        """Return whether the row is too long."""
        if self._room is None:
            return ""
        has_image, texts = example.image is not None, [text for _, text in _encoded_answers(example) if text]
        longest_bytes = max((len(text.encode()) for text in texts), default=0)
        if self._around[has_image] + image_tokens + len(example.question.encode()) + longest_bytes + 2 <= self._room:
            return ""
        answer_tokens = max((len(answer_ids(self.processor, self.family, text)) for text in texts), default=0)
        tokens = self._tokens(example.question, has_image) + image_tokens + answer_tokens + 1
        return too_long(tokens, self._room).removesuffix(".") if tokens > self._room else ""

    def _tokens(self, question: str, has_image: bool) -> int:
        """Return the tokens of a prompt, image placeholders unexpanded."""
        text = self.family.prompt(self.processor, question, has_image=has_image, instruction=self.instruction)
        return len(encoder(self.processor, self.family).tokens(text))

    def _picture(self, image: ImageSource) -> int:
        """Return how many tokens an image adds, or raise if the processor rejects it."""
        size = self._size_of(image.path) if isinstance(image, ImageFile) else image.load().size
        if size not in self._expanded:
            self._expanded[size] = self._image_tokens(size)
        return self._expanded[size]

    def _image_tokens(self, size: tuple[int, int]) -> int:
        text = self.family.prompt(self.processor, _QUESTION, has_image=True, instruction=self.instruction)
        try:
            row = self.family.encode(self.processor, [text], [Image.new("RGB", size)])
        # Image processors raise exceptions of any kind for shapes that they cannot process.
        except Exception as error:
            raise UserError(
                f"the model's processor does not take a picture of {size[0]} x {size[1]} pixels ({short_repr(str(error))})"
            ) from error
        return int(row["input_ids"].shape[1]) - self._around[True]


def _encoded_answers(example: Example) -> list[tuple[str, str]]:
    """Return all texts that may follow the question in the model's input, with the names of their columns."""
    return [
        ("answer", example.answer),
        ("paraphrase", example.paraphrase),
        *(("false answer", text) for text in example.perturbed),
        *(("option", text) for text in example.options),
    ]


def of_model(model: Path | str) -> Preflight:
    """Return the check for a checkpoint, from its configs and processor, without weights."""
    with without_weights("cpu"):
        return Preflight(open_config(model))


def _marks(processor: Any) -> re.Pattern[str]:
    """Return a pattern of special tokens and image placeholders. Plain words are left out."""
    added_tokens = processor.tokenizer.added_tokens_decoder.values()
    marks = [vars(processor).get(name) for name in _MARKS]
    texts = {token.content for token in added_tokens if token.special} | {
        text for text in marks if isinstance(text, str)
    }
    special_texts = sorted(
        (text for text in texts if text.strip() and not text.strip().isalnum()), key=len, reverse=True
    )
    return re.compile("|".join(map(re.escape, special_texts)) or r"(?!)")
