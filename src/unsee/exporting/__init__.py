"""Export of runs for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from unsee.config import paths
from unsee.distributed import processes
from unsee.distributed.file_lock import owner
from unsee.errors import UserError, unknown_name
from unsee.models.builtin import PACKAGED
from unsee.utils.files import foreign

FORMATS: Final = ("merged", "peft", "open-unlearning", "lmms-eval", "inspect", "vlmevalkit")
"""Formats of `unsee export --to`."""
_OF_DATA: Final = ("lmms-eval", "vlmevalkit")
"""Formats whose questions come from data."""


def export(
    run: Path | str,
    to: str,
    out: Path | str,
    *,
    retain_logs_path: Path | str | None = None,
    benchmark: str | Mapping[str, Any] = "",
) -> list[Path]:
    """Write a run in the format `to` into the new folder `out`, and return the files.

    Args:
        run: Run folder; for lmms-eval and vlmevalkit also data, as `unsee check` takes it.
        to: merged = one whole checkpoint; peft = the adapter alone; open-unlearning = `UNSEE_EVAL.json` and
            `UNSEE_SUMMARY.json` of the answers; lmms-eval = a task with its data; inspect = the answers and scores as a log of
            inspect_ai; vlmevalkit = the questions with images as its tables.
        out: Folder; must be empty or new.
        retain_logs_path: For open-unlearning: EVAL.json, or run folder, of the retrained model, for forget quality.
        benchmark: For lmms-eval and vlmevalkit: layout of the data, or a mapping with `name` and settings; empty = recognise it, or as the
            run read them.

    Raises:
        UserError: The run lacks something that the format needs, an argument is not for it, or there are several processes.
    """
    processes.require_single("unsee export")
    if to not in FORMATS:
        raise unknown_name("format", to, FORMATS)
    if retain_logs_path and to != "open-unlearning":
        raise UserError(f"--retain-logs-path is for open-unlearning, and {to} does not read it. Leave it out.")
    if benchmark and to not in _OF_DATA:
        raise UserError(
            f"--benchmark is for {' and '.join(_OF_DATA)}, as are --fields, --roles and --set; {to} does not read it. Leave it out."
        )
    folder = Path(out)
    if folder.is_file() or foreign(folder):
        raise UserError(f"The output folder {folder} is not empty. Give another --out.")
    needs_data, needs_answers = to in _OF_DATA, to in ("open-unlearning", "inspect")
    if not needs_data and (needs_answers or paths.is_here(str(run))) and str(run) not in PACKAGED:
        paths.require_run(run)
    with owner(folder):
        return _write(run, to, folder, retain_logs_path, benchmark)


def _write(
    run: Path | str, to: str, folder: Path, retain_logs_path: Path | str | None, benchmark: str | Mapping[str, Any]
) -> list[Path]:
    if to in ("merged", "peft"):
        from unsee.exporting.checkpoints import adapter, write_merged

        return write_merged(run, folder) if to == "merged" else adapter(run, folder)
    if to == "open-unlearning":
        from unsee.exporting.open_unlearning import write

        return write(Path(run), folder, retain_logs_path=retain_logs_path)
    if to == "inspect":
        from unsee.exporting import inspect_log

        return inspect_log.write(Path(run), folder)
    if to == "vlmevalkit":
        from unsee.exporting.vlmevalkit import write_tables

        return write_tables(run, folder, benchmark=benchmark)
    from unsee.exporting.lmms_eval import write_task

    return write_task(run, folder, benchmark=benchmark)
