"""FSDP2: sharding of weights, averaging of gradients, gathering of full weights."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Module, Parameter

from unsee.compat.deepspeed import full_weight, is_partitioned, local_part
from unsee.compat.fsdp import unsplittable
from unsee.distributed import processes
from unsee.errors import UserError

BUCKET: Final = 2**24
"""Numbers per all-reduce when gradients are averaged (64 MiB in fp32)."""


def full_tensor(tensor: Tensor) -> Tensor:
    """All-gather a possibly sharded tensor. Collective: every rank must call it."""
    if is_partitioned(tensor):
        return full_weight(tensor)
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_sharded(weight: Tensor) -> bool:
    """Tell whether each rank holds only a part of the weight."""
    return isinstance(weight, DTensor) or is_partitioned(weight)


def local_shard(weight: Tensor) -> Tensor:
    """Return this rank's part of a weight, the whole of it if it is not sharded."""
    if is_partitioned(weight):
        return local_part(weight)
    return weight.to_local() if isinstance(weight, DTensor) else weight


def spread_like(tensor: Tensor, weight: Tensor) -> Tensor:
    """Shard the tensor as the weight is. Collective: every rank passes the same tensor."""
    if not isinstance(weight, DTensor):
        return tensor
    return distribute_tensor(tensor.to(weight.device), weight.device_mesh, weight.placements)


def average_gradients(weights: Sequence[Parameter]) -> None:
    """Average every gradient over the ranks, in fp32.

    A weight without a gradient on any rank keeps none.

    Sharded weights are skipped: their gradients were averaged in the backward pass.
    """
    if processes.world() == 1 or any(map(is_sharded, weights)):
        return
    grad_flags = torch.tensor(
        [weight.grad is not None for weight in weights], dtype=torch.int32, device=weights[0].device
    )
    distributed.all_reduce(grad_flags, distributed.ReduceOp.MAX)
    grads = []
    for weight, has_grad in zip(weights, grad_flags.tolist(), strict=True):
        if has_grad and weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        grads += [weight.grad] if has_grad and weight.grad is not None else []
    for bucket in _buckets(grads):
        _average(bucket)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(member.numel() for member in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _average(tensors: Sequence[Tensor]) -> None:
    flat = torch.cat([tensor.float().flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= processes.world()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def shard(model: Module, language: str) -> None:
    """Shard the weights of the model in place.

    Layers of the language model (`language`: a regular expression on module names) are units of their own: those of the
    classes named by the launcher's config file, else those that transformers says must not be split. All the rest is one
    unit, because a process whose rows have no image calls no vision layer, and the others would wait for it.
    """
    processes.start()
    class_names = os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "")
    classes = {name.strip() for name in class_names.split(",") if name.strip()} or unsplittable(model)
    layers = [
        module
        for name, module in model.named_modules()
        if type(module).__name__ in classes and re.fullmatch(language, name)
    ]
    if not layers:
        raise UserError(
            f"No layer of the model is of class {', '.join(sorted(classes)) or '(none known)'}; name the layers' class in the "
            "launcher's config file: fsdp_transformer_layer_cls_to_wrap."
        )
    settings = _settings(next(model.parameters()).device.type)
    for layer in layers:
        fully_shard(layer, reshard_after_forward=_reshards(), **settings)
    fully_shard(model, **settings)


def shell_of(model: Module) -> Module:
    """Return a copy of the model without weights, for `unsharded`."""
    memo: dict[int, Any] = {id(weight): _empty(weight) for weight in model.parameters()}
    shell: Module = copy.deepcopy(model, memo)
    return shell


def unsharded(shell: Module, model: Module) -> Module:
    """Return an unsharded model on every rank. The sharded one is consumed."""
    buffers = dict(model.named_buffers())
    weights = {name: full_tensor(weight).detach() for name, weight in model.named_parameters(remove_duplicate=False)}
    shared: dict[int, Parameter] = {}
    for name, meta_weight in list(shell.named_parameters(remove_duplicate=False)):
        owner, _, attribute = name.rpartition(".")
        parameter = shared.setdefault(
            id(meta_weight), Parameter(weights[name], requires_grad=meta_weight.requires_grad)
        )
        setattr(shell.get_submodule(owner), attribute, parameter)
    for name, buffer in shell.named_buffers():
        buffer.copy_(buffers[name])
    return shell.train(model.training)


@contextmanager
def gathered_weights(model: Module) -> Iterator[None]:
    """Gather all weights on every rank for the block, so that ranks can run independently."""
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(_reshards() and unit is not model, recurse=False)


def _reshards() -> bool:
    """Tell whether layers reshard after forward, as set in the launcher's config file."""
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in ("true", "1", "full_shard")


def _settings(device: str) -> Mapping[str, Any]:
    offload = os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true"
    return {
        "mesh": init_device_mesh(device, (processes.world(),)),
        "offload_policy": CPUOffloadPolicy() if offload and device != "cpu" else OffloadPolicy(),
    }


def _empty(weight: Parameter) -> Parameter:
    return Parameter(torch.empty_like(weight, device="meta"), requires_grad=weight.requires_grad)
