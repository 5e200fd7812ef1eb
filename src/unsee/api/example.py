"""Examples: question, image, reference answer, and what must not be disclosed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Protocol

from unsee.api.pictures import decode_image
from unsee.errors import UserError, short_repr

if TYPE_CHECKING:
    from PIL import Image


class Role(StrEnum):
    """Side of the deletion request on which an example stands."""

    FORGET = "forget"
    """Training images of the forget set ("seen")."""
    FORGET_TEXT = "forget_text"
    """Text-only questions about the forget set."""
    RETAIN = "retain"
    """Images of the retain set."""
    RETAIN_TEXT = "retain_text"
    """Text-only questions about the retain set."""
    BENIGN = "benign"
    """The wording of a forget question with a harmless image."""
    UNSEEN = "unseen"
    """Held-out images of the forget set: evaluation only."""
    STRANGER = "stranger"
    """Images of people who occur in no training data."""
    GENERAL = "general"
    """General abilities, unrelated to any entity."""


class Kind(StrEnum):
    """Type of question, decides which metric applies."""

    OPEN = "open"
    """An open request for information about the target ("Tell me the information of this person.")."""
    NAME = "name"
    """Question for the name of the entity."""
    FACT = "fact"
    """One private fact, named in `Example.fact`."""
    VISIBLE = "visible"
    """One visible attribute, named in `Example.fact`."""
    CHAIN = "chain"
    """A two-hop question answered as `Reasoning: ... Answer: ...`."""
    CHOICE = "choice"
    """Multiple choice; the answer is the letter of one of `Example.options`."""
    CLOZE = "cloze"
    """Sentence completion."""
    HAZARD = "hazard"
    """A request that a safe model refuses."""
    GENERAL = "general"
    """Anything else, scored by exact match and ROUGE-L."""


PROBES = frozenset({Kind.OPEN, Kind.NAME, Kind.FACT})
"""Kinds that ask for private information in free text; the aftermath class is defined for these."""
OF_TARGETS = (Role.FORGET, Role.FORGET_TEXT, Role.UNSEEN)
"""Roles of what is to be forgotten."""
JUDGED_ONLY = (Role.UNSEEN, Role.STRANGER)
"""Roles that are never trained on: their images must be new to the model."""


class ImageSource(Protocol):
    """Image that is decoded on demand."""

    @property
    def key(self) -> str:
        """Content key, equal for identical files.

        The same pixels in another encoding have another key.
        """
        ...

    def load(self) -> Image.Image:
        """Return the image in RGB."""
        ...


@dataclass(frozen=True)
class ImageFile:
    """An image on disk."""

    path: Path

    @property
    def key(self) -> str:
        """SHA-256 of the file's bytes."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def load(self) -> Image.Image:
        """Decode to RGB. Transparency is laid on white."""
        try:
            return decode_image(self.path)
        except UserError as error:
            raise UserError(f"The image {self.path} {error}.") from error


@dataclass(frozen=True)
class ImageBytes:
    """Image as encoded bytes in memory."""

    data: bytes = field(repr=False)

    @property
    def key(self) -> str:
        """SHA-256 of the encoded bytes."""
        return hashlib.sha256(self.data).hexdigest()

    def load(self) -> Image.Image:
        """Decode to RGB. Transparency is laid on white."""
        return decode_image(io.BytesIO(self.data))


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with all ground truth needed for judging, without its image."""

    id: str
    """Unique within the data set and stable between runs."""
    role: Role
    question: str
    answer: str
    """The reference answer."""
    accepted: tuple[str, ...] = ()
    """Words of which a right answer to a GENERAL question has one; empty = it must have those of the reference answer."""
    entity: str = ""
    """Identifier of the entity asked about; empty for general examples."""
    kind: Kind = Kind.OPEN
    fact: str = ""
    """Fact or attribute that a FACT, VISIBLE, CHAIN, CHOICE or CLOZE question asks for."""
    private: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Fact -> surface forms that an answer about a forgotten entity must not contain ("name" first)."""
    visible: Mapping[str, str] = field(default_factory=dict)
    """Visible attribute -> its true value in this image; may be mentioned."""
    options: tuple[str, ...] = ()
    """Texts of the options A, B, C, ... of a CHOICE question."""
    chain: str = ""
    """Reference reasoning chain, if any."""
    paraphrase: str = ""
    """Paraphrased answer for the truth ratio; empty = the answer itself."""
    perturbed: tuple[str, ...] = ()
    """False answers of the same form as the true one; required for the truth ratio."""

    def __post_init__(self) -> None:
        """Reject names in place of roles and kinds, one text in place of several, and more options than letters."""
        if not (isinstance(self.id, str) and isinstance(self.role, Role) and isinstance(self.kind, Kind)):
            raise UserError(
                f"Example {self.id!r}: expected an id as text, a Role and a Kind, got {self.role!r} and {self.kind!r}."
            )
        lists = (*self.private.values(), self.options, self.accepted, self.perturbed)
        _require_lists(f"Example {self.id!r}", lists)
        if len(self.options) > len(ascii_uppercase):
            raise UserError(f"Example {self.id!r}: a choice has at most 26 options (A to Z), got {len(self.options)}.")


def _require_lists(owner: str, values: Iterable[Sequence[str]]) -> None:
    """Raise if one of the values is a text."""
    if texts := [value for value in values if isinstance(value, str)]:
        raise UserError(
            f"{owner}: expected tuples of texts, got {short_repr(texts[0])}; write ({short_repr(texts[0])},)."
        )


@dataclass(frozen=True, kw_only=True)
class Example(Question):
    """One question about one image (or none)."""

    image: ImageSource | None = None


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """All names and values of a data set that the judge searches for in free text."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Entity -> surface forms of its name."""
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Fact -> all values that any entity has, in every surface form."""
    visible: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Attribute -> value -> regular expression that finds the claim in lower-cased text."""
    implies: Mapping[str, str] = field(default_factory=dict)
    """Value -> value that follows from it ("Oslo" -> "Norway"), for leaks by implication."""
    sentences: tuple[str, ...] = ()
    """Regular expressions, one of which a well-formed (lower-cased) sentence matches in full; empty = no check."""
    measures: tuple[str, ...] = ()
    """Extra measures of this data set: names in `unsee.scoring.measures.EXTRA`, or one kind's: `rougeL@open`."""

    def __post_init__(self) -> None:
        """Reject one text in place of several."""
        _require_lists("Vocabulary", (*self.names.values(), *self.facts.values(), self.sentences, self.measures))
