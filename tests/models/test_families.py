"""The contract matrix: every family keeps every contract, and every method runs on every family.

About 90 combinations of family, method and way of tuning run by default, each family with several methods and each method on
several families, and a third of the contracts; `-m slow` runs the rest. docs/internals.md has the outcome, printed by tests/helpers/families_table.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.contracts import CONTRACTS, METHODS, method, refused
from helpers.families import FAMILIES, VARIANTS, save_family
from unsee import evaluate, forget

TUNES = ("lora", "full")
CASES = [(name, unlearning, tune) for name in FAMILIES for unlearning in METHODS for tune in TUNES]
EVERY = max(4, round(len(CASES) / 84))
"""One case in so many runs by default, so that their number stays the same when methods are added."""


def _quick(case):
    name, unlearning, tune = case
    return (list(FAMILIES).index(name) + 3 * METHODS.index(unlearning) + 2 * TUNES.index(tune)) % EVERY == 0


CELLS = [(name, contract) for name in FAMILIES for contract in CONTRACTS]


def _spread(cells, step):
    """Return the cells with one in `step` by default, in diagonals: every family and every contract among them."""
    rows, columns = (list(dict.fromkeys(part)) for part in zip(*cells, strict=True))
    black = {cell for cell in cells if (rows.index(cell[0]) + columns.index(cell[1])) % step == 0}
    return [cell if cell in black else pytest.param(*cell, marks=pytest.mark.slow) for cell in cells]


@pytest.mark.parametrize(("name", "contract"), _spread(CELLS, 3))
def test_contract(name, contract, tmp_path):
    CONTRACTS[contract](name, tmp_path)


OF_VARIANTS = [(name, contract) for name in VARIANTS for contract in ("batched", "full_logits", "answers", "scores")]


@pytest.mark.parametrize(("name", "contract"), _spread(OF_VARIANTS, 2))
def test_variant(name, contract, tmp_path):
    CONTRACTS[contract](name, tmp_path)


@pytest.mark.parametrize(
    ("name", "unlearning", "tune"),
    [case if _quick(case) else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_method(name, unlearning, tune, tmp_path):
    said = method(name, unlearning, tune, tmp_path)
    wanted = refused(unlearning, tune)
    assert wanted in said if wanted else not said


EXAMPLES = Path(__file__).parents[2] / "examples" / "own_folder"


@pytest.mark.parametrize(
    "name", ["qwen2_5_vl", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "qwen2_5_vl")]
)
def test_from_a_folder_of_data_to_scores(name, tmp_path):
    model = save_family(name, tmp_path / "base")
    training = {"max_steps": 1, "max_new_tokens": 4, "stop": "never"}
    run = forget(model, EXAMPLES, "npo", tmp_path / "run", training=training)
    scores = evaluate(run, EXAMPLES, tmp_path / "run")
    assert scores["forget.leak"].n > 0
