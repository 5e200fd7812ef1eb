"""Cache of encoded prompts and answers, one per processor."""

from __future__ import annotations

from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor

from unsee.api import Family
from unsee.api.request import Prompt
from unsee.models.auto import answer_start, own_span, plain_ids, starts_with_bos

CACHE_BYTES = 512 * 2**20
"""Memory for encoded prompts and pixels before the cache is cleared."""


class Encoder:
    """Encodes prompts with the family's processor and caches them.

    Equal images share one pixel tensor.
    """

    def __init__(self, processor: Any, family: Family) -> None:
        """Start with an empty cache."""
        self._processor = ref(processor)  # weak, since the encoder is cached for the processor's lifetime
        self.family = family
        self._rows: dict[tuple[str, str, str], dict[str, Tensor]] = {}
        self._pixels: dict[tuple[str, str], Tensor] = {}
        self._answers: dict[str, tuple[int, ...]] = {}
        self._bytes = 0
        self._one_at_a_time = RLock()  # fast tokenizers are not thread-safe

    @property
    def processor(self) -> Any:
        """Processor that this encoder belongs to."""
        return self._processor()

    def answer(self, text: str) -> tuple[int, ...]:
        """Return `answer_ids` of the text."""
        with self._one_at_a_time:
            if text not in self._answers:
                self._answers[text] = answer_ids(self.processor, self.family, text)
                self._bytes += len(text) + 8 * len(self._answers[text])
            return self._answers[text]

    def tokens(self, prompt: str) -> tuple[int, ...]:
        """Tokenise a prompt, image placeholders unexpanded, with exactly one BOS."""
        with self._one_at_a_time:
            add_bos = not starts_with_bos(self.processor, prompt)
            ids = self.processor.tokenizer(prompt, add_special_tokens=add_bos)["input_ids"]
            return tuple(ids[own_span(self.processor, prompt, ids)])

    def text(self, prompt: Prompt) -> str:
        """Return the chat-template text of a prompt, up to the start of the answer."""
        return self.family.prompt(
            self.processor, prompt.question, has_image=prompt.image is not None, instruction=prompt.instruction
        )

    def row(self, prompt: Prompt) -> dict[str, Tensor]:
        """Return the model inputs of one prompt, batch axis of size 1, unpadded."""
        key = (prompt.question, prompt.image.key if prompt.image else "", prompt.instruction)
        with self._one_at_a_time:
            if key not in self._rows:
                self._rows[key] = self._encode(prompt, key[1])
            return self._rows[key]

    def _encode(self, prompt: Prompt, key: str) -> dict[str, Tensor]:
        image = prompt.image.load() if prompt.image else None
        row = self.family.encode(self.processor, [self.text(prompt)], [image])
        if self._bytes > CACHE_BYTES:
            self._rows, self._pixels, self._answers, self._bytes = {}, {}, {}, 0
        return {name: self._deduplicate(key, name, value) for name, value in row.items()}

    def _deduplicate(self, key: str, name: str, value: Tensor) -> Tensor:
        cached = self._pixels.get((key, name))
        if key and cached is not None and torch.equal(cached, value):
            return cached
        self._bytes += value.nbytes
        self._pixels[key, name] = value
        return value


_ENCODERS: WeakKeyDictionary[Any, Encoder] = WeakKeyDictionary()


def encoder(processor: Any, family: Family) -> Encoder:
    """Return the encoder of this processor, with the processor's lifetime."""
    if processor not in _ENCODERS:
        _ENCODERS[processor] = Encoder(processor, family)
    return _ENCODERS[processor]


def answer_ids(processor: Any, family: Family, text: str) -> tuple[int, ...]:
    """Tokenise an answer as a continuation of the prompt: same leading space, no EOS.

    The answer is tokenised in context if the prompt ends at a token border, else on its own.
    """
    prompt, blank = answer_context(processor, family, text)
    prompt_ids, whole_ids = plain_ids(processor, prompt), plain_ids(processor, prompt + blank + text)
    if whole_ids[: len(prompt_ids)] == prompt_ids:
        return tuple(whole_ids[len(prompt_ids) :])
    return tuple(plain_ids(processor, text))


def answer_context(processor: Any, family: Family, text: str) -> tuple[str, str]:
    """Return a prompt without image, and the blank between it and the answer, none if the answer begins with one."""
    prompt = family.prompt(processor, "?", has_image=False)
    return prompt, "" if text[:1].isspace() else answer_start(processor, prompt)
