"""What the tests of `estimate` share with others."""

from __future__ import annotations

import pytest

from unsee import forget
from unsee.api import registry
from unsee.compat.fake_tensors import Meter

SHORT = {"max_steps": 2, "stop": "never", "max_new_tokens": 8}


def taken(monkeypatch, method, *arguments, **settings):
    """Return the bytes of all tensors alive at the peak of a real run, the model's own weights included."""
    cls, found = registry.load("methods", method), []
    unlearn = cls.unlearn

    def metered(self, session):
        with Meter(session.model) as meter:
            unlearn(self, session)
        found.append(meter.peak + sum(weight.nbytes for weight in session.model.parameters()))

    monkeypatch.setattr(cls, "unlearn", metered)
    forget(*arguments, **settings)
    return found[0]


SLOW = pytest.mark.slow
