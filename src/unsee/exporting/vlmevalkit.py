"""Benchmarks as tables of VLMEvalKit.

`NAME.tsv` holds open questions, `NAME_choice.tsv` multiple choice.

VLMEvalKit (https://github.com/open-compass/VLMEvalKit) opens a table in its data folder by the file's name: as
CustomMCQDataset if it has columns A and B, which it also scores, else as CustomVQADataset, whose answers it writes and
does not score. Questions without an image are left out, for both skip them.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final

from unsee.api import Example, Kind
from unsee.errors import UserError
from unsee.exporting.lmms_eval import open_source, png, right_letter
from unsee.utils.files import atomic_writer
from unsee.utils.terminal import note

_EMPTY: Final = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null".split("|")
)
"""Texts that pandas reads as an empty cell (`pandas.read_csv`, `na_values`)."""


def write_tables(source: Path | str, out: Path, *, benchmark: str | Mapping[str, Any] = "") -> list[Path]:
    """Write the evaluation questions with an image as tables named after `out`.

    `source`: data or a run folder.

    Raises:
        UserError: No question has an image, or all that have one are left out.
    """
    dataset = open_source(source, benchmark)
    with_image = [example for example in dataset.examples("eval") if example.image is not None]
    readable = [example for example in with_image if not _reads_as_empty(example)]
    exportable = [example for example in readable if example.kind is not Kind.CHOICE or right_letter(example)]
    if len(readable) < len(with_image):
        note(
            f"{len(with_image) - len(readable)} questions are left out: VLMEvalKit would read an option or answer of theirs, such as "
            "None or NA, as an empty cell."
        )
    if len(exportable) < len(readable):
        note(
            f"{len(readable) - len(exportable)} multiple choices are left out: their answer names none of the options."
        )
    if not with_image:
        raise UserError(f"{source} has no question with an image, and VLMEvalKit leaves out all others.")
    if not exportable:
        raise UserError(
            f"Nothing to write: the {len(with_image)} questions of {source} with an image are multiple choices whose answer names "
            "none of the options, or hold a text such as None that reads as an empty cell. Correct them, or add other questions."
        )
    name = "unsee_" + re.sub(r"\W+", "_", out.resolve().name.lower())
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for file, is_choice in ((out / f"{name}.tsv", False), (out / f"{name}_choice.tsv", True)):
        rows = [example for example in exportable if (example.kind is Kind.CHOICE) is is_choice]
        if rows:
            _write(rows, file, letters=ascii_uppercase[: max(len(example.options) for example in rows)])
            files.append(file)
    return files


def _reads_as_empty(example: Example) -> bool:
    """Tell whether pandas, with which VLMEvalKit reads tables, takes an option or the answer for an empty cell."""
    return not _EMPTY.isdisjoint(example.options if example.kind is Kind.CHOICE else (example.answer,))


def _write(examples: Sequence[Example], file: Path, *, letters: str) -> None:
    """Write a table. A repeated image is the index of its first row, as in VLMEvalKit."""
    columns = ["index", "image", "question", *letters, "answer", "category", "kind", "entity", "id"]
    with atomic_writer(file) as binary:
        stream = io.TextIOWrapper(binary, encoding="utf-8", newline="")
        writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(_rows(examples, letters))
        stream.detach()  # flushes, and leaves the file open


def _rows(examples: Iterable[Example], letters: str) -> Iterable[dict[str, Any]]:
    first_index: dict[str, int] = {}
    for index, example in enumerate(examples):
        image: Any = example.image
        image_index = first_index.setdefault(image.key, index)
        yield {
            "index": index,
            "image": base64.b64encode(png(image)).decode() if image_index == index else image_index,
            "question": example.question,
            **dict(zip(letters, example.options, strict=False)),
            "answer": right_letter(example) if letters else example.answer,
            "category": example.role.value,
            "kind": example.kind.value,
            "entity": example.entity,
            "id": example.id,
        }
