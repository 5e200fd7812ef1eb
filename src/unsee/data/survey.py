"""Survey of data: what one pass over all rows finds, in a few bytes per row."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Final, Literal

from unsee.api import PROBES, Benchmark, Example, Kind, Role
from unsee.api.example import JUDGED_ONLY, OF_TARGETS
from unsee.api.lazy import chosen
from unsee.data.fingerprint import image_keys, row_bytes
from unsee.data.row_store import ambiguous, contains, digest64, sorted_digests
from unsee.errors import UserError, short_repr
from unsee.metrics.language import english
from unsee.metrics.matching import contains as contains_term
from unsee.metrics.matching import everyday, leaked_facts, proper, unreadable
from unsee.metrics.normal_form import normalise
from unsee.metrics.scripts import is_spaced
from unsee.utils.parsing import BLANKS

RETAINED: Final = (Role.RETAIN, Role.RETAIN_TEXT)
SHOWN: Final = 5
"""Most ids named in a message."""
_KEPT: Final = (*RETAINED, Role.STRANGER)
_NOT_THAT_PICTURE: Final = (Role.UNSEEN, Role.RETAIN, Role.BENIGN, Role.STRANGER)
"""Roles whose images must not be those of the forget set."""
_ASCII: Final = re.compile(r"[a-z0-9]+")
"""A word of a text that is ASCII only."""
_normalised: Final = normalise.__wrapped__
"""`normalise` without its cache: there may be millions of answers, each normalised once."""
_LANGUAGES: Final = 1000
"""Number of answers tested for their language; the warning is about the whole data set."""


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
        self.words = Words()
        self._open_answers, self._by = array("Q"), array("Q")
        self._image_key, self.trained = image_keys(), set[int]()
        """Images of the forget set that unlearning may train on."""
        self.pictures = array("Q")
        """Images of all training rows, sorted after the training rows; collected with `warn` only."""
        digest = hashlib.sha256() if hashed else None
        for index, example in enumerate(train_rows):
            self.places.setdefault(example.role, array("Q")).append(index)
            if digest is not None:
                digest.update(row_bytes("train", example, self._image_key(example.image)))
            if example.image and (warn or example.role is Role.FORGET):
                self._note_image(example.role, digest64(self._image_key(example.image)))
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
                digest.update(row_bytes("eval", example, self._image_key(example.image)))
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
        return {role: chosen(self.splits["train"], indices) for role, indices in self.places.items()}

    def _note_image(self, role: Role, digest: int) -> None:
        """Note the image of a training row."""
        if role is Role.FORGET:
            self.trained.add(digest)
        if role not in JUDGED_ONLY:
            self.pictures.append(digest)

    def _collect(self, example: Example) -> None:
        """Collect what can be checked only over the whole data set."""
        groups = {
            OF_TARGETS: self.forgotten,
            _KEPT: self.kept,
            RETAINED: self.retained,
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
        if example.answer.casefold() in BLANKS:
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
        for example in chain.from_iterable(self.splits.values()) if shared_digests else ():
            if _elicits_name(example) and digest64(example.answer) in shared_digests:
                owners.setdefault(example.answer, set()).add(example.entity)
        return owners

    @cached_property
    def overlaps(self) -> _Overlaps:
        """Run checks that need the whole forget set, on rows not compared before.

        The pass over the evaluation rows compares them, unless they hold private strings that the training rows do not.
        """
        overlaps = self._compared or _Overlaps()
        for row in () if self._compared else self.splits["eval"]:
            self._compare(row, overlaps)
        eval_ids = sorted_digests(self.ids["eval"])
        for index, digest in enumerate(self.ids["train"]):
            if not contains(eval_ids, digest):
                self._compare(self.splits["train"][index], overlaps)
        return overlaps

    def _compare(self, row: Example, overlaps: _Overlaps) -> None:
        """Add a row that has an image or a private string of others, which it must not have."""
        if row.role in _NOT_THAT_PICTURE and row.image:
            digest = digest64(self._image_key(row.image))
            if digest in self.trained:
                (overlaps.unseen if row.role is Role.UNSEEN else overlaps.kept).add(row.id)
            elif row.role in JUDGED_ONLY and contains(self.pictures, digest):
                overlaps.known.add(row.id)
        if row.role in _KEPT and self.secrets.forms:
            for name in self.secrets.foreign_strings(row):
                overlaps.leaking.add(name)


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
        for word in dict.fromkeys(_words(row.answer)):
            for form, entity in self.forms.get(word, {}).items():
                if entity != row.entity and contains_term(row.answer, form) and normalise(form) not in own_forms:
                    yield f"{row.id} ({short_repr(form, 40)} of {entity})"


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


class Words:
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


def _elicits_name(example: Example) -> bool:
    return example.role in OF_TARGETS and example.kind in (Kind.OPEN, Kind.NAME)


def _terms_in_question(example: Example) -> bool:
    return any(contains_term(example.question, form) for forms in example.private.values() for form in forms)


@dataclass
class _Ids:
    """Ids for a message, of which the first are named."""

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, row_id: str) -> None:
        """Count an id."""
        self.count += 1
        if self.count <= SHOWN:
            self.first.append(row_id)

    def __str__(self) -> str:
        """Return the ids as text for a message."""
        return ", ".join(self.first) + (f" and {self.count - SHOWN} more" if self.count > SHOWN else "")


@dataclass
class _Overlaps:
    """Rows of other roles that overlap with the forget set or the training rows.

    They have an image or private string of the forget set, or an image of another training row.
    """

    unseen: _Ids = field(default_factory=_Ids)
    kept: _Ids = field(default_factory=_Ids)
    known: _Ids = field(default_factory=_Ids)
    leaking: _Ids = field(default_factory=_Ids)
