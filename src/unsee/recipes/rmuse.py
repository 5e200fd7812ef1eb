"""R-MUSE with the settings of its paper, as far as known (arXiv 2512.17911)."""

from __future__ import annotations

from typing import Any, Literal

from unsee.config import Run
from unsee.errors import unknown_name

Ablation = Literal["full", "without_rrs", "without_reasoning_span", "without_acs"]
ABLATIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "without_rrs": {"protect": False},
    "without_reasoning_span": {"reasoning": False},
    "without_acs": {"update": "additive"},
}
"""Row of the ablation table -> settings; strength and span choices are [inferred]."""


def rmuse(*, model: str, data: str, out: str, ablation: Ablation = "full", seed: int = 0) -> Run:
    """Return the faithful run, or one of its ablations.

    Eta 0.8, tau 0.75, formula gate, middle third of the layers [inferred].

    Args:
        model: Folder or hub id of the original model.
        data: Folder of the data set.
        out: Run folder.
        ablation: Row of the ablation table; full = nothing left out.
        seed: Start of every random stream.
    """
    if ablation not in ABLATIONS:
        raise unknown_name("R-MUSE ablation", ablation, ABLATIONS)
    settings = {"mode": "faithful", "energy": 0.8, "tau": 0.75, **ABLATIONS[ablation]}
    return Run(model=model, data=data, method="rmuse", out=out, seed=seed, settings=settings)
