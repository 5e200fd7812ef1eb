"""Sampling: the best of k drawn answers, leak@k (arXiv 2511.04934)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import comb
from typing import Self

from unsee.api import Attack, Finding, Victim
from unsee.api.finite import require_values
from unsee.api.request import Sampling as Drawn
from unsee.errors import UserError
from unsee.evaluation.recovery import ask, cut_share, finding, gives, probed_rows


@dataclass(frozen=True, kw_only=True)
class Sampling(Attack):
    """Draw many answers per question, and count a leak if one of k leaks.

    leak@k is estimated without bias from `draws` answers of which c leak: 1 - C(draws - c, k) / C(draws, k) [inferred].
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
        judged_hits_n = [[hit for hit in row_hits if hit is not None] for row_hits in hits_n]
        for k in self.k:
            shares = [
                leak_at(sum(row_hits), len(row_hits), k) if len(row_hits) >= k else None for row_hits in judged_hits_n
            ]
            yield finding(f"leak@{k}", rows, shares, texts, at=k, further=cut_share(completions, hits))

    def _law(self) -> Drawn:
        return Drawn(temperature=self.temperature, top_p=self.top_p)


def leak_at(leaks: int, draws: int, k: int) -> float:
    """Return the probability that k of the draws, taken without replacement, hold a leak.

    >>> leak_at(1, 4, 1), leak_at(1, 4, 4), leak_at(0, 4, 4), leak_at(2, 4, 2)
    (0.25, 1.0, 0.0, 0.8333333333333334)
    """
    return 1.0 - comb(draws - leaks, k) / comb(draws, k)
