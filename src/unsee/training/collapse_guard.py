"""Collapse guard: stops a run whose retain loss explodes, and restores good weights.

After MMUnlearner (arXiv 2502.11051). Its use for every method, the choice of probes and the smallest loss that counts are
ours [inferred].
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Final

import torch

from unsee.api import Session
from unsee.api.request import Prompt, Target
from unsee.distributed import processes
from unsee.distributed.fsdp import gathered_weights
from unsee.errors import NotFiniteError, TrainingError
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.batching import collate
from unsee.inference.generation import generate
from unsee.metrics.degeneration import Limits, degenerate
from unsee.models.auto import evaluating
from unsee.training.batch_plan import Plan
from unsee.training.precision import autocast
from unsee.training.resume import full_disk_explained
from unsee.training.targets import STAYS, own_answers
from unsee.training.trainable import load_trainable, save_trainable, trainable_bytes
from unsee.utils.files import atomic_write_json
from unsee.utils.grouping import evenly

PROBES: Final = 32
"""Number of probes, half from the forget and half from the retain set."""
TIMES: Final = 2.0
"""Collapse: the loss on the retain probes exceeds this multiple of the initial one ..."""
LEAST: Final = 0.5
"""... and this minimum increase in nats, since the initial loss can be near zero [inferred]."""
SHARE: Final = 0.2
"""Collapse: the share of empty or repetitive responses exceeds the initial one by more than this."""
_SPEECH: Final = Limits(min_tokens=1)
"""Thresholds of degeneration here: one word is an answer."""


class CollapseGuard:
    """Evaluates the same probes at every check."""

    def __init__(self, session: Session, plan: Plan) -> None:
        """Choose the probes. Retain probes are used even if the method has no retain term."""
        self.session = session
        retain_targets = plan.retain or own_answers(session.of(*STAYS))
        self.retain = spread(retain_targets, PROBES)
        self.probes = [*spread(plan.forget, PROBES // 2), *spread(retain_targets, PROBES // 2)]
        self.start, self.start_share = 0.0, 0.0
        self.last_results: dict[str, float] = {}
        """Results of the last check, for the log."""

    def begin(self, *, resumed: bool) -> None:
        """Measure the original model, or read its earlier measurement, and save the weights."""
        file = self.session.out / "work" / "guard.json"
        if resumed and file.is_file():
            measured = json.loads(file.read_text(encoding="utf-8"))
            self.start = measured["start_retain_ce"]
            self.start_share = measured.get("start_degenerate", 0.0)  # files of earlier versions lack it
            return
        self.start = self._retain_ce()
        if not math.isfinite(self.start):
            raise TrainingError(
                "The loss of the original model on the retain answers is not finite; nothing can be trained."
            )
        self.start_share = self._degenerate()
        if processes.is_main():
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_json(file, {"start_retain_ce": self.start, "start_degenerate": self.start_share})
        self._keep()

    def collapse_reason(self) -> str:
        """Return why training has collapsed, after restoring the last good weights, else ""."""
        self.last_results = {"guard_ce": self._retain_ce()}
        reason = self._why()
        if reason:
            load_trainable(self.session.model, self.session.out / "last_good")
        else:
            self._keep()
        return reason

    def _why(self) -> str:
        return self._why_loss() or self._why_answers()

    def _why_loss(self) -> str:
        loss = self.last_results["guard_ce"]
        if not math.isfinite(loss):
            return f"loss on {len(self.retain)} retain answers is not finite"
        if loss > max(TIMES * self.start, self.start + LEAST):
            return f"loss on {len(self.retain)} retain answers {loss:.2f}, at the start {self.start:.2f}"
        return ""

    def _why_answers(self) -> str:
        try:
            share = self._degenerate()
        except NotFiniteError:
            return f"the output on {len(self.probes)} questions is not finite"
        self.last_results["guard_degenerate"] = share
        if share > self.start_share + SHARE:
            return f"{share:.0%} of {len(self.probes)} answers empty or repeating, at the start {self.start_share:.0%}"
        return ""

    def _keep(self) -> None:
        """Save the trainable weights as the last good ones."""
        folder, model = self.session.out / "last_good", self.session.model
        with full_disk_explained(folder, "the weights of this check", trainable_bytes(model)):
            save_trainable(model, folder)

    def _retain_ce(self) -> float:
        """Return the mean cross-entropy of the retain probes, or 0 without any.

        Every rank computes all of it, in lockstep.
        """
        model, size = self.session.model, self.session.training.batch_size
        total = 0.0
        with torch.no_grad(), evaluating(model), gathered_weights(model), autocast(model, self.session.training):
            for start in range(0, len(self.retain), size):
                batch = collate(self.session, self.retain[start : start + size])
                total -= float(answer_logprob(model, batch).mean_b.sum())
        return total / max(1, len(self.retain))

    def _degenerate(self) -> float:
        """Return the share of greedy responses that are empty or repetitive."""
        session = self.session
        prompts = [Prompt.of(target.example, session.instruction) for target in self.probes]
        limit = session.training.max_new_tokens
        with gathered_weights(session.model), autocast(session.model, session.training):
            responses = generate(session.vlm, prompts, max_new_tokens=limit)
        return sum(degenerate(response.text, _SPEECH) for response in responses) / len(responses)


def spread(targets: Sequence[Target], most: int) -> list[Target]:
    """Return at most this many targets with distinct questions, evenly over the list.

    Only four times as many candidates are examined.
    """
    distinct = {(target.example.id, target.example.question): target for target in evenly(targets, 4 * most)}
    return list(evenly(list(distinct.values()), most))
