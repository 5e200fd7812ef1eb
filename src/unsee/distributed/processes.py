"""Process group: rank, world size, collectives. Imports no torch without a launcher.

A launcher (`accelerate launch`, `torchrun`) starts the processes and sets RANK, WORLD_SIZE and LOCAL_RANK.
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
"""Environment variable: seconds after which a rank stops waiting for the others."""
PATIENCE: Final = 1800
"""Default of it: longer than any rank works between two collectives."""

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
"""Fragments of error messages of gloo, NCCL and torch's store after a lost connection."""


def rank() -> int:
    """Return the rank of this process, 0 for the main one."""
    return int(os.environ.get("RANK", "0")) if _is_launched() else 0


def world() -> int:
    """Return the world size."""
    return int(os.environ.get("WORLD_SIZE", "1")) if _is_launched() else 1


def is_main() -> bool:
    """Tell whether this process is rank 0, which writes files."""
    return rank() == 0


def require_single(command: str) -> None:
    """Raise if a launcher started several processes, which would all do the work of a command that does not share it."""
    if world() > 1:
        raise UserError(f"`{command}` runs in one process: start it without accelerate or torchrun.")


def device() -> torch.device:
    """Return the device of this process: its own GPU if there are any."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if world() > 1 else torch.cuda.current_device())


def sharding() -> Sharding:
    """Return the sharding strategy of the launcher's config file."""
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
    """Initialise the process group, once, if a launcher started several processes."""
    if world() == 1:
        return
    import torch
    from accelerate import PartialState

    if not torch.distributed.is_initialized():
        on_cpu = not torch.cuda.is_available()
        PartialState(cpu=on_cpu, timeout=timedelta(seconds=int(os.environ.get(TIMEOUT, PATIENCE))))


def share(items: Sequence[T]) -> list[T]:
    """Return this rank's share: every `world`-th item, so that neighbours of like cost spread."""
    return list(items[rank() :: world()])


def interleave(shares: Sequence[Sequence[T]]) -> list[T]:
    """Undo `share`: restore the original order from the shares of all ranks."""
    count = sum(map(len, shares))
    return [shares[index % len(shares)][index // len(shares)] for index in range(count)]


def all_gather(value: T) -> list[T]:
    """All-gather one value per rank. Collective: every rank must call it.

    Values travel pickled.
    """
    if world() == 1:
        return [value]
    start()
    import torch

    values: list[Any] = [None] * world()
    torch.distributed.all_gather_object(values, value)
    return values


def gather(items: Sequence[T]) -> list[T]:
    """All-gather lists and concatenate them by rank. Collective: every rank must call it."""
    return [item for part in all_gather(list(items)) for item in part]


def from_main(value: T) -> T:
    """Broadcast the value of rank 0."""
    return all_gather(value if is_main() else None)[0]  # type: ignore[return-value]


def barrier() -> None:
    """Wait for all ranks."""
    all_gather(None)


@contextmanager
def lost_peer_explained() -> Iterator[None]:
    """Turn errors of collectives after a lost rank into one plain error."""
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not any(sign in str(error) for sign in _LOST):
            raise
        peer = f"Process {1 - rank()}" if world() == 2 else "Another process"
        raise TrainingError(
            f"{peer} is gone (it ended or was killed), so process {rank()} cannot go on. "
            "The same command with --resume goes on from the last checkpoint."
        ) from error


def leave(code: int) -> NoReturn:
    """End this process with an exit code.

    One of several ends at once, because gloo's threads may abort an orderly exit.
    """
    if world() == 1:
        sys.exit(code)
    import torch

    if code == 0 and torch.distributed.is_initialized():
        barrier()  # no rank closes a connection that another still uses
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _is_launched() -> bool:
    """Tell whether a launcher started several processes.

    SLURM alone sets no RANK; a single job may set one of two.
    """
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ
