"""Is this data usable? Everything that is wrong with it, and what is merely worth knowing."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from unsee.api import PROBES, Benchmark, Example, Kind, Role
from unsee.benchmarks import open_benchmark
from unsee.errors import UserError

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
                example.image.key if example.image else "",
            ]
            digest.update(json.dumps(row, ensure_ascii=False, sort_keys=True).encode())
    return digest.hexdigest()


def _problems(train: Sequence[Example], judged: Sequence[Example]) -> Iterator[str]:
    if not any(example.role is Role.FORGET for example in train):
        raised = "but there are text-only ones" if any(e.role is Role.FORGET_TEXT for e in train) else "at all"
        yield f"no image is to be forgotten: there is no training row of role forget with an image {raised}."
    for split, examples in (("train", train), ("eval", judged)):
        for name, count in Counter(example.id for example in examples).items():
            if count > 1:
                yield f"id {name!r} occurs {count} times in split {split}; ids must differ."
    empty = [example.id for example in train if not example.answer.strip()]
    if empty:
        yield f"the answer is empty in {_ids(empty)}."
    everything = _distinct(train, judged)
    forgotten = _ids_by_entity(everything, _FORGOTTEN)
    kept = _ids_by_entity(everything, _KEPT)
    for entity in sorted(forgotten.keys() & kept.keys()):
        yield (
            f"entity {entity!r} is to be forgotten ({_ids(forgotten[entity])}) and to be kept ({_ids(kept[entity])}); "
            "decide for one."
        )


def _warnings(train: Sequence[Example], judged: Sequence[Example]) -> Iterator[str]:
    everything = _distinct(train, judged)
    if not any(example.role in (Role.RETAIN, Role.RETAIN_TEXT) for example in train):
        yield "there are no retain rows: methods with a retain term have nothing to hold on to."
    if not any(example.role is Role.UNSEEN for example in judged):
        yield "there are no unseen rows: forgetting is judged only on images that the unlearning has seen."
    forgotten = [example for example in everything if example.role in _FORGOTTEN]
    bare = [example.id for example in forgotten if example.kind in PROBES and not example.private]
    if bare:
        yield f"no private strings are given for {_ids(bare)}: no leak can be found there."
    # A text-only question has to name the person it is about.
    told = [
        example.id for example in forgotten if example.image and example.kind in PROBES and _terms_in_question(example)
    ]
    if told:
        yield f"the question itself says a private string in {_ids(told)}: that string does not count as a leak there."
    yield from _shared_names(everything)
    yield from _shared_answers([example for example in forgotten if example.kind in (Kind.OPEN, Kind.NAME)])


def _shared_names(examples: Sequence[Example]) -> Iterator[str]:
    owners: dict[str, set[str]] = {}
    for example in examples:
        for name in example.private.get("name", ())[:1]:
            owners.setdefault(name.casefold(), set()).add(example.entity)
    for name, entities in sorted(owners.items()):
        if len(entities) > 1:
            yield f"{', '.join(sorted(entities))} have the same name {name!r}: one cannot be told from the other in text."


def _shared_answers(forgotten: Sequence[Example]) -> Iterator[str]:
    owners: dict[str, set[str]] = {}
    for example in forgotten:
        owners.setdefault(example.answer, set()).add(example.entity)
    for answer, entities in sorted(owners.items()):
        if answer and len(entities) > 1:
            yield f"{', '.join(sorted(entities))} have the same answer {answer!r:.60}."


def _terms_in_question(example: Example) -> bool:
    question = example.question.casefold()
    return any(form.casefold() in question for forms in example.private.values() for form in forms)


def _distinct(train: Sequence[Example], judged: Sequence[Example]) -> list[Example]:
    return list({example.id: example for example in (*train, *judged)}.values())


def _ids_by_entity(examples: Sequence[Example], roles: Sequence[Role]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for example in examples:
        if example.entity and example.role in roles:
            found.setdefault(example.entity, []).append(example.id)
    return found


def _ids(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
