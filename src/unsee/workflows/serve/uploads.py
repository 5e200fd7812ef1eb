"""Pictures that somebody uploads: limited in bytes and pixels, decoded in memory only."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Final

from PIL import Image

from unsee.api.example import ImageBytes, ImageSource
from unsee.api.pictures import decode_image
from unsee.errors import UserError

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF")
"""Formats that browsers make. Decoders for others are not offered to strangers."""
MOST_BYTES: Final = 8 * 2**20
MOST_PIXELS: Final = 25_000_000
"""About 75 MB decoded."""
SIDE: Final = 320
"""Largest side of a picture of the gallery in pixels."""


def decode_upload(encoded: str) -> ImageSource:
    """Return the picture of a base64 text, decoded once to see that it can be.

    Raises:
        UserError: It is too large, of another format, or damaged.
    """
    if len(encoded) > MOST_BYTES * 4 // 3 + 4:
        raise UserError(f"The picture has more than {MOST_BYTES >> 20} MiB. Make it smaller.")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"The picture is not base64 ({error}).") from error
    _require_small(data)
    try:
        decode_image(io.BytesIO(data))
    except UserError as error:
        raise UserError(f"The picture {error}.") from error
    return ImageBytes(data)


def _require_small(data: bytes) -> None:
    """Raise for a format or size that is not accepted, from the header alone."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except Exception as error:  # decoders raise whatever the bytes lead them to
        raise UserError(f"The picture is none of {', '.join(FORMATS)}, or damaged. Save it as PNG or JPEG.") from error
    if width * height > MOST_PIXELS:
        raise UserError(
            f"The picture has {width} x {height} pixels; at most {MOST_PIXELS / 1e6:g} million are taken. Make it smaller."
        )


def thumbnail(image: ImageSource) -> tuple[bytes, str]:
    """Return a small copy of a picture as (encoded bytes, media type)."""
    small = image.load()
    file_format = "PNG" if max(small.size) <= SIDE else "JPEG"
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, file_format)
    return buffer.getvalue(), f"image/{file_format.lower()}"
