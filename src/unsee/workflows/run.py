"""A finished run as an object: a path that can be opened, evaluated and compared."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee import config
from unsee.api import Benchmark
from unsee.config import RECORD, EvalConfig

if TYPE_CHECKING:
    from unsee.models.checkpoint import Loaded
    from unsee.scoring.scores import Scores
    from unsee.workflows.verdict import Outcome

    _Path = Path
else:
    _Path = type(Path())  # Path itself cannot be subclassed before Python 3.12


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
        """Verdict of its evaluation, else of its sample (`sample`); None if it was never judged."""
        from unsee.workflows.verdict import verdict_of

        return verdict_of(self.path)

    def sample(self, questions: int = 8) -> Outcome:
        """Ask a few questions per role and kind, keep and return the verdict."""
        from unsee.workflows.verdict import sample_verdict

        return sample_verdict(self.path, questions=questions, data=self.data)

    def model(self, *, dtype: str = "auto") -> Loaded:
        """Return the unlearned model, its processor and family."""
        from unsee.models.checkpoint import load

        return load(self.path, dtype=dtype)

    def evaluate(self, settings: EvalConfig | None = None, *, progress: bool = True, **changes: Any) -> Scores:
        """Ask all questions of the run's data, and keep and return the scores.

        Args:
            settings: What is asked and judged; None = `eval:` of the run.
            progress: Whether to show how far it is.
            **changes: Fields of `EvalConfig` that differ from that.
        """
        from unsee.data.open import open_benchmark
        from unsee.evaluation.evaluate import evaluate

        run = self.config
        settings = settings or config.build(EvalConfig, run.eval, where="eval")
        data = self.data or open_benchmark(run.data, run.benchmark)
        return evaluate(
            self.path, data, self.path, settings, stage=run.method, seed=run.seed, progress=progress, **changes
        )

    def compare(self, *others: Path | str, out: Path | str | None = None) -> Path:
        """Report on this and other evaluated runs; return the path of report.html.

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
        """Return the same for notebooks, escaped; loads nothing from elsewhere."""
        return f"<b>{escape(str(self))}</b><br>{escape(self._summary())}"

    def _summary(self) -> str:
        if not (self.path / RECORD).is_file():
            return "no run"
        run, verdict = self.config, self.verdict
        return f"{run.method} on {run.data}, {verdict or 'not judged; run.sample() or run.evaluate()'}"
