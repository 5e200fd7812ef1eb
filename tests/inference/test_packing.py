"""Questions about one image in one row: every number is that of separate rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.families import Picture, family, model_of, processor_of
from unsee.api import Training
from unsee.api.fast_paths import FAST
from unsee.api.request import Target
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate
from unsee.inference.packing import pack, packable, saving
from unsee.losses import answer_nll
from unsee.models.positions import positions
from unsee.testing.tiny import tiny_session
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainable import trainable
from unsee.training.trainer import prepare

APART = replace(FAST, shared_prefix=False)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr("unsee.inference.batching.WORTH_SPLITTING", 1)


def session_at(out, image_tokens=16, **more):
    training = Training(**more)
    session = tiny_session(out, training=training, image_tokens=image_tokens)
    session.model = prepare(session.model, session.family, training, session.seed)
    with torch.no_grad():
        for weight in trainable(session.model).values():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    return session


def several_questions(session):
    """Every forget image with its own question, another one, the same question with another answer, and text rows between."""
    targets = []
    for target in forget_targets(session)[:4]:
        other = replace(target.example, question="What does Cleo Marsh do?", id=f"{target.example.id}-other")
        targets += [target, Target(example=other, text="a baker"), replace(target, text="I cannot help with that .")]
    texts = [target for target in retain_targets(session) if target.example.image is None]
    return [targets[0], *texts[:1], *targets[3:], *targets[1:3]]


def forward_tokens(session, monkeypatch):
    seen = []
    forward = session.model.get_base_model().forward
    monkeypatch.setattr(
        session.model.get_base_model(),
        "forward",
        lambda *a, **k: seen.append(k["input_ids"].numel()) or forward(*a, **k),
    )
    return seen


@pytest.mark.parametrize("image_tokens", [1, 16])
@pytest.mark.parametrize("split", [True, False])
def test_same_logits_and_labels(tmp_path, image_tokens, split, monkeypatch):
    session = session_at(tmp_path, image_tokens)
    batch = collate(session, several_questions(session))
    seen = forward_tokens(session, monkeypatch)
    logits, labels = answer_logits(session.model, replace(batch, engine=replace(FAST, split_batches=split)))
    packed = sum(seen)
    apart = replace(batch, engine=replace(APART, split_batches=False))
    expected, expected_labels = answer_logits(session.model, apart)
    assert torch.equal(labels, expected_labels)
    mask = labels != -100
    assert torch.allclose(logits[mask], expected[mask], atol=1e-5)
    assert packed < sum(seen) - packed


def test_same_gradients(tmp_path):
    session = session_at(tmp_path, parts=("vision", "projector", "language"))
    batch = collate(session, several_questions(session))
    grads = []
    for engine in (FAST, APART):
        session.model.zero_grad()
        answer_nll(*answer_logits(session.model, replace(batch, engine=engine))).backward()
        grads.append({name: weight.grad.clone() for name, weight in trainable(session.model).items()})
    for name, grad in grads[0].items():
        assert torch.allclose(grad, grads[1][name], atol=1e-6, rtol=1e-3), name
    assert any(grad.abs().max() > 1e-4 for grad in grads[0].values())


def test_a_row_alone_or_with_own_token_types_is_left_as_it_is(tmp_path):
    session = session_at(tmp_path)
    token = packable(session.model)
    rows = collate(session, forget_targets(session)[:2]).rows
    assert saving(rows, ["a", "b"], token) == 0
    assert saving(rows, ["a", "a"], token) >= 16
    assert saving(rows, ["", ""], token) == 0
    typed = [{**row, "token_type_ids": torch.zeros_like(row["input_ids"])} for row in rows]
    assert saving(typed, ["a", "a"], token) == 0


def test_an_image_at_the_end_of_the_question_is_not_shared(tmp_path):
    session = session_at(tmp_path)
    token = packable(session.model)
    rows = [dict(row) for row in collate(session, forget_targets(session)[:2]).rows]
    for row, word in zip(rows, (5, 6), strict=True):
        row["input_ids"] = row["input_ids"].clone()
        row["input_ids"][0, 0] = word
    assert saving(rows, ["a", "a"], token) == 0


def test_no_rest_sees_another(tmp_path):
    session = session_at(tmp_path)
    targets = several_questions(session)[:1] * 2
    packed = pack(collate(session, targets).rows, ["a", "a"], packable(session.model), 0)
    mask = packed.inputs["attention_mask"][0, 0]
    answer = int((packed.labels_ra[0] != -100).sum())
    assert not mask[-answer:, -2 * answer : -answer].any()
    assert torch.equal(mask[-answer:, -answer:], torch.ones(answer, answer).tril().bool())
    assert mask[-answer:, : -2 * answer].all()


@pytest.mark.parametrize(
    "change",
    [
        {"sliding_window": 8},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"_attn_implementation": "eager"},
    ],
)
def test_other_attention_is_left_alone(tmp_path, change):
    session = session_at(tmp_path)
    text = session.model.get_base_model().config.get_text_config()
    assert packable(session.model) is not None
    for name, value in change.items():
        setattr(text, name, value)
    assert packable(session.model) is None


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"])
@pytest.mark.parametrize("size", [(16, 16), (32, 16), (16, 48), (40, 24)])
def test_three_dimensional_positions_are_the_models_own(name, size):
    model, processor, kind = model_of(name), processor_of(name), family(name)
    picture = Picture("red", 0, *size).load()
    prompts = [kind.prompt(processor, "Who is this?", has_image=image is not None) for image in (picture, None)]
    row = kind.extend(kind.encode(processor, prompts[:1], [picture]), (40, 41, 42))
    own, _ = model.model.get_rope_index(
        **{key: row[key] for key in ("input_ids", "image_grid_thw", "mm_token_type_ids")}
    )
    assert torch.equal(positions(row), own[:, 0])
    bare = kind.encode(processor, prompts[1:], [None])
    assert torch.equal(positions(bare), torch.arange(bare["input_ids"].shape[1])[None])


def test_models_with_other_three_dimensional_positions_are_left_alone():
    model = model_of("qwen2_5_vl")
    assert packable(model) is not None
    model.config.model_type = "some_other"
    assert packable(model) is None


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_whose_angles_depend_on_the_longest_row_are_left_alone(kind):
    """What they say about a row depends on what lies in its batch, and `dynamic` also on what came before."""
    model = model_of("internvl")
    assert packable(model) is not None
    model.config.get_text_config().rope_parameters["rope_type"] = kind
    assert packable(model) is None
