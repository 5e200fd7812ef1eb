"""Several processes, one run: who am I, how many are we, what do the others have. Imports no torch until processes talk.

A launcher (`accelerate launch`, `torchrun`) starts the processes and says so in the environment (RANK, WORLD_SIZE, LOCAL_RANK).
Without one there is one process, and everything here is the identity.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar

from unsee.errors import TrainingError, UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Sharding = Literal["none", "fsdp2", "zero3"]

TIMEOUT: Final = "UNSEE_TIMEOUT"
"""Environment variable: seconds after which a process stops waiting for the others."""
PATIENCE: Final = 1800
"""Seconds without it: more than any process works alone between two meetings."""

_LOST: Final = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Socket closed",
    "recvValue failed",
    "sendBytes failed",
    "remote process exited",
    "Timed out waiting",
)
"""What gloo, NCCL and torch's store say when the other end of a connection is no more."""


def rank() -> int:
    """Return the number of this process, 0 for the main one."""
    return int(os.environ.get("RANK", "0")) if _launched() else 0


def world() -> int:
    """Return how many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1")) if _launched() else 1


def is_main() -> bool:
    """Tell whether this is the process that writes files."""
    return rank() == 0


def device() -> torch.device:
    """Return the device of this process: a GPU of its own if there are GPUs."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if world() > 1 else torch.cuda.current_device())


def sharding() -> Sharding:
    """Return how the weights are to be spread over the processes, as the launcher's config file says."""
    if world() == 1:
        return "none"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        return "zero3"
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return "none"
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("FSDP version 1 is not supported; set `fsdp_version: 2` in the config file of the launcher.")
    return "fsdp2"


def start() -> None:
    """Meet the other processes; nothing if there are none, or if they have met."""
    if world() == 1:
        return
    import torch
    from accelerate import PartialState

    if not torch.distributed.is_initialized():
        on_cpu = not torch.cuda.is_available()
        PartialState(cpu=on_cpu, timeout=timedelta(seconds=int(os.environ.get(TIMEOUT, PATIENCE))))


def share(items: Sequence[T]) -> list[T]:
    """Return this process's share of the items: every `world`-th, so that neighbours of like cost are spread."""
    return list(items[rank() :: world()])


def dealt(shares: Sequence[Sequence[T]]) -> list[T]:
    """Undo `share`: return the items in their first order from the shares of all processes."""
    count = sum(map(len, shares))
    return [shares[place % len(shares)][place // len(shares)] for place in range(count)]


def everyone(value: T) -> list[T]:
    """Return the values of all processes, by rank. All processes must call it; values travel pickled."""
    if world() == 1:
        return [value]
    start()
    import torch

    found: list[Any] = [None] * world()
    torch.distributed.all_gather_object(found, value)
    return found


def gather(items: Sequence[T]) -> list[T]:
    """Return the items of all processes, joined by rank. All processes must call it."""
    return [item for part in everyone(list(items)) for item in part]


def from_main(value: T) -> T:
    """Return the main process's value in all processes."""
    return everyone(value if is_main() else None)[0]  # type: ignore[return-value]


def barrier() -> None:
    """Wait until all processes are here."""
    everyone(None)


@contextmanager
def lost_peer_explained() -> Iterator[None]:
    """Raise one plain error when another process of this run has gone while this one was waiting for it."""
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not any(sign in str(error) for sign in _LOST):
            raise
        gone = f"Process {1 - rank()}" if world() == 2 else "Another process"
        raise TrainingError(
            f"{gone} is gone (it ended or was killed), so process {rank()} cannot go on. "
            "The same command with --resume goes on from the last checkpoint."
        ) from error


def leave(code: int) -> NoReturn:
    """End this process with an exit code; one of several at once, because gloo's threads may abort an orderly exit."""
    if world() == 1:
        sys.exit(code)
    import torch

    if code == 0 and torch.distributed.is_initialized():
        barrier()  # nobody hangs up on somebody who is still speaking
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _launched() -> bool:
    """Tell whether a launcher started several processes; SLURM alone sets no RANK, a job of its own may set one of two."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ
