"""Pictures: the test images cropped, turned, mirrored, recoloured and noisy (arXiv 2610.10358)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from unsee.api import Attack, Finding, ImageSource, Victim
from unsee.api.finite import require_values
from unsee.errors import unknown_name
from unsee.evaluation.recovery import pictured_rows, recovery


def _cropped(image: Image.Image) -> Image.Image:
    """Return the middle 80 % of each side, scaled to the size of the image."""
    width, height = image.size
    box = (width // 10, height // 10, width - width // 10, height - height // 10)
    return image.crop(box).resize(image.size, Image.Resampling.BICUBIC)


def _noisy(image: Image.Image) -> Image.Image:
    """Return the image with Gaussian noise of 12 of 255 levels, the same for the same image."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    seed = int.from_bytes(hashlib.sha256(pixels.tobytes()).digest()[:8])
    noise = np.random.default_rng(seed).normal(0, 12, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


_CHANGES: Final[dict[str, Callable[[Image.Image], Image.Image]]] = {
    "plain": lambda image: image,
    "crop": _cropped,
    "turn": lambda image: image.rotate(12, resample=Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)),
    "mirror": ImageOps.mirror,
    "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "noise": _noisy,
}


@dataclass(frozen=True)
class _Changed:
    """Image with a change, made on access."""

    source: ImageSource
    change: str

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.source.key} {self.change}".encode()).hexdigest()

    def load(self) -> Image.Image:
        return _CHANGES[self.change](self.source.load())


@dataclass(frozen=True, kw_only=True)
class Pictures(Attack):
    """Ask about changed images. The change that brings back most counts."""

    changes: tuple[str, ...] = tuple(_CHANGES)
    """Changes, by name."""
    images: int = 2
    """Test images per entity and question."""

    def __post_init__(self) -> None:
        """Reject unknown changes, or none."""
        super().__post_init__()
        require_values(self, "attack", changes=None, images=0)
        for name in self.changes:
            if name not in _CHANGES:
                raise unknown_name("change of pictures", name, _CHANGES)

    def quick(self) -> Self:
        """Return three changes."""
        return replace(self, changes=("plain", "crop", "mirror"), images=1)

    def run(self, victim: Victim) -> Iterator[Finding]:
        """Ask about every change of the test images."""
        rows = pictured_rows(victim.benchmark, self.images)
        loaded = victim.open()
        for name in self.changes:
            changed_rows = [replace(row, image=_Changed(row.image, name)) for row in rows if row.image is not None]
            yield recovery(loaded, changed_rows, name)
