"""Fingerprint of data: a hash of all examples, pixels included."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from unsee.api import Benchmark, Example, ImageSource
from unsee.api.example import ImageFile

_REMEMBERED: Final = 4096
"""Number of cached image hashes."""


def fingerprint(opened: Benchmark) -> str:
    """Return the SHA-256 of all examples, pixels included, independent of file names."""
    digest, image_key = hashlib.sha256(), image_keys()
    for split in ("train", "eval"):
        for example in opened.examples(split):
            digest.update(row_bytes(split, example, image_key(example.image)))
    return digest.hexdigest()


def row_bytes(split: str, example: Example, image: str) -> bytes:
    """Return the bytes of a row that the fingerprint hashes, `image` being the content key."""
    row = [
        *(split, example.id, example.role, example.question, example.answer),
        *(example.entity, example.kind, example.fact),
        *(dict(example.private), dict(example.visible), example.options, example.chain),
        *((example.paraphrase, example.perturbed) if example.perturbed or example.paraphrase else ()),
        *((["accepted", *example.accepted],) if example.accepted else ()),
        image,
    ]
    return json.dumps(row, ensure_ascii=False, sort_keys=True).encode()


def image_keys() -> Callable[[ImageSource | None], str]:
    """Return a function that returns the content key of an image, "" without one, and remembers recently read files."""
    file_key = lru_cache(maxsize=_REMEMBERED)(lambda image: str(image.key))
    return lambda image: file_key(image) if isinstance(image, ImageFile) else image.key if image else ""
