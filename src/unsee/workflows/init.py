"""Workflow of `init`: a commented run file for the data at hand."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from unsee.api import Training, registry
from unsee.api.describe import field_docs
from unsee.config import EvalConfig, Run, dump_yaml
from unsee.errors import UserError
from unsee.models import builtin
from unsee.utils.files import atomic_write_text
from unsee.workflows.suggest import Suggestion, suggest

_WIDTH: Final = 110
"""Characters of a line; longer comments stand above what they explain."""
_OWN: Final = {"lab:documents": "lab-documents", "lab:english": "lab-smol"}
"""Request of the lab -> packaged model that knows its entities, where that is not `lab`."""
_LEFT_OUT: Final[tuple[Any, ...]] = ("", {}, ())
"""Values of keys that need not be written."""


def init(
    data: Path | str,
    model: Path | str = "",
    out: Path | str = "run.yaml",
    *,
    benchmark: str | Mapping[str, Any] = "",
    plugins: Sequence[str] = (),
) -> Path:
    """Write a run file for these data and return its path. Every line says what it does.

    Args:
        data: Folder or table with the deletion request, or "lab".
        model: Folder, hub id, run folder or "lab"; empty = to be given to `unsee forget` (the lab's own for its data).
        out: Run file, which must not exist.
        benchmark: How the data is laid out; empty = recognise it.
        plugins: Code of your own that the data or the model need; the run file names it.

    Raises:
        UserError: The file exists, a plugin is broken, there is no such model, or the data cannot be used.
    """
    file = Path(out)
    if file.exists() or file.is_symlink():
        raise UserError(f"{file} exists and is not overwritten. Give another --out, or delete it.")
    if not model and str(data).partition(":")[0] == "lab":
        lab_model = _OWN.get(str(data), "lab")
        model = lab_model if lab_model in builtin.PACKAGED else ""
    run_folder = Path("runs") / (file.stem if file.stem != "run" else Path(data).stem)
    suggestion = suggest(model, data, out=run_folder, benchmark=benchmark, plugins=plugins)
    atomic_write_text(file, run_file_text(suggestion, file))
    return file


def run_file_text(suggestion: Suggestion, file: Path) -> str:
    """Return the text of the run file."""
    start = f"unsee forget {os.fspath(file)}" + ("" if suggestion.run.model else " --model MODEL")
    comments = [f"Start it with: {start} (--dry-run says memory and time first).", *suggestion.reasons]
    comments.append(
        "All settings, in an editor: unsee schema > unsee.schema.json, then the line below without its first #."
    )
    wrapped = [textwrap.wrap(text, _WIDTH - 2, break_long_words=False, break_on_hyphens=False) for text in comments]
    lines = [f"# {line}" for part in wrapped for line in part]
    lines.append("# # yaml-language-server: $schema=unsee.schema.json")
    return "\n".join([*lines, "", *_run_lines(suggestion.run)]) + "\n"


def _run_lines(run: Run) -> Iterator[str]:
    """Yield the lines of a run."""
    docs = field_docs(Run)
    parts = {
        "benchmark": _class("benchmarks", run.benchmark["name"] if isinstance(run.benchmark, Mapping) else ""),
        "method": _class("methods", run.method),
        "training": Training,
        "eval": EvalConfig,
    }
    for key, value in run.to_mapping().items():
        if value in _LEFT_OUT:
            continue
        if not isinstance(value, Mapping):
            yield from _line(key, value, docs[key], "")
            continue
        yield from _comment_lines(docs[key], "")
        yield f"{key}:"
        meanings = {"name": docs[key], **field_docs(parts[key])}
        for name, setting_value in value.items():
            yield from _line(name, setting_value, "" if name == "name" else meanings.get(name, ""), "  ")


def _class(kind: registry.Loadable, name: str) -> type[Any]:
    """Return the dataclass of the settings of a method or benchmark."""
    if not name:
        return object
    registered_class = registry.load(kind, name)
    cls: type[Any] = registered_class.settings_type if kind == "benchmarks" else registered_class
    return cls


def _line(key: str, value: Any, meaning: str, indent: str) -> Iterator[str]:
    """Yield a setting with its meaning behind it, or above where the line would be too long."""
    setting = f"{indent}{key}: {_scalar(value)}"
    if len(setting) + len(meaning) + 4 <= _WIDTH:
        yield f"{setting}  # {meaning}" if meaning else setting
    else:
        yield from _comment_lines(meaning, indent)
        yield setting


def _comment_lines(text: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(text, _WIDTH - len(indent) - 2)]


def _scalar(value: Any) -> str:
    """Return a value as YAML in one line."""
    return dump_yaml(value, inline=True).removesuffix("\n").removesuffix("\n...")
