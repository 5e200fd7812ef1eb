"""Teacher forcing of reference answers: inputs, log-probabilities and hidden states.

Shapes: a answer tokens, d width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from unsee.api import VLM, Example
from unsee.api.request import Prompt
from unsee.evaluation.recovery import requested_forms
from unsee.inference.batching import device_of, require_room
from unsee.inference.encoder import encoder
from unsee.inference.packing import keeps_logits
from unsee.inference.token_offsets import tokens_within
from unsee.metrics.scripts import whole_matches
from unsee.models.steering.hooks import decoder_layers

Change = Callable[[int, Tensor], Tensor | None]
"""(layer, states [1, t, d]) -> replacement, or None to leave them."""


@dataclass(frozen=True)
class Fed:
    """Prompt and answer as model inputs of one row."""

    inputs: dict[str, Tensor]
    answer: tuple[int, ...]

    @property
    def before(self) -> slice:
        """Positions that predict the answer's tokens."""
        return slice(-len(self.answer) - 1, -1)


def teacher_forced(loaded: VLM, row: Example) -> Fed:
    """Return the row's question with its answer."""
    encode = encoder(loaded.processor, loaded.family)
    answer_ids = encode.answer(row.answer)
    inputs = loaded.family.extend(encode.row(Prompt.of(row, loaded.instruction)), answer_ids)
    require_room(loaded.model, inputs["input_ids"].shape[1], row.question)
    device = device_of(loaded.model)
    return Fed({key: value.to(device) for key, value in inputs.items()}, answer_ids)


def answer_logits(model: Any, row: Fed) -> Tensor:
    """Return the logits that predict the answer's tokens [a, v], in fp32."""
    extra_inputs = {"logits_to_keep": len(row.answer) + 1} if keeps_logits(model) else {}
    return torch.as_tensor(model(**row.inputs, **extra_inputs, use_cache=False).logits[0, row.before].float())


def token_logprobs(logits_av: Tensor, row: Fed) -> Tensor:
    """Return the log-probability of each token of the answer [a]."""
    labels_a = torch.tensor(row.answer, device=logits_av.device)
    return logits_av.log_softmax(-1).gather(1, labels_a[:, None])[:, 0]


def private_tokens(loaded: VLM, row: Example) -> list[int]:
    """Return the positions in the answer of the tokens of the requested private strings."""
    forms = [form for forms in requested_forms(row).values() for form in forms]
    spans = [match.span() for match in whole_matches(row.answer, forms, ignore_case=True)]
    is_private = tokens_within(loaded.processor, loaded.family, row.answer, spans)
    return [index for index, within in enumerate(is_private) if within]


@contextmanager
def layers_changed(model: Module, change: Change) -> Iterator[None]:
    """Replace the output of every decoder layer by the result of `change`."""

    def after(layer: int, _module: Module, _args: Any, output: Any) -> Any:
        states = output if isinstance(output, Tensor) else output[0]
        new_states = change(layer, states)
        if new_states is None:
            return None
        return new_states if isinstance(output, Tensor) else (new_states, *output[1:])

    with ExitStack() as hooks:
        for layer, module in enumerate(decoder_layers(model)):
            hooks.enter_context(module.register_forward_hook(partial(after, layer)))
        yield


def layer_states(model: Module, row: Fed, positions: slice) -> dict[int, Tensor]:
    """Return the states after every decoder layer at some positions [a, d]."""
    states: dict[int, Tensor] = {}

    def keep(layer: int, states_1td: Tensor) -> None:
        states[layer] = states_1td[0, positions].detach().clone()

    with torch.no_grad(), layers_changed(model, keep):
        answer_logits(model, row)
    return states
