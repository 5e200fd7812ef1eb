"""Train the lab model from scratch, or continue it on documents."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from unsee.cli.commands._shared import OK, say
from unsee.errors import unknown_name

WORLDS: Final = ("lab", "documents")
STRANGERS: Final = ("describe", "unknown", "guess")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("world", help=f"what to train: {', '.join(WORLDS)}")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the model")
    parser.add_argument(
        "--without",
        default="",
        metavar="PART",
        help="what to leave out: `forget` makes the gold model, `pictures` one that knows the forget set by name",
    )
    parser.add_argument(
        "--people",
        type=int,
        default=50,
        metavar="N",
        help="people in the world (default: 50; settled for documents and --backbone)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of world and training; for documents of the training alone"
    )
    parser.add_argument(
        "--weights-seed",
        type=int,
        metavar="S",
        help="of training alone (default: --seed): another model of the same people",
    )
    parser.add_argument("--strangers", default="describe", help=f"how strangers are answered: {', '.join(STRANGERS)}")
    parser.add_argument(
        "--suppress", default="", metavar="LEDGER", help="refuse to teach people that a ledger says were forgotten"
    )
    parser.add_argument(
        "--backbone", default="", metavar="NAME", help="smollm2 teaches a pretrained language model instead (lab-smol)"
    )
    parser.add_argument("--steps-scale", type=float, default=1.0, metavar="X", help="multiply the training steps")


def action(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    for kind, value, choices in (
        ("world", options.world, WORLDS),
        ("role to leave out", options.without, ("", "forget", "pictures")),
        ("way to answer strangers", options.strangers, STRANGERS),
    ):
        if value not in choices:
            raise unknown_name(kind, value, [name for name in choices if name])
    from unsee.workflows.train_lab import train

    train(
        options.world,
        Path(options.out),
        without=options.without,
        people=options.people,
        seed=options.seed,
        weights_seed=options.weights_seed,
        strangers=options.strangers,
        scale=options.steps_scale,
        suppress=options.suppress,
        backbone=options.backbone,
    )
    say(options.out)
    return OK
