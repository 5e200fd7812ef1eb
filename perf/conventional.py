"""Conventional implementation, as in published code, with unsee's definitions of losses.

A second live, deep-copied model as reference; logits for every position of the sequence; images decoded, resized and
encoded again in every step; torch's AdamW as it comes; no caches. Losses are defined as in unsee, so that both sides
must report the same value for the same batch. Shapes: b batch, t tokens, v vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy, kl_div, logsigmoid, pad

from perf.subject import INSTRUCTION
from unsee.api import Example, Session
from unsee.api.request import Target
from unsee.inference.batching import device_of, target_ids
from unsee.models.auto import eos_id
from unsee.training.precision import autocast

IGNORE = -100
Terms = Iterator[Tensor]


def encode(session: Session, targets: Sequence[Target]) -> tuple[dict[str, Tensor], Tensor]:
    """Return right-padded inputs and labels_bt (answer and EOS), through the processor, from the pixels, each time."""
    rows = []
    for target in targets:
        question = target.example.question
        image = target.example.image
        prompt = session.family.prompt(
            session.processor, question, has_image=image is not None, instruction=target.instruction
        )
        row = session.family.encode(session.processor, [prompt], [image.load() if image else None])
        answer = target_ids(session.processor, session.family, target)
        whole = session.family.extend(row, answer)
        labels = torch.full_like(whole["input_ids"], IGNORE)
        labels[0, -len(answer) :] = torch.tensor(answer)
        rows.append({**whole, "labels": labels})
    inputs = padded(rows, eos_id(session.processor))
    where = device_of(session.model)
    labels_bt = inputs.pop("labels")
    return {key: value.to(where) for key, value in inputs.items()}, labels_bt.to(where)


def padded(rows: Sequence[dict[str, Tensor]], fill: int) -> dict[str, Tensor]:
    """Return the rows as one batch: inputs per token are padded on the right, those of the images put behind each other."""
    width = max(row["input_ids"].shape[1] for row in rows)
    fills = {"input_ids": fill, "labels": IGNORE}
    batch = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        if any(key in row and row[key].shape == row["input_ids"].shape for row in rows):
            values = [row.get(key, torch.zeros_like(row["input_ids"])) for row in rows]
            values = [pad(value, (0, width - value.shape[1]), value=fills.get(key, 0)) for value in values]
        else:
            values = [row[key] for row in rows if key in row]
        batch[key] = torch.cat(values)
    return batch


def nll_bt(logits_btv: Tensor, labels_bt: Tensor) -> Tensor:
    """Return the cross-entropy at every position of the sequence, 0 where there is no label."""
    logits_btv, labels_bt = logits_btv[:, :-1].float(), labels_bt[:, 1:]
    flat = cross_entropy(logits_btv.flatten(0, 1), labels_bt.flatten(), ignore_index=IGNORE, reduction="none")
    return flat.view_as(labels_bt)


def mean_nll(logits_btv: Tensor, labels_bt: Tensor) -> Tensor:
    """Return the cross-entropy: mean over an answer's tokens, then over samples."""
    counts_b = (labels_bt[:, 1:] != IGNORE).sum(1)
    return (nll_bt(logits_btv, labels_bt).sum(1) / counts_b).mean()


def mean_kl(teacher_btv: Tensor, student_btv: Tensor, labels_bt: Tensor) -> Tensor:
    """Return KL(teacher || student), computed at every position, averaged over the answer positions."""
    teacher_btv = teacher_btv[:, :-1].float().log_softmax(-1)
    student_btv = student_btv[:, :-1].float().log_softmax(-1)
    kl_bt = kl_div(student_btv, teacher_btv, reduction="none", log_target=True).sum(-1)
    mask_bt = labels_bt[:, 1:] != IGNORE
    return ((kl_bt * mask_bt).sum(1) / mask_bt.sum(1)).mean()


class Conventional:
    """Model in training and, where a loss needs a reference, its deep copy."""

    def __init__(self, session: Session, objective: str) -> None:
        """Take over the session's model; `objective` is a key of `OBJECTIVES`."""
        self.session = session
        self.model: Any = session.model
        self.objective = OBJECTIVES[objective]
        self.reference: Any = copy.deepcopy(self.model).eval() if objective in REFERENCED else None
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=session.training.lr, weight_decay=0.0)

    def step(self, forget: Sequence[Target], second: Sequence[Target]) -> float:
        """Run one optimiser step on a forget batch and a second one, and return the loss.

        Terms are backpropagated one after the other, as in the published alternation of forget and retain steps.
        """
        self.model.train()
        total = 0.0
        terms = self.objective(self, forget, second)
        while (loss := self._next(terms)) is not None:
            loss.backward()
            total += loss.item()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def _next(self, terms: Terms) -> Tensor | None:
        """Return the next loss term in unsee's precision, or None after the last."""
        with autocast(self.model, self.session.training):
            return next(terms, None)

    def nll(self, targets: Sequence[Target]) -> Tensor:
        """Return the mean cross-entropy of the answers."""
        inputs, labels_bt = encode(self.session, targets)
        return mean_nll(self.model(**inputs).logits, labels_bt)


def ga(side: Conventional, forget: Sequence[Target], _: Sequence[Target]) -> Terms:
    """Ascend on the forget answers."""
    yield -side.nll(forget)


def reject(side: Conventional, forget: Sequence[Target], _: Sequence[Target]) -> Terms:
    """Descend on refusals (which the targets hold)."""
    yield side.nll(forget)


def npo(side: Conventional, forget: Sequence[Target], _: Sequence[Target], beta: float = 0.1) -> Terms:
    """Run the second model on the batch in every step."""
    inputs, labels_bt = encode(side.session, forget)
    with torch.no_grad():
        start_b = -nll_bt(side.reference(**inputs).logits, labels_bt).sum(1)
    logp_b = -nll_bt(side.model(**inputs).logits, labels_bt).sum(1)
    yield -(2 / beta) * logsigmoid(-beta * (logp_b - start_b)).mean()


def grad_diff(side: Conventional, forget: Sequence[Target], retain: Sequence[Target]) -> Terms:
    """Ascend on forget, descend on retain."""
    yield -side.nll(forget)
    yield side.nll(retain)


def kl(side: Conventional, forget: Sequence[Target], retain: Sequence[Target]) -> Terms:
    """Ascend on forget, with a KL to the second model on retain."""
    yield -side.nll(forget)
    inputs, labels_bt = encode(side.session, retain)
    with torch.no_grad():
        teacher_btv = side.reference(**inputs).logits
    yield mean_kl(teacher_btv, side.model(**inputs).logits, labels_bt)


def pubg(side: Conventional, forget: Sequence[Target], guided: Sequence[Target]) -> Terms:
    """Ascend on forget, imitate the instructed second model on guidance answers."""
    yield -side.nll(forget)
    inputs, labels_bt = encode(side.session, guided)
    told, told_labels_bt = encode(side.session, [instructed(target) for target in guided])
    with torch.no_grad():
        teacher_btv = side.reference(**told).logits
    student_btv = side.model(**inputs).logits
    yield aligned_kl(teacher_btv, told_labels_bt, student_btv, labels_bt)


def instructed(target: Target) -> Target:
    """Return the target with the privacy instruction before its question."""
    return replace(target, instruction=INSTRUCTION)


def aligned_kl(teacher_btv: Tensor, teacher_labels_bt: Tensor, student_btv: Tensor, labels_bt: Tensor) -> Tensor:
    """Return the mean KL where teacher and student have prompts of different length: answers are cut out row by row."""
    teacher_btv, student_btv = teacher_btv.float().log_softmax(-1), student_btv.float().log_softmax(-1)
    rows = []
    for row in range(len(labels_bt)):
        theirs_av = teacher_btv[row, :-1][teacher_labels_bt[row, 1:] != IGNORE]
        mine_av = student_btv[row, :-1][labels_bt[row, 1:] != IGNORE]
        rows.append((theirs_av.exp() * (theirs_av - mine_av)).sum(-1).mean())
    return torch.stack(rows).mean()


OBJECTIVES: dict[str, Callable[[Conventional, Sequence[Target], Sequence[Target]], Terms]] = {
    "ga": ga,
    "reject": reject,
    "npo": npo,
    "grad_diff": grad_diff,
    "kl": kl,
    "pubg": pubg,
}
REFERENCED = frozenset({"npo", "kl", "pubg"})


def answers(model: Module, session: Session, questions: Sequence[Target], limit: int = 50) -> list[str]:
    """Generate for one question at a time, up to `limit` new tokens."""
    tokenizer = session.processor.tokenizer
    generating: Any = model
    found = []
    for asked in questions:
        inputs = prompted(session, asked.example)
        with torch.no_grad():
            ids_bt = generating.generate(**inputs, max_new_tokens=limit, do_sample=False)
        new = ids_bt[0, inputs["input_ids"].shape[1] :]
        found.append(tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip())
    return found


def prompted(session: Session, example: Example) -> dict[str, Tensor]:
    """Return the inputs of one question, from the pixels."""
    image = example.image
    prompt = session.family.prompt(session.processor, example.question, has_image=image is not None)
    inputs = session.family.encode(session.processor, [prompt], [image.load() if image else None])
    return {key: value.to(device_of(session.model)) for key, value in inputs.items()}
