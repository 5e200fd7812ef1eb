"""Generation for many prompts: shared image prefixes, greedy or seeded sampling.

Shapes: b batch, t tokens, v vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from unsee.api import VLM
from unsee.api.fast_paths import PLAIN
from unsee.api.request import Completion, Prompt, Sampling
from unsee.compat.probes import proven, verdict
from unsee.errors import NotFiniteError
from unsee.inference.batching import device_of, require_room
from unsee.inference.decoding import decode
from unsee.inference.encoder import encoder
from unsee.inference.packing import packable
from unsee.inference.prefix_groups import Group, groups
from unsee.models.auto import eos_id, evaluating, pad_id
from unsee.models.padding import batchable_groups, merge
from unsee.utils.progress import track
from unsee.utils.seeds import seed_of

PROBED: Final = 3
"""Tokens decoded in the trial of shared prefixes."""
NEUTRAL: Final[dict[str, tuple[object, ...]]] = {
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "bad_words_ids": (None,),
    "sequence_bias": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "stop_strings": (None,),
    "guidance_scale": (None, 1.0),
    "watermarking_config": (None,),
    "penalty_alpha": (None, 0.0),
    "prompt_lookup_num_tokens": (None,),
    "dola_layers": (None,),
}
"""Settings of generation_config.json that change greedy decoding, with their neutral values."""


class _Gumbel(LogitsProcessor):
    """Exact sampling by greedy decoding (Gumbel-max), with one random stream per prompt.

    So an answer depends on its seed and index in the prompt list, not on what else is in the batch.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int], rows: Sequence[int] = ()) -> None:
        self.temperature = sampling.temperature
        self.top_p = TopPLogitsWarper(sampling.top_p) if sampling.top_p < 1 else None
        self.seeds = seeds
        self.rows = rows
        self.generators: dict[int, torch.Generator] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - transformers' call
        """Return perturbed scores for the rows given at construction."""
        return self.draw(scores, self.rows)

    def draw(self, scores_bv: Tensor, rows: Sequence[int]) -> Tensor:
        """Return scores whose argmax is a sample for each row's prompt. Rows of -1 are skipped."""
        scaled_bv = scores_bv.float() / self.temperature
        if self.top_p is not None:
            scaled_bv = self.top_p(None, scaled_bv)
        size = scores_bv.shape[1]
        uniform_bv = torch.stack(
            [torch.rand(size, generator=self._of(row)) if row >= 0 else torch.ones(size) for row in rows]
        )
        noise_bv = -(-uniform_bv.clamp(1e-20, 1 - 1e-7).log()).log()
        return scaled_bv + noise_bv.to(scores_bv.device)

    def _of(self, row: int) -> torch.Generator:
        if row not in self.generators:
            self.generators[row] = torch.Generator().manual_seed(self.seeds[row])
        return self.generators[row]


def generate(
    vlm: VLM,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    sampling: Sampling | None = None,
    seed: int = 0,
    progress: str = "",
    places: Sequence[int] | None = None,
) -> list[Completion]:
    """Generate one response per prompt, in order. Greedy unless `sampling` is given.

    Args:
        vlm: Model, processor, family and instruction.
        prompts: Questions with or without an image.
        max_new_tokens: Most tokens of a response, EOS included.
        batch_size: Rows per forward pass.
        sampling: Temperature and nucleus to draw with.
        seed: Seed of the draws, together with the index of the prompt.
        progress: Label of a progress line; empty for none.
        places: Indices of the prompts in the list that several processes share; 0, 1, ... if not given.
    """
    indices = range(len(prompts)) if places is None else places
    seeds = [seed_of(seed, index) for index in indices] if sampling else []
    stops = _stops(vlm)
    with torch.no_grad(), evaluating(vlm.model):
        shared_groups, plain_indices = _split(vlm, prompts)
        indexed_ids = decode(
            vlm.model,
            shared_groups,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            stops=stops,
            pad_id=pad_id(vlm.processor),
            engine=vlm.engine,
            draw=_Gumbel(sampling, seeds).draw if sampling else None,
        )
        generation = _PlainGeneration(vlm, prompts, max_new_tokens, batch_size)
        generated = chain(indexed_ids, generation.run(plain_indices, sampling, seeds))
        ids_by_index = dict(track(generated, progress, len(prompts), shown=bool(progress)))
    return [completion_of(vlm.processor, ids_by_index.get(i, ()), stops) for i in range(len(prompts))]


def stream(
    vlm: VLM,
    prompt: Prompt,
    *,
    max_new_tokens: int,
    on_text: Callable[[str], None],
) -> Completion:
    """Generate one greedy response.

    The response is that of `generate` without its fast paths. What `on_text` raises ends the generation.

    Args:
        vlm: Model, processor, family and instruction.
        prompt: Question with or without an image.
        max_new_tokens: Most tokens of the response, EOS included.
        on_text: Called with the whole text so far, after every token.
    """
    generation = _PlainGeneration(vlm, [prompt], max_new_tokens, 1)
    read = partial(completion_of, vlm.processor, stops=_stops(vlm))
    streamer = _TextStreamer(lambda ids: on_text(read(ids).text.rstrip("\ufffd")))  # half a character
    with torch.no_grad(), evaluating(vlm.model):
        (ids,) = generation.proceed(generation.rows([0]), [_Numbers([0])], streamer)
    return read(ids)


class _TextStreamer:
    """Streamer that passes on all tokens so far: `put` and `end` are what transformers' `generate` calls."""

    def __init__(self, on_ids: Callable[[Sequence[int]], None]) -> None:
        self.on_ids = on_ids
        self.ids: list[int] | None = None

    def put(self, value: Tensor) -> None:
        """Note a token. The first call brings the prompt."""
        if self.ids is None:
            self.ids = []
            return
        self.ids += value.flatten().tolist()
        self.on_ids(self.ids)

    def end(self) -> None:
        """Do nothing: the caller has the response."""


def _split(vlm: VLM, prompts: Sequence[Prompt]) -> tuple[Iterator[Group], list[int]]:
    """Return groups of prompts that share prefixes, and the indices of all others.

    The list fills while the groups are read.
    """
    image_token = packable(vlm.model) if vlm.engine.shared_prefix and _neutral(vlm.model) else None
    if image_token is None or not _sharing_proven(vlm, prompts, image_token):
        return iter(()), list(range(len(prompts)))
    plain_indices: list[int] = []

    def sharable() -> Iterator[Group]:
        for group in groups(vlm.processor, vlm.family, prompts, image_token):
            if group.sharable(image_token):
                require_room(vlm.model, max(map(len, group.ids)), prompts[group.places[0]].question)
                yield group
            else:
                plain_indices.extend(group.places)

    return sharable(), plain_indices


def _sharing_proven(vlm: VLM, prompts: Sequence[Prompt], image_token: int) -> bool:
    """Tell whether two questions behind a shared prefix have the logits of separate prompts."""
    earlier_verdict = verdict("prefix_cache", vlm.model)
    if earlier_verdict is not None or not prompts:
        return earlier_verdict is not False
    first_prompt = next((prompt for prompt in prompts if prompt.image), prompts[0])
    probe_prompts = [first_prompt, replace(first_prompt, question=f"{first_prompt.question} Why?")]
    group = next(groups(vlm.processor, vlm.family, probe_prompts, image_token))
    if not group.sharable(image_token):
        return True  # such questions take the plain path
    answer_ids = group.ids[0][-PROBED:]
    return proven(
        "prefix_cache",
        vlm.model,
        lambda: _behind_prefix(vlm, group, answer_ids),
        lambda: torch.cat([_from_pixels(vlm, prompt, answer_ids) for prompt in probe_prompts]),
    )


def _behind_prefix(vlm: VLM, group: Group, answer_ids: Sequence[int]) -> Tensor:
    """Return the logits at each answer token of a group, decoded behind its prefix."""
    logits_by_index: dict[int, list[Tensor]] = {index: [] for index in group.places}

    def force(logits_nv: Tensor, indices: Sequence[int]) -> Tensor:
        forced_nv = torch.zeros_like(logits_nv)
        for row, index in enumerate(indices):
            if index >= 0:
                forced_nv[row, answer_ids[len(logits_by_index[index])]] = 1
                logits_by_index[index].append(logits_nv[row])
        return forced_nv

    decoded = decode(
        vlm.model,
        iter([group]),
        max_new_tokens=len(answer_ids),
        batch_size=2,
        stops=set(),
        pad_id=pad_id(vlm.processor),
        engine=PLAIN,
        draw=force,
    )
    deque(decoded, maxlen=0)
    return torch.stack([logits_v for index in group.places for logits_v in logits_by_index[index]])


def _from_pixels(vlm: VLM, prompt: Prompt, answer_ids: Sequence[int]) -> Tensor:
    """Return the logits at each answer token, from one pass over the whole prompt."""
    row = encoder(vlm.processor, vlm.family).row(prompt)
    row = vlm.family.extend(row, answer_ids[:-1])
    inputs = {key: value.to(device_of(vlm.model)) for key, value in row.items()}
    logits_tv: Tensor = vlm.model(**inputs, use_cache=False).logits[0, -len(answer_ids) :]
    return logits_tv


def _neutral(model: Any) -> bool:
    """Tell whether the checkpoint's generation settings leave greedy decoding unchanged."""
    config = model.generation_config.to_dict()
    return all(config.get(name) in neutral for name, neutral in NEUTRAL.items())


@dataclass(frozen=True)
class _PlainGeneration:
    """Requests for transformers' own `generate`, one full prompt per row."""

    vlm: VLM
    prompts: Sequence[Prompt]
    max_new_tokens: int
    batch_size: int

    def run(
        self, indices: Iterable[int], sampling: Sampling | None, seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[int]]]:
        """Yield (index, generated tokens), sorted by length.

        `indices` is read when the first answer is requested.
        """
        order = sorted(indices, key=lambda i: _length(self.prompts[i]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            rows = self.rows(batch)
            for group in batchable_groups(rows):
                chunk = [batch[i] for i in group]
                sampler = _Gumbel(sampling, seeds, chunk) if sampling else None
                checks = [_Numbers(chunk), *([sampler] if sampler else [])]
                yield from zip(chunk, self.proceed([rows[i] for i in group], checks), strict=True)

    def rows(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return the model inputs of these prompts."""
        encode = encoder(self.vlm.processor, self.vlm.family)
        prompts = [self.prompts[i] for i in indices]
        rows = [*map(encode.row, prompts)]
        for prompt, row in zip(prompts, rows, strict=True):
            require_room(self.vlm.model, row["input_ids"].shape[1], prompt.question)
        return rows

    def proceed(
        self,
        rows: Sequence[dict[str, Tensor]],
        checks: Sequence[LogitsProcessor],
        streamer: _TextStreamer | None = None,
    ) -> list[list[int]]:
        """Return the ids generated after each prompt, padding included."""
        pad = pad_id(self.vlm.processor)
        inputs = {key: value.to(device_of(self.vlm.model)) for key, value in merge(rows, pad).items()}
        model: Any = self.vlm.model
        ids_bt = model.generate(
            **inputs,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad,
            eos_token_id=sorted(_stops(self.vlm)),
            logits_processor=LogitsProcessorList(checks),
            streamer=streamer,
        )
        generated: list[list[int]] = ids_bt[:, inputs["input_ids"].shape[1] :].tolist()
        return generated


class _Numbers(LogitsProcessor):
    """Logits processor that raises on NaN logits."""

    def __init__(self, rows: Sequence[int]) -> None:
        self.rows = rows

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - transformers' call
        """Return the scores unchanged."""
        invalid = (~scores.max(-1).values.isfinite()).tolist()
        if any(invalid):
            index = self.rows[invalid.index(True)]
            raise NotFiniteError(f"request {index + 1}", index)
        return scores


def _length(prompt: Prompt) -> tuple[bool, int]:
    """Return a sort key by length without encoding: images are longer than any text."""
    return prompt.image is not None, len(prompt.instruction) + len(prompt.question)


def _stops(vlm: VLM) -> set[int]:
    model: Any = vlm.model
    return stop_ids(vlm.processor, model.generation_config)


def stop_ids(processor: Any, settings: Any) -> set[int]:
    """Return the stop token ids: the processor's EOS and those of the generation settings."""
    configured = settings.eos_token_id
    eos_ids = configured if isinstance(configured, list) else [configured]
    return {eos_id(processor), *(stop for stop in eos_ids if stop is not None)}


def completion_of(processor: Any, ids: Sequence[int], stops: Collection[int]) -> Completion:
    """Truncate generated ids at the first stop token and decode."""
    end = next((position for position, token in enumerate(ids) if token in stops), None)
    token_ids = tuple(ids[:end])
    text = processor.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Completion(text.strip(), token_ids, end is not None)
