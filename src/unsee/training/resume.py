"""Training checkpoints (weights, optimizer, schedule, random states) for any world size.

A checkpoint folder holds safetensors and JSON only. `complete` is written last, after all other files are on the disk, and
lists their sizes and CRC-32 sums: a folder without it, or with other files than it lists, is damaged and passed over.
"""

from __future__ import annotations

import errno
import json
import random
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from unsee.api import Training
from unsee.distributed import processes
from unsee.distributed.fsdp import full_tensor, spread_like
from unsee.errors import TrainingError
from unsee.training.trainable import trainable, trainable_bytes
from unsee.utils.files import GIB, follow_umask, owned_folder, remove_folder, sync
from unsee.utils.terminal import err

COMPLETE: Final = "complete"
MOMENTS: Final = "optimizer.safetensors"
STATE: Final = "state.json"
HISTORY: Final = "trainer_state.json"
"""File of transformers' TrainerState: steps, epochs, log."""
KEPT: Final = 2
"""Number of checkpoints that remain after a new one."""
_NAME: Final = re.compile(r"checkpoint-\d+")
_BLOCK: Final = 2**24
"""Bytes that are read at once for a checksum."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def checkpoint_folder(out: Path, step: int) -> Path:
    """Return the checkpoint folder of a step."""
    return out / "checkpoints" / f"checkpoint-{step}"


def step_of(folder: Path) -> int:
    """Return the optimizer step of a checkpoint."""
    return int(folder.name.rpartition("-")[2])


def checkpoints(out: Path) -> list[Path]:
    """Return the checkpoint folders of a run, newest first, without copies under other names (`checkpoint-8 (1)`)."""
    folders = (out / "checkpoints").glob("checkpoint-*")
    return sorted((folder for folder in folders if _NAME.fullmatch(folder.name)), key=step_of, reverse=True)


def last_checkpoint(out: Path) -> Path | None:
    """Return the latest complete checkpoint.

    Each damaged one before it is named on stderr.
    """
    for folder in checkpoints(out):
        damage = _damage(folder)
        if not damage:
            return folder
        err(f"unsee: {folder} is damaged ({damage}); the checkpoint before it is used.")
    return None


def checkpoint_bytes(model: Module, training: Training) -> int:
    """Return the approximate size of a checkpoint in bytes.

    It holds the trainable weights, two moments and, with averaging, the mean of the weights.
    """
    return (4 if training.robust == "averaging" else 3) * trainable_bytes(model)


def empty_checkpoint(out: Path, step: int) -> Path:
    """Create the folder of a checkpoint, removing files of an earlier attempt."""
    owned_folder(out / "checkpoints")
    return owned_folder(checkpoint_folder(out, step), anew=True)


def seal(folder: Path) -> None:
    """Mark a checkpoint as complete once it is on disk, and delete old ones."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for file in files:
        sync(file)
    mark = folder / COMPLETE
    listing = {str(file.relative_to(folder)): [file.stat().st_size, _checksum(file)] for file in files}
    mark.write_text(json.dumps(listing), encoding="utf-8")
    for location in (mark, folder, folder.parent):
        sync(location)
    for expired in checkpoints(folder.parent.parent)[KEPT:]:
        remove_folder(expired)


def discard_after(out: Path, step: int) -> None:
    """Delete the checkpoints after a step: damaged ones, or of an earlier attempt."""
    for folder in checkpoints(out):
        if step_of(folder) > step:
            remove_folder(folder)


def save_moments(optimizer: Optimizer, model: Module, folder: Path) -> None:
    """Write the full optimizer state by weight names. Collective, rank 0 writes."""
    moments = {}
    for name, weight in trainable(model).items():
        for kind, value in optimizer.state[weight].items():
            moments[f"{kind}:{name}"] = full_tensor(value).detach().contiguous().clone()
    if processes.is_main():
        save_file(moments, folder / MOMENTS)
        follow_umask(folder / MOMENTS)


def load_moments(optimizer: Optimizer, model: Module, folder: Path) -> None:
    """Restore the optimizer state, sharded as its weights are. Collective."""
    weights = trainable(model)
    for key, value in load_file(folder / MOMENTS).items():
        kind, _, name = key.partition(":")
        weight, moment = weights[name], value.to(weights[name].device)
        optimizer.state[weight][kind] = spread_like(moment, weight) if value.shape == weight.shape else moment


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write plain values and the random state of every rank. Collective, rank 0 writes."""
    states = processes.all_gather(random_state())
    if processes.is_main():
        (folder / STATE).write_text(json.dumps({**state, "random": states}), encoding="utf-8")


def load_state(folder: Path) -> dict[str, Any]:
    """Read what `save_state` wrote."""
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return state


def random_state() -> dict[str, Any]:
    """Return the state of every random generator of this process as plain values."""
    numpy_state: Any = numpy.random.get_state()  # noqa: NPY002 - the global stream is meant
    _, key, position, has_gauss, gauss = numpy_state
    device_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": [key.tolist(), position, has_gauss, gauss],
        "cpu": torch.get_rng_state().tolist(),
        "cuda": [state.tolist() for state in device_states],
    }


def restore_random_state(states: list[dict[str, Any]]) -> None:
    """Restore this rank's random state. With another world size ranks keep their own."""
    if len(states) != processes.world():
        return
    state = states[processes.rank()]
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    key, position, has_gauss, cached_gauss = state["numpy"]
    numpy.random.set_state(("MT19937", numpy.array(key, dtype=numpy.uint32), position, has_gauss, cached_gauss))  # noqa: NPY002
    torch.set_rng_state(_bytes(state["cpu"]))
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_bytes(values) for values in state["cuda"]])


@contextmanager
def full_disk_explained(folder: Path, content: str, needed_bytes: int) -> Iterator[None]:
    """Turn write errors on a full disk into one plain error."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not _is_full(error):
            raise
        raise TrainingError(
            f"The disk of {folder} is full: {content} needs {needed_bytes / GIB:.3f} GiB. "
            "Free some space and give the same command with --resume."
        ) from error


def _is_full(error: OSError | SafetensorError) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(f"os error {number}" in str(error) for number in _FULL)


def _damage(folder: Path) -> str:
    """Return what is wrong with a checkpoint, or empty if nothing is."""
    try:
        listing = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        for name, (expected, checksum) in listing.items():
            actual = (folder / name).stat().st_size
            if actual != expected:
                return f"{name} has {actual} bytes instead of {expected}"
            if _checksum(folder / name) != checksum:
                return f"the content of {name} has changed"
        for file in folder.glob("*.json"):
            json.loads(file.read_text(encoding="utf-8"))
        for file in folder.glob("*.safetensors"):
            with safe_open(file, framework="pt"):
                pass
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a file, which finds flipped bits at over 1 GB/s."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _bytes(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)
