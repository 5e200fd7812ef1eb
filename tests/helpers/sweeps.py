"""Cells of sweeps that run in this process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from unsee.errors import UserError
from unsee.workflows import sweep


def run_cells_here(patch: pytest.MonkeyPatch, work: Callable[..., Any]) -> None:
    """Let sweeps run their cells in this process, one after the other, by `work(run, label, out, attack)`."""

    def launch(out, names, jobs, parameters):
        for name in names:
            with suppress(UserError):
                sweep.run_cell(out, name)
            yield name

    patch.setattr(sweep, "_work", work)
    patch.setattr(sweep, "_locally", launch)
