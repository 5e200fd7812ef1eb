"""Parsing of untrusted text and JSON, bounded in size and depth."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from unsee.errors import UserError, short_repr

DEEPEST: Final = 100
"""Deepest nesting of lists and mappings that is read; beyond Python's own limit it would crash."""
LARGEST: Final = 64 * 2**20
"""Largest settings file (a config, a run file) that is read, in bytes."""
_UNWRITABLE: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
"""Control characters other than blanks (C0 and C1, some of which steer terminals), and halves of surrogate pairs."""
BLANKS: Final = frozenset({"nan", "none", "null", "n/a", "<na>"})
"""Words that programs write for an empty cell, casefolded."""
_EXACT: Final = 2**53
"""Floats below it are exact integers."""
_POINTER: Final = b"version https://git-lfs.github.com/spec/"


def is_pointer(path: Path) -> bool:
    """Tell whether the file is a git-lfs pointer."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


POINTER: Final = "is a git-lfs pointer, its content was not fetched: run `git lfs pull` there, or `hf download`"
"""Message for git-lfs pointers."""


def require_fetched(path: Path) -> None:
    """Raise if the file is a git-lfs pointer."""
    if is_pointer(path):
        raise UserError(f"{path} {POINTER}.")


def read_text(path: Path) -> str:
    """Read a UTF-8 text file of at most `LARGEST` bytes. Endless devices are too large."""
    require_fetched(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    if len(data) > LARGEST:
        raise UserError(f"{path} is larger than {LARGEST // 2**20} MiB, so it is no such file. Give another one.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file whose top level is an object."""
    value = parse_json(read_text(path), str(path))
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold one object with named fields, got {type(value).__name__}.")
    return value


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse JSON. Duplicate keys and deep nesting are UserErrors."""
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is no valid JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply; at most {DEEPEST} levels are read.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except ValueError as error:
        raise UserError(f"{where} is no JSON that can be read: {value_fault(error)}.") from error
    if text.count("{") + text.count("[") > DEEPEST:
        require_shallow(value, where)
    return value


def decoded(value: Any, where: str) -> Any:
    """Return a cell, parsed if it is the JSON text of a list or mapping."""
    is_json = isinstance(value, str) and value.strip()[:1] in ("{", "[")
    return parse_json(value, where) if is_json else value


def value_fault(error: Exception) -> str:
    """Return what a parser found wrong with a value. Python's limit of digits is told in words."""
    return "a number has thousands of digits" if "digits" in str(error) else str(error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {short_repr(duplicate)} occurs twice in one object; keep one of them")
    return values


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object)
"""Shared decoder: `json.loads` with a hook would create one per call, freed by the garbage collector only."""


def require_shallow(value: Any, where: str) -> None:
    """Raise if lists and mappings are nested deeper than `DEEPEST`."""
    level: list[Any] = [value]
    for _ in range(DEEPEST + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise UserError(f"{where} is nested too deeply; at most {DEEPEST} levels are read.")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def is_empty(value: Any) -> bool:
    """Tell whether a cell is empty: null, NaN (pandas), or blanks and invisible characters."""
    if isinstance(value, str):
        return all(char.isspace() or unicodedata.category(char) == "Cf" for char in value)
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: Any) -> str | None:
    """Return a cell as text without surrounding blanks, empty if it is, or None if it is neither text nor number.

    Whole numbers have no ".0": pandas and Parquet hold integers as floats beside empty cells.

    >>> as_text(" Ada "), as_text(1984.0), as_text(1.5), as_text(float("nan")), as_text(True)
    ('Ada', '1984', '1.5', '', None)
    """
    if is_empty(value):
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else str(value)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else None


def as_texts(value: Any, separator: str = "") -> list[str] | None:
    """Return a cell as texts, empty ones as "", or None if one is no text.

    A single text is a list of one; with `separator`, of its parts.

    >>> as_texts(["a", None, 2.0]), as_texts("a; b", ";"), as_texts([True])
    (['a', '', '2'], ['a', 'b'], None)
    """
    if is_empty(value):
        return []
    items = value.split(separator) if separator and isinstance(value, str) else value
    texts = [as_text(item) for item in (items if isinstance(items, list | tuple) else [items])]
    known_texts = [text for text in texts if text is not None]
    return known_texts if len(known_texts) == len(texts) else None


def text_fault(text: str) -> str:
    r"""Return why a text cannot be written, shown or tokenised, or empty if it can.

    >>> text_fault("caf\u00e9\n"), text_fault("a\x00b")
    ('', 'holds the control character U+0000 at place 2')
    """
    match = None if text.isprintable() else _UNWRITABLE.search(text)
    if match is None:
        return ""
    code = f"U+{ord(match[0]):04X}"
    description = f"the control character {code}" if match[0] < "\ud800" else f"half a character (the surrogate {code})"
    return f"holds {description} at place {match.start() + 1}"
