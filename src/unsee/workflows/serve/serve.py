"""Workflow of `serve`: open the models of a run and answer questions on a local page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unsee import config
from unsee.config import RECORD, Run
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.models import builtin
from unsee.models.location import folder_of
from unsee.workflows.serve import questions
from unsee.workflows.serve.app import App
from unsee.workflows.serve.filing import Filing
from unsee.workflows.serve.server import Access, PageServer
from unsee.workflows.serve.sides import open_sides


def serve(
    run: Path | str,
    *,
    before: Path | str = "",
    data: Path | str = "",
    benchmark: str | Mapping[str, Any] = "",
    project: Path | str = "",
    access: Access | None = None,
    on_ready: Callable[[PageServer], None] = lambda _: None,
) -> None:
    """Serve a page that asks the model before and after unlearning, until interrupted.

    Args:
        run: Run folder; or, with `before`, any model.
        before: Model to stand beside it; empty = the one that the run was made from.
        data: Data with the pictures and questions; empty = the run's judged answers, else its data.
        benchmark: Layout of the data; empty = that of the run, else recognised.
        project: Folder that gets the deletion requests made on the page; empty = it takes none.
        access: Address and token; None = loopback with a random token.
        on_ready: Called once with the server when the page can be opened.

    Raises:
        UserError: Model, data or address cannot be used.
    """
    processes.require_single("unsee serve")
    with PageServer(_app(str(run), str(before), str(data), benchmark, project), access or Access()) as server:
        on_ready(server)
        server.serve_forever()


def _app(model: str, before: str, data: str, benchmark: str | Mapping[str, Any], project: Path | str) -> App:
    """Return the page of a run, both models opened."""
    folder_of(model)
    folder = Path(builtin.resolve(model))  # a built-in name is no folder of that name here
    run = config.read(folder / RECORD) if (folder / RECORD).is_file() else Run()
    has_answers = bool(run.method) and (folder / questions.VOCABULARY).is_file()
    if benchmark and has_answers and not data:
        raise UserError(
            f"The page shows the judged answers of {model}, and --benchmark, --fields and --roles say how data are read. Leave "
            "them out, or give --data."
        )
    layout = benchmark or ("" if data else run.benchmark)
    catalogue = questions.read(folder, data or ("" if has_answers else run.data), layout)
    _ = catalogue.pictures  # reads the files, whose faults are to be seen before a model is opened
    settings = config.build(config.EvalConfig, run.eval, where="eval")
    before_name = str(before or run.model or "the base")
    labels = (f"Before · {_short(before_name)}", f"After · {run.method.upper() or _short(model)}")
    sides = open_sides(model, before or run.model, labels, settings.max_new_tokens)
    filing = Filing(folder=Path(project), model=model, data=data or run.data, benchmark=layout) if project else None
    return App(title=_short(model), sides=sides, catalogue=catalogue, filing=filing)


def _short(model: str) -> str:
    """Return the last part of a path or id."""
    return Path(model).name or model
