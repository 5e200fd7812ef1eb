"""A campaign of kills: commands are ended at random moments by random signals, and must go on to the same results.

    python tests/helpers/kills.py --kills 100 --dir /tmp/kills

Trial number k is always the same job, delay and signal. Finished trials are in DIR/ledger.jsonl and are not repeated, so the
campaign itself can be ended and started again. Prints a table at the end; exit code 1 if any result differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_folder"
METHODS = ("ga", "grad_diff", "kl", "npo", "reject")
SIGNALS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}
ROUNDS = 6
"""Calls after a kill within which a command must end well."""
PATIENCE = 900
"""Seconds that one call may take on a busy machine."""
TRAINING = ["--set", "training.max_steps=6", "--set", "training.stop=never", "--set", "training.checkpoint_every=2",
            "--set", "training.max_new_tokens=4", "--set", "training.lr=1e-3"]  # fmt: skip
GRID = """
base: {{model: {model}, data: {data}, method: ga, training: {{max_steps: 3, stop: never, checkpoint_every: 1, max_new_tokens: 4}},
       eval: {{limit: 1, max_new_tokens: 4}}}}
axes: {{seed: [0, 1]}}
"""
DEMO = """
import sys
from unsee import cli, demo
short = {"max_steps": 3, "stop": "never", "checkpoint_every": 1, "max_new_tokens": 4}
demo.DATA, demo.ANSWER_TOKENS = sys.argv.pop(), 4
model = sys.argv.pop()
demo.plan = lambda **_: [demo.Row(stage="original", model=model), demo.Row(stage="ga", model=model, method="ga", training=short)]
cli.script()
"""
TRAIN = """
from functools import partial
from unsee import cli, train
from unsee.lab import curriculum
curriculum.Amount = partial(curriculum.Amount, per_person=2, strangers=6, per_stranger=2, shapes=6, devices=6)
train.examine = lambda *_: {}
cli.script()
"""


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
    same: bool
    message: str = ""


def jobs(model: Path) -> dict[str, list[str]]:
    """Return job -> words after the interpreter; OUT stands for the output folder."""
    unsee, base = ["-m", "unsee"], ["--model", str(model), "--data", str(EXAMPLE), "--out", "OUT"]
    forget = {
        f"forget {method} {tune}": [*unsee, "forget", *base, "--method", method, "--tune", tune, *TRAINING, "--resume"]
        for method in METHODS
        for tune in ("lora", "full")
    }
    grid = model.parent / "grid.yaml"
    grid.write_text(GRID.format(model=model, data=EXAMPLE))
    return {
        **forget,
        "eval": [*unsee, "eval", *base, "--set", "eval.max_new_tokens=16", "--set", "eval.batch_size=1"],
        "sweep": [*unsee, "sweep", str(grid), "--out", "OUT"],
        "continual": [
            *unsee, "continual", *base, "--method", "ga", "--tasks", "1", *TRAINING, "--set", "continual.max_new_tokens=4",
        ],
        "demo": ["-c", DEMO, "demo", "--out", "OUT", str(model), str(EXAMPLE)],
        "train": ["-c", TRAIN, "train", "lab", "--people", "4", "--steps-scale", "0.01", "--out", "OUT"],
    }  # fmt: skip


def campaign(kills: int, folder: Path) -> list[Trial]:
    """Do the trials 0 to `kills` - 1 that are not in the ledger yet, and return all."""
    from helpers.tiny import save_tiny

    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    if not (model / "config.json").exists():
        save_tiny(model)
    ledger = folder / "ledger.jsonl"
    done = [Trial(**json.loads(line)) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    listed = jobs(model)
    for number in sorted(set(range(kills)) - {trial.number for trial in done}):
        name = list(listed)[number % len(listed)]
        trial = attempt(number, name, listed[name], folder)
        done.append(trial)
        with ledger.open("a") as file:
            file.write(json.dumps(asdict(trial)) + "\n")
    return done


def attempt(number: int, name: str, words: list[str], folder: Path) -> Trial:
    """Kill one job once, let it go on, and compare its results with those of an uninterrupted run."""
    wanted, lead, work = reference(name, words, folder)
    rng = random.Random(number)
    chosen = rng.choice(list(SIGNALS))
    for turn in range(ROUNDS):  # on a machine that is faster than before, the command may end first: then earlier
        place = folder / f"trial-{number:04}"
        shutil.rmtree(place, ignore_errors=True)
        early = rng.random() < 0.2
        process = start(words, place)
        begun = time.monotonic()
        if not early:
            wait_for_files(process, place / "out")
        wait_while(process, rng.uniform(0, lead if early else work) / 2**turn)
        after = round(time.monotonic() - begun, 2)
        if process.poll() is None:
            process.send_signal(signal.Signals[chosen])
            break
    code = process.wait(PATIENCE)
    rounds = 0
    while True:
        rounds += 1
        last = start(words, place)
        _, err = last.communicate(timeout=PATIENCE)
        found = digest(place / "out")
        if rounds == ROUNDS or (last.returncode == 0 and found == wanted):
            break
        time.sleep(1)  # a cell of a killed sweep may need a moment to end
    same = last.returncode == 0 and found == wanted
    if same:
        shutil.rmtree(place)
    message = "" if same else f"exit {last.returncode}: {err[-300:]} {changed(found, wanted)}"
    return Trial(number, name, chosen, after, code, rounds, same, message)


def reference(name: str, words: list[str], folder: Path) -> tuple[dict[str, str], float, float]:
    """Return what an uninterrupted run leaves, its seconds until there are files, and its seconds after that."""
    file = folder / "references" / f"{name.replace(' ', '-')}.json"
    if not file.exists():
        place = folder / "references" / name.replace(" ", "-")
        shutil.rmtree(place, ignore_errors=True)
        begun = time.monotonic()
        process = start(words, place)
        wait_for_files(process, place / "out")
        lead = time.monotonic() - begun
        _, err = process.communicate(timeout=PATIENCE)
        if process.returncode:
            raise RuntimeError(f"{name} fails uninterrupted: {err[-2000:]}")
        facts: list[Any] = [digest(place / "out"), lead, time.monotonic() - begun - lead]
        if not facts[0]:
            raise RuntimeError(f"{name} leaves nothing to compare")
        file.write_text(json.dumps(facts))
    wanted, lead, work = json.loads(file.read_text())
    return wanted, lead, work


def start(words: list[str], place: Path) -> subprocess.Popen[str]:
    """Start the command with its output in `place`/out."""
    place.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("UNSEE_CACHE", None)
    command = [sys.executable, *(str(place / "out") if word == "OUT" else word for word in words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_while(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait so long, or until the process has ended."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def wait_for_files(process: subprocess.Popen[str], out: Path) -> None:
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end and not (out.is_dir() and any(out.iterdir())):
        time.sleep(0.02)


def digest(out: Path) -> dict[str, str]:
    """Return file -> hash of everything that must not depend on an interruption: weights, answers, losses."""
    names = ("*.safetensors", "responses.jsonl", "samples.jsonl", "log.jsonl")
    files = sorted(path for name in names for path in out.rglob(name))
    relative = {path.relative_to(out).as_posix(): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in relative.items()
        if not {"cache", "checkpoints"} & set(Path(name).parts)
    }


def changed(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Return the files that differ."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


def table(trials: list[Trial]) -> str:
    """Return the figures in Markdown: kills by job and signal, and how many went on to the same results."""
    lines = [f"| job | {' | '.join(SIGNALS)} | same results |", "|---|" + "---|" * (len(SIGNALS) + 1)]
    for name in dict.fromkeys(trial.job for trial in trials):
        mine = [trial for trial in trials if trial.job == name]
        counts = Counter(trial.signal for trial in mine)
        same = sum(trial.same for trial in mine)
        lines.append(f"| {name} | {' | '.join(str(counts[sig]) for sig in SIGNALS)} | {same} of {len(mine)} |")
    return "\n".join(lines)


def main() -> int:
    """Run the campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--dir", type=Path, required=True)
    options = parser.parse_args()
    trials = campaign(options.kills, options.dir.resolve())
    print(table(trials))
    wrong = [trial for trial in trials if not trial.same]
    for trial in wrong:
        print(trial)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
