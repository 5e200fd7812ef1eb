"""Print what holds of model families as Markdown: `python tests/helpers/families_table.py [FILE]` puts it between the marks of FILE."""

from __future__ import annotations

import gc
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conftest  # noqa: F401 - offline, one thread
from helpers.contracts import CONTRACTS, METHODS, method, refused
from helpers.families import ALL, FAMILIES, VARIANTS, family, model_of, processor_of
from unsee.errors import UnseeError
from unsee.inference.encoder import encoder
from unsee.inference.packing import PER_TOKEN, is_sequence, packable
from unsee.inference.prefix_groups import KNOWN
from unsee.inference.vision_cache import feature_cache

MARKS = ("<!-- printed by tests/helpers/families_table.py -->", "<!-- end -->")


def paths(name: str) -> list[str]:
    """Return which fast paths of the engine the family takes."""
    from helpers.contracts import QUESTIONS

    model, kind = model_of(name).requires_grad_(False), family(name)
    row = encoder(processor_of(name), kind).row(QUESTIONS[0])
    able = packable(model) is not None
    packs = able and not {key for key in row if is_sequence(row, key)} - PER_TOKEN
    shares = able and row.keys() <= KNOWN
    return [
        name,
        *(
            "yes" if one else "no"
            for one in (feature_cache(model) is not None, packs, shares, "cross_attention_mask" not in row)
        ),
    ]


def held(act: Callable[..., Any], *given: Any) -> str:
    """Return a tick, the refusal, or what went wrong."""
    with tempfile.TemporaryDirectory() as out:
        try:
            said = act(*given, Path(out))
        except (AssertionError, UnseeError, RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
            return f"**fails**: {str(error)[:60]}"
    return f"refused: {said}" if said else "✓"


def outcomes(rows: list[tuple[str, str]]) -> str:
    """Return how many of the trials hold, and a line for each that does not."""
    odd = [f"- {what}: {found}" for what, found in rows if found != "✓"]
    return "\n".join([f"{len(rows) - len(odd)} of {len(rows)} hold.", *([""] if odd else []), *odd])


def grouped(rows: list[list[str]]) -> list[list[str]]:
    """Return one row for all families that take the same paths."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, *cells in rows:
        groups.setdefault(tuple(cells), []).append(name)
    return [["; ".join(names), *cells] for cells, names in groups.items()]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def printed() -> str:
    """Return all tables."""
    gc.collect()
    gc.freeze()
    fast = [
        "families",
        "features of images kept",
        "rows packed by image",
        "prefixes shared",
        "rows with and without image mixed",
    ]
    some = ("batched", "full_logits", "answers", "scores")
    contracts = [(f"{name}, {key}", held(check, name)) for name in FAMILIES for key, check in CONTRACTS.items()]
    variants = [(f"{name}, {key}", held(CONTRACTS[key], name)) for name in VARIANTS for key in some]
    trained = [
        (f"`{unlearning}`, {tune}, {name}", held(method, name, unlearning, tune))
        for unlearning in METHODS
        for tune in ("lora", "full")
        for name in FAMILIES
        if not refused(unlearning, tune)
    ]
    return "\n\n".join(
        [
            "### Which fast paths each takes",
            table(fast, grouped([paths(name) for name in ALL])),
            "### Families and contracts",
            outcomes(contracts),
            f"### Other checkpoints of these families: {', '.join(some)}",
            outcomes(variants),
            "### Families and methods: LoRA, full",
            outcomes(trained),
        ]
    )


def main() -> None:
    """Print the tables, or put them into a file."""
    warnings.simplefilter("ignore")
    text = printed()
    if len(sys.argv) < 2:
        sys.stdout.write(text + "\n")
        return
    file = Path(sys.argv[1])
    before, _, rest = file.read_text(encoding="utf-8").partition(MARKS[0])
    file.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
