"""Is this data usable? Everything that is wrong with it, and what is merely worth knowing."""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from unsee.api import PROBES, Benchmark, Example, ImageSource, Kind, Role
from unsee.api.example import ImageFile
from unsee.data.row_store import ambiguous, contains, digest64, ordered, repeats
from unsee.errors import UserError, shown
from unsee.metrics.language import english
from unsee.metrics.matching import contains as contains_term
from unsee.metrics.matching import everyday, leaked, normalise, proper, unreadable
from unsee.metrics.scripts import spaced

_FORGOTTEN: Final = (Role.FORGET, Role.FORGET_TEXT, Role.UNSEEN)
_KEPT: Final = (Role.RETAIN, Role.RETAIN_TEXT, Role.STRANGER)
_NOT_THAT_PICTURE: Final = (Role.UNSEEN, Role.RETAIN, Role.BENIGN, Role.STRANGER)
"""Roles whose pictures are none of those that are to be forgotten."""
_BLANKS: Final = frozenset({"nan", "none", "null", "n/a", "<na>"})
"""Answers that may be an empty cell, written as text by pandas or a database."""
_REMEMBERED: Final = 4096
"""Pictures whose hash is kept while rows about them follow each other."""
_ASCII: Final = re.compile(r"[a-z0-9]+")
"""A word of a text without other letters."""
_normalised: Final = normalise.__wrapped__
"""`normalise` without its memory: an answer of the data is looked at once, and there may be millions."""
_SHOWN: Final = 5
"""How many ids a message names."""
_LANGUAGES: Final = 1000
"""How many answers are looked at for their language; the warning is about the data set as a whole."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found in a data set."""

    data: str
    problems: tuple[str, ...]
    """What makes the data unusable."""
    warnings: tuple[str, ...]
    """What is legal but may surprise."""
    counts: Mapping[str, int]
    """Role -> number of examples judged."""

    @property
    def usable(self) -> bool:
        """Whether a run may start on it."""
        return not self.problems

    def __str__(self) -> str:
        """Return the report as a reader wants it: verdict first, then every line."""
        verdict = "usable" if self.usable else f"not usable, {_plural(len(self.problems), 'problem')}"
        roles = ", ".join(f"{count} {role}" for role, count in self.counts.items())
        lines = [f"{self.data}: {verdict}" + (f" (judged: {roles})" if roles else "")]
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def examine(opened: Benchmark, data: str) -> Report:
    """Return the report on an opened data set: first its own faults, then those that show only in the whole."""
    problems = list(dict.fromkeys(opened.problems()))
    if problems:
        return Report(data=data, problems=tuple(problems), warnings=(), counts={})
    seen = _Seen(opened.examples("train"), opened.examples("eval"))
    return Report(
        data=data,
        problems=tuple(_problems(seen)),
        warnings=tuple(dict.fromkeys((*opened.warnings(), *_warnings(seen)))),
        counts={role.value: seen.judged_roles[role] for role in Role if seen.judged_roles[role]},
    )


def require_usable(opened: Benchmark, data: str, most: int = 20) -> None:
    """Raise with the problems of the data, if it has any."""
    problems = list(opened.problems()) or list(_problems(_Seen(opened.examples("train"), opened.examples("eval"))))
    if problems:
        more = (
            [f"... and {len(problems) - most} more (unsee check --data {data} lists all)"]
            if len(problems) > most
            else []
        )
        raise UserError("\n  ".join([f"The data at {data} cannot be used:", *problems[:most], *more]))


def fingerprint(opened: Benchmark) -> str:
    """Return the SHA-256 of all examples, pixels included, whatever files they came from."""
    digest = hashlib.sha256()
    for split in ("train", "eval"):
        for example in opened.examples(split):
            row = [
                split,
                *(
                    example.id,
                    example.role,
                    example.question,
                    example.answer,
                    example.entity,
                    example.kind,
                    example.fact,
                ),
                *(dict(example.private), dict(example.visible), example.options, example.chain),
                *((example.paraphrase, example.perturbed) if example.perturbed or example.paraphrase else ()),
                example.image.key if example.image else "",
            ]
            digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode())
    return digest.hexdigest()


class _Seen:
    """What one pass over both splits has found: a few bytes a row, and more of each entity."""

    def __init__(self, train: Sequence[Example], judged: Sequence[Example]) -> None:
        """Look at every row of both splits; a row that is in both counts once where ids are named."""
        self.splits = {"train": train, "eval": judged}
        self.ids = {split: array("Q") for split in self.splits}
        self.train_roles: Counter[Role] = Counter()
        self.judged_roles: Counter[Role] = Counter()
        self.empty, self.bare, self.told, self.blanks = _Ids(), _Ids(), _Ids(), _Ids()
        self.secrets = _Secrets()
        self.forgotten: dict[str, _Ids] = {}
        self.kept: dict[str, _Ids] = {}
        self.names: dict[str, set[str]] = {}
        self.words = _Words()
        self._said, self._by = array("Q"), array("Q")
        self.digests, self.trained = _Digests(), set[int]()
        """Pictures that the unlearning may see of the forgotten."""
        for example in train:
            self.train_roles[example.role] += 1
            if example.role is Role.FORGET and example.image:
                self.trained.add(self.digests.of(example.image))
            if not example.answer.strip():
                self.empty.add(example.id)
            self.ids["train"].append(digest64(example.id))
            self._look(example)
        trained = ordered(self.ids["train"])
        for example in judged:
            self.judged_roles[example.role] += 1
            digest = digest64(example.id)
            self.ids["eval"].append(digest)
            if not contains(trained, digest):
                self._look(example)

    def _look(self, example: Example) -> None:
        """Note what shows only in the whole."""
        sides = ((self.forgotten, _FORGOTTEN), (self.kept, _KEPT)) if example.entity else ()
        for found, roles in sides:
            if example.role in roles:
                found.setdefault(example.entity, _Ids()).add(example.id)
        for name in example.private.get("name", ())[:1]:
            self.names.setdefault(name.casefold(), set()).add(example.entity)
        if example.role in _FORGOTTEN and example.kind in PROBES:
            self.words.look(example)
            if not example.private:
                self.bare.add(example.id)
            # A text-only question has to name the person it is about.
            if example.image and _terms_in_question(example):
                self.told.add(example.id)
        if example.answer.casefold() in _BLANKS:
            self.blanks.add(example.id)
        if example.role in _FORGOTTEN and example.entity:
            self.secrets.add(example)
        if _named(example):
            self._said.append(digest64(example.answer))
            self._by.append(digest64(example.entity))

    def shared_answers(self) -> dict[str, set[str]]:
        """Return the answers that several entities have, with those; they are looked for again, for only hashes were kept."""
        owners: dict[str, set[str]] = {}
        common = ambiguous(self._said, self._by)
        for example in self.rows() if common else ():
            if _named(example) and digest64(example.answer) in common:
                owners.setdefault(example.answer, set()).add(example.entity)
        return owners

    def rows(self) -> Iterator[Example]:
        """Yield the rows of both splits; those in both come twice."""
        return (example for examples in self.splits.values() for example in examples)

    def distinct(self) -> Iterator[Example]:
        """Yield the rows of both splits, those in both once."""
        yield from self.splits["train"]
        trained = ordered(self.ids["train"])
        for place, digest in enumerate(self.ids["eval"]):
            if not contains(trained, digest):
                yield self.splits["eval"][place]

    @cached_property
    def again(self) -> _Again:
        """What shows only when the forgotten are known: one more pass over both splits."""
        found = _Again()
        for row in self.distinct():
            if row.role in _NOT_THAT_PICTURE and row.image and self.digests.of(row.image) in self.trained:
                (found.unseen if row.role is Role.UNSEEN else found.kept).add(row.id, once=True)
            if row.role in _KEPT and self.secrets.forms:
                found.told.add_all(self.secrets.told_by(row))
        return found


class _Secrets:
    """Private strings of those who are to be forgotten, and whether their own answers hold any."""

    def __init__(self) -> None:
        """Know nobody yet."""
        self.forms: dict[str, dict[str, str]] = {}
        """First word -> form -> entity."""
        self.wordless: dict[str, str] = {}
        """Form without letters or digits -> entity."""
        self.told: dict[str, bool] = {}
        """Entity -> whether one of its answers holds one of its private strings."""

    def add(self, row: Example) -> None:
        """Note the private strings of a row."""
        for form in (form for forms in row.private.values() for form in forms):
            if words := normalise(form).split():
                self.forms.setdefault(words[0], {}).setdefault(form, row.entity)
            else:
                self.wordless.setdefault(form, row.entity)
        if row.private and row.answer and row.kind in PROBES:
            self.told[row.entity] = self.told.get(row.entity, False) or _tells(row)

    def told_by(self, row: Example) -> Iterator[str]:
        """Yield how a message names a row whose answer holds a string that is private to somebody else."""
        own = {normalise(form) for forms in row.private.values() for form in forms}
        for form, entity in self.inside(row.answer):
            if normalise(form) not in own and entity != row.entity:
                yield f"{row.id} ({shown(form, 40)} of {entity})"

    def inside(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield the private strings that a text holds, with their entities."""
        for word in dict.fromkeys(_words(text)):
            for form, entity in self.forms.get(word, {}).items():
                if contains_term(text, form):
                    yield form, entity


def _words(text: str) -> list[str]:
    """Return the words of `normalise`, found faster where there is only ASCII."""
    return _ASCII.findall(text.lower()) if text.isascii() else _normalised(text).split()


def _tells(row: Example) -> bool:
    """Tell whether the answer of a row holds one of its private strings."""
    text = " ".join(_words(row.answer))
    near = any(normalise(form).strip() in text for forms in row.private.values() for form in forms)
    return near and bool(leaked(row.answer, row.private))


class _Digests:
    """Digests of pictures, by content; files that were read last are not read again."""

    def __init__(self) -> None:
        """Know no file yet."""
        self._files: dict[Path, int] = {}

    def of(self, image: ImageSource) -> int:
        """Return eight bytes of the hash of the content."""
        if not isinstance(image, ImageFile):
            return digest64(image.key)
        if image.path not in self._files:
            if len(self._files) >= _REMEMBERED:
                self._files.clear()
            self._files[image.path] = digest64(image.key)
        return self._files[image.path]


class _Words:
    """What the words of private strings and reference answers mean for judging."""

    def __init__(self) -> None:
        self.everyday: dict[str, None] = {}
        self.short: dict[str, None] = {}
        self.hidden, self.languages = _Ids(), _Ids()
        self._left = _LANGUAGES

    def look(self, example: Example) -> None:
        """Note private strings that may be found by chance, and answers that the rules cannot read."""
        for fact, forms in example.private.items():
            if proper(fact) and all(map(everyday, forms)):  # a longer form beside it is found whatever its case
                self.everyday.update(dict.fromkeys(forms))
            self.short.update((form, None) for form in forms if len(form) == 1 and not spaced(form))
        if self._left:
            self._left -= 1
            if unreadable(example.answer, example.private):
                self.hidden.add(example.id)
            if not english(example.answer):
                self.languages.add(example.id)

    def warnings(self) -> Iterator[str]:
        """Yield one line for each kind."""
        if self.everyday:
            yield (
                f"{_first(list(self.everyday))}: names that are everyday words, so an answer has to write them with a capital "
                "to count as a leak. Give a longer form too, such as the full name."
            )
        if self.short:
            yield f"{_first(list(self.short))}: private strings of one character are found inside many words; give longer ones."
        if self.hidden.count:
            yield (
                f"the answer is in a script in which a private string is not given, in {self.hidden}. Leaks in that script are "
                "missing from the scores; add the strings in it."
            )
        if self.languages.count:
            yield (
                f"the answer is not in English in {self.languages}. Refusals are told in English only, so refusal, uninformative "
                "and clean are missing where the model answers in another language; leaks are judged."
            )


def _problems(seen: _Seen) -> Iterator[str]:
    if not seen.train_roles[Role.FORGET]:
        raised = "but there are text-only ones" if seen.train_roles[Role.FORGET_TEXT] else "at all"
        yield f"no image is to be forgotten: there is no training row of role forget with an image {raised}."
    for split, examples in seen.splits.items():
        again = Counter(examples[first].id for first, _ in repeats(seen.ids[split]))
        for name, count in again.items():
            yield f"id {shown(name)} occurs {count + 1} times in split {split}; ids must differ."
    if seen.empty.count:
        yield f"the answer is empty in {seen.empty}."
    for entity in sorted(seen.forgotten.keys() & seen.kept.keys()):
        yield (
            f"entity {shown(entity)} is to be forgotten ({seen.forgotten[entity]}) and to be kept ({seen.kept[entity]}); "
            "decide for one."
        )


def _warnings(seen: _Seen) -> Iterator[str]:
    if not seen.train_roles[Role.RETAIN] + seen.train_roles[Role.RETAIN_TEXT]:
        yield "there are no retain rows: methods with a retain term have nothing to hold on to."
    if not seen.judged_roles[Role.UNSEEN]:
        yield "there are no unseen rows: forgetting is judged only on images that the unlearning has seen."
    if seen.bare.count:
        yield f"no private strings are given for {seen.bare}: no leak can be found there."
    if seen.told.count:
        yield f"the question itself says a private string in {seen.told}: that string does not count as a leak there."
    yield from seen.words.warnings()
    if seen.blanks.count:
        yield f"the answer is a word that programs write for an empty cell in {seen.blanks}: is it meant?"
    yield from _picture_warnings(seen)
    yield from _secret_warnings(seen)
    names = {name: who for name, who in sorted(seen.names.items()) if len(who) > 1}
    told_apart = "one cannot be told from the other in text"
    yield from _some(
        f"{_first(sorted(who))} have the same name {shown(name)}: {told_apart}." for name, who in names.items()
    )
    answers = sorted(seen.shared_answers().items())
    yield from _some(
        f"{_first(sorted(who))} have the same answer {shown(answer, 60)}." for answer, who in answers if answer
    )


def _picture_warnings(seen: _Seen) -> Iterator[str]:
    again, both = seen.again.unseen, seen.again.kept
    if again.count:
        yield f"unseen rows have a picture that the unlearning sees in a forget row, so it is not new: {again}."
    if both.count:
        yield f"a picture is to be forgotten and to be kept: {both} have the picture of a forget row."


def _secret_warnings(seen: _Seen) -> Iterator[str]:
    told = seen.again.told
    if told.count:
        yield f"answers that are to be kept hold a private string of somebody who is to be forgotten: {told}."
    silent = sorted(entity for entity, told in seen.secrets.told.items() if not told)
    if silent:
        yield (
            f"no answer about {_first(silent)} holds one of their private strings, so no leak may ever be found; look for "
            "a typing error in private."
        )
    wordless = [f"{shown(form, 40)} ({entity})" for form, entity in sorted(seen.secrets.wordless.items())]
    if wordless:
        yield f"private strings without a letter or digit can never be found in an answer: {_first(wordless)}."


def _some(lines: Iterable[str]) -> Iterator[str]:
    """Yield the first few lines, and how many more there are."""
    found = list(lines)
    yield from found[:_SHOWN]
    if len(found) > _SHOWN:
        yield f"... and {len(found) - _SHOWN} more like the last one."


def _named(example: Example) -> bool:
    return example.role in _FORGOTTEN and example.kind in (Kind.OPEN, Kind.NAME)


def _terms_in_question(example: Example) -> bool:
    question = example.question.casefold()
    return any(form.casefold() in question for forms in example.private.values() for form in forms)


@dataclass
class _Ids:
    """Some ids, of which a message names the first."""

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, name: str, *, once: bool = False) -> None:
        """Count an id; `once`: unless it is among those named."""
        if once and name in self.first:
            return
        self.count += 1
        if self.count <= _SHOWN:
            self.first.append(name)

    def add_all(self, names: Iterable[str]) -> None:
        """Count ids, each once if it is among those named."""
        for name in names:
            self.add(name, once=True)

    def __str__(self) -> str:
        """Return the ids as a message names them."""
        return ", ".join(self.first) + (f" and {self.count - _SHOWN} more" if self.count > _SHOWN else "")


@dataclass
class _Again:
    """Rows about others that have a picture, or a private string, of those who are to be forgotten."""

    unseen: _Ids = field(default_factory=_Ids)
    kept: _Ids = field(default_factory=_Ids)
    told: _Ids = field(default_factory=_Ids)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
