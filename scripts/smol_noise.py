"""Print how many world questions the base of `lab-smol` still answers once its weights change a little, and `lab-smol` itself.

    python scripts/smol_noise.py      # make smol; 10 minutes of one core

The questions were chosen because the base answers them, some of them by chance. So any change loses a few, which says how far
the share of a trained model can be its training's fault. The last line counts only what the base answers whatever changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch import Tensor

from unsee.api import VLM
from unsee.api.request import Prompt
from unsee.inference.generation import generate
from unsee.lab.smol import general
from unsee.lab.smol.grades import right
from unsee.models import builtin, smollm2
from unsee.models.checkpoint import open_model
from unsee.models.families.llava import Llava

LENGTH: Final = 40
"""Tokens of an answer, as when the questions were frozen."""


def bf16(weight: Tensor) -> Tensor:
    """Round to bf16."""
    return weight.bfloat16().float()


def int8(weight: Tensor) -> Tensor:
    """Round to int8 with a scale per row."""
    scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-9) / 127
    return (weight / scale).round() * scale


def noisy(weight: Tensor, generator: torch.Generator, share: float = 0.01) -> Tensor:
    """Add Gaussian noise of this share of the standard deviation."""
    return weight + torch.randn(weight.shape, generator=generator) * weight.std() * share


def base(changed: Callable[[Tensor], Tensor]) -> VLM:
    """Return the base with changed matrices of the language model."""
    model, processor = smollm2.build(builtin.checkpoint(builtin.TOWER))
    with torch.no_grad():
        for weight in model.model.language_model.parameters():
            if weight.dim() == 2:
                weight.copy_(changed(weight))
    return VLM(model=model.eval(), processor=processor, family=Llava())


def answered(vlm: VLM) -> set[str]:
    """Return the ids of the questions that a model answers."""
    rows = general.eval_questions()
    answers = generate(vlm, [Prompt(row.question) for row in rows], max_new_tokens=LENGTH)
    return {row.id for row, answer in zip(rows, answers, strict=True) if right(row, answer.text)}


def say(name: str, count: int, of: int) -> None:
    """Print a share as soon as it is known."""
    sys.stdout.write(f"{name:44} {count / of:.3f} of {of}\n")
    sys.stdout.flush()


def main() -> None:
    """Print a line for each model."""
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "base": lambda weight: weight,
        "base in bf16": bf16,
        "base in int8": int8,
    }
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        changes[f"base with 1 % of noise, seed {seed}"] = partial(noisy, generator=generator)
    steady = {row.id for row in general.eval_questions()}
    count = len(steady)
    for name, changed in changes.items():
        kept = answered(base(changed))
        say(name, len(kept), count)
        steady &= kept
    kept = answered(open_model("lab-smol"))
    say("lab-smol", len(kept), count)
    say("lab-smol, of what all of these answer", len(kept & steady), len(steady))


if __name__ == "__main__":
    main()
