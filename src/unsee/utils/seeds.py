"""Derived random seeds."""

from __future__ import annotations

import hashlib


def seed_of(*parts: object) -> int:
    """Return a 63-bit seed that depends on all parts and nothing else."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
