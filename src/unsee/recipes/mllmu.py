"""MLLMU-Bench 5, 10 or 15 %, with MMUnlearner and baselines (arXiv 2502.11051).

On LLaVA-1.5-7B or Qwen2.5-VL-7B.

The original model must know the people: `MLLMMU/LLaVA_Vanilla` or one tuned on `ft_Data`. Published runs are with LLaVA-1.5-7B and
Qwen2-VL-7B; Qwen2.5-VL gets the settings of Qwen2-VL [inferred].

| setting | value | mark |
|---|---|---|
| learning rate, batch, epochs | 1e-5, 4, 1 | [code] README of Z1zs/MMUnlearner |
| MMUnlearner: mask | language, gamma 1, alpha 1 | [code] |
| MMUnlearner: trained | all weights; the release has LoRA on LLaVA, where its mask matches nothing | [code] Qwen, [inferred] LLaVA |
| baselines: LoRA | rank 16, alpha 16, dropout 0.05, vision, projector and language | [code] |
| clipping 1.0, linear to 0, retain batch for each forget batch, NPO beta 0.1 | | [inferred] |
| `mode: as_released` | constant rate but GA's, no clipping but MMUnlearner's, whose mask has seen the judged questions, NPO beta 0.4 | [code] |
| `mode: as_released`, baselines: losses, labels and NPO's reference | those of this library, not the published ones | [inferred] |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from unsee.config import Run
from unsee.errors import UserError

Method = Literal["mmunlearner", "ga", "grad_diff", "kl", "npo"]
Family = Literal["llava", "qwen"]

PARTS: Final = ("vision", "projector", "language")
COMMON: Final[Mapping[str, Any]] = {
    "parts": PARTS, "lr": 1e-5, "epochs": 1, "batch_size": 4, "clip": 1.0, "scheduler": "linear", "stop": "never",
}  # fmt: skip
FULL: Final[Mapping[str, Any]] = {"tune": "full", "precision": "bf16", "gradient_checkpointing": True}
LORA: Final[Mapping[str, Any]] = {"tune": "lora", "rank": 16, "alpha": 16, "dropout": 0.05}


def mllmu(
    *,
    model: str,
    data: str,
    out: str,
    ratio: Literal[5, 10, 15] = 5,
    method: Method = "mmunlearner",
    family: Family = "llava",
    mode: Literal["fixed", "as_released"] = "fixed",
    seed: int = 0,
) -> Run:
    """Return the run of one method at one ratio.

    Args:
        model: Folder or hub id of the original model.
        data: Folder of the data set.
        out: Run folder.
        ratio: Percentage of the people to forget.
        method: MMUnlearner, or one of the baselines.
        family: Kind of the model. It counts for MMUnlearner as released alone, which trains LLaVA and Qwen differently.
        mode: as_released keeps what looks like mistakes in the published code (table above); of the baselines schedule, clipping
            and beta only, so that their figures are not the published ones.
        seed: Start of every random stream.

    Raises:
        UserError: `family` is given where it does not count.
    """
    if family != "llava" and (method, mode) != ("mmunlearner", "as_released"):
        raise UserError(
            f"recipe.family={family} has no effect: it counts only with method=mmunlearner and mode=as_released. Leave it out."
        )
    return Run(
        model=model,
        data=data,
        benchmark={"name": "mllmu", "ratio": ratio},
        method=method,
        out=out,
        seed=seed,
        settings=settings(method, family, mode),
        training=training(method, family, mode),
    )


def settings(method: Method, family: Family, mode: Literal["fixed", "as_released"]) -> dict[str, Any]:
    """Return method settings that differ from the defaults."""
    released = mode == "as_released"
    if method == "mmunlearner":
        if released and family == "llava":
            return {"mode": mode, "allow_noop_mask": True}  # with LoRA nothing is masked
        return {"mode": mode, "modules": ("language",), **({"p_text": "released"} if released else {})}
    if method == "npo":
        return {"beta": 0.4 if released else 0.1}
    return {}


def training(method: Method, family: Family, mode: Literal["fixed", "as_released"]) -> dict[str, Any]:
    """Return `Training` fields that differ from the defaults."""
    released = mode == "as_released"
    if not released:
        return {**COMMON, **(FULL if method == "mmunlearner" else LORA)}
    if method == "mmunlearner":
        tuning = LORA if family == "llava" else {"tune": "full", "gradient_checkpointing": True}
        return {**COMMON, **tuning, "scheduler": "constant"}  # its type of weights is method.released_precision
    return {**COMMON, **LORA, "scheduler": "linear" if method == "ga" else "constant", "clip": 0.0}
