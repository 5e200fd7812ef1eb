"""Decoding of untrusted image files to upright 8-bit RGB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from PIL import Image, ImageOps

from unsee.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Accepted formats. Pillow supports more, but runs an external program for some (Ghostscript for PostScript)."""
_ORIENTATION: Final = 0x0112
_WIDTH: Final = 0x0100
_HEIGHT: Final = 0x0101
"""EXIF tags."""
_LYING: Final = (5, 6, 7, 8)
"""Orientations that exchange width and height."""
_WHITE_16: Final = 65535
"""White in a 16-bit image."""
_SAVE: Final = "save it as an 8-bit PNG or JPEG"


def decode_image(source: Path | BinaryIO) -> Image.Image:
    """Decode an image file to upright RGB on white.

    Raises UserError with the reason.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            return opaque(image)
    except UserError:
        raise
    except Image.UnidentifiedImageError as error:
        raise UserError(f"cannot be decoded (it is none of {', '.join(FORMATS)}, or damaged); {_SAVE}") from error
    # Decoders raise whatever the bytes lead them to: struct.error, IndexError, KeyError, MemoryError, ...
    except Exception as error:
        raise UserError(f"cannot be decoded ({error or type(error).__name__})") from error


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height after decoding, read from the header only."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            exif = image.getexif()
            # Pillow turns the size of a lying TIFF itself, or not, by its version; the tags hold that of the file.
            width, height = (exif[_WIDTH], exif[_HEIGHT]) if image.format == "TIFF" else image.size
            return (height, width) if exif.get(_ORIENTATION, 1) in _LYING else (width, height)
    except Exception as error:  # as in `decode_image`
        raise UserError(f"The image {path} cannot be decoded ({error}).") from error


def opaque(image: Image.Image) -> Image.Image:
    """Return the image in RGB: EXIF orientation applied, transparency on white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F" or upright.mode.startswith("I"):
        return _eight_bits(upright, unsure=upright.mode == "I" and image.format != "PNG")
    if "A" in upright.getbands() or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return upright.convert("RGB")


def _eight_bits(image: Image.Image, *, unsure: bool) -> Image.Image:
    """Scale 16-bit grey values to 8 bits, since `convert` would clip them at 255.

    `unsure`: whether the values might be 8-bit ones.
    """
    import numpy as np

    if image.mode == "F":
        raise UserError(f"has floating-point values, of which white is not known; {_SAVE}")
    values = np.asarray(image).astype("int64")
    _require_16_bits(values, unsure=unsure)
    grey = (values >> 8).astype("uint8")
    grey[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey).convert("RGB")


def _require_16_bits(values: NDArray[Any], *, unsure: bool) -> None:
    """Raise if 32-bit integers do not exceed 255 (`unsure`), which may be 8-bit values."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _WHITE_16 or (unsure and 0 < high < 256):
        raise UserError(
            f"has integers from {low} to {high}, of which white is not known (0 to {_WHITE_16} would be); {_SAVE}"
        )
