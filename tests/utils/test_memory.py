"""Peak memory counts from the reset, not from the start of the process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from unsee.utils import memory
from unsee.utils.memory import free_bytes, peak_gib, reset_peak


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


@pytest.mark.parametrize("below", ["", "memory/"])
def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    machine = free_bytes("cpu")
    assert machine is not None
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if below else ("memory.max", "memory.current")
    (tmp_path / below).mkdir(exist_ok=True)
    for name, text in zip((*names, "memory.stat"), ("5000\n", "4000\n", "anon 9\ninactive_file 700\n"), strict=True):
        (tmp_path / below / name).write_text(text)
    assert free_bytes("cpu") == 1700
    (tmp_path / below / names[0]).write_text("9223372036854771712\n" if below else "max\n")
    assert (free_bytes("cpu") or 0) > machine / 2
