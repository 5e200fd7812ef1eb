"""Responses of a model, cached per run and, by content, across runs.

A response in the run folder is reused only if its key matches: a hash of weights, setup (processor and configs), instruction,
prompt, image, example and decoding. The shared folder (`unsee.data.shared_cache`) has one file per weights, setup and decoding,
keyed by prompt and image, so that no model generates the same response twice, whatever the run, the example's role or the batch.
Importing this module loads no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unsee.api import VLM, Example, Family, Response
from unsee.api.fast_paths import Engine
from unsee.api.request import Completion, Decoding, ModelBackend, Prompt, Values
from unsee.data import shared_cache
from unsee.distributed import processes
from unsee.errors import NotFiniteError, UserError
from unsee.evaluation import likelihood_targets
from unsee.utils.files import atomic_write_json, atomic_write_jsonl, remove_listed
from unsee.utils.grouping import by_key

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


RESPONSES: Final = "responses.jsonl"
KEYS: Final = "responses.keys.jsonl"
SCORES: Final = "scores.json"
FOUND: Final = (SCORES, "safety.json", "factuality.json", "steering.json")
"""Files with the results of judging the answers."""
JUDGED: Final = "judged.json"
"""File with the hash of the evaluated weights and of the gold model, which identifies seeds of one row; until all answers
are generated and judged, it holds the number of questions instead."""
_CHUNK: Final = 8
"""Batches between two writes, the most work that an interruption can lose."""
_UNMEASURED: Final[Mapping[str, Any]] = {
    "logprob": None,
    "logprob_tokens": 0,
    "option_logprobs": (),
    "true_logprob": None,
    "perturbed_logprobs": (),
    "clip": None,
}
"""Fields of a response that are computed apart from generation."""
_WHERE_GIVEN: Final = ("accepted", "paraphrase", "perturbed")
"""Rare fields, part of a key only where they are set, so that older keys stay valid."""
_VOLATILE: Final = frozenset({"architectures", "dtype", "quantization_config", "transformers_version", "use_cache"})
"""Config entries, besides those that begin with `_`, that depend on how a model was opened or repeat what its weights tell."""


@dataclass(frozen=True)
class HFBackend:
    """Backend for an opened model in this process."""

    vlm: VLM

    @property
    def processor(self) -> Any:
        """Processor."""
        return self.vlm.processor

    @property
    def family(self) -> Family:
        """Model family."""
        return self.vlm.family

    @property
    def instruction(self) -> str:
        """Text that precedes every question."""
        return self.vlm.instruction

    @cached_property
    def weights(self) -> str:
        """SHA-256 of all weights, with adapters and steering."""
        from unsee.models.steering.hooks import hashes

        return weights_hash(self.vlm.model) + "".join(hashes(self.vlm.model))

    @cached_property
    def setup(self) -> str:
        """SHA-256 of configs, image preprocessing and tokenizer."""
        return setup_hash(self.vlm.model, self.vlm.processor)

    def say(self, requests: Sequence[Prompt], decoding: Decoding, label: str) -> list[Completion]:
        """Generate through `unsee.inference.generation`."""
        from unsee.inference.generation import generate

        return generate(
            self.vlm,
            requests,
            max_new_tokens=decoding.max_new_tokens,
            batch_size=decoding.batch_size,
            seed=decoding.seed,
            progress=label,
        )

    def measure(self, asked: Sequence[tuple[Prompt, Example]], batch_size: int, label: str) -> list[Values]:
        """Compute log-probabilities of answers and options, or nothing for a steered model.

        Steering acts during generation only, so this pass would measure the unsteered model.
        """
        from unsee.inference.likelihood import likelihoods_and_choices
        from unsee.models.steering.hooks import steerings_of

        if steerings_of(self.vlm.model):
            return [{} for _ in asked]

        answers = [(request, text) for request, example in asked for text in likelihood_targets.texts(example)]
        choices = [
            (index, request, form)
            for index, (request, example) in enumerate(asked)
            for form in likelihood_targets.forms(example)
        ]
        answer_likelihoods, best_choices = likelihoods_and_choices(
            self.vlm,
            answers,
            [(request, options) for _, request, options in choices],
            batch_size=batch_size,
            progress=label,
        )
        values: list[Values] = [{} for _ in asked]
        likelihoods = iter(answer_likelihoods)
        for index, (_, example) in enumerate(asked):
            values[index] |= likelihood_targets.likely(
                example, [next(likelihoods) for _ in likelihood_targets.texts(example)]
            )
        for (index, _, _), choice in zip(choices, best_choices, strict=True):
            best_logprobs = values[index].get("option_logprobs")
            if best_logprobs is None or max(choice.logprobs) > max(best_logprobs):
                values[index]["option_logprobs"] = list(choice.logprobs)
        return values


def collect_responses(
    backend: ModelBackend,
    examples: Sequence[Example],
    records: Sequence[Response],
    out: Path,
    decoding: Decoding,
    *,
    likelihood: bool = False,
    progress: bool = True,
    engine: Engine,
) -> list[Response]:
    """Return all responses in the order of the examples, resuming an interrupted call.

    Every process returns all answers; the main one writes them.

    Args:
        backend: Model that answers.
        examples: Questions, with their images.
        records: Response record of each example without its text, in the same order.
        out: Folder of responses.jsonl; an interrupted call is continued.
        decoding: Length limit, batch size and seed of the responses.
        likelihood: Compute log-probabilities of answers and options too.
        progress: Show a progress line.
        engine: Whether values are shared with other runs (`shared_cache`).
    """
    prompts = _prompts(backend, examples)
    keys = _keys(backend, prompts, records, decoding)
    response_by_id = {
        record.id: replace(stored, stage=record.stage)
        for record, stored in processes.from_main(_stored_answers(out, records, keys))
    }
    if processes.is_main():
        _begin(out, response_by_id, keys)

    def keep(new_values: Mapping[int, Values]) -> None:
        responses = [replace(records[index], **new_values[index]) for index in sorted(new_values)]
        response_by_id.update((response.id, response) for response in responses)
        if processes.is_main():
            _append(out / RESPONSES, (response.to_json() for response in responses))
            _append(out / KEYS, ({"id": response.id, "key": keys[response.id]} for response in responses))

    work = _Work(out, backend, examples, records, prompts, decoding, progress, engine)
    work.answers([index for index, record in enumerate(records) if record.id not in response_by_id], keep)
    answers = [replace(response_by_id[record.id], **_UNMEASURED) for record in records]
    if likelihood:
        likelihood_values = work.likelihoods()
        answers = [_with_values(response, likelihood_values[index]) for index, response in enumerate(answers)]
    if processes.is_main():
        atomic_write_jsonl(out / RESPONSES, (response.to_json() for response in answers))
    processes.barrier()
    return answers


@dataclass(frozen=True)
class _Work:
    """Examples to be answered, and the shared cache."""

    out: Path
    backend: ModelBackend
    examples: Sequence[Example]
    records: Sequence[Response]
    prompts: Sequence[str]
    decoding: Decoding
    progress: bool
    engine: Engine

    def answers(self, indices: Sequence[int], keep: Callable[[Mapping[int, Values]], None]) -> None:
        """Generate responses for these indices and pass them to `keep`, chunk by chunk."""

        def ask(chunk: Sequence[int], label: str) -> list[Values]:
            completions = self._generate(chunk, label)
            return [
                {
                    "text": completion.text,
                    "tokens": len(completion.token_ids) + completion.ended,
                    "ended": completion.ended,
                }
                for completion in completions
            ]

        keys = {index: _digest([self.prompts[index], self.records[index].image_key]) for index in indices}
        self._through(self._rows(["answers", *self.decoding.facts()]), keys, "Answers", ask, keep)

    def _generate(self, indices: Sequence[int], label: str) -> list[Completion]:
        """Generate responses. A non-finite output raises an error that names the example."""
        try:
            return self.backend.say([self._request(index) for index in indices], self.decoding, label)
        except NotFiniteError as error:
            example = self.examples[indices[error.place]] if error.place >= 0 else None
            description = (
                "one of the examples" if example is None else f"example {example.id!r} ({example.question[:60]!r})"
            )
            raise NotFiniteError(description) from error

    def likelihoods(self) -> dict[int, Values]:
        """Compute log-probabilities for all examples."""
        values_by_index: dict[int, Values] = {}

        def ask(chunk: Sequence[int], label: str) -> list[Values]:
            pairs = [(self._request(index), self.examples[index]) for index in chunk]
            return self.backend.measure(pairs, self.decoding.batch_size, label)

        keys = {
            index: _digest(
                [
                    self.prompts[index],
                    self.records[index].image_key,
                    example.answer,
                    likelihood_targets.forms(example),
                    *likelihood_targets.truth_ratio_answers(example),
                ]
            )
            for index, example in enumerate(self.examples)
        }
        self._through(self._rows(["likelihoods"]), keys, "Likelihoods", ask, values_by_index.update)
        return values_by_index

    def _request(self, index: int) -> Prompt:
        return Prompt.of(self.examples[index], self.backend.instruction)

    def _rows(self, facts: Sequence[Any]) -> shared_cache.KeyValueLog | None:
        """Return the shared cache for this model, or None if nothing is shared."""
        return shared_cache.shared_rows(
            self.out, f"responses/{_digest([self.backend.weights, self.backend.setup, *facts])}.jsonl", self.engine
        )

    def _through(
        self,
        rows: shared_cache.KeyValueLog | None,
        keys: Mapping[int, str],
        name: str,
        ask: Callable[[Sequence[int], str], list[Values]],
        keep: Callable[[Mapping[int, Values]], None],
    ) -> None:
        """Look values up, and compute missing ones on all ranks, chunk by chunk."""
        cached_values = processes.from_main(
            {index: value for index, key in keys.items() if rows and (value := rows.get(key)) is not None}
        )
        if cached_values:
            keep(cached_values)
        groups = self._units([index for index in keys if index not in cached_values])
        for chunk_index, chunk in enumerate(_chunks(groups, _CHUNK * self.decoding.batch_size * processes.world())):
            own_indices = [index for group in processes.share(chunk) for index in group]
            label = f"{name}, part {chunk_index + 1}" if self.progress and processes.is_main() else ""
            new_values = dict(
                processes.gather(list(zip(own_indices, ask(own_indices, label) if own_indices else [], strict=True)))
            )
            if rows is not None and processes.is_main():
                rows.put({keys[index]: new_values[index] for index in sorted(new_values)})
            keep(new_values)

    def _units(self, indices: Sequence[int]) -> list[list[int]]:
        """Group indices by image. Without one, each index is its own group."""
        return list(by_key((self.records[index].image_key or index, index) for index in indices).values())


def _chunks(groups: Sequence[list[int]], size: int) -> Iterable[list[list[int]]]:
    """Merge whole groups into chunks of `size` indices."""
    chunk: list[list[int]] = []
    for group in groups:
        chunk.append(group)
        if sum(map(len, chunk)) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _with_values(response: Response, values: Values) -> Response:
    logprob_tuples = {name: tuple(values.get(name, ())) for name in ("option_logprobs", "perturbed_logprobs")}
    return replace(response, **{**values, **logprob_tuples})


def _prompts(backend: ModelBackend, examples: Sequence[Example]) -> list[str]:
    from unsee.inference.encoder import encoder

    encode = encoder(backend.processor, backend.family)
    return [encode.text(Prompt.of(example, backend.instruction)) for example in examples]


def _keys(
    backend: ModelBackend, prompts: Sequence[str], records: Sequence[Response], decoding: Decoding
) -> dict[str, str]:
    """Return example id -> hash of everything its response depends on.

    The batch size is not part of it.
    """
    common = [backend.weights, backend.setup, backend.instruction, *decoding.facts()]
    keys: dict[str, str] = {}
    for prompt, record in zip(prompts, records, strict=True):
        fields = {name: value for name, value in record.to_json().items() if name not in _UNMEASURED}
        fields = {name: value for name, value in fields.items() if value or name not in _WHERE_GIVEN}
        keys[record.id] = _digest([*common, prompt, {**fields, "stage": ""}])
    if len(keys) < len(records):
        raise UserError("The data has examples with equal ids: every example needs an id of its own.")
    return keys


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def setup_hash(model: Any, processor: Any) -> str:
    """Return the SHA-256 of all inputs of an answer besides weights and prompts.

    These are the configs (stop tokens, penalties, positions), the image preprocessing and the tokenizer.
    """
    backend = getattr(processor.tokenizer, "backend_tokenizer", None)
    tokens = processor.tokenizer.get_vocab() if backend is None else backend.to_str()
    if isinstance(tokens, str):  # the part before is the state of the last call: truncation, padding
        tokens = tokens[max(0, tokens.find('"added_tokens"')) :]
    processor_settings = {name: value for name, value in vars(processor).items() if isinstance(value, int | str)}
    configs = [_lasting(model_config.to_dict()) for model_config in (model.config, model.generation_config)]
    return _digest([*configs, processor.image_processor.to_json_string(), processor_settings, tokens])


def _lasting(config: Any) -> Any:
    """Return a config without its volatile entries, at any depth."""
    if not isinstance(config, dict):
        return config
    entries = {str(name): value for name, value in config.items() if value is not None}
    return {name: _lasting(value) for name, value in entries.items() if name[0] != "_" and name not in _VOLATILE}


def weights_hash(model: Module) -> str:
    """Return the SHA-256 of all weights, adapters included."""
    from unsee.compat.tensors import plain_tensors, raw

    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        for tensor in plain_tensors(weight):
            _require_finite(name, tensor)
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        for buffer in raw(weight):
            digest.update(buffer)
    return digest.hexdigest()


def _require_finite(name: str, weight: Tensor) -> None:
    """Raise if a floating-point tensor is not finite."""
    if not weight.is_floating_point():
        return
    invalid_count = weight.numel() - int(weight.isfinite().sum())
    if invalid_count:
        raise UserError(
            f"The model's weights are not all numbers: {invalid_count} of {weight.numel()} values of {name} are NaN or infinite. "
            "Nothing was judged; train again with a lower training.lr, or give another checkpoint."
        )


def require_finite_answers(responses: Sequence[Response]) -> None:
    """Raise if a measured number of a response is not finite."""
    for response in responses:
        if not response.finite:
            raise NotFiniteError(f"example {response.id!r} ({response.question[:60]!r})")


def _stored_answers(out: Path, records: Sequence[Response], keys: Mapping[str, str]) -> list[tuple[Response, Response]]:
    """Return (question, stored response) for every stored response with a valid key."""
    stored_keys = {row["id"]: row.get("key") for row in _whole_rows(out / KEYS)}
    row_by_id = {row["id"]: row for row in _whole_rows(out / RESPONSES)}
    valid_rows = [
        (record, row_by_id[record.id])
        for record in records
        if record.id in row_by_id and stored_keys.get(record.id) == keys[record.id]
    ]
    return [(record, response) for record, row in valid_rows if (response := _response(row)) is not None]


def _whole_rows(file: Path) -> list[Any]:
    """Read the rows with an id of a file whose last row may be incomplete."""
    if not file.is_file():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError):
            break
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def _response(row: Any) -> Response | None:
    """Read a stored response, or return None if it is damaged, so that it is generated again."""
    try:
        return Response.from_json(row)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _begin(out: Path, response_by_id: Mapping[str, Response], keys: Mapping[str, str]) -> None:
    """Keep only valid responses. Results are deleted if responses are missing or too many.

    Responses are written first, so that no key ever belongs to an older response.
    """
    stored_ids = {row["id"] for row in _whole_rows(out / RESPONSES)}
    if stored_ids | keys.keys() != response_by_id.keys():
        for name in FOUND if (out / JUDGED).exists() else ():
            remove_listed(out / name)
        atomic_write_json(out / JUDGED, {"unfinished": len(keys)})
    atomic_write_jsonl(out / RESPONSES, (response.to_json() for response in response_by_id.values()))
    atomic_write_jsonl(out / KEYS, ({"id": index, "key": keys[index]} for index in response_by_id))


def _append(file: Path, rows: Iterable[Any]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with file.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
