"""Hidden states of a decoder layer at answer tokens, of the model and its reference.

Shapes: b batch, a answer positions (right-aligned), d width of the model. Unlike logits, the state at index i belongs to the
token at index i of the labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import pad

from unsee.api import Session
from unsee.api.request import Target
from unsee.compat.probes import trying
from unsee.distributed import processes
from unsee.inference.answer_logits import in_order
from unsee.inference.batching import Batch, collate
from unsee.inference.packing import keeps_logits
from unsee.inference.vision_cache import with_features
from unsee.losses import IGNORE
from unsee.methods.common.reference_model import CHUNK, as_start
from unsee.models.steering.hooks import decoder_layers
from unsee.training.precision import autocast


def answer_states(model: Module, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
    """Return the layer's states_bad at answer tokens, and labels_ba (-100 at padding)."""
    kinds = batch.kinds
    return in_order([indices for indices, _ in kinds], [_states(model, part, layer) for _, part in kinds])


def _states(model: Module, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
    """Return states and labels of rows that share a batch."""
    width = int((batch.labels_bt != IGNORE).any(0).sum())
    start = batch.labels_bt.shape[1] - width
    with layer_outputs(model, [layer]) as outputs_btd:
        inputs = with_features(model, batch.rows, batch.images, batch.inputs, batch.engine)
        model(**inputs, **without_logits(model), use_cache=False)
    return outputs_btd[layer][:, start:], batch.labels_bt[:, start:]


def without_logits(model: Module) -> dict[str, int]:
    """Return the keywords by which a model computes as few logits as it can."""
    return {"logits_to_keep": 1} if keeps_logits(model) else {}


@contextmanager
def layer_outputs(model: Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Record the output of these decoder layers in the last pass."""
    outputs_btd: dict[int, Tensor] = {}

    def keep(layer: int, _: Module, __: Any, output: Any) -> None:
        if not trying():
            outputs_btd[layer] = output if isinstance(output, Tensor) else output[0]

    modules = decoder_layers(model)
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(modules[layer].register_forward_hook(partial(keep, layer)))
        yield outputs_btd


class StartStates:
    """States of a layer at answer tokens under the reference model.

    To be made before training. With LoRA they are computed each time, adapters off. With full tuning, or weights spread over processes, the states of all
    targets are computed ahead and kept in main memory: 4 bytes times width and answer tokens.
    """

    def __init__(self, session: Session, targets: Sequence[Target], layer: int) -> None:
        self.model, self.layer = session.model, layer
        self.live = isinstance(session.model, PeftModel) and processes.sharding() == "none"
        self.states_by_key: dict[tuple[object, ...], Tensor] = {}
        if self.live:
            return
        distinct_targets = list({target.key: target for target in targets}.values())
        with autocast(session.model, session.training):
            for start in range(0, len(distinct_targets), CHUNK):
                self._keep(collate(session, distinct_targets[start : start + CHUNK]))

    def __call__(self, batch: Batch) -> Tensor:
        """Return states_bad for the targets of the batch, 0 at padding if computed ahead."""
        if self.live:
            with as_start(self.model):
                return answer_states(self.model, batch, self.layer)[0]
        rows = [self.states_by_key[target.key] for target in batch.targets]
        width = max(len(row) for row in rows)
        return torch.stack([pad(row, (0, 0, width - len(row), 0)) for row in rows]).to(batch.device)

    def _keep(self, batch: Batch) -> None:
        """Cache the states of a batch."""
        with as_start(self.model):
            states_bad, labels_ba = answer_states(self.model, batch, self.layer)
        lengths = (labels_ba != IGNORE).sum(-1).tolist()
        for target, states_ad, length in zip(batch.targets, states_bad, lengths, strict=True):
            self.states_by_key[target.key] = states_ad[len(states_ad) - length :].float().cpu().clone()
