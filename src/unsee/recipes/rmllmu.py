"""R-MUSE and baselines on RMLLMU-style data: MLLMU-Bench with chains (arXiv 2512.17911).

Neither data nor code of RMLLMU-Bench are public: a run on chains of one's own is "RMLLMU-style" and not comparable with its tables.

| setting | value | mark |
|---|---|---|
| LLaVA-1.5-7B and Qwen2.5-VL-7B, 5, 10 and 15 % | | [second-hand] |
| R-MUSE: eta 0.8, tau 0.75, formula gate, middle third of the layers | | eta, range of tau [second-hand], rest [inferred] |
| baselines | trained as in the recipe mllmu | [inferred] |
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from unsee.config import Run
from unsee.errors import UserError
from unsee.recipes.mllmu import mllmu
from unsee.recipes.rmuse import Ablation, rmuse


def rmllmu(
    *,
    model: str,
    data: str,
    out: str,
    ratio: Literal[5, 10, 15] = 5,
    method: Literal["rmuse", "mmunlearner", "ga", "grad_diff", "kl", "npo"] = "rmuse",
    ablation: Ablation = "full",
    seed: int = 0,
) -> Run:
    """Return the run of one method at one ratio.

    Args:
        model: Folder or hub id of the original model.
        data: Folder of the data set.
        out: Run folder.
        ratio: Percentage of the people to forget.
        method: R-MUSE, or one of the baselines.
        ablation: Row of R-MUSE's ablation table; baselines have none.
        seed: Start of every random stream.

    Raises:
        UserError: `ablation` is given for a baseline.
    """
    if method != "rmuse" and ablation != "full":
        raise UserError(f"recipe.ablation={ablation} has no effect: {method} has no such ablation. Leave it out.")
    if method == "rmuse":
        run = rmuse(model=model, data=data, out=out, ablation=ablation, seed=seed)
    else:
        run = mllmu(model=model, data=data, out=out, method=method, seed=seed)
    return replace(run, benchmark={"name": "rmllmu", "ratio": ratio})
