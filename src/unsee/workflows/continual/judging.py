"""Evaluation of each model of a sequence on all requests and the retain set."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from unsee.api import Example, Response, Score
from unsee.api.benchmark import SPLITS
from unsee.api.example import OF_TARGETS
from unsee.benchmarks.request import Request
from unsee.config import plain
from unsee.data.splits import Narrowed
from unsee.evaluation.answers import RESPONSES
from unsee.evaluation.evaluate import evaluate, score
from unsee.utils.files import atomic_write_json, atomic_write_jsonl, read_jsonl
from unsee.utils.parsing import read_object
from unsee.workflows.continual.modes import Step
from unsee.workflows.continual.work import Work

SAMPLES: Final = "samples.jsonl"
STEP: Final = "step.json"
"""File of cost and routing of a step; written last."""
GOLD: Final = -1
"""Stands for the number of requests of the model trained without any requested entity."""
MEASURES: Final = (
    *"name fact choice cloze chain.answer accuracy rougeL_recall name_rate empty rep4 visible".split(),
    *"leak degenerate hallucination refusal uninformative clean".split(),
)
"""Measures kept for every response."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Evaluation shared by all models of a sequence."""

    work: Work
    request: Request

    @cached_property
    def questions(self) -> Sequence[Example]:
        """The evaluation questions."""
        return self.request.examples("eval")

    @cached_property
    def requests(self) -> dict[str, int]:
        """Question -> number of its request, 0 for the retain set."""
        owners = {name: number for number, task in enumerate(self.work.tasks.tasks, 1) for name in task.targets}
        return {
            row.id: owners.get(row.entity) or owners.get(row.id, 0) if row.role in OF_TARGETS else 0
            for row in self.questions
        }

    @cached_property
    def data(self) -> str:
        """Hash of requests, rows and pictures, equal for all orders of the requests."""
        rows = [row for split in SPLITS for row in self.request.examples(split)]
        row_facts = [[row.image.key if row.image else "", plain({**vars(row), "image": ""})] for row in rows]
        task_facts = [[task.id, sorted(task.targets)] for task in self.work.tasks.tasks]
        lines = [sorted(json.dumps(fact, sort_keys=True) for fact in facts) for facts in (task_facts, row_facts)]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()

    def folder(self, t: int) -> Path:
        """Return the folder of the responses after request t, or of the gold model."""
        return self.work.out / "judged" / ("gold" if t == GOLD else f"t-{t:03}")

    def done(self, t: int) -> bool:
        """Tell whether the model after request t has been evaluated."""
        return (self.folder(t) / STEP).is_file()

    def judge(self, t: int, step: Step) -> None:
        """Evaluate the model after request t and write its values per response."""
        start = time.perf_counter()
        if step.experts:
            scores, routing = self._ask_experts(t, step)
        else:
            scores, routing = self.ask(step.model, self.folder(t)), {}
        atomic_write_jsonl(self.folder(t) / SAMPLES, self._samples(t, scores))
        seconds = round(time.perf_counter() - start, 3)
        atomic_write_json(
            self.folder(t) / STEP, {"t": t, "cost": {**step.cost, "judged_sec": seconds}, "routing": routing}
        )

    def ask(self, model: str, folder: Path, questions: Sequence[Example] | None = None) -> dict[str, Score]:
        """Evaluate one model on all questions, or some."""
        ids = {row.id for row in questions or ()}
        data = self.request if questions is None else Narrowed(self.request, lambda row: row.id in ids)
        return evaluate(
            model,
            data,
            folder,
            self.work.judging,
            stage=self.work.run.method,
            seed=self.work.run.seed,
            images_dir=self.work.out / "images",
            progress=False,
            engine=self.work.run.engine,
        )

    def _ask_experts(self, t: int, step: Step) -> tuple[dict[str, Score], Mapping[str, Any]]:
        """Route each question to its expert or the original model, and score all responses."""
        from unsee.workflows.continual.routing import Routing, report, router_of

        start = time.perf_counter()
        router = router_of(self.work, t, self.requests)
        routes = {row.id: router.route(row) for row in self.questions}
        latency = (time.perf_counter() - start) / len(self.questions)
        responses: list[Response] = []
        for expert in sorted({route or 0 for route in routes.values()}):
            rows = [row for row in self.questions if (routes[row.id] or 0) == expert]
            folder = self.folder(t).with_name(f"t-{t:03}-expert-{expert:03}")  # beside the others, to share their cache
            self.ask(str(step.experts[expert - 1]) if expert else step.model, folder, rows)
            responses += [
                _with_moved_image(row, folder, self.folder(t))
                for row in map(Response.from_json, read_jsonl(folder / RESPONSES))
            ]
        order = {row.id: index for index, row in enumerate(self.questions)}
        responses.sort(key=lambda row: order[row.id])
        atomic_write_jsonl(self.folder(t) / RESPONSES, (row.to_json() for row in responses))
        routings = [
            Routing(number=self.requests[row.id], route=routes[row.id], image=row.image is not None)
            for row in self.questions
        ]
        return score(responses, self.request.vocabulary()), {
            **report(routings, t),
            "sec_per_question": round(latency, 6),
        }

    def _samples(self, t: int, scores: Mapping[str, Score]) -> list[dict[str, Any]]:
        """Return one row per question: its request, and its value by each measure."""
        values: dict[str, dict[str, float]] = {}
        for name, metric_score in scores.items():
            measure = name.partition(".")[2]
            if measure in MEASURES:
                for row_id, value in metric_score.value_by_index.items():
                    values.setdefault(row_id, {})[measure] = value
        return [
            {
                "t": t,
                "k": self.requests[row.id],
                "id": row.id,
                "role": row.role.value,
                "kind": row.kind.value,
                "entity": row.entity or row.id,
                "image": row.image.key if row.image else "",
                "values": values.get(row.id, {}),
            }
            for row in self.questions
        ]

    def samples(self, t: int) -> list[dict[str, Any]]:
        """Read the values per response that `judge` wrote."""
        return read_jsonl(self.folder(t) / SAMPLES)

    def step(self, t: int) -> dict[str, Any]:
        """Return cost and routing of a step."""
        return read_object(self.folder(t) / STEP)


def _with_moved_image(row: Response, old_folder: Path, new_folder: Path) -> Response:
    """Return the record with its image path relative to another folder."""
    if not row.image:
        return row
    return replace(
        row, image=Path(os.path.relpath((old_folder / row.image).resolve(), new_folder.resolve())).as_posix()
    )
