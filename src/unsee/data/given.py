"""Data given as Python objects: lists of mappings, pandas DataFrames, `datasets.Dataset`s."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

from unsee.api.pictures import opaque
from unsee.data.sources import Source, in_split, split_of
from unsee.data.tables import class_name, require_distinct
from unsee.errors import UserError, short_repr

_MISSING: Final = ("NAType", "NaTType")
"""Types of what pandas holds in empty cells, besides None and NaN."""


def source_of(data: Any) -> Source:
    """Return the rows of an object, with the columns of a table (docs/own_data.md).

    Images may be paths (relative ones from the working folder), encoded bytes or PIL images, which are kept as upright RGB in PNG.

    Raises:
        UserError: The object is no table, or has no rows.
    """
    kind = type(data).__name__
    rows = [_row(row, number, kind) for number, row in enumerate(_rows(data), 1)]
    if not rows:
        raise UserError(f"The data ({kind}) have no rows.")
    return Source(file=Path(kind), rows=rows, base=Path())


def _rows(data: Any) -> Iterable[Any]:
    library = type(data).__module__.partition(".")[0]
    if library == "pandas" and hasattr(data, "to_dict"):
        require_distinct([str(column) for column in getattr(data, "columns", ())], "The DataFrame")
        return list(data.to_dict("records"))
    if library == "datasets" and isinstance(data, Mapping):  # DatasetDict
        splits = {name: split_of(str(name), alone=len(data) == 1) for name in data}
        return [in_split(row, splits[name]) for name, part in data.items() for row in _rows(part)]
    if library == "datasets":
        names = {
            column: feature.names for column, feature in (data.features or {}).items() if hasattr(feature, "int2str")
        }
        return [
            {**row, **{column: class_name(row[column], names[column]) for column in names}}
            for row in _with_encoded_images(data)
        ]
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return data
    raise UserError(
        f"data must be a path, a hub id, a list of mappings, a DataFrame or a datasets.Dataset, got {short_repr(data)}."
    )


def _with_encoded_images(data: Any) -> Any:
    """Return a Dataset whose image columns stay as they were encoded."""
    from datasets import Image as Feature

    for name, feature in (data.features or {}).items():
        if isinstance(feature, Feature):
            data = data.cast_column(name, Feature(decode=False))
    return data


def _row(row: Any, number: int, kind: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise UserError(
            f"Row {number} of the data ({kind}) must be a mapping of column to value, got {short_repr(row)}."
        )
    try:
        return {str(name): _cell(value) for name, value in row.items()}
    except UserError as error:
        raise UserError(f"Row {number} of the data ({kind}): {error}") from error


def _cell(value: Any) -> Any:
    """Return a cell as a table on disk would hold it."""
    if type(value).__name__ in _MISSING:
        return None
    if isinstance(value, Image.Image):
        return _png(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _cell(item) for name, item in value.items()}
    if getattr(value, "ndim", 0) > 1:
        raise UserError(
            "an array of several dimensions is no cell; give a picture as PIL image, Image.fromarray(array)."
        )
    if hasattr(value, "tolist"):  # numpy's arrays, as which pandas holds the lists of a Parquet file
        return _cell(value.tolist())
    return [_cell(item) for item in value] if isinstance(value, list | tuple) else value


def _png(image: Image.Image) -> bytes:
    """Return the pixels that a file of the image would be decoded to."""
    stream = io.BytesIO()
    try:
        opaque(image).save(stream, format="PNG")
    except UserError as error:
        raise UserError(f"the image {error}.") from error
    except (OSError, ValueError) as error:  # read on demand from a file that is damaged or closed
        raise UserError(f"the image cannot be decoded ({error}).") from error
    return stream.getvalue()
