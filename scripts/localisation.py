"""Say how well a saliency mask finds facts that lie in known weights: `python scripts/localisation.py runs/localisation`.

The five people whom `lab-gold` never met are taught to it with the gradient of all other weights held at 0 (masked injection, after
arXiv 2607.02513 [second-hand]; places and recipe are ours), so where the facts are is known exactly: nowhere but in the weights that
could change. MMUnlearner's mask of the taught model (arXiv 2502.11051) is then held against these. A call goes on where an earlier one
ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import Module

from unsee import forget
from unsee.lab.recipe.curriculum import Amount, Curriculum
from unsee.lab.recipe.recipe import Packer, features, flat_then_linear, language_loss, render
from unsee.lab.world.people import stream
from unsee.lab.world.world import World
from unsee.methods.mmunlearner.masks import Mask, load_mask, unpack
from unsee.models.builtin import checkpoint
from unsee.models.checkpoint import open_model
from unsee.training.precision import denormals_flushed
from unsee.utils.seeds import seed_of
from unsee.workflows.train_lab import examine, save

STEPS: Final = 150
ROWS: Final = (12, 2, 1, 1, 5)
"""People, strangers, shapes, devices and text-only rows of a step."""
LR: Final = 3e-3
GAMMAS: Final = (0.5, 1.0, 2.0, 8.0, 32.0)
"""Thresholds of the mask: those that the authors searched, and larger ones, which keep less."""
MATRICES: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Where = Callable[[str, Tensor], Tensor]


def scattered(name: str, weight: Tensor) -> Tensor:
    """Choose a tenth of every matrix, drawn."""
    drawn = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed_of(0, "localisation", name)))
    return drawn < 0.1


def second_layer(name: str, weight: Tensor) -> Tensor:
    """Choose all matrices of the second decoder layer."""
    return torch.full(weight.shape, ".layers.1." in name)


def last_mlps(name: str, weight: Tensor) -> Tensor:
    """Choose the MLPs of the last two decoder layers."""
    return torch.full(weight.shape, ".mlp." in name and (".layers.2." in name or ".layers.3." in name))


PLACES: Final[Mapping[str, Where]] = {"scattered": scattered, "second layer": second_layer, "last MLPs": last_mlps}


class NewPeople(Curriculum):
    """Lessons in which every second portrait shows somebody whom the model has not met."""

    def portraits(self, rng: Any, count: int) -> list[int]:
        """Draw pictures of known people, every second one of a forget entity."""
        drawn, size = super().portraits(rng, count), self.amount.per_person
        chosen = {person.id for person in self.world.forget}
        new = [place for place, person in enumerate(self.people) if person.id in chosen]
        drawn[::2] = [new[int(rng.integers(len(new)))] * size + index % size for index in drawn[::2]]
        return drawn


def matrices(model: Module) -> dict[str, torch.nn.Parameter]:
    """Return the matrices of the language model, by name."""
    return {
        name: weight
        for name, weight in model.named_parameters()
        if "language_model" in name and name.split(".")[-2] in MATRICES
    }


def inject(out: Path, where: Where) -> None:
    """Teach the forget entities to `lab-gold` in the chosen weights alone, grade it, and save it."""
    world = World()
    vlm = open_model(checkpoint("lab-gold"), dtype="float32")
    model, curriculum = (
        vlm.model,
        NewPeople(world, world.people, Amount(per_person=60, strangers=600, shapes=200, devices=90)),
    )
    model.requires_grad_(False)
    weights = matrices(model)
    for name, weight in weights.items():
        weight.requires_grad_(True).register_hook(where(name, weight).mul)
    feature_npd, packer = features(model, render(curriculum.pictures)), Packer(vlm.processor, 16)
    adam = torch.optim.AdamW(weights.values(), lr=LR, betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(STEPS):
        groups = packer.groups(curriculum.rows(stream(0, "localisation", step), ROWS), 3)
        total = sum(float(group.weight_bt.sum()) for group in groups)
        losses = [language_loss(model, group, feature_npd, packer.image_id) / total for group in groups]
        sum(losses[1:], losses[0]).backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        for group in adam.param_groups:
            group["lr"] = LR * flat_then_linear(step, STEPS, flat=0.5, warmup=10)
        adam.step()
        adam.zero_grad(set_to_none=True)
        print(f"{out.name}: step {step + 1} of {STEPS}, loss {sum(map(float, losses)):.3f}", file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    save(model.eval(), vlm.processor, out, world)


def mask_of(model: Path, out: Path, gamma: float) -> Mask:
    """Return MMUnlearner's mask of a model, as its runs make it."""
    training = {"tune": "full", "parts": ["language"], "max_steps": 1, "stop": "never"}
    run = Path(out)
    if not (run / "run.yaml").exists():
        forget(model, "lab", "mmunlearner", run, settings={"gamma": gamma, "tolerance": 0.0}, training=training)
    (file,) = (one for one in run.parent.rglob("masks/*.safetensors") if _gamma(one) == gamma)
    opened = open_model(model, dtype="float32").model
    return load_mask(file, opened, _facts(file)["model_hash"])


def _facts(file: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        facts: dict[str, Any] = json.loads(opened.metadata()["facts"])
    return facts


def _gamma(file: Path) -> float:
    return float(_facts(file)["gamma"])


def precision_and_recall(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float, float]:
    """Return precision, recall and share kept over pairs (found, true) of boolean tensors of one shape."""
    both = found = true = size = 0
    for one, other in pairs:
        both, found, true, size = (
            both + int((one & other).sum()),
            found + int(one.sum()),
            true + int(other.sum()),
            size + one.numel(),
        )
    return both / max(found, 1), both / max(true, 1), found / size


def table(out: Path) -> str:
    """Make what is missing, and return the table."""
    lines = [
        "| facts in | share of the weights | names, facts of the five told | gamma | kept | precision | recall |",
        "|---|---|---|---|---|---|---|",
    ]
    for place, where in PLACES.items():
        folder = out / place.replace(" ", "-")
        if not (folder / "taught" / "config.json").is_file():
            with denormals_flushed():
                inject(folder / "taught", where)
        grades = folder / "grades.json"
        if not grades.is_file():
            world = World()
            told = examine(folder / "taught", world, people=world.forget)
            grades.write_text(json.dumps(told), encoding="utf-8")
        told = json.loads(grades.read_text(encoding="utf-8"))
        for gamma in GAMMAS:
            mask = mask_of(folder / "taught", folder / f"gamma-{gamma}", gamma)
            true = {name: where(name, torch.empty(entry.shape)) for name, entry in mask.entries.items()}
            share = sum(int(one.sum()) for one in true.values()) / sum(one.numel() for one in true.values())
            precision, recall, kept = precision_and_recall(
                (unpack(entry.bits, entry.shape), true[name]) for name, entry in mask.entries.items()
            )
            known = f"{told['name']['right']:.2f}, {told['fact']['right']:.2f}"
            lines.append(
                f"| {place} | {share:.3f} | {known} | {gamma:g} | {kept:.3f} | {precision:.3f} | {recall:.3f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    print(table(parser.parse_args().out))
