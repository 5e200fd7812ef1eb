"""Saliency mask of MMUnlearner (arXiv 2502.11051): D = F_T - gamma F_P > 0.

It keeps weights whose Fisher information is larger on the forget than on the retain set.

F_X is the diagonal empirical Fisher: the mean over samples of the squared gradient of the answer's cross-entropy. The mask
needs only the sign of D, so one fp32 accumulator on the device is enough, and one sweep serves all parts of the model.

Samples come in rounds that hold the same share of T and of P; each round weighs the same on both sides. So after every
round the one accumulator is D times a positive number, its sign can be compared with that of the round before, and the
sweep ends when the bits no longer change.
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
from unsee.methods.common.reference_model import pixel_settings, weights_hash
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
    target, preserve = saliency_targets(session, sweep), preserve_targets(session, sweep)
    facts = {
        "model_hash": weights_hash(session),
        "config_hash": _json_hash(_config(session)),
        "data_hash": _content(session, [*target, *preserve]),
        "label_rule": LABELS,
        "modules": sorted(set(parts.values())),
        "tensors_hash": _json_hash(sorted(parts)),
        "half": half(session.training),
        **asdict(sweep),
    }
    folder = shared_cache.shared_folder(session.out, session.engine) or session.out / "work"
    path = folder / "masks" / f"{_json_hash(facts)[:24]}.safetensors"
    if processes.is_main() and not path.exists():
        saliency = accumulate(session, parts, target, preserve, sweep)
        sweep_facts = {"used": dict(saliency.used), "curve": [dict(row) for row in saliency.curve]}
        Mask.where_positive(saliency.difference, parts, {**facts, **sweep_facts}).save(path)
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
        preserve: Retain targets P.
        sweep: How the gradients are gathered.
    """
    sides = [_units(target, sweep), _units(preserve, sweep)]
    rounds = _rounds(sides, sweep)
    sample_counts = {"target": 0, "preserve": 0}
    curve: list[dict[str, float]] = []
    image_unit = next((group[0] for side in sides for group in side if group[0][0].example.image is not None), None)
    with _squares(session, parts, image_unit) as squares:
        previous_bits: dict[str, Tensor] = {}
        for round_units in track(rounds, "saliency", shown=processes.is_main()):
            for units, side, sign in zip(round_units, sample_counts, (1.0, -sweep.gamma), strict=True):
                _add(session, squares, units, sign)
                sample_counts[side] += sum(map(len, units))
            bits = {name: pack(total > 0) for name, total in squares.totals.items()} if len(rounds) > 1 else {}
            if previous_bits:
                flipped = (
                    _flipped_share(previous_bits, bits, squares.totals) * sweep.every / sum(map(len, round_units[1]))
                )
                curve.append({"samples": sample_counts["preserve"], "flipped": flipped})
                if flipped < sweep.tolerance:
                    break
            previous_bits = bits
    for total in squares.totals.values():
        total.div_(len(curve) + 1)
    return Saliency(difference=squares.totals, used=sample_counts, curve=curve)


def maskable(session: Session, modules: Sequence[Part] = (), also: Sequence[str] = ()) -> dict[str, Part]:
    """Return parameter name -> part for the trainable weights that are masked.

    Norms, embeddings and the output head (an embedding too) get none unless `also` has the end of their name.
    """
    if isinstance(session.model, PeftModel) or any(".lora_" in name for name, _ in session.model.named_parameters()):
        raise UserError(
            "A saliency mask needs the model's own weights, but this model carries LoRA adapters: those are fresh (B = 0), "
            "so half of their gradients are zero and a mask would mean nothing. Set training.tune=full (--tune full)."
        )
    patterns = _patterns(session, modules)
    model: Any = session.model
    head = model.get_output_embeddings()
    untied_names = dict(model.named_parameters()).keys()
    parts: dict[str, Part] = {}
    for module_name, module in model.named_modules():
        part = next((part for part, pattern in patterns.items() if re.fullmatch(pattern, module_name)), None)
        for weight_name, weight in module.named_parameters(recurse=False):
            name = f"{module_name}.{weight_name}"
            eligible = any(name.endswith(end) for end in also) or not _left_out(name, module, head)
            if part and eligible and weight.requires_grad and name in untied_names:
                parts[name] = part
    if not parts:
        raise UserError(
            f"No trainable weight lies in {', '.join(patterns)}, so there is nothing to mask. Train these parts too: "
            f"--parts {','.join(patterns)}."
        )
    if unmatched := [end for end in also if not any(name.endswith(end) for name in parts)]:
        raise UserError(
            f"method.also={unmatched[0]} has no effect: no trainable weight in {', '.join(patterns)} has a name that ends so. "
            "Leave it out."
        )
    return parts


def _patterns(session: Session, modules: Sequence[Part]) -> dict[Part, str]:
    """Return part -> module name pattern, for the masked parts."""
    patterns = session.family.parts(session.model)
    requested = list(modules) or list(session.training.parts)
    unknown = [part for part in requested if part not in patterns]
    if unknown:
        raise UserError(f"This model has no part {unknown[0]!r} that could be masked; it has {', '.join(patterns)}.")
    return {part: patterns[part] for part in requested}


def saliency_targets(session: Session, sweep: Sweep) -> list[Target]:
    """Return T: at most `samples` seen forget image questions, balanced over people."""
    examples = [example for example in session.of(Role.FORGET) if example.image is not None]
    if not examples:
        raise UserError("A saliency mask needs forget examples with images; these data have none.")
    return _draw_targets(examples, sweep.samples, sweep.seed)


def preserve_targets(session: Session, sweep: Sweep) -> list[Target]:
    """Return P: half retain image questions, half text questions, balanced over people."""
    image_examples = [example for example in session.of(Role.RETAIN) if example.image is not None]
    text_examples = session.of(Role.FORGET_TEXT, Role.RETAIN_TEXT)
    if not image_examples and not text_examples:
        raise UserError(
            "A saliency mask needs retain, retain_text or forget_text examples, but these data have none. Add some."
        )
    limit = max(1, sweep.samples // 2) if image_examples and text_examples else sweep.samples
    return [*_draw_targets(image_examples, limit, sweep.seed), *_draw_targets(text_examples, limit, sweep.seed)]


class _Squares:
    """Adds squared gradients to one accumulator per parameter during backward."""

    def __init__(self, weights: Mapping[str, Parameter], parts: Mapping[str, Part], forward: Forward) -> None:
        self.parts = parts
        self.lean = forward
        self.totals = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
        self.scale = {"all": 0.0, "seeing": 0.0}

    def take(self, name: str, weight: Parameter) -> None:
        """Add the squared gradient to the accumulator and free it."""
        grad = weight.grad.float()  # type: ignore[union-attr]
        scale = self.scale["seeing" if self.parts[name] in _SEES else "all"]
        self.totals[name].addcmul_(grad, grad, value=scale)
        weight.grad = None


@contextmanager
def _squares(session: Session, parts: Mapping[str, Part], image_unit: Sequence[Target] | None) -> Iterator[_Squares]:
    """Enable gradients for these parameters only, collect them, and restore afterwards.

    `image_unit` is a unit with images, on which the fast path is tried.
    """
    model = session.model
    weights = {name: weight for name, weight in model.named_parameters() if name in parts}
    required_grad = {name: weight.requires_grad for name, weight in model.named_parameters()}
    model.requires_grad_(False)
    try:
        recomputed = recomputing(model, session.engine)
        with evaluating(model), recomputed as forward, _rerun(session, forward, image_unit), ExitStack() as hooks:
            squares = _Squares(weights, parts, forward)
            for name, weight in weights.items():
                weight.requires_grad_(True)
                hooks.enter_context(weight.register_post_accumulate_grad_hook(partial(squares.take, name)))
            yield squares
    finally:
        for name, weight in model.named_parameters():
            weight.requires_grad_(required_grad[name])


def _rerun(session: Session, forward: Forward, image_unit: Sequence[Target] | None) -> AbstractContextManager[None]:
    """Return the context that checkpoints the vision tower, if there are images."""
    if image_unit is None:
        return nullcontext()
    return vision_rerun(session.model, session.engine, forward, lambda: _plain_loss(session, image_unit[:1]))


def _loss(session: Session, unit: Sequence[Target]) -> Tensor:
    # One gradient per unit is squared, so units are not split.
    unsplit_vlm = replace(session.vlm, engine=replace(session.engine, split_batches=False))
    return answer_nll(*answer_logits(session.model, collate(replace(session, vlm=unsplit_vlm), unit)))


def _plain_loss(session: Session, unit: Sequence[Target]) -> Tensor:
    """Return the loss without fast paths, to compare a fast path with."""
    plain_session = replace(session, vlm=replace(session.vlm, engine=PLAIN))
    return answer_nll(*answer_logits(session.model, collate(plain_session, unit)))


def _add(session: Session, squares: _Squares, units: Sequence[Sequence[Target]], sign: float) -> None:
    """Add the squared gradients of one side of a round, weighted so that they sum to `sign`."""
    image_units = [unit for unit in units if unit[0].example.image is not None]
    squares.scale = {"all": sign / len(units), "seeing": sign / max(1, len(image_units))}
    for unit in units if "language" in squares.parts.values() else image_units:
        with torch.enable_grad(), autocast(session.model, session.training), squares.lean():
            loss = _loss(session, unit)
        loss.backward()  # type: ignore[no-untyped-call]


def _units(targets: Sequence[Target], sweep: Sweep) -> list[list[list[Target]]]:
    """Return the samples or batches to square the gradient of, those with images first."""
    size = 1 if sweep.granularity == "sample" else sweep.batch_size
    image_targets = [target for target in targets if target.example.image is not None]
    text_targets = [target for target in targets if target.example.image is None]
    return [
        [group[i : i + size] for i in range(0, len(group), size)] for group in (image_targets, text_targets) if group
    ]


def _rounds(sides: Sequence[list[list[list[Target]]]], sweep: Sweep) -> list[list[list[list[Target]]]]:
    """Split the units of each side into equal rounds of about `every` samples of P.

    No round lacks the first group of a side; of a group with fewer units than rounds, some rounds have none.
    """
    preserve = sum(len(unit) for group in sides[1] for unit in group)
    requested = round(preserve / sweep.every) if sweep.tolerance else 1
    round_count = max(1, min(requested, *(len(side[0]) for side in sides)))

    def share(units: list[list[Target]], round_index: int) -> list[list[Target]]:
        return units[round_index * len(units) // round_count : (round_index + 1) * len(units) // round_count]

    return [
        [[unit for group in side for unit in share(group, round_index)] for side in sides]
        for round_index in range(round_count)
    ]


def _flipped_share(
    previous_bits: Mapping[str, Tensor], bits: Mapping[str, Tensor], totals: Mapping[str, Tensor]
) -> float:
    """Return the share of bits that changed since the last round."""
    flips = sum(count(previous_bits[name] ^ packed) for name, packed in bits.items())
    return flips / sum(total.numel() for total in totals.values())


def _left_out(name: str, module: Module, head: Module | None) -> bool:
    is_norm = "norm" in type(module).__name__.lower()
    return is_norm or isinstance(module, Embedding) or module is head or "embed" in name


def _draw_targets(examples: Sequence[Example], limit: int, seed: int) -> list[Target]:
    """Return at most this many targets, one per person in turn, in seeded order."""
    by_person = by_key((example.entity or example.id, example) for example in examples)
    names = sorted(by_person)
    random.Random(seed_of(seed, "people")).shuffle(names)
    for name in names:
        random.Random(seed_of(seed, "examples", name)).shuffle(by_person[name])
    interleaved = chain.from_iterable(zip_longest(*(by_person[name] for name in names)))
    return [Target(example=example) for example in interleaved if example is not None][:limit]


def _content(session: Session, targets: Sequence[Target]) -> str:
    """Return a hash of prompts and answers, in order, and of their encoding."""
    facts: list[Any] = [pixel_settings(session.processor)]
    for target in targets:
        example, image = target.example, target.example.image
        prompt = session.family.prompt(
            session.processor, example.question, has_image=image is not None, instruction=session.instruction
        )
        facts.append([prompt, example.answer, image.key if image else ""])
    return _json_hash(facts)


def _json_hash(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _config(session: Session) -> dict[str, Any]:
    """Return the model config without its provenance."""
    config: Any = session.model.config
    return {key: value for key, value in config.to_dict().items() if key not in _ORIGIN}
