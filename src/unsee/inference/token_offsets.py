"""Character offsets of answer tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unsee.api import Family
from unsee.errors import TrainingError, UserError
from unsee.inference.encoder import answer_context, encoder

Span = tuple[int, int]
"""First character of a piece of text, and the one after its last."""


def tokens_within(processor: Any, family: Family, text: str, spans: Sequence[Span]) -> list[bool]:
    """Return for each token of an answer, without EOS, whether it shares a character with one of the spans.

    Args:
        processor: Processor with a fast tokenizer.
        family: Family of the model, whose prompt precedes the answer.
        text: Answer.
        spans: Pieces of it.

    Raises:
        UserError: The tokenizer is a slow one, without offsets.
    """
    offsets = answer_offsets(processor, family, text, encoder(processor, family).answer(text))
    return [any(start < span_end and end > span_start for span_start, span_end in spans) for start, end in offsets]


def answer_offsets(processor: Any, family: Family, text: str, ids: Sequence[int]) -> list[Span]:
    """Return the character span in `text` of each answer token in `ids`.

    A leading blank that a tokenizer merges into the first word belongs to nothing.

    Args:
        processor: Processor with a fast tokenizer.
        family: Family of the model, whose prompt precedes the answer.
        text: Answer.
        ids: Its tokens, without EOS.

    Raises:
        UserError: The tokenizer is a slow one, without offsets.
        TrainingError: The text alone has other tokens than `ids`.
    """
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast:
        raise UserError(
            "Finding words among the tokens of an answer needs a fast tokenizer (tokenizer.json): only those say which "
            "characters a token stands for. Give a checkpoint with one."
        )
    for prefix in ("".join(answer_context(processor, family, text)), ""):
        encoding = tokenizer(prefix + text, add_special_tokens=False, return_offsets_mapping=True)
        start = max(0, len(encoding["input_ids"]) - len(ids))
        if tuple(encoding["input_ids"][start:]) == tuple(ids):
            spans = encoding["offset_mapping"][start:]
            return [(max(0, start - len(prefix)), max(0, end - len(prefix))) for start, end in spans]
    raise TrainingError(f"The answer {text!r} is tokenised in two ways, so its masked text cannot be found.")
