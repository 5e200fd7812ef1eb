"""What the tests of `training` share with others."""

from __future__ import annotations

from unsee.api import Training
from unsee.inference.answer_logits import answer_logits
from unsee.losses import answer_nll
from unsee.testing.tiny import tiny_session
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import minimise, prepare

NEVER = {"stop": "never", "max_new_tokens": 6}


def make(out, resume=False, **settings):
    training = Training(**{"lr": 1e-3, "epochs": 1, **NEVER, **settings})
    session = tiny_session(out, training=training, resume=resume)
    session.model = prepare(session.model, session.family, training, session.seed)
    return session


def nll(session):
    def objective(forget, retain):
        loss = answer_nll(*answer_logits(session.model, forget))
        if retain is not None:
            loss = loss + answer_nll(*answer_logits(session.model, retain))
        return {"loss": loss}

    return objective


def run(session, objective=None):
    minimise(session, objective or nll(session), forget=forget_targets(session), retain=retain_targets(session))
    return {name: weight.detach().clone() for name, weight in session.model.named_parameters()}
