"""Attacks: their contract on all families, and what each brings back where it must."""

from dataclasses import replace

import pytest
import torch

from helpers.families import FAMILIES, save_family
from unsee.api import Kind, Role, registry
from unsee.attacks.quantisation import rounded
from unsee.attacks.relearning import Relearning
from unsee.attacks.sampling import Sampling, leak_at
from unsee.errors import UserError
from unsee.evaluation.recovery import gives, requested_forms, require_disjoint, without
from unsee.testing.attacks import People, attack_contract, victim
from unsee.testing.tiny import person, save_tiny

SHORT = {
    "relearning": {"sources": ("facts",), "steps": (0, 2), "rates": (1e-3,), "rank": 2, "batch_size": 2},
    "sampling": {"k": (1, 4), "draws": 4},
    "prompts": {"forms": ("plain", "prefix"), "shots": 1},
    "pictures": {"changes": ("plain", "noise")},
    "membership": {"images": 1},
    "crossmodal": {"routes": ("picture", "written name")},
    "perturbation": {"variants": ("random signs", "per picture", "universal, denoised"), "steps": 2, "images": 1},
}
ATTACKS = registry.names("attacks")
CASES = [(name, family) for name in ATTACKS for family in FAMILIES]


def made(name):
    return registry.load("attacks", name)(**SHORT.get(name, {}))


@pytest.mark.parametrize("name", ATTACKS)
def test_contract(name, tmp_path):
    attack_contract(made(name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), [case for case in CASES if case[1] != "llava"])
def test_contract_on_family(name, family, tmp_path):
    attack_contract(made(name), tmp_path, save_family(family, tmp_path / "family"))


def test_relearning_brings_back_what_it_trains_and_counts_only_the_rest(tmp_path):
    attack = Relearning(sources=("facts",), steps=(0, 60), rates=(2e-2,), rank=8, batch_size=4, tune="full")
    start, end = attack.run(victim(save_tiny(tmp_path / "model"), tmp_path / "work"))
    assert start.at == 0
    assert end.at == 60
    assert start.questions == end.questions == 2  # the names: the jobs are what it trains on
    taught = replace(attack, sources=("slice",), steps=(0, 2))
    assert {finding.questions for finding in taught.run(victim(tmp_path / "model", tmp_path / "more"))} == {2}


def test_relearning_the_tested_facts_is_refused():
    rows = [person("ada", Role.UNSEEN, 4, Kind.NAME)]
    with pytest.raises(UserError, match=r"fitted on what it is tested on: row 'ada-0-name', its answer holds"):
        require_disjoint([person("ada", Role.FORGET, 0, Kind.NAME)], rows)
    with pytest.raises(UserError, match="its image is one of the test"):
        require_disjoint([replace(person("ada", Role.FORGET, 4), answer="a baker")], rows)
    require_disjoint([person("cleo", Role.RETAIN, 4, Kind.NAME)], rows)


def test_an_answer_counts_only_for_what_was_asked():
    row = next(row for row in People().examples("eval") if row.fact == "job" and row.entity == "ada")
    assert gives("She is a baker.", row)
    assert not gives("This is Ada Lovell.", row)
    assert requested_forms(without(row, "job")) == {}
    assert requested_forms(replace(row, question="Is this baker rich?")) == {}


def test_a_relearning_of_data_without_facts_says_what_it_lacks(tmp_path):
    class Names(People):
        def examples(self, split):
            return [row for row in super().examples(split) if row.kind == Kind.NAME]

    target = replace(victim(save_tiny(tmp_path / "model"), tmp_path / "work"), benchmark=Names())
    with pytest.raises(UserError, match="no rows to relearn from"):
        list(Relearning(sources=("facts", "others"), steps=(0,)).run(target))


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rounding_is_to_the_nearest_level_of_each_group(bits):
    weight = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    near = rounded(weight, bits, 64)
    for row in range(6):
        for half in (slice(0, 64), slice(64, 128)):
            scale = weight[row, half].abs().max() / (2 ** (bits - 1) - 1)
            assert torch.allclose(near[row, half] / scale, torch.round(weight[row, half] / scale), atol=1e-4)
    assert (near - weight).abs().max() <= weight.abs().max() / (2 ** (bits - 1) - 1) / 2 + 1e-6


def test_leak_at_k_is_the_mean_over_all_choices_of_k():
    from itertools import combinations

    hits = [1, 0, 0, 1, 0]
    for k in range(1, 6):
        chosen = list(combinations(hits, k))
        assert leak_at(2, 5, k) == pytest.approx(sum(map(max, chosen)) / len(chosen))


def test_sampling_refuses_more_answers_than_it_draws():
    with pytest.raises(UserError, match=r"attack\.k must lie in"):
        Sampling(k=(1, 100), draws=64)
