"""A run as a plain value: names, settings and a seed, to and from YAML, with every type checked against the fields."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any, Final, Literal

import yaml

from unsee.config.overrides import merge, read_mapping
from unsee.config.schema import build, plain
from unsee.errors import UserError, shown
from unsee.utils.fast_paths import Name
from unsee.utils.files import atomic_write_text

SEEDS: Final = 2**32
"""Seeds are below this: NumPy takes no others."""

_RECORD: Final = ("record", "result")
"""Top-level keys of a written run.yaml that describe what happened; they are no settings and are skipped on reading."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One unlearning run, whatever it is used for. Saved beside every result, and run again from there."""

    model: str = ""
    """Folder of a model, Hugging Face id, run folder, or a packaged model ("lab", "lab-gold")."""
    data: str = ""
    """Folder or file of the data, or "lab"."""
    benchmark: str | Mapping[str, Any] = ""
    """How the data is laid out: a name, or a mapping with `name` and settings; no name = recognise it."""
    method: str = ""
    """Name of the unlearning method."""
    out: str = ""
    """Folder that receives the results."""
    seed: int = 0
    """Start of every random stream."""
    engine: Name = "fast"
    """fast, or plain: the same numbers without any of the fast paths of `unsee.utils.fast_paths`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the method that differ from its defaults (in YAML: below `method`, beside `name`)."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Training` that differ from the defaults."""
    eval: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Eval` that differ from the defaults."""

    def __post_init__(self) -> None:
        """Refuse seeds that no random generator takes."""
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed must be between 0 and 2**32 - 1, got {self.seed}.")

    @classmethod
    def of(
        cls,
        model: Path | str,
        data: Path | str,
        method: str,
        out: Path | str,
        *,
        benchmark: str | Mapping[str, Any] = "",
        settings: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        seed: int = 0,
        engine: Name = "fast",
    ) -> Run:
        """Return the run that the arguments of a public function say, paths as text."""
        return cls(
            model=str(model),
            data=str(data),
            benchmark=benchmark if isinstance(benchmark, str) else dict(benchmark),
            method=method,
            out=str(out),
            seed=seed,
            engine=engine,
            settings=dict(settings or {}),
            training=dict(training or {}),
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str = "the run") -> Run:
        """Read the nested form that the YAML file has."""
        flat = {key: value for key, value in values.items() if key not in _RECORD}
        method = flat.get("method", "")
        if isinstance(method, Mapping):
            flat["method"] = method.get("name", "")
            flat["settings"] = {key: value for key, value in method.items() if key != "name"}
        for key in ("settings", "training", "eval"):
            if not isinstance(flat.get(key, {}), Mapping):
                raise UserError(f"{where}: {key!r} must be a mapping of settings, got {shown(flat[key])}.")
        return build(cls, flat, where=where)

    def to_mapping(self) -> dict[str, Any]:
        """Return the nested form that the YAML file has."""
        values = {key: plain(value) for key, value in asdict(self).items() if key not in ("method", "settings")}
        values["method"] = {"name": self.method, **plain(self.settings)}
        order = ("model", "data", "benchmark", "method", "training", "eval", "seed", "engine", "out")
        return {key: values[key] for key in order}


@dataclass(frozen=True, kw_only=True)
class Eval:
    """How a model is asked. The fields are what `eval:` in a run file and `--set eval.x=y` may name."""

    limit: int | None = None
    """Examples per role and kind, spread evenly; none = all."""
    max_new_tokens: int = 256
    """Length limit of every answer."""
    batch_size: int = 64
    """Questions asked at once."""
    roles: tuple[str, ...] = ()
    """Only these roles; none = all."""
    likelihood: bool = False
    """Also ask how probable the reference answers and options are."""
    backend: Literal["hf", "vllm"] = "hf"
    """What generates: transformers, or vLLM (`pip install "unsee[vllm]"`)."""
    measures: tuple[str, ...] = ()
    """Further measures: rouge1, rouge2, bleu, exact."""
    gold: str = ""
    """Judged run of a model that never saw what is to be forgotten: gives forget quality; implies likelihood."""
    clip: str = ""
    """Folder or hub id of a CLIP model: gives CLIPScore of answers about images."""

    def __post_init__(self) -> None:
        """Refuse values that nothing could be asked with."""
        for name in ("max_new_tokens", "batch_size"):
            if vars(self)[name] < 1:
                raise UserError(f"eval.{name} must be at least 1, got {vars(self)[name]}.")


def read(path: Path) -> Run:
    """Read a run from a YAML file, be it written by hand or by an earlier run."""
    return Run.from_mapping(read_mapping(path), where=str(path))


def write(path: Path, run: Run, *, record: Mapping[str, Any], result: Mapping[str, Any] | None = None) -> None:
    """Write the run, the circumstances (`record`) and, once there is one, the result."""
    values = {**run.to_mapping(), "record": plain(record)}
    if result is not None:
        values["result"] = plain(result)
    atomic_write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))


def require_ended(folder: Path) -> None:
    """Raise if `folder` is that of a run which has not ended: its weights are not the result."""
    record = folder / "run.yaml"
    if record.is_file() and "result" not in read_mapping(record):
        raise UserError(
            f"The run in {folder} has not ended: {record} has no result. Go on with it: unsee forget {record} --resume."
        )


def benchmark_of(run: Run, earlier: Run) -> str | Mapping[str, Any]:
    """Return how to open the data of `run`: as `earlier` did if it is the same data, with what `run` says put in."""
    if run.data and run.data != earlier.data and str(Path(run.data).resolve()) != earlier.data:
        return run.benchmark
    merged = merge({"benchmark": earlier.benchmark}, {"benchmark": run.benchmark})
    found: str | Mapping[str, Any] = merged["benchmark"]
    return found


def versions() -> dict[str, str]:
    """Return the versions that a result depends on, without importing the packages."""
    found = {"python": python_version()}
    for package in ("unsee", "torch", "transformers", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """Return the git commit that unsee runs from, with "+changes" if files differ from it; empty when installed."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    head = _git(root, "rev-parse", "HEAD")
    return head + ("+changes" if head and _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


RECORD: Final = "run.yaml"
