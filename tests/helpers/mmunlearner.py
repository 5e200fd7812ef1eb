"""What the tests of `mmunlearner` share with others."""

from __future__ import annotations

from unsee.api import Training
from unsee.methods.mmunlearner.masks import Mask, count
from unsee.testing.tiny import tiny_session
from unsee.training.trainable import prepare

ALL = ("vision", "projector", "language")

LR = 1e-2


def session_at(out, parts=ALL, tune="full", **settings):
    given = {"lr": LR, "max_steps": 1, "stop": "never", "scheduler": "constant", "clip": 0.0, **settings}
    training = Training(tune=tune, parts=parts, **given)
    session = tiny_session(out, training=training)
    session.model = prepare(session.model, session.family, training, 0)
    return session


def agreement(one: Mask, other: Mask) -> float:
    """Return the share of weights on which two masks of the same tensors agree."""
    assert one.entries.keys() == other.entries.keys()
    pairs = [(entry.bits, other.entries[name].bits) for name, entry in one.entries.items()]
    return 1 - sum(count(a ^ b) for a, b in pairs) / sum(entry.size for entry in one.entries.values())
