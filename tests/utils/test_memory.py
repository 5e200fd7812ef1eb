"""Peak memory counts from the reset, not from the start of the process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from unsee.utils import memory
from unsee.utils.memory import peak_gib, reset_peak


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can reset the peak")
@pytest.mark.skipif(torch.cuda.is_available(), reason="counts the GPU's memory")
def test_a_reset_forgets_what_was_freed_and_sees_what_comes() -> None:
    reset_peak()
    before = peak_gib()
    block = torch.ones(64 * 2**20)
    high = peak_gib()
    assert high > before + 0.2
    del block
    reset_peak()
    assert peak_gib() < high - 0.2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has this file")
@pytest.mark.skipif(torch.cuda.is_available(), reason="counts the GPU's memory")
def test_a_kernel_that_does_not_tell_the_peak_is_asked_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmSize:\t900 kB\nVmRSS:\t800 kB\n")
    monkeypatch.setattr(memory, "_STATUS", status)
    assert peak_gib() > 0.05
