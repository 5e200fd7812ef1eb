"""Workflow of `doctor`: diagnosis of an installation, even if packages cannot be imported."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from unsee import __version__
from unsee.errors import UserError
from unsee.models import builtin, smollm2_package
from unsee.utils.files import GIB, existing_ancestor
from unsee.utils.grouping import by_key

Status = Literal["ok", "note", "problem"]

TESTED: Final = Path(__file__).parents[1] / "data" / "tested_versions.txt"
"""Tested versions, written by `make lock` from the lock file."""
TESTED_PYTHON: Final = "3.11"
CACHE: Final = "UNSEE_CACHE"
"""Variable as in `unsee.data.shared_cache`, which depends on a package that may be broken."""
LITTLE_MEMORY, LITTLE_DISK = 2 * GIB, 2 * GIB
"""Bytes below which a run of the lab may fail [inferred]."""
MODULES: Final = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "huggingface-hub": "huggingface_hub",
    "rouge-score": "rouge_score",
}
"""Package -> module, where the names differ."""
_MARKS: Final[dict[Status, str]] = {"ok": " ", "note": "-", "problem": "!"}


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis."""

    section: str
    name: str
    value: str
    status: Status = "ok"
    advice: str = ""
    """What to do, or why it matters; empty if nothing."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Findings about an installation."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    @property
    def problems(self) -> list[Finding]:
        """Findings that prevent unsee from working."""
        return [finding for finding in self.findings if finding.status == "problem"]

    def to_mapping(self) -> dict[str, Any]:
        """Return the diagnosis for JSON."""
        return {"healthy": self.healthy, "findings": [asdict(finding) for finding in self.findings]}

    def __str__(self) -> str:
        """Return the diagnosis as text: verdict, then sections, `!` = problem, `-` = remark."""
        count = len(self.problems)
        verdict = f"problems marked !: {count}" if count else "this installation works"
        lines = [f"unsee doctor: {verdict}"]
        width = max(len(finding.name) for finding in self.findings)
        section = ""
        for finding in self.findings:
            if finding.section != section:
                section = finding.section
                lines.append(section)
            advice = f". {finding.advice}" if finding.advice else ""
            lines.append(f" {_MARKS[finding.status]} {finding.name:<{width}}  {finding.value}{advice}")
        return "\n".join(lines)


def doctor(folder: Path | str = "runs", *, trial: bool = True) -> Diagnosis:
    """Diagnose the installation: versions, device, memory, disk, extras, models, fast paths.

    Args:
        folder: Folder that is to receive run folders; nothing stays in it.
        trial: Also unlearn for one step and answer a few questions on the packaged lab model (some seconds), by which fast
            paths are tried.
    """
    checks = (_system, _packages, _device, _extras, _packaged_models, lambda: _folders(Path(folder)))
    with redirect_stdout(sys.stderr):  # huggingface_hub prints where it cannot be imported
        findings = [finding for check in checks for finding in check()]
        if trial:
            findings.append(_trial() if all(finding.status != "problem" for finding in findings) else _NOT_TRIED)
        findings += _fast_paths()
    return Diagnosis(findings=tuple(map(_anonymous, findings)))


def _system() -> Iterator[Finding]:
    yield Finding("system", "unsee", __version__)
    version = platform.python_version()
    untested = not version.startswith(f"{TESTED_PYTHON}.")
    yield Finding(
        "system",
        "Python",
        f"{version} (tested: {TESTED_PYTHON})" if untested else version,
        status="note" if untested else "ok",
    )
    yield Finding("system", "platform", f"{platform.system()} {platform.machine()}")


@dataclass(frozen=True, kw_only=True)
class _Requirement:
    """Dependency in the metadata of the installed unsee."""

    name: str
    ranges: str
    extra: str

    @classmethod
    def read(cls, text: str) -> _Requirement:
        specification, _, marker = text.partition(";")
        name, ranges = re.fullmatch(r"\s*([\w.-]+)(?:\[[^]]*\])?\s*\(?([^)]*)\)?\s*", specification).groups()  # type: ignore[union-attr]
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", marker)
        return cls(name=_normalized(name), ranges=ranges.strip(), extra=extra[1] if extra else "")


def _requirements() -> list[_Requirement]:
    """Return the dependencies of the installed package, or none if it is not installed."""
    try:
        lines = metadata.requires("unsee") or []
    except metadata.PackageNotFoundError:
        return []
    return [_Requirement.read(line) for line in lines]


def versions_tested() -> dict[str, str]:
    """Return package -> tested version for this Python."""
    versions = {}
    for line in TESTED.read_text(encoding="utf-8").splitlines():
        requirement, _, marker = line.partition(";")
        name, _, version = requirement.strip().partition("==")
        if _applies(marker):
            versions[name] = version
    return versions


def _applies(marker: str) -> bool:
    """Evaluate an environment marker of the lock file, or True without the package packaging."""
    try:
        from packaging.markers import Marker
    except ImportError:
        return True
    return not marker.strip() or Marker(marker).evaluate()


def _packages() -> Iterator[Finding]:
    required = {requirement.name: requirement.ranges for requirement in _requirements() if not requirement.extra}
    if not required:
        yield Finding("packages", "unsee", "not installed as a package", status="note",
            advice="Ranges of versions cannot be checked. Run `pip install -e .`"
        )  # fmt: skip
    tested = versions_tested()
    for name in required or tested:
        yield _package(name, required.get(name, ""), tested.get(name, ""))


def _package(name: str, ranges: str, tested: str) -> Finding:
    """Return the finding about a required package: installed, in range, importable."""
    install = f'Run: pip install "{name}{ranges}"'

    def finding(value: str, status: Status = "ok", advice: str = "") -> Finding:
        return Finding("packages", name, value, status, advice)

    version = _version(name)
    if version is None:
        return finding("not installed", "problem", install)
    if not _within(version, ranges):
        return finding(f"{version}, outside of {ranges}", "problem", install)
    if error := _import_error(MODULES.get(name, name)):
        return finding(
            f"{version}, cannot be imported ({error})",
            "problem",
            f"Install it again: pip install --force-reinstall {name}=={version}",
        )
    differs = tested and version.partition("+")[0] != tested
    return finding(f"{version} (tested: {tested})" if differs else version, "note" if differs else "ok")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _within(version: str, ranges: str) -> bool:
    """Tell whether a version is in the ranges, or True without the package packaging."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    return SpecifierSet(ranges).contains(version, prereleases=True)


def _import_error(module: str) -> str:
    """Return why a module cannot be imported, or empty if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - a broken package may raise anything
        return _one_line(error)
    return ""


def _device() -> Iterator[Finding]:
    try:
        yield from _torch_device()
    except Exception as error:  # noqa: BLE001 - torch may be missing or broken in any way
        yield Finding("device", "torch", f"cannot be asked ({_one_line(error)})", status="problem")


def _torch_device() -> Iterator[Finding]:
    import torch

    from unsee.api import Training
    from unsee.distributed import processes
    from unsee.training import precision
    from unsee.utils import memory

    device = processes.device()
    yield Finding("device", "used", _device_text(torch, device.type))
    if device.type == "cpu" and torch.backends.mps.is_available():
        yield Finding("device", "mps", "there, not used", status="note", advice="unsee computes on CUDA or on the CPU")
    bf16 = precision.half(Training())
    yield Finding("device", "precision", "bf16 autocast" if bf16 else "fp32 (training.precision: bf16 changes it)")
    yield _space("device", f"free memory, {device.type}", memory.free_bytes(device.type), LITTLE_MEMORY)


def _device_text(torch: Any, kind: str) -> str:
    if kind == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    count = torch.cuda.device_count()
    return f"cuda {torch.version.cuda}: {count} x {torch.cuda.get_device_name()}"


def _space(section: str, name: str, free_bytes: int | None, minimum: int) -> Finding:
    if free_bytes is None:
        return Finding(section, name, "unknown", status="note")
    scarce = free_bytes < minimum
    return Finding(
        section,
        name,
        f"{free_bytes / GIB:.1f} GiB",
        status="note" if scarce else "ok",
        advice=f"Less than {minimum / GIB:.0f} GiB: even a small run may fail" if scarce else "",
    )


def _extras() -> Iterator[Finding]:
    """Yield one finding per optional extra, except those for developers."""
    groups = by_key(
        (requirement.extra, requirement.name) for requirement in _requirements() if requirement.extra not in ("", "dev")
    )
    for extra, names in groups.items():
        missing = [name for name in names if _version(name) is None]
        installed_versions = ", ".join(f"{name} {_version(name)}" for name in names if name not in missing)
        yield Finding(
            "optional extras",
            extra,
            f"{', '.join(missing)} not installed" if missing else installed_versions,
            status="note" if missing else "ok",
            advice=f'To use it: pip install "unsee[{extra}]"' if missing else "",
        )


_NOT_TRIED: Final = Finding("trial", "lab", "not tried because of the problems above", status="note")


def _trial() -> Finding:
    """Unlearn for one step and generate with the built-in lab model, in a temporary folder."""
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            _unlearn_and_evaluate(Path(folder))
    except Exception as error:  # noqa: BLE001 - this is to show whatever goes wrong
        return Finding("trial", "lab", _one_line(error), status="problem", advice="Please report it")
    seconds = time.monotonic() - start
    return Finding("trial", "lab", f"unlearning and evaluation work ({seconds:.0f} s)")


def _unlearn_and_evaluate(folder: Path) -> None:
    from unsee.evaluation.evaluate import evaluate
    from unsee.workflows.forget import forget

    short_training = {"max_steps": 1, "batch_size": 2, "by_image": True, "stop": "never"}
    run = forget("lab", "lab", "npo", folder / "run", training=short_training)
    evaluate(run, "lab", run, limit=1, max_new_tokens=8, likelihood=True, progress=False)


def _fast_paths() -> Iterator[Finding]:
    """Yield the engine's switches and, for fast paths on library internals, their trials."""
    from unsee.api.fast_paths import Engine
    from unsee.compat import fast_paths

    switches = {path.switch for path in fast_paths.PATHS.values()}
    for field in fields(Engine):
        if field.name not in switches:
            yield _path(field.name, "on")
    for status in dict.fromkeys(fast_paths.status()):  # one per class of model, not per config
        model = f" for {status.model}" if status.model else ""
        yield _path(status.path.name, status.state + model, status.reason, status.path.cost)


def _path(name: str, state: str, reason: str = "", cost: str = "") -> Finding:
    off = state.startswith("off")
    value = f"{state} ({reason})" if reason else state
    advice = f"Results are the same, but {cost}" if off and cost else ""
    return Finding("fast paths", name, value, status="note" if off else "ok", advice=advice)


def _packaged_models() -> Iterator[Finding]:
    for name in builtin.PACKAGED:
        try:
            builtin.packaged_folder(name)
        except (UserError, OSError, ValueError) as error:
            yield Finding("packaged models", name, _one_line(error), status="problem")
        else:
            yield _intact(name)


def _intact(name: str) -> Finding:
    if builtin.in_parts(name) and not smollm2_package.installed():
        value = "intact, but its language model is not installed"
        return Finding("packaged models", name, value, status="note", advice="To use it: make smol")
    return Finding("packaged models", name, "intact")


def _folders(folder: Path) -> Iterator[Finding]:
    yield _writable("run folders", folder, "Give runs another --out")
    cache = os.environ.get(CACHE) or folder / "cache"
    if cache == "off":
        yield Finding("folders", "shared cache", f"switched off ({CACHE}=off)", status="note")
    else:
        yield _writable("shared cache", Path(cache), f"Set {CACHE} to a folder that can be written, or to off")
    hub = _writable("hub cache", _hub_cache(), "Models of the hub cannot be kept; set HF_HOME to another folder")
    yield replace(hub, status="note") if hub.status == "problem" else hub
    yield _space("folders", "free disk", shutil.disk_usage(existing_ancestor(folder)).free, LITTLE_DISK)


def _hub_cache() -> Path:
    """Return the folder in which huggingface_hub keeps downloads."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _writable(name: str, folder: Path, advice: str) -> Finding:
    """Return whether a file can be created in the folder or its nearest parent."""
    try:
        with tempfile.TemporaryFile(dir=existing_ancestor(folder)) as file:
            file.write(b"x")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return Finding("folders", name, f"{folder} cannot be written ({reason})", status="problem", advice=advice)
    return Finding("folders", name, f"{folder} can be written")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _anonymous(finding: Finding) -> Finding:
    """Return the finding without private paths, for bug reports."""
    texts = asdict(finding)
    for path, placeholder in ((sys.prefix, "<environment>"), (str(Path.cwd()), "."), (str(Path.home()), "~")):
        if len(path) > 1:
            texts = {key: value.replace(path, placeholder) for key, value in texts.items()}
    return Finding(**texts)


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
