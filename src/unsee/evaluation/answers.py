"""Responses of a model, cached per run and, by content, across runs.

A response in the run folder is reused only if its key matches: a hash of weights, setup (processor and configs), instruction,
prompt, image, example and decoding. The shared folder (`unsee.data.shared_cache`) has one file per weights, setup and decoding,
keyed by prompt and image, so that no model generates the same response twice, whatever the run, the example's role or the batch.
Importing this module loads no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
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
"""Files with what was found in the answers."""
JUDGED: Final = "judged.json"
"""File with the hash of the evaluated weights and of the gold model, which identifies seeds of one row; until all answers
are there and judged, with the number of questions instead."""
_CHUNK: Final = 8
"""Batches between two writes, the most that an interruption can cost."""
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
"""Entries of a config that depend on how a model came to be open, or that its weights say; as those that begin with `_`."""


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

        It is steered while it writes, and such a pass would show the model without it.
        """
        from unsee.inference.likelihood import judged
        from unsee.models.steering.hooks import attached

        if attached(self.vlm.model):
            return [{} for _ in asked]

        answers = [
            (place, request, text)
            for place, (request, example) in enumerate(asked)
            for text in likelihood_targets.texts(example)
        ]
        choices = [
            (place, request, form)
            for place, (request, example) in enumerate(asked)
            for form in likelihood_targets.forms(example)
        ]
        likely, chosen = judged(
            self.vlm,
            [(request, answer) for _, request, answer in answers],
            [(request, options) for _, request, options in choices],
            batch_size=batch_size,
            progress=label,
        )
        found: list[Values] = [{} for _ in asked]
        told = iter(likely)
        for place, (_, example) in enumerate(asked):
            found[place] |= likelihood_targets.likely(example, [next(told) for _ in likelihood_targets.texts(example)])
        for (place, _, _), picked in zip(choices, chosen, strict=True):
            before = found[place].get("option_logprobs")
            if before is None or max(picked.logprobs) > max(before):
                found[place]["option_logprobs"] = list(picked.logprobs)
        return found


def collect_responses(
    backend: ModelBackend,
    examples: Sequence[Example],
    asked: Sequence[Response],
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
        asked: Record of each example without its response, in the same order.
        out: Folder of responses.jsonl; what an interrupted call left there is continued.
        decoding: Length limit, batch size and seed of the responses.
        likelihood: Compute log-probabilities of answers and options too.
        progress: Show a progress line.
        engine: Whether values are shared with other runs (`shared_cache`).
    """
    prompts = _prompts(backend, examples)
    keys = _keys(backend, prompts, asked, decoding)
    done = {row.id: replace(old, stage=row.stage) for row, old in processes.from_main(_finished(out, asked, keys))}
    if processes.is_main():
        _begin(out, done, keys)

    def keep(new: Mapping[int, Values]) -> None:
        rows = [replace(asked[index], **new[index]) for index in sorted(new)]
        done.update((row.id, row) for row in rows)
        if processes.is_main():
            _append(out / RESPONSES, (row.to_json() for row in rows))
            _append(out / KEYS, ({"id": row.id, "key": keys[row.id]} for row in rows))

    work = _Work(out, backend, examples, asked, prompts, decoding, progress, engine)
    work.answers([index for index, row in enumerate(asked) if row.id not in done], keep)
    answers = [replace(done[row.id], **_UNMEASURED) for row in asked]
    if likelihood:
        measured = work.likelihoods()
        answers = [_measured(row, measured[index]) for index, row in enumerate(answers)]
    if processes.is_main():
        atomic_write_jsonl(out / RESPONSES, (row.to_json() for row in answers))
    processes.barrier()
    return answers


@dataclass(frozen=True)
class _Work:
    """Examples to be answered, and the shared cache."""

    out: Path
    backend: ModelBackend
    examples: Sequence[Example]
    asked: Sequence[Response]
    prompts: Sequence[str]
    decoding: Decoding
    progress: bool
    engine: Engine

    def answers(self, places: Sequence[int], keep: Callable[[Mapping[int, Values]], None]) -> None:
        """Generate responses for these indices and pass them to `keep`, chunk by chunk."""

        def ask(chosen: Sequence[int], label: str) -> list[Values]:
            said = self._said(chosen, label)
            return [{"text": one.text, "tokens": len(one.token_ids) + one.ended, "ended": one.ended} for one in said]

        keys = {place: _digest([self.prompts[place], self.asked[place].image_key]) for place in places}
        self._through(self._rows(["answers", *self.decoding.facts()]), keys, "Answers", ask, keep)

    def _said(self, chosen: Sequence[int], label: str) -> list[Completion]:
        """Generate responses. A non-finite output raises an error that names the example."""
        try:
            return self.backend.say([self._request(place) for place in chosen], self.decoding, label)
        except NotFiniteError as error:
            example = self.examples[chosen[error.place]] if error.place >= 0 else None
            named = "one of the examples" if example is None else f"example {example.id!r} ({example.question[:60]!r})"
            raise NotFiniteError(named) from error

    def likelihoods(self) -> dict[int, Values]:
        """Compute log-probabilities for all examples."""
        found: dict[int, Values] = {}

        def ask(chosen: Sequence[int], label: str) -> list[Values]:
            pairs = [(self._request(place), self.examples[place]) for place in chosen]
            return self.backend.measure(pairs, self.decoding.batch_size, label)

        keys = {
            place: _digest(
                [
                    self.prompts[place],
                    self.asked[place].image_key,
                    row.answer,
                    likelihood_targets.forms(row),
                    *likelihood_targets.held(row),
                ]
            )
            for place, row in enumerate(self.examples)
        }
        self._through(self._rows(["likelihoods"]), keys, "Likelihoods", ask, found.update)
        return found

    def _request(self, place: int) -> Prompt:
        return Prompt.of(self.examples[place], self.backend.instruction)

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
        known = processes.from_main(
            {p: value for p, key in keys.items() if rows and (value := rows.get(key)) is not None}
        )
        if known:
            keep(known)
        units = self._units([place for place in keys if place not in known])
        for number, chunk in enumerate(_chunks(units, _CHUNK * self.decoding.batch_size * processes.world())):
            mine = [place for unit in processes.share(chunk) for place in unit]
            label = f"{name}, part {number + 1}" if self.progress and processes.is_main() else ""
            new = dict(processes.gather(list(zip(mine, ask(mine, label) if mine else [], strict=True))))
            if rows is not None and processes.is_main():
                rows.put({keys[place]: new[place] for place in sorted(new)})
            keep(new)

    def _units(self, places: Sequence[int]) -> list[list[int]]:
        """Group indices by image. Without one, each index is its own group."""
        return list(by_key((self.asked[place].image_key or place, place) for place in places).values())


def _chunks(units: Sequence[list[int]], size: int) -> Iterable[list[list[int]]]:
    """Merge whole groups into chunks of `size` indices."""
    chunk: list[list[int]] = []
    for unit in units:
        chunk.append(unit)
        if sum(map(len, chunk)) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _measured(row: Response, values: Values) -> Response:
    listed = {name: tuple(values.get(name, ())) for name in ("option_logprobs", "perturbed_logprobs")}
    return replace(row, **{**values, **listed})


def _prompts(backend: ModelBackend, examples: Sequence[Example]) -> list[str]:
    from unsee.inference.encoder import encoder

    encode = encoder(backend.processor, backend.family)
    return [encode.text(Prompt.of(example, backend.instruction)) for example in examples]


def _keys(
    backend: ModelBackend, prompts: Sequence[str], asked: Sequence[Response], decoding: Decoding
) -> dict[str, str]:
    """Return example id -> hash of everything its response depends on.

    The batch size is not part of it.
    """
    shared = [backend.weights, backend.setup, backend.instruction, *decoding.facts()]
    keys: dict[str, str] = {}
    for prompt, row in zip(prompts, asked, strict=True):
        record = {name: value for name, value in row.to_json().items() if name not in _UNMEASURED}
        record = {name: value for name, value in record.items() if value or name not in _WHERE_GIVEN}
        keys[row.id] = _digest([*shared, prompt, {**record, "stage": ""}])
    if len(keys) < len(asked):
        raise UserError("The data has examples with equal ids: every example needs an id of its own.")
    return keys


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def setup_hash(model: Any, processor: Any) -> str:
    """Return the SHA-256 of what answers depend on beside weights and prompts.

    These are the configs (stop tokens, penalties, positions), the image preprocessing and the tokenizer.
    """
    backend = getattr(processor.tokenizer, "backend_tokenizer", None)
    tokens = processor.tokenizer.get_vocab() if backend is None else backend.to_str()
    if isinstance(tokens, str):  # what is before belongs to its last call: truncation, padding
        tokens = tokens[max(0, tokens.find('"added_tokens"')) :]
    counted = {name: value for name, value in vars(processor).items() if isinstance(value, int | str)}
    configs = [_lasting(one.to_dict()) for one in (model.config, model.generation_config)]
    return _digest([*configs, processor.image_processor.to_json_string(), counted, tokens])


def _lasting(config: Any) -> Any:
    """Return a config without its volatile entries, at any depth."""
    if not isinstance(config, dict):
        return config
    kept = {str(name): value for name, value in config.items() if value is not None}
    return {name: _lasting(value) for name, value in kept.items() if name[0] != "_" and name not in _VOLATILE}


def weights_hash(model: Module) -> str:
    """Return the SHA-256 of all weights, adapters included."""
    from unsee.compat.tensors import raw, stored

    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        for plain in stored(weight):
            _require_finite(name, plain)
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        for values in raw(weight):
            digest.update(values)
    return digest.hexdigest()


def _require_finite(name: str, weight: Tensor) -> None:
    """Raise if a floating-point tensor is not finite."""
    if not weight.is_floating_point():
        return
    broken = weight.numel() - int(weight.isfinite().sum())
    if broken:
        raise UserError(
            f"The model's weights are not all numbers: {broken} of {weight.numel()} values of {name} are NaN or infinite. "
            "Nothing was judged; train again with a lower training.lr, or give another checkpoint."
        )


def require_finite_answers(responses: Sequence[Response]) -> None:
    """Raise if a log-probability of a response is not finite."""
    for row in responses:
        values = (row.logprob, row.true_logprob, row.clip, *row.option_logprobs, *row.perturbed_logprobs)
        if not all(math.isfinite(value) for value in values if value is not None):
            raise NotFiniteError(f"example {row.id!r} ({row.question[:60]!r})")


def _finished(out: Path, asked: Sequence[Response], keys: Mapping[str, str]) -> list[tuple[Response, Response]]:
    """Return (question, stored response) for every stored response with a valid key."""
    written = {row["id"]: row.get("key") for row in _whole_rows(out / KEYS)}
    answers = {row["id"]: row for row in _whole_rows(out / RESPONSES)}
    stored = [(row, answers[row.id]) for row in asked if row.id in answers and written.get(row.id) == keys[row.id]]
    return [(row, response) for row, answer in stored if (response := _response(answer)) is not None]


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


def _begin(out: Path, done: Mapping[str, Response], keys: Mapping[str, str]) -> None:
    """Keep only valid responses. If some are missing or too many, what was found in other responses goes.

    Responses are written first, so that no key ever belongs to an older response.
    """
    stored = {row["id"] for row in _whole_rows(out / RESPONSES)}
    if stored | keys.keys() != done.keys():
        for name in FOUND if (out / JUDGED).exists() else ():
            remove_listed(out / name)
        atomic_write_json(out / JUDGED, {"unfinished": len(keys)})
    atomic_write_jsonl(out / RESPONSES, (row.to_json() for row in done.values()))
    atomic_write_jsonl(out / KEYS, ({"id": index, "key": keys[index]} for index in done))


def _append(file: Path, rows: Iterable[Any]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with file.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
