"""Estimator of memory, disk and steps of a run, on a model without weights.

The largest batch of the run's own plan goes through it (`unsee.models.meta_device`, `unsee.workflows.memory_model`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from unsee.api import Example, Needs, Role, Session, Training
from unsee.api.fast_paths import engine_named
from unsee.api.request import Prompt, Target
from unsee.compat.fake_tensors import weightless, with_values
from unsee.config import Run
from unsee.errors import UserError
from unsee.inference.batching import Batch, collate
from unsee.inference.encoder import CACHE_BYTES as ENCODED_BYTES
from unsee.inference.encoder import encoder
from unsee.inference.vision_cache import MEMORY
from unsee.methods.common.reference_model import CACHE_BYTES, CHUNK
from unsee.models.checkpoint import ADAPTER_WEIGHTS, adapter_base, open_config
from unsee.models.location import ADAPTER, folder_of
from unsee.models.meta_device import without_weights
from unsee.models.quantized_base import held_bytes
from unsee.training.batch_plan import Plan
from unsee.training.precision import half
from unsee.training.robust import extra_bytes
from unsee.training.stop_rule import seen_probes
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainable import prepare
from unsee.training.trainer import plan_batches
from unsee.utils import memory
from unsee.utils.files import GIB, existing_ancestor
from unsee.utils.parsing import read_object
from unsee.workflows.forget import bytes_needed, require_encodable
from unsee.workflows.memory_model import Pass, Peak, Stage, passes, per_token

WEIGHTS: Final = "model.safetensors"
_LOOKED_AT: Final = 256
"""Batches of the plan among which the largest is searched."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated bytes of a run. `problems` prevent it from starting or fitting."""

    method: str
    device: str
    """cpu: one memory; cuda: GPU memory, and `host` for main memory."""
    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    """Further peak memory of a training step."""
    reference: int
    """Reference model, and what method and training.robust keep per trained weight."""
    caches: int
    """Encoded images, image features and cached reference outputs; in main memory, also with a GPU."""
    training: int
    """Peak while training."""
    answering: int
    """Peak of generation (stop rule, rollouts); 0 = none."""
    saving: int
    """Peak while a checkpoint is written."""
    memory: int
    """The largest of these."""
    host: int
    """Main memory beside a GPU; 0 on a CPU."""
    disk: int
    batch: str
    """Batch of the training peak."""
    steps: int = 0
    """Optimiser steps, at most; a stop rule may end earlier."""
    seconds: float | None = None
    """Time of a run of all steps on this machine, from a short probe; None = not measured."""
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return a table as text."""
        share = self.trainable / max(1, self.parameters)
        rows = [
            ("parameters", f"{self.parameters:,}"),
            ("trainable", f"{self.trainable:,} ({share:.2%})"),
            ("weights", _in_gib(self.weights)),
            ("gradients", _in_gib(self.gradients)),
            ("optimizer state", _in_gib(self.optimizer)),
            ("activations", f"{_in_gib(self.activations)} ({self.batch})"),
            ("reference", _in_gib(self.reference)),
            ("caches", _in_gib(self.caches)),
            ("peak in training", _in_gib(self.training)),
            ("peak in answering", _in_gib(self.answering)),
            ("peak in saving", _in_gib(self.saving)),
            (f"memory ({self.device})", _in_gib(self.memory)),
            *([("main memory beside it", _in_gib(self.host))] if self.host else []),
            ("disk", _in_gib(self.disk)),
            ("steps, at most", f"{self.steps:,}"),
            *([] if self.seconds is None else [("time, at most", f"about {_in_words(self.seconds)}")]),
        ]
        lines = [f"{name:<22} {value}" for name, value in rows]
        lines += [f"remark: {remark}" for remark in self.remarks]
        return "\n".join([*lines, *(f"problem: {problem}" for problem in self.problems)])


@dataclass(frozen=True, kw_only=True)
class _Peaks:
    """Peaks above the weights."""

    step: Peak
    """Of a training step."""
    reference: Peak
    """Of reference log-likelihoods."""
    encoding: Peak
    """Of a frozen vision tower."""
    generation: Peak


class Estimator:
    """Estimate of one run in progress."""

    def __init__(
        self, run: Run, training: Training, examples: Mapping[Role, Sequence[Example]], needs: Needs, device: str
    ) -> None:
        """Build the model of the run without weights. `device`: auto, cpu or cuda."""
        self.run, self.training, self.needs = run, training, needs
        present_device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = device if device != "auto" else present_device
        self.here = self.device == present_device
        """Whether this machine has the device."""
        self.steps = self.checks = 0
        # of a GPU that is not here: most have bf16
        assumed_bf16 = training.precision == "auto" and self.device == "cuda"
        self.half = half(training) if self.here else assumed_bf16 or training.precision == "bf16"
        with without_weights(self.device):
            vlm = open_config(run.model)
        resolved_training = replace(training, precision="bf16" if self.half else "fp32")
        self.model = prepare(vlm.model, vlm.family, resolved_training, run.seed)
        self.engine = engine_named(run.engine)
        self.session = Session(
            vlm=replace(vlm, model=self.model, engine=self.engine),
            examples=examples,
            training=training,
            seed=run.seed,
            out=Path(run.out),
        )
        model: Any = self.model
        self.head = model.get_output_embeddings().weight
        self.parameters = sum(weight.numel() for weight in self.model.parameters())
        self.trainable = sum(w.numel() for w in self.model.parameters() if w.requires_grad) if needs.trains else 0
        self.loading = sum(weight.nbytes for weight in self.model.parameters())
        """Bytes of the weights as they are loaded, before any quantisation."""
        self.weights, self.unpacked = held_bytes(self.model, training.quantization)

    def estimate(self) -> Estimate:
        """Run the largest batch through the weightless model and sum up."""
        require_encodable(self.session)
        plan = self._plan()
        if self.needs.trains:
            self.steps = plan.steps
            self.checks = plan.steps // (self.training.check_every or plan.steps_per_epoch)
        terms = [passes(self.model, batch) for batch in (self._largest(plan) if self.needs.trains else [])]
        reference_passes = self._reference_passes(plan)
        images = [image for term in terms for forward_pass in term for image in forward_pass.images]
        with weightless(self.model) as model:
            stage = Stage(model, self.training, self.engine, half=self.half)
            peaks = _Peaks(
                step=stage.step(terms, self.needs) if terms else Peak(bytes=0),
                reference=stage.reference(reference_passes) if reference_passes else Peak(bytes=0),
                encoding=Peak(bytes=0) if stage.encodes_images else stage.encoding(images[: self.training.batch_size]),
                generation=self._generation(stage, plan),
            )
            feature_bytes = 0 if stage.encodes_images or not images else stage.features(images[0])
        bytes_per_weight = self.needs.beside + extra_bytes(self.training)
        reference_bytes = self._reference() + int(bytes_per_weight * self.trainable)
        return self._memory_estimate(
            peaks, reference_bytes, self._caches(plan, images, feature_bytes), _batch_text(terms)
        )

    def _memory_estimate(self, peaks: _Peaks, reference: int, caches: int, batch: str) -> Estimate:
        """Return the memory in training, generation and saving."""
        optimizer, disk = 8 * self.trainable, bytes_needed(self.model, self.training)
        fixed = self.weights + self.unpacked + reference + (caches if self.device == "cpu" else 0)
        before_training = max(peaks.encoding.bytes, peaks.reference.bytes, int(self.needs.before * self.trainable))
        training = fixed + max(optimizer + peaks.step.bytes, before_training)
        answering = fixed + optimizer + peaks.generation.bytes if peaks.generation.bytes else 0
        saving = fixed + optimizer + 4 * self.trainable  # tensors are copied, then written as they lie in memory
        loading = self.loading if self.device == "cpu" else 0  # a quantised model is loaded into main memory first
        needed_memory = max(loading, training, answering, saving)
        return Estimate(
            method=self.run.method,
            device=self.device,
            parameters=self.parameters,
            trainable=self.trainable,
            weights=self.weights,
            gradients=peaks.step.gradients,
            optimizer=optimizer,
            activations=max(0, training - fixed - optimizer - peaks.step.gradients),
            reference=reference,
            caches=caches,
            training=training,
            answering=answering,
            saving=saving,
            memory=needed_memory,
            host=0 if self.device == "cpu" else caches + self.loading,
            disk=disk,
            batch=batch,
            steps=self.steps,
            problems=tuple(self._problems(needed_memory, disk)),
            remarks=tuple(self._remarks(peaks.step.exact and peaks.encoding.exact and peaks.generation.exact)),
        )

    def _plan(self) -> Plan:
        retain = retain_targets(self.session, float(self.needs.retain)) if self.needs.trains else []
        return plan_batches(self.session, forget_targets(self.session), retain, max(1, self.needs.retain))

    def _largest(self, plan: Plan) -> list[Batch]:
        """Return the forget and retain batch with the most tokens, judged by characters."""
        batches = [plan.batch(index) for index in range(min(len(plan), _LOOKED_AT))]
        largest_targets = [max((pair[side] for pair in batches), key=_size) for side in (0, 1)]
        return [
            collate(self.session, [*targets] * (self.needs.rows if side == 0 else 1))
            for side, targets in enumerate(largest_targets)
            if targets
        ]

    def _reference_passes(self, plan: Plan) -> list[Pass]:
        """Return the largest batch of reference log-likelihoods, if there are any."""
        precomputed = self.needs.likelihoods or (self.needs.teacher and self.training.tune == "full")
        if not precomputed or not self.engine.reference:
            return []
        targets = plan.forget if self.needs.likelihoods else plan.retain or plan.forget
        longest = sorted(targets, key=lambda target: _size([target]), reverse=True)
        return passes(self.model, collate(self.session, longest[:CHUNK]))

    def _reference(self) -> int:
        """Return the reference model's memory: nothing with LoRA, a head or copy with full tuning."""
        if not (self.needs.teacher or self.needs.likelihoods):
            return 0
        if not self.engine.reference:
            return self.weights
        return int(self.head.nbytes) if self.needs.teacher and self.training.tune == "full" else 0

    def _caches(self, plan: Plan, images: Sequence[Mapping[str, Any]], feature_bytes: int) -> int:
        """Return main memory of caches: pixels, image features, reference states."""
        count = len({_identity(target.example) for target in (*plan.forget, *plan.retain) if target.example.image})
        pixel_bytes = (
            sum(value.nbytes for key, value in images[0].items() if not per_token(images[0], key)) if images else 0
        )
        cached_bytes = min(ENCODED_BYTES, count * pixel_bytes) + min(MEMORY, count * feature_bytes)
        if self.needs.teacher and self.engine.reference:
            targets = plan.retain or plan.forget
            characters = sum(len(target.example.answer) for target in targets)
            cached_bytes += min(
                CACHE_BYTES, int(characters / 3 + len(targets)) * self.head.shape[1] * (2 if self.half else 4)
            )
        return cached_bytes

    def _generation(self, stage: Stage, plan: Plan) -> Peak:
        """Return the peak of generation for the stop rule or for rollouts."""
        examples = seen_probes(plan.forget) if self.training.stop == "forgotten" and self.needs.trains else []
        examples = examples or ([target.example for target in plan.forget] if self.needs.generates else [])
        if not examples:
            return Peak(bytes=0)
        longest = max(examples, key=lambda example: len(example.question))
        with with_values():
            row = encoder(self.session.processor, self.session.family).row(Prompt.of(longest, self.session.instruction))
            prompt_length = int(row["input_ids"].shape[1])
        prefix_count = len({_identity(example) for example in examples})
        return stage.generation(prefix_count, prompt_length, len(examples), self.training.max_new_tokens)

    def _problems(self, needed_memory: int, disk: int) -> Iterator[str]:
        if missing := missing_weights(self.run.model):
            yield missing
        folder = existing_ancestor(Path(self.run.out).resolve())
        free_disk = shutil.disk_usage(folder).free
        if free_disk < disk:
            yield f"the run writes {_in_gib(disk)}, {folder} has {_in_gib(free_disk)} free; free some space or choose another --out."
        free_memory = memory.free_bytes(self.device)
        if free_memory is not None and free_memory < needed_memory:
            yield (
                f"the run takes {_in_gib(needed_memory)} of memory, {_in_gib(free_memory)} are free; lower training.batch_size, set "
                "training.gradient_checkpointing=true or training.tune=lora, or quantize the base (--quantization nf4)."
            )

    def _remarks(self, exact: bool) -> Iterator[str]:
        if not exact:
            yield "the vision tower of this model cannot be run without values; what it needs beside its weights is left out."
        if self.needs.generates:
            yield "the method trains on answers that it draws first; their length is taken to be that of the data's answers."
        if self.device == "cpu":
            yield "the C library may keep freed blocks; MALLOC_MMAP_THRESHOLD_=65536 in the environment gives them back."


def missing_weights(model: Path | str) -> str:
    """Return which weight files of a local model are missing, "" if none."""
    folder = folder_of(model)
    if not isinstance(folder, Path):
        return ""
    if (folder / ADAPTER).exists():
        has_weights = (folder / ADAPTER_WEIGHTS).is_file()
        return (
            missing_weights(adapter_base(folder))
            if has_weights
            else f"{folder} lacks weights: adapter_model.safetensors."
        )
    index_file = folder / f"{WEIGHTS}.index.json"
    file_names = {WEIGHTS}
    if index_file.is_file():
        weight_map = read_object(index_file).get("weight_map")
        if not isinstance(weight_map, Mapping):
            raise UserError(
                f"{index_file} is damaged: it has no weight_map. Restore it from where the model came from."
            )
        file_names = set(weight_map.values())
    missing = ", ".join(name for name in sorted(file_names) if not (folder / name).is_file())
    return f"{folder} lacks weights: {missing}." if missing else ""


def _size(targets: Sequence[Target]) -> tuple[int, int]:
    examples = [target.example for target in targets]
    return sum(example.image is not None for example in examples), sum(
        len(example.question) + len(example.answer) for example in examples
    )


def _identity(example: Example) -> object:
    """Return an identity of an example's image without reading it."""
    try:
        return hash(example.image)
    except TypeError:
        return id(example.image)


def _batch_text(terms: Sequence[Sequence[Pass]]) -> str:
    return ", then ".join(
        " and ".join(f"{forward_pass.rows} rows of {forward_pass.tokens} tokens" for forward_pass in term)
        for term in terms
    )


def _in_words(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    >>> _in_words(42.4), _in_words(600), _in_words(9000)
    ('42 seconds', '10 minutes', '2.5 hours')
    """
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _in_gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.1f} MiB"
