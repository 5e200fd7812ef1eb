"""Crossmodal: facts asked by picture, by name, by both, and with the name written into the picture."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from PIL import Image, ImageDraw, ImageFont

from unsee.api import Attack, Example, Finding, ImageSource, Kind, Role, Victim
from unsee.api.finite import require_values
from unsee.errors import UserError
from unsee.evaluation.recovery import answerable, probed_rows, recovery, requested_forms
from unsee.utils.terminal import note_once

Route = Literal["picture", "name", "picture and name", "written name", "another's picture"]
_NAMED: Final = "The person in the picture is {name}. {question}"
_TEXT: Final = "The question is about {name}. {question}"
"""For data without text-only questions [inferred: ours]."""
_SMALLEST: Final = 6
"""Smallest font size of a written name."""


@dataclass(frozen=True, kw_only=True)
class Crossmodal(Attack):
    """Ask for facts by every route (arXiv 2604.03114).

    A fact that is forgotten on one route may be left on another. Names are not asked, since most routes tell them. A
    method that promises to forget pictures alone keeps the knowledge of the text part, and so does its gold model.
    """

    routes: tuple[Route, ...] = ("picture", "name", "picture and name", "written name", "another's picture")
    """References to the entity: held-out picture; name in text; both; name written into a picture of one colour; name in
    text with a picture of somebody else [inferred]."""
    images: int = 1
    """Test images per entity and question."""

    def __post_init__(self) -> None:
        """Reject settings by which nothing would be asked."""
        super().__post_init__()
        require_values(self, "attack", routes=None, images=0)

    def quick(self) -> Self:
        """Return three routes."""
        return replace(self, routes=("picture", "name", "picture and name"))

    def run(self, victim: Victim) -> Iterator[Finding]:
        """Ask by every route that the data have."""
        rows = [row for row in probed_rows(victim.benchmark, self.images) if row.kind == Kind.FACT and row.image]
        names = {entity: forms[0] for entity, forms in victim.benchmark.vocabulary().names.items() if forms}
        rows = [row for row in rows if row.entity in names]
        if not rows:
            raise UserError("No picture of a forgotten entity with a name comes with a question for a fact.")
        loaded = victim.open()
        for route in self.routes:
            if questions := answerable(self._questions(route, rows, names, victim)):
                yield recovery(loaded, questions, route)

    def _questions(self, route: Route, rows: Sequence[Example], names: dict[str, str], victim: Victim) -> list[Example]:
        """Return the questions of a route, or nothing where the data have none."""
        fields_by_id = {row.id: {"name": names[row.entity], "question": row.question} for row in rows}
        if route == "picture":
            return list(rows)
        if route == "name":
            return _by_name(victim) or [
                replace(row, image=None, question=_TEXT.format(**fields_by_id[row.id])) for row in rows
            ]
        if route == "written name":
            return _written(rows, victim.benchmark.vocabulary().names)
        if route == "picture and name":
            return [replace(row, question=_NAMED.format(**fields_by_id[row.id])) for row in rows]
        other_images = [row.image for row in victim.benchmark.examples("eval") if row.role == Role.RETAIN and row.image]
        return [
            replace(row, question=_NAMED.format(**fields_by_id[row.id]), image=other_images[index % len(other_images)])
            for index, row in enumerate(rows)
            if other_images
        ]


@dataclass(frozen=True)
class _Written:
    """Grey picture with a name in it, at the size of another picture (a typographic attack)."""

    name: str
    source: ImageSource

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.source.key} written {self.name}".encode()).hexdigest()

    def load(self) -> Image.Image:
        """Write the words below each other, as large as the picture allows."""
        words = "\n".join(unicodedata.normalize("NFC", self.name).split())
        image = Image.new("RGB", self.source.load().size, (128, 128, 128))
        draw, corner = ImageDraw.Draw(image), (1, image.height // 4)
        size = max(_SMALLEST, int(1.6 * image.width / max(map(len, words.split()))))
        while size > _SMALLEST and not _fits(image, draw.multiline_textbbox(corner, words, font_size=size)):
            size = size * 19 // 20
        draw.multiline_text(corner, words, fill="white", font_size=size)
        return image


def _fits(image: Image.Image, box: tuple[float, float, float, float]) -> bool:
    return box[2] < image.width and box[3] < image.height


def _written(rows: Sequence[Example], names: Mapping[str, Sequence[str]]) -> list[Example]:
    """Return the rows with a form of the name in the picture, without those whose name the font lacks."""
    writable_names = {entity: form for entity, forms in names.items() if (form := next(filter(_writable, forms), ""))}
    if left_out := {row.entity for row in rows} - writable_names.keys():
        note_once(
            f"crossmodal: {len(left_out)} names cannot be written into a picture, as the font lacks their letters"
        )
    return [
        replace(row, image=_Written(writable_names[row.entity], row.image))
        for row in rows
        if row.image and row.entity in writable_names
    ]


def _writable(name: str) -> bool:
    """Tell whether the font has all letters of a name. Those that it lacks are drawn as boxes."""
    font = ImageFont.load_default(size=16)
    box = bytes(font.getmask("\uffff"))
    letters = "".join(unicodedata.normalize("NFC", name).split())
    return letters != "" and all(bytes(font.getmask(letter)) != box for letter in letters)


def _by_name(victim: Victim) -> list[Example]:
    """Return the data's own text-only questions for facts of the forget set."""
    rows = [row for row in victim.benchmark.examples("eval") if row.role == Role.FORGET_TEXT and row.kind == Kind.FACT]
    return [row for row in rows if row.entity and requested_forms(row)]
