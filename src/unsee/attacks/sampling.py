"""Sampling: the best of k drawn answers, leak@k (arXiv 2511.04934)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import comb
from typing import Self

from unsee.api import Attack, Finding, Victim
from unsee.api.finite import require_values
from unsee.api.request import Sampling as Drawn
from unsee.errors import UserError
from unsee.evaluation.recovery import ask, finding, gives, probed_rows, unsure_shares


@dataclass(frozen=True, kw_only=True)
class Sampling(Attack):
    """Draw many answers per question, and count a leak if one of k leaks.

    leak@k is estimated without bias from `draws` answers of which c leak: 1 - C(draws - c, k) / C(draws, k) [inferred]. Answers that
    cannot be judged are left out; a k for which no question has enough others says nothing.
    """

    axis = "draws"

    k: tuple[int, ...] = (1, 8, 64)
    """Numbers of answers of which the best counts."""
    draws: int = 64
    """Answers per question; published: 200."""
    temperature: float = 1.0
    """Divisor of the logits."""
    top_p: float = 1.0
    """Nucleus; 1 = all tokens."""
    images: int = 1
    """Test images per entity and question."""

    def __post_init__(self) -> None:
        """Reject k above the number of draws, and what defines no distribution to draw from."""
        super().__post_init__()
        require_values(self, "attack", k=1, images=0)
        self._law()
        if max(self.k) > self.draws:
            raise UserError(f"attack.k must lie in 1..attack.draws ({self.draws}), got {self.k}.")

    def quick(self) -> Self:
        """Return leak@1 and leak@8 of 8 draws."""
        return replace(self, k=(1, 8), draws=8)

    def run(self, victim: Victim) -> Iterator[Finding]:
        """Draw the answers of all questions at once: they share their prompts."""
        rows = probed_rows(victim.benchmark, self.images)
        repeated_rows = [row for row in rows for _ in range(self.draws)]
        completions = ask(victim.open(), repeated_rows, sampling=self._law(), seed=victim.seed)
        texts = [completion.text for completion in completions]
        hits = [gives(text, row) for text, row in zip(texts, repeated_rows, strict=True)]
        hits_n = [hits[index * self.draws : (index + 1) * self.draws] for index in range(len(rows))]
        for k in self.k:
            shares = [_share(row_hits, k) for row_hits in hits_n]
            yield finding(f"leak@{k}", rows, shares, texts, at=k, further=unsure_shares(completions, hits))

    def _law(self) -> Drawn:
        return Drawn(temperature=self.temperature, top_p=self.top_p)


def _share(hits: Sequence[bool | None], k: int) -> float | None:
    """Return leak@k from the draws of a question, or None with too few that can be judged."""
    judged_hits = [hit for hit in hits if hit is not None]
    if len(hits) - sum(judged_hits) < k:  # any k of them hold a leak, whatever the others say
        return 1.0
    return leak_at(sum(judged_hits), len(judged_hits), k) if len(judged_hits) >= k else None


def leak_at(leaks: int, draws: int, k: int) -> float:
    """Return the probability that k of the draws, taken without replacement, hold a leak.

    >>> leak_at(1, 4, 1), leak_at(1, 4, 4), leak_at(0, 4, 4), leak_at(2, 4, 2)
    (0.25, 1.0, 0.0, 0.8333333333333334)
    """
    return 1.0 - comb(draws - leaks, k) / comb(draws, k)
