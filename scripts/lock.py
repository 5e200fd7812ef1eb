"""Lock files of exact versions: `make lock` writes requirements/ and the tested versions.

python scripts/lock.py UV, where UV is the uv program. torch has builds that differ from index to index, so it stands alone in
requirements/torch.txt, and what only its CUDA builds need is left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
TORCH = REQUIREMENTS / "torch.txt"
TESTED = ROOT / "src" / "unsee" / "data" / "tested_versions.txt"
FILES = {
    "lock.txt": ("The versions that are tested", ["--extra", "dev", "--resolution", "highest", "--universal"]),
    "oldest.txt": (
        "The oldest versions that pyproject.toml allows",
        ["--extra", "dev", "--resolution", "lowest-direct"],
    ),
    "docs.txt": (
        "What `make docs` needs beside lock.txt",
        ["--extra", "docs", "--resolution", "highest", "--universal", "--constraint", "requirements/lock.txt"],
    ),
}
_BUILD = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
"""Lines of torch and of what its CUDA builds need."""


def resolve(uv: str, options: Iterable[str]) -> list[str]:
    """Return one requirement per line for the package and an extra, without torch."""
    command = [uv, "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--python-version", "3.11"]
    command += ["--override", str(TORCH), *options, "pyproject.toml"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [line for line in output.splitlines() if not _BUILD.match(line)]


def direct_dependencies() -> set[str]:
    """Return the normalized names of what pyproject.toml names for users: dependencies and extras, without dev and docs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: group for name, group in project["optional-dependencies"].items() if name not in ("dev", "docs")}
    groups = [project["dependencies"], *extras.values()]
    return {normalized(line) for group in groups for line in group}


def normalized(requirement: str) -> str:
    """Return the name of a requirement as the registry compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def tested(torch: str, lock: str) -> str:
    """Return the table of tested versions: torch and the direct dependencies, as they stand in the lock file."""
    names = direct_dependencies()
    lines = [line for line in lock.splitlines() if line[:1] != "#" and normalized(line) in names]
    return "\n".join(sorted([*torch.split(), *lines])) + "\n"


def main(uv: str) -> None:
    """Write the lock files and the table."""
    for name, (title, options) in FILES.items():
        lines = [f"# {title}, without torch (torch.txt). Written by `make lock`.", *resolve(uv, options)]
        (REQUIREMENTS / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = tested(TORCH.read_text(encoding="utf-8"), (REQUIREMENTS / "lock.txt").read_text(encoding="utf-8"))
    TESTED.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
