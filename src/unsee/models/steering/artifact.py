"""Steering artefact: directions and rule, saved as `rmuse.safetensors` and `rmuse.json`.

It holds, per decoder layer, what R-MUSE (arXiv 2512.17911) computes offline, and the rule by which it acts.
Shapes: b rows, c columns of a pass, d width of the model, k rank, n states, p products.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import normalize

from unsee.errors import UserError
from unsee.models.location import STEERING
from unsee.models.steering.geometry import BORDER, arc, aside, karcher_mean, outside, share_inside, turned
from unsee.utils.files import atomic_write_json, follow_umask
from unsee.utils.parsing import read_object

LEAST_NORM: Final = 1e-3
"""Directions with a smaller norm outside the reasoning subspace are not used (docs/published.md, step 5) [inferred]."""

Gate = Literal["below", "above", "always", "off"]
Update = Literal["slerp", "additive"]
Score = Literal["reasoning", "contrast"]
Where = Literal["generated", "last_prompt_and_generated", "all"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When, where and how strongly to steer."""

    layers: tuple[int, ...]
    """Decoder layers whose output is steered, counted from 0."""
    scoring_layer: int
    """Decoder layer of the gate's score."""
    gate: Gate = "below"
    """Steer requests whose score is below tau (the formula), above it, all, or none."""
    score: Score = "reasoning"
    """reasoning = share of the state in the reasoning-retain subspace; contrast = along the forget-retain discriminant."""
    tau: float = 0.75
    """Threshold of the gate."""
    update: Update = "slerp"
    """slerp = adaptive calibration steering; additive = the plain protected update, renormalised (the ablation)."""
    strength: float = 1.0
    """Factor of the additive update."""
    max_rotation_deg: float = 180.0
    """Largest rotation of a state."""
    apply_to: Where = "generated"
    """Tokens whose states are steered."""
    protect: bool = True
    """Keep the update out of the reasoning-retain subspace."""

    def __post_init__(self) -> None:
        """Reject settings that are impossible in one pass."""
        if not self.layers or not 0 < self.max_rotation_deg <= 180:
            raise UserError(
                f"Steering needs layers and 0 < max_rotation_deg <= 180, got {self.layers} and {self.max_rotation_deg}."
            )
        if self.apply_to == "all" and self.gate not in ("always", "off"):
            raise UserError(
                "apply_to=all turns prompt tokens too, before the prompt's end could decide the gate: set gate=always, "
                "or apply_to=generated."
            )


@dataclass(frozen=True, kw_only=True)
class Directions:
    """Directions of one layer.

    Unlearning directions exist once for text-only requests and once for those with an image.
    """

    un_text: Tensor
    """Orthonormal unlearning directions, d x k."""
    un_mm: Tensor
    """The same for questions with images."""
    rrs: Tensor
    """Orthonormal basis of the reasoning-retain subspace, d x k."""
    v_text: Tensor
    """Main unlearning direction, pointing towards refusal."""
    v_mm: Tensor
    """The same for questions with images."""
    mu_text: Tensor
    """Unit states of ideal refusals, n x d."""
    mu_mm: Tensor
    """The same for questions with images."""
    contrast: Tensor
    """Discriminant between prompt ends of forget and retain questions."""

    def scores(self, ends: Tensor, score: Score) -> Tensor:
        """Return the gate's score of states at prompt ends, last axis d."""
        if score == "contrast":
            return ends.float() @ self.contrast.to(ends.device)
        return share_inside(ends.float(), self.rrs.to(ends.device))


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """Rule and directions that steer a model."""

    rule: Rule
    directions: Mapping[int, Directions]
    """Layer -> its directions, with those of the scoring layer."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Provenance: model and data hashes, settings, templates; not needed to steer."""

    @property
    def hash(self) -> str:
        """Hash of everything that affects a response."""
        digest = hashlib.sha256(json.dumps(asdict(self.rule), sort_keys=True).encode())
        for name, tensor in sorted(_flat(self.directions).items()):
            digest.update(name.encode())
            digest.update(tensor.float().contiguous().numpy().tobytes())
        return digest.hexdigest()


def fires(scores: Tensor, gate: Gate, tau: float) -> Tensor:
    """Return which requests are steered."""
    if gate in ("always", "off"):
        return torch.full_like(scores, gate == "always", dtype=torch.bool)
    return scores < tau if gate == "below" else scores > tau


@dataclass(frozen=True)
class Frame:
    """Precomputed update of one layer. Axis 0 is text-only (0) or with image (1)."""

    pair_2dp: Tensor
    """Columns: the protected direction and the target z* (slerp), or the main direction alone (additive)."""
    towards_21d: Tensor
    """Protected direction, slightly perturbed so that no state is exactly opposite; its raw projection (additive)."""
    able: tuple[bool, bool]
    """Whether enough of the direction lies outside the reasoning subspace."""

    @classmethod
    def of(cls, directions: Directions, rule: Rule, device: torch.device) -> Frame:
        """Precompute the update of a layer."""
        vectors = [v.float() for v in (directions.v_text, directions.v_mm)]
        protected = [outside(v, directions.rrs.float()) for v in vectors] if rule.protect else vectors
        able = tuple(bool(p.norm() >= LEAST_NORM) for p in protected)
        if rule.update == "additive":
            pairs = [v[:, None] for v in vectors]
            towards = protected
        else:
            units = [normalize(p, dim=0) for p in protected]
            targets = [karcher_mean(mu.float()) for mu in (directions.mu_text, directions.mu_mm)]
            pairs = [torch.stack([v, z], dim=1) for v, z in zip(units, targets, strict=True)]
            towards = [v + BORDER * aside(v) for v in units]
        return cls(torch.stack(pairs).to(device), torch.stack(towards)[:, None].to(device), (able[0], able[1]))


def steer(states: Tensor, frame: Frame, kind: int | Tensor, rule: Rule) -> tuple[Tensor, Tensor | None]:
    """Return the steered states [b, c, d], norms kept, and the angles (none for additive).

    lambda * theta_dir of the paper is min(theta_dir, theta_tar): a state is turned as far as it is from the target z*, but
    not beyond the direction itself.

    Args:
        states: Hidden states of one layer, b rows of c tokens.
        frame: Precomputed update of that layer.
        kind: 0 for text-only requests, 1 for those with an image, or one of them per row.
        rule: Kind of update, its strength and its largest angle.
    """
    states_bcd = states.float()
    norm_bc1 = vector_norm(states_bcd, dim=-1, keepdim=True)
    pair, towards, angle_bc1 = frame.pair_2dp[kind], frame.towards_21d[kind], None
    if rule.update == "additive":
        moved_bcd = states_bcd + rule.strength * (states_bcd @ pair) * towards
    else:
        unit_bcd = states_bcd / norm_bc1.clamp(min=BORDER)
        cosines_bcp = unit_bcd @ pair
        angle_bc1 = arc(cosines_bcp).amin(-1, keepdim=True).clamp(max=math.radians(rule.max_rotation_deg))
        moved_bcd = turned(unit_bcd, towards, cosines_bcp[..., :1], angle_bc1)
    scale_bc1 = norm_bc1 / vector_norm(moved_bcd, dim=-1, keepdim=True).clamp(min=BORDER)  # padding may have none
    return (moved_bcd * scale_bc1).to(states.dtype), angle_bc1


def save(artefact: Artefact, folder: Path, name: str = STEERING) -> None:
    """Write `<name>.safetensors` and `<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: tensor.float().contiguous() for key, tensor in _flat(artefact.directions).items()}
    save_file(tensors, folder / f"{name}.safetensors")
    follow_umask(folder / f"{name}.safetensors")
    facts = {**artefact.facts, "rule": asdict(artefact.rule), "hash": artefact.hash}
    atomic_write_json(folder / f"{name}.json", facts)


def load(folder: Path, name: str = STEERING) -> Artefact:
    """Read what `save` wrote."""
    try:
        facts = read_object(folder / f"{name}.json")
        tensors = load_file(folder / f"{name}.safetensors")
        rule = Rule(**{**facts["rule"], "layers": tuple(facts["rule"]["layers"])})
        artefact = Artefact(rule=rule, directions=_directions_by_layer(tensors), facts=facts)
        saved_hash = facts["hash"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder / name}.json and .safetensors are no steering artefact: {error!r}") from error
    if artefact.hash != saved_hash:
        raise UserError(
            f"{folder / name}.safetensors does not belong to {name}.json beside it; copy both from the run."
        )
    return artefact


def _flat(directions: Mapping[int, Directions]) -> dict[str, Tensor]:
    return {
        f"layers.{layer}.{key}": tensor
        for layer, layer_directions in directions.items()
        for key, tensor in vars(layer_directions).items()
    }


def _directions_by_layer(tensors: Mapping[str, Tensor]) -> dict[int, Directions]:
    by_layer: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        _, layer, part = key.split(".")
        by_layer.setdefault(int(layer), {})[part] = tensor
    return {layer: Directions(**parts) for layer, parts in by_layer.items()}
