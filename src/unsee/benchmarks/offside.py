"""OFFSIDE: football players and transfer rumours, by image (arXiv 2510.22535).

As cloned (data.zip unpacked): folders `complete_unlearning_data`, `selective_unlearning_data`, `pure_text_data`, each with `forget_set.json`,
`retain_set.json`, `test_set.json` (lists of `messages`: user, assistant; `images`: a path) and `classification_{forget,retain,test}_set.json`
(`Question`, `Options`, `Correct_Answer`, `image` or `images`) [code]. The place is one of them, or the folder that holds them.

| file | role | trained on | judged |
|---|---|---|---|
| forget_set, classification_forget_set | forget | the messages | both |
| retain_set, classification_retain_set | retain | the messages | both |
| test_set, classification_test_set | unseen [inferred] | no | both |
| relearn_set_enhanced (or relearn_set), on request | general | no | the messages |

A player's rumour comes with one picture, the facts with the others, so an entity is a picture, not a player [inferred].
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Final, Literal

from unsee.api.benchmark import Hub, Place
from unsee.api.example import Example, Kind, Role, Vocabulary
from unsee.data.people import Profile, pool
from unsee.data.question_templates import lettered, name_forms, require_options
from unsee.data.records import Gathered, Record, RecordBenchmark, require_any, require_files
from unsee.data.tables import read_rows
from unsee.errors import UserError

FOLDERS: Final = {
    "complete": "complete_unlearning_data",
    "selective": "selective_unlearning_data",
    "text": "pure_text_data",
}
SETS: Final = {"forget": Role.FORGET, "retain": Role.RETAIN, "test": Role.UNSEEN}
RELEARN: Final = ("relearn_set_enhanced.json", "relearn_set.json")
_TEXT_ROLE: Final = {Role.FORGET: Role.FORGET_TEXT, Role.UNSEEN: Role.FORGET_TEXT, Role.RETAIN: Role.RETAIN_TEXT}
_NAMED: Final = re.compile(
    r"(?:player in the (?:image|picture|photo) is|player's name is|name of the player is)\s+(?P<name>[^.]+)\.?$"
)
"""Endings of the published answers to "who is it?" [code]."""


@dataclass(frozen=True, kw_only=True)
class OffsideSettings:
    """Settings of OFFSIDE."""

    setting: Literal["", "complete", "selective", "text"] = ""
    """Published folder, if the place holds several; empty = the place itself, or complete."""
    tasks: tuple[Literal["classification", "generation"], ...] = ("classification", "generation")
    """Evaluated tasks."""
    relearn: bool = False
    """Also evaluate the relearning set (training data of a relearning attack)."""
    strict: bool = True
    """False: unreadable rows and items are skipped and counted; undecodable images always stop a run."""
    protocol: Literal["corrected", "released"] = "corrected"
    """released: options count only as a single letter or after "The answer is"."""

    def __post_init__(self) -> None:
        """Reject an evaluation of nothing."""
        require_any("benchmark.tasks", self.tasks)


class Offside(RecordBenchmark):
    """OFFSIDE from a local clone with data.zip unpacked."""

    name: ClassVar[str] = "offside"
    layout: ClassVar[str] = "forget_set.json and retain_set.json, or complete_unlearning_data/ with them (OFFSIDE)"
    settings_type: ClassVar[type] = OffsideSettings
    hub: ClassVar[tuple[str, ...]] = ("zh1218001/OFFSIDE",)
    likelihood: ClassVar[bool] = True

    def __init__(self, place: Place | str, settings: OffsideSettings | None = None) -> None:
        """Locate the folder, or raise if it is missing."""
        if isinstance(place, Hub):
            raise UserError(
                f"{place} is JSON beside image files, which `datasets` does not put together: clone it (git clone "
                f"https://huggingface.co/datasets/{place}), unpack data.zip and give the folder."
            )
        self.settings: OffsideSettings = settings or OffsideSettings()
        self.place: Path = _root(Path(place), self.settings.setting)
        needed_files = (
            [f"{name}_set.json" for name in SETS]
            if "generation" in self.settings.tasks
            else ["forget_set.json", "retain_set.json"]
        )
        if "classification" in self.settings.tasks:
            needed_files += [f"classification_{name}_set.json" for name in SETS]
        require_files(self.place, needed_files, self.layout)
        self._people: dict[str, Profile] = {}

    @classmethod
    def fits(cls, place: Path) -> bool:
        """Tell whether the sets exist there, or in one of the published folders."""
        return any((folder / "forget_set.json").is_file() for folder in (place, *_inside(place).values()))

    def idle(self) -> Iterator[tuple[str, str]]:
        """Yield the settings without effect on these data."""
        if "generation" not in self.settings.tasks:
            yield "benchmark.relearn", "with benchmark.tasks that name generation"

    def vocabulary(self) -> Vocabulary:
        """Return the players' names found in the answers."""
        self.require()
        released_measures = ("choice.answer_is",) if self.settings.protocol == "released" else ()
        return pool(self._people, measures=("rouge1", "rouge2", "bleu", *released_measures))

    @cached_property
    def gathered(self) -> Gathered:
        """Read the training conversations of both sides and all evaluation questions."""
        gathered = Gathered(self.place, self.place.parent, self.place.parent.parent, strict=self.settings.strict)
        for name, role in SETS.items():
            conversations = self._rows(f"{name}_set.json") if (self.place / f"{name}_set.json").is_file() else []
            self._name(conversations)
            self._talks(gathered, conversations, name, role)
        if "classification" in self.settings.tasks:
            for name, role in SETS.items():
                self._choices(gathered, self._rows(f"classification_{name}_set.json"), name, role)
        if self.settings.relearn:
            file = next((name for name in RELEARN if (self.place / name).is_file()), "")
            if not file:
                raise UserError(f"{self.place} has no {' or '.join(RELEARN)}; leave benchmark.relearn off.")
            self._talks(gathered, self._rows(file), "relearn", Role.GENERAL)
        return gathered

    def _rows(self, file: str) -> list[dict[str, Any]]:
        return read_rows(self.place / file)

    def _name(self, conversations: Sequence[Mapping[str, Any]]) -> None:
        """Record whom an image shows, if an answer names them."""
        for cells in conversations:
            messages = cells.get("messages")
            answer = (
                messages[-1].get("content")
                if isinstance(messages, list) and messages and isinstance(messages[-1], Mapping)
                else None
            )
            match = _NAMED.search(answer) if isinstance(answer, str) else None
            if match:
                name = match["name"].strip()
                self._people[_picture(cells)] = Profile(name=name, private={"name": name_forms(name)})

    def _talks(self, gathered: Gathered, rows: Sequence[Mapping[str, Any]], name: str, role: Role) -> None:
        """Collect open questions and answers."""
        for number, cells in enumerate(rows, 1):
            with gathered.reading(f"{name} set row {number}"):
                record = Record(cells)
                question, answer = _turn(record)
                example = self._example(gathered, record, role, f"{name}/{number}", Kind.OPEN, question, answer)
                if role in (Role.FORGET, Role.RETAIN):
                    gathered.train.append(example)
                if "generation" in self.settings.tasks:
                    gathered.judged.append(example)

    def _choices(self, gathered: Gathered, rows: Sequence[Mapping[str, Any]], name: str, role: Role) -> None:
        for number, cells in enumerate(rows, 1):
            with gathered.reading(f"classification {name} set row {number}"):
                record = Record(cells)
                options, answer = require_options(record.mapping("Options"), record.text("Correct_Answer"))
                question = lettered(record.text("Question"), options)
                example = self._example(
                    gathered, record, role, f"choice/{name}/{number}", Kind.CHOICE, question, answer, options
                )
                gathered.judged.append(example)

    def _example(
        self, gathered: Gathered, record: Record, role: Role, name: str, kind: Kind, question: str, answer: str,
        options: tuple[str, ...] = (),
    ) -> Example:  # fmt: skip
        image_path = _image_of(record)
        entity = _picture({"images": image_path})
        return Example(
            id=name, role=role if image_path else _TEXT_ROLE.get(role, role), kind=kind, question=question, answer=answer,
            options=options, image=gathered.image(image_path) if image_path else None, entity=entity or name,
            private=self._people.get(entity, Profile()).private,
        )  # fmt: skip


def _inside(place: Path) -> dict[str, Path]:
    """Return the published folders at the place, or below data/ there."""
    folders: dict[str, Path] = {}
    for setting, folder in FOLDERS.items():
        for path in (place / folder, place / "data" / folder):
            if path.is_dir():
                folders.setdefault(setting, path)
    return folders


def _root(place: Path, setting: str) -> Path:
    folders = _inside(place)
    if setting and setting not in folders and place.name != FOLDERS[setting]:
        raise UserError(
            f"{place} has no {FOLDERS[setting]}/ (benchmark.setting={setting}); "
            f"there is {', '.join(path.name for path in folders.values()) or 'none of the published folders'}. Is data.zip unpacked?"
        )
    return folders.get(setting or "complete", place)


def _turn(record: Record) -> tuple[str, str]:
    """Return question and answer of a single-turn conversation, without image placeholders."""
    messages = record.parts("messages")
    roles = [message.optional("role") for message in messages]
    if roles != ["user", "assistant"]:
        raise UserError(
            f"messages must be one of role user and one of role assistant, got {', '.join(roles) or 'none'}."
        )
    question = re.sub(r"\s*<image>\s*", " ", messages[0].text("content")).strip()
    if not question:
        raise UserError("messages[1].content is empty.")
    return question, messages[1].text("content")


def _image_of(record: Record) -> str:
    """Return the path of the only image, or empty for a text-only question."""
    paths = [path for name in ("images", "image") for path in record.strings(name)]
    if len(paths) > 1:
        raise UserError(f"one image was expected, got {', '.join(paths)}.")
    return paths[0] if paths else ""


def _picture(cells: Mapping[str, Any]) -> str:
    """Return the image file's name without folder and suffix."""
    image_path = cells.get("images") or cells.get("image") or ""
    if isinstance(image_path, list):
        image_path = image_path[0] if image_path else ""
    return PurePosixPath(str(image_path).replace("\\", "/")).stem
