"""Parts of the GPU measurement: `python -m perf.gpu_parts PART [--tiny]`.

Results go to standard output as they come, one JSON object per line with the name of the case.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Final

import torch

from perf import evaluation, gpu_models, steps
from perf.__main__ import processor_name
from perf.conventional import Conventional, answers
from perf.saliency import ALL, fisher
from perf.subject import INSTRUCTION
from perf.timing import now, rounded, spread, timed
from unsee import config
from unsee.api import VLM, Method, Part, Session, Training, registry
from unsee.api.request import Target
from unsee.data.open import open_benchmark
from unsee.data.survey import Survey
from unsee.methods.mmunlearner.masks import Mask
from unsee.methods.mmunlearner.saliency import accumulate, maskable, preserve_targets, saliency_targets
from unsee.training.batch_plan import Plan
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainable import prepare, trainable
from unsee.utils.files import GIB
from unsee.utils.memory import peak_gib, reset_peak

ROOT: Final = Path(__file__).resolve().parents[1]
PEOPLE: Final = 1
"""People to forget, and to retain: eight questions each, two batches of four."""
WARM: Final = 3
"""Steps that are timed, after `steps.COLD` that are not."""
LORA: Final = ("npo", "kl", "pubg")
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "npo": {},
    "kl": {},
    "pubg": {
        "rollouts": 1,
        "temperature": 0.0,
        "undesired": "dataset",
        "instruction": INSTRUCTION,
    },
    "mmunlearner": {},
}
MASKS: Final[Mapping[str, tuple[Part, ...]]] = {"mask_vision": ("vision", "projector"), "mask_language": ("language",)}
_OUTPUT = Lock()


def circumstances() -> dict[str, Any]:
    """Return the device and the versions of a measurement."""
    cuda = torch.cuda.is_available()
    memory = torch.cuda.get_device_properties(0).total_memory / GIB if cuda else 0
    return {
        "device": torch.cuda.get_device_name() if cuda else processor_name(),
        "memory_gib": round(memory, 1),
        "cuda": torch.version.cuda if cuda else "",
        **config.versions(),
        "commit": config.commit(),
    }


def emit(name: str, result: Mapping[str, Any]) -> None:
    """Print a result, rather an unfinished one than none at all."""
    with _OUTPUT:
        sys.stdout.write(json.dumps({"case": name, "result": result}) + "\n")
        sys.stdout.flush()


def guarded(name: str, work: Callable[[], Mapping[str, Any]]) -> None:
    """Emit what the work returns; too little memory and other errors are results too."""
    start = time.perf_counter()
    try:
        result = dict(work())
    except Exception as error:  # noqa: BLE001 - recorded in the results file
        kind = "out_of_memory" if _is_out_of_memory(error) else "error"
        result = {kind: f"{type(error).__name__}: {error}".splitlines()[0]}
    emit(name, {**result, "wall_seconds": round(time.perf_counter() - start, 1)})
    clear()


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def clear() -> None:
    """Give back the memory of what nobody holds any more."""
    evaluation.nothing_remembered()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def tests(*, tiny: bool) -> None:
    """Run the tests that are marked `gpu`."""
    del tiny
    files = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text("utf-8")]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=False)
        sys.stderr.write(done.stdout[-4000:])
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    for case in cases:
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        emit(case.get("name", ""), {"outcome": outcome, "wall_seconds": float(case.get("time", 0))})
    if not cases:
        emit("pytest", {"error": f"exit code {done.returncode}, no test was run: {done.stdout[-300:]}"})


def lab(*, tiny: bool) -> None:
    """Make the rows of `unsee demo` with bf16 training: seconds, and what became of the model."""
    from unsee.workflows.demo import plan

    rows = plan(full=False, seeds=1, methods=["reject"] if tiny else None)
    with tempfile.TemporaryDirectory() as place:
        for row in rows:
            if not (tiny and row.stage == "gold"):
                guarded(row.stage, lambda: _row(row, Path(place), tiny=tiny))  # noqa: B023


def _row(row: Any, out: Path, *, tiny: bool) -> dict[str, Any]:
    from unsee.evaluation.evaluate import evaluate
    from unsee.workflows.demo import ANSWER_TOKENS, DATA, outcome
    from unsee.workflows.forget import forget

    folder, training = out / row.stage, {**row.training, "precision": "bf16", **({"max_steps": 2} if tiny else {})}
    result: dict[str, Any] = {}
    if row.method:
        spent, _ = timed(lambda: forget(row.model, DATA, row.method, folder, settings=row.settings, training=training))
        noted = config.read_mapping(folder / "run.yaml")["result"]
        result = {"forget_seconds": rounded(spent), "steps": noted["steps"], "peak_gib": noted["peak_gib"]}
    model, limit = folder if row.method else row.model, 1 if tiny else None
    spent, _ = timed(
        lambda: evaluate(
            model, DATA, folder, stage=row.stage, max_new_tokens=ANSWER_TOKENS, limit=limit, progress=False
        )
    )
    return {**result, "evaluate_seconds": rounded(spent), "outcome": outcome(folder), "verdict": _verdict(out, row)}


def _verdict(out: Path, row: Any) -> str:
    from unsee.report.read import read_stages
    from unsee.report.summary import judged_role
    from unsee.report.verdict import judge

    stages = read_stages({stage: [out / stage] for stage in dict.fromkeys(("original", row.stage))})
    original = next(stage for stage in stages if stage.name == "original")
    return judge(next(stage for stage in stages if stage.name == row.stage), original, judged_role(stages)).sentence


@dataclass
class Bench:
    """A random model and its data, on which the cases run one after the other."""

    size: gpu_models.Size
    data: Path
    base: Any
    tiny: bool

    @property
    def warm(self) -> int:
        """Return how many steps are timed."""
        return 1 if self.tiny else WARM

    def session(self, out: Path, training: Training) -> Session:
        """Return a session on the model, prepared for training."""
        family = self.size.known_family()
        return Session(
            vlm=replace(self.loaded(), model=prepare(self.base, family, training, seed=0)),
            examples=Survey(open_benchmark(self.data)).by_role(),
            training=training,
            seed=0,
            out=out,
        )

    def lora(self, method: str, side: str) -> dict[str, Any]:
        """Return seconds per step and peak memory of one side of a LoRA case."""
        training = Training(**lora_settings(self.warm))
        with tempfile.TemporaryDirectory() as folder:
            session = self.session(Path(folder), training)
            try:
                seconds = _ours(session, method) if side == "unsee" else _theirs(session, method, 1 + self.warm)
            finally:
                model: Any = session.model
                self.base = model.unload()
        warm = seconds[-self.warm :]
        return {"seconds": spread(warm), "repetitions": len(warm), "peak_gib": peak_gib()}

    def loaded(self) -> VLM:
        """Return the model for answering."""
        return VLM(
            model=self.base,
            processor=self.size.built_processor,
            family=self.size.known_family(),
        )

    def evaluation(self, side: str) -> dict[str, Any]:
        """Return questions per second: eight per image, side by side behind one prefix, or one at a time."""
        images = (1 if self.tiny else 8) if side == "unsee" else 1
        asked, loaded = gpu_models.questions(self.size.image, images), self.loaded()
        limit = 4 if self.tiny else evaluation.LIMIT
        reset_peak()
        if side == "unsee":
            spent, _ = timed(lambda: evaluation.recorded(loaded, asked, limit))
        else:
            session = evaluation.asking(loaded)
            spent, _ = timed(lambda: answers(self.base, session, [Target(example=one) for one in asked], limit))
        rate = rounded(len(asked) / spent)
        return {"questions_per_second": rate, "questions": len(asked), "images": images, "peak_gib": peak_gib()}

    def mask(self, side: str, *parts: Part) -> dict[str, Any]:
        """Return seconds per example of MMUnlearner's squared gradients of these parts, weights in fp32.

        The hash of the weights and the files are left out on both sides (the published ones take 70 GB).
        """
        with tempfile.TemporaryDirectory() as folder:
            session = self.session(Path(folder), Training(**mask_settings(*parts)))
            self.base = session.model
            forget = saliency_targets(session, ALL)
            if side == "conventional":
                reset_peak()
                spent, _ = timed(lambda: fisher(session, list(trainable(session.model)), forget[:4], torch.float16))
                return {"seconds_per_example": rounded(spent / len(forget[:4])), "peak_gib": peak_gib()}
            weights, preserve = maskable(session), preserve_targets(session, ALL)
            reset_peak()

            def made() -> Mask:
                difference = accumulate(session, weights, forget, preserve, ALL).difference
                return Mask.where_positive(difference, dict(weights), {})

            spent, _ = timed(made)
            count = len(forget) + len(preserve)
            return {"seconds_per_example": rounded(spent / count), "examples": count, "peak_gib": peak_gib()}


def lora_settings(warm: int = WARM) -> dict[str, Any]:
    """Return the training settings of the LoRA cases, the same on both sides and in the estimate."""
    count = steps.COLD + warm + 1
    return {
        "tune": "lora",
        "parts": ("language",),
        "rank": 16,
        "alpha": 16,
        "lr": 1e-5,
        "epochs": count,
        "max_steps": count,
        "batch_size": steps.SHARED_BATCH,
        "by_image": True,
        "clip": 0.0,
        "scheduler": "constant",
        "stop": "never",
        "checkpoint_every": 10 * count,
        "max_new_tokens": 24,
    }


def mask_settings(*parts: Part) -> dict[str, Any]:
    """Return the training settings of a mask."""
    return {"tune": "full", "parts": parts, "batch_size": 4, "epochs": 1, "max_steps": 1, "stop": "never"}


def _ours(session: Session, method: str) -> list[float]:
    """Return the seconds of every step of unsee's loop."""
    turns = steps.Turns({})
    made: Method = config.build(registry.load("methods", method), SETTINGS[method], where=method)
    with turns.watching(made):
        steps.unlearn(made, session)
    return turns.seconds["unsee"]


def _theirs(session: Session, method: str, count: int) -> list[float]:
    """Return the seconds of so many steps of the conventional way."""
    reset_peak()
    side = Conventional(session, method)
    plan = Plan(forget_targets(session), retain_targets(session), session.training, 0)
    seconds = []
    for index in range(count):
        forget, retain = plan.batch(index)
        second = {"retain": retain, "guided": steps.guidance(forget)}.get(steps.SECOND.get(method, ""), [])
        start = now()
        side.step(forget, second)
        seconds.append(now() - start)
    return seconds


def model(name: str, *, tiny: bool) -> None:
    """Measure a random model: LoRA steps, evaluation, MMUnlearner's mask; the estimates are made meanwhile on the CPU."""
    size = (gpu_models.TINY if tiny else gpu_models.SIZES)[name]
    with tempfile.TemporaryDirectory() as place:
        data = gpu_models.write_data(Path(place) / "data", size.image, PEOPLE)
        folder = size.save(Path(place) / "model")
        estimates = _estimating(folder, data)
        spent, base = timed(size.model)
        weights = sum(weight.numel() for weight in base.parameters())
        emit("model", {"parameters": weights, "wall_seconds": rounded(spent)})
        bench = Bench(size, data, base, tiny)
        for method in LORA:
            for side in ("unsee", "conventional"):
                guarded(f"{method}.{side}", lambda: bench.lora(method, side))  # noqa: B023
        for side in ("unsee", "conventional"):
            guarded(f"evaluation.{side}", lambda: bench.evaluation(side))  # noqa: B023
        for mask, parts in MASKS.items():
            for side in ("unsee", "conventional"):
                guarded(f"{mask}.{side}", lambda: bench.mask(side, *parts))  # noqa: B023
        estimates.join()


def _estimating(folder: Path, data: Path) -> Thread:
    """Start a process without GPU that estimates the cases; the thread returned passes its results on."""
    command = [sys.executable, "-m", "perf.gpu_parts", "estimates", "--model", str(folder), "--data", str(data)]
    around = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=around, stdout=subprocess.PIPE, text=True)

    def passed_on() -> None:
        for line in process.stdout or ():
            with _OUTPUT:
                sys.stdout.write(line)
                sys.stdout.flush()
        process.wait()

    thread = Thread(target=passed_on, daemon=True)
    thread.start()
    return thread


def estimates(folder: Path, data: Path) -> None:
    """Emit what `unsee forget --dry-run --device cuda` says about each case."""
    for method in LORA:
        guarded(f"{method}.estimate", lambda: _estimate(folder, data, method, lora_settings()))  # noqa: B023
    for mask, parts in MASKS.items():
        guarded(f"{mask}.estimate", lambda: _estimate(folder, data, "mmunlearner", mask_settings(*parts)))  # noqa: B023


def _estimate(folder: Path, data: Path, method: str, training: Mapping[str, Any]) -> dict[str, Any]:
    from unsee.workflows.estimate import estimate

    out = folder.parent / "run"
    guess = estimate(folder, data, method, out, settings=SETTINGS[method], training=training, device="cuda")
    sizes = ("weights", "training", "answering", "memory", "host")
    return {f"{name}_gib": round(getattr(guess, name) / GIB, 2) for name in sizes}


def ratios(*, tiny: bool) -> None:
    """Measure a few cases of `python -m perf` in bf16, within a minute and a half."""
    from perf import __main__ as perf
    from perf.record import Record

    names = ["npo_lora"] if tiny else ["npo_shared", "npo_lora", "kl_lora", "pubg_lora", "evaluation"]
    asked = perf.parser().parse_args(
        ["--quick", "--model", "tiny" if tiny else "quick", "--dtype", "bf16", "--reps", "2" if tiny else "5"]
    )

    class Emitted(Record):
        def add(self, name: str, entry: Any) -> None:
            super().add(name, entry)
            emit(name, entry)

    with tempfile.TemporaryDirectory() as folder:
        perf.measure(
            perf.extent_of(asked), names, Emitted(Path(folder) / "perf.json", {}), seconds=None if tiny else 90
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Do one part."""
    parser = argparse.ArgumentParser(prog="python -m perf.gpu_parts", description=__doc__)
    parser.add_argument("part", choices=["tests", "lab", *gpu_models.SIZES, "perf", "estimates"])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args(arguments)
    if asked.part == "estimates":
        estimates(asked.model, asked.data)
    elif asked.part in gpu_models.SIZES:
        model(asked.part, tiny=asked.tiny)
    else:
        {"tests": tests, "lab": lab, "perf": ratios}[asked.part](tiny=asked.tiny)


if __name__ == "__main__":
    main()
