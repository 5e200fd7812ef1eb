"""Fine-tuning on retain answers, a reference without unlearning (arXiv 2610.10358).

As in OPEN-MMUNLEARNING.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from unsee.api import Group, Method, Session
from unsee.inference.batching import Batch
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import Parts, minimise, retain_term


@dataclass(frozen=True, kw_only=True)
class Finetune(Method):
    """Train on the retain answers only.

    What another method forgets beyond this row is due to its forget term.
    """

    group: ClassVar[Group] = "reference"

    def unlearn(self, session: Session) -> None:
        """Minimise the cross-entropy on the retain answers."""

        def objective(_: Batch, retain: Batch | None) -> Iterator[Parts]:
            yield from retain_term(session, retain, 1.0)

        minimise(session, objective, forget=forget_targets(session), retain=retain_targets(session))
