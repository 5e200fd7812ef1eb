"""Run configuration as a value: names, settings and seed, to and from YAML."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any, Final, Literal, TypedDict

from unsee.api import Method, Response, Role, registry
from unsee.api.fast_paths import Name
from unsee.api.plugins import listed
from unsee.config.overrides import dump_yaml, merge, read_mapping
from unsee.config.retention import KEEP, require_retention
from unsee.config.schema import build, plain
from unsee.errors import UserError, short_repr, unknown_name
from unsee.utils.files import atomic_write_text, read_jsonl
from unsee.utils.parsing import read_object

RECORD: Final = "run.yaml"
"""File of a run in its folder."""
SEEDS: Final = 2**32
"""Exclusive upper limit of seeds, that of NumPy."""

_RECORD: Final = ("record", "result")
"""Top-level keys of run.yaml that record results; skipped on reading."""


class RunOptions(TypedDict, total=False):
    """Arguments of `forget` that other functions pass on as they are."""

    benchmark: str | Mapping[str, Any]
    settings: Mapping[str, Any] | None
    training: Mapping[str, Any] | None
    seed: int
    engine: Name
    plugins: Iterable[Path | str]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Configuration of one unlearning run, saved beside its results and repeatable from there."""

    model: str = ""
    """Model folder, Hugging Face id, run folder, or built-in model ("lab", "lab-gold")."""
    data: str = ""
    """Folder or file of the data, or "lab"."""
    benchmark: str | Mapping[str, Any] = ""
    """Benchmark name, or a mapping with `name` and settings; no name = detect from the layout."""
    method: str = ""
    """Name of the unlearning method."""
    out: str = ""
    """Output folder."""
    seed: int = 0
    """Seed of every random stream."""
    engine: Name = "fast"
    """fast, or plain: same results without the fast paths of `unsee.api.fast_paths`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Method settings that differ from the defaults (in YAML: below `method`, beside `name`)."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Training` that differ from the defaults."""
    eval: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `EvalConfig` that differ from the defaults."""
    retention: str = KEEP
    """How long caches and answers stay: keep, until_verified (docs/privacy.md), or days:N from the run's end."""
    plugins: tuple[str, ...] = ()
    """Code from outside: `FILE.py`, `FOLDER` or `pkg.mod:Class`; a written run has `#sha256=...` behind each."""

    def __post_init__(self) -> None:
        """Reject seeds that random generators do not accept, and unknown retentions."""
        require_retention(self.retention)
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed must be between 0 and 2**32 - 1, got {self.seed}.")

    @classmethod
    def of(
        cls,
        model: Path | str,
        data: Path | str,
        method: str | Method,
        out: Path | str,
        *,
        benchmark: str | Mapping[str, Any] = "",
        settings: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        seed: int = 0,
        engine: Name = "fast",
        plugins: Iterable[Path | str] = (),
    ) -> Run:
        """Return the run for the arguments of a public function, a method as name and settings.

        Args:
            model: Folder, file or Hub name of the model, or the name of a built-in one.
            data: Folder, file or Hub name of the data, or the name of a built-in set.
            method: Name of a method, or an object, whose fields become the settings and whose class is registered if need be.
            out: Run folder.
            benchmark: Name, or mapping of name and options. Empty: recognised from the data.
            settings: Settings of a method that is given by name. Default: its own.
            training: Training settings. Those left out keep their defaults.
            seed: Seed of everything random.
            engine: `fast`, or `plain`: same results without the fast paths.
            plugins: Files or modules with code of your own.

        Raises:
            UserError: Settings are given beside a method that is an object, or the method is a class.
        """
        specs = listed(plugins)
        if isinstance(method, type):
            raise UserError(f"method is the class {method.__name__}; give an instance, {method.__name__}().")
        if isinstance(method, Method):
            if settings:
                raise UserError("Settings are given twice: in the method itself, and as `settings`. Give one of them.")
            settings = {setting.name: getattr(method, setting.name) for setting in fields(method) if setting.init}
            method = registry.add_class(type(method))
            specs = (*specs, *registry.pin("methods", method))
        return cls(
            model=str(model),
            data=str(data),
            benchmark=benchmark if isinstance(benchmark, str) else dict(benchmark),
            method=method,
            out=str(out),
            seed=seed,
            engine=engine,
            settings=plain(settings or {}),
            training=dict(training or {}),
            plugins=specs,
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str = "the run") -> Run:
        """Return the run of a nested mapping, the form of the YAML file."""
        flat = {key: value for key, value in values.items() if key not in _RECORD}
        if "settings" in flat:
            raise UserError(
                f"{where}: settings of a method stand below `method`, beside its `name`; there is no `settings`."
            )
        method = flat.get("method", "")
        if isinstance(method, Mapping):
            flat["method"] = method.get("name", "")
            flat["settings"] = {key: value for key, value in method.items() if key != "name"}
        for key in ("training", "eval"):
            if not isinstance(flat.get(key, {}), Mapping):
                raise UserError(f"{where}: {key!r} must be a mapping of settings, got {short_repr(flat[key])}.")
        return build(cls, flat, where=where)

    def to_mapping(self) -> dict[str, Any]:
        """Return the nested mapping, the form of the YAML file."""
        values = {key: plain(value) for key, value in asdict(self).items() if key not in ("method", "settings")}
        values["method"] = {"name": self.method, **plain(self.settings)}
        order = "model data benchmark method training eval seed engine retention plugins out".split()
        default = {"plugins": (), "retention": KEEP}
        return {key: values[key] for key in order if key not in default or vars(self)[key] != default[key]}


NARROWING: Final = ("limit", "roles", "split")
"""Settings of an evaluation that leave out questions."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluation settings: `eval:` in a run file, `--set eval.x=y`."""

    limit: int | None = None
    """Examples per role and kind, spread evenly; none = all."""
    max_new_tokens: int = 256
    """Length limit of every response."""
    batch_size: int = 64
    """Prompts per batch."""
    roles: tuple[str, ...] = ()
    """Only these roles; none = all."""
    split: Literal["all", "selection", "report", "attacks"] = "all"
    """Disjoint third of the questions: `selection` to choose settings on, `report` for the figures, `attacks` for attacks."""
    likelihood: bool = False
    """Also compute log-probabilities of reference answers and options."""
    backend: Literal["hf", "vllm"] = "hf"
    """Generation backend: transformers, or vLLM (`pip install "unsee[vllm]"`)."""
    measures: tuple[str, ...] = ()
    """Further measures: rouge1, rouge2, bleu, exact."""
    gold: str | None = None
    """Model retrained without the forget set, or its evaluated run, for the distance to gold; implies likelihood; "" = none."""
    clip: str | None = None
    """Folder or hub id of a CLIP model, for the CLIPScore of responses about images; "" = none."""

    def __post_init__(self) -> None:
        """Reject invalid values."""
        for name in ("limit", "max_new_tokens", "batch_size"):
            if vars(self)[name] is not None and vars(self)[name] < 1:
                raise UserError(f"eval.{name} must be at least 1, got {vars(self)[name]}.")
        for name in self.roles:
            if name not in set(Role):
                raise unknown_name("role", name, [role.value for role in Role])

    def narrowed(self) -> dict[str, Any]:
        """Return the settings that leave out questions, as they are written."""
        return {name: plain(vars(self)[name]) for name in NARROWING if vars(self)[name] != vars(EvalConfig())[name]}

    def changed(self, changes: Mapping[str, Any]) -> EvalConfig:
        """Return the settings with changes, types checked. None stands for a field's default."""
        changed_values = plain({name: value for name, value in changes.items() if value is not None})
        other_values = {name: value for name, value in asdict(self).items() if name not in changes}
        setting_names = {setting.name for setting in fields(self)}
        for name in changes.keys() - setting_names:
            raise unknown_name("setting of evaluate", name, setting_names)
        return build(EvalConfig, {**other_values, **changed_values}, where="evaluate")


def read(path: Path) -> Run:
    """Read a run from a YAML file, handwritten or of an earlier run."""
    return Run.from_mapping(read_mapping(path), where=str(path))


def write(path: Path, run: Run, *, record: Mapping[str, Any], result: Mapping[str, Any] | None = None) -> None:
    """Write the run, its environment (`record`) and, once there is one, the result.

    Args:
        path: File, replaced in one step.
        run: What was asked for.
        record: Environment: what a run needs to be repeated and explained.
        result: What the run came to. Default: it has not ended.
    """
    values = {**run.to_mapping(), "record": plain(record)}
    if result is not None:
        values["result"] = plain(result)
    atomic_write_text(path, dump_yaml(values))


def result_of(folder: Path) -> Mapping[str, Any]:
    """Return what the run in `folder` came to, or nothing if it has not ended."""
    record = folder / RECORD
    result = read_mapping(record).get("result") if record.is_file() else None
    return result if isinstance(result, Mapping) else {}


def require_ended(folder: Path) -> None:
    """Raise if the run in `folder` has not finished, since its weights are incomplete."""
    record = folder / RECORD
    if record.is_file() and "result" not in read_mapping(record):
        raise UserError(
            f"The run in {folder} has not ended: {record} has no result. Go on with it: unsee forget {record} --resume."
        )


def data_hash_of(folder: Path) -> str:
    """Return the hash of the data that a run was made with, or empty if it records none."""
    record = folder / "run.yaml"
    values = read_mapping(record).get("record") if record.is_file() else None
    return str(values.get("data_hash") or "") if isinstance(values, Mapping) else ""


def other_data_judged(folder: Path) -> str:
    """Return the hash of the data that a run was judged on if it was unlearned on others, else empty.

    Evaluations by older versions record no data: they count as those of the run's.
    """
    file = folder / "judged.json"
    judged_hash = str(read_object(file).get("data") or "") if file.is_file() else ""
    return judged_hash if judged_hash != data_hash_of(folder) else ""


def changed_data(folder: Path) -> str:
    """Return the note on a run whose data are not those that it was made with."""
    return (
        f"The data of {folder}, or their settings, have changed since it was unlearned on them: it may have been trained on what they "
        "call unseen."
    )


def require_answered(folder: Path) -> None:
    """Raise if the evaluation in `folder` was broken off, since answers are missing."""
    total, count = _unfinished_counts(folder)
    if total not in (None, count):
        raise UserError(
            f"The evaluation in {folder} was broken off after {count} of {total} answers. Run the same `unsee eval` again: "
            "it goes on where it stopped."
        )


def require_judged(folder: Path) -> None:
    """Raise if the evaluation in `folder` lacks answers, or has not judged them."""
    require_answered(folder)
    total, _ = _unfinished_counts(folder)
    if total is not None:
        raise UserError(
            f"The evaluation in {folder} has all {total} answers, but they were not judged. Run the same `unsee eval` again: "
            "it judges them, or says why it cannot."
        )


def read_responses(file: Path) -> list[Response]:
    """Read the responses of an evaluated run.

    Raises:
        UserError: A row of the file is no response.
    """
    responses = []
    for number, row in enumerate(read_jsonl(file), start=1):
        try:
            responses.append(Response.from_json(row))
        except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
            raise UserError(
                f"{file} is damaged (row {number} is no response: {error!s:.200}). Judge the run again with `unsee eval`."
            ) from error
    return responses


def _unfinished_counts(folder: Path) -> tuple[Any, int]:
    """Return the numbers of questions and of answers of an unfinished evaluation.

    If the evaluation has ended, they are None and 0.
    """
    record, answers = folder / "judged.json", folder / "responses.jsonl"
    total = read_object(record).get("unfinished") if record.is_file() else None
    return total, answers.read_bytes().count(b"\n") if total is not None and answers.is_file() else 0


def method_of(run: Run) -> Method:
    """Return the method of a run with its settings, types checked."""
    method: Method = build(registry.load("methods", run.method), run.settings, where=f"method {run.method}")
    return method


def has_same_data(run: Run, earlier: Run) -> bool:
    """Tell whether `run` names the data of `earlier`, or none."""
    return not run.data or earlier.data in (run.data, str(Path(run.data).resolve()))


def benchmark_of(run: Run, earlier: Run) -> str | Mapping[str, Any]:
    """Return the benchmark settings of `run`, based on those of `earlier` for the same data."""
    if not has_same_data(run, earlier):
        return run.benchmark
    merged = merge({"benchmark": earlier.benchmark}, {"benchmark": run.benchmark})
    settings: str | Mapping[str, Any] = merged["benchmark"]
    return settings


def eval_of(run: Run, earlier: Run) -> Mapping[str, Any]:
    """Return the evaluation settings of `run`, based on those of `earlier` for the same data."""
    return merge(earlier.eval, run.eval) if has_same_data(run, earlier) else run.eval


def versions() -> dict[str, str]:
    """Return the package versions that a result depends on, without importing them."""
    version_by_package = {"python": python_version()}
    for package in ("unsee", "torch", "transformers", "peft"):
        try:
            version_by_package[package] = version(package)
        except PackageNotFoundError:
            version_by_package[package] = "not installed"
    return version_by_package


def commit() -> str:
    """Return the git commit of unsee, "+changes" if modified, or empty when installed."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    head = _git(root, "rev-parse", "HEAD")
    return head + ("+changes" if head and _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def _git(root: Path, *arguments: str) -> str:
    try:
        completed = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return completed.stdout.strip()
