"""Packed bits, their file, and what a mask lets through."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from unsee.errors import UserError
from unsee.methods.mmunlearner import masks
from unsee.methods.mmunlearner.masks import Mask, agreement, count, load_mask, pack, unpack
from unsee.testing.tiny import tiny_model

UP = "model.language_model.layers.0.mlp.up_proj.weight"
DOWN = "model.language_model.layers.1.mlp.down_proj.weight"


def random_mask(seed=0, names=(UP, DOWN), model_hash="abc"):
    stream = torch.Generator().manual_seed(seed)
    weights = dict(tiny_model().named_parameters())
    difference = {name: torch.randn(weights[name].shape, generator=stream) for name in names}
    difference[names[0]][0, :3] = 0
    facts = {"model_hash": model_hash, "gamma": 1.0, "seed": seed}
    return difference, Mask.where_positive(difference, dict.fromkeys(names, "language"), facts)


def test_agreement_is_the_share_of_equal_bits():
    one, other = random_mask(0)[1], random_mask(1)[1]
    a, b = (torch.cat([unpack(e.bits, e.shape).flatten() for e in m.entries.values()]) for m in (one, other))
    assert agreement(one, other) == pytest.approx(float((a == b).float().mean()), abs=1e-6)
    with pytest.raises(UserError, match="cover different tensors"):
        agreement(one, random_mask(0, (UP,))[1])


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (3, 5), (2, 3, 5), (16, 16)])
def test_pack_round_trip(shape):
    bits = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5
    packed = pack(bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-bits.numel() // 8)
    assert torch.equal(unpack(packed, shape), bits)
    assert count(packed) == int(bits.sum())


def test_bit_order_is_little_and_rows_follow_each_other():
    assert pack(torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]).bool()).tolist() == [129, 2]


def test_file_holds_the_bits_and_little_more(tmp_path):
    difference, mask = random_mask()
    mask.save(tmp_path / "m.safetensors")
    size = (tmp_path / "m.safetensors").stat().st_size
    bits = sum(-(-total.numel() // 8) for total in difference.values())
    header = int.from_bytes((tmp_path / "m.safetensors").read_bytes()[:8], "little")
    assert size == bits + 8 + header
    assert header < 1500
    again = load_mask(tmp_path / "m.safetensors", tiny_model(), "abc")
    assert again.facts == mask.facts
    for name, total in difference.items():
        assert torch.equal(unpack(again.entries[name].bits, total.shape), total > 0)
        assert again.entries[name].dead == int((total == 0).sum())
        assert again.entries[name].kept == mask.entries[name].kept
    assert again.report() == mask.report()
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_writing_that_is_broken_off_leaves_nothing(tmp_path, monkeypatch):
    def cut(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(masks, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        random_mask()[1].save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_metadata_say_what_the_mask_was_made_from(tmp_path):
    random_mask()[1].save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "unsee mask 1"
    assert '"model_hash": "abc"' in metadata["facts"]
    assert '"dead"' in metadata["tensors"]


def test_another_model_is_refused(tmp_path):
    random_mask()[1].save(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="another model: hash abc"):
        load_mask(tmp_path / "m.safetensors", tiny_model(), "abx")


def test_another_name_is_refused(tmp_path):
    mask = random_mask()[1]
    entries = {name.replace("up_proj", "upper"): entry for name, entry in mask.entries.items()}
    Mask(entries=entries, facts=mask.facts).save(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=r"1 names are unknown.*upper"):
        load_mask(tmp_path / "m.safetensors", tiny_model(), "abc")


def test_another_shape_is_refused(tmp_path):
    wrong = {UP: torch.ones(8, 4)}
    Mask.where_positive(wrong, {UP: "language"}, {"model_hash": "abc"}).save(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=r"has shape \(8, 4\)"):
        load_mask(tmp_path / "m.safetensors", tiny_model(), "abc")


def test_what_is_no_mask_is_refused(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="Cannot read the mask"):
        load_mask(tmp_path / "m.safetensors", tiny_model(), "abc")


def test_gradients_outside_are_exactly_zero_and_only_within_the_block():
    difference, mask = random_mask()
    model = tiny_model()
    ids = torch.tensor([[5, 6, 7, 8]])

    def gradients():
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

    free = gradients()
    with mask.applied(model):
        masked = gradients()
    assert all(torch.equal(free[name], value) for name, value in gradients().items())
    for name, value in masked.items():
        expected = free[name].where(difference[name] > 0, 0) if name in difference else torch.zeros_like(value)
        assert torch.equal(value, expected), name
    assert masked[UP].count_nonzero()


def test_masked_and_free_backward_add_up():
    """A hook acts on the gradient of its own backward pass, not on what has been gathered before."""
    difference, mask = random_mask()
    model = tiny_model()
    ids = torch.tensor([[5, 6, 7, 8]])
    model(input_ids=ids, labels=ids).loss.backward()
    free = model.get_parameter(UP).grad.clone()
    with mask.applied(model):
        (-model(input_ids=ids, labels=ids).loss).backward()
    assert torch.equal(model.get_parameter(UP).grad, free - free.where(difference[UP] > 0, 0))


def test_infinite_gradients_outside_the_mask_become_zero():
    weight = torch.nn.Linear(2, 1, bias=False)
    mask = Mask.where_positive({"weight": torch.tensor([[1.0, -1.0]])}, {"weight": "language"}, {})
    with mask.applied(weight):
        (weight.weight * torch.tensor([1.0, torch.inf])).sum().backward()
    assert weight.weight.grad.tolist() == [[1.0, 0.0]]


def test_a_mask_that_matches_nothing_is_an_error_with_names():
    mask = random_mask()[1]
    model = tiny_model().requires_grad_(False)
    model.get_parameter("lm_head.weight").requires_grad_(True)
    with pytest.raises(UserError, match=r"matches none of the 1 trainable.*layers\.0\.mlp\.up_proj.*lm_head"):
        mask.applied(model).__enter__()


def test_report_by_part_and_layer():
    difference, mask = random_mask()
    report = mask.report()
    kept = sum(int((total > 0).sum()) for total in difference.values())
    size = sum(total.numel() for total in difference.values())
    assert report["kept"] == pytest.approx(kept / size, abs=1e-6)
    assert report["dead"] == pytest.approx(3 / size, abs=1e-6)
    assert set(report["modules"]) == {"language"}
    assert set(report["layers"]) == {"model.language_model.layers.0", "model.language_model.layers.1"}


def test_random_mask_keeps_as_many_elsewhere():
    mask = random_mask()[1]
    other = mask.shuffled(3)
    assert agreement(mask, other) < 0.7
    assert [count(entry.bits) for entry in other.entries.values()] == [e.kept for e in mask.entries.values()]
    assert agreement(other, mask.shuffled(3)) == 1
    assert agreement(other, mask.shuffled(4)) < 0.7


def test_masks_that_keep_nearly_nothing_or_everything_are_remarked_upon():
    """Defect 45."""

    def remarks(share):
        difference = {"w": (torch.arange(1000) < share * 1000).float() - 0.5}
        return Mask.where_positive(difference, {"w": "vision"}, {}).remarks()

    assert remarks(0.5) == remarks(0.02) == []
    assert "0.5% of the weights of vision" in remarks(0.005)[0]
    assert "96.0% of the weights of vision" in remarks(0.96)[0]
