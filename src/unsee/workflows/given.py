"""Models given as Python objects, saved beside the run so that its adapter opens anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from unsee.api import VLM
from unsee.config import RECORD, paths
from unsee.distributed import processes
from unsee.errors import UserError, short_repr
from unsee.utils.files import foreign, remove_folder, require_space

SLACK: Final = 64 * 2**20
"""Bytes for everything other than weights."""


def opened_of(model: Any, processor: Any) -> VLM:
    """Return a model and its processor, in any form that `forget` takes, as a VLM.

    Raises:
        UserError: It is no whole vision-language model of transformers, or has no processor, or two.
    """
    if processor is not None and isinstance(model, str | os.PathLike | tuple | VLM):
        raise UserError(
            f"processor= belongs to a model of transformers alone, and a {type(model).__name__} comes with its own. "
            "Leave processor out."
        )
    from peft import PeftModel
    from transformers import PreTrainedModel

    from unsee.models.checkpoint import family_of_config

    if isinstance(model, VLM):
        return model
    if isinstance(model, tuple) and len(model) == 2:
        model, processor = model
    class_name = type(model).__name__
    if isinstance(model, PeftModel):
        raise UserError("The model has an adapter. Give what `model.merge_and_unload()` returns.")
    if not isinstance(model, PreTrainedModel):
        raise UserError(
            f"model must be a path, a hub id or a vision-language model of transformers, got {short_repr(class_name)}."
        )
    if processor is None:
        raise UserError(f"Give the processor of the {class_name}, too: forget(model=(model, processor), ...).")
    family = family_of_config(model.config, f"the {class_name} given as model")
    if any(weight.is_meta for weight in model.parameters()):
        raise UserError(
            f"Weights of the {class_name} are not in memory (offloaded, or on the meta device). Give its folder."
        )
    return VLM(model=model, processor=processor, family=family)


@contextmanager
def stored_base(vlm: VLM, out: Path) -> Iterator[Path]:
    """Yield the folder `OUT-base`, which holds the weights of a model object.

    The run reads them from there and leaves the object as it is. A folder of an earlier call is used again if class,
    weights and instruction are the same. If the block fails before the run has begun, a new folder is removed.

    Raises:
        UserError: The folder holds something else, the disk is too small, or there are several processes.
    """
    from unsee.evaluation.answers import weights_hash
    from unsee.models.checkpoint import read_sidecar, save_model

    if processes.world() > 1:
        raise UserError("A model object belongs to one process. Save it, and give its folder to several processes.")
    folder = paths.base_of_run(out.resolve())
    facts = {"object": {"class": type(vlm.model).__name__, "sha256": weights_hash(vlm.model)}}
    sidecar = read_sidecar(folder)
    if foreign(folder) and (sidecar.get("object") != facts["object"] or sidecar.get("instruction") != vlm.instruction):
        raise UserError(
            f"{folder} holds other weights than the model given (or none). Give the model that this run began with, or "
            "another `out`."
        )
    fresh = not foreign(folder)
    if fresh:
        weight_bytes = sum(weight.numel() * weight.element_size() for weight in vlm.model.state_dict().values())
        require_space(folder, weight_bytes + SLACK, f"the model object in {folder}")
        save_model(vlm.model, vlm.processor, folder, instruction=vlm.instruction, facts=facts)
    try:
        yield folder
    except BaseException:
        if fresh and not (out / RECORD).exists():
            remove_folder(folder)
        raise
