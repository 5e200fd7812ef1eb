"""Training steps of unsee, the conventional way and the bare passes, on the same batches.

The objective given to `minimise` is wrapped: whenever the loop asks for the next loss, the clock stops, the others do the
batch that unsee has just done, and the clock starts again. So unsee's time is that of a whole turn of its loop: batch,
loss, backward, optimiser, log. The first turns (features not yet known, memory not yet touched) are "cold".
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal
from unittest.mock import patch

from perf.bare import Bare
from perf.conventional import Conventional
from perf.subject import INSTRUCTION, Subject
from perf.timing import now, paired, rounded, spread
from unsee.api import Method, Part, Session, Training
from unsee.api.request import Target
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch, collate
from unsee.losses import ga_loss
from unsee.methods.common.guidance import Guide
from unsee.methods.ga import GA
from unsee.methods.grad_diff import GradDiff
from unsee.methods.kl import KL
from unsee.methods.npo import NPO
from unsee.methods.pubg import PUBG
from unsee.methods.reject import Reject
from unsee.training.batch_plan import Plan
from unsee.training.precision import autocast
from unsee.training.recompute import recomputing
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainable import trainable
from unsee.training.trainer import minimise

COLD: Final = 2
"""Turns of the loop before the forget and retain examples have all been seen once."""
SHARED_BATCH: Final = 4
"""Examples per batch of the cases with shared images."""
EVERYTHING: Final[tuple[Part, ...]] = ("vision", "projector", "language")

METHODS: Final[dict[str, Method]] = {
    "ga": GA(),
    "reject": Reject(),
    "npo": NPO(),
    "grad_diff": GradDiff(),
    "kl": KL(),
    "pubg": PUBG(rollouts=1, temperature=0.0, undesired="dataset", instruction=INSTRUCTION),
}
SECOND: Final = {"grad_diff": "retain", "kl": "retain", "pubg": "guided"}
"""What the second pass of a step is on."""


@dataclass(frozen=True)
class Case:
    """One method with one choice of trainable weights."""

    method: str
    tune: Literal["lora", "full"]
    parts: tuple[Part, ...]
    small: bool = False
    """Whether unsee recomputes activations in the backward pass (`training.gradient_checkpointing`); the others do not."""
    shared: bool = False
    """Whether the questions of a batch are about one image, `SHARED` questions per image; batches of `SHARED_BATCH` then."""

    def on(self, subject: Subject) -> Subject:
        """Return the subject with the images and the batch size of this case."""
        return replace(subject.shared(), batch_size=SHARED_BATCH) if self.shared else subject

    def training(self, subject: Subject, steps: int, *, ours: bool = False) -> Training:
        """Return settings that are the same on every side, but for `small`: fixed rate, no clipping, no checks, no checkpoints."""
        return Training(
            tune=self.tune,
            parts=self.parts,
            rank=16,
            alpha=16,
            lr=1e-5,
            epochs=steps,
            max_steps=steps,
            batch_size=subject.batch_size,
            clip=0.0,
            scheduler="constant",
            stop="never",
            checkpoint_every=10 * steps,
            max_new_tokens=24,
            gradient_checkpointing=self.small and ours,
            by_image=self.shared,
            precision=subject.precision,
        )

    def session(self, subject: Subject, out: Path, steps: int, *, ours: bool = False) -> Session:
        """Return a session whose examples are all seen in the first `COLD` turns."""
        on = self.on(subject)
        return on.session(out, self.training(on, steps, ours=ours), people=COLD * on.batch_size)


CASES: Final = {
    "npo_full": Case("npo", "full", EVERYTHING),
    "npo_lora": Case("npo", "lora", EVERYTHING),
    "ga_lora": Case("ga", "lora", EVERYTHING),
    "reject_lora": Case("reject", "lora", EVERYTHING),
    "graddiff_lora": Case("grad_diff", "lora", EVERYTHING),
    "kl_lora": Case("kl", "lora", EVERYTHING),
    "pubg_lora": Case("pubg", "lora", EVERYTHING),
    "npo_small": Case("npo", "lora", EVERYTHING, small=True),
    "kl_small": Case("kl", "lora", EVERYTHING, small=True),
    "full_small": Case("npo", "full", EVERYTHING, small=True),
    "ga_full": Case("ga", "full", EVERYTHING),
    "kl_full": Case("kl", "full", EVERYTHING),
    "ga_frozen": Case("ga", "lora", ("language",)),
    "npo_frozen": Case("npo", "lora", ("language",)),
    "kl_frozen": Case("kl", "lora", ("language",)),
    "npo_shared": Case("npo", "lora", EVERYTHING, shared=True),
    "kl_shared": Case("kl", "lora", EVERYTHING, shared=True),
}
"""`_lora`: adapters on all linear layers, as published; `_full`: all weights; `_frozen`: adapters on the language model only;
`_small`: as `_lora` (`full_small`: all weights), with activations recomputed on unsee's side; `_shared`: as `_lora`, with
several questions per image, as benchmarks have them, and `training.by_image`."""


@dataclass
class Turns:
    """Timing inside unsee's loop, with the other sides taking turns."""

    others: dict[str, Any]
    """Name -> function of (forget targets, second targets) that returns seconds and loss."""
    second: str = ""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    guided: list[Target] = field(default_factory=list)
    _batches: tuple[Sequence[Target], Sequence[Target]] | None = None
    _start: float = 0.0

    def enter(self, forget: Batch, retain: Batch | None) -> None:
        """Stop unsee's clock, let the others run the previous batch, restart the clock."""
        if self._batches is not None:
            self.seconds.setdefault("unsee", []).append(now() - self._start)
            second = self.guided if self.second == "guided" else self._batches[1]
            for name, step in self.others.items():
                seconds, loss = step(self._batches[0], second)
                self.seconds.setdefault(name, []).append(seconds)
                self.losses.setdefault(name, []).append(loss)
        self._batches = (forget.targets, retain.targets if retain and self.second == "retain" else ())
        self._start = now()

    @contextmanager
    def watching(self, method: Method) -> Iterator[None]:
        """Have the method's loop call `enter` before every loss, and note which guidance answers a step uses.

        The other sides work in a thread of their own, where neither autocast nor the saved-tensor hooks of unsee's forward
        pass are in force.
        """
        pick = Guide.pick

        def timed(session: Session, objective: Any, **targets: Any) -> None:
            def entered(forget: Batch, retain: Batch | None) -> Any:
                pool.submit(self.enter, forget, retain).result()
                return objective(forget, retain)

            minimise(session, entered, **targets)

        def picking(guide: Guide, batch: Batch) -> list[Target]:
            self.guided = pick(guide, batch)
            return self.guided

        module = sys.modules[type(method).__module__]
        with (
            ThreadPoolExecutor(1) as pool,
            patch.object(module, "minimise", timed),
            patch.object(Guide, "pick", picking),
        ):
            yield


def unlearn(method: Method, session: Session) -> None:
    """Run the method without a disk cache."""
    session.engine = replace(session.engine, shared_cache=False)
    method.unlearn(session)


def measure(name: str, subject: Subject, repetitions: int) -> dict[str, Any]:
    """Return the ratios of one case."""
    case = CASES[name]
    steps = COLD + repetitions + 1
    with tempfile.TemporaryDirectory() as folder:
        session = case.session(subject, Path(folder) / "unsee", steps, ours=True)
        conventional = Conventional(case.session(subject, Path(folder), steps), case.method)
        turns = Turns(
            {"conventional": _conventional(conventional), "floor": _floor(case, subject, folder, steps)},
            SECOND.get(case.method, ""),
        )
        method = METHODS[case.method]
        with turns.watching(method):
            unlearn(method, session)
    ours = [row["loss"] for row in session.history]
    return {**summary(turns), "loss_gap": _gap(ours, turns.losses["conventional"])}


def _conventional(side: Conventional) -> Any:
    def step(forget: Sequence[Target], second: Sequence[Target]) -> tuple[float, float]:
        start = now()
        loss = side.step(forget, second)
        return now() - start, loss

    return step


def _floor(case: Case, subject: Subject, folder: str, steps: int) -> Any:
    bare = Bare(case.session(subject, Path(folder), steps))

    def step(forget: Sequence[Target], second: Sequence[Target]) -> tuple[float, float]:
        passes = bare.made([forget, second])
        start = now()
        bare.step(passes)
        return now() - start, 0.0

    return step


def summary(turns: Turns) -> dict[str, Any]:
    """Return ratios (repetition by repetition, cold turns left out) and seconds."""
    warm = {name: values[COLD:] for name, values in turns.seconds.items()}
    speedup, floor = paired(warm["conventional"], warm["unsee"]), paired(warm["unsee"], warm["floor"])
    cold = [a / b for a, b in zip(turns.seconds["unsee"][:COLD], turns.seconds["floor"][:COLD], strict=True)]
    return {
        "speedup": speedup["median"],
        "floor": floor["median"],
        "speedup_spread": speedup,
        "floor_spread": floor,
        "floor_cold": rounded(cold[-1]),
        "seconds": {name: spread(values) for name, values in warm.items()},
        "repetitions": len(warm["unsee"]),
    }


def _gap(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return how far the losses of both sides are apart: in the first step, and at most (the weights move on both sides)."""
    gaps = [abs(a - b) / max(1.0, abs(b)) for a, b in zip(ours, theirs, strict=False)]
    return {"first": rounded(gaps[0]), "largest": rounded(max(gaps))}


def measure_trainer(subject: Subject, repetitions: int) -> dict[str, Any]:
    """Return the cost of the training loop against a bare loop of the same objective on the same engine."""
    case = CASES["ga_lora"]
    steps = COLD + repetitions + 1
    with tempfile.TemporaryDirectory() as folder:
        session = case.session(subject, Path(folder) / "unsee", steps)
        turns = Turns({"loop": _loop(case.session(subject, Path(folder), steps))})
        method = GA()
        with turns.watching(method):
            unlearn(method, session)
    warm = {name: values[COLD:] for name, values in turns.seconds.items()}
    overhead = paired(warm["unsee"], warm["loop"])
    gap = _gap([row["loss"] for row in session.history], turns.losses["loop"])
    return {
        "overhead": overhead["median"],
        "overhead_spread": overhead,
        "seconds": {name: spread(values) for name, values in warm.items()},
        "repetitions": len(warm["unsee"]),
        "loss_gap": gap,
    }


def _loop(session: Session) -> Any:
    """Return a training loop in eight lines, with unsee's batches, logits and ways through the layers."""
    import torch

    optimizer = torch.optim.AdamW(trainable(session.model).values(), lr=session.training.lr, fused=True)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    forward = ExitStack().enter_context(recomputing(session.model, session.engine))

    def step(forget: Sequence[Target], _: Sequence[Target]) -> tuple[float, float]:
        start = now()
        session.model.train()
        with autocast(session.model, session.training), forward():
            loss = ga_loss(*answer_logits(session.model, collate(session, forget)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return now() - start, loss.item()

    return step


def memory_work(name: str, side: str, subject: Subject, steps: int = 2) -> None:
    """Do the steps of one side, from making the model on: what a process of its own is measured on."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        session = case.session(subject, Path(folder), steps, ours=side == "unsee")
        if side == "unsee":
            unlearn(METHODS[case.method], session)
            return
        plan = Plan(forget_targets(session), retain_targets(session), session.training, 0)
        runner: Any = Conventional(session, case.method) if side == "conventional" else Bare(session)
        for index in range(steps):
            forget, retain = plan.batch(index)
            second = {"retain": retain, "guided": guidance(forget)}.get(SECOND.get(case.method, ""), [])
            _do(runner, forget, second)


def _do(runner: Conventional | Bare, forget: Sequence[Target], second: Sequence[Target]) -> None:
    if isinstance(runner, Conventional):
        runner.step(forget, second)
    else:
        runner.step(runner.made([forget, second]))


def guidance(forget: Sequence[Target]) -> list[Target]:
    """Return guidance answers as long as those that unsee draws in these measurements."""
    return [Target(example=target.example, token_ids=tuple(range(10, 34)), ended=False) for target in forget]
