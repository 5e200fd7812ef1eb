"""GPU measurement in at most nine minutes: `python -m perf.gpu run`, `table FILE`.

Every part is a process of its own with a time limit. Its results are written to the results file as they come.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import IO, Any, Final

from perf import report
from perf.record import Record, open_record
from unsee.errors import UserError
from unsee.utils.files import atomic_write_text

ROOT: Final = Path(__file__).resolve().parents[1]
TOTAL: Final = 540
"""Seconds of the whole measurement, at most."""
PARTS: Final[Mapping[str, int]] = {"llava_1_5_7b": 150, "qwen2_5_vl_7b": 150, "lab": 110, "perf": 95, "tests": 60}
"""Part -> seconds after which it is stopped; in this order, so that what is cut off matters least."""
REHEARSAL: Final = 20
"""Factor of all limits under `--tiny`: a rehearsal is to reach its end, also on a busy machine."""
MODELS: Final = ("llava_1_5_7b", "qwen2_5_vl_7b")
SIDES: Final = ("unsee", "conventional", "estimate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or print the table of a results file; return 1 if a part or a case failed."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.action == "table":
            print(table(json.loads(asked.file.read_text(encoding="utf-8"))))
            return 0
        return run(asked)
    except (UserError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf.gpu", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="measure")
    run.add_argument("--only", default="", help=f"parts, separated by commas: {', '.join(PARTS)}")
    run.add_argument("--skip", default="", help="parts to leave out, separated by commas")
    run.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: only to rehearse, with --tiny")
    run.add_argument("--tiny", action="store_true", help="tiny models and few steps: a rehearsal, not a measurement")
    run.add_argument("--out", type=Path, help="results file; default: perf/results/DEVICE.json")
    run.add_argument("--seconds", type=float, default=TOTAL, help=f"time of everything, default {TOTAL}")
    shown = actions.add_parser("table", help="print the Markdown table of a results file")
    shown.add_argument("file", type=Path)
    return parser


def run(asked: argparse.Namespace) -> int:
    """Run the parts one after the other and write the results file and its table."""
    slack = REHEARSAL if asked.tiny else 1
    end = time.monotonic() + asked.seconds * slack
    chosen = chosen_parts(asked.only, asked.skip)
    around = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    around |= {"HF_HUB_OFFLINE": "1", "UNSEE_CACHE": "off"}
    if asked.device == "cpu":
        around |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}  # tiny models gain nothing from more threads
    facts = machine(around)
    if asked.device == "cuda" and not facts["cuda"]:
        raise UserError("No GPU is visible to PyTorch. To rehearse without one: --device cpu --tiny.")
    out = asked.out or ROOT / "perf" / "results" / f"{slug(facts['device'])}{'-tiny' * asked.tiny}.json"
    record = open_record(out, {"machine": facts, "settings": {"tiny": asked.tiny, "device": asked.device}})
    for part in chosen:
        limit = min(PARTS[part] * slack, end - time.monotonic())
        if limit <= 0:
            record.add(part, {"status": "left out: no time left", "cases": {}})
            continue
        command = [sys.executable, "-m", "perf.gpu_parts", part, *(["--tiny"] if asked.tiny else [])]
        run_part(part, command, limit, record, around)
        atomic_write_text(out.with_suffix(".md"), table(record.content()) + "\n")
    print(table(record.content()))
    return int(any(_failed(record.entries[part]) for part in chosen))


def chosen_parts(only: str, skip: str) -> list[str]:
    """Return the parts to run; an unknown name is an error with the list."""
    named = [*filter(None, only.split(",")), *filter(None, skip.split(","))]
    unknown = [name for name in named if name not in PARTS]
    if unknown:
        raise UserError(f"No part is called {', '.join(unknown)}. There are: {', '.join(PARTS)}.")
    return [name for name in PARTS if (not only or name in only.split(",")) and name not in skip.split(",")]


def machine(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the device and the versions, as the parts will see them."""
    code = "import json; from perf.gpu_parts import circumstances; print(json.dumps(circumstances()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(environment), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"The measurement cannot start:\n{done.stderr[-2000:]}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def slug(device: str) -> str:
    """Return a device name as a file name.

    >>> slug("NVIDIA H100 80GB HBM3")
    'nvidia-h100-80gb-hbm3'
    """
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def run_part(
    part: str, command: Sequence[str], limit: float, record: Record, environment: Mapping[str, str] | None = None
) -> None:
    """Run one part for at most `limit` seconds and add its results to the record as they come."""
    sys.stderr.write(f"{part} (at most {limit:.0f} s)\n")
    start, cases = time.monotonic(), dict[str, Any]()
    late: list[bool] = []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment or os.environ),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        timer = Timer(limit, lambda: (late.append(True), _stop(process)))
        timer.start()
        try:
            for name, result in _results(process.stdout):
                cases[name] = result
                record.add(part, {"status": "running", "cases": cases})
                sys.stderr.write(f"  {name}: {_brief(result)}\n")
            code = process.wait()
        finally:
            timer.cancel()
            _stop(process)
        status = f"stopped after {limit:.0f} s" if late else "done" if code == 0 else f"failed: {_last_line(errors)}"
    record.add(part, {"status": status, "seconds": round(time.monotonic() - start, 1), "cases": cases})
    sys.stderr.write(f"  {status}, {time.monotonic() - start:.0f} s\n")


def _stop(process: subprocess.Popen[str]) -> None:
    """Kill the processes of a part; nothing if they have ended."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _results(output: IO[str] | None) -> Iterator[tuple[str, Any]]:
    """Yield name and result of the cases; other lines (a library's chatter) are passed over."""
    for line in output or ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and {"case", "result"} <= row.keys():
            yield row["case"], row["result"]


def _last_line(errors: IO[str]) -> str:
    errors.seek(0)
    lines = errors.read().strip().splitlines()
    return lines[-1][:300] if lines else "no message"


def _brief(result: Mapping[str, Any]) -> str:
    shown = ("error", "out_of_memory", "outcome", "questions_per_second", "speedup", "memory_gib")
    parts = [f"{name} {result[name]}" for name in shown if name in result]
    if isinstance(result.get("seconds"), Mapping) and "median" in result["seconds"]:
        parts.append(f"{result['seconds']['median']} s a step")
    return ", ".join([*parts, f"{result.get('wall_seconds', 0)} s"])


def _failed(entry: Mapping[str, Any]) -> bool:
    """Tell whether a part did not end by itself, or a case of it failed; too little memory is a result."""
    broken = (set(case) & {"error"} or case.get("outcome") in ("failure", "error") for case in entry["cases"].values())
    return entry["status"] != "done" or any(broken)


def table(content: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    facts = ", ".join(f"{name} {value}" for name, value in content["machine"].items())
    lines = [f"# {content['machine']['device']}", "", facts]
    if content["settings"]["tiny"]:
        lines += ["", "**A rehearsal with tiny models: no measurement.**"]
    for part, entry in content.items():
        if part in PARTS:
            lines += ["", f"## {part}", "", f"{entry['status']}, {entry.get('seconds', 0)} s", "", *_part(part, entry)]
    return "\n".join(lines)


def _part(part: str, entry: Mapping[str, Any]) -> list[str]:
    cases = entry["cases"]
    if not cases:
        return ["No results."]
    if part in MODELS:
        return _model(cases)
    if part == "perf":
        return report.markdown({**cases, "machine": {}}).splitlines()[2:]
    columns = list(dict.fromkeys(key for case in cases.values() for key in case))
    return _markdown(["case", *columns], [[name, *(case.get(key) for key in columns)] for name, case in cases.items()])


def _model(cases: Mapping[str, Any]) -> list[str]:
    """Return one row per case of a random model: both sides and the estimate."""
    names = list(dict.fromkeys(name.partition(".")[0] for name in cases if name != "model"))
    head = ["case", "unsee", "conventional", "speed-up", "unsee GiB", "estimate GiB", "conventional GiB", "remarks"]
    size = cases.get("model", {}).get("parameters", 0)
    rows = [_beside(name, *(cases.get(f"{name}.{side}", {}) for side in SIDES)) for name in names]
    return [f"{size:,} parameters", "", *_markdown(head, rows)]


def _beside(
    name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], guess: Mapping[str, Any]
) -> list[str | float | None]:
    ratio = ""
    if (here := _speed(ours)) and (there := _speed(theirs)):
        ratio = f"{here[0] / there[0]:.2f}"
    remarks = [f"{side}: {why}" for side, case in zip(SIDES, (ours, theirs, guess), strict=True) if (why := _why(case))]
    estimated = guess.get("training_gib" if name in ("npo", "kl", "pubg") else "memory_gib")
    values = (_shown(ours), _shown(theirs), ratio, ours.get("peak_gib"), estimated, theirs.get("peak_gib"))
    return [name, *values, "; ".join(remarks)]


def _speed(case: Mapping[str, Any]) -> tuple[float, str] | None:
    """Return how much a side does per second, and the figure to be shown."""
    if "questions_per_second" in case:
        return case["questions_per_second"], f"{case['questions_per_second']:.3g} questions/s"
    if "seconds_per_example" in case:
        return 1 / case["seconds_per_example"], f"{case['seconds_per_example']:.3g} s/example"
    if "seconds" in case:
        return 1 / case["seconds"]["median"], f"{case['seconds']['median']:.3g} s/step"
    return None


def _shown(case: Mapping[str, Any]) -> str:
    speed = _speed(case)
    return speed[1] if speed else "out of memory" if "out_of_memory" in case else "failed" if "error" in case else ""


def _why(case: Mapping[str, Any]) -> str:
    return str(case.get("error") or case.get("out_of_memory") or "")


def _markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [
        "| " + " | ".join("" if cell is None else str(cell).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    ]


if __name__ == "__main__":
    raise SystemExit(main())
