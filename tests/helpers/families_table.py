"""Print the contract matrix as Markdown: `python tests/helpers/families_table.py [FILE]` puts it between the marks of FILE."""

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
from unsee.api import Training
from unsee.errors import UnseeError
from unsee.inference.encoder import encoder
from unsee.inference.packing import PER_TOKEN, is_sequence, packable
from unsee.inference.prefix_groups import KNOWN
from unsee.inference.vision_cache import known
from unsee.models.auto import eos_id
from unsee.training.trainable import prepare

MARKS = ("<!-- printed by tests/helpers/families_table.py -->", "<!-- end -->")


def facts(name: str) -> list[str]:
    """Return what unsee knows about a family."""
    model, processor, kind = model_of(name), processor_of(name), family(name)
    tops = {part: _tops(pattern) for part, pattern in kind.parts(model).items()}
    adapted = prepare(model_of(name), kind, Training(), 0)
    targets = {key.split(".lora_")[0].rpartition(".")[2] for key, _ in adapted.named_parameters() if ".lora_" in key}
    end = processor.tokenizer.convert_ids_to_tokens(eos_id(processor))
    served = type(kind).__module__.rpartition(".")[2]
    row = [name, served, model.config.model_type, *(tops[part] for part in ("vision", "projector", "language"))]
    return [*row, " ".join(sorted(targets)), f"`{end}`"]


def _tops(pattern: str) -> str:
    """Return the module names in a part's pattern, without those it leaves out."""
    inside = pattern.rsplit("(?:\\..+)?", 1)[0].rsplit("(?:", 1)[1].removesuffix(")")
    return " ".join(f"`{name.replace(chr(92), '').removeprefix('model.')}`" for name in inside.split("|"))


def paths(name: str) -> list[str]:
    """Return which fast paths of the engine the family takes."""
    from helpers.contracts import QUESTIONS

    model, kind = model_of(name).requires_grad_(False), family(name)
    row = encoder(processor_of(name), kind).row(QUESTIONS[0].question, QUESTIONS[0].image)
    able = packable(model) is not None
    packs = able and not {key for key in row if is_sequence(row, key)} - PER_TOKEN
    shares = able and row.keys() <= KNOWN
    return [
        name,
        *(
            "yes" if one else "no"
            for one in (known(model) is not None, packs, shares, "cross_attention_mask" not in row)
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


def methods(name: str) -> tuple[list[str], list[str]]:
    """Return the row of a family over all methods, and the refusals in words."""
    row, said = [name], []
    for unlearning in METHODS:
        found = [held(method, name, unlearning, tune) for tune in ("lora", "full")]
        row.append(" ".join(one if one.startswith(("✓", "**")) else "no" for one in found))
        said += [
            f"`{unlearning}`, {tune}: {one}" for tune, one in zip(("lora", "full"), found, strict=True) if one[0] == "r"
        ]
    return row, said


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def printed() -> str:
    """Return all tables."""
    gc.collect()
    gc.freeze()
    known_as = [
        "family",
        "file",
        "model type",
        "vision",
        "projector",
        "language",
        "LoRA by default",
        "an answer ends with",
    ]
    fast = [
        "family",
        "features of images kept",
        "rows packed by image",
        "prefixes shared",
        "rows with and without image mixed",
    ]
    contracts = [[name, *(held(check, name) for check in CONTRACTS.values())] for name in FAMILIES]
    some = ("batched", "full_logits", "answers", "scores")
    variants = [[name, *(held(CONTRACTS[check], name) for check in some)] for name in VARIANTS]
    found = [methods(name) for name in FAMILIES]
    refusals = sorted({line for _, said in found for line in said})
    assert len(refusals) == sum(bool(refused(name, tune)) for name in METHODS for tune in ("lora", "full")), refusals
    return "\n\n".join(
        [
            "### What is known about each",
            table(known_as, [facts(name) for name in FAMILIES]),
            "### Which fast paths each takes",
            table(fast, [paths(name) for name in ALL]),
            "### Families and contracts",
            table(["family", *CONTRACTS], contracts),
            "### Other checkpoints of these families",
            table(["checkpoint", *some], variants),
            "### Families and methods: LoRA, full",
            table(["family", *(f"`{one}`" for one in METHODS)], [row for row, _ in found]),
            "Where it says no, the method refuses:\n\n" + "\n".join(f"- {line}" for line in refusals),
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
