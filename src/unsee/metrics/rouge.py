"""ROUGE-L: longest common subsequence of words with a reference (Lin, 2004), by the rouge-score library, with stemming."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from rouge_score.rouge_scorer import RougeScorer


@dataclass(frozen=True, kw_only=True)
class RougeL:
    """Shares of the words in the longest common subsequence."""

    precision: float
    """Of the prediction's words."""
    recall: float
    """Of the reference's words."""
    f1: float
    """Harmonic mean; what tables call ROUGE-L unless they say recall."""


def rouge_l(*, prediction: str, reference: str) -> RougeL:
    """Return ROUGE-L; an empty prediction scores 0. Arguments are named because swapping them swaps precision and recall.

    >>> rouge_l(prediction="the cat sat", reference="the cat sat on the mat")
    RougeL(precision=1.0, recall=0.5, f1=0.6666666666666666)
    """
    score = _scorer().score(target=reference, prediction=prediction)["rougeL"]
    return RougeL(precision=float(score.precision), recall=float(score.recall), f1=float(score.fmeasure))


@lru_cache(maxsize=1)
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)
