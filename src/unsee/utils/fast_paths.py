"""Which fast paths are taken. Each gives the numbers of the plain path (tests state the tolerance) and can be switched off.

A fast path asks `current()`; `with using(PLAIN):` or `--engine plain` switches all of them off. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal

from unsee.errors import UserError

Name = Literal["fast", "plain"]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One switch for each fast path."""

    answer_logits: bool = True
    """Logits at answer positions only, instead of the whole sequence times the vocabulary."""
    split_batches: bool = True
    """Rows of very different length (images and bare text) go through the model apart, instead of padded to the longest."""
    vision_features: bool = True
    """What a frozen vision tower and projector say about an image is computed once, instead of in every step."""
    reference: bool = True
    """The start model is the model with adapters off, or what it said before training; instead of a second live copy asked in every step."""
    separate_terms: bool = True
    """Each term of a loss is backpropagated as soon as it is known, instead of holding all graphs until the sum."""
    recompute: bool = True
    """Results of norms, activation functions and gates are made again in the backward pass, instead of kept for it."""
    prefetch: bool = True
    """The next batch is made in the background while the model works on this one."""
    shared_prefix: bool = True
    """Questions about one image share its encoding and prefill, instead of each starting from the pixels."""
    shared_cache: bool = True
    """What depends only on start weights and data (likelihoods, answers) is kept on disk and shared over runs."""


FAST: Final = Engine()
PLAIN: Final = Engine(
    answer_logits=False,
    split_batches=False,
    vision_features=False,
    reference=False,
    separate_terms=False,
    recompute=False,
    prefetch=False,
    shared_prefix=False,
    shared_cache=False,
)

_CURRENT: ContextVar[Engine] = ContextVar("engine", default=FAST)


def current() -> Engine:
    """Return the engine in force."""
    return _CURRENT.get()


@contextmanager
def using(engine: Engine | Name) -> Iterator[Engine]:
    """Put an engine in force for the block."""
    token = _CURRENT.set(named(engine) if isinstance(engine, str) else engine)
    try:
        yield _CURRENT.get()
    finally:
        _CURRENT.reset(token)


def named(name: str) -> Engine:
    """Return the engine `fast` or `plain`."""
    if name not in ("fast", "plain"):
        raise UserError(f"engine must be fast or plain, got {name!r}.")
    return FAST if name == "fast" else PLAIN
