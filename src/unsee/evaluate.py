"""Asking a model everything a benchmark judges, once, and scoring what it said.

`evaluate` needs a model; `score` and `rescore` need only the answers (importing this module loads no torch).
A finished answer is used again only if its key matches: a hash of weights, instruction, prompt, image, example and decoding.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unsee.api import Benchmark, Example, ImageSource, Response, Role, Score, Vocabulary
from unsee.errors import UserError
from unsee.files import atomic_write_json, atomic_write_jsonl, read_jsonl
from unsee.scoring import score

if TYPE_CHECKING:
    from torch.nn import Module

    from unsee.models import Loaded

__all__ = ["evaluate", "read_vocabulary", "rescore", "score"]

RESPONSES: Final = "responses.jsonl"
KEYS: Final = "responses.keys.jsonl"
VOCABULARY: Final = "vocabulary.json"
SCORES: Final = "scores.json"
_CHUNK: Final = 8
"""Batches between two writes: what an interruption can cost."""


@dataclass(frozen=True, kw_only=True)
class _Decoding:
    """How answers are generated (always greedy); part of every key."""

    max_new_tokens: int
    batch_size: int
    seed: int


def evaluate(
    model: Loaded | Path | str,
    data: Benchmark | Path | str,
    out: Path | str,
    *,
    stage: str = "",
    limit: int | None = None,
    max_new_tokens: int = 256,
    batch_size: int = 64,
    seed: int = 0,
    roles: Sequence[Role] | None = None,
    images_dir: Path | str | None = None,
    progress: bool = True,
) -> dict[str, Score]:
    """Answer the benchmark's "eval" examples, write responses, vocabulary and scores into `out`, return the scores.

    `stage` names the model in the results (empty = the folder's name); `limit` keeps that many examples per role and
    kind, spread evenly; `roles` keeps some roles only; `images_dir` (default: `images` beside `out`) takes one PNG per image.
    """
    out = Path(out)
    opened = _opened(data)
    examples = _chosen(opened.examples("eval"), roles, limit)
    loaded = _loaded(model)
    decoding = _Decoding(max_new_tokens=max_new_tokens, batch_size=batch_size, seed=seed)
    images = Path(images_dir) if images_dir is not None else out.resolve().parent / "images"
    asked = [_asked(example, out, images, stage or out.resolve().name) for example in examples]
    vocabulary = opened.vocabulary()
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_json(out / VOCABULARY, _vocabulary_json(vocabulary))
    responses = _answered(loaded, examples, asked, out, decoding, progress)
    return _scored(responses, vocabulary, out)


def rescore(folder: Path | str) -> dict[str, Score]:
    """Score responses.jsonl of a run folder again, without a model, and replace its scores.json."""
    folder = Path(folder)
    for name in (RESPONSES, VOCABULARY):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: expected the output folder of `unsee eval`.")
    try:
        responses = [Response.from_json(row) for row in read_jsonl(folder / RESPONSES)]
        vocabulary = read_vocabulary(folder / VOCABULARY)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} cannot be scored: {RESPONSES} or {VOCABULARY} is damaged ({error}).") from error
    return _scored(responses, vocabulary, folder)


def read_vocabulary(file: Path) -> Vocabulary:
    """Read what `evaluate` wrote as vocabulary.json."""
    row = json.loads(file.read_text(encoding="utf-8"))
    return Vocabulary(
        names={entity: tuple(forms) for entity, forms in row["names"].items()},
        facts={fact: tuple(values) for fact, values in row["facts"].items()},
        visible=row["visible"],
        sentences=tuple(row["sentences"]),
    )


def _scored(responses: Sequence[Response], vocabulary: Vocabulary, out: Path) -> dict[str, Score]:
    scores = score(responses, vocabulary)
    atomic_write_json(out / SCORES, {name: value.to_json() for name, value in scores.items()})
    return scores


def _opened(data: Benchmark | Path | str) -> Benchmark:
    if isinstance(data, Benchmark):
        return data
    from unsee.benchmarks import open_benchmark

    return open_benchmark(data)


def _loaded(model: Loaded | Path | str) -> Loaded:
    if not isinstance(model, Path | str):
        return model
    from unsee.models import open_model
    from unsee.run import resolve_model

    return open_model(resolve_model(model))


def _chosen(examples: Sequence[Example], roles: Sequence[Role] | None, limit: int | None) -> list[Example]:
    """Return the examples of these roles, at most `limit` of each role and kind, evenly spread over their order."""
    kept = [example for example in examples if roles is None or example.role in roles]
    if not kept:
        raise UserError(f"Nothing to evaluate: the data has no examples to judge with roles {roles or 'at all'}.")
    if limit is None:
        return kept
    if limit < 1:
        raise UserError(f"limit must be at least 1, got {limit}.")
    groups: dict[tuple[str, str], list[int]] = {}
    for index, example in enumerate(kept):
        groups.setdefault((example.role, example.kind), []).append(index)
    wanted = {index for group in groups.values() for index in _spread(group, limit)}
    return [example for index, example in enumerate(kept) if index in wanted]


def _spread(items: Sequence[int], count: int) -> list[int]:
    if len(items) <= count:
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]


def _asked(example: Example, out: Path, images: Path, stage: str) -> Response:
    """Return the record of an example without its answer; its image is on disk afterwards."""
    if example.image is None:
        return Response.of(example, stage=stage, text="", tokens=0, ended=False)
    key = example.image.key
    place = Path(os.path.relpath(_saved(example.image, key, images).resolve(), out.resolve())).as_posix()
    return Response.of(example, stage=stage, text="", tokens=0, ended=False, image=place, image_key=key)


def _saved(image: ImageSource, key: str, folder: Path) -> Path:
    """Write the image as PNG unless it is there already."""
    plain = len(key) >= 16 and key.isascii() and key.isalnum()
    file = folder / f"{(key if plain else hashlib.sha256(key.encode()).hexdigest())[:16]}.png"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=folder, suffix=".part")
        with os.fdopen(handle, "wb") as stream:
            image.load().save(stream, format="PNG")
        Path(part).chmod(0o644)
        Path(part).replace(file)
    return file


def _answered(
    loaded: Loaded,
    examples: Sequence[Example],
    asked: Sequence[Response],
    out: Path,
    decoding: _Decoding,
    progress: bool,
) -> list[Response]:
    """Return all answers in the order of the examples; finished ones come from an earlier, possibly interrupted, call."""
    keys = _keys(loaded, examples, asked, decoding)
    done = {row.id: replace(old, stage=row.stage) for row, old in _finished(out, asked, keys)}
    _begin(out, done, keys)
    missing = [index for index, row in enumerate(asked) if row.id not in done]
    step = _CHUNK * decoding.batch_size
    for start in range(0, len(missing), step):
        chunk = missing[start : start + step]
        label = f"Answers {start + 1} to {start + len(chunk)} of {len(missing)}" if progress else ""
        texts = _generate(loaded, [examples[index] for index in chunk], decoding, label)
        new = [replace(asked[index], **said) for index, said in zip(chunk, texts, strict=True)]
        _append(out / RESPONSES, (row.to_json() for row in new))
        _append(out / KEYS, ({"id": row.id, "key": keys[row.id]} for row in new))
        done.update((row.id, row) for row in new)
    answers = [done[row.id] for row in asked]
    atomic_write_jsonl(out / RESPONSES, (row.to_json() for row in answers))
    return answers


def _generate(loaded: Loaded, examples: Sequence[Example], decoding: _Decoding, label: str) -> list[dict[str, Any]]:
    """Return text, number of tokens and whether it ended, for each example."""
    from unsee.generation import Request, generate

    said = generate(
        loaded.model,
        loaded.processor,
        loaded.family,
        [Request(example.question, example.image, loaded.instruction) for example in examples],
        max_new_tokens=decoding.max_new_tokens,
        batch_size=decoding.batch_size,
        seed=decoding.seed,
        progress=label,
    )
    return [{"text": one.text, "tokens": len(one.token_ids) + one.ended, "ended": one.ended} for one in said]


def _keys(
    loaded: Loaded, examples: Sequence[Example], asked: Sequence[Response], decoding: _Decoding
) -> dict[str, str]:
    """Return example id -> hash of everything its answer and its record depend on; the batch size is not part of it."""
    shared = [_weights_hash(loaded.model), loaded.instruction, decoding.max_new_tokens, decoding.seed]
    keys: dict[str, str] = {}
    for example, row in zip(examples, asked, strict=True):
        prompt = loaded.family.prompt(
            loaded.processor, example.question, has_image=example.image is not None, instruction=loaded.instruction
        )
        facts = [*shared, prompt, {**row.to_json(), "stage": ""}]
        keys[row.id] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    if len(keys) < len(asked):
        raise UserError("The data has examples with equal ids: every example needs an id of its own.")
    return keys


def _weights_hash(model: Module) -> str:
    """Return the SHA-256 of all weights, adapters included."""
    import torch

    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _finished(out: Path, asked: Sequence[Response], keys: Mapping[str, str]) -> list[tuple[Response, Response]]:
    """Return (question, old answer) for every answer on disk whose key still holds."""
    written = {row["id"]: row["key"] for row in _whole_rows(out / KEYS)}
    answers = {row["id"]: row for row in _whole_rows(out / RESPONSES)}
    return [
        (row, Response.from_json(answers[row.id]))
        for row in asked
        if row.id in answers and written.get(row.id) == keys[row.id]
    ]


def _whole_rows(file: Path) -> list[Any]:
    """Read the rows of a file that may end in the middle of one."""
    if not file.is_file():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError:
            break
    return rows


def _begin(out: Path, done: Mapping[str, Response], keys: Mapping[str, str]) -> None:
    """Keep only answers that hold; responses first, so that no key ever vouches for an older answer."""
    atomic_write_jsonl(out / RESPONSES, (row.to_json() for row in done.values()))
    atomic_write_jsonl(out / KEYS, ({"id": index, "key": keys[index]} for index in done))


def _append(file: Path, rows: Iterable[Any]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with file.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _vocabulary_json(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "names": {entity: list(forms) for entity, forms in vocabulary.names.items()},
        "facts": {fact: list(values) for fact, values in vocabulary.facts.items()},
        "visible": {attribute: dict(values) for attribute, values in vocabulary.visible.items()},
        "sentences": list(vocabulary.sentences),
    }
