"""Hooks that steer hidden states at inference (R-MUSE, arXiv 2512.17911).

The gate is decided once per request, from the state of its last prompt token, and holds until its response ends. Our own
decoding loop declares which columns end prompts and which are responses (`Requests`); under `model.generate` the KV cache
identifies them. Passes without a cache (training, log-likelihoods) are not steered.
Shapes: b rows, c columns of a pass, e prompt ends, r rows, l lanes, d width of the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module, ModuleList
from torch.utils.hooks import RemovableHandle

from unsee.compat import cache as kv_cache
from unsee.compat.models import unwrapped
from unsee.compat.probes import trying
from unsee.errors import UserError
from unsee.models.auto import image_token_id
from unsee.models.location import STEERING
from unsee.models.steering.artifact import Artefact, Frame, fires, load, save, steer


@dataclass
class Firing:
    """Statistics of the gate since the model was opened."""

    scores: list[float] = field(default_factory=list)
    """The gate's score of every request."""
    fired: int = 0
    """Requests that were steered."""
    degrees: dict[int, list[float]] = field(default_factory=dict)
    """Layer -> mean rotation at the first generated token of steered requests, one entry per pass."""

    def summary(self) -> dict[str, Any]:
        """Return requests, firing rate, quartiles of the score and mean rotation per layer."""
        scores = torch.tensor(self.scores or [math.nan], dtype=torch.float64)
        quartiles = scores.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)).tolist()
        return {
            "requests": len(self.scores),
            "firing_rate": self.fired / len(self.scores) if self.scores else None,
            "score_quartiles": [round(value, 4) for value in quartiles] if self.scores else None,
            "mean_rotation_deg": {
                str(layer): round(sum(degrees) / len(degrees), 2) for layer, degrees in self.degrees.items()
            },
        }


@dataclass
class _Turn:
    """Meaning of the columns of a forward pass."""

    speaks: Literal["nobody", "prompts", "answers"]
    kind: int | Tensor
    """0 = requests without an image, 1 = with one; or one value per row."""
    ends_e: Tensor | None = None
    """Columns at which prompts end; None = the last."""
    real_be: Tensor | None = None
    """Mask of requests as opposed to padding."""
    open_be: Tensor | None = None
    """Mask of steered requests; later answer columns have the same order."""
    any_open: bool = False
    all_open: bool = False
    fresh: bool = True

    def decide(self, open_be: Tensor) -> None:
        self.open_be = open_be
        self.any_open, self.all_open = bool(open_be.any()), bool(open_be.all())


class Steering:
    """An artefact attached to a model."""

    def __init__(self, artefact: Artefact, model: Module) -> None:
        """Register the hooks."""
        self.artefact = artefact
        self.rule = artefact.rule
        self.firing = Firing()
        self.declared: _Turn | None = None
        self._turn: _Turn | None = None
        self._turn_by_cache: WeakKeyDictionary[Any, _Turn] = WeakKeyDictionary()
        self._frames: dict[tuple[int, torch.device], Frame] = {}
        layers = decoder_layers(model)
        outer = unwrapped(model)
        self._image_token = image_token_id(model)
        self._handles: list[RemovableHandle] = [
            outer.register_forward_pre_hook(self._begin, with_kwargs=True),
            outer.register_forward_hook(self._end),
        ]
        for layer in sorted({*self.rule.layers, self.rule.scoring_layer}):
            self._handles.append(layers[layer].register_forward_hook(partial(self._after, layer)))

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    @property
    def skipped_layers(self) -> list[int]:
        """Layers whose direction lies in the reasoning subspace and is not used."""
        able_by_layer = {layer: self._frame(layer, torch.device("cpu")).able for layer in self.rule.layers}
        return [layer for layer, able in able_by_layer.items() if not all(able)]

    def _begin(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG002 - torch's call
        """Determine the columns of the coming pass, unless set by the decoding loop."""
        self._turn = self.declared
        cache = kv_cache.cache_in(kwargs)
        uncached = cache is None and kwargs.get("use_cache") is False
        if self.declared is not None or uncached or self.rule.gate == "off":
            return
        ids_bc = kwargs.get("input_ids", args[0] if args else None)
        if cache in self._turn_by_cache and ids_bc is not None and ids_bc.shape[1] == 1:
            self._turn = self._turn_by_cache[cache]
            self._turn.speaks = "answers"
        else:
            self._turn = _Turn("prompts", self._kind(ids_bc, kwargs))

    def _end(self, module: Module, args: Any, output: Any) -> None:  # noqa: ARG002 - torch's call
        """Remember which KV cache belongs to the prompts."""
        if self._turn is None or self.declared is not None or self._turn.speaks != "prompts":
            return
        cache = kv_cache.cache_in(output) if isinstance(output, Mapping) else None
        if cache is not None:
            self._turn_by_cache[cache] = self._turn

    def _kind(self, ids_bc: Tensor | None, kwargs: Mapping[str, Any]) -> int | Tensor:
        if ids_bc is None or self._image_token is None:
            return int("pixel_values" in kwargs)
        return kind_of((ids_bc == self._image_token).any(1).tolist(), ids_bc.device)

    def _after(self, layer: int, module: Module, args: Any, output: Any) -> Any:  # noqa: ARG002 - torch's call
        """Return the layer's output with steered states, None leaves it unchanged."""
        turn = self._turn
        if turn is None or self.rule.gate == "off" or trying():
            return None
        states_bcd = output if isinstance(output, Tensor) else output[0]
        if turn.speaks == "prompts" and layer == self.rule.scoring_layer:
            self._decide(turn, states_bcd)
        mask = self._columns(turn, layer, states_bcd)
        if mask is None:
            return None
        new_bcd = self._steered_states(turn, layer, states_bcd, mask)
        return new_bcd if isinstance(output, Tensor) else (new_bcd, *output[1:])

    def _decide(self, turn: _Turn, states_bcd: Tensor) -> None:
        ends_bed = states_bcd[:, -1:] if turn.ends_e is None else states_bcd[:, turn.ends_e]
        scores_be = self.artefact.directions[self.rule.scoring_layer].scores(ends_bed, self.rule.score)
        open_be = fires(scores_be, self.rule.gate, self.rule.tau)
        real_be = torch.ones_like(open_be) if turn.real_be is None else turn.real_be
        turn.decide(open_be & real_be)
        self.firing.scores += scores_be[real_be].tolist()
        self.firing.fired += int(turn.open_be.sum()) if turn.open_be is not None else 0

    def _columns(self, turn: _Turn, layer: int, states_bcd: Tensor) -> Tensor | Literal[True] | None:
        """Return the mask of steered states [b, c], True = all, None = none."""
        if layer not in self.rule.layers:
            return None
        if turn.speaks == "answers":
            return None if not turn.any_open else True if turn.all_open else turn.open_be
        if self.rule.apply_to == "all":
            return True
        if self.rule.apply_to == "generated" or turn.speaks == "nobody" or not turn.any_open or turn.open_be is None:
            return None
        mask_bc = torch.zeros(states_bcd.shape[:2], dtype=torch.bool, device=states_bcd.device)
        mask_bc[:, slice(-1, None) if turn.ends_e is None else turn.ends_e] = turn.open_be
        return mask_bc

    def _steered_states(self, turn: _Turn, layer: int, states_bcd: Tensor, mask: Tensor | Literal[True]) -> Tensor:
        frame = self._frame(layer, states_bcd.device)
        new_bcd, angle_bc1 = steer(states_bcd, frame, turn.kind, self.rule)
        if not all(frame.able):
            able_b1 = torch.tensor(frame.able, device=states_bcd.device)[turn.kind].reshape(-1, 1)
            mask = able_b1.expand(states_bcd.shape[:2]) & mask
        if turn.speaks == "answers" and turn.fresh and angle_bc1 is not None:
            angles = angle_bc1 if mask is True else angle_bc1[mask]
            self.firing.degrees.setdefault(layer, []).append(math.degrees(float(angles.mean())))
            turn.fresh = layer != max(self.rule.layers)
        return new_bcd if mask is True else torch.where(mask[..., None], new_bcd, states_bcd)

    def _frame(self, layer: int, device: torch.device) -> Frame:
        if (layer, device) not in self._frames:
            self._frames[layer, device] = Frame.of(self.artefact.directions[layer], self.rule, device)
        return self._frames[layer, device]


_LIVE: WeakKeyDictionary[Module, list[Steering]] = WeakKeyDictionary()
"""Decoder layers of a model -> its steerings, in order."""


def attach(model: Module, artefact: Artefact) -> Steering:
    """Attach an artefact to the model, after those already attached."""
    layers = decoder_layers(model)
    width = int(model.get_input_embeddings().weight.shape[1])  # type: ignore[operator,union-attr]
    depth = max(*artefact.rule.layers, artefact.rule.scoring_layer) + 1
    artefact_width = next(iter(artefact.directions.values())).v_text.shape[0]
    if depth > len(layers) or artefact_width != width:
        raise UserError(
            f"The steering artefact was made for states of width {artefact_width} in at least {depth} layers, but the model has "
            f"width {width} in {len(layers)}. Attach it to the model it was made on."
        )
    steering = Steering(artefact, model)
    _LIVE.setdefault(layers, []).append(steering)
    return steering


def steerings_of(model: Module) -> tuple[Steering, ...]:
    """Return the steerings of the model, in order."""
    layers = _layers(model) if _LIVE else None
    return () if layers is None else tuple(_LIVE.get(layers, ()))


def left_off(model: Module) -> dict[str, float]:
    """Return a mark on scores from unsteered passes, or empty without steering.

    Passes without a KV cache are not steered.
    """
    return {"steering off": 1.0} if steerings_of(model) else {}


def detach(model: Module) -> None:
    """Remove all steering from the model."""
    for steering in steerings_of(model):
        steering.remove()
        _LIVE.pop(decoder_layers(model), None)


def hashes(model: Module) -> list[str]:
    """Return the hashes of all attached artefacts, for cache keys of responses."""
    return [steering.artefact.hash for steering in steerings_of(model)]


def decoder_layers(model: Module) -> ModuleList:
    """Return the list of the language model's decoder layers, whatever wraps the model."""
    layers = _layers(model)
    if layers is None:
        raise UserError(
            f"Steering needs a language model with a list `layers`; {type(unwrapped(model)).__name__} has none."
        )
    return layers


def _layers(model: Module) -> ModuleList | None:
    decoder: Any = unwrapped(model).get_decoder()
    layers = dict(decoder.named_children()).get("layers")
    return layers if isinstance(layers, ModuleList) else None


def common_layers(model: Module) -> list[int]:
    """Return the decoder layers that every request passes.

    Mllama's cross-attention layers are skipped without an image.
    """
    config = unwrapped(model).config.get_text_config().to_dict()
    skipped = set(config.get("cross_attention_layers") or ())
    return [layer for layer in range(len(decoder_layers(model))) if layer not in skipped]


def common_layer(model: Module, layer: int, setting: str) -> int:
    """Return the requested decoder layer.

    Args:
        model: The model.
        layer: The layer, counted from 0.
        setting: Path of the setting that requests it.

    Raises:
        UserError: The model has no such layer, or skips it for questions without an image.
    """
    layers = common_layers(model)
    if layer not in layers:
        raise UserError(
            f"{setting}={layer} is no decoder layer that every question passes. This model has {layer_text(layers)}; "
            "-1 chooses one."
        )
    return layer


def layer_text(layers: Sequence[int]) -> str:
    """Return ascending layers as text, an unbroken range by its ends.

    >>> layer_text([0, 1, 2]), layer_text([0, 1, 3])
    ('0 to 2', '0, 1, 3')
    """
    is_range = list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if is_range else ", ".join(map(str, layers))


def kind_of(images: Sequence[bool], device: torch.device) -> int | Tensor:
    """Return 1 for rows with an image and 0 for rows without, as one number if all are alike."""
    return int(images[0]) if len(set(images)) == 1 else torch.tensor(images, device=device).long()


class Requests:
    """Layout of a decoding loop's requests as rows of lanes, for the hooks."""

    def __init__(self, model: Module, images: Sequence[bool]) -> None:
        """Start with one row per request. `images`: whether each has an image."""
        self.live = steerings_of(model)
        self.kind = kind_of(images, next(model.parameters()).device) if self.live else 0
        self.turns: list[_Turn] = []

    @contextmanager
    def prefixes(self) -> Iterator[None]:
        """Declare that no prompt ends in the passes of the block."""
        with self._declaring([_Turn("nobody", self.kind) for _ in self.live]):
            yield

    @contextmanager
    def prompts(self, ends_l: Tensor | None, real_rl: Tensor) -> Iterator[None]:
        """Declare the columns where prompts end (None = the last).

        `real_rl` marks the lanes in use.
        """
        with self._declaring([_Turn("prompts", self.kind, ends_l, real_rl) for _ in self.live]):
            yield
        for turn in self.turns:
            turn.speaks = "answers"

    @contextmanager
    def answers(self) -> Iterator[None]:
        """Declare that every column in the block is a next answer token."""
        with self._declaring(self.turns):
            yield

    def take(self, row_r: Tensor, lane_rl: Tensor) -> None:
        """Keep these rows, and these lanes of each."""
        for turn in self.turns:
            if isinstance(turn.kind, Tensor):
                turn.kind = turn.kind[row_r]
            if turn.open_be is not None:
                turn.decide(turn.open_be[row_r[:, None], lane_rl])

    @contextmanager
    def _declaring(self, turns: list[_Turn]) -> Iterator[None]:
        self.turns = turns
        for steering, turn in zip(self.live, turns, strict=True):
            steering.declared = turn
        try:
            yield
        finally:
            for steering in self.live:
                steering.declared = None


def save_all(model: Module, folder: Path) -> None:
    """Save all attached artefacts into a model folder, in order."""
    for number, steering in enumerate(steerings_of(model)):
        save(steering.artefact, folder, _name(number))


def attach_all(model: Module, folder: Path | str) -> None:
    """Attach the artefacts in a model's folder."""
    number = 0
    while (Path(folder) / f"{_name(number)}.json").exists():
        attach(model, load(Path(folder), _name(number)))
        number += 1


def _name(number: int) -> str:
    return f"{STEERING}-{number + 1}" if number else STEERING
