"""A finished run as an object: a path that can be opened, evaluated and compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unsee import config
from unsee.api import VLM, Benchmark
from unsee.api.fast_paths import Name
from unsee.config import RECORD, EvalConfig
from unsee.errors import unknown_name
from unsee.utils.files import read_jsonl
from unsee.utils.frames import data_frame, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from unsee.scoring.scores import Scores
    from unsee.workflows.verdict import Outcome

    _Path = Path
else:
    _Path = type(Path())  # Path itself cannot be subclassed before Python 3.12


_NO_LOSS: Final = ("step", "epoch", "grad_norm", "lr", "usr", "guard_ce", "guard_degenerate")
"""Columns of the history that are no loss."""


class Run(_Path):
    """Run folder: a `pathlib.Path` with what is in it. `Run("runs/npo")` opens any run folder."""

    data: Benchmark | None = None
    """Data of the run where they were given as an object, which the folder does not hold."""

    def with_segments(self, *segments: Any) -> Path:
        """Return what is below or beside the run as a plain path."""
        return Path(*segments)

    @property
    def path(self) -> Path:
        """The folder as a plain path."""
        return Path(str(self))

    @property
    def config(self) -> config.Run:
        """The run with every setting spelled out, as in run.yaml."""
        return config.read(self.path / RECORD)

    @property
    def verdict(self) -> Outcome | None:
        """Verdict of its evaluation, else of its sample, or None if it was never judged."""
        from unsee.workflows.verdict import verdict_of

        return verdict_of(self.path)

    @property
    def scores(self) -> Scores:
        """Scores of its evaluation, as they are in the folder.

        Raises:
            UserError: It was never evaluated.
        """
        from unsee.evaluation.evaluate import read_scores

        return read_scores(self.path)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows of log.jsonl, one per step: loss, its parts, gradient norm and learning rate.

        Empty where nothing was trained.
        """
        file = self.path / "log.jsonl"
        return read_jsonl(file) if file.is_file() else []

    def to_pandas(self) -> DataFrame:
        """Return the history as a table, a row per step.

        Raises:
            UserError: pandas is not installed.
        """
        return data_frame(self.history, list(dict.fromkeys(["step", *(name for row in self.history for name in row)])))

    def plot(self, names: Iterable[str] = ()) -> Figure:
        """Return a matplotlib figure of the history over steps.

        Args:
            names: Columns to draw; none = the loss and its parts.

        Raises:
            UserError: matplotlib is not installed, or nothing of that name was logged.
        """
        rows, columns = self.history, list(names)
        logged_names = dict.fromkeys(name for row in rows for name in row)
        if unknown_names := [name for name in columns if name not in logged_names] or ([] if rows else ["loss"]):
            raise unknown_name("column of log.jsonl", unknown_names[0], logged_names)
        figure = new_figure(3)
        axes = figure.add_subplot()
        for name in columns or (name for name in logged_names if name not in _NO_LOSS):
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes.plot([step for step, _ in points], [value for _, value in points], label=name)
        axes.set_xlabel("step")
        axes.legend()
        return figure

    def sample(self, questions: int = 8) -> Outcome:
        """Ask a few questions per role and kind, keep and return the verdict."""
        from unsee.workflows.verdict import sample_verdict

        return sample_verdict(self.path, questions=questions, data=self.data)

    def model(self, *, dtype: str = "auto") -> VLM:
        """Return the unlearned model, its processor and family."""
        from unsee.models.checkpoint import load

        return load(self.path, dtype=dtype, engine=self.config.engine if (self.path / RECORD).is_file() else "fast")

    def evaluate(
        self,
        settings: EvalConfig | None = None,
        *,
        progress: bool = True,
        engine: Name | None = None,
        **changes: Any,
    ) -> Scores:
        """Ask all questions of the run's data, and keep and return the scores.

        Args:
            settings: What is asked and judged; None = `eval:` of the run.
            progress: Whether to show how far it is.
            engine: `fast` or `plain`; None = that of the run.
            **changes: Fields of `EvalConfig` that differ from that.
        """
        from unsee.data.open import open_benchmark
        from unsee.evaluation.evaluate import evaluate

        run = self.config
        settings = settings or config.build(EvalConfig, run.eval, where="eval")
        data = self.data or open_benchmark(run.data, run.benchmark)
        return evaluate(
            self.path,
            data,
            self.path,
            settings,
            stage=run.method,
            seed=run.seed,
            progress=progress,
            engine=engine or run.engine,
            **changes,
        )

    def compare(self, *others: Path | str, out: Path | str | None = None) -> Path:
        """Report on this and other evaluated runs, and return the path of report.html.

        Args:
            others: Evaluated run folders, such as the original's.
            out: Folder of the report; None = `report` beside this run.
        """
        from unsee.report import compare

        runs: Sequence[Path] = [*(Path(str(other)) for other in others), self.path]
        return compare(runs, self.path.parent / "report" if out is None else Path(out))

    def __repr__(self) -> str:
        """Return the folder, what was done and the verdict."""
        return f"Run({str(self)!r}: {self._summary()})"

    def _repr_html_(self) -> str:
        """Return the same for notebooks, escaped, without anything from elsewhere."""
        return f"<b>{escape(str(self))}</b><br>{escape(self._summary())}"

    def _summary(self) -> str:
        if not (self.path / RECORD).is_file():
            return "no run"
        run, verdict = self.config, self.verdict
        return f"{run.method} on {run.data}, {verdict or 'not judged; run.sample() or run.evaluate()'}"
