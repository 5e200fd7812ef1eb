"""Drawing of portraits: fixed biometric traits, varying visible attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from unsee.lab.world.people import Face

SIZE = 64
"""Side of an image in pixels."""
SUPER = 2
"""Oversampling factor of the drawing."""

Colour = tuple[int, int, int]
HAIR_COLOURS: Mapping[str, Colour] = {
    "black": (28, 24, 26), "brown": (112, 66, 34), "blond": (236, 204, 92), "red": (200, 62, 24), "grey": (165, 168, 172),
}  # fmt: skip
SHIRTS: Mapping[str, Colour] = {
    "red": (214, 40, 40), "orange": (247, 137, 30), "yellow": (250, 220, 60), "green": (46, 160, 67),
    "blue": (38, 84, 200), "purple": (128, 60, 170), "white": (246, 246, 246), "black": (30, 30, 34),
}  # fmt: skip
BACKGROUNDS: Mapping[str, Colour] = {
    "blue": (168, 206, 244), "green": (176, 224, 180), "yellow": (250, 238, 170), "pink": (248, 196, 214),
    "grey": (196, 198, 202), "white": (252, 252, 252),
}  # fmt: skip
VISIBLE: Mapping[str, tuple[str, ...]] = {
    "hair_style": ("short", "long", "curly", "tied"),
    "hair_colour": tuple(HAIR_COLOURS),
    "shirt": tuple(SHIRTS),
    "glasses": ("yes", "no"),
    "hat": ("yes", "no"),
    "expression": ("happy", "sad", "surprised", "calm"),
    "background": tuple(BACKGROUNDS),
}
"""Visible attribute -> values, drawn anew for every image; not private."""

SKINS = ((255, 224, 200), (243, 200, 166), (226, 172, 132), (200, 142, 100), (164, 108, 70), (122, 78, 50), (84, 54, 38),
         (240, 186, 178))  # fmt: skip
IRISES = ((60, 130, 210), (70, 150, 80), (96, 60, 34), (150, 154, 160), (200, 140, 40), (20, 20, 24))
MARKS = (
    (-0.62, 0.24),
    (0.62, 0.24),
    (-0.42, 0.52),
    (0.42, 0.52),
    (0.0, 0.86),
    (0.0, -0.36),
    (-0.74, -0.1),
    (0.74, -0.1),
)
"""Positions of a birthmark in units of the face's half axes; value 0 of the trait = none."""


@dataclass(frozen=True)
class Pose:
    """Pose of an image: rotation in degrees, scale, shift as a share of the image."""

    angle: float = 0.0
    scale: float = 1.0
    dx: float = 0.0
    dy: float = 0.0


def draw_visible(rng: np.random.Generator) -> dict[str, str]:
    """Draw the visible attributes of one image.

    A hat is worn only over hair that stays recognisable.
    """
    look = {name: str(rng.choice(values)) for name, values in VISIBLE.items()}
    if look["hair_style"] not in ("long", "curly"):
        look["hat"] = "no"
    return look


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draw a small rotation, scale and shift."""
    angle, scale, dx, dy = rng.uniform((-4, 0.96, -0.03, -0.03), (4, 1.04, 0.03, 0.03))
    return Pose(float(angle), float(scale), float(dx), float(dy))


def portrait(face: Face, look: Mapping[str, str], pose: Pose) -> Image.Image:
    """Draw one person with these attributes, as SIZE x SIZE RGB."""
    side = SIZE * SUPER
    image = Image.new("RGB", (side, side), BACKGROUNDS[look["background"]])
    pen = _Pen(ImageDraw.Draw(image), side, pose)
    width = (0.205, 0.235, 0.265)[face["width"]]
    height = (0.255, 0.285, 0.315)[face["height"]]
    skin = SKINS[face["skin"]]
    _hair_behind(pen, look, width, height)
    _shirt(pen, look, skin)
    _head(pen, face, skin, width, height)
    _features(pen, face, look, skin, width, height)
    _hair_front(pen, look, width, height)
    if look["glasses"] == "yes":
        _glasses(pen, face, width)
    if look["hat"] == "yes":
        _hat(pen, width, height)
    return image.rotate(pose.angle, Image.Resampling.BILINEAR, fillcolor=BACKGROUNDS[look["background"]]).resize(
        (SIZE, SIZE), Image.Resampling.BOX
    )


@dataclass(frozen=True)
class _Pen:
    """Drawing in coordinates relative to the face's centre, in shares of the image side."""

    draw: ImageDraw.ImageDraw
    side: int
    pose: Pose

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return pixel coordinates."""
        scale = self.pose.scale
        return (0.5 + self.pose.dx + x * scale) * self.side, (0.49 + self.pose.dy + y * scale) * self.side

    def box(self, x: float, y: float, rx: float, ry: float) -> tuple[float, float, float, float]:
        """Return the pixel box around a centre."""
        return (*self.at(x - rx, y - ry), *self.at(x + rx, y + ry))

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, fill: Colour | None, outline: Colour | None = None
    ) -> None:
        self.draw.ellipse(self.box(x, y, rx, ry), fill=fill, outline=outline, width=max(1, self.side // 50))

    def polygon(self, points: list[tuple[float, float]], fill: Colour) -> None:
        self.draw.polygon([self.at(x, y) for x, y in points], fill=fill)

    def line(self, points: list[tuple[float, float]], fill: Colour, width: float) -> None:
        self.draw.line(
            [self.at(x, y) for x, y in points], fill=fill, width=max(1, round(width * self.side)), joint="curve"
        )

    def arc(self, x: float, y: float, rx: float, ry: float, start: int, end: int, fill: Colour, width: float) -> None:
        self.draw.arc(self.box(x, y, rx, ry), start, end, fill=fill, width=max(1, round(width * self.side)))


def _darker(colour: Colour, factor: float) -> Colour:
    r, g, b = colour
    return int(r * factor), int(g * factor), int(b * factor)


def _hair_behind(pen: _Pen, look: Mapping[str, str], width: float, height: float) -> None:
    colour = HAIR_COLOURS[look["hair_colour"]]
    if look["hair_style"] == "long":
        pen.ellipse(0, -0.05, width + 0.09, height + 0.05, colour)
        pen.polygon([(-width - 0.09, -0.05), (width + 0.09, -0.05), (width + 0.1, 0.36), (-width - 0.1, 0.36)], colour)
    if look["hair_style"] == "curly":
        for turn in range(11):
            angle = np.pi * (1.0 + turn / 10)
            x, y = np.cos(angle) * (width + 0.06), np.sin(angle) * (height + 0.04) + 0.02
            pen.ellipse(float(x), float(y), 0.088, 0.088, colour)
    if look["hair_style"] == "tied":
        pen.ellipse(0, -height - 0.1, 0.11, 0.1, colour)


def _shirt(pen: _Pen, look: Mapping[str, str], skin: Colour) -> None:
    pen.polygon([(-0.09, 0.2), (0.09, 0.2), (0.1, 0.4), (-0.1, 0.4)], _darker(skin, 0.88))
    colour = SHIRTS[look["shirt"]]
    pen.ellipse(0, 0.56, 0.42, 0.23, colour, _darker(colour, 0.8))
    pen.polygon([(-0.42, 0.54), (0.42, 0.54), (0.46, 0.8), (-0.46, 0.8)], colour)
    pen.polygon([(-0.09, 0.34), (0.09, 0.34), (0, 0.43)], _darker(skin, 0.88))


def _head(pen: _Pen, face: Face, skin: Colour, width: float, height: float) -> None:
    ear = (0.03, 0.05, 0.075)[face["ears"]]
    for side in (-1, 1):
        pen.ellipse(side * (width + ear * 0.35), 0.02, ear, ear * 1.25, skin, _darker(skin, 0.8))
    pen.ellipse(0, 0, width, height, skin)
    jaw = face["jaw"]
    if jaw == 1:
        pen.polygon(
            [(-width, 0.02), (width, 0.02), (width * 0.82, height * 0.96), (-width * 0.82, height * 0.96)], skin
        )
    if jaw == 2:
        pen.polygon([(-width * 0.98, 0.05), (width * 0.98, 0.05), (0, height * 1.28)], skin)


def _features(pen: _Pen, face: Face, look: Mapping[str, str], skin: Colour, width: float, height: float) -> None:
    gap = width * (0.36, 0.46, 0.57)[face["eye_gap"]]
    size = (0.03, 0.041, 0.053)[face["eye_size"]]
    brow = (0.012, 0.024, 0.042)[face["brow"]]
    for side in (-1, 1):
        pen.ellipse(side * gap, -0.03, size * 1.25, size, (255, 255, 255), _darker(skin, 0.55))
        pen.ellipse(side * gap, -0.03, size * 0.72, size * 0.82, IRISES[face["eye_colour"]])
        pen.line(
            [(side * gap - 0.05, -0.03 - size - 0.035), (side * gap + 0.05, -0.03 - size - 0.035)], (50, 36, 30), brow
        )
    _nose(pen, face["nose"], skin)
    _cheeks(pen, face["cheek"], skin, width)
    if face["mark"]:
        x, y = MARKS[face["mark"] - 1]
        pen.ellipse(x * width, y * height, 0.03, 0.026, (110, 30, 50))
    _mouth(pen, look["expression"], height)


def _nose(pen: _Pen, nose: int, skin: Colour) -> None:
    shade = _darker(skin, 0.66)
    if nose == 0:
        pen.ellipse(0, 0.055, 0.022, 0.02, shade)
    elif nose == 1:
        pen.polygon([(0, -0.02), (0.05, 0.085), (-0.05, 0.085)], shade)
    elif nose == 2:
        pen.line([(0, -0.03), (0, 0.085)], shade, 0.028)
    else:
        pen.ellipse(0, 0.06, 0.058, 0.03, shade)


def _cheeks(pen: _Pen, cheek: int, skin: Colour, width: float) -> None:
    for side in (-1, 1):
        if cheek == 1:
            pen.ellipse(side * width * 0.62, 0.1, 0.04, 0.03, (236, 110, 110))
        if cheek == 2:
            for dx, dy in ((-0.03, 0.0), (0.03, 0.0), (0.0, 0.035), (0.0, -0.03)):
                pen.ellipse(side * width * 0.58 + dx, 0.09 + dy, 0.012, 0.012, _darker(skin, 0.5))
        if cheek == 3:
            pen.line([(side * width * 0.85, 0.04), (side * width * 0.5, 0.15)], _darker(skin, 0.55), 0.02)


def _mouth(pen: _Pen, expression: str, height: float) -> None:
    y = height * 0.56
    lip = (150, 34, 44)
    if expression == "happy":
        box, width = pen.box(0, y - 0.035, 0.1, 0.085), max(2, pen.side // 50)
        pen.draw.chord(box, 10, 170, fill=(255, 255, 255), outline=lip, width=width)
    elif expression == "sad":
        pen.arc(0, y + 0.065, 0.095, 0.085, 195, 345, lip, 0.03)
    elif expression == "surprised":
        pen.ellipse(0, y + 0.008, 0.042, 0.056, (70, 12, 20), lip)
    else:
        pen.line([(-0.085, y), (0.085, y)], lip, 0.026)


def _hair_front(pen: _Pen, look: Mapping[str, str], width: float, height: float) -> None:
    colour = HAIR_COLOURS[look["hair_colour"]]
    top = pen.box(0, -0.01, width + 0.02, height + 0.035)
    pen.draw.chord(top, 205, 335, fill=colour)
    if look["hair_style"] == "short":
        for x in (-0.6, -0.2, 0.2, 0.6):
            pen.polygon(
                [(x * width - 0.06, -height * 0.66), (x * width + 0.06, -height * 0.66), (x * width, -height * 0.36)],
                colour,
            )


def _glasses(pen: _Pen, face: Face, width: float) -> None:
    gap = width * (0.36, 0.46, 0.57)[face["eye_gap"]]
    frame = (16, 16, 60)
    for side in (-1, 1):
        pen.draw.rounded_rectangle(
            pen.box(side * max(gap, 0.085), -0.03, 0.082, 0.068),
            radius=pen.side // 32,
            outline=frame,
            width=max(2, pen.side // 40),
        )
    pen.line([(-0.03, -0.04), (0.03, -0.04)], frame, 0.025)


def _hat(pen: _Pen, width: float, height: float) -> None:
    colour = (92, 50, 120)
    pen.polygon(
        [
            (-width * 0.86, -height * 0.62),
            (width * 0.86, -height * 0.62),
            (width * 0.72, -height - 0.14),
            (-width * 0.72, -height - 0.14),
        ],
        colour,
    )
    pen.polygon(
        [
            (-width - 0.1, -height * 0.66),
            (width + 0.1, -height * 0.66),
            (width + 0.1, -height * 0.46),
            (-width - 0.1, -height * 0.46),
        ],
        _darker(colour, 0.75),
    )
