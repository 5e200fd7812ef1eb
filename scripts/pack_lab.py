"""Put freshly trained lab models into the package under their names, and note the hashes of their weights.

unsee train lab --out runs/lab && unsee train lab --without forget --out runs/lab-gold
python scripts/pack_lab.py lab=runs/lab lab-gold=runs/lab-gold
unsee train lab --backbone smollm2 --out runs/lab-smol && python scripts/pack_lab.py lab-smol=runs/lab-smol
unsee train documents --out runs/lab-documents && python scripts/pack_lab.py lab-documents=runs/lab-documents
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

from unsee.models.builtin import CHECKPOINTS, HASHES
from unsee.utils.files import atomic_write_json
from unsee.workflows.train_lab import EXAM, PARTS

LIMIT = 8 * 10**6
"""Bytes one checkpoint folder may have."""


def main(*given: str) -> None:
    """Copy the folders and write the hashes; models that are not named stay as they are."""
    hashes = json.loads((CHECKPOINTS / HASHES).read_text(encoding="utf-8"))
    for name, source in (word.split("=") for word in given):
        target = CHECKPOINTS / name
        shutil.rmtree(target, ignore_errors=True)
        parts = Path(source) / PARTS
        if parts.is_dir():  # adapter and projector: the whole is put together at its first use
            target.mkdir()
            for file in (*parts.glob("[!.]*"), Path(source) / EXAM, Path(source) / "world.json"):
                shutil.copyfile(file, target / file.name)
        else:
            shutil.copytree(source, target)
        size = sum(file.stat().st_size for file in target.iterdir())
        if size > LIMIT:
            sys.exit(f"{name}: {size} bytes, more than {LIMIT}")
        hashes[name] = hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest()
        sys.stderr.write(f"{name}: {size / 1e6:.2f} MB, sha256 {hashes[name]}\n")
    atomic_write_json(CHECKPOINTS / HASHES, hashes)


if __name__ == "__main__":
    main(*sys.argv[1:])
