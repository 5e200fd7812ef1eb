"""The contract of a metric: one column of the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from unsee.api.example import Vocabulary
from unsee.api.response import Response

Direction = Literal["higher", "lower", "neither"]
Value = Callable[[Response, Vocabulary], float | None]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure of the results."""

    key: str
    """Part of the score's name after the role."""
    better: Direction
    applies: Callable[[Response], bool]
    """Whether the response belongs in the denominator; empty responses do."""
    value: Value
    """Value of the response; None if undefined (`why` counts these)."""
    undefined: str | Callable[[Response], str] = ""
    """Reason for values of None, `{missing}` being their number; a function gives it per response."""
    micro: bool = False
    """Whether the score is the mean over questions, as in published tables, not over entities."""

    def why(self, missing: Sequence[Response]) -> str:
        """Return why these responses have no value, with counts."""
        reasons = [
            self.undefined if isinstance(self.undefined, str) else self.undefined(response) for response in missing
        ]
        counts = Counter(reason for reason in reasons if reason)
        return "; ".join(reason.replace("{missing}", str(count)) for reason, count in counts.items())
