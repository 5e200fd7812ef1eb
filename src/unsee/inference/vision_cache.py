"""Cache of image features from a frozen vision tower and projector, keyed by image hash.

Works for every model whose forward takes `mm_encoder_outputs` (LLaVA, LLaVA-NeXT, Qwen-VL, InternVL, Idefics3, Gemma 3, ...),
as long as nothing before the language model is trained; any other model gets pixels.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import Module, Parameter
from transformers.modeling_outputs import BaseModelOutputWithPooling

from unsee.api import Session
from unsee.api.fast_paths import Engine
from unsee.compat import probes
from unsee.compat.models import active_adapters, adapter_layers, config_facts, unwrapped
from unsee.compat.tensors import raw, version
from unsee.data import shared_cache
from unsee.distributed import processes
from unsee.models import auto
from unsee.models.padding import is_sequence, merge
from unsee.utils.files import atomic_writer
from unsee.utils.grouping import by_key
from unsee.utils.terminal import note_once

MEMORY: Final = 2 * 2**30
"""Limit of the cache in bytes; features beyond it are read from disk or recomputed each time."""
_UNUSED: Final = frozenset({"last_hidden_state", "hidden_states", "attentions"})
"""Fields of a vision output that no language model reads."""

Fields = dict[str, list[Tensor]]
"""Output field -> one tensor per image (`pooler_output`), or one per layer."""


@dataclass
class FeatureCache:
    """Feature cache of one model."""

    module: Any
    """Model inside adapters."""
    arguments: frozenset[str]
    """Arguments of `get_image_features`."""
    before_language: list[Parameter]
    """All weights that the features depend on."""
    adapters: list[Any]
    """Modules with adapters among those that the features depend on."""
    state: tuple[Any, ...] = ()
    """Weight versions, precision and active adapters of the cached features."""
    by_image: dict[str, Fields] = field(default_factory=dict)
    bytes: int = 0
    on_disk: dict[str, tuple[Any, list[str]]] = field(default_factory=dict)
    """Image -> open file with its features, and their names in it."""
    new: set[str] = field(default_factory=set)
    """Images whose features are in no file yet."""
    stacked: bool = False
    """Whether the output is one tensor for all images, instead of a list with one per image."""


_CACHES: WeakKeyDictionary[Module, FeatureCache | None] = WeakKeyDictionary()


def with_features(
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
        inputs: The batch, returned with its pixels if features cannot replace them.
        engine: Fast paths in use; `vision_features` allows features.
    """
    cache = feature_cache(model) if engine.vision_features and any(images) else None
    if cache is None or "pixel_values" not in inputs:
        return dict(inputs)
    if not _proven(cache, model, rows, images, inputs["input_ids"].device):
        return dict(inputs)
    return _in_place_of_pixels(cache, rows, images, inputs) or dict(inputs)


def _in_place_of_pixels(
    cache: FeatureCache, rows: Sequence[Mapping[str, Tensor]], images: Sequence[str], inputs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the inputs with features in place of pixels, or None if they cannot be split."""
    features = _vision_output(cache, rows, images, inputs["input_ids"].device)
    if features is None:
        return None
    other_inputs = {key: value for key, value in inputs.items() if not key.startswith("pixel_")}
    return {**other_inputs, "mm_encoder_outputs": {"image": features}}


def _proven(
    cache: FeatureCache,
    model: Module,
    rows: Sequence[Mapping[str, Tensor]],
    images: Sequence[str],
    device: torch.device,
) -> bool:
    """Tell whether features of up to two images give the same hidden states as their pixels."""
    indices = list({image: index for index, image in enumerate(images) if image}.values())[:2]

    def states(*, by_features: bool) -> Tensor:
        trial_rows = [_trial_row(cache, rows[index]) for index in indices]
        inputs: dict[str, Any] = {key: value.to(device) for key, value in merge(trial_rows, 0).items()}
        real_bt = inputs["attention_mask"].bool()
        if by_features:
            inputs = _in_place_of_pixels(cache, trial_rows, [images[index] for index in indices], inputs) or inputs
        states_btd: Tensor = cache.module(**inputs, use_cache=False).last_hidden_state
        return states_btd[real_bt]

    return probes.proven("vision_features", model, lambda: states(by_features=True), lambda: states(by_features=False))


def _trial_row(cache: FeatureCache, row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the inputs of a row by itself. Rows of several questions lack token types, since they come with positions."""
    trial_row = {key: value for key, value in row.items() if key != "labels"}
    image_token = auto.image_token_id(cache.module)
    needed = "image_grid_thw" in row and "mm_token_type_ids" in inspect.signature(cache.module.forward).parameters
    if image_token is not None and needed and not is_sequence(row, "mm_token_type_ids"):
        trial_row["mm_token_type_ids"] = row["input_ids"].eq(image_token).long()
    return trial_row


def feature_cache(model: Module) -> FeatureCache | None:
    """Return the valid feature cache of a model, or None if the model requires pixels."""
    if model not in _CACHES:
        _CACHES[model] = _examine(model)
    cache = _CACHES[model]
    if cache is None or any(weight.requires_grad for weight in cache.before_language):
        return None
    state = _state(cache)
    if state != cache.state:
        cache.by_image, cache.on_disk, cache.new, cache.bytes, cache.state = {}, {}, set(), 0, state
    return cache


def forget(model: Module) -> None:
    """Drop the cache of a model whose weights are about to be replaced."""
    _CACHES.pop(model, None)


@contextmanager
def shared_features(
    session: Session, precision: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Iterator[None]:
    """Share features with other runs on disk: read existing ones, write new ones at the end.

    One folder per vision tower, projector, config and image preprocessing; one file per run.

    Args:
        session: Session whose model looks at the images.
        precision: Makes the context of its forward passes, which features of another precision do not serve.
    """
    folder = shared_cache.shared_folder(session.out, session.engine)
    with precision():
        cache = feature_cache(session.model) if folder and session.engine.vision_features else None
    if cache is None or folder is None:
        yield
        return
    features_folder = folder / "features" / _fingerprint(cache, session)
    _open(cache, features_folder)
    yield
    with precision():
        is_valid = feature_cache(session.model) is cache
    if is_valid and processes.is_main():
        try:
            _save(cache, features_folder)
        except (OSError, SafetensorError) as error:  # an optional cache, and the run is done
            note_once(f"the image features are not shared with other runs: {error}.")


def _fingerprint(cache: FeatureCache, session: Session) -> str:
    """Return a hash of everything but the image that its features depend on."""
    config = json.dumps(config_facts(session.model), sort_keys=True, default=str)
    classes = f"{type(cache.module).__qualname__} {type(session.family).__qualname__}"
    facts = [session.processor.image_processor.to_json_string(), *map(str, cache.state[1::2]), classes, config]
    digest = hashlib.sha256(" ".join(facts).encode())
    weights: Sequence[Any] = cache.before_language
    for weight in weights:
        for values in raw(weight):
            digest.update(values)
    return digest.hexdigest()[:16]


def _open(cache: FeatureCache, folder: Path) -> None:
    """Index the feature files of earlier runs by image. Damaged files are skipped."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            tensor_file = safe_open(file, framework="pt")
            cache.stacked = tensor_file.metadata()["stacked"] == "True"
        except (OSError, SafetensorError, TypeError, KeyError) as error:
            note_once(f"the image features in {file} are not used, since the file is damaged ({error}); delete it.")
            continue
        names_by_image = by_key((name.rsplit("/", 2)[0], name) for name in sorted(tensor_file.keys()))
        cache.on_disk.update((image, (tensor_file, names)) for image, names in names_by_image.items())


def _read(tensor_file: Any, names: Sequence[str]) -> Fields:
    """Read features by name from a file."""
    return by_key((name.rsplit("/", 2)[1], tensor_file.get_tensor(name)) for name in names)


def _save(cache: FeatureCache, folder: Path) -> None:
    """Write features that are in no file yet, if there is ample disk space."""
    tensors = {
        f"{image}/{name}/{index:03}": tensor.contiguous().clone()
        for image in cache.new & cache.by_image.keys()
        for name, layers in cache.by_image[image].items()
        for index, tensor in enumerate(layers)
    }
    folder.mkdir(parents=True, exist_ok=True)
    if not tensors or shutil.disk_usage(folder).free < 10 * sum(tensor.nbytes for tensor in tensors.values()):
        return
    name = hashlib.sha256("".join(sorted(tensors)).encode()).hexdigest()[:16]
    with atomic_writer(folder / f"{name}.safetensors") as stream:
        stream.write(save(tensors, metadata={"stacked": str(cache.stacked)}))
    cache.new = set()


def _examine(model: Module) -> FeatureCache | None:
    """Determine whether the model accepts features, and which weights they depend on."""
    inner = unwrapped(model)
    if "mm_encoder_outputs" not in inspect.signature(inner.forward).parameters:
        return None
    weights = before_language(inner)
    if not weights:
        return None
    arguments = frozenset(inspect.signature(inner.base_model.get_image_features).parameters) - {"kwargs"}
    adapters = adapter_layers(_modules_before_language(inner))
    return FeatureCache(module=inner.base_model, arguments=arguments, before_language=weights, adapters=adapters)


def before_language(inner: Module) -> list[Parameter]:
    """Return the weights that image features depend on, or none if parts are unknown."""
    return [weight for module in _modules_before_language(inner) for weight in module.parameters(recurse=False)]


def _modules_before_language(inner: Module) -> list[Module]:
    """Return the modules that image features depend on, or none if parts are unknown."""
    parts = auto.parts(inner)
    if "vision" not in parts or "language" not in parts:
        return []
    return [module for name, module in inner.named_modules() if not re.fullmatch(parts["language"], name)]


def _state(cache: FeatureCache) -> tuple[Any, ...]:
    """Return the identity of weight versions, precision and active adapters."""
    first_weight = cache.before_language[0]
    dtype = (
        torch.get_autocast_dtype(first_weight.device.type)
        if torch.is_autocast_enabled(first_weight.device.type)
        else first_weight.dtype
    )
    versions = sum(version(weight) for weight in cache.before_language)
    return versions, dtype, first_weight.device, active_adapters(cache.adapters)


def _vision_output(
    cache: FeatureCache, rows: Sequence[Mapping[str, Tensor]], images: Sequence[str], device: torch.device
) -> Any | None:
    """Return the vision output for a batch, from the cache where possible."""
    by_image = {image: cache.by_image[image] for image in set(images) & cache.by_image.keys()}
    for image in set(images) & cache.on_disk.keys() - by_image.keys():
        by_image[image] = _read(*cache.on_disk[image])
        _keep(cache, image, by_image[image])
    missing_rows = {image: row for image, row in zip(images, rows, strict=True) if image and image not in by_image}
    new_features = _compute(cache, list(missing_rows.values()), device) if missing_rows else []
    if new_features is None:
        return None
    for image, fields in zip(missing_rows, new_features, strict=True):
        by_image[image] = fields
        _keep(cache, image, fields)
        cache.new.add(image)
    return _batch_of(cache, [by_image[image] for image in images if image], device)


def _compute(cache: FeatureCache, rows: Sequence[Mapping[str, Tensor]], device: torch.device) -> list[Fields] | None:
    """Return the features of each row's image, or None if the output cannot be split."""
    merged = merge(rows, 0)
    inputs = {key: value.to(device) for key, value in merged.items() if key in cache.arguments and key != "input_ids"}
    with torch.no_grad():
        output = cache.module.get_image_features(**inputs, return_dict=True)
    if isinstance(output, tuple):
        return None
    cache.stacked = isinstance(output.pooler_output, Tensor)
    split_fields = [dict(fields) for fields in _split_by_image(output, len(rows))]
    if len(split_fields) == len(rows):
        return split_fields
    per_row = [_compute(cache, [row], device) for row in rows] if len(rows) > 1 else [None]
    return None if None in per_row else [fields for row_fields in per_row if row_fields for fields in row_fields]


def _split_by_image(output: Any, count: int) -> Iterator[Iterator[tuple[str, list[Tensor]]]]:
    """Yield the fields of each image, or nothing if the output cannot be split by image."""
    fields = {name: value for name, value in output.items() if name not in _UNUSED and value is not None}
    pooled = fields.pop("pooler_output")
    if count == 1:
        yield iter((name, _as_list(value)) for name, value in {"pooler_output": pooled, **fields}.items())
    elif not fields and len(pooled) == count:
        for features in pooled.split(1) if isinstance(pooled, Tensor) else pooled:
            yield iter([("pooler_output", [features])])


def _as_list(value: Tensor | Sequence[Any]) -> list[Tensor]:
    """Return a field of one image as a list.

    A layer (Qwen3-VL's `deepstack_features`) holds a tuple with one tensor per image.
    """
    if isinstance(value, Tensor):
        return [value]
    return [layer if isinstance(layer, Tensor) else layer[0] for layer in value]


def _keep(cache: FeatureCache, image: str, fields: Fields) -> None:
    """Cache the features of an image if there is room."""
    size = sum(tensor.nbytes for tensors in fields.values() for tensor in tensors)
    if cache.bytes + size <= MEMORY:
        cache.by_image[image] = {name: [tensor.cpu() for tensor in tensors] for name, tensors in fields.items()}
        cache.bytes += size


def _batch_of(cache: FeatureCache, image_fields: Sequence[Fields], device: torch.device) -> Any:
    """Combine the features of several images into one vision output of the model's form."""
    pooled = [tensor.to(device) for fields in image_fields for tensor in fields["pooler_output"]]
    output = BaseModelOutputWithPooling(pooler_output=torch.cat(pooled) if cache.stacked else pooled)
    for name in image_fields[0].keys() - {"pooler_output"}:
        layers = zip(*(fields[name] for fields in image_fields), strict=True)
        output[name] = [tuple(tensor.to(device) for tensor in layer) for layer in layers]
    return output
