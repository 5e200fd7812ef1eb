"""Alternate preference optimisation (AltPO, Mekala et al., arXiv 2409.13474)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

from unsee.api import Example, Method, Needs, Session, Training, Trial
from unsee.api.request import Target
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.batching import Batch, collate
from unsee.losses import dpo_loss
from unsee.methods.common.guidance import ANSWER, all_drawn, forget_rows, idle_draws, without_private
from unsee.methods.common.reference_model import StartLogprobs
from unsee.training.targets import own_answers, retain_targets
from unsee.training.trainer import Parts, minimise, retain_term

INSTRUCTION: Final = (
    f"An answer to the question below is: {ANSWER} Give another answer in its place, with facts that are plausible and all "
    "different."
)


@dataclass(frozen=True, kw_only=True)
class AltPO(Method):
    """Prefer made-up answers of the original model to the forget answer, both relative to the reference model."""

    trial: ClassVar[Trial] = Trial(settings={"alternates": 2, "temperature": 0.0})

    beta: float = 0.1
    """Inverse temperature; searched in {0.05, 0.1, 0.5} [code]."""
    alternates: int = 5
    """Alternate answers per forget answer; a pass over the data meets each of them once [inferred]."""
    instruction: str = INSTRUCTION
    """Request for an alternate, before the question; `{answer}` stands for the forget answer [inferred]."""
    temperature: float = 1.0
    """Sampling temperature of the alternates; 0 = greedy, one alternate [inferred]."""
    queries: Literal["all", "open"] = "all"
    """Train on all questions for private information, or only on open ones."""
    retain_weight: float = 1.0
    """Weight of the cross-entropy on the retain answers; searched in {1, 2, 5} [code]."""

    def __post_init__(self) -> None:
        """Reject settings by which nothing could be drawn or compared."""
        super().__post_init__()
        if self.beta <= 0 or self.alternates < 1 or self.temperature < 0:
            raise UserError(
                "altpo needs method.beta > 0, method.alternates >= 1 and method.temperature >= 0, got "
                f"{self.beta}, {self.alternates} and {self.temperature}."
            )

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return replace(super().needs(), rows=2, likelihoods=True, generates=True)

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_draws("method.alternates", self.alternates, self.temperature)

    def unlearn(self, session: Session) -> None:
        """Minimise the DPO loss on pairs of alternate and forget answer."""
        retain_answers = retain_targets(session, self.retain_weight)
        rows = forget_rows(session, self.queries)
        alternates = self._alternates(session, rows)
        start = StartLogprobs(session, [*alternates, *own_answers([target.example for target in alternates])])

        def objective(alternate: Batch, retain: Batch | None) -> Iterator[Parts]:
            forget = collate(session, own_answers(alternate.examples), alternate.index, alternate.places)
            rejected_b = answer_logprob(session.model, forget).sum_b - start(forget)
            chosen_b = answer_logprob(session.model, alternate).sum_b - start(alternate)
            altpo = dpo_loss(chosen_b, rejected_b, self.beta)
            yield {"loss": altpo, "altpo": altpo, "margin": (chosen_b - rejected_b).mean()}
            yield from retain_term(session, retain, self.retain_weight)

        minimise(session, objective, forget=alternates, retain=retain_answers, questions=rows)

    def _alternates(self, session: Session, examples: Sequence[Example]) -> list[Target]:
        """Return alternates of all forget answers.

        Those that give a private string away are drawn again [inferred].
        """
        draws = without_private("alternates", self.alternates, self.temperature, self.instruction)
        message = (
            "Every alternate answer of the original model has a private term of the forget example. Try another wording "
            "of method.instruction, or a higher method.temperature."
        )
        return all_drawn(session, examples, draws, message)
