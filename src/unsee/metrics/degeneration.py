"""Degeneration: empty, repetitive or non-linguistic text.

After PUBG (arXiv 2506.02541) [inferred].
"""

# ruff: noqa: RUF001, RUF002 - scripts other than Latin
from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import eq
from typing import Final

from unsee.metrics._words import sentences, tokens

_COMMON: Final = frozenset(" \t\r\n.,;:!?'\"()[]-–—…/&%$€£#@*+=’‘“”«»")

_ONCE: Final = frozenset("a an and as at by for from in of or than the to with".split())
_ROUND: Final = re.compile(r"([^\W\d_]{3,20}?)\1{3}")
"""A part of a word that is said four times in a row within it."""
_MARKS: Final = re.compile(r"([,;:'\"()\[\]{}/\\|<>&%$@^`])\1{7}")
"""Eight of the same mark in a row, except those that draw lines, fill blanks or shout."""
_LISTED: Final = """
are were have had do did done am be been can could will would shall should may might must cannot don won ll ve re m d
arose ate awoke beat became began bent bet bit bled blew bore bought bound bred broke brought built burnt burst came
caught chose clung cost crept cut dealt dreamt drank drew drove dug fed fell felt fled flew forbade forgave forgot fought
found froze gave got grew ground heard held hid hit hung hurt kept knelt knew laid lay leant leapt learnt led left lent
let lit lost made meant met paid put quit ran rang read rid rode rose sang sank sat saw sent set shook shone shot showed
shrank shut slept slid sold sought spat spent split spoke sprang spread spun stank stole stood struck strode stuck stung
swam swept swore swung taught thought threw told took tore understood went wept withdrew woke won wore wound wrote
appear believe feel guess hope know live look love mean say see seem suppose think want wear work
"""
_VERBS: Final = frozenset(_LISTED.split())
"""Verbs that end neither in -s nor in -ed [inferred]."""
BROKEN: Final = "\ufffd"
"""What stands for bytes that are no character."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Thresholds of degeneration. The defaults are ours [inferred]."""

    min_tokens: int = 3
    """(a) Degenerate below this number of words."""
    repeat_from: int = 20
    """(b) Fewest words for which repetition is judged ..."""
    repeat_share: float = 0.5
    """... and the rep-4 above which the text is degenerate."""
    dominant_from: int = 8
    """(c) Fewest words for which dominance is judged ..."""
    dominant_share: float = 0.5
    """... and the share of one word above which the text is degenerate."""
    loop_share: float = 0.4
    """(e) Degenerate from this share of words in phrases said over and over: see `loop`."""
    run_words: int = 6
    """(f) Degenerate from this number of the same word in a row, whatever else is said."""
    distinct_from: int = 16
    """(g) Fewest words for which variety is judged ..."""
    distinct_share: float = 0.25
    """... and the share of different ones below which the text is degenerate."""
    echo_from: int = 20
    """(h) Fewest words for which echoes are judged ..."""
    echo_share: float = 0.25
    """... and the share of words in phrases of four that were said before, from which the text is degenerate."""
    stutter_share: float = 0.25
    """(i) Degenerate from this share of words in articles and prepositions said twice in a row."""
    fragment_share: float = 0.5
    """(j) Degenerate from this share of sentences without a verb: see `fragment`."""
    odd_share: float = 0.3
    """(d) Degenerate above this share of characters other than letters, digits, space, common punctuation."""


DEFAULT: Final = Limits()


def degenerate(text: str, limits: Limits = DEFAULT) -> bool:
    """Tell whether the text is too short, repetitive, dominated by one word, symbols, broken characters, or a loop.

    In scripts without blanks between words, characters are counted instead.

    >>> degenerate("the " * 256), degenerate("The person has wavy brown hair and wears a red shirt.")
    (True, False)
    >>> degenerate("这是张伟，来自上海。"), degenerate("这是" * 30)
    (False, True)
    """
    words = tokens(text)
    return (
        len(words) < max(limits.min_tokens, 1)
        or (len(words) >= limits.repeat_from and rep_n(words, 4) > limits.repeat_share)
        or (len(words) >= limits.dominant_from and _dominance(words) > limits.dominant_share)
        or odd_share(text) > limits.odd_share
        or loop(words) >= limits.loop_share
        or max((len(list(same)) for _, same in groupby(words)), default=0) >= limits.run_words
        or (len(words) >= limits.distinct_from and len(set(words)) / len(words) < limits.distinct_share)
        or (len(words) >= limits.echo_from and echo(words) >= limits.echo_share)
        or stutter(words) >= limits.stutter_share
        or any(map(_ROUND.search, words))
        or _MARKS.search(text) is not None
        or _fragments(text) >= limits.fragment_share
        or BROKEN in text.rstrip(BROKEN)  # at the end, the token limit may have cut a character
    )


def rep_n(words: Sequence[str], n: int) -> float:
    """Return 1 - distinct n-grams / n-grams, or 0 if there are none.

    >>> round(rep_n(["yes"] * 256, 4), 3)
    0.996
    >>> rep_n("a b a b a".split(), 2)
    0.5
    """
    grams = _ngrams(words, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def loop(words: Sequence[str]) -> float:
    """Return the share of words in repeated phrases, which finds short texts that loop, too.

    A word counts from four times on, a phrase of two to eight words from two and two thirds times.

    >>> loop("this person is called the the the the".split()), loop("it is very very big".split())
    (0.5, 0.0)
    >>> round(loop("he lives in the city of the city of the city of".split()), 2)
    0.75
    """
    looping: set[int] = set()
    for period in range(1, min(8, len(words) // 2) + 1):
        start = period
        for same, run in groupby(map(eq, words[period:], words)):
            length = len(list(run))
            if same and 3 * (length + period) >= (12 if period == 1 else 8 * period):
                looping.update(range(start - period, start + length))
            start += length
    return len(looping) / len(words) if words else 0.0


def stutter(words: Sequence[str]) -> float:
    """Return the share of words in articles and prepositions said twice in a row, which no language does.

    >>> stutter("that is by by diver".split()), stutter("that that is so is so".split())
    (0.4, 0.0)
    """
    repeats = sum(first == second and first in _ONCE for first, second in pairwise(words))
    return 2 * repeats / len(words) if words else 0.0


def fragment(sentence: str) -> bool:
    """Tell whether an English sentence about "this" or "that" has no verb.

    Other short answers need none ("A diver.", "In Turin."), nor do lists ("This artist, John Miller.").

    >>> fragment("This person by profession diver."), fragment("This person works as a diver."), fragment("That one.")
    (True, False, False)
    """
    words = tokens(sentence)
    if len(words) < 3 or words[0] not in ("this", "that") or sentence.endswith("?") or "," in sentence:
        return False
    return not any(word in _VERBS or word.endswith(("s", "ed")) for word in words[1:])


def _fragments(text: str) -> float:
    """Return the share of fragments. A last sentence without an end may have been cut before its verb."""
    parts = sentences(text)
    complete = [sentence for sentence in parts if sentence != parts[-1] or not sentence[-1].isalnum()]
    return sum(map(fragment, complete)) / len(parts) if parts else 0.0


def echo(words: Sequence[str], n: int = 4) -> float:
    """Return the share of words in phrases of n that were said before, which finds rambling in whole sentences.

    >>> echo("we see a hat there , we see a hat".split()), echo("a red shirt and a blue hat".split())
    (0.4, 0.0)
    """
    earlier: set[tuple[str, ...]] = set()
    repeated: set[int] = set()
    for index, phrase in enumerate(_ngrams(words, n)):
        repeated |= set(range(index, index + n)) if phrase in earlier else set()
        earlier.add(phrase)
    return len(repeated) / len(words) if words else 0.0


def ngram_entropy(text: str) -> float:
    """Return H = (2/3 H2 + 4/3 H3) / 2 in bits, Hn the n-gram entropy. It grows with length.

    Weights as in RWKU eval_fluency.py [code]; base 2 and halving [inferred].

    >>> ngram_entropy("no no no no")
    0.0
    >>> round(ngram_entropy("a b c d e"), 4)
    1.7233
    """
    words = tokens(text)
    return (2 / 3 * _entropy(_ngrams(words, 2)) + 4 / 3 * _entropy(_ngrams(words, 3))) / 2


def odd_share(text: str) -> float:
    """Return the share of characters other than letters, digits, spaces, common punctuation.

    >>> odd_share("ab{}"), odd_share("他是谁？「我」。")
    (0.5, 0.0)
    """
    return sum(map(_odd, text)) / len(text) if text else 0.0


def _odd(char: str) -> bool:
    """Tell whether a character is unusual in text. Outside ASCII all punctuation is usual."""
    kinds = "LMNZ" if char.isascii() else "LMNZP"
    return char not in _COMMON and unicodedata.category(char)[0] not in kinds


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def _entropy(grams: Sequence[tuple[str, ...]]) -> float:
    counts = Counter(grams).values()
    return sum(count / len(grams) * math.log2(len(grams) / count) for count in counts)


def _dominance(words: Sequence[str]) -> float:
    return max(Counter(words).values()) / len(words)
