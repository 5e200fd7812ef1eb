"""Features of a frozen vision tower stand for the pixels: same logits, computed once, never out of date."""

from __future__ import annotations

from dataclasses import replace
from functools import wraps

import pytest
import torch

from helpers.families import FAMILIES, Picture, family, model_of, processor_of
from unsee.api import Training
from unsee.api.fast_paths import FAST, PLAIN
from unsee.inference import vision_cache
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate, group_by_length
from unsee.inference.vision_cache import with_features
from unsee.losses import answer_nll
from unsee.models.padding import merge
from unsee.testing.tiny import tiny_session
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import minimise, prepare


def rows_of(name):
    """Return the inputs of prompts about two pictures, and of one without."""
    kind, processor = family(name), processor_of(name)
    asked = [("Who?", Picture("red")), ("Who is this?", Picture("blue", 0, 32, 16)), ("Who?", None)]
    return [
        kind.encode(
            processor, [kind.prompt(processor, text, has_image=picture is not None)], [picture and picture.load()]
        )
        for text, picture in asked
    ]


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"mllama"}))
def test_same_logits_in_every_family(name, monkeypatch):
    model = model_of(name).requires_grad_(False)
    *rows, bare = rows_of(name)
    calls = []
    ask = model.base_model.get_image_features
    monkeypatch.setattr(
        model.base_model, "get_image_features", wraps(ask)(lambda *a, **k: calls.append(1) or ask(*a, **k))
    )
    inputs = merge([rows[0], bare, rows[1]], 0)
    plain = model(**inputs).logits
    asked = len(calls)
    for order in ([0, None, 1], [1, 0, 1]):
        chosen = [bare if place is None else rows[place] for place in order]
        images = ["" if place is None else f"image {place}" for place in order]
        batch = merge(chosen, 0)
        made = with_features(model, chosen, images, batch, FAST)
        assert "mm_encoder_outputs" in made
        assert "pixel_values" not in made
        assert torch.allclose(model(**made).logits, model(**batch).logits, atol=1e-5)
        asked += 1  # by the plain call
    assert asked < len(calls) <= asked + 1 + len(rows)
    assert torch.allclose(
        plain[2, -5:], model(**with_features(model, [rows[1]], ["image 1"], rows[1], FAST)).logits[0, -5:], atol=1e-5
    )


def lora(out, parts=("language",), **more):
    training = Training(parts=parts, **more)
    session = tiny_session(out, training=training)
    session.model = prepare(session.model, session.family, training, session.seed)
    return session


def vision_calls(session, monkeypatch):
    calls = []
    tower = session.model.get_base_model().model.vision_tower
    forward = tower.forward
    monkeypatch.setattr(tower, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    return calls


def test_the_vision_tower_sees_an_image_once(tmp_path, monkeypatch):
    session = lora(tmp_path)
    calls = vision_calls(session, monkeypatch)
    batch = collate(session, forget_targets(session)[:4])
    fast = answer_logits(session.model, batch)[0]
    assert len(calls) == 1
    assert torch.equal(answer_logits(session.model, collate(session, batch.targets[:3]))[0], fast[:3])
    assert len(calls) == 1
    looking = replace(batch, engine=replace(FAST, vision_features=False))
    assert torch.allclose(answer_logits(session.model, looking)[0], fast, atol=1e-6)
    assert len(calls) == 2


def test_features_of_other_weights_are_not_used(tmp_path, monkeypatch):
    session = lora(tmp_path)
    calls = vision_calls(session, monkeypatch)
    batch = collate(session, forget_targets(session)[:2])
    before = answer_logits(session.model, batch)[0]
    with torch.no_grad():
        session.model.get_base_model().model.vision_tower.embeddings.patch_embedding.weight.mul_(2)
    assert not torch.allclose(answer_logits(session.model, batch)[0], before)
    assert len(calls) == 2


@pytest.mark.parametrize("parts", [("vision",), ("projector",), ("projector", "language")])
def test_nothing_is_kept_where_something_is_trained(tmp_path, monkeypatch, parts):
    session = lora(tmp_path, parts)
    calls = vision_calls(session, monkeypatch)
    batch = collate(session, forget_targets(session)[:2])
    for _ in range(2):
        answer_logits(session.model, batch)
    assert len(calls) == 2


def test_what_does_not_fit_is_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(vision_cache, "MEMORY", 1)
    session = lora(tmp_path)
    calls = vision_calls(session, monkeypatch)
    batch = collate(session, forget_targets(session)[:2])
    first = answer_logits(session.model, batch)[0]
    assert torch.equal(answer_logits(session.model, batch)[0], first)
    assert len(calls) == 2


def test_autocast_has_features_of_its_own(tmp_path, monkeypatch):
    session = lora(tmp_path)
    calls = vision_calls(session, monkeypatch)
    batch = collate(session, forget_targets(session)[:2])
    answer_logits(session.model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        fast = answer_logits(session.model, batch)[0]
        looking = replace(batch, engine=replace(FAST, vision_features=False))
        plain = answer_logits(session.model, looking)[0]
    assert len(calls) == 3
    assert torch.allclose(fast, plain, atol=1e-2)


def test_adapters_on_and_off_have_features_of_their_own(tmp_path):
    session = lora(tmp_path, ("vision",))
    with torch.no_grad():
        for name, weight in session.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=5.0)
    session.model.requires_grad_(False)
    batch = collate(session, forget_targets(session)[:2])
    plain = replace(batch, engine=replace(FAST, vision_features=False))
    fast_on, plain_on = (answer_logits(session.model, one)[0] for one in (batch, plain))
    with session.model.disable_adapter():
        session.model.requires_grad_(False)
        fast_off, plain_off = (answer_logits(session.model, one)[0] for one in (batch, plain))
    assert torch.allclose(fast_on, plain_on, atol=1e-5)
    assert torch.allclose(fast_off, plain_off, atol=1e-5)
    assert not torch.allclose(fast_on, fast_off, atol=1e-3)


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ([600, 40, 610, 35], [[0, 2], [1, 3]]),
        ([600, 590], [[0, 1]]),
        ([60, 20, 61], [[0, 1, 2]]),
        ([2000, 700, 400], [[0], [1, 2]]),
        ([900], [[0]]),
    ],
)
def test_rows_of_similar_length_stay_together(lengths, groups):
    assert group_by_length(lengths) == groups


def test_split_batches_give_the_same_logits(tmp_path, monkeypatch):
    monkeypatch.setattr("unsee.inference.batching.WORTH_SPLITTING", 1)
    session = lora(tmp_path)
    mixed = [target for pair in zip(retain_targets(session), forget_targets(session), strict=False) for target in pair]
    batch = collate(session, mixed)
    assert len(batch.parts) > 1
    logits_bav, labels_ba = answer_logits(session.model, batch)
    plain_bav, plain_ba = answer_logits(session.model, replace(batch, engine=PLAIN))
    assert torch.equal(labels_ba, plain_ba)
    seen_ba = labels_ba != -100
    assert torch.allclose(logits_bav[seen_ba], plain_bav[seen_ba], atol=1e-5)


def test_damaged_features_are_computed_again(tmp_path, monkeypatch):
    first = lora(tmp_path / "a")
    targets = forget_targets(first)[:4]
    with vision_cache.shared_features(first):
        said = answer_logits(first.model, collate(first, targets))[0]
    (file,) = (tmp_path / "cache" / "features").glob("*/*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    (file.parent / "empty.safetensors").touch()
    second = lora(tmp_path / "b")
    calls = vision_calls(second, monkeypatch)
    with vision_cache.shared_features(second):
        assert torch.allclose(answer_logits(second.model, collate(second, targets))[0], said, atol=1e-6)
    assert calls
    assert file.read_bytes() == whole


def test_features_on_disk_are_used_when_memory_is_full(tmp_path, monkeypatch):
    first = lora(tmp_path / "a")
    targets = forget_targets(first)[:4]
    with vision_cache.shared_features(first):
        logits = answer_logits(first.model, collate(first, targets))[0]
    monkeypatch.setattr(vision_cache, "MEMORY", 1)
    second = lora(tmp_path / "b")
    calls = vision_calls(second, monkeypatch)
    with vision_cache.shared_features(second):
        for _ in range(2):
            assert torch.allclose(answer_logits(second.model, collate(second, targets))[0], logits, atol=1e-6)
    assert not calls


def test_features_are_shared_by_runs(tmp_path, monkeypatch):
    first = lora(tmp_path / "a")
    targets = forget_targets(first)[:4]
    with vision_cache.shared_features(first):
        said = answer_logits(first.model, collate(first, targets))[0]
    assert len(list((tmp_path / "cache" / "features").glob("*/*.safetensors"))) == 1
    second = lora(tmp_path / "b", rank=2)
    calls = vision_calls(second, monkeypatch)
    with vision_cache.shared_features(second):
        assert torch.allclose(answer_logits(second.model, collate(second, targets))[0], said, atol=1e-6)
        assert not calls
        answer_logits(second.model, collate(second, forget_targets(second)))
    assert len(calls) == 1
    assert len(list((tmp_path / "cache" / "features").glob("*/*.safetensors"))) == 2
    changed = lora(tmp_path / "c")
    with torch.no_grad():
        changed.model.get_base_model().model.vision_tower.embeddings.patch_embedding.weight.mul_(2)
    calls = vision_calls(changed, monkeypatch)
    with vision_cache.shared_features(changed):
        answer_logits(changed.model, collate(changed, targets))
    assert len(calls) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_trainings_share_features_in_their_precision(precision, tmp_path, monkeypatch):
    for name, is_first in (("a", True), ("b", False)):
        session = lora(tmp_path / name, precision=precision, stop="never", max_steps=1)
        calls = vision_calls(session, monkeypatch)

        def objective(forget, _, model=session.model):
            return {"loss": answer_nll(*answer_logits(model, forget))}

        minimise(session, objective, forget=forget_targets(session))
        assert bool(calls) is is_first


def test_features_of_another_layer_are_not_shared(tmp_path, monkeypatch):
    for name, layer in (("a", -1), ("b", -2)):
        session = lora(tmp_path / name)
        session.model.get_base_model().config.vision_feature_layer = layer
        session.model.get_base_model().model.config.vision_feature_layer = layer
        calls = vision_calls(session, monkeypatch)
        with vision_cache.shared_features(session):
            answer_logits(session.model, collate(session, forget_targets(session)[:2]))
        assert calls
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2
