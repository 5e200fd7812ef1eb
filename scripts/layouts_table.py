"""Write the table of data layouts into docs/own_data.md: `python scripts/layouts_table.py`.

Every layout of the tests is written into a folder, checked, trained on for two steps with a tiny model, and judged; then the
same folder is checked with what a clone of the hub has beside the data. `--check` only says whether the page is up to date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from unsee import check, config, evaluate, forget
from unsee.api import Role
from unsee.data.open import open_benchmark
from unsee.testing.tiny import save_tiny

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "own_data.md"
BEGIN, END = "<!-- layouts: scripts/layouts_table.py -->", "<!-- /layouts -->"
HEAD: Final = (
    "layouts",
    "check",
    "rows trained on",
    "forgotten, kept",
    "steps",
    "held-out answers judged",
    "as a clone of the hub",
)
CLONE: Final = {
    "README.md": "---\nlicense: mit\ntask_categories: [visual-question-answering]\n---\n# People\n",
    ".gitattributes": "*.parquet filter=lfs diff=lfs merge=lfs -text\n",
    ".git/HEAD": "ref: refs/heads/main\n",
}
"""Files of a clone beside the data -> their text."""


def main() -> None:
    """Write or check the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the table would change")
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    old, _, tail = rest.partition(END)
    new = f"\n{table()}\n"
    if not parser.parse_args().check:
        PAGE.write_text(f"{head}{BEGIN}{new}{END}{tail}", encoding="utf-8")
    elif old != new:
        sys.exit("docs/own_data.md is out of date: run python scripts/layouts_table.py")


def table() -> str:
    """Return the table: one row for all layouts of the tests with the same outcome."""
    sys.path.insert(0, str(ROOT / "tests"))
    from helpers.layouts import LAYOUTS, write

    groups: dict[tuple[str, ...], list[str]] = {}
    with TemporaryDirectory() as folder:
        model = save_tiny(Path(folder) / "tiny")
        for name in LAYOUTS:
            place = Path(folder) / name
            print(name, file=sys.stderr)
            groups.setdefault(tuple(row(model, place, write(name, place))), []).append(f"`{name}`")
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    return "\n".join([*lines, *(f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in groups.items())])


def row(model: Path, place: Path, settings: dict[str, Any]) -> list[str]:
    """Return the cells of a layout that lies at a place."""
    usable = _usable(place, settings)
    train = open_benchmark(place, settings).examples("train")
    forgotten, kept = (sum(one.role in roles for one in train) for roles in (_FORGET, _KEPT))
    training = {"max_steps": 2, "stop": "never", "batch_size": 2}
    run = Path(forget(model, place, "ga", place.parent / f"{place.name}-run", benchmark=settings, training=training))
    steps = config.read_mapping(run / "run.yaml")["result"]["steps"]
    scores = evaluate(
        run, open_benchmark(place, config.read(run / "run.yaml").benchmark), run, stage="ga", max_new_tokens=4
    )
    for name, text in CLONE.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    judged = scores["unseen.leak"].n
    return [usable, str(len(train)), f"{forgotten}, {kept}", str(steps), str(judged), _usable(place, settings)]


_FORGET: Final = (Role.FORGET, Role.FORGET_TEXT)
_KEPT: Final = (Role.RETAIN, Role.RETAIN_TEXT)


def _usable(place: Path, settings: dict[str, Any]) -> str:
    return "usable" if check(place, benchmark=settings).usable else "not usable"


if __name__ == "__main__":
    main()
