"""Merged weights equal the formulas: task arithmetic, TIES, DARE, and the steps of the MCU-style merge."""

from __future__ import annotations

import json
from math import inf

import pytest
import torch
from peft.utils.merge_utils import ties as peft_ties
from safetensors.torch import save_file

from unsee.errors import UserError
from unsee.workflows.continual import merging
from unsee.workflows.continual.merging import Factors, Settings


@pytest.fixture
def undamped(monkeypatch):
    """All directions, with their length."""
    monkeypatch.setattr(merging, "ENERGY", 1.0)
    monkeypatch.setattr(merging, "CAPACITY", inf)


@pytest.fixture
def plain_core(undamped, monkeypatch):
    """All directions as they are, without a new Gram matrix."""
    monkeypatch.setattr(merging, "nearest_with_gram", lambda columns, _: columns)


def update(seed, out=12, width=10, rank=3):
    draw = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(out, rank, generator=draw), torch.randn(rank, width, generator=draw))


def orthogonal(count, size, rank, seed=0):
    columns = torch.linalg.qr(torch.randn(size, count * rank, generator=torch.Generator().manual_seed(seed)))[0]
    return [columns[:, place * rank : (place + 1) * rank] for place in range(count)]


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("how", ["sum", "ties", "dare", "mcu"])
def test_a_single_adapter_is_scaled_only(how, scale):
    one = update(0)
    found = merging.merge_adapters([{"layer": one}], Settings(how=how, scale=scale))["layer"]
    assert found.a_ri.equal(one.a_ri)
    assert found.b_or.equal(scale * one.b_or)


def test_the_sum_is_exact_and_has_no_cross_terms():
    one, two = update(1), update(2, rank=2)
    found = merging.merge_adapters([{"x": one}, {"x": two}], Settings(scale=0.5))["x"]
    assert torch.allclose(found.delta_oi, 0.5 * (one.b_or @ one.a_ri + two.b_or @ two.a_ri), atol=1e-6)
    assert found.a_ri.shape[0] == 5


def test_adapters_on_other_layers_are_refused():
    with pytest.raises(UserError, match="same layers"):
        merging.merge_adapters([{"x": update(1)}, {"y": update(2)}], Settings())


def test_trimming_keeps_the_largest_entries():
    delta = torch.tensor([[3.0, -1.0], [0.5, -4.0]])
    assert merging.trimmed(delta, 0.5).tolist() == [[3.0, 0.0], [0.0, -4.0]]


def test_ties_worked_by_hand():
    one = torch.tensor([4.0, -2.0, 1.0, 0.1])
    two = torch.tensor([2.0, 6.0, 0.2, -3.0])
    # trimmed to half: (4, -2, 0, 0) and (0, 6, 0, -3); signs +, +, ?, -; disjoint means 4, 6, 0, -3
    assert merging.ties([one, two], 0.5).tolist() == [4.0, 6.0, 0.0, -3.0]


@pytest.mark.parametrize("density", [0.2, 0.7])
def test_ties_equals_peft_on_whole_updates(density):
    deltas = [update(seed).delta_oi for seed in range(3)]
    theirs = peft_ties(deltas, torch.ones(3), density=density, majority_sign_method="total")
    assert torch.allclose(merging.ties(deltas, density), theirs, atol=1e-5)


def test_dare_scales_up_what_stays():
    delta = torch.ones(200, 200)
    found = merging.dare([delta], 0.9, [7])
    assert sorted(found.unique().tolist()) == pytest.approx([0.0, 10.0])
    assert found.mean() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(found, merging.dare([delta], 0.9, [7]))
    assert not torch.equal(found, merging.dare([delta], 0.9, [8]))


def test_every_adapter_and_every_layer_drops_entries_of_its_own():
    ones = Factors(torch.ones(20, 1), torch.ones(1, 20))
    found = merging.merge_adapters([{"x": ones, "y": ones}] * 2, Settings(how="dare", drop=0.5))
    whole = {name: one.delta_oi.round().int() for name, one in found.items()}
    assert set(whole["x"].unique().tolist()) == {0, 2, 4}  # one of both dropped, too
    assert not whole["x"].equal(whole["y"])


@pytest.mark.parametrize("how", ["sum", "ties", "dare", "mcu"])
def test_what_is_merged_is_scaled(how):
    adapters = [{"x": update(seed)} for seed in range(2)]
    whole, half = (
        merging.merge_adapters(adapters, Settings(how=how, scale=scale))["x"].delta_oi for scale in (1.0, 0.5)
    )
    assert torch.allclose(half, 0.5 * whole, atol=1e-5)


@pytest.mark.parametrize("how", ["ties", "dare"])
def test_what_has_no_rank_of_its_own_is_factorised_exactly_or_as_well_as_the_rank_allows(how):
    adapters = [{"x": update(seed)} for seed in range(3)]
    exact = merging.merge_adapters(adapters, Settings(how=how, density=0.4, drop=0.5))["x"].delta_oi
    short = merging.merge_adapters(adapters, Settings(how=how, density=0.4, drop=0.5, rank=2))["x"]
    assert short.a_ri.shape[0] == 2
    u, s, vh = torch.linalg.svd(exact)
    assert torch.allclose(short.delta_oi, u[:, :2] * s[:2] @ vh[:2], atol=1e-4)
    if how == "ties":
        assert torch.allclose(exact, merging.ties([one["x"].delta_oi for one in adapters], 0.4), atol=1e-4)


# MCU-style merge


def test_the_core_space_holds_every_update_exactly():
    updates = [update(seed) for seed in range(2)]
    p_od = merging.basis(torch.cat([one.b_or for one in updates], 1))
    q_id = merging.basis(torch.cat([one.a_ri for one in updates]).T)
    for one in updates:
        assert torch.allclose(p_od @ (p_od.T @ one.delta_oi @ q_id) @ q_id.T, one.delta_oi, atol=1e-5)


@pytest.mark.usefixtures("plain_core")
def test_without_its_steps_the_merge_is_the_plain_sum():
    updates = [update(seed) for seed in range(3)]
    found = merging.mcu(updates)
    assert torch.allclose(found.delta_oi, sum(one.delta_oi for one in updates), atol=1e-4)


@pytest.mark.usefixtures("undamped")
def test_adapters_with_orthogonal_spans_merge_to_their_sum():
    left, right = orthogonal(2, 12, 2), orthogonal(2, 10, 2, seed=1)
    updates = [Factors(b * torch.tensor([3.0, 2.0]), a.T.contiguous()) for b, a in zip(left, right, strict=True)]
    found = merging.mcu(updates)
    assert torch.allclose(found.delta_oi, sum(one.delta_oi for one in updates), atol=1e-4)


@pytest.mark.usefixtures("undamped")
@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_opposite_updates_cancel_in_the_sum_and_not_in_the_merge(flip):
    one = update(5, rank=2)
    two = Factors(flip * one.b_or, -flip * one.a_ri)  # the same update -Delta W in either form
    assert merging.total([one, two]).delta_oi.abs().max() < 1e-5
    found = merging.mcu([one, two])
    assert found.delta_oi.norm() > 0.1 * one.delta_oi.norm()


def test_signs_of_a_decomposition_mean_nothing():
    owner = torch.tensor([0, 1])
    left, right = torch.tensor([[1.0, 0.6], [0.0, 0.8]]), torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    mirror = torch.tensor([1.0, -1.0])
    agree = [gram[0, 1].abs().item() for gram in merging._grams(left, right, owner, 0.5)]
    mirrored = [gram[0, 1].abs().item() for gram in merging._grams(left * mirror, right * mirror, owner, 0.5)]
    assert agree == pytest.approx([0.3, 0.4])  # synergy: both entries halved
    assert mirrored == pytest.approx(agree)
    conflict = [gram[0, 1].item() for gram in merging._grams(left * mirror, right, owner, 0.5)]
    assert conflict == pytest.approx([0.0, 0.0])


def test_recovered_directions_have_the_wanted_gram_matrix():
    draw = torch.Generator().manual_seed(3)
    columns = torch.randn(7, 4, generator=draw, dtype=torch.float64)
    wanted = merging._definite(torch.cov(torch.randn(4, 30, generator=draw, dtype=torch.float64)))
    found = merging.nearest_with_gram(columns, wanted)
    assert torch.allclose(found.T @ found, wanted, atol=1e-5)
    other = merging.nearest_with_gram(columns + 0.1 * torch.randn(7, 4, generator=draw, dtype=torch.float64), wanted)
    assert (found - columns).norm() <= (other - columns).norm()


@pytest.mark.usefixtures("plain_core")
def test_directions_kept_hold_the_energy_and_are_bounded(monkeypatch):
    left, right = orthogonal(2, 30, 3), orthogonal(2, 30, 3, seed=1)
    strength = torch.tensor([10.0, 3.0, 1.0])  # energy 100, 9, 1 of 110
    updates = [Factors(b * strength, a.T.contiguous()) for b, a in zip(left, right, strict=True)]
    for energy, most, kept in ((0.9, 8, 1), (0.95, 8, 2), (1.0, 8, 3), (1.0, 2, 2)):
        monkeypatch.setattr(merging, "ENERGY", energy)
        monkeypatch.setattr(merging, "DIRECTIONS", most)
        found = merging.mcu(updates)
        assert found.a_ri.shape[0] == 2 * kept
        wanted = sum(b[:, :kept] * strength[:kept] @ a[:, :kept].T for b, a in zip(left, right, strict=True))
        assert torch.allclose(found.delta_oi, wanted, atol=1e-4)


def test_both_sides_of_the_core_space_are_damped(monkeypatch):
    damped = []
    plain = merging._damped
    monkeypatch.setattr(
        merging, "_damped", lambda columns, s, capacity: damped.append(columns) or plain(columns, s, capacity)
    )
    merging.mcu([update(0, out=12), update(1, out=12)])
    assert len(damped) == 2
    assert not damped[0].equal(damped[1])


def test_an_overloaded_coordinate_is_damped():
    columns = torch.eye(5)[:, [0, 0, 1, 2, 3]] + 0.01
    loads = torch.tensor([9.0, 9.0, 1.0, 1.0, 1.0])
    found = merging._damped(columns, loads, 3.0)
    assert torch.allclose(found.norm(dim=0), torch.ones(5))
    assert found[0, 0] < (columns / columns.norm(dim=0))[0, 0]
    assert torch.allclose(merging._damped(columns, loads, inf), columns / columns.norm(dim=0))


# files


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    one = update(0)
    save_file({"m.lora_A.weight": one.a_ri, "m.lora_B.weight": one.b_or}, folder / merging.WEIGHTS)
    written = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["m"]}
    (folder / merging.CONFIG).write_text(json.dumps(written))
    (folder / "unsee.json").write_text("{}")
    return folder, one


def test_the_scale_of_an_adapter_is_read_and_written(saved, tmp_path):
    folder, one = saved
    read = merging.read_adapter(folder)
    assert torch.allclose(read["m"].delta_oi, 2 * one.delta_oi, atol=1e-5)
    rank = merging.write_adapter({"m": read["m"], "n": update(4, rank=5)}, tmp_path / "two", like=folder)
    again = merging.read_adapter(tmp_path / "two")
    assert rank == 5
    assert json.loads((tmp_path / "two" / merging.CONFIG).read_text())["lora_alpha"] == 5
    assert torch.allclose(again["m"].delta_oi, read["m"].delta_oi, atol=1e-5)
    assert (tmp_path / "two" / "unsee.json").exists()


def test_only_plain_lora_can_be_merged(saved):
    folder, _ = saved
    (folder / merging.CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 3, "lora_alpha": 6, "use_dora": True}))
    with pytest.raises(UserError, match="no plain LoRA"):
        merging.read_adapter(folder)
