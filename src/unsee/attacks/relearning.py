"""Relearning: ordinary training on data without the tested facts (arXiv 2605.26992, arXiv 2506.06278)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar, Final, Literal, Self

from transformers import TrainerCallback

from unsee.api import VLM, Attack, Example, Finding, Kind, Role, Session, Training, Victim
from unsee.api.finite import require_values
from unsee.api.request import Target
from unsee.errors import TrainingError, UserError
from unsee.evaluation.recovery import disjoint, finding, probed_rows, recovery, without
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch
from unsee.losses import answer_nll
from unsee.training.trainer import Parts, minimise, prepare
from unsee.utils.terminal import note_once

Source = Literal["facts", "slice", "others", "unrelated"]
_ROLES: Final[dict[str, tuple[Role, ...]]] = {
    "others": (Role.RETAIN, Role.RETAIN_TEXT),
    "unrelated": (Role.GENERAL,),
}


@dataclass(frozen=True, kw_only=True)
class Relearning(Attack):
    """Train the model a few steps with cross-entropy, and ask again after each of `steps`.

    Whoever fine-tunes a model later does nothing else. The curve counts only above the one of the gold model, which learns
    from the same rows. All rates are tried, since the worst counts.
    """

    needs: ClassVar[Literal["answers", "weights"]] = "weights"
    axis: ClassVar[str] = "optimiser steps"

    sources: tuple[Source, ...] = ("facts", "slice", "others", "unrelated")
    """Training rows: one fact of the forgotten entities (tested: the other facts and the name); all rows of a third of the
    forgotten entities (tested: the others); the retain set; questions about no entity [inferred]."""
    steps: tuple[int, ...] = (0, 2, 5, 10, 20, 50)
    """Optimiser steps after which the test questions are asked."""
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3)
    """Learning rates; the published sweep has ten from 1e-6 to 1e-3 for full tuning of large models [inferred]."""
    tune: Literal["lora", "full"] = "lora"
    """Train adapters on the language model, or its weights."""
    rank: int = 16
    """LoRA rank."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of training, as `training.precision`."""
    batch_size: int = 8
    """Rows per step."""
    images: int = 2
    """Test images per entity and question."""

    def __post_init__(self) -> None:
        """Reject settings by which nothing would be trained or asked."""
        super().__post_init__()
        require_values(self, "attack", sources=None, steps=0, rates=0, rank=1, batch_size=1, images=0)
        if not any(self.steps) or min(self.rates) <= 0:
            raise UserError(
                "Relearning has to train: attack.steps must name a step above 0, and attack.rates must be above 0, got "
                f"{self.steps} and {self.rates}."
            )

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect beside the others."""
        if self.tune == "full":
            yield "attack.rank", "with attack.tune=lora"

    def quick(self) -> Self:
        """Return two sources, two rates, and the start and the tenth step or the last one."""
        steps = (0, min(10, max(self.steps)))
        return replace(self, sources=("facts", "others"), steps=steps, rates=(1e-3, 3e-3), images=1)

    def run(self, victim: Victim) -> Iterator[Finding]:
        """Train a fresh copy for every source and rate."""
        rows = probed_rows(victim.benchmark, self.images)
        splits = {source: self._split(victim, source, rows) for source in self.sources}
        usable_splits = {source: split for source, split in splits.items() if split is not None}
        if not usable_splits:
            raise UserError("The data have no rows to relearn from that do not hold what is tested.")
        if skipped := [source for source in self.sources if source not in usable_splits]:
            note_once(f"relearning: no rows without what is tested for {', '.join(skipped)}, so not tried")
        for source, (fit_rows, test_rows) in usable_splits.items():
            for rate in self.rates:
                yield from self._curve(victim, fit_rows, test_rows, rate, f"{source}, lr {rate}")

    def _split(
        self, victim: Victim, source: Source, rows: Sequence[Example]
    ) -> tuple[list[Example], list[Example]] | None:
        """Return the rows to train on and to test on, or None where the data have none."""
        train_examples = victim.benchmark.examples("train")
        if source in _ROLES:
            fit_rows, test_rows = [row for row in train_examples if row.role in _ROLES[source]], list(rows)
        elif source == "facts":
            fit_rows, test_rows = _one_fact(train_examples, rows)
        else:
            fit_rows, test_rows = _some_entities(train_examples, rows, victim.seed)
        fit_rows = disjoint(fit_rows, test_rows)
        return (fit_rows, test_rows) if fit_rows and test_rows else None

    def _curve(
        self, victim: Victim, fit_rows: Sequence[Example], test_rows: Sequence[Example], rate: float, variant: str
    ) -> list[Finding]:
        """Return the findings on a copy of the model at every step of its training."""
        loaded: VLM = victim.open()
        training = Training(
            tune=self.tune,
            rank=self.rank,
            alpha=2 * self.rank,
            lr=rate,
            precision=self.precision,
            batch_size=self.batch_size,
            max_steps=max(self.steps),
            epochs=1 + max(self.steps) * self.batch_size // len(fit_rows),
            scheduler="constant",
            stop="never",
            checkpoint_every=max(self.steps) + 1,
        )
        model = prepare(loaded.model, loaded.family, training, victim.seed)
        attacked_vlm = replace(loaded, model=model)
        findings = [recovery(attacked_vlm, test_rows, variant, 0)] if 0 in self.steps else []
        callback = _Ask(attacked_vlm, test_rows, variant, self.steps, findings)
        session = Session(
            vlm=attacked_vlm,
            examples={},
            training=training,
            seed=victim.seed,
            out=victim.work / "relearning",
            callbacks=[callback],
        )

        def objective(batch: Batch, _: Batch | None) -> Parts:
            return {"loss": answer_nll(*answer_logits(session.model, batch))}

        try:
            minimise(
                session, objective, forget=[Target(example=row, instruction=loaded.instruction) for row in fit_rows]
            )
        except TrainingError:
            note_once(f"relearning: training diverged at {variant}")
            reached_steps = {point.at for point in findings}
            findings += _diverged_findings(
                test_rows, variant, [step for step in self.steps if step not in reached_steps]
            )
        return findings


def _diverged_findings(rows: Sequence[Example], variant: str, steps: Sequence[int]) -> list[Finding]:
    """Return the findings on a diverged model: nothing recovered, all answers degenerate."""
    return [finding(variant, rows, [0.0] * len(rows), [""] * len(rows), step, {"diverged": 1.0}) for step in steps]


class _Ask(TrainerCallback):  # type: ignore[misc]
    """Ask the test questions after some steps."""

    def __init__(
        self, loaded: VLM, rows: Sequence[Example], variant: str, steps: Sequence[int], findings: list[Finding]
    ) -> None:
        self.loaded, self.rows, self.variant = loaded, rows, variant
        self.steps, self.findings = steps, findings

    def on_step_end(self, _args: object, state: object, _control: object, **_: object) -> None:
        """Ask after a step that is due."""
        step = int(vars(state)["global_step"])
        if step in self.steps:
            self.findings.append(recovery(self.loaded, self.rows, self.variant, step))


def _one_fact(train_examples: Sequence[Example], rows: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Return the forget rows for the most frequent fact, and the test rows without it."""
    fact_counts = Counter(row.fact for row in train_examples if row.role == Role.FORGET and row.kind == Kind.FACT)
    if not fact_counts:
        return [], []
    fact = fact_counts.most_common(1)[0][0]
    fit_rows = [row for row in train_examples if row.role == Role.FORGET and row.kind == Kind.FACT and row.fact == fact]
    return fit_rows, [without(row, fact) for row in rows if row.fact != fact]


def _some_entities(
    train_examples: Sequence[Example], rows: Sequence[Example], seed: int
) -> tuple[list[Example], list[Example]]:
    """Return the forget rows of a third of the entities, and the test rows of the others."""
    entities = sorted({row.entity for row in rows})
    trained_entities = set(Random(seed).sample(entities, max(1, len(entities) // 3))) if len(entities) > 1 else set()
    fit_rows = [
        row for row in train_examples if row.role in (Role.FORGET, Role.FORGET_TEXT) and row.entity in trained_entities
    ]
    return fit_rows, [row for row in rows if row.entity not in trained_entities]
