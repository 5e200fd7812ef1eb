"""Keep what a leaderboard's cells say, without weights: enough to make its tables and pages again, and to go on from.

python scripts/leaderboard_cells.py pack runs/leaderboard FILE.tar.xz
python scripts/leaderboard_cells.py unpack FILE.tar.xz runs/leaderboard

The command of the leaderboard then finds these cells finished and does the others. The archive holds what the models say of
the forgotten, and pictures of them: give it away for invented people only, as those of the lab.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from unsee.errors import UserError
from unsee.report.read import Stage, read_run
from unsee.report.summary import judged_role
from unsee.utils.files import atomic_writer
from unsee.workflows.sweep import DONE

FILES = ("run.yaml", "responses.jsonl", "judged.json", "attacks.json", "vocabulary.json", DONE)
"""What a report reads of a cell."""
_NAMING = ("run.yaml", "judged.json")
"""Files that name the folder of their cell."""
_FOLDER = re.compile(rb"""([\s"'])/[^\s"']*/cells/""")
"""Where the cells lay on the machine that made them, which is left out."""


def main(verb: str = "", source: str = "", target: str = "", *rest: str) -> None:
    """Pack or unpack."""
    if verb not in ("pack", "unpack") or not target or rest:
        sys.exit(str(__doc__))
    place = Path(source)
    try:
        if verb == "pack":
            pack(place, Path(target))
        else:
            unpack(place, Path(target))
    except (UserError, OSError, tarfile.TarError) as error:
        sys.exit(f"{verb} {place}: {error}")


def pack(board: Path, archive: Path) -> None:
    """Write the finished cells of a leaderboard, and the pictures of what they say of the forgotten, into an archive."""
    board = board.resolve()
    files = sorted(set(_files(board)))
    if not files:
        raise UserError(f"{board} has no finished cell (cells/NAME/{DONE}). Name the --out of `unsee leaderboard`.")
    with atomic_writer(archive) as stream, tarfile.open(fileobj=stream, mode="w:xz", preset=9) as tar:
        for file in files:
            content = file.read_bytes()
            if file.name in _NAMING:
                content = _FOLDER.sub(rb"\1cells/", content)
            member = tarfile.TarInfo(file.relative_to(board).as_posix())  # without who packed it, and when
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    sys.stderr.write(f"{archive}: {len(files)} files, {archive.stat().st_size / 1e6:.1f} MB\n")


def _files(board: Path) -> Iterator[Path]:
    for done in board.glob(f"cells/*/{DONE}"):
        yield from (file for name in FILES if (file := done.with_name(name)).is_file())
        run = read_run(done.parent)
        role = judged_role([Stage(name=run.stage, runs=(run,))])  # of whom the page quotes the worst answer
        shown = {row.image for row in run.responses if row.role == role and row.image}
        yield from (
            file
            for image in shown
            if (file := (done.parent / image).resolve()).is_relative_to(board) and file.is_file()
        )


def unpack(archive: Path, board: Path) -> None:
    """Put packed cells into a leaderboard's folder. Cells that are there stay as they are."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if member.isfile() and not (board / member.name).exists():
                tar.extract(member, board, filter="data")


if __name__ == "__main__":
    main(*sys.argv[1:])
