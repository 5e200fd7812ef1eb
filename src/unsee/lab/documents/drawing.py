"""Drawing of documents: a fixed design, and variation between copies.

Writing is drawn as bars: nothing can be read off a picture, so all that a model states about a holder is memorised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from unsee.lab.world.objects import SHAPE_COLOURS, SHAPES, draw_shape
from unsee.lab.world.portraits import BACKGROUNDS, SIZE, Colour, Pose

Sort = Literal["medical", "contract"]
SORTS: Mapping[Sort, str] = {"medical": "medical card", "contract": "work contract"}
"""Type of document -> its name."""
SCALE = 4
"""Oversampling factor of the drawing."""
SHEETS: Mapping[Sort, tuple[int, int]] = {"medical": (224, 160), "contract": (164, 224)}
"""Width and height of a sheet in drawn pixels: cards are landscape, contracts portrait."""

TRAITS: Mapping[str, int] = {
    "colour": 6, "emblem": 6, "place": 3, "header": 4, "paper": 5, "ink": 3, "row1": 4, "row2": 4, "row3": 4, "row4": 4,
    "figure": 4, "code": 4, "frame": 3, "stamp": 4,
}  # fmt: skip
"""Trait of the design -> number of values; fixed per document."""
MIN_DIFFERENT = 7
"""Fewest traits in which two documents of a type differ."""

COLOURS = tuple(SHAPE_COLOURS)
STAMPS = ("no stamps", "one stamp", "two stamps", "three stamps")
DESKS = tuple(BACKGROUNDS)
VISIBLE: Mapping[str, tuple[str, ...]] = {
    "sort": tuple(SORTS.values()),
    "colour": COLOURS,
    "emblem": SHAPES,
    "stamps": STAMPS,
    "desk": DESKS,
}
"""Visible attribute -> values. Stamps and desk vary by copy; none is private."""

PAPERS = ((255, 255, 255), (252, 246, 222), (228, 240, 252), (230, 246, 230), (250, 230, 238))
INKS = ((58, 60, 66), (70, 84, 150), (150, 96, 66))
STAMP_INKS = ((190, 24, 60), (36, 66, 170), (24, 120, 90), (110, 50, 140))
ROWS = (((0.0, 0.92),), ((0.0, 0.58),), ((0.0, 0.34), (0.46, 0.92)), ((0.36, 0.92),))
"""Bars of a row, as intervals in shares of the text's width."""


@dataclass(frozen=True)
class Design:
    """Fixed design of one document: type, and trait -> value index."""

    sort: Sort
    values: tuple[int, ...]

    def __getitem__(self, trait: str) -> int:
        """Return the value of one trait."""
        return self.values[list(TRAITS).index(trait)]

    @property
    def colour(self) -> str:
        """The colour of header and emblem."""
        return COLOURS[self["colour"]]

    @property
    def emblem(self) -> str:
        """The shape in the header."""
        return SHAPES[self["emblem"]]


def draw_copy(rng: np.random.Generator) -> tuple[int, str]:
    """Draw the random attributes of one copy: number of stamps, and desk."""
    return int(rng.integers(len(STAMPS))), str(rng.choice(DESKS))


def stamps_of(value: str) -> str:
    """Return the word for a number of stamps.

    >>> stamps_of("two stamps")
    'two'
    """
    return value.split()[0]


def document(design: Design, stamps: int, desk: str, pose: Pose, rng: np.random.Generator) -> Image.Image:
    """Draw one copy as SIZE x SIZE RGB.

    Args:
        design: What the document looks like, the same on all copies.
        stamps: Number of stamps on the copy.
        desk: Colour behind it, a key of `BACKGROUNDS`.
        pose: Angle, size and place of the sheet.
        rng: Source of what differs between copies otherwise, such as light.
    """
    side = SIZE * SCALE
    sheet = _sheet(design, stamps, rng)
    size = (round(sheet.width * pose.scale), round(sheet.height * pose.scale))
    turned_sheet = sheet.resize(size, Image.Resampling.BILINEAR).rotate(
        pose.angle, Image.Resampling.BILINEAR, expand=True
    )
    image = Image.new("RGB", (side, side), BACKGROUNDS[desk])
    left = round((0.5 + pose.dx) * side - turned_sheet.width / 2)
    top = round((0.5 + pose.dy) * side - turned_sheet.height / 2)
    shadow = Image.new("RGB", turned_sheet.size, tuple(round(0.72 * channel) for channel in BACKGROUNDS[desk]))
    image.paste(shadow, (left + 6, top + 6), turned_sheet.getchannel("A"))
    image.paste(turned_sheet, (left, top), turned_sheet)
    return _lit(image.resize((SIZE, SIZE), Image.Resampling.BOX), rng)


def _lit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    light = Image.new("RGB", image.size, (round(255 * rng.uniform(0.9, 1.0)),) * 3)
    return ImageChops.multiply(image, light)


def _sheet(design: Design, stamps: int, rng: np.random.Generator) -> Image.Image:
    """Return the sheet alone, transparent around its corners."""
    width, height = SHEETS[design.sort]
    paper = PAPERS[design["paper"]]
    image = Image.new("RGBA", (width, height), (*paper, 0))
    pen = ImageDraw.Draw(image)
    radius = 16 if design.sort == "medical" else 2
    pen.rounded_rectangle((0, 0, width - 1, height - 1), radius, fill=paper)
    colour = SHAPE_COLOURS[design.colour]
    _frame(pen, design, width, height, colour, radius)
    _header(pen, design, width, colour)
    _text(pen, design, width, colour)
    _code(pen, design, width, height)
    _stamps(pen, design, width, height, stamps, rng)
    return image


def _frame(pen: ImageDraw.ImageDraw, design: Design, width: int, height: int, colour: Colour, radius: int) -> None:
    if design["frame"] == 1:
        pen.rounded_rectangle((0, 0, width - 1, height - 1), radius, outline=colour, width=7)
    if design["frame"] == 2:
        pen.rounded_rectangle((0, 0, width - 1, height - 1), radius, outline=(120, 122, 128), width=4)


def _header(pen: ImageDraw.ImageDraw, design: Design, width: int, colour: Colour) -> None:
    """Draw the header with its emblem, in a white disc on a full band."""
    bottom, centre_y = 50, 29
    x = (32, width // 2, width - 32)[design["place"]]
    if design["header"] == 0:
        pen.rectangle((6, 6, width - 7, bottom), fill=colour)
    elif design["header"] == 1:
        pen.rectangle((10, bottom - 2, width - 11, bottom + 6), fill=colour)
    elif design["header"] == 2:
        pen.rectangle((6, 6, width - 7, 11), fill=colour)
        pen.rectangle((6, bottom - 2, width - 7, bottom + 4), fill=colour)
    else:
        band_left = (6, width // 4, width // 2 - 6)[design["place"]]
        pen.rectangle((band_left, 6, band_left + width // 2, bottom), fill=colour)
    if design["header"] in (0, 3):
        pen.ellipse((x - 25, centre_y - 25, x + 25, centre_y + 25), fill=(255, 255, 255))
    draw_shape(pen, design.emblem, colour, x, centre_y, 20 if design["header"] == 1 else 15)


def _text(pen: ImageDraw.ImageDraw, design: Design, width: int, colour: Colour) -> None:
    """Draw four rows of bars, and the figure beside or below them."""
    left, right, top = 16, width - 16, 66
    step = 14 if design.sort == "medical" else 22
    side = 46
    if design["figure"] == 1:
        _figure(pen, left, top, side, colour)
        left += side + 10
    elif design["figure"] == 2:
        _figure(pen, right - side, top, side, colour)
        right -= side + 10
    elif design["figure"] == 3:
        pen.rectangle((left, top, right, top + step // 2 + 1), fill=colour)
    for row in range(4):
        if row == 0 and design["figure"] == 3:
            continue
        y = top + row * step
        for start, end in ROWS[design[f"row{row + 1}"]]:
            bar = (left + start * (right - left), left + end * (right - left))
            pen.rectangle((bar[0], y, bar[1], y + step // 2), fill=INKS[design["ink"]])


def _figure(pen: ImageDraw.ImageDraw, x: int, y: int, side: int, colour: Colour) -> None:
    """Draw a placeholder portrait: a grey box with a coloured bust."""
    pen.rectangle((x, y, x + side, y + side), fill=(206, 208, 214))
    pen.ellipse((x + 14, y + 6, x + side - 14, y + 25), fill=colour)
    pen.pieslice((x + 6, y + 24, x + side - 6, y + side + 22), 180, 360, fill=colour)


def _code(pen: ImageDraw.ImageDraw, design: Design, width: int, height: int) -> None:
    """Draw the machine-readable corner: bars or blocks, left or right."""
    left = 14 if design["code"] % 2 == 0 else width - 14 - 42
    top = height - 40
    if design["code"] < 2:
        for number in range(4):
            pen.rectangle((left + 12 * number, top, left + 12 * number + 5, top + 28), fill=(20, 20, 24))
    else:
        for row in range(2):
            for column in range(3):
                if (row + column) % 2 == 0:
                    x, y = left + 14 * column, top + 14 * row
                    pen.rectangle((x, y, x + 13, y + 13), fill=(20, 20, 24))


def _stamps(
    pen: ImageDraw.ImageDraw, design: Design, width: int, height: int, count: int, rng: np.random.Generator
) -> None:
    """Draw this copy's stamps. Their shape and ink belong to the document."""
    start = 66 if design["code"] % 2 == 0 else 12
    step = (width - 78) / 3
    for slot in range(count):
        dx, dy = rng.uniform(-3, 3, 2)
        x, y, r = start + (slot + 0.5) * step + dx, height - 26 + dy, min(18, step / 2 - 1)
        box = (x - r, y - r, x + r, y + r)
        ink = STAMP_INKS[design["stamp"]]
        if design["stamp"] % 2:
            pen.rectangle(box, outline=ink, width=6)
        else:
            pen.ellipse(box, outline=ink, width=6)
        pen.line((x - r * 0.5, y + r * 0.3, x + r * 0.5, y - r * 0.3), fill=ink, width=6)
