"""Data check: problems that prevent a run, and warnings."""

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
from typing import Final, Literal

from unsee.api import PROBES, Benchmark, Example, ImageSource, Kind, Role
from unsee.api.example import OF_TARGETS, ImageFile
from unsee.api.lazy import chosen
from unsee.data.row_store import ambiguous, contains, digest64, repeats, sorted_digests
from unsee.errors import UserError, first_names, list_message, short_repr
from unsee.metrics.language import english
from unsee.metrics.matching import contains as contains_term
from unsee.metrics.matching import everyday, leaked_facts, proper, unreadable
from unsee.metrics.normal_form import normalise
from unsee.metrics.scripts import is_spaced
from unsee.utils.grouping import by_key

_RETAINED: Final = (Role.RETAIN, Role.RETAIN_TEXT)
_KEPT: Final = (*_RETAINED, Role.STRANGER)
_NOT_THAT_PICTURE: Final = (Role.UNSEEN, Role.RETAIN, Role.BENIGN, Role.STRANGER)
"""Roles whose images must not be those of the forget set."""
_JUDGED_ONLY: Final = (Role.UNSEEN, Role.STRANGER)
"""Roles whose images must not be those of any row that a model is trained on."""
_BLANKS: Final = frozenset({"nan", "none", "null", "n/a", "<na>"})
"""Texts that pandas or databases write for empty cells."""
_REMEMBERED: Final = 4096
"""Number of cached image hashes."""
_ASCII: Final = re.compile(r"[a-z0-9]+")
"""A word of a text that is ASCII only."""
_normalised: Final = normalise.__wrapped__
"""`normalise` without its cache: there may be millions of answers, each normalised once."""
_SHOWN: Final = 5
"""Most ids named in a message."""
_LANGUAGES: Final = 1000
"""Number of answers tested for their language; the warning is about the whole data set."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of a data check."""

    data: str
    problems: tuple[str, ...]
    """Faults that make the data unusable."""
    warnings: tuple[str, ...]
    """Legal but surprising facts."""
    counts: Mapping[str, int]
    """Role -> number of evaluation examples."""

    @property
    def usable(self) -> bool:
        """Whether a run may start."""
        return not self.problems

    def __str__(self) -> str:
        """Return the report as text: verdict first, then one line per finding."""
        verdict = "usable" if self.usable else f"not usable, {_plural(len(self.problems), 'problem')}"
        roles = ", ".join(f"{count} {role}" for role, count in self.counts.items())
        lines = [f"{self.data}: {verdict}" + (f" (judged: {roles})" if roles else "")]
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def examine(opened: Benchmark, data: str) -> Report:
    """Return the report on a benchmark: its own faults, then those of the data as a whole."""
    problems = list(dict.fromkeys(opened.problems()))
    if problems:
        return Report(data=data, problems=tuple(problems), warnings=(), counts={})
    survey = Survey(opened, warn=True)
    return Report(
        data=data,
        problems=tuple(_problems(survey)),
        warnings=tuple(dict.fromkeys((*opened.warnings(), *_warnings(survey)))),
        counts={role.value: survey.judged_roles[role] for role in Role if survey.judged_roles[role]},
    )


def require_usable(
    opened: Benchmark, data: str, most: int = 20, *, hashed: bool = False, decoded: bool = True
) -> Survey:
    """Return the survey of the data, or raise if they have problems.

    Args:
        opened: Data to look through.
        data: Their place, for the message.
        most: Problems listed in the message.
        hashed: Fingerprint the data in the same pass.
        decoded: Also decode every picture, which takes the longest.

    Raises:
        UserError: The data have problems; the first are listed.
    """
    problems, survey = list(opened.problems()) if decoded else [], None
    if not problems:
        survey = Survey(opened, hashed=hashed)
        problems = list(_problems(survey))
    if problems or survey is None:
        head, hint = f"The data at {data} cannot be used:", f" (unsee check --data {data} lists all)"
        raise UserError(list_message(head, problems, most, hint))
    return survey


def fingerprint(opened: Benchmark) -> str:
    """Return the SHA-256 of all examples, pixels included, independent of file names."""
    digest = hashlib.sha256()
    for split in ("train", "eval"):
        for example in opened.examples(split):
            digest.update(_row_bytes(split, example, example.image.key if example.image else ""))
    return digest.hexdigest()


def _row_bytes(split: str, example: Example, image: str) -> bytes:
    """Return the bytes of a row that the fingerprint hashes, `image` being the content key."""
    row = [
        *(split, example.id, example.role, example.question, example.answer),
        *(example.entity, example.kind, example.fact),
        *(dict(example.private), dict(example.visible), example.options, example.chain),
        *((example.paraphrase, example.perturbed) if example.perturbed or example.paraphrase else ()),
        *((["accepted", *example.accepted],) if example.accepted else ()),
        image,
    ]
    return json.dumps(row, ensure_ascii=False, sort_keys=True).encode()


def _examples(opened: Benchmark, split: Literal["train", "eval"]) -> Sequence[Example]:
    """Return the examples of a split, or raise if they can be read only once."""
    rows = opened.examples(split)
    if not isinstance(rows, Sequence):
        raise UserError(
            f"The benchmark {opened.name} must return a sequence of examples, such as a list, got {short_repr(rows)}."
        )
    return rows


class Survey:
    """Findings of one pass over both splits: a few bytes per row, and more per entity."""

    def __init__(self, opened: Benchmark, *, warn: bool = False, hashed: bool = False) -> None:
        """Read every row of both splits. A row in both counts once where ids are named.

        With `warn`, rows of other roles are also compared with the forget set as read so far (see `overlaps`).
        With `hashed`, `fingerprint` is the result of the function of this name, else "".
        """
        train_rows, eval_rows = _examples(opened, "train"), _examples(opened, "eval")
        self.splits = {"train": train_rows, "eval": eval_rows}
        self.ids = {split: array("Q") for split in self.splits}
        self.places: dict[Role, array[int]] = {}
        """Role -> indices of its training examples."""
        self.judged_roles: Counter[Role] = Counter()
        self.empty, self.bare, self.revealing, self.blanks = _Ids(), _Ids(), _Ids(), _Ids()
        self.secrets = _Secrets()
        self.forgotten: dict[str, _Ids] = {}
        self.kept: dict[str, _Ids] = {}
        self.retained: dict[str, _Ids] = {}
        self.strangers: dict[str, _Ids] = {}
        self.names: dict[str, set[str]] = {}
        self.words = _Words()
        self._open_answers, self._by = array("Q"), array("Q")
        self.digests, self.trained = _Digests(), set[int]()
        """Images of the forget set that unlearning may train on."""
        self.pictures = array("Q")
        """Images of all training rows, sorted after the training rows; collected with `warn` only."""
        digest = hashlib.sha256() if hashed else None
        for index, example in enumerate(train_rows):
            self.places.setdefault(example.role, array("Q")).append(index)
            if digest is not None:
                digest.update(_row_bytes("train", example, self.digests.key(example.image)))
            if example.image and (warn or example.role is Role.FORGET):
                self._note_image(example.role, self.digests.of(example.image))
            if not example.answer.strip():
                self.empty.add(example.id)
            self.ids["train"].append(digest64(example.id))
            self._collect(example)
        train_ids = sorted_digests(self.ids["train"])
        self.pictures = sorted_digests(self.pictures)
        self._compared = _Overlaps() if warn else None
        secret_count = self.secrets.size
        for example in eval_rows:
            self.judged_roles[example.role] += 1
            if digest is not None:
                digest.update(_row_bytes("eval", example, self.digests.key(example.image)))
            id_digest = digest64(example.id)
            self.ids["eval"].append(id_digest)
            if not contains(train_ids, id_digest):
                self._collect(example)
            if self._compared is not None:
                self._compare(example, self._compared)
        if self.secrets.size > secret_count:
            self._compared = None
        self.fingerprint = "" if digest is None else digest.hexdigest()

    def by_role(self) -> dict[Role, Sequence[Example]]:
        """Return the training examples by role. Of data on disk only their indices."""
        examples = self.splits["train"]
        if isinstance(examples, list):
            return {role: [examples[index] for index in indices] for role, indices in self.places.items()}
        return {role: chosen(examples, indices) for role, indices in self.places.items()}

    def _note_image(self, role: Role, digest: int) -> None:
        """Note the image of a training row."""
        if role is Role.FORGET:
            self.trained.add(digest)
        if role not in _JUDGED_ONLY:
            self.pictures.append(digest)

    def _collect(self, example: Example) -> None:
        """Collect what can be checked only over the whole data set."""
        groups = {
            OF_TARGETS: self.forgotten,
            _KEPT: self.kept,
            _RETAINED: self.retained,
            (Role.STRANGER,): self.strangers,
        }
        for roles, ids_by_entity in groups.items():
            if example.entity and example.role in roles:
                ids_by_entity.setdefault(example.entity, _Ids()).add(example.id)
        for name in example.private.get("name", ())[:1]:
            self.names.setdefault(name.casefold(), set()).add(example.entity)
        if example.role in OF_TARGETS and example.kind in PROBES:
            self.words.add(example)
            if not example.private:
                self.bare.add(example.id)
            # A text-only question has to name the person it is about.
            if example.image and _terms_in_question(example):
                self.revealing.add(example.id)
        if example.answer.casefold() in _BLANKS:
            self.blanks.add(example.id)
        if example.role in OF_TARGETS and example.entity:
            self.secrets.add(example)
        if _elicits_name(example):
            self._open_answers.append(digest64(example.answer))
            self._by.append(digest64(example.entity))

    def shared_answers(self) -> dict[str, set[str]]:
        """Return the answers shared by several entities.

        A second pass finds them again, because only hashes are kept.
        """
        owners: dict[str, set[str]] = {}
        shared_digests = ambiguous(self._open_answers, self._by)
        for example in self.rows() if shared_digests else ():
            if _elicits_name(example) and digest64(example.answer) in shared_digests:
                owners.setdefault(example.answer, set()).add(example.entity)
        return owners

    def rows(self) -> Iterator[Example]:
        """Yield the rows of both splits. Those in both twice."""
        return (example for examples in self.splits.values() for example in examples)

    def distinct(self) -> Iterator[Example]:
        """Yield the rows of both splits. Those in both once."""
        yield from self.splits["train"]
        train_ids = sorted_digests(self.ids["train"])
        for index, digest in enumerate(self.ids["eval"]):
            if not contains(train_ids, digest):
                yield self.splits["eval"][index]

    @cached_property
    def overlaps(self) -> _Overlaps:
        """Run checks that need the whole forget set, on rows not compared before.

        The pass over the evaluation rows compares them, unless they hold private strings that the training rows do not.
        """
        if self._compared is None:
            overlaps, rows = _Overlaps(), self.distinct()
        else:
            eval_ids = sorted_digests(self.ids["eval"])
            indices = (index for index, digest in enumerate(self.ids["train"]) if not contains(eval_ids, digest))
            overlaps, rows = self._compared, (self.splits["train"][index] for index in indices)
        for row in rows:
            self._compare(row, overlaps)
        return overlaps

    def _compare(self, row: Example, overlaps: _Overlaps) -> None:
        """Add a row that has an image or a private string of others, which it must not have."""
        if row.role in _NOT_THAT_PICTURE and row.image:
            digest = self.digests.of(row.image)
            if digest in self.trained:
                (overlaps.unseen if row.role is Role.UNSEEN else overlaps.kept).add(row.id, once=True)
            elif row.role in _JUDGED_ONLY and contains(self.pictures, digest):
                overlaps.known.add(row.id, once=True)
        if row.role in _KEPT and self.secrets.forms:
            overlaps.leaking.add_all(self.secrets.foreign_strings(row))


class _Secrets:
    """Private strings of the forget set, and whether answers contain any."""

    def __init__(self) -> None:
        """Start without entities."""
        self.forms: dict[str, dict[str, str]] = {}
        """First word -> form -> entity."""
        self.wordless: dict[str, str] = {}
        """Form without letters or digits -> entity."""
        self.leaks_by_entity: dict[str, bool] = {}
        """Entity -> whether one of its answers contains a private string."""

    @property
    def size(self) -> int:
        """Number of private strings."""
        return sum(map(len, self.forms.values()))

    def add(self, row: Example) -> None:
        """Add the private strings of a row."""
        for form in (form for forms in row.private.values() for form in forms):
            if words := normalise(form).split():
                self.forms.setdefault(words[0], {}).setdefault(form, row.entity)
            else:
                self.wordless.setdefault(form, row.entity)
        if row.private and row.answer and row.kind in PROBES:
            self.leaks_by_entity[row.entity] = self.leaks_by_entity.get(row.entity, False) or _tells(row)

    def foreign_strings(self, row: Example) -> Iterator[str]:
        """Yield the name of a row whose answer contains another entity's private string."""
        own_forms = {normalise(form) for forms in row.private.values() for form in forms}
        for form, entity in self.inside(row.answer):
            if normalise(form) not in own_forms and entity != row.entity:
                yield f"{row.id} ({short_repr(form, 40)} of {entity})"

    def inside(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield the private strings in a text, with their entities."""
        for word in dict.fromkeys(_words(text)):
            for form, entity in self.forms.get(word, {}).items():
                if contains_term(text, form):
                    yield form, entity


def _is_short(form: str) -> bool:
    """Tell whether only one character is matched.

    So it is with "C++", and with names in scripts without blanks.
    """
    letters = normalise(form).strip()
    return len(letters) == 1 and (len(form) > 1 or not is_spaced(form))


def _words(text: str) -> list[str]:
    """Return the words of `normalise`, faster for ASCII text."""
    return _ASCII.findall(text.lower()) if text.isascii() else _normalised(text).split()


def _tells(row: Example) -> bool:
    """Tell whether a row's answer contains one of its private strings."""
    text = " ".join(_words(row.answer))
    may_leak = any(normalise(form).strip() in text for forms in row.private.values() for form in forms)
    return may_leak and bool(leaked_facts(row.answer, row.private))


class _Digests:
    """Hashes of images by content, cached for recently read files."""

    def __init__(self) -> None:
        """Start with an empty cache."""
        self._files: dict[Path, str] = {}

    def of(self, image: ImageSource) -> int:
        """Return an eight-byte hash of the content."""
        return digest64(self.key(image))

    def key(self, image: ImageSource | None) -> str:
        """Return the content key, "" without an image."""
        if not isinstance(image, ImageFile):
            return image.key if image else ""
        if image.path not in self._files:
            if len(self._files) >= _REMEMBERED:
                self._files.clear()
            self._files[image.path] = image.key
        return self._files[image.path]


class _Words:
    """Checks of private strings and reference answers for judging by rules."""

    def __init__(self) -> None:
        self.everyday: dict[str, None] = {}
        self.short: dict[str, None] = {}
        self.hidden, self.languages = _Ids(), _Ids()
        self._left = _LANGUAGES

    def add(self, example: Example) -> None:
        """Collect private strings that match by chance, and answers that the rules cannot read."""
        for fact, forms in example.private.items():
            if proper(fact) and all(map(everyday, forms)):  # a longer form beside it is found whatever its case
                self.everyday.update(dict.fromkeys(forms))
            self.short.update((form, None) for form in forms if _is_short(form))
        if self._left:
            self._left -= 1
            if unreadable(example.answer, example.private):
                self.hidden.add(example.id)
            if not english(example.answer):
                self.languages.add(example.id)

    def warnings(self) -> Iterator[str]:
        """Yield one line per kind."""
        if self.everyday:
            yield (
                f"{first_names(list(self.everyday))}: names that are everyday words, so an answer has to write them with a capital "
                "to count as a leak. Give a longer form too, such as the full name."
            )
        if self.short:
            yield f"{first_names(list(self.short))}: private strings of one character are found in many answers; give longer ones."
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


def _problems(survey: Survey) -> Iterator[str]:
    if Role.FORGET not in survey.places:
        detail = "but there are text-only ones" if Role.FORGET_TEXT in survey.places else "at all"
        yield f"no image is to be forgotten: there is no training row of role forget with an image {detail}."
    for split, examples in survey.splits.items():
        repeat_counts = Counter(examples[first].id for first, _ in repeats(survey.ids[split]))
        for row_id, count in repeat_counts.items():
            yield f"id {short_repr(row_id)} occurs {count + 1} times in split {split}; ids must differ."
    if survey.empty.count:
        yield f"the answer is empty in {survey.empty}."
    for entity in sorted(survey.forgotten.keys() & survey.kept.keys()):
        yield (
            f"entity {short_repr(entity)} is to be forgotten ({survey.forgotten[entity]}) and to be kept ({survey.kept[entity]}); "
            "decide for one."
        )


def _warnings(survey: Survey) -> Iterator[str]:
    if not survey.places.keys() & {*_RETAINED}:
        yield "there are no retain rows: methods with a retain term have nothing to hold on to."
    if text_count := len(survey.places.get(Role.FORGET_TEXT, ())):
        yield f"{_plural(text_count, 'forget row')} without a picture: only the methods `unsee` and `rmuse` act on them."
    if not survey.judged_roles[Role.UNSEEN]:
        yield "there are no unseen rows: forgetting is judged only on images that the unlearning has seen."
    if survey.bare.count:
        yield f"no private strings are given for {survey.bare}: no leak can be found there."
    if survey.revealing.count:
        yield f"the question itself says a private string in {survey.revealing}: that string does not count as a leak there."
    yield from survey.words.warnings()
    if survey.blanks.count:
        yield f"the answer is a word that programs write for an empty cell in {survey.blanks}: is it meant?"
    yield from _picture_warnings(survey)
    yield from _secret_warnings(survey)
    yield from _entity_warnings(survey)
    shared_names = {name: entities for name, entities in sorted(survey.names.items()) if len(entities) > 1}
    reason = "one cannot be told from the other in text"
    yield from _first_lines(
        f"{first_names(sorted(entities))} have the same name {short_repr(name)}: {reason}."
        for name, entities in shared_names.items()
    )
    answers = sorted(survey.shared_answers().items())
    yield from _first_lines(
        f"{first_names(sorted(entities))} have the same answer {short_repr(answer, 60)}."
        for answer, entities in answers
        if answer
    )


def _entity_warnings(survey: Survey) -> Iterator[str]:
    """Yield entities that are easily confused, and strangers that are to be retained too."""
    entities_by_form = by_key(
        (normalise(entity), entity) for entity in sorted(survey.forgotten.keys() | survey.kept.keys())
    )
    yield from _first_lines(
        f"entities {', '.join(map(short_repr, entities[:_SHOWN]))} differ only in capitals, accents or punctuation: are they one?"
        for form, entities in entities_by_form.items()
        if len(entities) > 1 and form != " "
    )
    yield from _first_lines(
        f"entity {short_repr(entity)} is a stranger ({survey.strangers[entity]}) and to be retained ({survey.retained[entity]}); decide for one."
        for entity in sorted(survey.strangers.keys() & survey.retained.keys())
    )


def _picture_warnings(survey: Survey) -> Iterator[str]:
    unseen_ids, kept_ids, known_ids = survey.overlaps.unseen, survey.overlaps.kept, survey.overlaps.known
    if unseen_ids.count:
        yield f"unseen rows have a picture that the unlearning sees in a forget row, so it is not new: {unseen_ids}."
    if kept_ids.count:
        yield f"a picture is to be forgotten and to be kept: {kept_ids} have the picture of a forget row."
    if known_ids.count:
        yield f"unseen or stranger rows have a picture of another row that is trained on, so it is not new: {known_ids}."


def _secret_warnings(survey: Survey) -> Iterator[str]:
    leaking_ids = survey.overlaps.leaking
    if leaking_ids.count:
        yield f"answers that are to be kept hold a private string of somebody who is to be forgotten: {leaking_ids}."
    silent_entities = sorted(entity for entity, has_leak in survey.secrets.leaks_by_entity.items() if not has_leak)
    if silent_entities:
        yield (
            f"no answer about {first_names(silent_entities)} holds one of their private strings, so no leak may ever be found; look for "
            "a typing error in private."
        )
    wordless_forms = [f"{short_repr(form, 40)} ({entity})" for form, entity in sorted(survey.secrets.wordless.items())]
    if wordless_forms:
        yield f"private strings without a letter or digit can never be found in an answer: {first_names(wordless_forms)}."


def _first_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the first few lines, and the number of others."""
    messages = list(lines)
    yield from messages[:_SHOWN]
    if len(messages) > _SHOWN:
        yield f"... and {len(messages) - _SHOWN} more like the last one."


def _elicits_name(example: Example) -> bool:
    return example.role in OF_TARGETS and example.kind in (Kind.OPEN, Kind.NAME)


def _terms_in_question(example: Example) -> bool:
    return any(contains_term(example.question, form) for forms in example.private.values() for form in forms)


@dataclass
class _Ids:
    """Ids for a message, of which the first are named."""

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, row_id: str, *, once: bool = False) -> None:
        """Count an id. `once`: unless it is already named."""
        if once and row_id in self.first:
            return
        self.count += 1
        if self.count <= _SHOWN:
            self.first.append(row_id)

    def add_all(self, row_ids: Iterable[str]) -> None:
        """Count ids, each once if it is already named."""
        for row_id in row_ids:
            self.add(row_id, once=True)

    def __str__(self) -> str:
        """Return the ids as text for a message."""
        return ", ".join(self.first) + (f" and {self.count - _SHOWN} more" if self.count > _SHOWN else "")


@dataclass
class _Overlaps:
    """Rows of other roles that overlap with the forget set or the training rows.

    They have an image or private string of the forget set, or an image of another training row.
    """

    unseen: _Ids = field(default_factory=_Ids)
    kept: _Ids = field(default_factory=_Ids)
    known: _Ids = field(default_factory=_Ids)
    leaking: _Ids = field(default_factory=_Ids)


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
