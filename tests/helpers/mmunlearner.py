"""What the tests of `mmunlearner` share with others."""

from __future__ import annotations

from unsee.api import Training
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
