"""MMUBench with SIU and baselines on LLaVA-1.5-7B or 13B (arXiv 2405.12523).

One image and six steps per concept.

| setting | value | mark |
|---|---|---|
| steps per concept, batch, learning rate | 6, 4, 3e-4 | [second-hand], the rate also [code] |
| LoRA rank and alpha, cosine | 128, 256 | [code] |
| alpha and beta of the loss, 4 rows a target | 0.9, 0.75 | [second-hand] |
| projector trained too, at the rate of the rest (release: in full at 2e-5) | | [code], rate [inferred] |
| warm-up 0.03 of 6 steps | 0 steps | [inferred] |
| substitute Jacob Campbell for the released concept | | [code] |
| baselines: the same training, GA and GA+KL on GA.json, PO on refusals of ours | 7 steps, that is 25 rows x 2 epochs in batches of 8 | [code], refusals [inferred] |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from unsee.config import Run
from unsee.errors import UserError

Method = Literal["siu", "ga", "ga_kl", "po"]
_AS: Final[Mapping[Method, str]] = {"siu": "siu", "ga": "ga", "ga_kl": "kl", "po": "reject"}

TRAINING: Final[Mapping[str, Any]] = {
    "tune": "lora", "parts": ("language", "projector"), "rank": 128, "alpha": 256, "lr": 3e-4, "batch_size": 4,
    "scheduler": "cosine", "precision": "bf16", "stop": "never",
}  # fmt: skip
BASELINE_STEPS: Final = 7
CONCEPT: Final = "donald trump"
TAKEN_FOR: Final = "Jacob Campbell"


def mmubench(
    *,
    model: str,
    data: str,
    out: str,
    method: Method = "siu",
    concept: str = CONCEPT,
    taken_for: str = TAKEN_FOR,
    mode: Literal["paper", "as_released"] = "paper",
    seed: int = 0,
) -> Run:
    """Return the run of one method.

    Args:
        model: Folder or hub id of the original model.
        data: Folder of the data set.
        out: Run folder.
        method: SIU, or one of the baselines.
        concept: For SIU: entity to forget that `taken_for` stands in for, as the data name it.
        taken_for: For SIU: substitute name of the concept; empty = a generated one.
        mode: SIU's loss as in the paper, or as in the published code.
        seed: Start of every random stream.

    Raises:
        UserError: An option of SIU is given for a baseline, or a concept without a substitute.
    """
    options_of_siu = {"concept": (concept, CONCEPT), "taken_for": (taken_for, TAKEN_FOR), "mode": (mode, "paper")}
    for name, (value, default) in options_of_siu.items():
        if method != "siu" and value != default:
            raise UserError(f"recipe.{name}={value} has no effect: {method} has no such setting. Leave it out.")
    if concept != CONCEPT and not taken_for:
        raise UserError(
            f"recipe.concept={concept} has no effect: recipe.taken_for is empty, so that every substitute is generated. Leave one out."
        )
    siu_settings = {"mode": mode, **({"substitutes": {concept: taken_for}} if taken_for else {})}
    step_settings = {} if method == "siu" else {"max_steps": BASELINE_STEPS, "epochs": BASELINE_STEPS, "accumulate": 2}
    row_settings = {"forget_rows": "ga"} if method in ("ga", "ga_kl") else {}
    return Run(
        model=model,
        data=data,
        benchmark={"name": "mmubench", **row_settings},
        method=_AS[method],
        out=out,
        seed=seed,
        settings=siu_settings if method == "siu" else {},
        training={**TRAINING, **step_settings},
    )
