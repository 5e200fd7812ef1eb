r"""Multiple choice: the picked option. Abstention and empty responses are wrong.

A letter counts, in this order: in a box or tag (`\boxed{C}`, `<answer>B</answer>`), alone as the whole text, behind a cue
("answer: d", "I think it's C", 答案是B), alone on a line, at the beginning with a mark or "because" behind it, in brackets.
Else the one option whose text occurs. A list of the options picks none, and what is denied is not picked ("I don't think it is B").
"""

# ruff: noqa: RUF001 - scripts other than Latin
from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Final

from unsee.metrics.denial import is_denied
from unsee.metrics.matching import contains
from unsee.metrics.normal_form import normalise

_OPEN: Final = r"[\s(\[{\"'*_`$<#「『【]*+"
_CLOSE: Final = r"[\s)\]}\"'*_`$>.:,;!。、」』】]*+"
"""What may stand around a letter. Possessive, as all neighbouring repetitions of blanks: a model may write thousands of them."""
_ALONE: Final = re.compile(rf"^{_OPEN}(?:(?i:options?|answer|choice|letter)\W*)?([A-Za-z]){_CLOSE}$")
_BOXED: Final = re.compile(
    rf"\\?boxed\s*\{{\s*+(?:\\(?:text|mathrm|mathbf|textbf)\s*\{{)?{_OPEN}([A-Za-z])(?![A-Za-z])"
    rf"|<(?:answer|ans|choice|option|final)>{_OPEN}(?:(?i:option|answer)\W*)?([A-Za-z])(?![A-Za-z])"
    r"|\[\[\s*([A-Za-z])\s*\]\]|\\(?:text|mathrm|mathbf|textbf)\s*\{\s*([A-Za-z])\s*\}",
    re.IGNORECASE,
)
_LAST: Final = (
    r"(?=\W*$|\s*[.,;:!)\]}\"'*`。、」』】\n]|\s*[-–—]\s|\s+(?:because|since|as|so|is|with|for|from|which|and|but|given|due)\b"
    r"|[^\x00-\x7f]|\s+[^\x00-\x7f])"
)
"""Words that may follow a letter which could be a word, as in "the answer is a pilot"."""
_WRONG: Final = r"(?!['’]\w)(?![)\]\"'*.]*\s+(?:is|was|would\s+be)\s+(?:not|wrong|incorrect|false|ruled))"
_NAMED: Final = re.compile(
    r"(?:\b(?:answer|option|choice|letter|antwort|antwoord|respuesta|r[ée]ponse|resposta|risposta|odpowied[źz](?:\s+to)?|svar(?:et)?|cevap|đáp\s+án)\b"
    r"|ответ|відповідь|απάντηση|उत्तर|ค\u0e4d\u0e32ตอบ|答案|答え|答|选项?|选择?|選項|選択肢|選擇?|選ぶ?|正解|정답|답|الجواب|الإجابة|תשובה)"
    r"(?:\s+(?:correcta|correcte|correta|corretta|exacte|juste|poprawna|riktig|الصحيحة|הנכונה))?"
    r"(?:\s*+(?:(?:is|would\s+be|should\s+be|must\s+be|ist|es|est|é|è|jest|är|er|là|είναι)\b|是|为|為|は|은|는|هو|هي|है|คือ|היא))?\s*+[:=-]?\s*+"
    rf"{_OPEN}(?:(?:option|letter|choice)\s++)?{_OPEN}([A-Za-z])(?![A-Za-z]){_WRONG}",
    re.IGNORECASE,
)
_CHOSEN: Final = re.compile(
    r"(?i:\b(?:it\s+is|it'?s|that\s+is|i(?:'d|\s+would|'ll|\s+will)?\s+(?:choose|pick|select|say|go\s+with|guess|think)|i\s+am\s+going\s+with"
    rf"|must\s+be|should\s+be)\s++{_OPEN}(?:(?:option|letter|choice|answer)\s++)?){_OPEN}([A-Za-z])(?![A-Za-z]){_WRONG}"
)
_LEADING: Final = re.compile(
    r"^[\s(\[\"'*]*([A-Z])(?:[)\].:]+\s|[)\]]|\*\*|,\s|\s*[-–—]\s|[.:](?=[A-Z])"
    r"|\s+is\s+(?:the\s+)?(?:correct|right|answer)|\s+(?:because|since)\b|[.:,;)]?\s*(?=[^\x00-\x7f])(?=\W|[^\x00-\x7f]))"
)
_BRACKETED: Final = re.compile(r"(?<!\w)[(\[]([A-Za-z])[)\]]")
_THOUGHT: Final = re.compile(r"<think>.*?</think>\s*", re.IGNORECASE | re.DOTALL)
_LISTED: Final = re.compile(r"(?:^|[\s(\[,;*])([A-Z])(?:[)\].:]|\s*[-–—]\s)\**\s*(?=\w)", re.MULTILINE)


def choice(text: str, options: Sequence[str]) -> str:
    r"""Return the letter that the text picks, or "" for none or several.

    >>> [choice(text, ("baker", "pilot")) for text in ("b", "B.", "The answer is B", "A pilot.", "A or B", "A person.", "")]
    ['B', 'B', 'B', 'B', '', '', '']
    >>> [choice(text, ("baker", "pilot")) for text in ("B because of the hat", "答案是B。", r"\boxed{B}", "A. baker B. pilot")]
    ['B', 'B', 'B', '']
    """
    text = unicodedata.normalize("NFKC", text).replace("’", "'").strip()
    letters = ascii_uppercase[: len(options)]
    text = _THOUGHT.sub("", text) or text
    lists = _lists_options(text, letters)
    for find in (_boxed, _alone, _cued, _alone_on_a_line, *(() if lists else (_leading, _bracketed))):
        picked = set(find(text)) & set(letters)
        if picked:
            letter = picked.pop()
            clear = not picked and (find is _boxed or letter not in _alternatives(text, letters))
            return letter if clear else ""
    return "" if lists else _by_text(text, options, letters)


def choice_correct(text: str, options: Sequence[str], answer: str) -> bool:
    """Tell whether the text picks the option `answer` (a letter, or the option's text).

    >>> choice_correct("It is (A).", ("baker", "pilot"), "A"), choice_correct("", ("baker", "pilot"), "A")
    (True, False)
    """
    right = choice(answer, options)
    return right != "" and choice(text, options) == right


def _lists_options(text: str, letters: str) -> bool:
    """Tell whether the text lists the options with their letters instead of picking one."""
    listed = dict.fromkeys(letter for letter in _LISTED.findall(text) if letter in letters)
    return len(listed) > 1 and (len(listed) == len(letters) or len(listed) > 2)


def _boxed(text: str) -> list[str]:
    return [letter.upper() for groups in _BOXED.findall(text) for letter in groups if letter]


def _alone(text: str) -> list[str]:
    return [letter.upper() for letter in _ALONE.findall(text)]


def _alone_on_a_line(text: str) -> list[str]:
    return [letter.upper() for line in text.splitlines() for letter in _ALONE.findall(line)]


def _cued(text: str) -> list[str]:
    matches = [*_NAMED.finditer(text), *_CHOSEN.finditer(text)]
    return [match[1].upper() for match in matches if not (_is_word(text, match) or is_denied(match))]


def _is_word(text: str, match: re.Match[str]) -> bool:
    """Tell whether the letter is a word, as in "the answer is a pilot"."""
    word = match[1] in "aAI" or match[1].islower()
    return word and re.match(_LAST, text[match.end(1) :]) is None


def _leading(text: str) -> list[str]:
    return _LEADING.findall(text)


def _bracketed(text: str) -> list[str]:
    return [match[1].upper() for match in _BRACKETED.finditer(text) if not is_denied(match)]


def _alternatives(text: str, letters: str) -> set[str]:
    """Return the letters that are offered as alternatives to each other, as in "A or B"."""
    one, other = rf"([{letters}])", rf"(?!\1)([{letters}])"
    patterns = (
        rf"\b{one}\W+(?:or|and)\W+(?={other}\b)",
        rf"\({one}\)\W*(?=\({other}\))",
        rf"\b{one}\s*[,/&]\s*(?={other}\s*(?:$|[.,/&)\n]|(?:and|or)\b))",
    )
    return {letter for pattern in patterns for pair in re.findall(pattern, text) for letter in pair}


def _by_text(text: str, options: Sequence[str], letters: str) -> str:
    """Return the letter of the only option that is named, "" if it is beyond Z. Longer options take precedence."""
    named = [index for index, option in enumerate(options) if _is_named(text, option)]
    longest = [
        index
        for index in named
        if not any(
            other != index
            and normalise(options[other]) != normalise(options[index])
            and contains(options[other], options[index])
            for other in named
        )
    ]
    return letters[longest[0] : longest[0] + 1] if len(longest) == 1 else ""


def _is_named(text: str, option: str) -> bool:
    """Tell whether the option's text occurs, and somewhere is not denied."""
    words = r"\W+".join(map(re.escape, re.findall(r"\w+", option)))
    denials = [is_denied(match) for match in re.finditer(rf"\b{words}\b", text, re.IGNORECASE)]
    return contains(text, option) and not (denials and all(denials))
