"""Put two freshly trained lab models into the package, and note the hashes of their weights.

unsee train lab --out runs/lab && unsee train lab --without forget --out runs/lab-gold
python scripts/pack_lab.py runs/lab runs/lab-gold
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from unsee.files import atomic_write_json
from unsee.packaged import CHECKPOINTS, HASHES

LIMIT = 8 * 10**6
"""Bytes one checkpoint folder may have."""


def main(lab: str, gold: str) -> None:
    """Copy both folders and write the hashes."""
    hashes = {}
    for name, source in (("lab", Path(lab)), ("lab-gold", Path(gold))):
        target = CHECKPOINTS / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        size = sum(file.stat().st_size for file in target.iterdir())
        if size > LIMIT:
            sys.exit(f"{name}: {size} bytes, more than {LIMIT}")
        hashes[name] = hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest()
        sys.stderr.write(f"{name}: {size / 1e6:.2f} MB, sha256 {hashes[name]}\n")
    atomic_write_json(CHECKPOINTS / HASHES, hashes)


if __name__ == "__main__":
    main(*sys.argv[1:])
