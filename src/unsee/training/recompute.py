"""Recomputation of cheap activations (norms, activation functions, gates) in backward.

Autograd saves every tensor that a backward formula needs. In a transformer about 40 % of those bytes are outputs of
elementwise functions whose inputs are saved anyway. Such an output is dropped, and recomputed from its input by the same
operation when backward needs it, so the bits are the same. Example, the gated MLP `down(act(gate(x)) * up(x))`:

    saved by autograd                           with recomputation
    gate(x)             for act                 saved
    act(gate(x))        for the product         recomputed from gate(x)
    up(x)               for the product         saved
    product             for down's weights      recomputed from act(gate(x)) and up(x)

Matrix products and attention are never recomputed: `training.gradient_checkpointing` does that, and `vision_rerun` for the
vision tower in a sweep over all weights.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import Node, saved_tensors_hooks
from torch.nn import Linear, Module, Parameter
from torch.utils.hooks import RemovableHandle

from unsee.api.fast_paths import Engine
from unsee.compat import replaced, tensors
from unsee.compat.models import unwrapped
from unsee.compat.probes import proven
from unsee.distributed import processes
from unsee.inference.vision_cache import before_language

SMALLEST: Final = 1 << 14
"""Tensors below this size in bytes are saved as usual."""
_FUNCTIONS: Final = ("torch.nn.modules.activation", "transformers.activations")
"""Modules that define activation functions."""
_OTHER_INPUTS: Final = (RuntimeError, TypeError, ValueError, IndexError)
"""Exceptions of norms that take images or several inputs; these are left alone."""
Forward = Callable[[], AbstractContextManager[object]]


@contextmanager
def recomputing(model: Module, engine: Engine, *, checkpointing: bool = False) -> Iterator[Forward]:
    """Yield the context for forward passes that save no cheap activations.

    Their backward passes may run after it.

    It does nothing without the engine's `recompute`, and beside gradient checkpointing, which keeps less.
    """
    if checkpointing or not engine.recompute or not _proven(model):
        yield nullcontext
        return
    with _recomputing(model) as forward:
        yield forward


@contextmanager
def _recomputing(model: Module) -> Iterator[Forward]:
    """Yield that context without a trial on the model."""
    registry = _Registry()
    costly_modules = [module for module in model.modules() if _keeps_more(module)]
    with ExitStack() as hooks:
        for handle in [handle for module in model.modules() for handle in _add_hooks(module, registry)]:
            hooks.enter_context(handle)
        with replaced.mixed_in(costly_modules, _Lean):
            yield registry.forward


class _Gated(Module):
    """Module of the model before a gate and a linear layer, for the trial of recomputation."""

    def __init__(self, module: Module) -> None:
        super().__init__()
        weight = next(module.parameters(), torch.empty(64))
        self.shape, self.module = weight.shape, module
        self.behind = Linear(weight.shape[-1], 8, bias=False, dtype=weight.dtype, device=weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """Return the linear layer's output for the gated input."""
        out: Tensor = self.behind(self.module(x) * x)
        return out

    def gradients(self, forward: Forward) -> Tensor:
        """Return the gradients for an input and for the linear layer."""
        weight = self.behind.weight
        rows = 1 + SMALLEST // (weight.element_size() * self.shape.numel())
        x = torch.linspace(-2, 2, rows * self.shape.numel(), dtype=weight.dtype, device=weight.device)
        x = x.view(rows, *self.shape).requires_grad_()
        with torch.enable_grad():
            with forward():
                out = self(x * 1)
            grads = torch.autograd.grad(out.float().square().sum(), [x, weight])
        return torch.cat([grad.flatten().float() for grad in grads])


def _proven(model: Module) -> bool:
    """Tell whether recomputing each kind of norm and function preserves the gradients."""
    kinds = {type(module): module for module in model.modules() if _is_function(module) or _is_norm(module)}
    if not kinds:
        return True

    def gradients(*, lean: bool) -> Tensor:
        torch.manual_seed(0)
        grads = [torch.empty(0)]
        for kind, module in list(kinds.items()):
            gated = _Gated(module)
            with _recomputing(gated) if lean else nullcontext(nullcontext) as forward:
                try:
                    grads.append(gated.gradients(forward).cpu())
                except _OTHER_INPUTS:
                    if lean:
                        raise
                    del kinds[kind]
        return torch.cat(grads)

    return proven("recompute", model, lambda: gradients(lean=True), lambda: gradients(lean=False))


@contextmanager
def vision_rerun(model: Module, engine: Engine, forward: Forward, loss: Callable[[], Tensor]) -> Iterator[None]:
    """Checkpoint the vision tower and projector: rerun their forward pass in backward.

    Their activations are dropped, so that those of the tower and of the language model are never in memory at the same time.
    For passes that are backpropagated once, without dropout. Models with cross-attention to images inside the language model
    (Mllama), and sharded ones, are left as they are.

    Args:
        model: The model.
        engine: Whether this path is on (`recompute`).
        forward: Context of the second pass.
        loss: Loss on one example with an image, without fast paths, for the trial of this one.
    """
    inner = unwrapped(model)
    base = inner.base_model
    if not engine.recompute or "get_image_features" not in dir(base) or processes.sharding() != "none":
        yield
        return
    weights = before_language(inner)

    def trial(*, lean: bool) -> Tensor:
        with _rerun(base, weights, forward) if lean else nullcontext():
            return _gradient_norms(model, weights, loss)

    if not proven("vision_rerun", model, lambda: trial(lean=True), lambda: trial(lean=False)):
        yield
        return
    with _rerun(base, weights, forward):
        yield


@contextmanager
def _rerun(base: Any, weights: Sequence[Parameter], forward: Forward) -> Iterator[None]:
    """Replace the model's `get_image_features` by one that is rerun in backward."""
    encode = base.get_image_features

    @wraps(encode)
    def twice(*args: Any, **inputs: Any) -> Any:
        if not torch.is_grad_enabled() or not any(weight.requires_grad for weight in weights):
            return encode(*args, **inputs)
        rebuilders: list[Callable[[list[Any]], Any]] = []
        leaves = _Twice.apply(torch.empty(0, requires_grad=True), lambda: encode(*args, **inputs), forward, rebuilders)  # type: ignore[no-untyped-call]
        return rebuilders[0](list(leaves))

    with replaced.image_features(base, twice):
        yield


def _gradient_norms(model: Module, weights: Sequence[Parameter], loss: Callable[[], Tensor]) -> Tensor:
    """Return the norm of the gradient of this loss for each weight.

    The gradients that the weights had are restored afterwards.
    """
    saved = [(weight, weight.requires_grad, weight.grad) for weight in model.parameters()]
    try:
        model.requires_grad_(False)
        for weight in weights:
            weight.grad = None
            weight.requires_grad_(True)
        with torch.enable_grad():
            loss().backward()  # type: ignore[no-untyped-call]
        return torch.stack([weight.new_zeros(()) if weight.grad is None else weight.grad.norm() for weight in weights])
    finally:
        for weight, trained, grad in saved:
            weight.requires_grad_(trained)
            weight.grad = grad


class _Twice(torch.autograd.Function):
    """Autograd function that drops its result and reruns it in backward."""

    @staticmethod
    def forward(
        ctx: Any, _: Tensor, call: Callable[[], Any], context: Forward, rebuilders: list[Callable[[list[Any]], Any]]
    ) -> tuple[Any, ...]:  # type: ignore[override]
        """Return the leaves of the result, and append the function that rebuilds its containers."""
        leaves, rebuild = tensors.flattened(call())
        rebuilders.append(rebuild)
        ctx.set_materialize_grads(False)
        ctx.call, ctx.around = call, context
        ctx.autocast = _around(next(leaf for leaf in leaves if isinstance(leaf, Tensor)))
        return tuple(leaves)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[None, None, None, None]:  # type: ignore[override]
        """Rerun and backpropagate into the weights."""
        with torch.enable_grad(), ctx.autocast(), ctx.around():
            leaves, _ = tensors.flattened(ctx.call())
        indices = [index for index, grad in enumerate(grads) if grad is not None and leaves[index].requires_grad]
        torch.autograd.backward([leaves[index] for index in indices], [grads[index] for index in indices])
        return None, None, None, None


def _add_hooks(module: Module, registry: _Registry) -> Iterator[RemovableHandle]:
    """Add hooks to a module if it is cheap, or may follow a gate."""
    if _is_function(module) or _is_norm(module):
        yield module.register_forward_hook(registry.note_output, with_kwargs=True)
    elif isinstance(module, Linear):
        yield module.register_forward_pre_hook(registry.note_product)


def _is_norm(module: Module) -> bool:
    """Tell whether this is a norm without running statistics whose weights last to backward.

    Weights spread over processes may be elsewhere.
    """
    bare = not list(module.children()) and not list(module.buffers(recurse=False))
    return bare and "norm" in type(module).__name__.lower() and processes.sharding() == "none"


def _is_function(module: Module) -> bool:
    """Tell whether this is an elementwise function without weights."""
    bare = not list(module.children()) and not list(module.parameters(recurse=False))
    return bare and type(module).__module__ in _FUNCTIONS


def _keeps_more(module: Module) -> bool:
    """Tell whether autograd saves more than the input.

    QuickGELU saves its sigmoid, an RMSNorm in half precision an fp32 copy.

    Not for norms whose weights are trained: those need more than the input's gradient.
    """
    weights = list(module.parameters(recurse=False))
    if not (_is_function(module) or _is_norm(module)) or any(weight.requires_grad for weight in weights):
        return False
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    options: dict[str, Any] = {"dtype": weights[0].dtype, "device": weights[0].device} if weights else {}
    x = torch.ones(64, *(weights[0].shape if weights else ()), **options)
    try:
        with torch.enable_grad(), saved_tensors_hooks(pack, lambda x: x):
            module.forward(x.requires_grad_())
    except _OTHER_INPUTS:
        return False
    weight_storages = {tensors.storage_id(weight) for weight in weights}
    sizes = {tensors.storage_id(tensor): tensor.untyped_storage().nbytes() for tensor in saved}
    return sum(size for storage, size in sizes.items() if storage not in weight_storages) > 1.5 * x.nbytes


class _Lean:
    """Mixin for a function or frozen norm that saves only its input."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns."""
        if args or kwargs:
            return super().forward(x, *args, **kwargs)  # type: ignore[misc]
        return _Again.apply(x, super().forward)  # type: ignore[misc,no-untyped-call]


class _Again(torch.autograd.Function):
    """Autograd function that saves only its input and recomputes in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:  # type: ignore[override]
        """Return the function of x."""
        ctx.save_for_backward(x)
        ctx.function, ctx.around = function, _around(x)
        return function(x)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Return the gradient for x."""
        x = ctx.saved_tensors[0].detach().requires_grad_(True)
        with torch.enable_grad(), ctx.around():
            y = ctx.function(x)
        return torch.autograd.grad(y, x, grad)[0], None


def _around(x: Tensor) -> Forward:
    """Return a context that restores the current autocast state."""
    device_type = x.device.type
    if not torch.is_autocast_enabled(device_type):
        return nullcontext
    dtype = torch.get_autocast_dtype(device_type)
    return lambda: torch.autocast(device_type, dtype=dtype)


@dataclass
class _Recipe:
    """Recomputation of one tensor."""

    make: Callable[[], Tensor]
    uses: int = 0
    """Remaining uses."""
    cached: Tensor | None = None
    """Recomputed tensor, while further uses remain."""

    def get(self) -> Tensor:
        """Return the tensor, recomputed unless cached."""
        tensor = self.make() if self.cached is None else self.cached
        self.uses -= 1
        self.cached = tensor if self.uses > 0 else None
        return tensor


@dataclass(frozen=True)
class _Packed:
    """Placeholder of a saved tensor: a view of what the recipe computes."""

    recipe: _Recipe
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


@dataclass
class _Registry:
    """Tensors of the forward pass by storage, valid while the tensor is alive."""

    entries: dict[int, tuple[weakref.ref[Tensor], _Recipe]] = field(default_factory=dict)
    forwards: int = 0
    early: bool = False
    """Whether a node's saved tensors are read before its own turn, so that they are needed twice."""

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Save few activations of the forward passes in the block."""
        self.forwards += 1
        try:
            with saved_tensors_hooks(self.pack, self.unpack):
                yield
        finally:
            self.forwards -= 1
            self.entries.clear()  # a graph refers to this object, which must not refer to the graph

    def note_output(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Register the output of a cheap module, if the input is all it depends on."""
        single_input = len(args) == 1 and not kwargs
        if self.forwards and single_input and isinstance(out, Tensor) and out.requires_grad:
            self._note(out, _remaking(module, args[0]))

    def note_product(self, _: Module, args: tuple[Any, ...]) -> None:
        """Register a linear layer's input if it is a product of two saved tensors."""
        node = args[0].grad_fn if self.forwards and args and isinstance(args[0], Tensor) else None
        if node is not None and node.name() == "MulBackward0" and all(operand for operand, _ in node.next_functions):
            self._note(args[0], lambda: self._product(node))

    def _note(self, tensor: Tensor, make: Callable[[], Tensor]) -> None:
        storage = tensor.untyped_storage()
        is_whole = tensor.is_contiguous() and tensor.nbytes == storage.nbytes() >= SMALLEST
        key = tensors.storage_id(tensor)
        entry = self._alive(key)
        if is_whole and tensors.version(tensor) == 0 and (entry is None or entry[0] is not tensor):
            self.entries[key] = (weakref.ref(tensor), _Recipe(make))

    def _alive(self, address: int) -> tuple[Tensor, _Recipe] | None:
        """Return the live tensor of a storage and its recipe, or None if it is gone."""
        reference, recipe = self.entries.get(address, (None, None))
        tensor = reference() if reference is not None else None
        if tensor is None or recipe is None or tensors.storage_id(tensor) != address:
            return None
        return tensor, recipe

    def pack(self, tensor: Tensor) -> Tensor | _Packed:
        """Return a recipe for the tensor if one is known, else the tensor."""
        entry = self._alive(tensors.storage_id(tensor))
        if entry is None or tensor.dtype != entry[0].dtype or tensors.version(tensor):
            return tensor
        entry[1].uses += 1
        return _Packed(entry[1], tensor.size(), tensor.stride(), int(tensor.storage_offset()))

    def unpack(self, packed: Tensor | _Packed) -> Tensor:
        """Return the tensor."""
        if isinstance(packed, Tensor):
            return packed
        packed.recipe.uses += self.early
        return packed.recipe.get().as_strided(packed.size, packed.stride, packed.offset)

    def _product(self, node: Node) -> Tensor:
        """Return the output of a product node from its saved operands."""
        self.early = True
        try:
            left, right = tensors.operands(node)
        finally:
            self.early = False
        with torch.no_grad():
            product: Tensor = left * right
        return product.contiguous()


def _remaking(module: Module, x: Tensor) -> Callable[[], Tensor]:
    """Return a function that recomputes a cheap module's output."""
    detached, version, autocast_context, forward = x.detach(), tensors.version(x), _around(x), module.forward

    def make() -> Tensor:
        if tensors.version(detached) != version:
            raise RuntimeError(f"The input of {type(module).__name__} was changed in place before the backward pass.")
        with torch.no_grad(), autocast_context():
            output: Tensor = forward(detached)
        return output.contiguous()

    return make
