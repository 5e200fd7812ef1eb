"""Geometry of R-MUSE (arXiv 2512.17911): directions, subspaces, rotations.

The letters are those of docs/published.md. Shapes: n samples, d width of the model, k rank; other leading axes are free.
"""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import normalize

from unsee.errors import UserError

BORDER: Final = 1e-6
"""Distance of clamped cosines from -1 and 1 (docs/published.md, step 5) [inferred]."""
EPS: Final = 1e-6
"""Smallest standard deviation used as a divisor (docs/published.md, step 1) [inferred]."""
SHRINKAGE: Final = 0.01
"""Share of the mean variance that is added to every dimension, so that few samples have a discriminant [inferred]."""
KARCHER_STEPS: Final = 10
"""Steps towards the mean on the sphere (docs/published.md, step 5) [inferred]."""

ZScore = Literal["center_and_scale", "scale_only"]


def zscore(shifts_nd: Tensor, mode: ZScore) -> Tensor:
    """Scale every dimension over the batch. `center_and_scale` (literal) also centres it.

    >>> zscore(torch.tensor([[1.0], [3.0]]), "center_and_scale").tolist()
    [[-1.0], [1.0]]
    >>> zscore(torch.tensor([[3.0], [3.0]]), "scale_only").tolist()
    [[1.0], [1.0]]
    """
    centred_nd = shifts_nd - shifts_nd.mean(0) if mode == "center_and_scale" else shifts_nd
    return centred_nd / centred_nd.square().mean(0).sqrt().clamp(min=EPS)


def rank_for(singular_k: Tensor, energy: float) -> int:
    """Return the smallest rank that reaches this share of energy (docs/published.md, step 2).

    >>> rank_for(torch.tensor([4.0, 2.0, 1.0]), 0.76), rank_for(torch.tensor([4.0, 2.0, 1.0]), 0.8)
    (1, 2)
    """
    share_k = singular_k.double().square().cumsum(0) / singular_k.double().square().sum()
    return min(int((share_k < energy).sum()) + 1, len(singular_k))


def subspace(shifts_nd: Tensor, energy: float, cap: int) -> Tensor:
    """Return an orthonormal basis [d, k] of the shifts, k by energy, at most `cap`."""
    basis_dn, singular_n, _ = torch.linalg.svd(shifts_nd.float().T, full_matrices=False)
    if not singular_n.any():
        raise UserError(
            "All samples shift the states equally or not at all, so there is no direction. Set method.zscore=scale_only."
        )
    return basis_dn[:, : min(rank_for(singular_n, energy), cap)].contiguous()


def oriented(direction_d: Tensor, shift_d: Tensor) -> Tensor:
    """Return the direction with the sign of the mean shift. The SVD leaves it open [inferred].

    >>> oriented(torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 5.0]))
    tensor([1., -0.])
    """
    return direction_d if direction_d @ shift_d >= 0 else -direction_d


def contrast(forget_nd: Tensor, retain_nd: Tensor) -> Tensor:
    """Return Fisher's linear discriminant of two sets of states.

    >>> contrast(torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([[-1.0, 0.0], [-1.0, 2.0]])).tolist()
    [1.0, 0.0]
    >>> contrast(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0]])).tolist()
    [0.0, 1.0]
    """
    centred_nd = torch.cat([states_nd - states_nd.mean(0) for states_nd in (forget_nd, retain_nd)])
    covariance_dd = centred_nd.T @ centred_nd / len(centred_nd)
    variance = covariance_dd.diagonal().mean()
    # Equal states have no variance: then the discriminant is the direction from one mean to the other.
    ridge = SHRINKAGE * (variance if variance > 0 else 1.0) * torch.eye(len(covariance_dd))
    return normalize(torch.linalg.solve(covariance_dd + ridge, forget_nd.mean(0) - retain_nd.mean(0)), dim=0)


def balanced_threshold(forget: Tensor, retain: Tensor, sign: Literal["below", "above"]) -> tuple[float, float]:
    """Return the best threshold between forget and retain scores, and its balanced accuracy.

    >>> balanced_threshold(torch.tensor([0.25, 0.5]), torch.tensor([1.0, 2.0]), "below")
    (0.75, 1.0)
    """
    values = torch.cat([forget, retain]).double().unique()
    edges = torch.cat([values[:1] - EPS, (values[1:] + values[:-1]) / 2, values[-1:] + EPS])
    forget_rate, retain_rate = ((scores.double()[:, None] < edges).double().mean(0) for scores in (forget, retain))
    accuracy = (forget_rate + 1 - retain_rate) / 2 if sign == "below" else 1 - (forget_rate + 1 - retain_rate) / 2
    best = int(accuracy.argmax())
    return float(edges[best]), float(accuracy[best])


def turned(unit: Tensor, towards: Tensor, cosine: Tensor, angle: Tensor) -> Tensor:
    """Rotate unit vectors by `angle` towards `towards`.

    Args:
        unit: Unit vectors, in the last dimension.
        towards: Unit vectors to turn towards.
        cosine: Inner products of the two, the last dimension kept as 1.
        angle: Angles in radians, in the shape of `cosine`.

    >>> turned(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor(0.0), torch.tensor(0.0))
    tensor([1., 0.])
    """
    orthogonal = torch.addcmul(towards, cosine, unit, value=-1)
    share = angle.sin() / vector_norm(orthogonal, dim=-1, keepdim=True).clamp(min=1e-12)
    return torch.addcmul(angle.cos() * unit, share, orthogonal)


def aside(unit: Tensor) -> Tensor:
    """Return a fixed unit vector orthogonal to each unit vector.

    >>> aside(torch.tensor([1.0, 0.0]))
    tensor([0., 1.])
    """
    axis = torch.zeros_like(unit).scatter_(-1, unit.abs().argmin(-1, keepdim=True), 1.0)
    return normalize(axis - (axis * unit).sum(-1, keepdim=True) * unit, dim=-1)


def karcher_mean(points_nd: Tensor) -> Tensor:
    """Return the Karcher mean of unit vectors on the sphere (docs/published.md, step 5).

    >>> karcher_mean(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor([0.7071, 0.7071])
    """
    weight = 1 / len(points_nd)
    mean_d = normalize((weight * points_nd).sum(0), dim=0)
    for _ in range(KARCHER_STEPS):
        cosine_n1 = (points_nd @ mean_d)[:, None]
        tangent_nd = arc(cosine_n1) * normalize(points_nd - cosine_n1 * mean_d, dim=-1)
        step_d = (weight * tangent_nd).sum(0)
        length = step_d.norm()
        mean_d = normalize(length.cos() * mean_d + length.sin() * normalize(step_d, dim=0), dim=0)
    return mean_d


def outside(states: Tensor, basis_dk: Tensor) -> Tensor:
    """Return (I - U U^T) x: the part outside the subspace."""
    return states - (states @ basis_dk) @ basis_dk.T


def share_inside(states: Tensor, basis_dk: Tensor) -> Tensor:
    """Return the gate's score s = |P h| / |h| of each state (docs/published.md, step 4).

    >>> share_inside(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0], [0.0]]))
    tensor([0.6000])
    """
    return (states @ basis_dk).norm(dim=-1) / states.norm(dim=-1).clamp(min=BORDER)


def arc(cosine: Tensor) -> Tensor:
    """Return the angle of a cosine, clamped away from -1 and 1."""
    return cosine.clamp(-1 + BORDER, 1 - BORDER).acos()
