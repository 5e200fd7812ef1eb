"""Merging of LoRA adapters on one base: task arithmetic, TIES, DARE, MCU-style.

For ICU-Bench (arXiv 2605.05938).

Everything acts on the updates Delta W = B A themselves. Merging the factors (`add_weighted_adapter` of peft with `linear`, `ties` or
`dare_linear`) gives another update: (B1 + B2)(A1 + A2) has cross terms that no adapter has.
Shapes: o out, i in, r rank, k kept directions of all adapters, d dimension of the core space.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.linalg import eigh, qr, svd

from unsee.errors import UserError
from unsee.utils.files import atomic_write_json, follow_umask
from unsee.utils.parsing import read_object
from unsee.utils.seeds import seed_of
from unsee.workflows.continual.settings import Merge

SMALL: Final = 1e-6
"""Share of the largest singular value below which directions are dropped."""
LEAST_EIGENVALUE: Final = 1e-4
ENERGY: Final = 0.95
"""MCU-style: share of an adapter's energy (squared singular values) in its kept directions."""
DIRECTIONS: Final = 8
"""MCU-style: most directions kept per adapter."""
CAPACITY: Final = 3.0
"""MCU-style: ratio of a coordinate's load to the median from which it is damped."""
SYNERGY: Final = 0.5
"""MCU-style: what remains of the dependence of two directions that agree."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Factors:
    """Update of one layer, Delta W = B A, with LoRA's scale in B."""

    b_or: Tensor
    a_ri: Tensor

    @property
    def delta_oi(self) -> Tensor:
        """The full update."""
        return self.b_or @ self.a_ri


Adapter = Mapping[str, Factors]
"""Layer -> its update."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of merging."""

    how: Merge = "sum"
    scale: float = 1.0
    density: float = 0.2
    drop: float = 0.9
    rank: int = 0
    """Rank of the result of ties and dare; 0 = exact."""
    seed: int = 0


def merge_adapters(adapters: Sequence[Adapter], settings: Settings) -> dict[str, Factors]:
    """Return one adapter for several. A single one is scaled only."""
    if any(adapter.keys() != adapters[0].keys() for adapter in adapters):
        raise UserError("Only adapters on the same layers can be merged; train them with the same training.parts.")
    return {name: _layer(name, [adapter[name] for adapter in adapters], settings) for name in adapters[0]}


def _layer(name: str, updates: Sequence[Factors], settings: Settings) -> Factors:
    if settings.how == "sum" or len(updates) == 1:
        return total(updates, settings.scale)
    if settings.how == "mcu":
        factors = mcu(updates)
        return Factors(settings.scale * factors.b_or, factors.a_ri)
    deltas = [update.delta_oi for update in updates]
    if settings.how == "ties":
        delta_oi = ties(deltas, settings.density)
    else:
        delta_oi = dare(deltas, settings.drop, [seed_of(settings.seed, name, index) for index in range(len(deltas))])
    return factorised(settings.scale * delta_oi, settings.rank)


def total(updates: Sequence[Factors], scale: float = 1.0) -> Factors:
    """Return scale * sum of the updates, exactly, by stacking factors (Ilharco et al. 2023)."""
    return Factors(
        torch.cat([scale * update.b_or for update in updates], dim=1), torch.cat([update.a_ri for update in updates])
    )


def ties(deltas: Sequence[Tensor], density: float) -> Tensor:
    """Return TIES (Yadav et al. 2023): trim updates, elect signs by mass, average what agrees.

    Trimmed layer by layer, as peft does; the paper trims the whole update at once [inferred].
    """
    trimmed_deltas = torch.stack([trimmed(delta, density) for delta in deltas])
    sign = torch.sign(trimmed_deltas.sum(0))
    sign = torch.where(sign == 0, 1.0, sign)
    agree = (torch.sign(trimmed_deltas) == sign) & (trimmed_deltas != 0)
    return (trimmed_deltas * agree).sum(0) / agree.sum(0).clamp(min=1)


def trimmed(delta: Tensor, density: float) -> Tensor:
    """Keep the share `density` of largest-magnitude entries, zero elsewhere."""
    count = max(1, int(density * delta.numel()))
    flat = torch.zeros_like(delta).flatten()
    indices = delta.abs().flatten().topk(count).indices
    flat[indices] = delta.flatten()[indices]
    return flat.view_as(delta)


def dare(deltas: Sequence[Tensor], drop: float, seeds: Sequence[int]) -> Tensor:
    """Return DARE (Yu et al. 2024): sum of updates, randomly dropped and rescaled."""
    rescaled_deltas = []
    for delta, seed in zip(deltas, seeds, strict=True):
        mask = torch.rand(delta.shape, generator=torch.Generator().manual_seed(seed)) >= drop
        rescaled_deltas.append(delta * mask.to(delta.device) / (1 - drop))
    return torch.stack(rescaled_deltas).sum(0)


def factorised(delta_oi: Tensor, rank: int = 0) -> Factors:
    """Return the best factors of this rank, 0 = all directions above numerical zero."""
    u, s, vh = svd(delta_oi.float(), full_matrices=False)
    count = max(1, int((s > SMALL * s[0]).sum()))
    count = min(count, rank) if rank else count
    root = s[:count].sqrt()
    return Factors(u[:, :count] * root, root[:, None] * vh[:count])


def mcu(updates: Sequence[Factors]) -> Factors:
    """Merge in a shared core space with decorrelated conflicting directions.

    Our reconstruction of arXiv 2608.04548.

    [inferred] throughout. Where the adapters span fewer dimensions than they have directions, the core space is widened by
    orthogonal ones, without which no directions could have the new Gram matrix.
    """
    b_oc = torch.cat([update.b_or for update in updates], 1).double()
    a_ci = torch.cat([update.a_ri for update in updates]).double()
    p_od, q_id = basis(b_oc), basis(a_ci.T)
    rank_limit = min(p_od.shape[0], q_id.shape[0]) // len(updates)
    cores = [p_od.T @ update.delta_oi.double() @ q_id for update in updates]
    parts = [_directions(core, ENERGY, min(DIRECTIONS, max(1, rank_limit))) for core in cores]
    left_dk, s_k = torch.cat([u for u, _, _ in parts], 1), torch.cat([s for _, s, _ in parts])
    right_dk = torch.cat([v for _, _, v in parts], 1)
    owner_k = torch.cat([torch.full((len(s),), number) for number, (_, s, _) in enumerate(parts)])
    left_dk, right_dk = _damped(left_dk, s_k, CAPACITY), _damped(right_dk, s_k, CAPACITY)
    p_od, left_dk = _widened(p_od, left_dk)
    q_id, right_dk = _widened(q_id, right_dk)
    left_gram, right_gram = _grams(left_dk, right_dk, owner_k, SYNERGY)
    left_dk, right_dk = nearest_with_gram(left_dk, left_gram), nearest_with_gram(right_dk, right_gram)
    dtype = updates[0].b_or.dtype
    return Factors((p_od @ left_dk * s_k).to(dtype), (q_id @ right_dk).T.contiguous().to(dtype))


def basis(columns: Tensor) -> Tensor:
    """Return an orthonormal basis of the span of the columns."""
    u, s, _ = svd(columns, full_matrices=False)
    return u[:, s > SMALL * s[0].clamp(min=SMALL)]


def _directions(core: Tensor, energy: float, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading singular directions (columns) with this share of the energy."""
    u, s, vh = svd(core, full_matrices=False)
    share = (s**2).cumsum(0) / (s**2).sum().clamp(min=torch.finfo(s.dtype).tiny)
    count = min(limit, int((share < energy - 1e-9).sum()) + 1, int((s > SMALL * s[0]).sum()) or 1)
    return u[:, :count], s[:count], vh[:count].T


def _damped(columns_dk: Tensor, s_k: Tensor, capacity: float) -> Tensor:
    """Scale down coordinates with too much of the adapters' energy, and renormalise (step 3)."""
    load_d = (columns_dk**2 * s_k).sum(1)
    limit = capacity * load_d.median()
    factor_d = torch.where((load_d > limit) & (limit > 0), (limit / load_d.clamp(min=SMALL)).sqrt(), 1.0)
    scaled = columns_dk * factor_d[:, None]
    return scaled / scaled.norm(dim=0).clamp(min=SMALL)


def _grams(left_dk: Tensor, right_dk: Tensor, owner_k: Tensor, synergy: float) -> tuple[Tensor, Tensor]:
    """Return the target Gram matrices of the directions (step 4).

    (u, v) and (-u, -v) are one direction, so only the product of both entries tells agreement (>= 0: damped by `synergy`)
    from conflict (< 0: both entries become 0). Then made positive definite, with unit diagonal.
    """
    left, right = left_dk.T @ left_dk, right_dk.T @ right_dk
    across = owner_k[:, None] != owner_k[None, :]
    factor = torch.where(across, torch.where(left * right < -1e-12, 0.0, synergy), 1.0).to(left.dtype)
    return _definite(left * factor), _definite(right * factor)


def _definite(gram: Tensor) -> Tensor:
    values, vectors = eigh(gram)
    definite = (vectors * values.clamp(min=LEAST_EIGENVALUE)) @ vectors.T
    norms = definite.diagonal().sqrt()
    return definite / norms[:, None] / norms[None, :]


def nearest_with_gram(columns_dk: Tensor, gram_kk: Tensor) -> Tensor:
    """Return argmin ||S - columns|| over all S with S^T S = gram (step 5).

    An orthogonal Procrustes problem; needs d >= k.
    """
    values, vectors = eigh(gram_kk)
    gram_root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    u, _, vh = svd(columns_dk @ gram_root, full_matrices=False)
    return u @ vh @ gram_root


def _widened(basis_nd: Tensor, columns_dk: Tensor) -> tuple[Tensor, Tensor]:
    """Extend a basis with orthogonal dimensions until it has one per direction."""
    size, dimensions = basis_nd.shape
    missing = min(size, columns_dk.shape[1]) - dimensions
    if missing <= 0:
        return basis_nd, columns_dk
    noise = torch.randn(size, missing, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = noise.to(basis_nd.device) - basis_nd @ (basis_nd.T @ noise.to(basis_nd.device))
    wide_basis = torch.cat([basis_nd, qr(noise)[0]], 1)
    return wide_basis, torch.cat([columns_dk, columns_dk.new_zeros(missing, columns_dk.shape[1])])


def read_adapter(folder: Path) -> dict[str, Factors]:
    """Read a LoRA adapter saved by PEFT."""
    config = read_object(folder / CONFIG)
    if config.get("peft_type") != "LORA" or config.get("use_rslora") or config.get("use_dora"):
        raise UserError(f"{folder} holds no plain LoRA adapter; only these can be merged.")
    scale = config["lora_alpha"] / config["r"]
    weights = load_file(folder / WEIGHTS)
    layers = sorted({name.partition(".lora_")[0] for name in weights})
    return {
        layer: Factors(scale * weights[f"{layer}.lora_B.weight"].float(), weights[f"{layer}.lora_A.weight"].float())
        for layer in layers
    }


def write_adapter(adapter: Adapter, folder: Path, like: Path) -> int:
    """Write an adapter for PEFT, with the other files of `like`, and return its rank.

    Layers of lower rank than the highest are filled with zeros.
    """
    rank = max(update.a_ri.shape[0] for update in adapter.values())
    folder.mkdir(parents=True, exist_ok=True)
    for file in like.iterdir():
        if file.is_file() and file.name not in (CONFIG, WEIGHTS, "README.md"):
            shutil.copy2(file, folder / file.name)
    weights = {}
    for layer, update in adapter.items():
        missing = rank - update.a_ri.shape[0]
        weights[f"{layer}.lora_A.weight"] = torch.nn.functional.pad(update.a_ri, (0, 0, 0, missing)).contiguous()
        weights[f"{layer}.lora_B.weight"] = torch.nn.functional.pad(update.b_or, (0, missing)).contiguous()
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    follow_umask(folder / WEIGHTS)
    config = read_object(like / CONFIG)
    atomic_write_json(folder / CONFIG, {**config, "r": rank, "lora_alpha": rank})
    return rank
