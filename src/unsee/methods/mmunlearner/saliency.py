"""Saliency mask of MMUnlearner (arXiv 2502.11051): D = F_T - gamma F_P > 0.

It keeps weights whose Fisher information is larger on the forget than on the retain set.

F_X is the diagonal empirical Fisher: the mean over samples of the squared gradient of the answer's cross-entropy. The mask
only asks for the sign of D, so one fp32 accumulator on the device is enough, and one sweep serves all parts of the model.

Samples come in rounds that hold the same share of T and of P; each round weighs the same on both sides. So after every
round the one accumulator is D times a positive number, its sign can be compared with that of the round before, and the
sweep ends when the bits stay what they are.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, zip_longest
from typing import Any, Final, Literal

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import Embedding, Module, Parameter

from unsee.api import Example, Part, Role, Session
from unsee.api.fast_paths import PLAIN
from unsee.api.request import Target
from unsee.data import shared_cache
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate
from unsee.losses import answer_nll
from unsee.methods.common.reference_model import weights_hash
from unsee.methods.mmunlearner.masks import Mask, count, load_mask, pack
from unsee.models.auto import evaluating
from unsee.training.precision import autocast, half
from unsee.training.recompute import Forward, recomputing, vision_rerun
from unsee.utils.grouping import by_key
from unsee.utils.progress import track
from unsee.utils.seeds import seed_of

LABELS: Final = "answer tokens and EOS"
"""Label rule, as recorded in masks."""
_ORIGIN: Final = ("transformers_version", "_name_or_path")
_SEES: Final = ("vision", "projector")
"""Parts without text-only gradients, where F_P is a mean over samples with images."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Settings of the accumulation of squared gradients."""

    gamma: float = 1.0
    """Weight of F_P: a weight is kept where F_T > gamma F_P."""
    granularity: Literal["sample", "batch"] = "sample"
    """Square the gradient per sample, or of the batch mean (as released)."""
    batch_size: int = 4
    """Samples per batch with granularity batch."""
    samples: int = 300
    """Most samples of T, and of P; P takes half of them with images and half without [inferred]."""
    every: int = 50
    """Samples of P between convergence checks [inferred]."""
    tolerance: float = 0.005
    """Stop when fewer than this share of the bits flip per `every` samples; 0 = use all samples, exactly [inferred]."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject values that no sweep could use."""
        for name in ("batch_size", "samples", "every"):
            if getattr(self, name) < 1:
                raise UserError(f"The mask's {name} must be at least 1, got {getattr(self, name)}.")
        if self.gamma <= 0 or not 0 <= self.tolerance < 1:
            raise UserError(
                f"The mask needs gamma > 0 and 0 <= tolerance < 1, got gamma {self.gamma}, tolerance {self.tolerance}."
            )


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """Result of a sweep."""

    difference: Mapping[str, Tensor]
    """D by parameter name, fp32."""
    used: Mapping[str, int]
    """Samples of T and of P that were used."""
    curve: Sequence[Mapping[str, float]] = field(default_factory=tuple)
    """Per round from the second: samples of P so far, share of flipped bits per `every` samples."""


def saliency_mask(session: Session, sweep: Sweep, *, modules: Sequence[Part] = (), also: Sequence[str] = ()) -> Mask:
    """Return the mask 1[D > 0] of the original model, from disk if it is still valid.

    Args:
        session: Model, examples and settings; to be called before training.
        sweep: How the gradients are gathered.
        modules: Parts of the model that get a mask; none = those that are trained.
        also: Ends of parameter names that get one although they are norms, embeddings or the output head.
    """
    parts = maskable(session, modules, also)
    target, preserve = targeted(session, sweep), preserved(session, sweep)
    facts = {
        "model_hash": weights_hash(session),
        "config_hash": _hashed(_config(session)),
        "data_hash": _content(session, [*target, *preserve]),
        "label_rule": LABELS,
        "modules": sorted(set(parts.values())),
        "tensors_hash": _hashed(sorted(parts)),
        "half": half(session.training),
        **asdict(sweep),
    }
    folder = shared_cache.shared(session.out, session.engine) or session.out / "work"
    path = folder / "masks" / f"{_hashed(facts)[:24]}.safetensors"
    if processes.is_main() and not path.exists():
        found = accumulate(session, parts, target, preserve, sweep)
        made = {"used": dict(found.used), "curve": [dict(row) for row in found.curve]}
        Mask.where_positive(found.difference, parts, {**facts, **made}).save(path)
    processes.barrier()
    return load_mask(path, session.model, facts["model_hash"])


def accumulate(
    session: Session, parts: Mapping[str, Part], target: Sequence[Target], preserve: Sequence[Target], sweep: Sweep
) -> Saliency:
    """Return D = F_T - gamma F_P for the parameters in `parts`.

    T and P are means over samples (over the samples with an image for vision and projector). With `tolerance` 0 there is
    one round and every sample of a side weighs the same; with several, every round does.

    Args:
        session: Model, examples and settings of the run.
        parts: Parameter name -> part of the model (`maskable`).
        target: Forget targets T.
        preserve: Targets P of what is to stay.
        sweep: How the gradients are gathered.
    """
    sides = [_units(target, sweep), _units(preserve, sweep)]
    rounds = _rounds(sides, sweep)
    used = {"target": 0, "preserve": 0}
    curve: list[dict[str, float]] = []
    first = next((kind[0] for side in sides for kind in side if kind[0][0].example.image is not None), None)
    with _squares(session, parts, first) as square:
        before: dict[str, Tensor] = {}
        for lot in track(rounds, "saliency", shown=processes.is_main()):
            for units, side, sign in zip(lot, used, (1.0, -sweep.gamma), strict=True):
                _add(session, square, units, sign)
                used[side] += sum(map(len, units))
            bits = {name: pack(total > 0) for name, total in square.totals.items()} if len(rounds) > 1 else {}
            if before:
                flipped = _flipped(before, bits, square.totals) * sweep.every / sum(map(len, lot[1]))
                curve.append({"samples": used["preserve"], "flipped": flipped})
                if flipped < sweep.tolerance:
                    break
            before = bits
    for total in square.totals.values():
        total.div_(len(curve) + 1)
    return Saliency(difference=square.totals, used=used, curve=curve)


def maskable(session: Session, modules: Sequence[Part] = (), also: Sequence[str] = ()) -> dict[str, Part]:
    """Return parameter name -> part for the trainable weights that are masked.

    Norms, embeddings and the output head (an embedding too) get none unless `also` has the end of their name.
    """
    if isinstance(session.model, PeftModel) or any(".lora_" in name for name, _ in session.model.named_parameters()):
        raise UserError(
            "A saliency mask needs the model's own weights, but this model carries LoRA adapters: those are fresh (B = 0), "
            "so half of their gradients are zero and a mask would mean nothing. Set training.tune=full (--tune full)."
        )
    wanted = _patterns(session, modules)
    model: Any = session.model
    head = model.get_output_embeddings()
    first_names = dict(model.named_parameters()).keys()
    found: dict[str, Part] = {}
    for module_name, module in model.named_modules():
        part = next((part for part, pattern in wanted.items() if re.fullmatch(pattern, module_name)), None)
        for own, weight in module.named_parameters(recurse=False):
            name = f"{module_name}.{own}"
            chosen = any(name.endswith(end) for end in also) or not _left_out(name, module, head)
            if part and chosen and weight.requires_grad and name in first_names:
                found[name] = part
    if not found:
        raise UserError(
            f"No trainable weight lies in {', '.join(wanted)}, so there is nothing to mask. Train these parts too: "
            f"--parts {','.join(wanted)}."
        )
    return found


def _patterns(session: Session, modules: Sequence[Part]) -> dict[Part, str]:
    """Return part -> module name pattern, for the masked parts."""
    known = session.family.parts(session.model)
    wanted = list(modules) or list(session.training.parts)
    unknown = [part for part in wanted if part not in known]
    if unknown:
        raise UserError(f"This model has no part {unknown[0]!r} that could be masked; it has {', '.join(known)}.")
    return {part: known[part] for part in wanted}


def targeted(session: Session, sweep: Sweep) -> list[Target]:
    """Return T: at most `samples` seen forget image questions, balanced over people."""
    examples = [example for example in session.of(Role.FORGET) if example.image is not None]
    if not examples:
        raise UserError("A saliency mask needs forget examples with images; these data have none.")
    return _drawn(examples, sweep.samples, sweep.seed)


def preserved(session: Session, sweep: Sweep) -> list[Target]:
    """Return P: half retain image questions, half text questions, balanced over people."""
    seen = [example for example in session.of(Role.RETAIN) if example.image is not None]
    read = session.of(Role.FORGET_TEXT, Role.RETAIN_TEXT)
    if not seen and not read:
        raise UserError(
            "A saliency mask needs retain, retain_text or forget_text examples, but these data have none. Add some."
        )
    each = max(1, sweep.samples // 2) if seen and read else sweep.samples
    return [*_drawn(seen, each, sweep.seed), *_drawn(read, each, sweep.seed)]


class _Squares:
    """Adds squared gradients to one accumulator per parameter during backward."""

    def __init__(self, weights: Mapping[str, Parameter], parts: Mapping[str, Part], lean: Forward) -> None:
        self.parts = parts
        self.lean = lean
        self.totals = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
        self.scale = {"all": 0.0, "seeing": 0.0}

    def take(self, name: str, weight: Parameter) -> None:
        """Add the squared gradient to the accumulator and free it."""
        grad = weight.grad.float()  # type: ignore[union-attr]
        scale = self.scale["seeing" if self.parts[name] in _SEES else "all"]
        self.totals[name].addcmul_(grad, grad, value=scale)
        weight.grad = None


@contextmanager
def _squares(session: Session, parts: Mapping[str, Part], first: Sequence[Target] | None) -> Iterator[_Squares]:
    """Enable gradients for these parameters only, and collect them, and restore afterwards.

    `first` is a unit with images, on which the fast path is tried.
    """
    model = session.model
    weights = {name: weight for name, weight in model.named_parameters() if name in parts}
    asked = {name: weight.requires_grad for name, weight in model.named_parameters()}
    model.requires_grad_(False)
    try:
        recomputed = recomputing(model, session.engine)
        with evaluating(model), recomputed as lean, _rerun(session, lean, first), ExitStack() as hooks:
            square = _Squares(weights, parts, lean)
            for name, weight in weights.items():
                weight.requires_grad_(True)
                hooks.enter_context(weight.register_post_accumulate_grad_hook(partial(square.take, name)))
            yield square
    finally:
        for name, weight in model.named_parameters():
            weight.requires_grad_(asked[name])


def _rerun(session: Session, lean: Forward, first: Sequence[Target] | None) -> AbstractContextManager[None]:
    """Return the context that checkpoints the vision tower, if there are images."""
    if first is None:
        return nullcontext()
    return vision_rerun(session.model, session.engine, lean, lambda: _plain_loss(session, first[:1]))


def _loss(session: Session, unit: Sequence[Target]) -> Tensor:
    whole = replace(
        session.vlm, engine=replace(session.engine, split_batches=False)
    )  # one gradient per unit is squared
    return answer_nll(*answer_logits(session.model, collate(whole, unit)))


def _plain_loss(session: Session, unit: Sequence[Target]) -> Tensor:
    """Return the loss without fast paths, for a trial of one."""
    return answer_nll(*answer_logits(session.model, collate(replace(session.vlm, engine=PLAIN), unit)))


def _add(session: Session, square: _Squares, units: Sequence[Sequence[Target]], sign: float) -> None:
    """Add the squared gradients of one side of a round, weighted so that they sum to `sign`."""
    seeing = [unit for unit in units if unit[0].example.image is not None]
    square.scale = {"all": sign / len(units), "seeing": sign / max(1, len(seeing))}
    for unit in units if "language" in square.parts.values() else seeing:
        with torch.enable_grad(), autocast(session.model, session.training), square.lean():
            loss = _loss(session, unit)
        loss.backward()  # type: ignore[no-untyped-call]


def _units(targets: Sequence[Target], sweep: Sweep) -> list[list[list[Target]]]:
    """Return the units that are squared, with and without images: samples or batches."""
    size = 1 if sweep.granularity == "sample" else sweep.batch_size
    seen = [target for target in targets if target.example.image is not None]
    read = [target for target in targets if target.example.image is None]
    return [[kind[i : i + size] for i in range(0, len(kind), size)] for kind in (seen, read) if kind]


def _rounds(sides: Sequence[list[list[list[Target]]]], sweep: Sweep) -> list[list[list[list[Target]]]]:
    """Split the units of each side into equal rounds of about `every` samples of P.

    No round lacks the first kind of a side; of a kind with fewer units than rounds, some rounds have none.
    """
    preserve = sum(len(unit) for kind in sides[1] for unit in kind)
    wanted = round(preserve / sweep.every) if sweep.tolerance else 1
    turns = max(1, min(wanted, *(len(side[0]) for side in sides)))

    def share(units: list[list[Target]], turn: int) -> list[list[Target]]:
        return units[turn * len(units) // turns : (turn + 1) * len(units) // turns]

    return [[[unit for kind in side for unit in share(kind, turn)] for side in sides] for turn in range(turns)]


def _flipped(before: Mapping[str, Tensor], bits: Mapping[str, Tensor], totals: Mapping[str, Tensor]) -> float:
    """Return the share of bits that changed since the last round."""
    flips = sum(count(before[name] ^ packed) for name, packed in bits.items())
    return flips / sum(total.numel() for total in totals.values())


def _left_out(name: str, module: Module, head: Module | None) -> bool:
    norm = "norm" in type(module).__name__.lower()
    return norm or isinstance(module, Embedding) or module is head or "embed" in name


def _drawn(examples: Sequence[Example], most: int, seed: int) -> list[Target]:
    """Return at most this many targets, one per person in turn, in seeded order."""
    people = by_key((example.entity or example.id, example) for example in examples)
    names = sorted(people)
    random.Random(seed_of(seed, "people")).shuffle(names)
    for name in names:
        random.Random(seed_of(seed, "examples", name)).shuffle(people[name])
    turns = chain.from_iterable(zip_longest(*(people[name] for name in names)))
    return [Target(example=example) for example in turns if example is not None][:most]


def _content(session: Session, targets: Sequence[Target]) -> str:
    """Return a hash of prompts and answers, in order, and of their encoding."""
    facts: list[Any] = [str(session.processor.image_processor.to_json_string())]
    for target in targets:
        asked, image = target.example, target.example.image
        prompt = session.family.prompt(session.processor, asked.question, has_image=image is not None)
        facts.append([prompt, asked.answer, image.key if image else ""])
    return _hashed(facts)


def _hashed(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _config(session: Session) -> dict[str, Any]:
    """Return the model config without its provenance."""
    config: Any = session.model.config
    return {key: value for key, value in config.to_dict().items() if key not in _ORIGIN}
