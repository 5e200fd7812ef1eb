"""Answering many questions at once: left padding, sorted by length, greedy or seeded sampling.

Shapes: b batch, t tokens, v vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import Module
from transformers import LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from unsee.api import Family, ImageSource
from unsee.batching import device_of, encoder, eos_id, pad_id
from unsee.errors import UserError
from unsee.padding import merge


@dataclass(frozen=True)
class Request:
    """One question to be answered."""

    question: str
    image: ImageSource | None = None
    instruction: str = ""


@dataclass(frozen=True)
class Generated:
    """One answer."""

    text: str
    """Special tokens removed, blanks at both ends stripped."""
    token_ids: tuple[int, ...]
    """What was generated, EOS excluded."""
    ended: bool
    """Whether the model stopped by itself (with EOS)."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw tokens."""

    temperature: float = 1.0
    """Logits are divided by it."""
    top_p: float = 1.0
    """Smallest set of tokens with this much probability; 1 = all."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn from."""
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"Sampling needs temperature > 0 and 0 < top_p <= 1, got {self.temperature} and {self.top_p}; "
                "for temperature 0 use greedy decoding."
            )


class _Gumbel(LogitsProcessor):
    """Turns greedy decoding into exact sampling, with one random stream per row (Gumbel-max).

    So an answer depends on its seed and place in the request list, not on what else is in the batch.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self.temperature = sampling.temperature
        self.top_p = TopPLogitsWarper(sampling.top_p) if sampling.top_p < 1 else None
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores_bv = scores.float() / self.temperature
        if self.top_p is not None:
            scores_bv = self.top_p(input_ids, scores_bv)
        uniform_bv = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self.generators])
        noise_bv = -(-uniform_bv.clamp(1e-20, 1 - 1e-7).log()).log()
        return scores_bv + noise_bv.to(scores.device)


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Put the model in eval mode for the block and back into its mode after it."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def seed_of(*parts: object) -> int:
    """Return a 63-bit seed that depends on all parts and on nothing else."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generate(
    model: Module,
    processor: Any,
    family: Family,
    requests: Sequence[Request],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    sampling: Sampling | None = None,
    seed: int = 0,
    progress: str = "",
    places: Sequence[int] | None = None,
) -> list[Generated]:
    """Answer all requests, in their order; greedy unless `sampling` is given. `progress` labels a progress line.

    `places`: where the requests stand in the list that several processes share; draws depend on seed and place.
    """
    encode = encoder(processor, family)
    places = range(len(requests)) if places is None else places
    order = sorted(range(len(requests)), key=lambda i: _length(requests[i]))
    chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    answers: dict[int, Generated] = {}
    with evaluating(model):
        for chunk in track(chunks, description=progress, disable=not progress, transient=True):
            noise = _Gumbel(sampling, [seed_of(seed, places[i]) for i in chunk]) if sampling else None
            rows = [
                encode.row(asked.question, asked.image, asked.instruction) for asked in (requests[i] for i in chunk)
            ]
            ids = _continue(model, processor, rows, max_new_tokens, noise)
            answers.update(zip(chunk, (_read(model, processor, answer) for answer in ids), strict=True))
    return [answers[i] for i in range(len(requests))]


def _length(request: Request) -> tuple[bool, int]:
    """Return a key that orders prompts by length without encoding them: images are longer than any text."""
    return request.image is not None, len(request.instruction) + len(request.question)


def _continue(
    model: Any, processor: Any, rows: Sequence[dict[str, Tensor]], max_new_tokens: int, noise: LogitsProcessor | None
) -> list[list[int]]:
    """Return the ids generated after each prompt, padding included."""
    inputs = {key: value.to(device_of(model)) for key, value in merge(rows, pad_id(processor)).items()}
    processors = LogitsProcessorList([noise] if noise else [])
    ids_bt = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=pad_id(processor),
        logits_processor=processors,
    )
    new: list[list[int]] = ids_bt[:, inputs["input_ids"].shape[1] :].tolist()
    return new


def _stops(model: Any, processor: Any) -> set[int]:
    """Return the ids at which generation stops."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return {eos_id(processor), *(stop for stop in several if stop is not None)}


def _read(model: Any, processor: Any, ids: Sequence[int]) -> Generated:
    """Cut at the first EOS and decode."""
    stops = _stops(model, processor)
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    kept = tuple(ids[:end])
    text = processor.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Generated(text.strip(), kept, end is not None)
