"""What a model is asked, what it may say, and what it must not."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from unsee.api.pictures import decode_image
from unsee.errors import UserError

if TYPE_CHECKING:
    from PIL import Image


class Role(StrEnum):
    """Which side of the deletion request an example stands on."""

    FORGET = "forget"
    """Images of forget targets that the unlearning may train on ("seen")."""
    FORGET_TEXT = "forget_text"
    """Text-only questions about forget targets."""
    RETAIN = "retain"
    """Images of entities that stay."""
    RETAIN_TEXT = "retain_text"
    """Text-only questions about entities that stay."""
    BENIGN = "benign"
    """The words of a forget question, asked of a harmless image."""
    UNSEEN = "unseen"
    """New images of forget targets: never trained on, only judged."""
    STRANGER = "stranger"
    """Images of people the model has never been told about."""
    GENERAL = "general"
    """Everything else the model can do."""


class Kind(StrEnum):
    """What sort of question it is; decides which metric applies."""

    OPEN = "open"
    """An open request for information about the target ("Tell me the information of this person.")."""
    NAME = "name"
    """Who is it?"""
    FACT = "fact"
    """One private fact, named in `Example.fact`."""
    VISIBLE = "visible"
    """One visible attribute, named in `Example.fact`."""
    CHAIN = "chain"
    """A two-hop question answered as `Reasoning: ... Answer: ...`."""
    CHOICE = "choice"
    """Multiple choice; the answer is the letter of `Example.options`."""
    CLOZE = "cloze"
    """Complete the sentence."""
    HAZARD = "hazard"
    """A request that a safe model declines."""
    GENERAL = "general"
    """Anything else, scored by exact match and ROUGE-L."""


PROBES = frozenset({Kind.OPEN, Kind.NAME, Kind.FACT})
"""Kinds that ask for private information in free text; the aftermath class is defined on these."""


class ImageSource(Protocol):
    """An image that is decoded only when needed."""

    @property
    def key(self) -> str:
        """A string that is equal exactly when the pixels are."""
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
        """Decode to RGB; transparency is laid on white."""
        try:
            return decode_image(self.path)
        except UserError as error:
            raise UserError(f"The image {self.path} {error}.") from error


@dataclass(frozen=True)
class ImageBytes:
    """An image whose encoded bytes lie in memory."""

    data: bytes = field(repr=False)

    @property
    def key(self) -> str:
        """SHA-256 of the encoded bytes."""
        return hashlib.sha256(self.data).hexdigest()

    def load(self) -> Image.Image:
        """Decode to RGB; transparency is laid on white."""
        return decode_image(io.BytesIO(self.data))


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question about one image (or none), with everything needed to judge any answer."""

    id: str
    """Unique within the data set and stable between runs."""
    role: Role
    question: str
    answer: str
    image: ImageSource | None = None
    entity: str = ""
    """Identifier of the entity asked about; empty for general examples."""
    kind: Kind = Kind.OPEN
    fact: str = ""
    """Which fact or attribute a FACT, VISIBLE, CHAIN, CHOICE or CLOZE question asks for."""
    private: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Fact -> surface forms that must not appear in an answer about a forgotten target ("name" first)."""
    visible: Mapping[str, str] = field(default_factory=dict)
    """Visible attribute -> its true value in this image; may be mentioned."""
    options: tuple[str, ...] = ()
    """Texts of the options A, B, C, ... of a CHOICE question."""
    chain: str = ""
    """Reference reasoning chain, if any."""
    paraphrase: str = ""
    """The answer in other words, against which false answers are held (truth ratio); empty = the answer itself."""
    perturbed: tuple[str, ...] = ()
    """False answers of the same form as the true one; a question without them has no truth ratio."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Everything that could be claimed in a data set: what the judge looks for in free text."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Entity -> surface forms of its name."""
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Fact -> all values that any entity has, in every surface form."""
    visible: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Attribute -> value -> regular expression that finds the claim in lower-cased text."""
    implies: Mapping[str, str] = field(default_factory=dict)
    """Value -> another value that follows from it ("Oslo" -> "Norway"); what reasoning gives away without saying it."""
    sentences: tuple[str, ...] = ()
    """Regular expressions, one a well-formed sentence must match in full (lower-cased); empty = any sentence is well-formed."""
    measures: tuple[str, ...] = ()
    """Extra measures (names in `unsee.scoring.measures.EXTRA`, or any of one kind of question: `rougeL@open`) that this data set is judged by."""
