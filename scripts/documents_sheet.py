"""Draw a contact sheet of the lab's documents: two copies each of some cards and contracts, and some unknown ones.

python scripts/documents_sheet.py docs/documents.png
"""

from __future__ import annotations

import sys
from itertools import chain

from PIL import Image

from unsee.lab.documents.archive import Archive, DocumentPicture
from unsee.lab.world.portraits import SIZE
from unsee.lab.world.world import World

COLUMNS, GAP = 12, 4


def main(target: str) -> None:
    """Draw three rows: medical cards, contracts, documents nobody is told about."""
    archive = Archive(World())
    known = (archive.documents[:6], archive.documents[30:36])
    rows = [[archive.copy(one.id, one.design, "exam", i) for one in row for i in range(2)] for row in known]
    unknown = [archive.stranger("exam", number) for number in range(COLUMNS)]
    rows.append([archive.copy(f"sheet-{n}", design, "exam", 0) for n, design in enumerate(unknown)])
    sheet(list(chain.from_iterable(rows))).save(target, optimize=True)


def sheet(copies: list[DocumentPicture]) -> Image.Image:
    """Return the copies side by side."""
    step = SIZE + GAP
    image = Image.new("RGB", (COLUMNS * step + GAP, len(copies) // COLUMNS * step + GAP), "white")
    for place, copy in enumerate(copies):
        image.paste(copy.load(), (GAP + place % COLUMNS * step, GAP + place // COLUMNS * step))
    return image


if __name__ == "__main__":
    main(*sys.argv[1:])
