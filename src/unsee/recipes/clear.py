"""CLEAR 1, 5 or 10 %, with MMUnlearner and baselines, on LLaVA-1.5 or Qwen2.5-VL 7B.

Sources: arXiv 2410.18057, 2502.11051.

The original model must know the authors: tune it on `full+tofu` first. Qwen2.5-VL gets the settings of Qwen2-VL [inferred].

| setting | value | mark |
|---|---|---|
| learning rate, batch, epochs | 1e-5, 4, 1 | [code] README of Z1zs/MMUnlearner |
| MMUnlearner and GA: trained | all weights | [code] |
| the other baselines: LoRA | rank 16, alpha 16, dropout 0.05 | [code] |
| trained on captions alone; text questions for MMUnlearner's mask | | [code] |
| MMUnlearner: mask | language, gamma 1, alpha 1 | [code] |
| clipping 1.0, linear to 0, retain batch for each forget batch, NPO beta 0.1 | | [inferred] |
| `protocol: clear` | 5 epochs, batch 2 x 4, weight decay 0.01, all weights | [code] somvy/multimodal_unlearning |
| `protocol: clear` | captions are forgotten, captions and text questions retained: text questions are never forgotten | [inferred] |
"""

from __future__ import annotations

from typing import Any, Literal

from unsee.config import Run
from unsee.recipes.mllmu import COMMON, FULL, LORA

Method = Literal["mmunlearner", "ga", "grad_diff", "kl", "npo", "reject"]


def clear(
    *,
    model: str,
    data: str,
    out: str,
    ratio: Literal[1, 5, 10] = 5,
    method: Method = "mmunlearner",
    protocol: Literal["mmunlearner", "clear"] = "mmunlearner",
    seed: int = 0,
) -> Run:
    """Return the run of one method at one ratio, with the settings of one of the papers.

    Args:
        model: Folder or hub id of the original model.
        data: Folder of the data set.
        out: Run folder.
        ratio: Percentage of the authors to forget.
        method: MMUnlearner, or one of the baselines.
        protocol: Paper whose training settings are used.
        seed: Start of every random stream.
    """
    with_text = protocol == "clear" or method == "mmunlearner"  # its mask uses text questions, its training none
    return Run(
        model=model,
        data=data,
        benchmark={"name": "clear", "ratio": ratio, "train": "both" if with_text else "captions"},
        method=method,
        out=out,
        seed=seed,
        settings=_settings(method),
        training=_training(method, protocol),
    )


def _settings(method: Method) -> dict[str, Any]:
    settings_by_method: dict[Method, dict[str, Any]] = {
        "mmunlearner": {"modules": ("language",)},
        "npo": {"beta": 0.1},
        "reject": {"retain_weight": 1.0},
    }
    return settings_by_method.get(method, {})


def _training(method: Method, protocol: Literal["mmunlearner", "clear"]) -> dict[str, Any]:
    if protocol == "clear":
        return {**COMMON, **FULL, "epochs": 5, "batch_size": 2, "accumulate": 4, "weight_decay": 0.01}
    return {**COMMON, **(FULL if method in ("mmunlearner", "ga") else LORA)}
