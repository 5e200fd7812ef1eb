"""ROUGE (Lin, 2004) with stemming, computed by rouge-score.

Words in ASCII are the library's. It drops all other letters, so words with any are normalised instead (`unsee.metrics.matching`):
without accents, and character by character in scripts that have no blanks between words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Literal

from unsee.metrics.normal_form import normalise

if TYPE_CHECKING:  # it imports nltk and scipy, which takes a second
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer


@dataclass(frozen=True, kw_only=True)
class RougeL:
    """ROUGE-L: precision, recall and F1 of the longest common subsequence."""

    precision: float
    """Of the prediction's words."""
    recall: float
    """Of the reference's words."""
    f1: float
    """Harmonic mean; what tables call ROUGE-L unless they say recall."""


@lru_cache(maxsize=8192)
def rouge_l(*, prediction: str, reference: str) -> RougeL:
    """Return ROUGE-L. An empty prediction scores 0.

    Arguments are keyword-only, since swapping them swaps precision and recall.

    >>> rouge_l(prediction="the cat sat", reference="the cat sat on the mat")
    RougeL(precision=1.0, recall=0.5, f1=0.6666666666666666)
    >>> rouge_l(prediction="Это Анна", reference="Это Анна Петрова").recall
    0.6666666666666666
    """
    score = _scorer("rougeL").score(target=reference, prediction=prediction)["rougeL"]
    return RougeL(precision=float(score.precision), recall=float(score.recall), f1=float(score.fmeasure))


def rouge_n(*, prediction: str, reference: str, n: Literal[1, 2]) -> float:
    """Return ROUGE-1 or ROUGE-2 F1, or 0 if either text has no n-gram.

    >>> rouge_n(prediction="the cat sat", reference="the cat ran", n=1), rouge_n(prediction="the cat sat", reference="the cat ran", n=2)
    (0.6666666666666666, 0.5)
    """
    return _ngrams(prediction, reference)[n - 1]


def rouge_words(text: str) -> list[str]:
    """Return the words that ROUGE counts.

    >>> rouge_words("Réné's dogs"), rouge_words("张伟")
    (['rene', 's', 'dog'], ['张', '伟'])
    """
    return _Tokenizer().tokenize(text)


class _Tokenizer:
    """The library's tokenizer with cached stems."""

    def tokenize(self, text: str) -> list[str]:
        """Return the stems."""
        return [stem for word in text.split() for stem in _stems(word)]


@lru_cache(maxsize=65536)
def _stems(word: str) -> tuple[str, ...]:
    parts = [word] if word.isascii() else normalise(word).split()
    return tuple(stem for part in parts for stem in (_library().tokenize(part) if part.isascii() else [part]))


@cache
def _library() -> DefaultTokenizer:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)


@cache
def _scorer(*names: str) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(names), tokenizer=_Tokenizer())


@lru_cache(maxsize=8192)
def _ngrams(prediction: str, reference: str) -> tuple[float, float]:
    scores = _scorer("rouge1", "rouge2").score(target=reference, prediction=prediction)
    return float(scores["rouge1"].fmeasure), float(scores["rouge2"].fmeasure)
