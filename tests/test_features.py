"""Features of a frozen vision tower stand for the pixels: same logits, computed once, never out of date."""

from __future__ import annotations

from dataclasses import replace
from functools import wraps

import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from tiny import tiny_session
from unsee import engine, features
from unsee.api import Training
from unsee.batching import answer_logits, by_length, collate
from unsee.features import encoded
from unsee.padding import merge
from unsee.targets import forget_targets, retain_targets
from unsee.training import prepare

IMAGE, START, END, VIDEO = 100, 101, 102, 103
TEXT = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}


def qwen_row(answer: int) -> dict:
    """One image of 4 x 4 patches of 4 pixels: 4 tokens after merging."""
    ids = torch.tensor([[1, START, *[IMAGE] * 4, END, *range(2, 2 + answer)]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).long(),
        "pixel_values": torch.randn(16, 96),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
    }


def row(answer: int, tokens: int, pixels: tuple[int, ...], **more: torch.Tensor) -> dict:
    ids = torch.tensor([[1, *[IMAGE] * tokens, *range(2, 2 + answer)]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(pixels), **more}


def qwen2_5():
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 4,
        "fullatt_block_indexes": [1],
        "window_size": 16,
    }
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, **MROPE}, vision_config=vision, image_token_id=IMAGE, vision_start_token_id=START
    )
    return Qwen2_5_VLForConditionalGeneration(config), [qwen_row(3), qwen_row(5)]


def qwen3():
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 4,
        "deepstack_visual_indexes": [0, 1],
        "num_position_embeddings": 16,
    }
    config = Qwen3VLConfig(
        text_config={**TEXT, **MROPE, "head_dim": 8},
        vision_config=vision,
        image_token_id=IMAGE,
        vision_start_token_id=START,
    )
    return Qwen3VLForConditionalGeneration(config), [qwen_row(3), qwen_row(5)]


def llava_next():
    config = LlavaNextConfig(
        text_config={**TEXT, "model_type": "llama"},
        vision_config={**TOWER, "image_size": 16, "patch_size": 8, "model_type": "clip_vision_model"},
        image_grid_pinpoints=[[16, 32], [32, 16]],
        image_token_id=IMAGE,
    )
    sizes = {"image_sizes": torch.tensor([[16, 32]])}
    return LlavaNextForConditionalGeneration(config), [row(n, 14, (1, 3, 3, 16, 16), **sizes) for n in (3, 5)]


def internvl():
    config = InternVLConfig(
        text_config={**TEXT, "model_type": "qwen2"},
        vision_config={**TOWER, "image_size": [16, 16], "patch_size": [4, 4]},
        image_token_id=IMAGE,
    )
    return InternVLForConditionalGeneration(config), [row(n, 4, (1, 3, 16, 16)) for n in (3, 5)]


def idefics3():
    config = Idefics3Config(
        text_config={**TEXT, "model_type": "llama"},
        vision_config={**TOWER, "image_size": 16, "patch_size": 4},
        scale_factor=2,
        image_token_id=IMAGE,
    )
    return Idefics3ForConditionalGeneration(config), [row(n, 8, (1, 2, 3, 16, 16)) for n in (3, 5)]


def gemma3():
    config = Gemma3Config(
        text_config={**TEXT, "head_dim": 8},
        vision_config={**TOWER, "image_size": 16, "patch_size": 4},
        mm_tokens_per_image=4,
        image_token_id=IMAGE,
        boi_token_id=START,
        eoi_token_id=END,
    )
    rows = [row(n, 4, (1, 3, 16, 16)) for n in (3, 5)]
    return Gemma3ForConditionalGeneration(config), [
        {**one, "token_type_ids": (one["input_ids"] == IMAGE).long()} for one in rows
    ]


@pytest.mark.parametrize("make", [llava_next, qwen2_5, qwen3, internvl, idefics3, gemma3])
def test_same_logits_in_every_family(make, monkeypatch):
    torch.manual_seed(0)
    model, rows = make()
    model.eval().requires_grad_(False)
    calls = []
    ask = model.base_model.get_image_features
    monkeypatch.setattr(
        model.base_model, "get_image_features", wraps(ask)(lambda *a, **k: calls.append(1) or ask(*a, **k))
    )
    words = torch.tensor([[1, 5, 6, 7]])
    bare = {"input_ids": words, "attention_mask": torch.ones_like(words)}
    inputs = merge([rows[0], bare, rows[1]], 0)
    plain = model(**inputs).logits
    asked = len(calls)
    for order in ([0, None, 1], [1, 0, 1]):
        chosen = [bare if place is None else rows[place] for place in order]
        images = ["" if place is None else f"image {place}" for place in order]
        batch = merge(chosen, 0)
        made = encoded(model, chosen, images, batch)
        assert "mm_encoder_outputs" in made
        assert "pixel_values" not in made
        assert torch.allclose(model(**made).logits, model(**batch).logits, atol=1e-5)
        asked += 1  # by the plain call
    assert asked < len(calls) <= asked + 1 + len(rows)
    assert torch.allclose(
        plain[2, -5:], model(**encoded(model, [rows[1]], ["image 1"], rows[1])).logits[0, -5:], atol=1e-5
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
    with engine.using(replace(engine.FAST, vision_features=False)):
        assert torch.allclose(answer_logits(session.model, batch)[0], fast, atol=1e-6)
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
    monkeypatch.setattr(features, "MEMORY", 1)
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
        with engine.using(replace(engine.FAST, vision_features=False)):
            plain = answer_logits(session.model, batch)[0]
    assert len(calls) == 3
    assert torch.allclose(fast, plain, atol=1e-2)


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
    assert by_length(lengths) == groups


def test_split_batches_give_the_same_logits(tmp_path, monkeypatch):
    monkeypatch.setattr("unsee.batching.WORTH_SPLITTING", 1)
    session = lora(tmp_path)
    mixed = [target for pair in zip(retain_targets(session), forget_targets(session), strict=False) for target in pair]
    batch = collate(session, mixed)
    assert len(batch.parts) > 1
    logits_bav, labels_ba = answer_logits(session.model, batch)
    with engine.using("plain"):
        plain_bav, plain_ba = answer_logits(session.model, batch)
    assert torch.equal(labels_ba, plain_ba)
    seen_ba = labels_ba != -100
    assert torch.allclose(logits_bav[seen_ba], plain_bav[seen_ba], atol=1e-5)


def test_features_are_shared_by_runs(tmp_path, monkeypatch):
    first = lora(tmp_path / "a")
    targets = forget_targets(first)[:4]
    with features.shared(first):
        said = answer_logits(first.model, collate(first, targets))[0]
    assert len(list((tmp_path / "cache" / "features").glob("*/*.safetensors"))) == 1
    second = lora(tmp_path / "b", rank=2)
    calls = vision_calls(second, monkeypatch)
    with features.shared(second):
        assert torch.allclose(answer_logits(second.model, collate(second, targets))[0], said, atol=1e-6)
        assert not calls
        answer_logits(second.model, collate(second, forget_targets(second)))
    assert len(calls) == 1
    assert len(list((tmp_path / "cache" / "features").glob("*/*.safetensors"))) == 2
    changed = lora(tmp_path / "c")
    with torch.no_grad():
        changed.model.get_base_model().model.vision_tower.embeddings.patch_embedding.weight.mul_(2)
    calls = vision_calls(changed, monkeypatch)
    with features.shared(changed):
        answer_logits(changed.model, collate(changed, targets))
    assert len(calls) == 1
