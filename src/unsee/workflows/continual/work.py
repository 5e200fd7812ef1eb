"""State of a continual run, and the unlearning of one request as an ordinary run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.benchmarks.request import SUFFIX, Request, Roles
from unsee.benchmarks.request import read as read_roles
from unsee.benchmarks.request import write as write_roles
from unsee.config import RECORD, EvalConfig, Run
from unsee.distributed.file_lock import owner
from unsee.errors import UserError
from unsee.workflows.continual.settings import Course
from unsee.workflows.continual.tasks import Tasks
from unsee.workflows.forget import forget_run

_LETTERS: Final = 40
"""Characters of a request's id in its folder name of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Run (original model, data, method, training, output), course and requests."""

    run: Run
    course: Course
    tasks: Tasks

    @property
    def out(self) -> Path:
        """Output folder."""
        return Path(self.run.out)

    @property
    def adapters(self) -> Path:
        """Folder of the adapters trained on the original model."""
        return Path(self.course.adapters) if self.course.adapters else self.out / "adapters"

    @property
    def judging(self) -> EvalConfig:
        """Settings of every evaluation: `eval:` of the run, else those of the course."""
        course_settings = {"max_new_tokens": self.course.max_new_tokens, "batch_size": self.course.batch_size}
        return config.build(EvalConfig, {**course_settings, **self.run.eval}, where="eval")

    def roles(self, targets: Sequence[str], number: int = 0) -> Roles:
        """Return the roles with `targets` as forget set. Other requests have no role."""
        course = self.course
        target_set = set(targets)
        return Roles(
            data=self.run.data,
            benchmark=_as_mapping(self.run.benchmark),
            forget=tuple(targets),
            aside=tuple(sorted(name for name in self.tasks.targets() if name not in target_set)),
            retain=self.tasks.retain,
            retain_share={"all": "all", "none": "none"}.get(course.retain_policy, "sample"),  # type: ignore[arg-type]
            retain_rows=course.retain_rows if course.retain_policy.endswith("sample") else 0,
            retain_seed=number if course.retain_policy == "fresh_sample" else 0,
        )

    def eval_request(self) -> Request:
        """Return the evaluation roles: all requests as forget set, and the retain set."""
        course = self.course
        roles = self.roles(self.tasks.targets())
        return Request(replace(roles, kinds=course.kinds, limit=course.limit, retain_limit=course.retain_limit))


def unlearn_request(work: Work, folder: Path, model: str, roles: Roles, training: Mapping[str, Any]) -> Path:
    """Unlearn one request into `folder`, resuming an interrupted call.

    Args:
        work: Sequence that the request belongs to. Method, settings and seed are those of its run.
        folder: Run folder. The rows of the request go to a file beside it.
        model: Model to start from, such as that of the previous request.
        roles: Rows of the request: what to forget and what to keep.
        training: Training settings that replace those of the sequence.

    Returns:
        Run folder, with model and record.

    Raises:
        UserError: The folder holds a run on other rows, of a sequence that shares its adapters.
    """
    file = folder.parent / f"{folder.name}{SUFFIX}"
    run = replace(
        work.run,
        model=model,
        data=str(file),
        benchmark="request",
        out=str(folder),
        training={**work.run.training, **training},
    )
    with owner(folder, wait=True):  # sequences may share adapters
        begun = (folder / RECORD).exists()
        if begun and file.is_file() and replace(read_roles(file), data=roles.data, benchmark=roles.benchmark) != roles:
            raise UserError(
                f"{folder} was trained on the rows of {file}, which is of other requests, kept entities or retain rows "
                "than this sequence. Give another continual.adapters."
            )
        write_roles(roles, file)
        return forget_run(run, resume=begun, shared=True)


def folder_name(request: str) -> str:
    """Return the folder name of a request: a hash of its id, which is user input and never used as a path.

    Trackers and `merge.json` show it, and it stays after a purge, so it names nobody.

    >>> folder_name("../../Ticket 17")
    'request-01b638d3f9'
    """
    return f"request-{_hash(request)}"


def old_folder_name(request: str) -> str:
    """Return the folder name that earlier versions gave a request, with letters of its id."""
    letters = re.sub(r"[^a-z0-9]+", "-", request.lower()).strip("-")[:_LETTERS].strip("-") or "r"
    return f"{letters}-{_hash(request)}"


def _hash(request: str) -> str:
    return hashlib.sha256(request.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def cost_of(folder: Path) -> dict[str, Any]:
    """Return the cost of a request from its run: seconds, peak memory, bytes stored.

    Seconds are None after a resumed run.
    """
    result = config.result_of(folder)
    return {"sec": result.get("seconds"), "peak_gb": result.get("peak_gib"), "bytes": bytes_of(folder / "model")}


def bytes_of(folder: Path) -> int:
    """Return the size of the weights in a model folder."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _as_mapping(benchmark: str | Mapping[str, Any]) -> dict[str, Any]:
    name, settings = config.name_and_settings(benchmark)
    return {"name": name, **settings} if name else settings
