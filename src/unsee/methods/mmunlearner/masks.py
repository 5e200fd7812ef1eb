"""Binary weight masks, bit-packed in safetensors, applied to gradients with hooks.

After MMUnlearner (arXiv 2502.11051).

A weight is kept where D = F_T - gamma F_P > 0: its squared gradient on the forget set outweighs that on the retain set.
Bits are packed eight to a byte, little bit order, weights row by row; the last byte is padded with zeros.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import Module

from unsee.errors import UserError
from unsee.training.trainable import trainable
from unsee.utils.files import atomic_writer
from unsee.utils.grouping import by_key
from unsee.utils.seeds import seed_of

FORMAT: Final = "unsee mask 1"
FEW: Final = 0.01
MOST: Final = 0.95
"""Shares of kept weights outside of which a mask gets a warning."""
_SHOWN: Final = 3
"""Most names in an error."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Mask of one weight tensor."""

    bits: Tensor
    """Packed bits, uint8."""
    shape: tuple[int, ...]
    part: str
    """Part of the model it belongs to: vision, projector or language."""
    kept: int
    """Number of ones."""
    dead: int = 0
    """Weights without gradient (D = 0); never kept."""

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(torch.Size(self.shape).numel())


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Masks by parameter name, and their provenance."""

    entries: Mapping[str, Entry]
    facts: Mapping[str, Any]
    """Model hash, data hash, gamma, granularity, label rule, modules, seed, ..."""

    @classmethod
    def where_positive(
        cls, difference: Mapping[str, Tensor], parts: Mapping[str, str], facts: Mapping[str, Any]
    ) -> Self:
        """Return the mask m = 1[D > 0] (MMUnlearner, arXiv 2502.11051)."""
        return cls(entries={name: _entry(total, parts[name]) for name, total in difference.items()}, facts=facts)

    def shuffled(self, seed: int) -> Self:
        """Return a random mask with as many ones per tensor, as a control."""
        entries = {}
        for name, entry in self.entries.items():
            generator = torch.Generator().manual_seed(seed_of(seed, "random mask", name))
            kept_bits = torch.randperm(entry.size, generator=generator) < entry.kept
            entries[name] = replace(entry, bits=pack(kept_bits).to(entry.bits.device))
        return replace(self, entries=entries)

    @contextmanager
    def applied(self, model: Module) -> Iterator[None]:
        """Restrict gradients of backward passes in the block to kept weights.

        The gradient is exactly 0 at weights that are not kept and in trainable tensors that have no mask.
        """
        weights = trainable(model)
        self.require_match({name: tuple(weight.shape) for name, weight in weights.items()})
        with ExitStack() as hooks:
            for name, weight in weights.items():
                hooks.enter_context(weight.register_hook(self._hook(name, weight)))
            yield

    def require_match(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise if no mask matches these tensors, or if a shape differs."""
        shared_names = self.entries.keys() & shapes.keys()
        if not shared_names:
            raise UserError(
                f"The mask matches none of the {len(shapes)} trainable tensors. In the mask: {_first(self.entries)}; "
                f"trainable: {_first(shapes)}. Train the weights themselves (--tune full) in the parts that were masked."
            )
        for name in sorted(shared_names):
            _require_shape(name, self.entries[name].shape, shapes[name])

    def _hook(self, name: str, weight: Tensor) -> Callable[[Tensor], Tensor]:
        if name not in self.entries:
            return torch.zeros_like
        entry = self.entries[name]
        bits = entry.bits.to(weight.device)
        return lambda grad: grad.masked_fill(~unpack(bits, entry.shape), 0)

    def save(self, path: Path) -> None:
        """Write packed bits and facts atomically."""
        metadata = {"format": FORMAT, "facts": json.dumps(dict(self.facts)), "tensors": json.dumps(self._shares())}
        with atomic_writer(path) as stream:
            stream.write(save({name: entry.bits.cpu() for name, entry in self.entries.items()}, metadata))

    def _shares(self) -> dict[str, dict[str, Any]]:
        return {
            name: {
                "shape": list(entry.shape),
                "part": entry.part,
                "kept": entry.kept / entry.size,
                "dead": entry.dead / entry.size,
            }
            for name, entry in self.entries.items()
        }

    def report(self) -> dict[str, Any]:
        """Return the shares of kept and dead weights: overall, by part, by layer."""
        parts = {name: entry.part for name, entry in self.entries.items()}
        return {
            **_share(list(self.entries.values())),
            "modules": self._shares_by_group(parts),
            "layers": self._shares_by_group({name: _layer(name) for name in self.entries}),
        }

    def remarks(self) -> list[str]:
        """Return warnings: nearly nothing or nearly everything kept (docs/defects.md 45)."""
        remarks = []
        for part, share in self.report()["modules"].items():
            if share["kept"] < FEW or share["kept"] > MOST:
                remarks.append(
                    f"{share['kept']:.1%} of the weights of {part} are kept: gradients on what goes and on what stays are of "
                    "very different size. Another method.gamma, or more method.p_samples, may be needed."
                )
        return remarks

    def _shares_by_group(self, groups: Mapping[str, str]) -> dict[str, dict[str, float]]:
        grouped = by_key((groups[name], entry) for name, entry in self.entries.items())
        return {group: _share(entries) for group, entries in grouped.items()}


def pack(bits: Tensor) -> Tensor:
    """Return bits as bytes.

    >>> pack(torch.tensor([True, False, True, False, False, False, False, False, True])).tolist()
    [5, 1]
    """
    flat = bits.reshape(-1).to(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    return (padded << _places(flat)).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the bits of a tensor of this shape as booleans.

    >>> unpack(torch.tensor([5, 1], dtype=torch.uint8), (3, 3)).int().tolist()
    [[1, 0, 1], [0, 0, 0], [0, 0, 1]]
    """
    bits = (packed[:, None] >> _places(packed)) & 1
    return bits.view(-1)[: torch.Size(shape).numel()].view(shape).bool()


def count(packed: Tensor) -> int:
    """Return the number of ones in packed bits.

    >>> count(torch.tensor([255, 1], dtype=torch.uint8))
    9
    """
    pairs = packed - ((packed >> 1) & 0x55)
    fours = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return int(((fours + (fours >> 4)) & 0x0F).sum(dtype=torch.int64))


def agreement(mask: Mask, other: Mask) -> float:
    """Return the share of weights on which two masks of the same tensors agree."""
    unshared = sorted(mask.entries.keys() ^ other.entries.keys())
    if unshared:
        raise UserError(
            f"The two masks cover different tensors, e.g. {_first(unshared)}; compare masks of the same modules."
        )
    pairs = [(entry.bits, other.entries[name].bits.to(entry.bits.device)) for name, entry in mask.entries.items()]
    return 1 - sum(count(a ^ b) for a, b in pairs) / sum(entry.size for entry in mask.entries.values())


def load_mask(path: Path, model: Module, model_hash: str) -> Mask:
    """Read a mask for this model, or raise UserError unless hash, names and shapes match."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            bits = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"Cannot read the mask {path}: {error}. Delete the file to have it made again.") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} is no mask: its format is {metadata.get('format')!r}, expected {FORMAT!r}.")
    facts, tensors = json.loads(metadata["facts"]), json.loads(metadata["tensors"])
    if facts["model_hash"] != model_hash:
        raise UserError(
            f"The mask {path} was made for another model: hash {facts['model_hash'][:16]}, this one's is "
            f"{model_hash[:16]}. Make the mask anew from this model."
        )
    _require_names(path, bits.keys(), tensors.keys(), dict(model.named_parameters()))
    mask = Mask(entries={name: _read(bits[name], tensors[name]) for name in tensors}, facts=facts)
    _require_shapes(mask, model)
    return mask


def _require_names(path: Path, stored_names: Any, listed_names: Any, weights: Mapping[str, Tensor]) -> None:
    """Raise unless the file's tensors are those it lists, and all belong to the model."""
    unknown = sorted((stored_names ^ listed_names) | (stored_names - weights.keys()))
    if unknown:
        raise UserError(
            f"The mask {path} does not fit this model: {len(unknown)} names are unknown: {_first(unknown)}. "
            f"The model has {_first(weights)}."
        )


def _read(bits: Tensor, record: Mapping[str, Any]) -> Entry:
    entry = Entry(bits=bits, shape=tuple(record["shape"]), part=record["part"], kept=count(bits))
    return replace(entry, dead=round(record["dead"] * entry.size))


def _require_shapes(mask: Mask, model: Module) -> None:
    """Raise if a mask's shape differs from its weight's."""
    weights = dict(model.named_parameters())
    for name, entry in mask.entries.items():
        _require_shape(name, entry.shape, tuple(weights[name].shape))
        if len(entry.bits) != -(-entry.size // 8):
            raise UserError(f"The mask of {name} has {len(entry.bits)} bytes, expected {-(-entry.size // 8)}.")


def _require_shape(name: str, masked: tuple[int, ...], actual: tuple[int, ...]) -> None:
    if masked != actual:
        raise UserError(f"The mask of {name} has shape {masked}, the weight has {actual}: made for another model.")


def _entry(difference: Tensor, part: str) -> Entry:
    bits = pack(difference > 0)
    dead = int((difference == 0).sum())
    return Entry(bits=bits, shape=tuple(difference.shape), part=part, kept=count(bits), dead=dead)


def _share(entries: list[Entry]) -> dict[str, float]:
    size = sum(entry.size for entry in entries)
    kept_count, dead_count = (sum(entry.kept for entry in entries), sum(entry.dead for entry in entries))
    return {"kept": round(kept_count / size, 6), "dead": round(dead_count / size, 6), "weights": size}


def _layer(name: str) -> str:
    """Return the name up to its first number (`a.layers.0`), or the module without one."""
    match = re.match(r".*?\.\d+(?=\.)", name)
    return match[0] if match else name.rpartition(".")[0]


def _places(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)


def _first(names: Any) -> str:
    return ", ".join(sorted(names)[:_SHOWN]) or "none"
