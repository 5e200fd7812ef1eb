"""The contract matrix: every family keeps every contract, and every method runs on every family.

A quarter of families x methods x ways of tuning runs by default, each family with several methods and each method on several
families; `-m slow` runs the rest. docs/families.md shows the whole matrix, printed by tests/families_table.py.
"""

from __future__ import annotations

import pytest

from contracts import CONTRACTS, METHODS, REFUSED, method
from families import FAMILIES, VARIANTS

TUNES = ("lora", "full")
CASES = [(name, unlearning, tune) for name in FAMILIES for unlearning in METHODS for tune in TUNES]


def _quick(case):
    name, unlearning, tune = case
    return (list(FAMILIES).index(name) + 3 * METHODS.index(unlearning) + 2 * TUNES.index(tune)) % 4 == 0


@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_contract(name, contract, tmp_path):
    CONTRACTS[contract](name, tmp_path)


@pytest.mark.parametrize("contract", ["batched", "full_logits", "answers", "scores"])
@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name, contract, tmp_path):
    CONTRACTS[contract](name, tmp_path)


@pytest.mark.parametrize(
    ("name", "unlearning", "tune"),
    [case if _quick(case) else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_method(name, unlearning, tune, tmp_path):
    said = method(name, unlearning, tune, tmp_path)
    wanted = REFUSED.get((unlearning, tune), "")
    assert wanted in said if wanted else not said
