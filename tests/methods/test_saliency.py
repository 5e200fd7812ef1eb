"""D = F_T - gamma F_P against gradients taken one by one with autograd, in fp64 where signs are compared."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unsee.api import Example, Kind, Role, Training
from unsee.api.request import Target
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate
from unsee.losses import answer_nll
from unsee.methods.mmunlearner.masks import agreement, load_mask, unpack
from unsee.methods.mmunlearner.saliency import (
    Sweep,
    _content,
    _loss,
    accumulate,
    maskable,
    preserve_targets,
    saliency_mask,
    saliency_targets,
)
from unsee.models.auto import eos_id
from unsee.testing.tiny import Drawn, tiny_session
from unsee.training.trainable import prepare

ALL = ("vision", "projector", "language")


def session_at(out, parts=ALL, **settings):
    training = Training(tune="full", parts=parts, stop="never", lr=1e-3, max_steps=2, **settings)
    session = tiny_session(out, training=training)
    session.model = prepare(session.model, session.family, training, 0)
    return session


def fisher(session, names, targets, size=1):
    """The plain way: every gradient of every batch, squared, averaged, in fp64."""
    weights = [session.model.get_parameter(name) for name in names]
    total = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    batches = [targets[i : i + size] for i in range(0, len(targets), size)]
    for batch in batches:
        loss = answer_nll(*answer_logits(session.model, collate(session, batch)))
        grads = torch.autograd.grad(loss, weights, allow_unused=True)
        for sum_, grad in zip(total, grads, strict=True):
            sum_.add_(0 if grad is None else grad.double() ** 2)
    return {name: sum_ / len(batches) for name, sum_ in zip(names, total, strict=True)}


def sides(session):
    sweep = Sweep()
    return saliency_targets(session, sweep), preserve_targets(session, sweep)


def test_the_mask_is_made_under_the_instruction_that_the_model_has(tmp_path):
    session = session_at(tmp_path)
    targets = saliency_targets(session, Sweep())[:2]
    plain, content = _loss(session, targets).item(), _content(session, targets)
    wanted = _loss(session, [replace(target, instruction="Hush.") for target in targets]).item()
    session.instruction = "Hush."
    assert _loss(session, targets).item() == wanted != plain
    assert _content(session, targets) != content


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_one_accumulator_equals_the_ratio_of_two_fishers(gamma, tmp_path):
    """The mask of D is that of F_T / F_P >= gamma in fp64, ties and vanishing weights left out."""
    session = session_at(tmp_path / "run")
    target, preserve = sides(session)
    parts = maskable(session)
    found = accumulate(session, parts, target, preserve, Sweep(gamma=gamma, tolerance=0)).difference
    seen = [t for t in preserve if t.example.image]
    compared = 0
    t_side, p_side, p_seen = (fisher(session, list(parts), side) for side in (target, preserve, seen))
    for name, part in parts.items():
        f_t, f_p = t_side[name], (p_side if part == "language" else p_seen)[name]
        torch.testing.assert_close(found[name].double(), f_t - gamma * f_p, rtol=1e-3, atol=float(f_t.max()) * 1e-5)
        clear = ((f_t - gamma * f_p).abs() > 1e-4 * (f_t + gamma * f_p)) & (f_t + f_p > 0)
        ratio = (f_t + 1e-30) / (f_p + 1e-30) >= gamma
        assert torch.equal((found[name] > 0)[clear], ratio[clear]), name
        compared += int(clear.sum())
    assert compared > 10_000


def test_batch_granularity_squares_the_batch_mean(tmp_path):
    session = session_at(tmp_path / "run")
    target, preserve = sides(session)
    name = next(name for name, part in maskable(session).items() if part == "language")
    sweep = Sweep(tolerance=0, granularity="batch", batch_size=2)
    found = accumulate(session, {name: "language"}, target, preserve, sweep).difference[name]
    seen, read = preserve[:4], preserve[4:]
    f_p = (2 * fisher(session, [name], seen, 2)[name] + fisher(session, [name], read, 2)[name]) / 3
    expected = fisher(session, [name], target, 2)[name] - f_p
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-8)


def test_accumulator_is_fp32_whatever_the_scale(tmp_path):
    """docs/defects.md 43: fp16 squares of gradients near 1e-5 vanish and keep nothing; the sweep's mask stays as it was."""
    session = session_at(tmp_path / "run")
    target, preserve = sides(session)
    parts = maskable(session)
    sweep = Sweep(tolerance=0)
    plain = accumulate(session, parts, target, preserve, sweep).difference
    gradient = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 1e-5
    assert not (gradient.half() ** 2 > 0).any()
    original = answer_nll
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unsee.methods.mmunlearner.saliency.answer_nll", lambda *given: original(*given) * 2**-13)
        small = accumulate(session, parts, target, preserve, sweep).difference
    kept = torch.cat([(total > 0).flatten() for total in plain.values()])
    again = torch.cat([(total > 0).flatten() for total in small.values()])
    assert all(total.dtype == torch.float32 for total in small.values())
    assert 0.2 < kept.float().mean() < 0.8
    assert (kept == again).float().mean() > 0.999


def test_gradients_are_never_all_held_at_once(tmp_path):
    session = session_at(tmp_path / "run")
    target, preserve = sides(session)
    parts = maskable(session)
    held = []
    taken = torch.Tensor.addcmul_

    def watch(self, *args, **kwargs):
        held.append(sum(weight.grad is not None for weight in session.model.parameters()))
        return taken(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "addcmul_", watch)
        accumulate(session, parts, target[:1], preserve[:1], Sweep(tolerance=0))
    assert len(held) >= len(parts)
    assert max(held) == 1
    assert all(weight.grad is None for weight in session.model.parameters())


def test_the_model_is_left_as_it_was(tmp_path):
    session = session_at(tmp_path / "run", parts=("language",))
    session.model.train()
    before = {name: weight.clone() for name, weight in session.model.state_dict().items()}
    asked = {name: weight.requires_grad for name, weight in session.model.named_parameters()}
    accumulate(session, maskable(session), *sides(session), Sweep())
    assert all(torch.equal(before[name], weight) for name, weight in session.model.state_dict().items())
    assert asked == {name: weight.requires_grad for name, weight in session.model.named_parameters()}
    assert session.model.training
    assert not any(weight._post_accumulate_grad_hooks for weight in session.model.parameters())


@pytest.mark.parametrize("parts", [("vision",), ("projector",), ("language",), ALL])
def test_what_gets_a_mask(parts, tmp_path):
    session = session_at(tmp_path / "run", parts=parts)
    found = maskable(session)
    assert set(found.values()) == set(parts)
    assert not [name for name in found if "norm" in name or "embed" in name or "lm_head" in name]
    assert all("weight" in name or "bias" in name for name in found)


def test_norms_embeddings_and_head_when_named(tmp_path):
    session = session_at(tmp_path / "run")
    named = maskable(session, also=("lm_head.weight", "language_model.norm.weight"))
    assert named.keys() - maskable(session).keys() == {"lm_head.weight", "model.language_model.norm.weight"}


def test_a_name_that_no_trained_weight_has_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"method\.also=nrom\.weight has no effect: no trainable weight in .*language has a name"
    ):
        maskable(session_at(tmp_path / "run"), also=("lm_head.weight", "nrom.weight"))


def test_untrained_parts_cannot_be_masked(tmp_path):
    with pytest.raises(UserError, match=r"No trainable weight lies in vision.*--parts vision"):
        maskable(session_at(tmp_path / "run", parts=("language",)), ("vision",))


def test_fresh_adapters_are_refused(tmp_path):
    """docs/defects.md 45."""
    session = tiny_session(tmp_path / "run")
    session.model = prepare(session.model, session.family, Training(), 0)
    with pytest.raises(UserError, match=r"LoRA adapters.*--tune full"):
        saliency_mask(session, Sweep())


@pytest.mark.parametrize("image_tokens", [1, 16])
def test_labels_are_answer_and_end(image_tokens, tmp_path):
    """docs/defects.md 3 to 5."""
    session = tiny_session(tmp_path / "run", image_tokens=image_tokens)
    target = saliency_targets(session, Sweep())[0]
    batch = collate(session, [target])
    labels = batch.labels_bt[0][batch.labels_bt[0] != -100].tolist()
    tokenizer = session.processor.tokenizer
    assert labels[-1] == eos_id(session.processor)
    assert tokenizer.decode(labels[:-1]).strip() == target.example.answer
    assert session.processor.image_token_id not in labels
    assert int((batch.inputs["input_ids"] == session.processor.image_token_id).sum()) == image_tokens


def many(count, role, entity, image=True):
    return [
        Example(
            id=f"{entity}{i}{role}",
            role=role,
            question="Who is this?",
            answer="Ada" if i % 2 else "Bo Winter",
            image=Drawn("red" if role is Role.FORGET else "blue", i % 12) if image else None,
            entity=f"{entity}{i % 3}",
            kind=Kind.NAME,
        )
        for i in range(count)
    ]


def test_sides_are_drawn_by_person_and_half_text(tmp_path):
    session = session_at(tmp_path / "run")
    session.examples = {
        Role.FORGET: many(9, Role.FORGET, "f"),
        Role.RETAIN: many(30, Role.RETAIN, "r"),
        Role.RETAIN_TEXT: many(30, Role.RETAIN_TEXT, "r", image=False),
        Role.FORGET_TEXT: many(6, Role.FORGET_TEXT, "f", image=False),
    }
    drawn = preserve_targets(session, Sweep(samples=24))
    assert sum(target.example.image is not None for target in drawn) == 12
    assert len(drawn) == 24
    text = [target.example.entity for target in drawn if target.example.image is None]
    assert {text.count(person) for person in set(text)} == {2}
    assert len(set(text)) == 6
    assert drawn == preserve_targets(session, Sweep(samples=24))
    assert drawn != preserve_targets(session, Sweep(samples=24, seed=1))
    assert len(saliency_targets(session, Sweep(samples=5))) == 5


def test_rounds_weigh_alike_and_the_sweep_stops_when_bits_stay(tmp_path):
    """Two equal halves flip (almost) nothing: the sweep ends after the second round with D of what was seen."""
    session = session_at(tmp_path / "run", parts=("language",))
    target = [Target(example=example) for example in many(1, Role.FORGET, "f")] * 8
    preserve = [Target(example=example) for example in many(1, Role.RETAIN, "r")] * 16
    parts = maskable(session)
    sweep = Sweep(every=4)
    found = accumulate(session, parts, target, preserve, sweep)
    assert found.used == {"target": 4, "preserve": 8}
    assert found.curve == [{"samples": 8, "flipped": pytest.approx(0, abs=0.005)}]
    whole = accumulate(session, parts, target, preserve, Sweep(tolerance=0))
    assert whole.used == {"target": 8, "preserve": 16}
    for name, total in whole.difference.items():
        torch.testing.assert_close(found.difference[name], total, rtol=1e-3, atol=float(total.abs().max()) * 1e-4)


def test_curve_of_flips(tmp_path):
    session = session_at(tmp_path / "run", parts=("language",))
    session.examples = {Role.FORGET: many(12, Role.FORGET, "f"), Role.RETAIN: many(12, Role.RETAIN, "r")}
    found = accumulate(session, maskable(session), *sides(session), Sweep(every=3, tolerance=1e-9))
    assert [row["samples"] for row in found.curve] == [6, 9, 12]
    assert all(0 < row["flipped"] < 1 for row in found.curve)
    assert found.used == {"target": 12, "preserve": 12}


def test_dead_weights_are_counted_and_not_kept(tmp_path):
    """The last vision layer feeds nothing when an earlier one is read: D = 0 there."""
    session = session_at(tmp_path / "run")
    session.model.config.vision_feature_layer = -2
    session.model.model.config.vision_feature_layer = -2
    mask = saliency_mask(session, Sweep())
    dead = {name for name, entry in mask.entries.items() if entry.dead == entry.size}
    assert dead
    assert all("vision" in name for name in dead)
    assert all(mask.entries[name].kept == 0 for name in dead)


def test_a_second_run_reads_the_file(tmp_path):
    session = session_at(tmp_path / "a")
    mask = saliency_mask(session, Sweep())
    files = list((tmp_path / "cache" / "masks").glob("*"))
    assert len(files) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unsee.methods.mmunlearner.saliency.accumulate", lambda *given: pytest.fail("made anew"))
        again = saliency_mask(session_at(tmp_path / "b"), Sweep())
    assert agreement(mask, again) == 1
    assert again.facts == load_mask(files[0], session.model, mask.facts["model_hash"]).facts
    for change in ({"gamma": 2.0}, {"seed": 1}, {"samples": 2}, {"granularity": "batch"}):
        saliency_mask(session, Sweep(**change))
    assert len(list((tmp_path / "cache" / "masks").glob("*"))) == 5


def test_another_model_or_other_data_make_another_mask(tmp_path):
    session = session_at(tmp_path / "a")
    first = saliency_mask(session, Sweep())
    session.examples = {**session.examples, Role.FORGET: session.examples[Role.FORGET][:4]}
    saliency_mask(session, Sweep())
    with torch.no_grad():
        session.model.get_parameter("lm_head.weight").mul_(1.1)
    third = saliency_mask(session, Sweep())
    assert len(list((tmp_path / "cache" / "masks").glob("*"))) == 3
    assert first.facts["model_hash"] != third.facts["model_hash"]


def test_same_seed_same_mask(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEE_CACHE", "off")
    one, other = (saliency_mask(session_at(tmp_path / name), Sweep()) for name in "ab")
    for name, entry in one.entries.items():
        assert torch.equal(unpack(entry.bits, entry.shape), unpack(other.entries[name].bits, entry.shape))
    assert (tmp_path / "a" / "work" / "masks").is_dir()


@pytest.mark.parametrize(("setting", "value"), [("gamma", 0), ("samples", 0), ("tolerance", 1.0), ("every", 0)])
def test_impossible_settings(setting, value):
    with pytest.raises(UserError, match=setting):
        Sweep(**{setting: value})


def test_nothing_to_compare(tmp_path):
    session = session_at(tmp_path / "run")
    session.examples = {Role.FORGET: session.examples[Role.FORGET]}
    with pytest.raises(UserError, match="needs retain, retain_text or forget_text"):
        saliency_mask(session, Sweep())
    session.examples = {Role.RETAIN: session.examples.get(Role.RETAIN, [])}
    with pytest.raises(UserError, match="forget examples with images"):
        saliency_mask(session, Sweep())
