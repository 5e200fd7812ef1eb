"""Write the table of what is tested of each method into docs/methods.md: `python scripts/method_table.py`.

Cells are counted from the tests that pytest collects; nothing is run. `--check` only says whether the table is up to date.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from unsee.api import registry

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- tested: scripts/method_table.py -->", "<!-- /tested -->"
_FILES: Final = (
    "tests/methods",
    "tests/models/test_quantized_base.py",
    "tests/distributed/test_distributed.py",
)
_CONTRACT: Final = "tests/methods/test_methods.py::test_contract"
_RESUME: Final = "tests/methods/test_methods.py::test_resume_gives_the_same_weights"
_FEW_BITS: Final = "tests/models/test_quantized_base.py::test_every_method_runs"
_PROCESSES: Final = "tests/distributed/test_distributed.py::test_two_processes_give_the_weights_of_one"


def main() -> None:
    """Write or check the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the table would change")
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    old, _, tail = rest.partition(END)
    new = f"\n{table(collected())}\n"
    if not parser.parse_args().check:
        PAGE.write_text(f"{head}{BEGIN}{new}{END}{tail}", encoding="utf-8")
    elif old != new:
        sys.exit("docs/methods.md is out of date: run python scripts/method_table.py")


def collected() -> list[str]:
    """Return the ids of the tests of methods, slow ones too."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "slow or not slow", *_FILES]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in made.stdout.splitlines() if "::" in line]


def table(ids: list[str]) -> str:
    """Return the table: one row for all methods of which the same is tested."""
    head = ("methods", "LoRA", "full", "few bits", "two processes", "resume")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in registry.names("methods"):
        groups.setdefault(tuple(row(name, ids)), []).append(f"`{name}`")
    return "\n".join([*lines, *(f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in groups.items())])


def row(name: str, ids: list[str]) -> list[str]:
    """Return the cells of a method."""
    cls = registry.load("methods", name)
    tunes = [_tuned(cls, tune, f"{_CONTRACT}[{name}-{tune}]" in ids) for tune in ("lora", "full")]
    resume = "tested" if f"{_RESUME}[{name}]" in ids else "trains nothing" if not cls().needs().trains else "-"
    return [*tunes, few_bits(cls, name, ids), processes(name, ids), resume]


def few_bits(cls: type, name: str, ids: list[str]) -> str:
    """Return on which quantised bases a method is tested, or that it refuses them."""
    if "lora" not in cls.trial.tunes or cls().needs().full_weights:
        return "refused"
    kinds = [_params(one)[1] for one in ids if one.startswith(_FEW_BITS + "[") and _params(one)[0] == name]
    return ", ".join(sorted(kinds)) or "-"


def processes(name: str, ids: list[str]) -> str:
    """Return with which ways of sharding two processes are held against one."""
    found = [_params(one) for one in ids if one.startswith(_PROCESSES + "[")]
    return ", ".join(sorted({f"{mode} {tune}" for mode, method, tune in found if method == name})) or "-"


def _params(test: str) -> list[str]:
    """Return the parameters in the id of a test."""
    return re.split(r"-", test.partition("[")[2].rstrip("]"))


def _tuned(cls: type, tune: str, tested: bool) -> str:
    """Return the cell of a way of tuning."""
    if tune not in cls.trial.tunes:
        return "refused"
    return "tested" if tested else "-"


if __name__ == "__main__":
    main()
