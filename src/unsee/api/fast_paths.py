"""Switches of the fast paths.

Each gives the results of the plain path, within a tolerance that its tests state.

An opened model carries them in `VLM.engine` and hands them to its batches. `--engine plain` switches all of them off. Loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal

from unsee.errors import UserError

Name = Literal["fast", "plain"]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One switch per fast path."""

    answer_logits: bool = True
    """Compute logits at answer positions only, instead of for the whole sequence."""
    split_batches: bool = True
    """Run rows of very different length (with and without image) separately, instead of padding them."""
    vision_features: bool = True
    """Compute image features of a frozen vision tower and projector once, instead of in every step."""
    reference: bool = True
    """Use the base with adapters off, or cached log-probabilities, as the reference model; no second live copy."""
    separate_terms: bool = True
    """Backpropagate each loss term on its own, instead of holding all graphs until the sum."""
    recompute: bool = True
    """Recompute outputs of norms, activation functions and gates in the backward pass."""
    prefetch: bool = True
    """Prepare the next batch in the background."""
    shared_prefix: bool = True
    """Share the prefix (image encoding and prefill) between questions about one image."""
    shared_cache: bool = True
    """Share results that depend only on original weights and data (likelihoods, responses) between runs, on disk."""


FAST: Final = Engine()
PLAIN: Final = Engine(**{field.name: False for field in fields(Engine)})


def engine_named(name: str) -> Engine:
    """Return the engine `fast` or `plain`."""
    if name not in ("fast", "plain"):
        raise UserError(f"engine must be fast or plain, got {name!r}.")
    return FAST if name == "fast" else PLAIN
