"""Activations saved by autograd, by line of code: `python -m perf.kept quick npo_lora`.

Prints MiB for the plain way and with the engine's `recompute`; every block of memory counts once, weights do not. Then what
`recompute` does to the time of a forward and backward pass: median of paired turns.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections import Counter
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest.mock import patch

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from perf.steps import CASES
from perf.subject import subject
from perf.timing import now
from unsee.api import Session
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import Batch, collate
from unsee.losses import answer_nll
from unsee.training import recompute
from unsee.training.targets import forget_targets

MIB: Final = 2**20
SHOWN: Final = 14
TURNS: Final = 16
_BETWEEN: Final = (
    "torch/nn/modules/module.py",
    "torch/autograd",
    "perf/kept.py",
    "unsee/training/recompute.py",
    "unsee/compat",
    "contextlib.py",
)


def kept(session: Session, batch: Batch, forward: AbstractContextManager[Any]) -> Counter[str]:
    """Return bytes by line of code."""
    weights = {weight.untyped_storage().data_ptr() for weight in session.model.parameters()}
    seen: dict[int, Tensor] = {}
    found: Counter[str] = Counter()

    def pack(x: Tensor) -> Tensor:
        address = x.untyped_storage().data_ptr()
        if address not in weights and address not in seen:
            seen[address] = x
            found[_line()] += x.untyped_storage().nbytes()
        return x

    made = recompute._Registry.pack

    def lean(known: Any, x: Tensor) -> Any:
        packed = made(known, x)
        return pack(x) if packed is x else packed

    with ExitStack() as around:
        around.enter_context(saved_tensors_hooks(pack, lambda x: x))
        around.enter_context(patch.object(recompute._Registry, "pack", lean))
        around.enter_context(forward)
        answer_nll(*answer_logits(session.model, batch))
    return found


def _line() -> str:
    """Return the line of a model's code that is at work."""
    calls = [call for call in traceback.extract_stack() if not any(part in call.filename for part in _BETWEEN)]
    return f"{Path(calls[-1].filename).name}: {calls[-1].line}"


def seconds(session: Session, batch: Batch, forward: AbstractContextManager[Any]) -> float:
    """Return the seconds of one forward and backward pass."""
    start = now()
    with forward:
        loss = answer_nll(*answer_logits(session.model, batch))
    loss.backward()
    return now() - start


def pace(session: Session, batch: Batch) -> float:
    """Return how long a pass takes with cheap activations recomputed, relative to one that keeps them."""
    ratios = []
    with recompute.recomputing(session.model, session.engine) as forward:
        for _ in range(TURNS):
            plain = seconds(session, batch, nullcontext())
            ratios.append(seconds(session, batch, forward()) / plain)
    return median(ratios[1:])


def main(model: str, case: str) -> None:
    """Print the table."""
    opened = subject(model, batch_size=1)
    with tempfile.TemporaryDirectory() as folder:
        session = CASES[case].session(opened, Path(folder), 1)
        session.model.train()
        batch = collate(session, forget_targets(session)[:1])
        plain = kept(session, batch, nullcontext())
        with recompute.recomputing(session.model, session.engine) as forward:
            lean = kept(session, batch, forward())
        ratio = pace(session, batch)
    print(f"{'MiB':>7} {'lean':>7}  kept by")
    for line, size in plain.most_common(SHOWN):
        print(f"{size / MIB:7.1f} {lean[line] / MIB:7.1f}  {line[:110]}")
    print(f"{plain.total() / MIB:7.1f} {lean.total() / MIB:7.1f}  everything")
    print(f"forward and backward: lean {ratio:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
