"""Rows of a request as a table for its operator to edit (format: docs/own_data.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from unsee.api import Benchmark, Example, ImageSource, Kind, Role
from unsee.api.benchmark import SPLITS
from unsee.api.example import JUDGED_ONLY
from unsee.benchmarks.folder import Folder
from unsee.benchmarks.request import Request, Roles
from unsee.utils.files import atomic_write_jsonl, atomic_writer

TABLE: Final = "data.jsonl"
IMAGES: Final = "images"
_OPTIONAL: Final = ("fact", "chain", "paraphrase")
_LISTS: Final = ("options", "perturbed", "accepted")


def write_rows(folder: Path, train: Sequence[Example], judged: Sequence[Example]) -> Path:
    """Write training and evaluation examples as one table with images, and return its path.

    A row that is used for both is written once. Strangers that are trained on become rows of the role `general`, since a
    table's strangers are never trained on.
    """
    judged_by_id = {example.id: example for example in judged}
    shared_ids = {example.id for example in train} & judged_by_id.keys()
    rows = [
        _cells(judged_by_id.get(example.id, example), "" if example.id in shared_ids else "train", folder)
        for example in train
    ]
    rows += [_cells(example, "eval", folder) for example in judged if example.id not in shared_ids]
    table = folder / TABLE
    atomic_write_jsonl(table, rows)
    return table


def read_rows(folder: Path) -> list[Example]:
    """Return the examples of a request, each once, in the order of the table."""
    data = Folder(folder / TABLE)
    return list({row.id: row for split in SPLITS for row in data.examples(split)}.values())


def recast(data: Benchmark, path: str, layout: str | Mapping[str, Any], **amounts: Any) -> Request:
    """Return the data at a path with other roles (see `Roles`).

    An empty layout is recognised from the data.
    """
    layout = layout if isinstance(layout, Mapping) else {"name": layout or data.name}
    return Request(Roles(data=path, benchmark=layout, **amounts))


def canonical(example: Example) -> str:
    """Return the text that a commitment covers: every cell and the content of the picture."""
    image = example.image.key if example.image else ""
    return json.dumps({**vars(example), "image": image}, sort_keys=True, ensure_ascii=False, default=dict)


def _cells(example: Example, split: str, folder: Path) -> dict[str, Any]:
    """Return the cells of a row, without empty optional ones, and save its image."""
    if split == "train" and example.role in JUDGED_ONLY:
        example = replace(example, role=Role.GENERAL, entity="")
    cells: dict[str, Any] = {
        "id": example.id,
        "role": _role_cell(example.role),
        "entity": example.entity,
        "kind": str(example.kind),
        "image": _save_image(example.image, folder),
        "question": example.question,
        "answer": example.answer,
        "private": {fact: list(forms) for fact, forms in example.private.items()},
        "split": "" if split == "eval" and example.role in JUDGED_ONLY else split,
    }
    cells |= {name: value for name in _OPTIONAL if (value := getattr(example, name))}
    cells |= {name: list(values) for name in _LISTS if (values := getattr(example, name))}
    return cells | ({"visible": dict(example.visible)} if example.visible else {})


def _role_cell(role: Role) -> str:
    """Return a role as in tables, where `forget` without a picture means `forget_text`."""
    return {Role.FORGET_TEXT: "forget", Role.RETAIN_TEXT: "retain"}.get(role, str(role))


def _save_image(image: ImageSource | None, folder: Path) -> str:
    """Write the image as PNG under a hash of its content, and return its path in the folder."""
    if image is None:
        return ""
    name = f"{IMAGES}/{hashlib.sha256(image.key.encode()).hexdigest()[:20]}.png"
    if not (folder / name).exists():
        with atomic_writer(folder / name) as stream:
            image.load().save(stream, format="PNG")
    return name


def rows_in_scope(rows: Iterable[Example], attributes: Sequence[str]) -> list[Example]:
    """Return the rows that ask for one of these facts, with only their private strings.

    Without attributes, all rows are returned unchanged.
    """
    if not attributes:
        return list(rows)
    matching_rows = [row for row in rows if row.fact in attributes or (row.kind is Kind.NAME and "name" in attributes)]
    return [
        replace(row, private={fact: forms for fact, forms in row.private.items() if fact in attributes})
        for row in matching_rows
    ]
