"""SafeEraser's losses and configuration files (arXiv 2502.12520)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from unsee.config import Run
from unsee.errors import UserError, unknown_name


@dataclass(frozen=True, kw_only=True)
class Loss:
    """SafeEraser loss as a method with settings."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)


Name = Literal["ga", "gd", "kl", "idk", "po", "gapd", "gdpd", "klpd", "idkpd", "popd"]
_PO: Final = {"retain_weight": 1.0, "po_reduction": "concat"}
_PREFERENCE: Final = Loss(method="reject", settings=_PO)
_PREFERENCE_PD: Final = Loss(method="reject", settings={**_PO, "prompt_decouple_weight": 1.0})
LOSSES: Final[Mapping[str, Loss]] = {
    "ga": Loss(method="ga"),
    "gd": Loss(method="grad_diff"),
    "kl": Loss(method="kl"),
    "idk": _PREFERENCE,
    "po": _PREFERENCE,
    "gapd": Loss(method="ga", settings={"prompt_decouple_weight": 0.5}),
    "gdpd": Loss(method="grad_diff", settings={"retain_weight": 0.5, "prompt_decouple_weight": 0.5}),
    "klpd": Loss(method="kl", settings={"prompt_decouple_weight": 1.0}),
    "idkpd": _PREFERENCE_PD,
    "popd": _PREFERENCE_PD,
}
"""Released name -> loss and weights [code]; the README says po, the trainer knows only idk, both work here."""

TRAINING: Final[Mapping[str, Any]] = {
    "tune": "lora",
    "parts": ("projector", "language"),
    "rank": 32,
    "alpha": 256,
    "dropout": 0.05,
    "lr": 1e-4,
    "weight_decay": 0.01,
    "scheduler": "cosine",
    "epochs": 10,
    "batch_size": 2,
    "accumulate": 16,
    "clip": 1.0,
    "precision": "bf16",
    "stop": "never",
}
"""`config/forget_lora.yaml` [code] on one process: 2 x 16 = 32 examples per step.

Ours differ in two places [inferred]: the projector gets adapters too where the release trains it whole, and there is no
warm-up (6 % of the steps there: set `warmup_steps`, which counts steps). The adapters' scale alpha / rank = 8 is unusually strong.
"""


def safeeraser(*, model: str, data: str, out: str, loss: Name = "popd", refusals: str = "", seed: int = 233) -> Run:
    """Return the run of one SafeEraser loss, on data with roles forget, benign and general.

    Args:
        model: Folder or hub id of the original model.
        data: Folder of the data set.
        out: Run folder.
        loss: Loss by the name of its configuration file, with or without Prompt Decouple (pd).
        refusals: File prompt.json of the archive, from which PO and PO+PD draw; empty = the packaged sentences.
        seed: Start of every random stream.

    Raises:
        UserError: There is no such loss, or `refusals` is given for one that draws none.
    """
    if loss not in LOSSES:
        raise unknown_name("SafeEraser loss", loss, LOSSES)
    recipe_loss = LOSSES[loss]
    if refusals and recipe_loss.method != "reject":
        raise UserError(f"recipe.refusals has no effect: the loss {loss} draws no refusals. Leave it out.")
    refusal_settings = {"refusals": refusals} if refusals else {}
    return Run(
        model=model,
        data=data,
        method=recipe_loss.method,
        out=out,
        seed=seed,
        settings={**recipe_loss.settings, **refusal_settings},
        training=TRAINING,
    )
