"""Markdown: tables and code spans of text that may hold anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

_ESCAPES: Final = re.compile(r"\\(?=[!-/:-@\[-`{-~])")
"""A backslash that Markdown would take for an escape: one before punctuation."""


def cell(text: object) -> str:
    r"""Return the text for one table cell: on one line, without HTML, links or images.

    >>> print(cell("a|b<c"))
    a\|b&lt;c
    >>> print(cell("![x](http://y) [0.1, 0.2] C:\\runs"), cell("a\\|b\r\nc"))
    ![x]\(http://y) [0.1, 0.2] C:\runs a\\\|b c
    """
    line = _ESCAPES.sub(r"\\\\", " ".join(str(text).splitlines()))
    return line.replace("|", "\\|").replace("](", "]\\(").replace("<", "&lt;")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table without a newline at its end. Cells are escaped.

    >>> print(table(("", "n"), [("a", 1)]))
    |  | n |
    |---|---|
    | a | 1 |
    """
    lines = [[cell(text) for text in line] for line in (heads, *rows)]
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(heads), *body])


def code(text: object) -> str:
    """Return the text as a code span on one line, with HTML disabled."""
    line = json.dumps(str(text), ensure_ascii=False)[1:-1].replace('\\"', '"')
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if line[:1] in ("`", " ", "") or line[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{line}{pad}{fence}"
