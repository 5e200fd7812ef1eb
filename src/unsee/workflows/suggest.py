"""Workflow of `suggest`: first method and settings, from the model's size and the data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from unsee.api import PROBES, Benchmark, Role, Training, registry
from unsee.api.plugins import listed
from unsee.config import Run, dump_yaml
from unsee.data.check import require_usable
from unsee.data.open import benchmark_arguments, open_benchmark
from unsee.errors import UserError
from unsee.models import builtin

RATES: Final = ((20_000_000, 2e-3), (500_000_000, 1e-3), (2_000_000_000, 3e-4))
"""Most parameters -> learning rate of LoRA; above: 1e-4, the default [inferred: measured on the lab (4 million) only]."""
STEPS: Final = 80
"""Fewest steps of a run with a retain term, as in configs/lab_pubg.yaml [inferred]."""
UNSEE_STEPS: Final = 250
"""The same for `unsee`, as in configs/leaderboard_lab.yaml [inferred]."""
TINY: Final = 20_000_000
"""Most parameters of a model whose weights `unsee` trains all, at a quarter of the rate, as on the lab (configs/leaderboard_lab.yaml). Of
larger ones it trains adapters, at half of it (configs/leaderboard_smol.yaml) [inferred]."""
PASSES: Final = 3
"""Fewest passes over the forget rows [inferred: docs/deletion_requests.md has figures of ten people]."""
RETAINING: Final[Mapping[str, Mapping[str, Any]]] = {
    **{name: {"retain_weight": 1.0} for name in ("npo", "pubg", "bg_only", "reject", "random")},
    "grad_diff": {"ga_floor": -1.0},
    "kl": {"ga_floor": -1.0, "weight": 3.0},
}
"""Method -> settings beside retain rows: a retain term where the published form has none, a floor under the ascent where it has one
(docs/methods.md has the figures of the last two) [inferred]."""
_FORGET: Final = (Role.FORGET, Role.FORGET_TEXT)
_RETAIN: Final = (Role.RETAIN, Role.RETAIN_TEXT)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """Run to start with, and why."""

    run: Run
    reasons: tuple[str, ...]
    """What was looked at, a sentence each."""

    def __str__(self) -> str:
        """Return the run file, with the reasons as comments."""
        values = {name: value for name, value in self.run.to_mapping().items() if value not in ("", {}, ())}
        return "".join(f"# {reason}\n" for reason in self.reasons) + dump_yaml(values).rstrip()


def suggest(
    model: Path | str,
    data: Path | str,
    *,
    out: Path | str = "",
    benchmark: str | Mapping[str, Any] = "",
    plugins: Sequence[str] = (),
) -> Suggestion:
    """Return the run to start with for this model and these data.

    Reads no weights, decodes no picture and trains nothing.

    With retain rows: `pubg` with a retain term and the bounded ascent that the lab's best row has (configs/lab_pubg.yaml).
    Without: `npo`, whose gradient vanishes where an answer is forgotten, and which the stop rule ends. All [inferred].

    Args:
        model: Model to unlearn. Empty: its size is unknown, and the learning rate the default.
        data: Data with what to forget.
        out: Run folder of the suggested run. Empty: left to `forget`.
        benchmark: Name, or mapping of name and options. Empty: recognised from the data.
        plugins: Code of your own that the data or the model need; the suggested run names it.

    Raises:
        UserError: There is no such model, a plugin is broken, or the data cannot be used.
    """
    plugins = listed(plugins)
    for spec in plugins:
        registry.add(spec)
    opened_data = open_benchmark(data, benchmark)
    require_usable(opened_data, str(data), decoded=False)
    counts = _counts(opened_data)
    size = parameters(model) if model else math.inf
    rate = _rate_of(size)
    size_reason = (
        f"the model has {size / 1e6:,.0f} million parameters"
        if model
        else "no model was named, and it suits large ones"
    )
    forget_count = sum(counts.get(role, 0) for role in _FORGET)
    retain_count = sum(counts.get(role, 0) for role in _RETAIN)
    training: dict[str, Any] = {"lr": rate}
    if retain_count:
        settings = {"retain_weight": 2.0, "forget_weight": 0.3, "ga_floor": -4.0, "undesired": "dataset", "rollouts": 2}
        training |= {**_steps(opened_data, "pubg", STEPS), "stop": "never"}
        method, why = "pubg", "there are retain rows, so a retain term and a floor under the ascent keep the rest alive"
    else:
        method, settings = "npo", {}
        why = "there are no retain rows, so a bounded loss and the stop rule; give retain rows, else the rest suffers"
    run = Run.of(
        builtin.absolute_or_name(str(model)),
        builtin.absolute_or_name(str(data)),
        method,
        out,
        benchmark=benchmark_arguments(opened_data),
        settings=settings,
        training=training,
    )
    return Suggestion(
        run=replace(run, plugins=plugins),
        reasons=(
            f"data: {forget_count} rows to forget, {retain_count} to keep, {counts.get(Role.UNSEEN, 0)} on held-out images",
            f"{method}: {why}",
            f"LoRA with training.lr {rate:g}: {size_reason}; lower it if others suffer, raise it if it still leaks",
        ),
    )


def unsee_in_place_of(run: Run) -> Run:
    """Return a run on data with retain rows with `unsee`, unshrunk, in place of its method."""
    size = parameters(run.model)
    trained = {"tune": "full", "lr": _rate_of(size) / 4} if size <= TINY else {"lr": _rate_of(size) / 2}
    steps = _steps(open_benchmark(run.data, run.benchmark), "unsee", UNSEE_STEPS)
    return replace(run, method="unsee", settings={"shrink": 0.0}, training={**trained, **steps})


def beside_retain_rows(run: Run) -> tuple[Run, str]:
    """Return the run with settings that protect retain rows, and a sentence that says so.

    A run that has one of these settings is returned as it is, and so is one on data without retain rows. The stop rule, which
    looks at forgetting only, would end the run before damaged retain answers have recovered.
    """
    retain_settings = RETAINING.get(run.method, {})
    if not retain_settings or set(retain_settings) & set(run.settings):
        return run, ""
    try:
        counts = _counts(open_benchmark(run.data, run.benchmark))
    except UserError:  # the run's own check, which comes next, says all that is wrong
        return run, ""
    if not any(counts.get(role) for role in _RETAIN):
        return run, ""
    settings, training = {**run.settings, **retain_settings}, {"stop": "never", **run.training}
    assignments = ", ".join(f"method.{name}={value:g}" for name, value in retain_settings.items())
    sentence = (
        f"{run.method} ran with {assignments} and training.stop={training['stop']}, as there are retain rows; "
        "--variant paper is the published form."
    )
    return replace(run, settings=settings, training=training), sentence


def require_variant(variant: str) -> None:
    """Raise for an unknown variant."""
    if variant not in ("default", "paper"):
        raise UserError(f"--variant must be default or paper, got {variant!r}.")


def parameters(model: Path | str) -> int:
    """Return the number of parameters, from the model's config alone."""
    from unsee.models.checkpoint import open_config
    from unsee.models.meta_device import without_weights

    with without_weights("cpu"):
        meta_model = open_config(str(model)).model
    return sum(weight.numel() for weight in meta_model.parameters())


def _rate_of(size: float) -> float:
    """Return the learning rate of adapters on a model of this many parameters."""
    return next((rate for limit, rate in RATES if size <= limit), Training().lr)


def _steps(benchmark: Benchmark, method: str, fewest: int) -> dict[str, int]:
    """Return how long a method trains on the forget set. Only rows with a picture and one of these kinds of question count."""
    probe_count = sum(row.role is Role.FORGET and row.kind in PROBES for row in benchmark.examples("train"))
    batch_size = int(benchmark.suggested(method).get("batch_size", Training().batch_size))
    steps = max(fewest, math.ceil(PASSES * probe_count / batch_size))
    return {"epochs": math.ceil(steps * batch_size / max(1, probe_count)), "max_steps": steps}


def _counts(benchmark: Benchmark) -> dict[Role, int]:
    """Return the number of rows by role.

    On held-out images: rows of the evaluation, else rows of the training.
    """
    train_counts = Counter(row.role for row in benchmark.examples("train"))
    return {**train_counts, Role.UNSEEN: sum(row.role is Role.UNSEEN for row in benchmark.examples("eval"))}
