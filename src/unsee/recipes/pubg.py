"""PUBG and baselines on LLaVA-1.6, for a folder of public figures (arXiv 2506.02541).

The paper names models, the five and more methods, and that all of them forget fully; nearly every number is ours.

| setting | value | mark |
|---|---|---|
| models `llava-hf/llava-v1.6-mistral-7b-hf`, `llava-hf/llava-v1.6-vicuna-7b-hf` | | [second-hand], ids [inferred] |
| both terms in every batch, one query, no retain term | | [second-hand] |
| LoRA on the language model, rank 8, alpha 16 | | [inferred] |
| learning rate, batch, clipping, linear decay | 1e-4, 4, 1.0 | [inferred] |
| at most 10 epochs, stop when no seen image gives its name away | | [inferred] |
| NPO beta | 0.1 | [inferred] |
| REJECT: rate, epochs, batch, cosine, warm-up | 3e-5, 3, 8, 20 steps | [code] RWKU |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from unsee.config import Run
from unsee.errors import UserError

Method = Literal["pubg", "ga", "npo", "random", "reject", "prompt", "bg_only"]

TRAINING: Final[Mapping[str, Any]] = {
    "tune": "lora", "parts": ("language",), "rank": 8, "alpha": 16, "lr": 1e-4, "epochs": 10, "batch_size": 4,
    "clip": 1.0, "scheduler": "linear", "precision": "bf16", "stop": "forgotten",
}  # fmt: skip
REJECT: Final[Mapping[str, Any]] = {
    "lr": 3e-5, "epochs": 3, "batch_size": 8, "scheduler": "cosine", "warmup_steps": 20, "stop": "never",
}  # fmt: skip


def pubg(*, model: str, data: str, out: str, method: Method = "pubg", retain_weight: float = 0.0, seed: int = 0) -> Run:
    """Return the run of one method.

    Args:
        model: Folder or hub id of the original model.
        data: Folder of the data set.
        out: Run folder.
        method: PUBG, its guidance term alone, or one of the baselines.
        retain_weight: Weight of the cross-entropy on retain answers, which the paper lacks; 0 = none.
        seed: Start of every random stream.

    Raises:
        UserError: `retain_weight` is given for a method without a retain term.
    """
    if retain_weight and method in ("ga", "prompt"):
        raise UserError(
            f"recipe.retain_weight={retain_weight:g} has no effect: {method} has no retain term. Leave it out."
        )
    retain = {"retain_weight": retain_weight} if retain_weight else {}
    beta = {"beta": 0.1} if method == "npo" else {}
    queries = {"queries": "open"} if method in ("pubg", "bg_only") else {}
    return Run(
        model=model,
        data=data,
        method=method,
        out=out,
        seed=seed,
        settings={**beta, **queries, **retain},
        training={**TRAINING, **(REJECT if method == "reject" else {})},
    )
