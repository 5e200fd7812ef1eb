"""Evaluation: responses to a benchmark's questions, and their scores.

`evaluate` needs a model; `score` and `rescore` need only the answers (importing this module loads no torch).
Caching of answers is in `unsee.evaluation.answers`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unsee import config
from unsee.api import VLM, Benchmark, Example, ImageSource, Response, Score, Vocabulary
from unsee.api.fast_paths import FAST, Engine, Name, engine_named
from unsee.api.request import Backend, Decoding
from unsee.config import EvalConfig, paths
from unsee.config.plugins import naming_plugins
from unsee.data.fingerprint import fingerprint
from unsee.data.splits import only
from unsee.distributed import processes
from unsee.distributed.file_lock import owner
from unsee.errors import UserError
from unsee.evaluation.answers import (
    JUDGED,
    RESPONSES,
    SCORES,
    HFBackend,
    ModelBackend,
    collect_responses,
    require_finite_answers,
)
from unsee.evaluation.attack_file import ATTACKS, attacked_model, put_aside
from unsee.models import builtin, model_card, tracking
from unsee.models.identity import lineage_hash
from unsee.models.location import folder_of
from unsee.scoring import image_text_pairs
from unsee.scoring.against_gold import (
    ITSELF,
    against_gold,
    forget_quality_score,
    incomparable,
    no_forget_quality,
    same_questions,
)
from unsee.scoring.aggregate import score
from unsee.scoring.gold_distance import gold_distance
from unsee.scoring.measures import extra, plugins_of
from unsee.scoring.rules import rules
from unsee.scoring.scores import Scores
from unsee.utils.files import atomic_write_json, atomic_write_jsonl, atomic_writer
from unsee.utils.grouping import by_key, evenly
from unsee.utils.parsing import read_object
from unsee.utils.terminal import note

if TYPE_CHECKING:
    from unsee.evaluation.clip import Clip

__all__ = ["evaluate", "read_answers", "read_vocabulary", "rescore", "score"]

VOCABULARY: Final = "vocabulary.json"


def evaluate(
    model: VLM | Path | str,
    data: Any,
    out: Path | str,
    settings: EvalConfig | None = None,
    *,
    stage: str = "",
    seed: int = 0,
    images_dir: Path | str | None = None,
    progress: bool = True,
    engine: Name | Engine | None = None,
    **changes: Any,
) -> Scores:
    """Evaluate a model: write responses, vocabulary and scores into `out`, return the scores.

    Args:
        model: Folder, hub id, run folder, or an opened model (`unsee.load`).
        data: Folder or table, "lab", an opened benchmark, or rows as an object (as of `unsee.forget`).
        out: Folder that receives responses.jsonl, vocabulary.json and scores.json; a run folder may be its own.
        settings: Questions and measures (`EvalConfig`); defaults if None.
        stage: Name of the model in the results; empty = the folder's name.
        seed: Seed of decoding, which is greedy: answers of another seed are asked for anew, and are the same.
        images_dir: Folder of one PNG per image; default `unsee-images` beside `out` if only runs lie there, else `images` in it.
        progress: Whether to show a progress line.
        engine: `fast`, `plain` for the same scores without fast paths, or an `Engine`; None = an opened model's, else fast.
        **changes: Fields of `EvalConfig` that differ from `settings`; None stands for the field's default.

    Raises:
        UserError: A setting, the model or the data cannot be used; nothing has been generated then, but by a gold model.
    """
    settings = (settings or EvalConfig()).changed(changes)
    batch_size = settings.batch_size
    out = Path(out)
    whole_data = as_benchmark(data)
    benchmark = only(whole_data, settings.split)
    vocabulary = _with_measures(benchmark.vocabulary(), settings.measures)
    clip = _clip(settings.clip) if settings.clip else None
    examples = _chosen(benchmark.examples("eval"), settings)
    if isinstance(model, Path | str):
        folder_of(model)  # before a gold model is judged
    resolved_engine = _engine(model, engine)
    gold_folder = (
        None if not settings.gold else _gold_run(settings, whole_data, out, seed, resolved_engine, progress=progress)
    )
    gold_responses = None if gold_folder is None else _golden(gold_folder)
    if gold_responses is not None:
        _require_shared_questions(gold_responses, [_unanswered(example) for example in examples])
    likelihood = (
        settings.likelihood or gold_responses is not None or (benchmark.likelihood and settings.backend == "hf")
    )
    backend = _backend_of(model, settings.backend, likelihood, resolved_engine)
    decoding = Decoding(
        max_new_tokens=settings.max_new_tokens, batch_size=batch_size, seed=seed, backend=settings.backend
    )
    # raises for weights that are not finite
    judged_facts = _judged_facts(backend, model, gold_folder, gold_responses, vocabulary.measures, decoding)
    if gold_folder is not None:
        _require_other_weights(gold_folder, judged_facts["weights"])
    _require_encodable(backend, examples, progress=progress)
    images_folder = Path(images_dir) if images_dir is not None else paths.pictures_folder(out)
    with owner(out):
        records = [_empty_response(example, out, images_folder, stage or out.resolve().name) for example in examples]
        if processes.is_main():
            out.mkdir(parents=True, exist_ok=True)
            _put_other_attacks_aside(out, model, judged_facts["weights"])
            atomic_write_json(out / VOCABULARY, _vocabulary_json(vocabulary))
        processes.barrier()
        responses = collect_responses(
            backend,
            examples,
            records,
            out,
            decoding,
            likelihood=likelihood,
            progress=progress,
            engine=resolved_engine,
        )
        if clip is not None:
            responses = clip.with_scores(responses, examples, batch_size=batch_size, progress=progress)
        require_finite_answers(responses)
        scores = _scores(responses, vocabulary, gold_responses)
        if processes.is_main():
            if clip is not None:
                atomic_write_jsonl(out / RESPONSES, (response.to_json() for response in responses))
            atomic_write_json(out / JUDGED, {**judged_facts, **_data_facts(whole_data, settings, out)})
            _write(scores, out)
            _note_steering(backend, out)
        processes.barrier()
    return scores


def _put_other_attacks_aside(out: Path, model: VLM | Path | str, weights: str) -> None:
    """Move attacks on another model aside, as they say nothing about the model that is judged now."""
    if not (attacked := attacked_model(out)):
        return
    if isinstance(model, Path | str):
        is_same = attacked == lineage_hash(model)
    else:  # an opened model: only its weights are known
        judged_facts = read_object(out / JUDGED) if (out / JUDGED).is_file() else {}
        is_same = judged_facts.get("weights") == weights
    if not is_same:
        put_aside(out)
        note(f"{out / ATTACKS} was of another model and is kept beside; run `unsee attack` for this one.")


def _require_encodable(backend: ModelBackend, examples: Sequence[Example], *, progress: bool) -> None:
    """Raise before generation if a question cannot be encoded."""
    from unsee.inference.preflight import Preflight

    Preflight(backend.vlm if isinstance(backend, HFBackend) else backend).require(examples, progress=progress)


def rescore(folder: Path | str, *, gold: Path | str | None = None, measures: Sequence[str] = ()) -> Scores:
    """Recompute scores.json of a run folder from its responses, without a model.

    Raises:
        UserError: The folder was never evaluated or is damaged, or a measure comes from a plugin that is not loaded.
    """
    folder = Path(folder)
    responses = read_answers(folder)
    with naming_plugins(config.read(folder / config.RECORD) if (folder / config.RECORD).is_file() else config.Run()):
        vocabulary = _with_measures(read_vocabulary(folder / VOCABULARY), measures)
    require_finite_answers(responses)
    judged_facts = read_object(folder / JUDGED) if (folder / JUDGED).is_file() else {}
    if gold is not None:
        _require_other_weights(Path(gold), judged_facts.get("weights"))
    gold_responses = None if gold is None else _golden(Path(gold))
    scores = _scores(responses, vocabulary, gold_responses)
    with owner(folder):
        _write(scores, folder)
        if judged_facts:
            atomic_write_json(
                folder / JUDGED, {**judged_facts, "gold": _gold_facts(gold, gold_responses), "rules": rules()}
            )
    return scores


def read_scores(folder: Path) -> Scores:
    """Read scores.json of an evaluated run."""
    if not (folder / SCORES).is_file():
        raise UserError(f"{folder} was never evaluated: it has no {SCORES}. Run `unsee eval --model {folder}`.")
    try:
        return Scores({name: Score.from_json(row) for name, row in read_object(folder / SCORES).items()})
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{folder / SCORES} is damaged ({error!s:.200}). Run `unsee eval` again.") from error


def read_vocabulary(file: Path) -> Vocabulary:
    """Read vocabulary.json of an evaluated run."""
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        return Vocabulary(
            names={entity: tuple(forms) for entity, forms in row["names"].items()},
            facts={fact: tuple(values) for fact, values in row["facts"].items()},
            visible={attribute: dict(values) for attribute, values in row["visible"].items()},
            implies=dict(row.get("implies", {})),
            sentences=tuple(row["sentences"]),
            measures=tuple(row.get("measures", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{file.parent} cannot be scored: {file.name} is damaged ({reason:.200}). Run `unsee eval` again."
        ) from error


def read_answers(folder: Path) -> list[Response]:
    """Read the responses of an evaluated run.

    Raises:
        UserError: The evaluation was broken off, or a file is missing or damaged.
    """
    for name in (RESPONSES, VOCABULARY):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: expected the output folder of `unsee eval`.")
    config.require_judged(folder)
    return config.read_responses(folder / RESPONSES)


def _gold_run(
    settings: EvalConfig, benchmark: Benchmark, out: Path, seed: int, engine: Engine, *, progress: bool
) -> Path:
    """Return the judged run of the gold model. A model is judged first, in `OUT-gold`."""
    gold = str(settings.gold)
    if not paths.is_model(gold):
        return Path(gold)
    folder = out.resolve().with_name(f"{out.resolve().name}-gold")
    if (folder / config.RECORD).is_file() and folder != Path(gold).resolve():
        raise UserError(
            f"The gold model is judged in {folder}, which is a run of another model. Judge it elsewhere (`unsee eval --model {gold} "
            "--likelihood --out DIR`), and give that folder as --gold."
        )
    gold_settings = replace(settings, gold=None, likelihood=True, clip=None)
    stage = builtin.STAGES.get(gold, "gold")
    evaluate(gold, benchmark, folder, gold_settings, stage=stage, seed=seed, progress=progress, engine=engine)
    return folder


def _golden(folder: Path) -> list[Response]:
    """Read the responses of a gold model, whose log-probabilities must be finite."""
    responses = read_answers(folder)
    require_finite_answers(responses)
    return responses


def _judged_facts(
    backend: ModelBackend,
    model: VLM | Path | str,
    gold: Path | str | None,
    gold_responses: Sequence[Response] | None,
    measures: Sequence[str],
    decoding: Decoding,
) -> dict[str, Any]:
    """Return the content of judged.json: weights, decoding settings, gold model."""
    name = str(model) if isinstance(model, Path | str) else ""
    plugins = list(plugins_of(measures))
    return {
        "model": name,
        "weights": hashlib.sha256(backend.weights.encode()).hexdigest(),
        "made_by": _made_by(name) if name else {},
        **({"plugins": plugins} if plugins else {}),
        "decoding": {"max_new_tokens": decoding.max_new_tokens, "backend": decoding.backend},
        "gold": _gold_facts(gold, gold_responses),
        "rules": rules(),
    }


def _data_facts(benchmark: Benchmark, settings: EvalConfig, out: Path) -> dict[str, Any]:
    """Return the part of the questions asked, and beside a run the hash of the data that it was judged on."""
    return {
        **settings.narrowed(),
        **({"data": fingerprint(benchmark)} if config.data_hash_of(out) else {}),
    }


def _made_by(model: str) -> dict[str, Any]:
    """Return settings and promise of the run that made a model, or empty if no run did."""
    run_file = Path(builtin.resolve(model)) / config.RECORD  # a built-in name is no folder of that name here
    if not run_file.is_file():
        return {}
    settings = {**config.read(run_file).to_mapping(), "promise": config.result_of(run_file.parent).get("promise")}
    names = ("model", "data", "method", "training", "plugins", "promise")
    return {name: config.plain(settings[name]) for name in names if settings.get(name)}


def _require_other_weights(gold: Path, weights: str | None) -> None:
    """Raise if the gold run is of the judged model: every distance would be 0."""
    file = gold / JUDGED
    if weights and file.is_file() and read_object(file).get("weights") == weights:
        raise UserError(
            f"--gold {gold} is a run of the judged model itself (same weights); give one of a model that was trained without "
            "what was to be forgotten."
        )


def _require_shared_questions(gold_responses: Sequence[Response], responses: Sequence[Response]) -> list[Response]:
    """Return the gold model's responses to the same questions, or raise if there are none."""
    shared = same_questions(gold_responses, responses)
    if {response.id for response in responses}.isdisjoint(response.id for response in shared):
        raise UserError("The gold model was asked other questions; judge both on the same data.")
    return shared


def _gold_facts(gold: Path | str | None, gold_responses: Sequence[Response] | None) -> dict[str, str]:
    """Return folder and hash of the gold model's responses, or empty without any."""
    if gold is None or gold_responses is None:
        return {}
    values = sorted(
        (response.id, response.text, response.true_logprob or 0.0, response.perturbed_logprobs)
        for response in gold_responses
    )
    return {"folder": str(gold), "answers": hashlib.sha256(json.dumps(values).encode()).hexdigest()}


def _with_measures(vocabulary: Vocabulary, measures: Sequence[str]) -> Vocabulary:
    """Return the vocabulary with further measures, after checking their names."""
    names = tuple(dict.fromkeys((*vocabulary.measures, *measures)))
    return replace(
        vocabulary, measures=tuple(name if name == image_text_pairs.NAME else extra(name).key for name in names)
    )


def _scores(responses: Sequence[Response], vocabulary: Vocabulary, gold_responses: Sequence[Response] | None) -> Scores:
    """Return all scores, with those against the gold model if there is one."""
    scores = score(responses, vocabulary)
    if gold_responses is None:
        return Scores(scores)
    comparable_responses = _require_shared_questions(gold_responses, responses)
    scores |= gold_distance(responses, scores, score(comparable_responses, vocabulary))
    why = incomparable(responses, gold_responses)
    if why not in ("", ITSELF):
        return Scores({**scores, "model.fq": no_forget_quality(why)})
    scores |= against_gold(responses, gold_responses)
    return Scores({**scores, "model.fq": forget_quality_score(scores)})


def _clip(folder: Path | str) -> Clip:
    from unsee.evaluation.clip import Clip

    return Clip.load(folder)


def _write(scores: Mapping[str, Score], out: Path) -> None:
    atomic_write_json(out / SCORES, {name: value.to_json() for name, value in scores.items()})
    if (out / "run.yaml").is_file() and (out / "model" / "unsee.json").is_file():
        model_card.write(out)
        tracking.report_scores(out, scores)


def _note_steering(backend: ModelBackend, out: Path) -> None:
    """Write the gate statistics of a steered model to `steering.json`."""
    if not isinstance(backend, HFBackend):
        return
    from unsee.models.steering.hooks import steerings_of

    summaries = [steering.firing.summary() for steering in steerings_of(backend.vlm.model) if steering.firing.scores]
    if summaries:
        atomic_write_json(out / "steering.json", summaries)


def as_benchmark(data: Any) -> Benchmark:
    """Return a benchmark, opened if data are given by folder, table or name, or as rows."""
    if isinstance(data, Benchmark):
        return data
    from unsee.data.open import of_object, open_benchmark

    return open_benchmark(data) if isinstance(data, Path | str) else of_object(data)


def _engine(model: VLM | Path | str, engine: Name | Engine | None) -> Engine:
    """Return the engine of that name, else that of an opened model, else the fast one."""
    if engine is None:
        return FAST if isinstance(model, Path | str) else model.engine
    return engine if isinstance(engine, Engine) else engine_named(engine)


def _backend_of(model: VLM | Path | str, name: Backend, likelihood: bool, engine: Engine) -> ModelBackend:
    """Return the backend: an opened model, or a folder served by vLLM."""
    if name == "hf":
        return HFBackend(replace(_as_vlm(model), engine=engine))
    if likelihood:
        raise UserError("vLLM answers only; for likelihood=True use backend='hf'.")
    if not isinstance(model, Path | str):
        raise UserError("backend='vllm' serves a folder; give the model's folder or id instead of an opened model.")
    from unsee.inference.vllm import VLLMBackend

    return VLLMBackend(builtin.resolve(model))


def _as_vlm(model: VLM | Path | str) -> VLM:
    if not isinstance(model, Path | str):
        return model
    from unsee.models.checkpoint import open_model

    return open_model(builtin.resolve(model), quantized=True)


def _chosen(examples: Sequence[Example], settings: EvalConfig) -> list[Example]:
    """Return the examples of the chosen roles, `limit` per role and kind, evenly spread."""
    roles, limit = settings.roles, settings.limit
    candidates = [example for example in examples if not roles or example.role in roles]
    if not candidates:
        raise UserError(
            f"Nothing to evaluate: the data has no examples to judge with roles {', '.join(roles) or 'at all'}."
        )
    if limit is None:
        return candidates
    groups = by_key(
        ((example.role, example.kind, example.image is None), index) for index, example in enumerate(candidates)
    )
    indices = {index for group in groups.values() for index in evenly(group, limit)}
    return [example for index, example in enumerate(candidates) if index in indices]


def _empty_response(example: Example, out: Path, images: Path, stage: str) -> Response:
    """Return the record of an example without a response, its image saved to disk."""
    record = _unanswered(example, stage)
    if example.image is None:
        return record
    image_file = _save_image(example.image, record.image_key, images)
    return replace(record, image=Path(os.path.relpath(image_file.resolve(), out.resolve())).as_posix())


def _unanswered(example: Example, stage: str = "") -> Response:
    """Return the record of an example without a response and without the path of its image."""
    image_key = example.image.key if example.image else ""
    return Response.of(example, stage=stage, text="", tokens=0, ended=False, image_key=image_key)


def _save_image(image: ImageSource, key: str, folder: Path) -> Path:
    """Write the image as PNG unless it is there already."""
    is_filename = len(key) >= 16 and key.isascii() and key.isalnum()
    file = folder / f"{(key if is_filename else hashlib.sha256(key.encode()).hexdigest())[:16]}.png"
    if not file.exists() and processes.is_main():
        with atomic_writer(file) as stream:
            image.load().save(stream, format="PNG")
    return file


def _vocabulary_json(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "names": {entity: list(forms) for entity, forms in vocabulary.names.items()},
        "facts": {fact: list(values) for fact, values in vocabulary.facts.items()},
        "visible": {attribute: dict(values) for attribute, values in vocabulary.visible.items()},
        "implies": dict(vocabulary.implies),
        "sentences": list(vocabulary.sentences),
        "measures": list(vocabulary.measures),
    }
