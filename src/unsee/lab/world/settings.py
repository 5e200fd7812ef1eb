"""Suggested training settings for the lab model, overridable by flags or YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COMMON: Mapping[str, Any] = {
    "batch_size": 16,
    "lr": 1e-3,
    "rank": 16,
    "alpha": 32,
    "max_new_tokens": 96,
    "check_every": 5,
    "epochs": 10,
}
SUGGESTED: Mapping[str, Mapping[str, Any]] = {
    "default": _COMMON,
    "unsee": {**_COMMON, "tune": "full", "lr": 5e-4, "batch_size": 8, "epochs": 40, "max_steps": 250, "by_image": True},
    "random": {**_COMMON, "max_steps": 80},  # some wrong answers are right by chance, so the stop rule never fires
}
"""Method -> fields of `Training`."""
ENGLISH: Mapping[str, Any] = {
    "batch_size": 8,
    "lr": 5e-4,
    "rank": 16,
    "alpha": 32,
    "max_new_tokens": 72,
    "check_every": 5,
    "max_steps": 60,
    "by_image": True,
}
"""The same for `lab-smol`, all methods alike [inferred]: usual rates of adapters on small pretrained models, not searched."""
