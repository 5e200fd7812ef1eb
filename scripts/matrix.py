"""Smoke tests in environments of other versions.

python scripts/matrix.py [oldest] [locked] [newest]    (all three without a name)

oldest: requirements/oldest.txt, the lower bounds of pyproject.toml. locked: requirements/lock.txt. newest: whatever the index has
today within the ranges of pyproject.toml. torch is the one of requirements/torch.txt in all of them (TORCH=... names another).
Environments lie in .venvs/ and are made anew when what they are made from changes; the newest every time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venvs"
TORCH = os.environ.get("TORCH") or (ROOT / "requirements" / "torch.txt").read_text(encoding="utf-8").strip()
SOURCES = {
    "oldest": ["-r", "requirements/oldest.txt"],
    "locked": ["-r", "requirements/lock.txt"],
    "newest": ["-e", ".[dev]"],
}
SHOWN = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy")
"""Packages whose versions stand in the table."""
PASSED, FAILED, NOT_RUN = "passed", "FAILED", "not run: could not install (the package index does not answer)"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Outcome of one environment."""

    name: str
    outcome: str
    versions: str = ""
    tests: str = ""
    install_seconds: float = 0.0
    test_seconds: float = 0.0

    def row(self) -> str:
        """Return the row of the table."""
        times = f"{self.install_seconds:.0f} s", f"{self.test_seconds:.0f} s"
        return f"| {' | '.join([self.name, self.versions, self.tests or self.outcome, *times])} |"


def check(name: str) -> Result:
    """Make an environment and run the smoke tests in it."""
    start = time.monotonic()
    outcome = install(name)
    installed = time.monotonic()
    if outcome != PASSED:
        return Result(name=name, outcome=outcome, install_seconds=installed - start)
    passed, tests = smoke(name)
    return Result(
        name=name,
        outcome=PASSED if passed else FAILED,
        versions=versions(name),
        tests=tests,
        install_seconds=installed - start,
        test_seconds=time.monotonic() - installed,
    )


def install(name: str) -> str:
    """Make the environment if there is none of the same sources; tell an index that is away from a failed installation."""
    stamp = FOLDER / name / "made-from.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == made_from(name):
        return PASSED
    for _ in range(2):
        if _install(name):
            stamp.write_text(made_from(name), encoding="utf-8")
            return PASSED
        if not index_answers():
            return NOT_RUN
    return "FAILED to install"


def _install(name: str) -> bool:
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER / name)], check=True)
    if not pip(name, "install", "--no-compile", TORCH, *SOURCES[name]):  # what is used is compiled when it is imported
        return False
    return name == "newest" or pip(name, "install", "--no-deps", "--no-build-isolation", "-e", ".")


def made_from(name: str) -> str:
    """Return everything that decides what is in the environment; for the newest also the moment, so that none is like another."""
    file = ROOT / SOURCES[name][1]
    text = file.read_text(encoding="utf-8") if file.is_file() else f"{time.time()}\n"
    return "\n".join([sys.version, TORCH, (ROOT / "pyproject.toml").read_text(encoding="utf-8"), text])


def index_answers() -> bool:
    """Tell whether the package index can be reached: a small file is fetched from it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "-d", folder, "six"]
        return subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode == 0


def smoke(name: str) -> tuple[bool, str]:
    """Run the tests marked `smoke`; return whether they passed, and their counts."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [python(name), "-m", "pytest", "-q", "-m", "smoke", "-p", "no:cacheprovider", f"--junitxml={report}"]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        suite = ElementTree.parse(report).getroot().find("testsuite").attrib if report.is_file() else {}
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    bad = counts["failures"] + counts["errors"]
    good = counts["tests"] - bad - counts["skipped"]
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    return code == 0 and good > 0, f"{good} passed, {bad} failed{skipped}"


def versions(name: str) -> str:
    """Return the versions of Python and of the packages that matter most."""
    code = f"import platform, importlib.metadata as m; print(platform.python_version(), *(f'{{n}} {{m.version(n)}}' for n in {SHOWN}), sep=', ')"
    return subprocess.run([python(name), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def pip(name: str, *words: str) -> bool:
    """Run pip in the environment; return whether it went well."""
    return subprocess.run([python(name), "-m", "pip", "-q", *words], cwd=ROOT, check=False).returncode == 0


def python(name: str) -> str:
    """Return the interpreter of the environment."""
    return str(FOLDER / name / "bin" / "python")


def main(names: Sequence[str]) -> int:
    """Check the environments, print the table and one line for each; return 1 if one failed, 3 if one could not be tried."""
    if unknown := set(names) - SOURCES.keys():
        raise SystemExit(f"No such environment: {', '.join(sorted(unknown))}. There are {', '.join(SOURCES)}.")
    results = [check(name) for name in names or SOURCES]
    print("\n| environment | Python and packages | smoke tests | install | tests |\n|---|---|---|---:|---:|")
    print("\n".join(result.row() for result in results))
    for result in results:
        print(f"environment {result.name}: {result.outcome}")
    outcomes = {result.outcome for result in results}
    return 1 if outcomes - {PASSED, NOT_RUN} else 3 if NOT_RUN in outcomes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
