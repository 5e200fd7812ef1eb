"""Cache of image features from a frozen vision tower and projector, keyed by image hash.

Works for every model whose forward takes `mm_encoder_outputs` (LLaVA, LLaVA-NeXT, Qwen-VL, InternVL, Idefics3, Gemma 3, ...),
as long as nothing before the language model is trained; any other model gets its pixels as ever.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import Module, Parameter
from transformers.modeling_outputs import BaseModelOutputWithPooling

from unsee.api import Session
from unsee.api.fast_paths import Engine
from unsee.compat import probes
from unsee.compat.tensors import raw, version
from unsee.data import shared_cache
from unsee.distributed import processes
from unsee.models import auto
from unsee.models.padding import merge
from unsee.utils.files import atomic_writer
from unsee.utils.grouping import by_key
from unsee.utils.terminal import note_once

MEMORY: Final = 2 * 2**30
"""Limit of the cache in bytes; features beyond it are recomputed each time."""
_UNUSED: Final = frozenset({"last_hidden_state", "hidden_states", "attentions"})
"""Fields of a vision output that no language model reads."""

Fields = dict[str, list[Tensor]]
"""Output field -> one tensor per image (`pooler_output`), or one per layer."""


@dataclass
class Kept:
    """Feature cache of one model."""

    module: Any
    """Model inside adapters."""
    arguments: frozenset[str]
    """Arguments of `get_image_features`."""
    before_language: list[Parameter]
    """All weights that the features depend on."""
    state: tuple[Any, ...] = ()
    """Weight versions and precision of the cached features."""
    by_image: dict[str, Fields] = field(default_factory=dict)
    bytes: int = 0
    on_disk: dict[str, tuple[Any, list[str]]] = field(default_factory=dict)
    """Image -> open file with its features, and their names in it."""
    new: set[str] = field(default_factory=set)
    """Images whose features are in no file yet."""
    stacked: bool = False
    """Whether the output is one tensor for all images, instead of a list with one per image."""


_KEPT: WeakKeyDictionary[Module, Kept | None] = WeakKeyDictionary()


def encoded(
    model: Module,
    rows: Sequence[Mapping[str, Tensor]],
    images: Sequence[str],
    inputs: Mapping[str, Any],
    engine: Engine,
) -> dict[str, Any]:
    """Return the model inputs with features in place of pixels, where possible.

    Args:
        model: The model that is to be called, adapters included.
        rows: The unpadded inputs of each row of the batch.
        images: The content key of each row's image, "" without one. One image per row.
        inputs: The batch, whose pixels are left alone if features cannot stand for them.
        engine: Whether they may (`vision_features`).
    """
    kept = known(model) if engine.vision_features and any(images) else None
    if kept is None or "pixel_values" not in inputs:
        return dict(inputs)
    if not _proven(kept, model, rows, images, inputs["input_ids"].device):
        return dict(inputs)
    return _in_place_of_pixels(kept, rows, images, inputs) or dict(inputs)


def _in_place_of_pixels(
    kept: Kept, rows: Sequence[Mapping[str, Tensor]], images: Sequence[str], inputs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the inputs with features in place of pixels, or None if they cannot be split."""
    found = _look(kept, rows, images, inputs["input_ids"].device)
    if found is None:
        return None
    rest = {key: value for key, value in inputs.items() if not key.startswith("pixel_")}
    return {**rest, "mm_encoder_outputs": {"image": found}}


def _proven(
    kept: Kept, model: Module, rows: Sequence[Mapping[str, Tensor]], images: Sequence[str], device: torch.device
) -> bool:
    """Tell whether features of up to two images give the same hidden states as their pixels."""
    places = list({image: place for place, image in enumerate(images) if image}.values())[:2]
    small = [{key: value for key, value in rows[place].items() if key != "labels"} for place in places]

    def states(*, by_features: bool) -> Tensor:
        inputs: dict[str, Any] = {key: value.to(device) for key, value in merge(small, 0).items()}
        real_bt = inputs["attention_mask"].bool()
        if by_features:
            inputs = _in_place_of_pixels(kept, small, [images[place] for place in places], inputs) or inputs
        states_btd: Tensor = kept.module(**inputs, use_cache=False).last_hidden_state
        return states_btd[real_bt]

    return probes.proven("vision_features", model, lambda: states(by_features=True), lambda: states(by_features=False))


def known(model: Module) -> Kept | None:
    """Return the valid feature cache of a model, or None if the model requires pixels."""
    if model not in _KEPT:
        _KEPT[model] = _examine(model)
    kept = _KEPT[model]
    if kept is None or any(weight.requires_grad for weight in kept.before_language):
        return None
    state = _state(kept)
    if state != kept.state:
        kept.by_image, kept.on_disk, kept.new, kept.bytes, kept.state = {}, {}, set(), 0, state
    return kept


def forget(model: Module) -> None:
    """Drop the cache of a model whose weights are about to be replaced."""
    _KEPT.pop(model, None)


@contextmanager
def shared(session: Session) -> Iterator[None]:
    """Share features with other runs on disk: read existing ones, write new ones at the end.

    They lie in one folder for each vision tower, projector and way of making pixels; one file per run.
    """
    folder = shared_cache.shared(session.out, session.engine)
    kept = known(session.model) if folder and session.engine.vision_features else None
    if kept is None or folder is None:
        yield
        return
    place = folder / "features" / _fingerprint(kept, session.processor)
    _open(kept, place)
    yield
    if known(session.model) is kept and processes.is_main():
        try:
            _save(kept, place)
        except (OSError, SafetensorError) as error:  # they are a shortcut; the run is done
            note_once(f"the image features are not shared with other runs: {error}.")


def _fingerprint(kept: Kept, processor: Any) -> str:
    """Return a hash of everything but the image that its features depend on."""
    digest = hashlib.sha256(f"{processor.image_processor.to_json_string()} {kept.state[1]}".encode())
    weights: Sequence[Any] = kept.before_language
    for weight in weights:
        for values in raw(weight):
            digest.update(values)
    return digest.hexdigest()[:16]


def _open(kept: Kept, folder: Path) -> None:
    """Index the feature files of earlier runs by image. Damaged files are skipped."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            opened = safe_open(file, framework="pt")
            kept.stacked = opened.metadata()["stacked"] == "True"
        except (OSError, SafetensorError, TypeError, KeyError) as error:
            note_once(f"the image features in {file} are not used, since the file is damaged ({error}); delete it.")
            continue
        names = by_key((name.rsplit("/", 2)[0], name) for name in sorted(opened.keys()))
        kept.on_disk.update((image, (opened, its)) for image, its in names.items())


def _read(opened: Any, names: Sequence[str]) -> Fields:
    """Read features by name from a file."""
    return by_key((name.rsplit("/", 2)[1], opened.get_tensor(name)) for name in names)


def _save(kept: Kept, folder: Path) -> None:
    """Write features that are in no file yet, if there is ample disk space."""
    tensors = {
        f"{image}/{name}/{number:03}": tensor.contiguous().clone()
        for image in kept.new & kept.by_image.keys()
        for name, layers in kept.by_image[image].items()
        for number, tensor in enumerate(layers)
    }
    folder.mkdir(parents=True, exist_ok=True)
    if not tensors or shutil.disk_usage(folder).free < 10 * sum(tensor.nbytes for tensor in tensors.values()):
        return
    name = hashlib.sha256("".join(sorted(tensors)).encode()).hexdigest()[:16]
    with atomic_writer(folder / f"{name}.safetensors") as stream:
        stream.write(save(tensors, metadata={"stacked": str(kept.stacked)}))
    kept.new = set()


def _examine(model: Module) -> Kept | None:
    """Determine whether the model accepts features, and which weights they depend on."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if "mm_encoder_outputs" not in inspect.signature(inner.forward).parameters:
        return None
    weights = before_language(inner)
    if not weights:
        return None
    arguments = frozenset(inspect.signature(inner.base_model.get_image_features).parameters) - {"kwargs"}
    return Kept(module=inner.base_model, arguments=arguments, before_language=weights)


def before_language(inner: Module) -> list[Parameter]:
    """Return the weights that image features depend on, or none if parts are unknown."""
    parts = auto.parts(inner)
    if "vision" not in parts or "language" not in parts:
        return []
    return [
        weight
        for name, module in inner.named_modules()
        if not re.fullmatch(parts["language"], name)
        for weight in module.parameters(recurse=False)
    ]


def _state(kept: Kept) -> tuple[Any, ...]:
    """Return the identity of weight versions and precision."""
    first = kept.before_language[0]
    half = torch.get_autocast_dtype(first.device.type) if torch.is_autocast_enabled(first.device.type) else first.dtype
    return (sum(version(weight) for weight in kept.before_language), half, first.device)


def _look(kept: Kept, rows: Sequence[Mapping[str, Tensor]], images: Sequence[str], device: torch.device) -> Any | None:
    """Return the vision output for a batch, from the cache where possible."""
    for image in set(images) & kept.on_disk.keys() - kept.by_image.keys():
        _keep(kept, image, _read(*kept.on_disk[image]))
    missing = {image: row for image, row in zip(images, rows, strict=True) if image and image not in kept.by_image}
    fresh = _compute(kept, list(missing.values()), device) if missing else []
    if fresh is None:
        return None
    new = dict(zip(missing, fresh, strict=True))
    for image, fields in new.items():
        _keep(kept, image, fields)
        kept.new.add(image)
    chosen = [new.get(image) or kept.by_image[image] for image in images if image]
    return _batch_of(kept, chosen, device)


def _compute(kept: Kept, rows: Sequence[Mapping[str, Tensor]], device: torch.device) -> list[Fields] | None:
    """Return the features of each row's image, or None if the output cannot be split."""
    merged = merge(rows, 0)
    inputs = {key: value.to(device) for key, value in merged.items() if key in kept.arguments and key != "input_ids"}
    with torch.no_grad():
        output = kept.module.get_image_features(**inputs, return_dict=True)
    if isinstance(output, tuple):
        return None
    kept.stacked = isinstance(output.pooler_output, Tensor)
    apart = [dict(one) for one in _split_by_image(output, len(rows))]
    if len(apart) == len(rows):
        return apart
    found = [_compute(kept, [row], device) for row in rows] if len(rows) > 1 else [None]
    return None if None in found else [fields for one in found if one for fields in one]


def _split_by_image(output: Any, count: int) -> Iterator[Iterator[tuple[str, list[Tensor]]]]:
    """Yield the fields of each image, or nothing if the output cannot be split by image."""
    fields = {name: value for name, value in output.items() if name not in _UNUSED and value is not None}
    pooled = fields.pop("pooler_output")
    if count == 1:
        yield iter((name, _listed(value)) for name, value in {"pooler_output": pooled, **fields}.items())
    elif not fields and len(pooled) == count:
        for one in pooled.split(1) if isinstance(pooled, Tensor) else pooled:
            yield iter([("pooler_output", [one])])


def _listed(value: Tensor | Sequence[Any]) -> list[Tensor]:
    """Return a field of one image as a list.

    A layer (Qwen3-VL's `deepstack_features`) holds a tuple with one tensor per image.
    """
    if isinstance(value, Tensor):
        return [value]
    return [one if isinstance(one, Tensor) else one[0] for one in value]


def _keep(kept: Kept, image: str, fields: Fields) -> None:
    """Cache the features of an image if there is room."""
    size = sum(tensor.nbytes for tensors in fields.values() for tensor in tensors)
    if kept.bytes + size <= MEMORY:
        kept.by_image[image] = {name: [tensor.cpu() for tensor in tensors] for name, tensors in fields.items()}
        kept.bytes += size


def _batch_of(kept: Kept, images: Sequence[Fields], device: torch.device) -> Any:
    """Combine the features of several images into one vision output of the model's form."""
    pooled = [one.to(device) for image in images for one in image["pooler_output"]]
    output = BaseModelOutputWithPooling(pooler_output=torch.cat(pooled) if kept.stacked else pooled)
    for name in images[0].keys() - {"pooler_output"}:
        layers = zip(*(image[name] for image in images), strict=True)
        output[name] = [tuple(one.to(device) for one in layer) for layer in layers]
    return output
