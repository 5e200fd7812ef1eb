"""A campaign of kills: commands are ended at random moments by signals, and must go on to the same results.

    python tests/helpers/kills.py --kills 100 --dir /tmp/kills

Trial number k is always the same job, delay and signal. Finished trials are in DIR/ledger.jsonl and are not repeated,
so the campaign itself can be ended and started again. The commands are forked from a process that has imported
everything they need, so that the time goes into kills and not into imports; the cells of a sweep are started by the
sweep, as always. Exit code 1 if any trial failed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_folder"
METHODS = ("ga", "grad_diff", "kl", "npo", "reject")
SIGNALS = {"SIGKILL": (-9,), "SIGTERM": (143, -15), "SIGINT": (130,)}
"""Signal -> exit codes it may end a command with; -15 is SIGTERM before the first line of unsee has run."""
ROUNDS = 6
"""Calls after a kill within which a command must end well."""
PATIENCE = 300
"""Seconds that one call may take on a busy machine; a lock that is never freed takes longer."""
GRACE = 30
"""Seconds within which the processes that a command has started must have ended after it."""
MARKS = ("<!-- printed by tests/helpers/kills.py -->", "<!-- end -->")
IMPORTED = (
    "unsee.cli.main", "unsee.evaluation.evaluate", "unsee.report", "unsee.training.trainer", "unsee.workflows.continual",
    "unsee.workflows.demo", "unsee.workflows.forget", "unsee.workflows.sweep", "unsee.workflows.train_lab",
    "unsee.lab.recipe.school", "transformers.models.llava.modeling_llava", "transformers.models.clip.modeling_clip",
    "transformers.models.llama.modeling_llama", "transformers.models.llava.processing_llava", "transformers.trainer", "peft",
)  # fmt: skip
SHORT = {"max_steps": 3, "stop": "never", "checkpoint_every": 1, "max_new_tokens": 4}
TRAINING = ["--set", "training.max_steps=6", "--set", "training.stop=never", "--set", "training.checkpoint_every=2",
            "--set", "training.max_new_tokens=4", "--set", "training.lr=1e-3"]  # fmt: skip
GRID = """
base: {{model: {model}, data: {data}, method: ga, training: {{max_steps: 3, stop: never, checkpoint_every: 1, max_new_tokens: 4}},
       eval: {{limit: 1, max_new_tokens: 4}}}}
axes: {{seed: [0, 1]}}
"""


@dataclass(frozen=True)
class Job:
    """A command, OUT standing for its output folder, and what makes it small enough for many trials."""

    words: Sequence[str]
    small: Callable[[], Any] = nullcontext


@dataclass(frozen=True)
class Trial:
    """What came of one kill."""

    number: int
    job: str
    signal: str
    after: float
    """Seconds from the start of the command to the signal."""
    code: int
    """Exit code of the command that was ended."""
    rounds: int
    """Calls until it ended well."""
    seconds: float
    """Time that these calls took."""
    same: bool
    """Whether weights, answers, losses and the names of all files are those of an uninterrupted run."""
    message: str = ""
    """What went wrong, be it in the command that was ended or in those that went on; empty if nothing did."""


def jobs(model: Path) -> dict[str, Job]:
    """Return every job of the campaign by name."""
    base = ["--model", str(model), "--data", str(EXAMPLE), "--out", "OUT"]
    forget = {
        f"forget {method} {tune}": Job(["forget", *base, "--method", method, "--tune", tune, *TRAINING, "--resume"])
        for method in METHODS
        for tune in ("lora", "full")
    }
    grid = model.parent / "grid.yaml"
    grid.write_text(GRID.format(model=model, data=EXAMPLE))
    tasks = ["--method", "ga", "--tasks", "1", *TRAINING, "--set", "continual.max_new_tokens=4"]
    return {
        **forget,
        "eval": Job(["eval", *base, "--set", "eval.max_new_tokens=16", "--set", "eval.batch_size=1"]),
        "sweep": Job(["sweep", str(grid), "--out", "OUT"]),
        "continual": Job(["continual", *base, *tasks]),
        "demo": Job(["demo", "--out", "OUT"], partial(small_demo, str(model))),
        "train": Job(["train", "lab", "--people", "4", "--steps-scale", "0.01", "--out", "OUT"], small_lab),
    }


def small_demo(model: str) -> Any:
    """Let `unsee demo` compare the tiny model before and after three steps of `ga`, on the example's rows."""
    from unsee.workflows import demo

    rows = [demo.Row(stage="original", model=model), demo.Row(stage="ga", model=model, method="ga", training=SHORT)]
    return patch.multiple(demo, DATA=str(EXAMPLE), ANSWER_TOKENS=4, plan=lambda **_: rows)


def small_lab() -> Any:
    """Let `unsee train lab` teach a narrow model on a few dozen pictures, and skip the exam's 110-token answers."""
    from helpers.narrow_lab import NARROW
    from unsee.lab.recipe import curriculum, model, recipe
    from unsee.workflows import train_lab

    few = partial(curriculum.Amount, per_person=2, strangers=6, per_stranger=2, shapes=6, devices=6)
    short = partial(recipe.Recipe, vision_batch=8, rows=(2, 1, 1, 1, 1))
    patches = patch.multiple(train_lab, examine=lambda *_: {}), patch.object(curriculum, "Amount", few)
    patches = *patches, patch.object(model, "Size", lambda: NARROW)
    return entered(*patches, patch.object(recipe, "Recipe", short))


def entered(*contexts: Any) -> Any:
    """Return one context of several."""
    from contextlib import ExitStack

    stack = ExitStack()
    for context in contexts:
        stack.enter_context(context)
    return stack


def campaign(kills: int, folder: Path) -> list[Trial]:
    """Do the trials 0 to `kills` - 1 that are not in the ledger yet, and return all."""
    prepare()
    folder.mkdir(parents=True, exist_ok=True)
    model, ledger = folder / "model", folder / "ledger.jsonl"
    if not (model / "config.json").exists():
        in_child(save_model, model)
    trials = read_ledger(ledger)
    listed = jobs(model)
    for number in sorted(set(range(kills)) - {trial.number for trial in trials}):
        name = list(listed)[number % len(listed)]
        trial = attempt(number, name, listed, folder)
        trials.append(trial)
        with ledger.open("a") as file:
            file.write(json.dumps(asdict(trial)) + "\n")
    return trials


def read_ledger(file: Path) -> list[Trial]:
    """Return the trials of earlier calls."""
    return [Trial(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def prepare() -> None:
    """Import what the commands need, and set what they and the cells of a sweep find in their environment."""
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.update(settings, PYTHONPATH=os.pathsep.join(paths))
    os.environ.pop("UNSEE_CACHE", None)
    for name in IMPORTED:
        importlib.import_module(name)


def save_model(folder: Path) -> None:
    """Write the tiny model that all jobs start from."""
    from unsee.testing.tiny import save_tiny

    save_tiny(folder)


def in_child(action: Callable[..., None], *words: Any) -> None:
    """Call a function in a forked process: torch's threads in this one would not survive the next fork."""
    process = get_context("fork").Process(target=action, args=words)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{action.__name__} ended with {process.exitcode}")


def attempt(number: int, name: str, listed: Mapping[str, Job], folder: Path) -> Trial:
    """Kill one job once, let it go on, and compare its results with those of an uninterrupted run."""
    job, chosen = listed[name], list(SIGNALS)[number // len(listed) % len(SIGNALS)]
    wanted, lead, work = reference(name, job, folder)
    place = folder / f"trial-{number:04}"
    process, after = interrupted(job, place, random.Random(number), (lead, work), chosen)
    code = ended(process)
    complaint = misbehaved(chosen, code, place / "stderr.txt")
    begun, rounds = time.monotonic(), 0
    while True:
        rounds += 1
        last = ended(start(job, place))
        found = digest(place / "out")
        if rounds == ROUNDS or (last == 0 and found == wanted):
            break
        time.sleep(1)  # a cell of a killed sweep may need a moment to end
    same = last == 0 and found == wanted
    if not same:
        complaint += f" then exit {last}: {tail(place / 'stderr.txt')} {changed(found, wanted)}"
    complaint += left_running(process)
    if not complaint:
        shutil.rmtree(place)
    seconds = round(time.monotonic() - begun, 1)
    return Trial(number, name, chosen, after, code, rounds, seconds, same, complaint)


def interrupted(
    job: Job, place: Path, rng: random.Random, spans: tuple[float, float], chosen: str
) -> tuple[BaseProcess, float]:
    """Start a job and send it the signal at a random moment: one time in five before it has written anything."""
    lead, work = spans
    for turn in range(ROUNDS):  # on a machine that is faster than before, the command may end first: then earlier
        shutil.rmtree(place, ignore_errors=True)
        early = rng.random() < 0.2
        begun, process = time.monotonic(), start(job, place)
        if not early:
            wait_for_files(process, place / "out")
        process.join(rng.uniform(0, lead if early else work) / 2**turn)
        after = round(time.monotonic() - begun, 2)
        if process.is_alive() and process.pid is not None:
            send(chosen, process.pid)
        if ended(process) != 0:
            return process, after
    raise RuntimeError(f"{job.words[0]} was never interrupted: it takes less than {work / 2**ROUNDS:.2f} s")


def send(name: str, pid: int) -> None:
    """Send a signal to a command; SIGINT to its whole process group, as a terminal does at Ctrl-C."""
    leads = os.getpgid(pid) == pid  # not yet in the first instant after the fork
    (os.killpg if name == "SIGINT" and leads else os.kill)(pid, signal.Signals[name])


def misbehaved(chosen: str, code: int, stderr: Path) -> str:
    """Return what is wrong with the way in which a command took its signal; empty if nothing is."""
    if code not in SIGNALS[chosen]:
        return f"{chosen} ended it with {code}: {tail(stderr)}"
    if stderr.exists() and "Traceback" in stderr.read_text(
        errors="replace"
    ):  # none: it was killed before its first line
        return f"{chosen} was answered with a traceback: {tail(stderr)}"
    return ""


def left_running(leader: BaseProcess) -> str:
    """Say how long processes of an ended command stay, if it is too long; they are killed then."""
    end = time.monotonic() + GRACE
    while time.monotonic() < end:
        try:
            os.killpg(int(leader.pid or 0), 0)
        except ProcessLookupError:
            return ""
        time.sleep(0.1)
    os.killpg(int(leader.pid or 0), signal.SIGKILL)
    return f" its processes still ran after {GRACE} s"


def reference(name: str, job: Job, folder: Path) -> tuple[dict[str, str], float, float]:
    """Return what an uninterrupted run leaves, its seconds until there are files, and its seconds after that."""
    file = folder / "references" / f"{name.replace(' ', '-')}.json"
    if not file.exists():
        place = folder / "references" / name.replace(" ", "-")
        shutil.rmtree(place, ignore_errors=True)
        begun = time.monotonic()
        process = start(job, place)
        wait_for_files(process, place / "out")
        lead = time.monotonic() - begun
        if code := ended(process):
            raise RuntimeError(f"{name} fails uninterrupted with {code}: {tail(place / 'stderr.txt')}")
        facts: list[Any] = [digest(place / "out"), lead, time.monotonic() - begun - lead]
        if not any(facts[0].values()):
            raise RuntimeError(f"{name} leaves nothing to compare")
        file.write_text(json.dumps(facts))
    wanted, lead, work = json.loads(file.read_text())
    return wanted, lead, work


def start(job: Job, place: Path) -> BaseProcess:
    """Start the job with its output in `place`/out and its messages in `place`/stderr.txt."""
    place.mkdir(parents=True, exist_ok=True)
    process = get_context("fork").Process(target=command, args=(job, place))
    process.start()
    return process


def command(job: Job, place: Path) -> None:
    """Be the program `unsee` in a forked process."""
    from unsee.cli.main import script

    os.setsid()  # all that it starts is one process group
    for stream, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts with & ignore it
    sys.argv = ["unsee", *(str(place / "out") if word == "OUT" else word for word in job.words)]
    with job.small():
        script()


def ended(process: BaseProcess) -> int:
    """Wait for a process and return its exit code; one that does not end is killed and has the code of SIGKILL."""
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    return int(process.exitcode or 0)


def wait_for_files(process: BaseProcess, out: Path) -> None:
    """Wait until there is something in the output folder, or the process has ended."""
    end = time.monotonic() + PATIENCE
    while process.is_alive() and time.monotonic() < end and not (out.is_dir() and any(out.iterdir())):
        time.sleep(0.01)


def digest(out: Path) -> dict[str, str]:
    """Return every file below the output folder, and the hash of those that must not depend on an interruption.

    These are weights, answers and losses; other files hold times and paths, and must only be there. The shared cache
    may have fewer files where a run needed less of it.
    """
    exact = (".safetensors", "responses.jsonl", "samples.jsonl", "log.jsonl")
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() if name.endswith(exact) else ""
        for name, path in sorted(files.items())
        if "cache" not in Path(name).parts
    }


def changed(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Return the files that differ."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


def tail(file: Path) -> str:
    """Return the last words of a log."""
    return file.read_text(errors="replace")[-600:] if file.exists() else ""


def table(trials: Sequence[Trial]) -> str:
    """Return the figures in Markdown: for each command its kills by signal, and what came of them."""
    lines = [
        f"| command | {' | '.join(SIGNALS)} | same results | at the first call | median seconds |",
        "|---|" + "---|" * (len(SIGNALS) + 3),
    ]
    groups = {name: [trial for trial in trials if trial.job == name] for name in dict.fromkeys(t.job for t in trials)}
    return "\n".join([*lines, *(row(name, group) for name, group in groups.items()), row("all", trials)])


def row(name: str, trials: Sequence[Trial]) -> str:
    """Return the figures of some trials as a row."""
    signals = Counter(trial.signal for trial in trials)
    good = [trial for trial in trials if trial.same and not trial.message]
    seconds = statistics.median(trial.seconds for trial in trials)
    counts = " | ".join(str(signals[name]) for name in SIGNALS)
    first = sum(trial.rounds == 1 for trial in good)
    return f"| {name} | {counts} | {len(good)} of {len(trials)} | {first} | {seconds:.1f} |"


def put(text: str, page: Path) -> None:
    """Replace what stands between the marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")


def main() -> int:
    """Run the campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="put the figures between the marks of this page")
    options = parser.parse_args()
    trials = campaign(options.kills, options.dir.resolve())
    print(table(trials))
    if options.page:
        put(table(trials), options.page)
    failed = [trial for trial in trials if trial.message]
    for trial in failed:
        print(trial)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
