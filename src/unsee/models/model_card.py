"""Model card of a run: settings, scores, usage, limitations.

Made from the files of the run folder alone, so that it can be made again when there are scores. It names nobody: entities
are counted, data is given by its hash, and no path of the machine is shown.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, Final

import yaml
from huggingface_hub import EvalResult, ModelCardData, metadata_load

from unsee import config
from unsee.models import builtin
from unsee.models.location import is_steered
from unsee.utils.files import atomic_write_text
from unsee.utils.markdown import code, table
from unsee.utils.parsing import read_object

CARD: Final = "README.md"
TASK: Final = "image-text-to-text"
SHOWN: Final = ("leak", "degenerate", "hallucination", "refusal", "uninformative", "clean", "grounding", "name", "fact")
"""Scores in the table, after the role's name."""
_LIMITS: Final = (
    "Unlearning makes answers about the forgotten less likely; it is no proof that nothing of them is left in the weights.",
    "The scores hold for the questions and images they were measured on. Other wordings, languages, long conversations, "
    "sampling, further training and quantisation may bring back what was forgotten.",
    "What else the model can do may have changed, too; roles that are not in the table were not looked at.",
)


def write(run: Path) -> Path:
    """Write the card of a run folder beside its weights and return its path."""
    file = run / "model" / CARD
    atomic_write_text(file, card(run))
    return file


def card(run: Path, *, whole: bool = False, base: str = "") -> str:
    """Return the card of a run folder.

    `whole`: of the merged checkpoint. `base`: id of its base.
    """
    run_settings = config.read_mapping(run / "run.yaml")
    run_settings["model"] = base or run_settings["model"]
    sidecar = read_object(run / "model" / "unsee.json")
    if instruction := sidecar.get("instruction"):  # it is shown once, below
        run_settings["method"] = {name: value for name, value in run_settings["method"].items() if value != instruction}
    adapter = run_settings["training"].get("tune") == "lora" and not whole
    adapter = adapter and (run / "model" / "adapter_config.json").exists()
    lines = [
        _head(run_settings, run, adapter=adapter),
        "# An unlearned vision-language model",
        "",
        *_origin_lines(run_settings, sidecar),
        *_requests((run_settings.get("result") or {}).get("requests", {})),
        *_scores(run),
        *_loading(run_settings, run / "model", adapter=adapter),
        *_conditions(sidecar, adapter=adapter),
        "## Limits",
        "",
        *(f"- {limit}" for limit in _LIMITS),
        "",
        "## Licence",
        "",
        _licence_line(run_settings["model"]),
    ]
    return "\n".join(lines) + "\n"


def finite(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with infinities spelled out, since JSON has none."""
    non_finite = {name for name, value in settings.items() if isinstance(value, float) and not math.isfinite(value)}
    return {name: str(value) if name in non_finite else config.plain(value) for name, value in settings.items()}


def public(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without private ones: siu's mappings have forget entities as keys."""
    hidden = {"adapter": "a path, not shown"} if settings.get("adapter") else {}
    return finite({name: _public(value) for name, value in settings.items()} | hidden)


def _head(run_settings: Mapping[str, Any], run: Path, *, adapter: bool) -> str:
    """Return the metadata for the hub, with scores in `model-index` and the hash of the data judged."""
    base = str(run_settings["model"])
    data_hash = config.other_data_judged(run)[:16] or _record_facts(run_settings)["data_hash"]
    results = _results(run / "scores.json", f"data {data_hash}")
    data = ModelCardData(
        base_model=base if _is_hub_id(base) else None,
        library_name="peft" if adapter else "transformers",
        license=_licence(base) or "other",
        pipeline_tag=TASK,
        tags=["unlearning", "unsee"],
        model_name="unlearned model" if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _is_hub_id(base: str) -> bool:
    """Tell whether a base is a hub id, not a folder of this machine or of the run's."""
    match = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base)
    return match is not None and not Path(base).exists() and not builtin.name_of(base)


def _shown_base(base: str) -> str:
    """Return the name of a base on the hub or of unsee. The folder of any other may be called after a person."""
    name = base if _is_hub_id(base) else builtin.name_of(base)
    return code(name) if name else "a local model"


def _results(file: Path, data: str) -> list[EvalResult]:
    scores = read_object(file) if file.exists() else {}
    return [
        EvalResult(
            task_type=TASK,
            dataset_type="unsee",
            dataset_name=data,
            metric_type=name.partition(".")[2],
            metric_name=name,
            metric_value=round(score["value"], 4),
        )
        for name, score in scores.items()
        if name.partition(".")[2] in SHOWN and score["value"] is not None
    ]


def _origin_lines(run_settings: Mapping[str, Any], sidecar: Mapping[str, Any]) -> Iterator[str]:
    record, result, method = _record_facts(run_settings), run_settings.get("result") or {}, run_settings["method"]
    settings = {name: value for name, value in method.items() if name != "name"}
    count = sidecar.get("forgotten", "some")
    yield f"Made by unsee {record['version']} with the method {code(method['name'])}."
    yield f"It was made to forget {count} of the entities that its base model knows; which ones is not said here."
    yield ""
    yield f"- base: {_shown_base(str(run_settings['model']))} (hash `{record['model_hash']}`)"
    yield f"- data: hash `{record['data_hash']}`, seed {run_settings['seed']}"
    yield f"- settings: {code(_settings_json(settings))}"
    yield f"- training: {code(_settings_json(run_settings['training']))}"
    if result:
        stop_reason = result.get("stop_reason", "")
        yield f"- done: {result['steps']} steps on {result['trainable']:,} weights" + (
            f"; {stop_reason}" if stop_reason else ""
        )
    yield ""


def _record_facts(run_settings: Mapping[str, Any]) -> dict[str, str]:
    """Return version and short hashes of a run's record, "unknown" where it lacks them."""
    record = run_settings.get("record") or {}
    hashes = {name: str(record.get(name) or "")[:16] or "unknown" for name in ("model_hash", "data_hash")}
    return {"version": str((record.get("versions") or {}).get("unsee") or "(unknown version)"), **hashes}


def _requests(requests: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on deletion requests: count, dates, verdicts and receipt ids."""
    if not requests:
        return
    verdicts = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in requests["verdicts"].items())
    yield "## Deletion requests"
    yield ""
    yield f"{requests['count']} unlearned, received from {requests['from']} to {requests['to']}: {verdicts}."
    yield f"Receipts: {', '.join(map(code, requests['receipts']))}."
    yield ""


def _settings_json(settings: Mapping[str, Any]) -> str:
    """Return settings as JSON."""
    return json.dumps(public(settings), ensure_ascii=False)


def _public(value: Any) -> Any:
    """Return the public part of a setting: a path is replaced by a note, a mapping by its size."""
    if isinstance(value, str) and _is_place(value):
        return "a path, not shown"
    if isinstance(value, list | tuple):
        return [_public(item) for item in value]
    return f"{len(value)} given, not shown" if isinstance(value, Mapping) and value else value


def _is_place(text: str) -> bool:
    """Tell whether a setting is a path, and no sentence with a slash."""
    exists = os.path.exists(text)  # noqa: PTH110 - pathlib raises for a long sentence
    return (
        PurePath(text).is_absolute()
        or PureWindowsPath(text).is_absolute()
        or ("/" in text and (exists or not re.search(r"\s", text)))
    )


def _scores(run: Path) -> Iterator[str]:
    file = run / "scores.json"
    yield "## Scores"
    yield ""
    rows = _rows(read_object(file)) if file.exists() else []
    if not rows:
        yield "None yet: `unsee eval --model RUN --data DATA --out RUN` measures them and writes them here."
        yield ""
        return
    if other_data := config.other_data_judged(run):
        yield f"Measured on other data (hash `{other_data[:16]}`) than it was unlearned on."
    yield "Means over entities with 95 % bootstrap intervals; n answers."
    yield ""
    yield table(("role", "score", "value", "interval", "n"), rows)
    yield ""


def _rows(scores: Mapping[str, Mapping[str, Any]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, score in scores.items():
        role, _, metric = name.partition(".")
        if metric in SHOWN and score["value"] is not None:
            low_high = "" if score["interval"] is None else "{:.3f} to {:.3f}".format(*score["interval"])
            rows.append((role, metric, f"{score['value']:.3f}", low_high, score["n"]))
    return rows


def _loading(run_settings: Mapping[str, Any], folder: Path, *, adapter: bool) -> Iterator[str]:
    yield "## How to open it"
    yield ""
    if is_steered(folder):
        yield "It is steered while it answers: open it with unsee. Any other program shows the model without it."
        yield ""
        return
    base = str(run_settings["model"])
    base_source = base if _is_hub_id(base) else "BASE"
    yield "```python"
    if adapter:
        yield "from peft import PeftModel"
    yield "from transformers import AutoModelForImageTextToText, AutoProcessor"
    yield ""
    if adapter:
        yield f'base = AutoModelForImageTextToText.from_pretrained("{base_source}")'
        yield 'model = PeftModel.from_pretrained(base, "FOLDER")'
    else:
        yield 'model = AutoModelForImageTextToText.from_pretrained("FOLDER")'
    yield 'processor = AutoProcessor.from_pretrained("FOLDER")'
    yield "```"
    yield ""
    yield "FOLDER is this one" + (f", BASE the base model: {_shown_base(base)}." if base_source == "BASE" else ".")
    yield ""


def _conditions(sidecar: Mapping[str, Any], *, adapter: bool) -> Iterator[str]:
    if sidecar.get("instruction"):
        yield f"It works only with this text before every question: {code(sidecar['instruction'])}"
        yield ""
    if adapter and sidecar.get("quantization"):
        yield f"It was trained beside its base held in {code(sidecar['quantization'])}: open the base with the same quantisation."
        yield ""
    if adapter and sidecar.get("ancestor"):
        yield "Its base is itself an adapter run; both adapters are needed, or the merged checkpoint (`unsee export`)."
        yield ""


def _licence(base: str) -> str:
    """Return the licence in the card of a local base, if there is one."""
    folder = builtin.resolve(base)
    for file in (Path(folder) / CARD, Path(folder) / "model" / CARD):
        licence = (_metadata(file) if file.is_file() else {}).get("license")
        if licence:
            return str(licence)
    return ""


def _metadata(file: Path) -> dict[str, Any]:
    """Return the metadata of a model card, or empty if they are not valid YAML."""
    try:
        return metadata_load(file) or {}
    except (ValueError, yaml.YAMLError):
        return {}


def _licence_line(base: str) -> str:
    licence = _licence(base)
    return (
        "It is derived from its base model, whose licence "
        + (f"({code(licence)}) " if licence else "")
        + "holds for it as well; so may rights in the data it was judged and trained with."
    )
