"""Print runs as a Markdown table with the columns of a grid: `python scripts/lab_table.py configs/tables/rmuse.yaml runs/a runs/sweep`.

A folder is an evaluated run, or a sweep, of which the finished cells are taken in the order of the grid.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from unsee.errors import UnseeError
from unsee.report.table import table
from unsee.workflows.grid import read_grid


def cells(place: Path) -> list[Path]:
    """Return the run folders at a place."""
    index = place / "index.json"
    if not index.is_file():
        return [place]
    rows = json.loads(index.read_text(encoding="utf-8"))
    return [place / row["folder"] for row in rows if row["state"] == "done"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the places and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("grid", type=Path, help="file with a `table` part: title -> score")
    parser.add_argument("places", type=Path, nargs="+", help="run folders and sweep folders")
    options = parser.parse_args(arguments)
    try:
        print(table([run for place in options.places for run in cells(place)], read_grid(options.grid).table), end="")
    except UnseeError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
