"""What each of two processes does for test_distributed.py: python -m helpers.two_processes FOLDER. Results go to FOLDER/RANK.json."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from torch.distributed.tensor import DTensor

from unsee.api import Training
from unsee.api.request import Sampling
from unsee.cli.main import main
from unsee.distributed import processes
from unsee.errors import TrainingError
from unsee.inference.answer_logits import answer_logits
from unsee.losses import answer_nll
from unsee.methods.common.guidance import Draws, draw, forget_questions
from unsee.methods.ga import GA
from unsee.methods.npo import NPO
from unsee.methods.pubg import PUBG
from unsee.testing.tiny import tiny_session
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainable import save_trainable, trainable
from unsee.training.trainer import minimise, prepare

METHODS = {
    "ga": GA(),
    "npo": NPO(retain_weight=1.0),
    "pubg": PUBG(undesired="dataset", rollouts=2, retain_weight=1.0),
}
RUNS = {
    "ddp": (("ga", "lora"), ("npo", "full"), ("pubg", "lora")),
    "fsdp2": (("ga", "full"), ("npo", "lora"), ("pubg", "full")),
}
"""Methods and ways of tuning by mode: every pair of two of the three stands together once at least."""
GLOBAL = 4
"""Rows of a batch, however many processes share it."""
EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"


def run(out, name, tune, **settings):
    """Unlearn with a method; the trainable weights go to `out`. Processes other than the main one have a folder nobody needs."""
    session = start(out, tune=tune, **settings)
    METHODS[name].unlearn(session)
    save_trainable(session.model, out / "end")
    return session


def start(out, *, resume=False, **settings):
    values = {"lr": 1e-3, "epochs": 1, "batch_size": GLOBAL // processes.world(), "stop": "never", "max_new_tokens": 8}
    training = Training(**{**values, **settings})
    mine = out if processes.is_main() else out.parent / "nobody"
    session = tiny_session(mine, training=training, resume=resume)
    session.model = prepare(session.model, session.family, training, 0)
    return session


def nll(session, watched=None):
    """Cross-entropy on both sides, in two terms."""

    def objective(forget, retain):
        if watched:
            watched(forget)
        for batch in (forget, retain):
            yield {"loss": answer_nll(*answer_logits(session.model, batch))}

    return objective


def train(session, watched=None):
    objective = nll(session, watched)
    minimise(session, objective, forget=forget_targets(session), retain=retain_targets(session))
    return session


def cut(index):
    """Return a watcher that ends the run at this batch."""

    def watched(forget):
        if forget.index == index:
            raise KeyboardInterrupt

    return watched


def interrupted(session, index):
    try:
        train(session, cut(index))
    except KeyboardInterrupt:
        return session
    raise AssertionError("the run was not cut")


def drawn(out):
    """Draw answers with chance in play; the file is what counts."""
    session = start(out)
    wanted = Draws(name="rollouts", count=3, sampling=Sampling(), revealing=False, instruction="Hush.")
    draw(session, forget_questions(session, "all"), wanted)
    return session.notes["rollouts"]


SAID = {
    "ddp": {},
    "fsdp2": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    "zero3": {"ACCELERATE_USE_DEEPSPEED": "true"},
}


@contextmanager
def spread(mode):
    """Say, as `accelerate launch` does, how weights are to be spread."""
    values = SAID[mode]
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]


def broken(out):
    """Train with a loss that is no number in the second process alone; return what each says."""
    session = start(out, epochs=2)

    def objective(forget, retain):
        odd = float("nan") if forget.index == 1 and not processes.is_main() else 1.0
        yield {"loss": odd * answer_nll(*answer_logits(session.model, forget))}

    try:
        minimise(session, objective, forget=forget_targets(session))
    except TrainingError as error:
        return str(error)
    raise AssertionError("nobody minded")


def spread_while_training(out):
    """Return the counts of spread weights in the run and after it, and the switches of the batches and of the session after it."""
    session, counts, engines = start(out, max_steps=1), [], []

    def watched(forget):
        counts.append(count(session.model))
        engines.append(forget.engine)

    train(session, watched)
    engines.append(session.engine)
    return [counts[0], count(session.model), [[one.vision_features, one.split_batches] for one in engines]]


def count(model):
    return [
        sum(isinstance(weight, DTensor) for weight in trainable(model).values()),
        sum(isinstance(weight, DTensor) for weight in model.parameters()),
        len(list(model.parameters())),
    ]


def everything(out):
    found = {}
    for mode in ("ddp", "fsdp2"):
        with spread(mode):
            for name, tune in RUNS[mode]:
                session = run(out / f"{mode}-{name}-{tune}", name, tune)
                found[f"{mode}-{name}-{tune}"] = session.history
            train(session := start(out / f"{mode}-pieces", batch_size=1, accumulate=2, gradient_checkpointing=True))
            save_trainable(session.model, out / f"{mode}-pieces" / "end")
            session = train(start(out / f"{mode}-stop", epochs=3, stop="forgotten", check_every=1))
            found[f"{mode}-stop"] = [session.notes["steps"], session.notes["stop_reason"], session.history[-1]["usr"]]
            interrupted(start(out / f"{mode}-cut", epochs=2, checkpoint_every=1), 3)
            session = train(start(out / f"{mode}-resumed", epochs=2, checkpoint_every=1, resume=True))
            save_trainable(session.model, out / f"{mode}-resumed" / "end")
            found[f"{mode}-broken"] = broken(out / f"{mode}-broken")
            found[f"{mode}-spread"] = spread_while_training(out / f"{mode}-spread")
    if find_spec("deepspeed"):
        with spread("zero3"):
            for tune in ("lora", "full"):
                run(out / f"zero3-ga-{tune}", "ga", tune)
    found["drawn"] = drawn(out / "drawn")
    found["nobody"] = sorted(path.name for path in (out / "nobody").rglob("*"))
    command = ["forget", "--model", str(out / "model"), "--data", str(EXAMPLE), "--method", "ga"]
    settings = ["--set", "training.max_steps=2", "--set", "training.stop=never", "--set", "training.batch_size=2"]
    found["code"] = main([*command, "--out", str(out / "run"), *settings])
    judge = ["eval", "--model", str(out / "model"), "--data", str(EXAMPLE), "--likelihood"]
    found["judged"] = main([*judge, "--out", str(out / "judged"), "--set", "eval.max_new_tokens=8"])
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / f"{processes.rank()}.json").write_text(json.dumps(everything(folder)))
    processes.leave(0)
