"""Examples from the cells of a table's rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final

from unsee.api.example import JUDGED_ONLY, OF_TARGETS, Example, ImageBytes, ImageFile, Kind, Role
from unsee.data.layouts import MARK, ROLES, is_blank, picture_of, require_pictures, role_of
from unsee.data.question_templates import lettered
from unsee.data.sources import HELD_OUT, TRAINED
from unsee.data.tables import file_at
from unsee.errors import UserError, short_repr, unknown_name
from unsee.utils.parsing import as_text, as_texts, decoded, is_empty, text_fault

_TEXT_ROLE: Final = {Role.FORGET: Role.FORGET_TEXT, Role.RETAIN: Role.RETAIN_TEXT}
_SPLITS: Final = {"": "both", "both": "both", **dict.fromkeys(TRAINED, "train"), **dict.fromkeys(HELD_OUT, "eval")}
_TEXTS: Final = ("id", "question", "answer", "entity", "fact", "chain", "paraphrase")


def example_of(number: int, raw_cells: Mapping[str, Any], folder: Path) -> tuple[Example, str]:
    """Return the example of a row, and its split: train, eval or both.

    Args:
        number: Number of the row, which names it where it has no id.
        raw_cells: Column of unsee -> value.
        folder: Folder of relative image paths.

    Raises:
        UserError: A cell is missing or cannot be read, or contradicts another one.
    """
    cells = {column: value for column, value in raw_cells.items() if not is_empty(value)}
    image = image_of(cells, folder)
    role = _role(text_of(cells, "role"), has_image=image is not None)
    split = text_of(cells, "split").casefold()
    if split not in _SPLITS:
        raise unknown_name("split", split, [name for name in _SPLITS if name])
    example = Example(
        id=text_of(cells, "id") or f"row-{number}",
        role=role,
        question=_question(cells),
        answer=text_of(cells, "answer"),
        image=image,
        entity=text_of(cells, "entity"),
        kind=_kind(cells, role),
        fact=text_of(cells, "fact"),
        private=_private(cells),
        visible=_visible(cells),
        options=options_of(cells),
        chain=text_of(cells, "chain"),
        accepted=tuple(_strings(cells, "accepted")),
        paraphrase=text_of(cells, "paraphrase"),
        perturbed=tuple(_strings(cells, "perturbed")),
    )
    _demand(example, _SPLITS[split])
    require_plain(example)
    return with_options(example), _SPLITS[split]


def _demand(example: Example, split: str) -> None:
    """Raise if a cell required by this role is empty."""
    if not example.question:
        raise UserError("the question is empty.")
    if not example.answer and example.role not in JUDGED_ONLY:
        raise UserError("the answer is empty.")
    if not example.entity and example.role in OF_TARGETS:
        raise UserError(f"the entity is empty; a row of role {example.role} must say who or what it is about.")
    if split == "train" and example.role in JUDGED_ONLY:
        raise UserError(f"rows of role {example.role} are never trained on; leave split empty or write eval.")
    if example.accepted and example.kind is not Kind.GENERAL:
        raise UserError(
            f"accepted is for questions of kind general, and this one is of kind {example.kind}; leave it empty."
        )
    if example.kind is Kind.CHOICE:
        require_choice(example)


def require_choice(example: Example) -> None:
    """Raise unless the answer is the letter of an option."""
    options, answer = example.options, example.answer
    if answer in tuple(ascii_uppercase[: len(options)]):
        return _require_distinct(options)
    letters = [
        letter for letter, text in zip(ascii_uppercase, options, strict=False) if answer in (text, letter.lower())
    ]
    hint = f" Write {letters[0]!r}." if len(letters) == 1 else ""
    raise UserError(
        f"a choice answer is the letter of one of its options, got {short_repr(answer)} and {len(options)} options.{hint}"
    )


def _require_distinct(options: Sequence[str]) -> None:
    """Raise if there is one option only, or two are the same but for capitals: either letter would be right."""
    if len(options) == 1:
        raise UserError("a choice has at least 2 options, got 1; write the others or leave the row out.")
    texts = [option.casefold() for option in options]
    if duplicates := [letter for letter, text in zip(ascii_uppercase, texts, strict=False) if texts.count(text) > 1]:
        raise UserError(f"options {' and '.join(duplicates)} are the same; write another text or leave the row out.")


def with_options(example: Example) -> Example:
    """Append the options to a multiple-choice question, unless it lists them already."""
    if example.kind is not Kind.CHOICE or _lists(example.question, example.options):
        return example
    return replace(example, question=lettered(example.question, example.options, after=""))


def _lists(question: str, options: Sequence[str]) -> bool:
    """Tell whether the question lists each option with its letter ("A. baker", "(B) pilot")."""
    return all(
        re.search(rf"\b{letter}\W{{1,4}}{re.escape(option)}(?!\w)", question, re.IGNORECASE)
        for letter, option in zip(ascii_uppercase, options, strict=False)
    )


def require_plain(example: Example) -> None:
    """Raise if a text of the row cannot be written, shown or tokenised."""
    texts = {
        **{name: vars(example)[name] for name in _TEXTS},
        "options": " ".join(example.options),
        "accepted": " ".join(example.accepted),
        "perturbed": " ".join(example.perturbed),
        "private": " ".join((*example.private, *(form for forms in example.private.values() for form in forms))),
        "visible": " ".join((*example.visible, *example.visible.values())),
    }
    for name, text in texts.items():
        if fault := text_fault(text):
            raise UserError(f"{name} {fault}; remove it.")
    if MARK in example.answer:
        raise UserError(
            f"the answer holds {MARK}, which stands for a picture in prompts; remove it or write it otherwise."
        )


def text_of(cells: Mapping[str, Any], column: str) -> str:
    """Return a cell as text, empty without it.

    Raises:
        UserError: The cell is no text.
    """
    text = as_text(cells.get(column))
    if text is None:
        raise UserError(f"{column} must be text, got {short_repr(cells[column])}.")
    return text


def _question(cells: Mapping[str, Any]) -> str:
    """Return the question without image placeholders, since images always come first."""
    question = text_of(cells, "question")
    if MARK in question:
        require_pictures(question.count(MARK), len(_pictures(cells)))
    return question.replace(MARK, "").strip()


def all_pictures(cells: Mapping[str, Any]) -> list[Any]:
    """Return what `image` and `images` hold: paths, encoded bytes, or mappings of both."""
    pictures: list[Any] = []
    for column in ("image", "images"):
        value = _decoded(cells, column) if column == "images" else cells.get(column)
        items = value if isinstance(value, list | tuple) else [value]
        pictures += [item for item in items if not is_blank(item) and item not in pictures]
    return pictures


def path_of(picture: Any) -> str:
    """Return the path that a picture has or is named by, or empty."""
    value = picture.get("path") if isinstance(picture, Mapping) else picture
    if not isinstance(value, str) or value.strip()[:5].casefold() == "data:":
        return ""
    return str(picture_of(value.strip()))


def _pictures(cells: Mapping[str, Any]) -> list[Any]:
    """Return the image named in `image` or `images`: none or one."""
    pictures = all_pictures(cells)
    if len(pictures) > 1:
        raise UserError(
            f"image must be one path, got {len(pictures)}: {short_repr(pictures)}. A question is asked about one picture; "
            "write a row for each picture."
        )
    return pictures


def image_of(cells: Mapping[str, Any], folder: Path) -> ImageFile | ImageBytes | None:
    """Return the row's image, from a relative path or a Parquet cell. None without one."""
    pictures = _pictures(cells)
    value = pictures[0] if pictures else None
    if isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:  # how `datasets` writes images
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        if fault := text_fault(value):
            raise UserError(f"image {fault}.")
        value = picture_of(value.strip())
    if isinstance(value, bytes):
        return ImageBytes(value)
    if is_empty(value):
        return None
    if not isinstance(value, str):
        raise UserError(f"image must be one path, got {short_repr(value)}.")
    path = file_at(folder, value)
    if path is None:
        raise UserError(f"image {folder / value} is missing.")
    return ImageFile(path)


def _role(word: str, *, has_image: bool) -> Role:
    if not word:
        raise UserError(f"the role is empty; expected one of {', '.join(role.value for role in Role)}.")
    role = role_of(word)
    if role is None:
        raise unknown_name("role", word, ROLES)
    if not has_image and role in (*JUDGED_ONLY, Role.BENIGN):
        raise UserError(f"a row of role {role} needs an image.")
    if has_image and role in _TEXT_ROLE.values():
        raise UserError(f"a row of role {role} has no image by definition, but one is given.")
    return role if has_image else _TEXT_ROLE.get(role, role)


def _kind(cells: Mapping[str, Any], role: Role) -> Kind:
    word = text_of(cells, "kind").casefold()
    if not word:
        if options_of(cells):
            raise UserError("there are options but no kind; write kind choice, or leave the options out.")
        return Kind.GENERAL if role is Role.GENERAL else Kind.FACT if text_of(cells, "fact") else Kind.OPEN
    if word not in set(Kind):
        raise unknown_name("kind", word, [kind.value for kind in Kind])
    return Kind(word)


def _decoded(cells: Mapping[str, Any], column: str) -> Any:
    """Return the cell, parsed if it is JSON text."""
    try:
        return decoded(cells.get(column), column)
    except UserError as error:
        raise UserError(f"{column} looks like JSON but is not: {error}") from error


def _strings(cells: Mapping[str, Any], column: str) -> list[str]:
    return [text for text in _split(_decoded(cells, column), column) if text]


def options_of(cells: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options in letter order. An empty one is an error, as it would shift letters."""
    value = _decoded(cells, "options")
    if isinstance(value, Mapping):
        if sorted(value) != list(ascii_uppercase[: len(value)]):
            raise UserError(
                f'options as a mapping must be named by letter, {{"A": ..., "B": ...}}, got {short_repr(value)}.'
            )
        value = [value[letter] for letter in sorted(value)]
    options = _split(value, "options")
    if "" in options:
        raise UserError(
            f"option {ascii_uppercase[options.index('') % 26]} is empty; write its text or leave the row out."
        )
    return tuple(options)


def _split(value: Any, column: str) -> list[str]:
    """Return the texts of a cell, empty ones as ""."""
    texts = as_texts(value, ";")
    if texts is None:
        raise UserError(f"{column} must be text, texts separated by ';', or a list of texts, got {short_repr(value)}.")
    return texts


def _private(cells: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return fact -> forms, "name" first. In a plain list the first string is the name."""
    value = _decoded(cells, "private")
    if isinstance(value, Mapping):
        forms: dict[str, tuple[str, ...]] = {}
        for fact, item in value.items():
            key = "name" if is_name(fact) else str(fact)
            forms[key] = (*forms.get(key, ()), *_split(item, f"private.{fact}"))
    else:
        strings = [text for text in _split(value, "private") if text]
        forms = {"name": tuple(strings[:1]), "other": tuple(strings[1:])}
    ordered_forms = sorted(forms.items(), key=lambda item: item[0] != "name")
    nonempty_forms = {fact: tuple(text for text in texts if text) for fact, texts in ordered_forms}
    return {fact: texts for fact, texts in nonempty_forms.items() if texts}


def is_name(fact: Any) -> bool:
    """Tell whether a fact among private strings is the name, in any case."""
    return str(fact).strip().casefold() == "name"


def _visible(cells: Mapping[str, Any]) -> dict[str, str]:
    value = _decoded(cells, "visible")
    if is_empty(value):
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f'visible must be a mapping such as {{"hair": "red"}}, got {short_repr(value)}.')
    texts = {str(attribute): text_of(value, attribute) for attribute in value}
    return {attribute: text for attribute, text in texts.items() if text}
