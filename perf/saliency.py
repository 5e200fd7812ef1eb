"""MMUnlearner's mask and whole run: one sweep into bits, against two sweeps into files.

Both sides see the same examples in the same order. `mmunlearner_mask` uses all of them on both sides;
`mmunlearner_mask_stop` lets unsee stop when the bits stay what they are; `mmunlearner_run` is the published sequence
(masks, then every retain batch a step) against unsee's (mask from a part of the data, as many retain as forget batches).
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from perf.conventional import Conventional, encode, mean_nll
from perf.steps import EVERYTHING, unlearn
from perf.subject import Subject
from perf.timing import paired, rounded, spread, timed
from unsee.api import Role, Session, Training
from unsee.api.request import Target
from unsee.inference import encoder
from unsee.methods.mmunlearner.masks import Mask, agreement
from unsee.methods.mmunlearner.method import MMUnlearner
from unsee.methods.mmunlearner.saliency import Sweep, preserve_targets, saliency_mask, saliency_targets
from unsee.training.precision import autocast

VISION: Final = ("vision_tower", "multi_modal_projector")
LANGUAGE: Final = ("language_model", "lm_head")
EPSILON: Final = 1e-15
KEPT_NAMES: Final = ("proj", "fc", "linear", "mlp", "qkv")
"""Names whose mask entries the published code uses; all others it drops."""
PUBLISHED_BATCH: Final = 4
PEOPLE: Final = 500
"""In MLLMU-Bench."""
ALL: Final = Sweep(samples=10**9, tolerance=0.0)
"""Every sample counts, one by one."""

Masks = dict[str, dict[str, Tensor]]
"""vision, language, both -> parameter name -> kept weights."""


def published_mask(session: Session, folder: Path, dtype: torch.dtype) -> Masks:
    """Write three mask files: two sweeps, squared batch-mean gradients on the CPU in `dtype`."""
    sides = _sides(session)
    found: Masks = {}
    files: dict[str, dict[str, Any]] = {}
    for name, parts, preserve in (
        ("vision", VISION, sides["retain"]),
        ("language", LANGUAGE, [*sides["text"], *sides["retain"]]),
    ):
        forget_grad = fisher(session, parts, sides["forget"], dtype)
        preserve_grad = fisher(session, parts, preserve, dtype)
        weight = {key: (forget_grad[key] + EPSILON) / (preserve_grad[key] + EPSILON) >= 1.0 for key in forget_grad}
        files[name] = {"weight": weight, "forget_grad": forget_grad, "preserve_grad": preserve_grad}
        found[name] = weight
    files["both"] = {key: {**files["vision"][key], **files["language"][key]} for key in files["vision"]}
    found["both"] = files["both"]["weight"]
    for name, content in files.items():
        torch.save(content, folder / f"mask_{name}_mask.pt")
    return found


def fisher(session: Session, parts: Sequence[str], targets: Sequence[Target], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the mean over batches of the squared gradient of the batch mean, on the CPU."""
    model: Any = session.model
    model.train()
    chosen = {name: weight for name, weight in model.named_parameters() if any(part in name for part in parts)}
    total = {name: torch.zeros(weight.shape, dtype=dtype) for name, weight in chosen.items()}
    batches = list(in_batches(targets, session.training.batch_size))
    for batch in batches:
        inputs, labels_bt = encode(session, batch)
        with autocast(session.model, session.training):
            loss = mean_nll(model(**inputs).logits, labels_bt)
        loss.backward()
        for name, weight in chosen.items():
            if weight.grad is not None:
                total[name] += weight.grad.detach().cpu().to(dtype) ** 2
        model.zero_grad()
    return {name: value / len(batches) for name, value in total.items()}


def in_batches(targets: Sequence[Target], size: int) -> Iterator[Sequence[Target]]:
    """Yield the targets in order."""
    for start in range(0, len(targets), size):
        yield targets[start : start + size]


def published_run(session: Session, folder: Path) -> None:
    """Make the masks, then alternate: every retain batch, now and then a masked forget step."""
    published_mask(session, folder, torch.float16)
    mask = torch.load(folder / "mask_language_mask.pt", weights_only=True)
    kept = {name: bits for name, bits in mask["weight"].items() if any(part in name for part in KEPT_NAMES)}
    side = Conventional(session, "ga")
    size = session.training.batch_size
    sides = _sides(session)
    forget, retain = list(in_batches(sides["forget"], size)), list(in_batches(sides["retain"], size))
    random.Random(0).shuffle(retain)
    every = max(1, len(retain) // len(forget))
    for number, batch in enumerate(retain):
        if number % every == 0 and number // every < len(forget):
            _masked_ascent(side, forget[number // every], kept)
        _loss(side, batch).backward()
        _clipped_step(side)


def _masked_ascent(side: Conventional, batch: Sequence[Target], kept: dict[str, Tensor]) -> None:
    """Do a forget step: clip, then mask, as published."""
    (-_loss(side, batch)).backward()
    torch.nn.utils.clip_grad_norm_(side.model.parameters(), 1.0)
    for name, weight in side.model.named_parameters():
        if name in kept and weight.grad is not None:
            weight.grad *= kept[name].to(weight.device)
    side.optimizer.step()
    side.optimizer.zero_grad()


def _loss(side: Conventional, batch: Sequence[Target]) -> Tensor:
    """Return the cross-entropy of a batch, in the precision of the session."""
    with autocast(side.model, side.session.training):
        return side.nll(batch)


def _clipped_step(side: Conventional) -> None:
    torch.nn.utils.clip_grad_norm_(side.model.parameters(), 1.0)
    side.optimizer.step()
    side.optimizer.zero_grad()


def _sides(session: Session) -> dict[str, list[Target]]:
    """Return the targets of each side of the ratio, in the order in which unsee takes them."""
    preserve = preserve_targets(session, ALL)
    return {
        "forget": saliency_targets(session, ALL),
        "retain": [target for target in preserve if target.example.image is not None],
        "text": [target for target in preserve if target.example.image is None],
    }


def own_mask(session: Session, sweep: Sweep) -> Mask:
    """Make unsee's mask, nothing remembered from before."""
    encoder._ENCODERS.clear()
    session.engine = replace(session.engine, shared_cache=False)
    return saliency_mask(session, sweep)


@dataclass(frozen=True)
class Amount:
    """How many examples of each side, and what share of P unsee takes in a whole run."""

    forget: int
    retain: int
    text: int
    samples: int = 300
    """Of P, at most, where unsee does not use all."""
    every: int = 50
    """Samples of P between looks at the bits."""

    def session(self, subject: Subject, out: Path) -> Session:
        """Return a session that trains all weights, with so many examples."""
        training = Training(
            tune="full",
            parts=EVERYTHING,
            lr=1e-5,
            epochs=1,
            batch_size=PUBLISHED_BATCH if subject.name == "lab" else subject.batch_size,
            scheduler="constant",
            stop="never",
            precision=subject.precision,
        )
        session = subject.session(out, training)
        examples = {
            Role.FORGET: subject.forget[: self.forget],
            Role.RETAIN: subject.retain[: self.retain],
            Role.RETAIN_TEXT: subject.retain_text[: self.text],
        }
        return replace(session, examples=examples)


def amount(name: str, subject: Subject, batches: int) -> Amount:
    """Return the examples of a case.

    `batches`: for `mmunlearner_mask` the forget batches, with twice as many of retain and of text. Else the retain batches
    for one forget batch: 19 as in the 5 % split of MLLMU-Bench, 9 as in the 10 % split. Its 2,500 text questions and the
    300 samples (and looks every 50) of unsee's sweep are divided by the same number as its people.
    """
    size = subject.batch_size
    if subject.name == "lab":
        return Amount(len(subject.forget), len(subject.retain), len(subject.retain_text))
    if name == "mmunlearner_mask":
        return Amount(batches * size, 2 * batches * size, 2 * batches * size)
    retain = batches * size
    scale = PEOPLE * batches / (batches + 1) / retain
    return Amount(size, retain, round(2500 / scale), max(2, round(300 / scale)), max(1, round(50 / scale)))


def measure(name: str, subject: Subject, batches: int, repetitions: int) -> dict[str, Any]:
    """Return the ratios of a case."""
    how_many = amount(name, subject, batches)
    seconds: dict[str, list[float]] = {"conventional": [], "unsee": []}
    last: dict[str, Any] = {}
    for _ in range(repetitions):
        for side, spent in seconds.items():
            with tempfile.TemporaryDirectory() as folder:
                session = how_many.session(subject, Path(folder))
                work = _work(name, side, session, how_many, Path(folder))
                taken, last[side] = timed(work)
                spent.append(taken)
                last[f"{side} bytes"] = sum(
                    f.stat().st_size for f in Path(folder).rglob("*mask*") if f.is_file()
                ) or sum(f.stat().st_size for f in Path(folder).rglob("*.safetensors"))
    speedup = paired(seconds["conventional"], seconds["unsee"])
    found = {
        "speedup": speedup["median"],
        "speedup_spread": speedup,
        "seconds": {side: spread(values) for side, values in seconds.items()},
        "repetitions": repetitions,
        "examples": {"forget": how_many.forget, "retain": how_many.retain, "text": how_many.text},
    }
    if name == "mmunlearner_run":
        return found
    return {
        **found,
        **_bytes(last),
        **_compared(name, subject, how_many, last["unsee"], spread(seconds["unsee"])["median"]),
    }


def _bytes(last: dict[str, Any]) -> dict[str, Any]:
    ours, theirs = last["unsee bytes"], last["conventional bytes"]
    return {"bytes": {"unsee": ours, "conventional": theirs}, "bytes_ratio": rounded(ours / theirs)}


def _compared(name: str, subject: Subject, how_many: Amount, mask: Mask, median: float) -> dict[str, Any]:
    """Return agreement with the full mask, if it was stopped; else with the published one in fp32, batch by batch."""
    with tempfile.TemporaryDirectory() as folder:
        session = how_many.session(subject, Path(folder))
        if name == "mmunlearner_mask_stop":
            full = own_mask(session, ALL)
            return {"agreement": rounded(agreement(full, mask)), "used": mask.facts["used"]}
        agreed, taken = published_agreement(session, Path(folder))
        return {"agreement": rounded(agreed), "speedup_fp32_fisher": rounded(taken / median)}


def published_agreement(session: Session, folder: Path) -> tuple[float, float]:
    """Return the share of weights on which unsee's and the published mask (fp32) agree.

    And the seconds that the latter took.
    """
    sweep = replace(ALL, granularity="batch", batch_size=session.training.batch_size)
    ours = own_mask(session, sweep)
    taken, masks = timed(lambda: published_mask(session, folder, torch.float32))
    theirs = masks["both"]
    same = sum(int((bits(ours, name) == theirs[name]).sum()) for name in ours.entries)
    return same / sum(entry.size for entry in ours.entries.values()), taken


def bits(mask: Mask, name: str) -> Tensor:
    """Return the mask of one tensor as booleans."""
    from unsee.methods.mmunlearner.masks import unpack

    entry = mask.entries[name]
    return unpack(entry.bits.cpu(), entry.shape)


def _work(name: str, side: str, session: Session, how_many: Amount, folder: Path) -> Callable[[], Any]:
    """Return what a side does."""
    if side == "conventional":
        if name == "mmunlearner_run":
            return lambda: published_run(session, folder)
        return lambda: published_mask(session, folder, torch.float16)
    if name == "mmunlearner_run":
        encoder._ENCODERS.clear()
        return lambda: unlearn(MMUnlearner(p_samples=how_many.samples), session)
    stopping = Sweep(samples=how_many.samples, every=how_many.every)
    return lambda: own_mask(session, ALL if name == "mmunlearner_mask" else stopping)


def memory_work(name: str, side: str, subject: Subject, batches: int) -> None:
    """Do one side once, with one batch of each kind: the peak does not grow with their number."""
    size = subject.batch_size
    how_many = replace(amount(name, subject, batches), forget=size, retain=size, text=size)
    with tempfile.TemporaryDirectory() as folder:
        _work(name, side, how_many.session(subject, Path(folder)), how_many, Path(folder))()
