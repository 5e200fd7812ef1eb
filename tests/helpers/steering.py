"""Steering artefacts for the tiny model."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from unsee.models.steering.artifact import Artefact, Directions, Rule

WIDTH = 32
"""Width of the tiny model's states."""


def unit(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def basis(width, rank, seed=0):
    return torch.linalg.qr(unit(width, rank, seed=seed))[0]


def directions(width=WIDTH, seed=0):
    return Directions(
        un_text=basis(width, 3, seed),
        un_mm=basis(width, 3, seed + 1),
        rrs=basis(width, 4, seed + 2),
        v_text=basis(width, 3, seed)[:, 0].contiguous(),
        v_mm=basis(width, 3, seed + 1)[:, 0].contiguous(),
        mu_text=unit(5, width, seed=seed + 3),
        mu_mm=unit(5, width, seed=seed + 4),
        contrast=unit(width, seed=seed + 5),
    )


def artefact(**rule):
    settings = {"layers": (0, 1), "scoring_layer": 1, "gate": "always", "max_rotation_deg": 50.0, **rule}
    return Artefact(rule=Rule(**settings), directions={0: directions(seed=10), 1: directions(seed=20)})
