"""Evaluation log of inspect_ai: one sample per response, one score per metric of ours.

The layout is that of `inspect_ai.log.EvalLog`, version 2 (https://inspect.aisi.org.uk/eval-logs.html), which is written
without the package: `inspect view --log-dir OUT`, or `inspect_ai.log.read_eval_log`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.api import Response
from unsee.exporting.evaluated import read_evaluation
from unsee.utils.files import atomic_write_json

VERSION: Final = 2
"""Version of the layout."""
_SCORER: Final = "unsee"


def write(run: Path, out: Path) -> list[Path]:
    """Write the log of an evaluated run, named by the time of the responses for inspect_ai."""
    responses, scores = read_evaluation(run)
    created = datetime.fromtimestamp(int((run / "responses.jsonl").stat().st_mtime), UTC).isoformat()
    content = log(responses, scores, _about(run, responses), created)
    file = out / f"{created.replace(':', '-')}_{content['eval']['task']}_{content['eval']['task_id']}.json"
    atomic_write_json(file, content)
    return [file]


def log(
    responses: Sequence[Response], scores: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any], created: str
) -> dict[str, Any]:
    """Return the log as JSON.

    Args:
        responses: Rows of responses.jsonl.
        scores: Scores by role and metric, as in scores.json. Those without a value are metadata, with the reason.
        about: `data`, `model` and `metadata` of the run.
        created: ISO time with zone.
    """
    task_id = hashlib.sha256("\n".join(f"{row.id} {row.text}" for row in responses).encode()).hexdigest()[:22]
    missing = {name: score.get("why", "") for name, score in scores.items() if score["value"] is None}
    return {
        "version": VERSION,
        "status": "success",
        "eval": {
            "created": created,
            "task": "unsee",
            "task_id": task_id,
            "run_id": task_id,
            "eval_id": task_id,
            "dataset": {
                "name": about["data"],
                "samples": len(responses),
                "sample_ids": [row.id for row in responses],
            },
            "model": about["model"],
            "config": {},
            "packages": {"unsee": config.versions()["unsee"]},
            "metadata": dict(about["metadata"]),
        },
        "results": {
            "total_samples": len(responses),
            "completed_samples": len(responses),
            "scores": [_summary(name, score) for name, score in scores.items() if name not in missing],
            "metadata": {"missing": missing},
        },
        "stats": {"started_at": created, "completed_at": created},
        "samples": [_sample(row, scores, about["model"]) for row in responses],
    }


def _about(run: Path, responses: Sequence[Response]) -> dict[str, Any]:
    """Return model, data and metadata of the log, from the run's record if it has one."""
    record_file = run / config.RECORD
    run_record = config.read(record_file) if record_file.is_file() else config.Run()
    stage = next((row.stage for row in responses), "model")
    metadata = {"method": run_record.method, "seed": run_record.seed, "base": Path(run_record.model).name}
    other_data = config.other_data_judged(run)
    return {
        "data": f"data {other_data[:16]}" if other_data else Path(run_record.data).name or "data",
        "model": f"unsee/{stage}",
        "metadata": metadata if run_record.method else {},
    }


def _summary(name: str, score: Mapping[str, Any]) -> dict[str, Any]:
    """Return a score over its role. Its mean is over people, not over samples."""
    return {
        "name": name,
        "scorer": _SCORER,
        "scored_samples": score["n"],
        "metrics": {"mean": {"name": "mean", "value": score["value"]}},
        "metadata": {"interval": score["interval"], "better": score.get("better", "neither")},
    }


def _sample(row: Response, scores: Mapping[str, Mapping[str, Any]], model: str) -> dict[str, Any]:
    """Return one response with its scores."""
    values_by_score = {name: score["value_by_index"] for name, score in scores.items()}
    reason = "stop" if row.ended else "max_tokens"
    message = {"role": "assistant", "content": row.text, "source": "generate"}
    return {
        "id": row.id,
        "epoch": 1,
        "input": row.question,
        **({"choices": list(row.options)} if row.options else {}),
        "target": row.answer,
        "messages": [{"role": "user", "content": row.question}, message],
        "output": {"model": model, "choices": [{"message": message, "stop_reason": reason}]},
        "scores": {
            name: {"value": value_by_index[row.id], "answer": row.text}
            for name, value_by_index in values_by_score.items()
            if row.id in value_by_index
        },
        "metadata": {
            "role": row.role.value,
            "kind": row.kind.value,
            "fact": row.fact,
            "entity": row.entity,
            "image": row.image,
            "tokens": row.tokens,
        },
    }
