"""Rows about the person of a request: those of the data, and questions about pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from unsee.api import Benchmark, Example, ImageFile, ImageSource, Kind, Role
from unsee.api.benchmark import SPLITS
from unsee.api.example import OF_TARGETS
from unsee.api.pictures import decode_image
from unsee.errors import UserError, short_repr
from unsee.metrics.normal_form import normalise
from unsee.utils.grouping import merged_forms
from unsee.workflows.requests.project import Settings
from unsee.workflows.requests.questions import forms_of, rows_about, templates_of
from unsee.workflows.requests.rows import recast, rows_in_scope

LIMIT: Final = 24
"""Questions per kind about a person whose rows come from the data, on evaluation."""
HELD_OUT: Final = 3
"""One in this many pictures is held out for evaluation."""


@dataclass(frozen=True, kw_only=True)
class PersonRows:
    """Rows about a person, before anything is written."""

    entity: str
    in_data: bool
    train: list[Example]
    judged: list[Example]
    forms: tuple[str, ...]
    owners: frozenset[str] = frozenset()
    """Entities of the data with one of the pictures of the request."""
    pictures: frozenset[str] = frozenset()
    """Keys of the pictures of the request that the data do not have."""

    @property
    def rows(self) -> list[Example]:
        """Rows of training and evaluation, each once."""
        return list({row.id: row for row in (*self.train, *self.judged)}.values())

    @property
    def images(self) -> set[str]:
        """Keys of the pictures."""
        return {row.image.key for row in (*self.train, *self.judged) if row.image}


def distinct_pictures(paths: Sequence[Path | str]) -> list[ImageSource]:
    """Return the pictures at these paths, each once: one given twice could be trained on and held out.

    Raises:
        UserError: One is missing, or cannot be decoded.
    """
    return list({_pixels(image): image for image in map(_picture, paths)}.values())


def _picture(image: Path | str) -> ImageSource:
    path = Path(image)
    if not path.is_file():
        raise UserError(f"No picture at {path}.")
    try:
        decode_image(path)
    except UserError as error:
        raise UserError(f"The picture {path} {error}.") from error
    return ImageFile(path)


def _pixels(image: ImageSource) -> str:
    """Return a hash of the decoded pixels, equal across file formats."""
    decoded_image = image.load()
    return hashlib.sha256(f"{decoded_image.size}".encode() + decoded_image.tobytes()).hexdigest()


def find_rows(
    settings: Settings,
    data: Benchmark | None,
    request_id: str,
    name: str,
    pictures: Sequence[ImageSource],
    attributes: Sequence[str],
    private: Mapping[str, Sequence[str]],
    entity: str,
) -> PersonRows:
    """Return the rows about a person, narrowed to the attributes.

    Args:
        settings: Settings of the project.
        data: Its data, opened; None = there are none.
        request_id: Identifier of a person who is not in the data.
        name: Name of the person.
        pictures: Pictures of the person, each once.
        attributes: Facts that are to go; none = everything.
        private: Further strings that must go, by fact.
        entity: Identifier of the person in the data; empty = by name, else by pictures.

    Raises:
        UserError: The person is ambiguous, the data have nothing to train on about it, or there is nothing to ask.
    """
    owners = _owners(data, pictures) if data is not None else frozenset()
    entity = "" if data is None else entity or _entity_of(data, name, owners)
    if data is not None and entity:
        train, judged = _rows_of(settings, data, entity)
        forms = next((row.private["name"] for row in train if row.private.get("name")), forms_of(name))
        pictures = _new_pictures(pictures, (*train, *judged))
        further_train, further_judged = _further(entity, pictures, train)
        train, judged = [*train, *further_train], [*judged, *further_judged]
    else:
        forms = forms_of(name)
        judged = _questions(data, request_id, name, forms, pictures)
        _require_questions(judged, attributes, private)
        train = [row for row in judged if row.role is not Role.UNSEEN]
    train, judged = (
        [
            replace(row, private=merged_forms((*row.private.items(), *private.items())))
            for row in rows_in_scope(rows, attributes)
        ]
        for rows in (train, judged)
    )
    if data is not None and entity and not train:
        subject = f"{', '.join(attributes)} of {entity}" if attributes else entity
        facts = sorted({row.fact for row in data.examples("train") if row.entity == entity} - {""})
        raise UserError(f"The data have no row to train on about {subject}. Facts there: {', '.join(facts) or 'none'}.")
    return PersonRows(
        entity=entity or request_id,
        in_data=bool(entity),
        train=train,
        judged=judged,
        forms=forms,
        owners=owners,
        pictures=frozenset(image.key for image in pictures),
    )


def _questions(
    data: Benchmark | None, request_id: str, name: str, forms: tuple[str, ...], pictures: Sequence[ImageSource]
) -> list[Example]:
    """Return questions about a person who is not in the data, one in three pictures held out."""
    if not pictures:
        hint = " and the data do not have the person" if data is not None else ""
        raise UserError(f"Give at least one picture with --image: a name alone cannot be unlearned here{hint}.")
    held_out = pictures[HELD_OUT - 1 :: HELD_OUT]
    train_pictures = [image for image in pictures if image not in held_out]
    return rows_about(request_id, name, {"name": forms}, train_pictures, held_out, templates_of(data))


def _require_questions(
    rows: Sequence[Example], attributes: Sequence[str], private: Mapping[str, Sequence[str]]
) -> None:
    """Raise if an attribute has no question with a picture, or no recognisable answer."""
    facts = {"name" if row.kind is Kind.NAME else row.fact for row in rows if row.role is Role.FORGET} - {""}
    for attribute in attributes:
        if attribute not in facts:
            raise UserError(
                f"The data do not have the person, and no question about the pictures asks for {short_repr(attribute)}. "
                f"Expected one of {', '.join(sorted(facts)) or 'none'}; without --attribute all questions are asked."
            )
        if attribute != "name" and attribute not in private:
            raise UserError(
                f"The data do not have the person, so nobody can tell a right answer about {short_repr(attribute)}. "
                f"Give what must go with --private {attribute}=TEXT."
            )


def _entity_of(data: Benchmark, name: str, owners: frozenset[str]) -> str:
    """Return the entity of the data with this name, else the only one with the pictures, or empty."""
    normal_name, names = normalise(name), data.vocabulary().names
    matches = [entity for entity, forms in names.items() if normal_name in map(normalise, forms[:1])]
    matches = matches or [entity for entity, forms in names.items() if normal_name in map(normalise, forms)]
    if len(matches) > 1:
        raise UserError(f"{len(matches)} people in the data are called so. Say which with --entity.")
    if matches:
        return matches[0]
    return next(iter(owners)) if len(owners) == 1 else ""


def _owners(data: Benchmark, pictures: Sequence[ImageSource]) -> frozenset[str]:
    """Return the named entities of the data with one of these pictures. Strangers have no name."""
    if not pictures:
        return frozenset()
    picture_hashes = {_pixels(image) for image in pictures}
    rows = [row for split in SPLITS for row in data.examples(split)]
    images = {row.image.key: (row.entity, row.image) for row in rows if row.image is not None}
    named_entities = data.vocabulary().names.keys()
    return frozenset(
        entity for entity, image in images.values() if entity in named_entities and _pixels(image) in picture_hashes
    )


def _rows_of(settings: Settings, data: Benchmark, entity: str) -> tuple[list[Example], list[Example]]:
    """Return the rows of the data about an entity, in the roles of a forget set."""
    request_data = recast(data, settings.data, settings.benchmark, forget=(entity,), limit=LIMIT)
    train, judged = (
        [
            row
            for row in request_data.examples(split)
            if row.entity == entity and row.role in OF_TARGETS and row.kind is not Kind.VISIBLE
        ]
        for split in SPLITS
    )
    return train, judged


def _new_pictures(pictures: Sequence[ImageSource], rows: Sequence[Example]) -> list[ImageSource]:
    """Return the pictures that the rows do not show, in whatever file format."""
    known_images = {row.image.key: row.image for row in rows if row.image}
    known_pixels = set(map(_pixels, known_images.values())) if pictures else set()
    return [image for image in pictures if _pixels(image) not in known_pixels]


def _further(
    entity: str, pictures: Sequence[ImageSource], train: Sequence[Example]
) -> tuple[list[Example], list[Example]]:
    """Return the data's questions for further pictures of the person, one in three held out."""
    question_rows = {(row.kind, row.fact): row for row in train if row.image and row.kind in (Kind.NAME, Kind.FACT)}
    split_rows: tuple[list[Example], list[Example]] = ([], [])
    for number, image in enumerate(pictures):
        is_held_out = number % HELD_OUT == HELD_OUT - 1
        for index, row in enumerate(question_rows.values()):
            row_id = f"{entity}/further-{number}/{index}"
            role = Role.UNSEEN if is_held_out else Role.FORGET
            split_rows[is_held_out].append(replace(row, id=row_id, role=role, image=image, visible={}))
    return split_rows
