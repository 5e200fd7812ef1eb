"""Is this data usable? Everything that is wrong with it, and what is merely worth knowing."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from unsee.api import PROBES, Benchmark, Example, Kind, Role
from unsee.benchmarks import open_benchmark
from unsee.errors import UserError
from unsee.rowstore import digest64, repeats

_FORGOTTEN: Final = (Role.FORGET, Role.FORGET_TEXT, Role.UNSEEN)
_KEPT: Final = (Role.RETAIN, Role.RETAIN_TEXT, Role.STRANGER)
_SHOWN: Final = 5
"""How many ids a message names."""


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


def check(data: Path | str, *, benchmark: str | Mapping[str, Any] = "") -> Report:
    """Open the data and return everything that is wrong with it; raises UserError if it cannot be opened at all."""
    return examine(open_benchmark(data, benchmark), str(data))


def examine(opened: Benchmark, data: str) -> Report:
    """Return the report on an opened data set: first its own faults, then those that show only in the whole."""
    problems = list(opened.problems())
    if problems:
        return Report(data=data, problems=tuple(problems), warnings=(), counts={})
    train, judged = opened.examples("train"), opened.examples("eval")
    counts = Counter(example.role.value for example in judged)
    return Report(
        data=data,
        problems=tuple(_problems(train, judged)),
        warnings=(*opened.warnings(), *_warnings(train, judged)),
        counts={role.value: counts[role.value] for role in Role if counts[role.value]},
    )


def require_usable(opened: Benchmark, data: str, most: int = 20) -> None:
    """Raise with the problems of the data, if it has any."""
    problems = examine(opened, data).problems
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


def _problems(train: Sequence[Example], judged: Sequence[Example]) -> Iterator[str]:
    roles = Counter(example.role for example in train)
    if not roles[Role.FORGET]:
        raised = "but there are text-only ones" if roles[Role.FORGET_TEXT] else "at all"
        yield f"no image is to be forgotten: there is no training row of role forget with an image {raised}."
    for split, examples in (("train", train), ("eval", judged)):
        again = Counter(examples[first].id for first, _ in repeats(_digests(examples)))
        for name, count in again.items():
            yield f"id {name!r} occurs {count + 1} times in split {split}; ids must differ."
    empty = _Ids()
    for example in train:
        if not example.answer.strip():
            empty.add(example.id)
    if empty.count:
        yield f"the answer is empty in {empty}."
    forgotten, kept = _by_entity(train, judged)
    for entity in sorted(forgotten.keys() & kept.keys()):
        yield (
            f"entity {entity!r} is to be forgotten ({forgotten[entity]}) and to be kept ({kept[entity]}); "
            "decide for one."
        )


def _warnings(train: Sequence[Example], judged: Sequence[Example]) -> Iterator[str]:
    if not any(example.role in (Role.RETAIN, Role.RETAIN_TEXT) for example in train):
        yield "there are no retain rows: methods with a retain term have nothing to hold on to."
    if not any(example.role is Role.UNSEEN for example in judged):
        yield "there are no unseen rows: forgetting is judged only on images that the unlearning has seen."
    bare, told = _Ids(), _Ids()
    for example in _distinct(train, judged):
        if example.role in _FORGOTTEN and example.kind in PROBES:
            if not example.private:
                bare.add(example.id)
            # A text-only question has to name the person it is about.
            if example.image and _terms_in_question(example):
                told.add(example.id)
    if bare.count:
        yield f"no private strings are given for {bare}: no leak can be found there."
    if told.count:
        yield f"the question itself says a private string in {told}: that string does not count as a leak there."
    yield from _shared_names(_distinct(train, judged))
    yield from _shared_answers(lambda: (example for example in _distinct(train, judged) if _named(example)))


def _named(example: Example) -> bool:
    return example.role in _FORGOTTEN and example.kind in (Kind.OPEN, Kind.NAME)


def _shared_names(examples: Iterable[Example]) -> Iterator[str]:
    owners: dict[str, set[str]] = {}
    for example in examples:
        for name in example.private.get("name", ())[:1]:
            owners.setdefault(name.casefold(), set()).add(example.entity)
    for name, entities in sorted(owners.items()):
        if len(entities) > 1:
            yield f"{', '.join(sorted(entities))} have the same name {name!r}: one cannot be told from the other in text."


def _shared_answers(forgotten: Callable[[], Iterable[Example]]) -> Iterator[str]:
    """Yield the answers that several entities have; of all others only a few bytes are kept."""
    owner: dict[int, int] = {}
    common: set[int] = set()
    for example in forgotten():
        answer, entity = digest64(example.answer), digest64(example.entity)
        if owner.setdefault(answer, entity) != entity:
            common.add(answer)
    owners: dict[str, set[str]] = {}
    for example in forgotten() if common else ():
        if digest64(example.answer) in common:
            owners.setdefault(example.answer, set()).add(example.entity)
    for answer, entities in sorted(owners.items()):
        if answer:
            yield f"{_first(sorted(entities))} have the same answer {answer!r:.60}."


def _terms_in_question(example: Example) -> bool:
    question = example.question.casefold()
    return any(form.casefold() in question for forms in example.private.values() for form in forms)


def _digests(examples: Sequence[Example]) -> array[int]:
    return array("Q", (digest64(example.id) for example in examples))


def _distinct(train: Sequence[Example], judged: Sequence[Example]) -> Iterator[Example]:
    """Yield every example once, be it in one split or in both."""
    known = set(_digests(train))
    yield from train
    yield from (example for example in judged if digest64(example.id) not in known)


def _by_entity(train: Sequence[Example], judged: Sequence[Example]) -> tuple[dict[str, _Ids], dict[str, _Ids]]:
    """Return the rows about each entity that is to be forgotten, and to be kept."""
    forgotten: dict[str, _Ids] = {}
    kept: dict[str, _Ids] = {}
    for example in _distinct(train, judged):
        for found, roles in ((forgotten, _FORGOTTEN), (kept, _KEPT)):
            if example.entity and example.role in roles:
                found.setdefault(example.entity, _Ids()).add(example.id)
    return forgotten, kept


@dataclass
class _Ids:
    """Some ids, of which a message names the first."""

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, name: str) -> None:
        """Count an id."""
        self.count += 1
        if self.count <= _SHOWN:
            self.first.append(name)

    def __str__(self) -> str:
        """Return the ids as a message names them."""
        return ", ".join(self.first) + (f" and {self.count - _SHOWN} more" if self.count > _SHOWN else "")


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
