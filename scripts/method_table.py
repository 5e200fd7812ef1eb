"""Write the table of what is tested of each method into docs/methods.md: `python scripts/method_table.py`.

Cells are counted from the tests that pytest collects; nothing is run. `--check` only says whether the table is up to date.
"""

from __future__ import annotations

import argparse
import ast
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
    "tests/models/test_families.py",
    "tests/models/test_quantized_base.py",
    "tests/distributed/test_distributed.py",
)
_CONTRACT: Final = "tests/methods/test_methods.py::test_contract"
_RESUME: Final = "tests/methods/test_methods.py::test_resume_gives_the_same_weights"
_FAMILY: Final = "tests/models/test_families.py::test_method"
_FEW_BITS: Final = "tests/models/test_quantized_base.py::test_every_method_runs"
_PROCESSES: Final = "tests/distributed/test_distributed.py::test_two_processes_give_the_weights_of_one"
_LAB: Final = ROOT / "docs" / "leaderboard.md"
"""Page with the rows of methods on the lab."""


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
    """Return the ids of the tests of methods and families, slow ones too."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "slow or not slow", *_FILES]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in made.stdout.splitlines() if "::" in line]


def table(ids: list[str]) -> str:
    """Return the table: one row per method, a number of tests or a refusal per cell."""
    head = (
        "method",
        "families, ways of tuning",
        "LoRA",
        "full",
        "few bits",
        "two processes",
        "resume",
        "derivation",
        "distance to gold on the lab",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| `{name}` | {' | '.join(row(name, ids))} |" for name in registry.names("methods"))])


def row(name: str, ids: list[str]) -> list[str]:
    """Return the cells of a method."""
    cls = registry.load("methods", name)
    families = sum(_params(one)[1:2] == [name] for one in ids if one.startswith(_FAMILY + "["))
    tunes = [_tuned(cls, tune, f"{_CONTRACT}[{name}-{tune}]" in ids) for tune in ("lora", "full")]
    resume = "tested" if f"{_RESUME}[{name}]" in ids else "trains nothing" if not cls().needs().trains else "-"
    tests = ", ".join(f"`{test}`" for test in derivations(name)) or "-"
    return [str(families), *tunes, few_bits(cls, name, ids), processes(name, ids), resume, tests, lab(name)]


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


def lab(name: str) -> str:
    """Return the distance to gold of the method's row of the leaderboard, with a link, and the promise where its gold model is not the usual one."""
    promise = ""
    for line in _LAB.read_text(encoding="utf-8").splitlines():
        if line.startswith("### Promise: "):
            promise = line.removeprefix("### Promise: ")
        cells = line.split("|") if line.startswith("| ") else []
        if len(cells) > 3 and cells[2].strip() == name and cells[3].strip():
            remark = "" if promise == "person" else f" ({promise})"
            return f"[{cells[3].split()[0]}](leaderboard.md){remark}"
    return "-"


def derivations(name: str) -> list[str]:
    """Return the first test that works the loss of a method out again, and its own test file if there is one."""
    file = ROOT / "tests" / "methods" / "test_method_losses.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and _works_out(node, name)]
    own = ROOT / "tests" / "methods" / f"test_{name}.py"
    return [*found[:1], *([own.name] if own.exists() else [])]


def _works_out(test: ast.FunctionDef, name: str) -> bool:
    """Tell whether a test is about the method, by its literals."""
    words = {node.value for node in ast.walk(test) if isinstance(node, ast.Constant)}
    return test.name.startswith("test_") and name in words


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
