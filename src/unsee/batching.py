"""From questions and answers to tensors and back to answer logits: prompts, images, labels, the one shift.

Shapes: b batch, t tokens, a answer positions (right-aligned, at the right end of the left-padded batch), v vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import RLock
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import pad

from unsee import engine
from unsee.api import Example, Family, ImageSource, Session
from unsee.api.request import Target
from unsee.autoclasses import begun, eos_id, own_span, pad_id, plain_ids
from unsee.compat.probes import proven
from unsee.errors import UserError, shown
from unsee.features import encoded
from unsee.losses import per_sample, token_logprobs
from unsee.packing import Packed, keeps_logits, pack, packable, saving
from unsee.padding import IGNORE, apart, merge

CACHE_BYTES = 512 * 2**20
"""Encoded prompts and pixels kept in memory before the encoder starts afresh."""
WORTH_SPLITTING = 256
"""Padded tokens that cost more than a second pass through the model."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Targets as rows, and as one left-padded batch when asked for. `inputs` goes to `model(**inputs)` whole."""

    rows: tuple[Mapping[str, Tensor], ...]
    """Model inputs and labels of each target, batch axis of size 1, unpadded, on the CPU."""
    targets: tuple[Target, ...]
    pad_id: int
    device: torch.device
    index: int = 0
    """Position of the batch in the run; draws that must survive a resume are functions of it."""
    places: tuple[int, ...] = ()
    """Place of each row in the batch of all processes; draws are functions of it, whoever computes the row."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The examples asked about, in batch order."""
        return tuple(target.example for target in self.targets)

    @property
    def images(self) -> tuple[str, ...]:
        """The content key of each row's image, "" for rows without one."""
        return tuple(example.image.key if example.image else "" for example in self.examples)

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """All inputs of the model, padded on the left."""
        rows = [{key: value for key, value in row.items() if key != "labels"} for row in self.rows]
        return self._moved(merge(rows, self.pad_id))

    @cached_property
    def labels_bt(self) -> Tensor:
        """Labels on answers (and EOS), -100 elsewhere."""
        rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in self.rows]
        return self._moved({"labels": merge(rows, self.pad_id)["labels"]})["labels"]

    @cached_property
    def parts(self) -> list[tuple[list[int], Batch]]:
        """The batch as batches of rows of similar length, each with the places of its rows in this one."""
        lengths = [row["input_ids"].shape[1] for row in self.rows]
        return self._by(
            [[kind[i] for i in places] for kind in apart(self.rows) for places in by_length([lengths[i] for i in kind])]
        )

    @cached_property
    def kinds(self) -> list[tuple[list[int], Batch]]:
        """The batch as batches of rows that can stand in one, like `parts`; nearly always the batch itself."""
        return self._by(apart(self.rows))

    def _by(self, groups: list[list[int]]) -> list[tuple[list[int], Batch]]:
        return [(places, self.only(places)) for places in groups] if len(groups) > 1 else [(groups[0], self)]

    def fetched(self) -> Self:
        """Return the batch with its tensors made and on their way to the device."""
        for _, part in self.parts:
            part.inputs, part.labels_bt  # noqa: B018 - cached when first asked for
        return self

    def packed(self, image_token: int) -> Packed:
        """Return the rows packed by image, on the device of the batch."""
        packed = pack(self.rows, self.images, image_token, self.pad_id)
        return packed.to(self.device)

    def only(self, places: Sequence[int]) -> Batch:
        """Return the batch of some of the rows."""
        return replace(
            self,
            rows=tuple(self.rows[i] for i in places),
            targets=tuple(self.targets[i] for i in places),
            places=tuple(self.places[i] for i in places) if self.places else (),
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:  # noqa: ARG002 - accelerate's call
        """Return the batch on another device; tensors go there when they are asked for."""
        return self if torch.device(device) == self.device else replace(self, device=torch.device(device))

    def _moved(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value.to(self.device, non_blocking=True) for key, value in tensors.items()}


def by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Group row numbers so that no row is padded to more than twice its length, unless that wastes little.

    Rows of one group keep their order; a second pass through the model pays from about `WORTH_SPLITTING` padded tokens on.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    groups: list[list[int]] = []
    start = 0
    for place, row in enumerate(order):
        longest = lengths[order[start]]
        wasted = sum(longest - lengths[other] for other in order[place:])
        if place > start and 2 * lengths[row] < longest and wasted >= WORTH_SPLITTING:
            groups.append(sorted(order[start:place]))
            start = place
    return [*groups, sorted(order[start:])]


class Encoder:
    """Encodes prompts through the family's processor and remembers them; equal images share one pixel tensor."""

    def __init__(self, processor: Any, family: Family) -> None:
        """Start with nothing remembered."""
        self.processor = processor
        self.family = family
        self._rows: dict[tuple[str, str, str], dict[str, Tensor]] = {}
        self._pixels: dict[tuple[str, str], Tensor] = {}
        self._answers: dict[str, tuple[int, ...]] = {}
        self._bytes = 0
        self._one_at_a_time = RLock()  # fast tokenizers are not made for two threads

    def answer(self, text: str) -> tuple[int, ...]:
        """Return `answer_ids` of the text."""
        with self._one_at_a_time:
            if text not in self._answers:
                self._answers[text] = answer_ids(self.processor, self.family, text)
                self._bytes += len(text) + 8 * len(self._answers[text])
            return self._answers[text]

    def tokens(self, prompt: str) -> tuple[int, ...]:
        """Tokenise a prompt, image marks unexpanded; a template that writes the BOS token itself gets no second one."""
        with self._one_at_a_time:
            special = not begun(self.processor, prompt)
            ids = self.processor.tokenizer(prompt, add_special_tokens=special)["input_ids"]
            return tuple(ids[own_span(self.processor, prompt, ids)])

    def row(self, question: str, image: ImageSource | None, instruction: str = "") -> dict[str, Tensor]:
        """Return the model inputs of one prompt, batch axis of size 1, unpadded."""
        key = (question, image.key if image else "", instruction)
        with self._one_at_a_time:
            if key not in self._rows:
                self._rows[key] = self._encode(question, image, instruction, key[1])
            return self._rows[key]

    def _encode(self, question: str, image: ImageSource | None, instruction: str, key: str) -> dict[str, Tensor]:
        text = self.family.prompt(self.processor, question, has_image=image is not None, instruction=instruction)
        row = self.family.encode(self.processor, [text], [image.load() if image else None])
        if self._bytes > CACHE_BYTES:
            self._rows, self._pixels, self._answers, self._bytes = {}, {}, {}, 0
        return {name: self._shared(key, name, value) for name, value in row.items()}

    def _shared(self, key: str, name: str, value: Tensor) -> Tensor:
        known = self._pixels.get((key, name))
        if key and known is not None and torch.equal(known, value):
            return known
        self._bytes += value.nbytes
        self._pixels[key, name] = value
        return value


_ENCODERS: WeakKeyDictionary[Any, Encoder] = WeakKeyDictionary()


def encoder(processor: Any, family: Family) -> Encoder:
    """Return the encoder of this processor; it lives as long as the processor."""
    if processor not in _ENCODERS:
        _ENCODERS[processor] = Encoder(processor, family)
    return _ENCODERS[processor]


def answer_ids(processor: Any, family: Family, text: str) -> tuple[int, ...]:
    """Tokenise an answer as it continues the prompt: same leading space, text otherwise unchanged, no EOS.

    Tokenised in context and cut where the prompt ends if that is a token border, else on its own.
    """
    context = family.prompt(processor, "?", has_image=False)
    lead = "" if context[-1:].isspace() or text[:1].isspace() else " "
    head, whole = plain_ids(processor, context), plain_ids(processor, context + lead + text)
    if whole[: len(head)] == head:
        return tuple(whole[len(head) :])
    return tuple(plain_ids(processor, text))


def target_ids(processor: Any, family: Family, target: Target) -> tuple[int, ...]:
    """Return the supervised ids of a target: its answer and, if it ended, EOS."""
    ids = target.token_ids
    if ids is None:
        text = target.example.answer if target.text is None else target.text
        if not text.strip():
            raise UserError(f"Example {target.example.id!r} has an empty answer; give it one or leave the row out.")
        ids = encoder(processor, family).answer(text)
    supervised = (*ids, eos_id(processor)) if target.ended else tuple(ids)
    if not supervised:
        raise UserError(f"Example {target.example.id!r} has an answer without tokens; give it one or leave it out.")
    return supervised


def collate(session: Session, targets: Sequence[Target], index: int = 0, places: Sequence[int] | None = None) -> Batch:
    """Return the batch of these targets on the model's device: left-padded, labels on answers (and EOS) only.

    `places`: where the rows stand in the batch of all processes, if there are several.
    """
    encode = encoder(session.processor, session.family)
    rows = []
    for target in targets:
        prompt = encode.row(target.example.question, target.example.image, target.instruction)
        ids = target_ids(session.processor, session.family, target)
        row = session.family.extend(prompt, ids)
        require_room(session.model, row["input_ids"].shape[1], target.example.question)
        labels = torch.full_like(row["input_ids"], IGNORE)
        labels[0, -len(ids) :] = torch.tensor(ids)
        rows.append({**row, "labels": labels})
    return Batch(
        rows=tuple(rows),
        targets=tuple(targets),
        pad_id=pad_id(session.processor),
        device=device_of(session.model),
        index=index,
        places=tuple(range(len(targets)) if places is None else places),
    )


def room(model: Any) -> int | None:
    """Return the most tokens that the model reads; None if it has no such limit."""
    config = (model.get_base_model() if isinstance(model, PeftModel) else model).config.get_text_config()
    most, rotary = vars(config).get("max_position_embeddings"), vars(config).get("rope_parameters") or {}
    return int(most) if most and rotary.get("rope_type") != "dynamic" else None


def require_room(model: Any, tokens: int, question: str) -> None:
    """Raise if a row is longer than the model reads: nothing is ever cut, for the cut would go through the image."""
    most = room(model)
    if most and tokens > most:
        raise UserError(f"The question {shown(question)} {too_long(tokens, most)}")


def too_long(tokens: int, most: int) -> str:
    """Return the half sentence about a row that is longer than the model reads."""
    return (
        f"takes {tokens} tokens with its image and answer, but the model reads at most {most}. "
        "Shorten it, let the processor make images smaller (its `size`), or leave it out."
    )


def device_of(model: Module) -> torch.device:
    """Return where the model's weights lie."""
    return next(model.parameters()).device


def answer_logits(model: Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return logits_bav and labels_ba of the answer positions: `logits[:, i]` predicts `labels[:, i]`.

    The only place where logits are shifted. Logits exist for the longest answer of the batch, not for the prompt;
    shorter answers are right-aligned and preceded by labels of -100. Rows of very different length go through the model
    apart; what a frozen vision tower says about an image is computed once (`unsee.features`).
    """
    parts = batch.parts if engine.current().split_batches else batch.kinds
    found = [_answer_logits(model, part) for _, part in parts]
    if len(found) == 1:
        return found[0]
    width = max(labels_ba.shape[1] for _, labels_ba in found)
    logits_bav = torch.cat([_widened(logits_bav, width, 0.0) for logits_bav, _ in found])
    labels_ba = torch.cat([_widened(labels_ba, width, IGNORE) for _, labels_ba in found])
    back = torch.tensor([place for places, _ in parts for place in places], device=labels_ba.device).argsort()
    return logits_bav[back], labels_ba[back]


def _answer_logits(model: Module, batch: Batch) -> tuple[Tensor, Tensor]:
    image_token = packable(model) if engine.current().shared_prefix else None
    if image_token is not None and _worth_packing(model, batch, image_token):
        return _packed_logits(model, batch, image_token)
    inputs = encoded(model, batch.rows, batch.images, batch.inputs)
    cut = engine.current().answer_logits and keeps_logits(model) and _cutting_proven(model, batch)
    return _row_logits(model, batch, inputs, cut=cut)


def _row_logits(model: Module, batch: Batch, inputs: Mapping[str, Any], *, cut: bool) -> tuple[Tensor, Tensor]:
    """Answer logits with a row for each question; `cut`: compute no logits for the prompts."""
    width = int((batch.labels_bt != IGNORE).any(0).sum())
    kept = {"logits_to_keep": width + 1} if cut else {}
    output = model(**inputs, **kept, use_cache=False)
    return output.logits[:, -width - 1 : -1], batch.labels_bt[:, -width:]


def _cutting_proven(model: Module, batch: Batch) -> bool:
    """Tell whether the model computes the same logits when asked for the answer positions only."""
    small = batch.only([0])
    return proven(
        "answer_logits",
        model,
        lambda: _row_logits(model, small, small.inputs, cut=True)[0],
        lambda: _row_logits(model, small, small.inputs, cut=False)[0],
    )


def _worth_packing(model: Module, batch: Batch, image_token: int) -> bool:
    """Tell whether packing spares enough tokens and was found to change no logits."""
    spared = saving(batch.rows, batch.images, image_token)
    return spared >= WORTH_SPLITTING and _packing_proven(model, batch, image_token)


def _packing_proven(model: Module, batch: Batch, image_token: int) -> bool:
    """Tell whether two questions about one image have the same logits in one row as in two."""
    image = Counter(key for key in batch.images if key).most_common(1)[0][0]
    small = batch.only([place for place, key in enumerate(batch.images) if key == image][:2])
    return proven(
        "packed_rows",
        model,
        lambda: _at_answers(*_packed_logits(model, small, image_token)),
        lambda: _at_answers(*_row_logits(model, small, small.inputs, cut=False)),
    )


def _at_answers(logits_bav: Tensor, labels_ba: Tensor) -> Tensor:
    """Return the logits where there is an answer."""
    return logits_bav[labels_ba != IGNORE]


def _packed_logits(model: Module, batch: Batch, image_token: int) -> tuple[Tensor, Tensor]:
    """Answer logits with all questions about an image in one row (`unsee.packing`)."""
    packed = batch.packed(image_token)
    inputs = encoded(model, packed.rows, packed.images, packed.inputs)
    output = model(**inputs, logits_to_keep=packed.kept, use_cache=False)
    return packed.answers(output.logits), packed.labels_ra


def _widened(values: Tensor, width: int, fill: float) -> Tensor:
    """Put `fill` before the answer positions (axis 1) of the values."""
    behind = [0, 0] * (values.ndim - 2)
    return pad(values, [*behind, width - values.shape[1], 0], value=fill)


@dataclass(frozen=True)
class AnswerLogprob:
    """Log-likelihood of answers."""

    token_ba: Tensor
    """Per token, 0 at padding."""
    sum_b: Tensor
    """Sum over the tokens of an answer."""
    mean_b: Tensor
    """Mean over the tokens of an answer."""


def answer_logprob(model: Module, batch: Batch) -> AnswerLogprob:
    """Return log p of the answers, EOS included: per token, per-sample sum, per-sample mean."""
    logits_bav, labels_ba = answer_logits(model, batch)
    token_ba = token_logprobs(logits_bav, labels_ba)
    return AnswerLogprob(
        token_ba, per_sample(token_ba, labels_ba, "sequence_sum"), per_sample(token_ba, labels_ba, "token_mean")
    )
