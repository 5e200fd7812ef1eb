"""One process or several: who writes, who does what, and that nothing is loaded to know it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from unsee import attack, push
from unsee.config import Run
from unsee.distributed import processes
from unsee.distributed.deepspeed import Zero
from unsee.errors import UserError
from unsee.exporting import export
from unsee.workflows.continual.sequence import continual_run
from unsee.workflows.serve.serve import serve
from unsee.workflows.train_lab import train


@pytest.fixture
def launched(monkeypatch):
    def launch(rank, world, **more):
        for name, value in {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, **more}.items():
            monkeypatch.setenv(name, str(value))

    return launch


def test_one_process_is_the_main_one():
    assert (processes.rank(), processes.world(), processes.is_main(), processes.sharding()) == (0, 1, True, "none")
    assert processes.gather([1, 2]) == [1, 2] == processes.share([1, 2])
    assert processes.all_gather("x") == ["x"]
    assert processes.from_main("x") == "x"
    processes.start()
    processes.barrier()
    with pytest.raises(SystemExit, match="3"):
        processes.leave(3)


def test_shares_are_dealt_and_joined_again(launched):
    items = list(range(7))
    shares = []
    for rank in range(3):
        launched(rank, 3)
        shares.append(processes.share(items))
        assert processes.is_main() == (rank == 0)
    assert [len(part) for part in shares] == [3, 2, 2]
    assert processes.interleave(shares) == items


def test_half_an_environment_is_no_launch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert processes.world() == 1


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, "none"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "fsdp2"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "zero3"),
    ],
)
def test_the_launcher_says_how_weights_are_spread(launched, settings, found):
    launched(0, 2, **settings)
    assert processes.sharding() == found


def test_commands_that_do_not_share_their_work_are_refused(launched, tmp_path):
    launched(1, 2)
    for name, call in {
        "train": lambda: train("lab", tmp_path / "lab"),
        "export": lambda: export("lab", "merged", tmp_path / "merged"),
        "push": lambda: push(tmp_path, "owner/name"),
        "serve": lambda: serve(tmp_path),
        "attack": lambda: attack("lab", "lab", out=tmp_path / "attacked"),
        "continual": lambda: continual_run(Run(model="lab", data="lab", out=str(tmp_path / "sequence")), {}),
    }.items():
        with pytest.raises(UserError, match=f"`unsee {name}` runs in one process"):
            call()
    assert not list(tmp_path.iterdir())


def test_old_fsdp_is_refused(launched):
    launched(0, 2, ACCELERATE_USE_FSDP="true")
    with pytest.raises(UserError, match="fsdp_version: 2"):
        processes.sharding()


@pytest.mark.parametrize(("applied", "norm"), [(True, 2.0), (False, 2.0), (True, None)])
def test_a_step_that_deepspeed_skips_has_no_norm(applied, norm):
    zero = object.__new__(Zero)
    zero.engine = SimpleNamespace(was_step_applied=lambda: applied, get_global_grad_norm=lambda: norm)
    assert math.isnan(zero.grad_norm()) != (applied and norm is not None)
