"""Steering: the mathematics, the gate, and that every way of decoding is steered alike."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from helpers.steering import WIDTH, artefact, directions, unit
from unsee.api.fast_paths import FAST, PLAIN
from unsee.api.request import Prompt
from unsee.errors import UserError
from unsee.inference.generation import generate
from unsee.models.checkpoint import open_model, save_model
from unsee.models.steering import hooks
from unsee.models.steering.artifact import Artefact, Frame, fires, load, save, steer
from unsee.models.steering.geometry import (
    aside,
    balanced_threshold,
    karcher_mean,
    oriented,
    outside,
    rank_for,
    share_inside,
    subspace,
    zscore,
)
from unsee.testing.tiny import Drawn, tiny_model, tiny_processor, tiny_session, tiny_vlm
from unsee.training.trainer import prepare

CPU = torch.device("cpu")


REQUESTS = [
    Prompt(question, image)
    for image in (Drawn("red"), Drawn("blue"), None)
    for question in ("Who is this?", "Tell me the information of this person.", "What does Cleo Marsh do?")
]


def said(model, requests=REQUESTS, engine=FAST, **more):
    return generate(replace(tiny_vlm(), model=model, engine=engine), requests, max_new_tokens=12, **more)


def steered(**rule):
    model = tiny_model()
    hooks.attach(model, artefact(**rule))
    return model


# --- mathematics (R-MUSE, arXiv 2512.17911) ---


def test_projection_is_idempotent_and_the_protected_direction_stays_outside():
    one = directions()
    inside = one.rrs @ one.rrs.T
    assert torch.allclose(inside @ inside, inside, atol=1e-6)
    assert torch.allclose(inside, inside.T, atol=1e-6)
    frame = Frame.of(one, artefact().rule, CPU)
    direction = frame.pair_2dp[0][:, 0]
    assert torch.allclose(outside(direction, one.rrs), direction, atol=1e-5)
    assert direction.norm() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("update", ["slerp", "additive"])
def test_norms_are_kept(update):
    rule = artefact(update=update, strength=3.0).rule
    states = torch.randn(4, 7, WIDTH) * torch.logspace(-2, 2, 7)[:, None]
    new, _ = steer(states, Frame.of(directions(), rule, CPU), torch.tensor([0, 1, 1, 0]), rule)
    assert torch.allclose(new.norm(dim=-1), states.norm(dim=-1), rtol=1e-4)
    assert not torch.allclose(new, states)


def test_a_state_opposite_to_the_direction_keeps_its_norm():
    rule = artefact(max_rotation_deg=180.0).rule
    frame = Frame.of(directions(), rule, CPU)
    states = -3 * frame.pair_2dp[0][:, 0].expand(1, 1, -1)
    new, _ = steer(states, frame, 0, rule)
    assert new.norm() == pytest.approx(3, rel=1e-4)


def test_rotation_is_none_at_the_target_and_never_past_the_direction():
    rule = artefact(max_rotation_deg=180.0).rule
    frame = Frame.of(directions(), rule, CPU)
    target = frame.pair_2dp[0][:, 1].expand(1, 1, -1)
    new, angle = steer(2 * target, frame, 0, rule)
    assert angle.item() < 2e-3
    assert torch.allclose(new, 2 * target, atol=1e-2)
    states = torch.randn(1, 200, WIDTH)
    _, angle = steer(states, frame, 0, rule)
    away = (normalize(states, dim=-1) @ frame.pair_2dp[0][:, :1]).acos()
    assert (angle <= away + 2e-3).all()


def test_rotation_limit_is_kept():
    rule = artefact(max_rotation_deg=20.0).rule
    states = torch.randn(1, 50, WIDTH)
    new, angle = steer(states, Frame.of(directions(), rule, CPU), 1, rule)
    turned_by = (normalize(states, dim=-1) * normalize(new, dim=-1)).sum(-1).clamp(-1, 1).acos()
    assert torch.allclose(turned_by, angle[..., 0], atol=1e-3)
    assert math.degrees(float(angle.max())) == pytest.approx(20, abs=1e-3)


def test_aside_is_orthogonal():
    start = unit(6, 8)
    assert torch.allclose((aside(start) * start).sum(-1), torch.zeros(6), atol=1e-6)


def test_karcher_mean_of_symmetric_points_is_the_pole():
    angles = torch.tensor([0.0, 2.0, 4.0]) * math.pi / 3
    points = torch.stack([angles.cos() * 0.8, angles.sin() * 0.8, torch.full((3,), 0.6)], dim=1)
    assert torch.allclose(karcher_mean(points), torch.tensor([0.0, 0.0, 1.0]), atol=1e-5)


def test_energy_rule():
    singular = torch.tensor([4.0, 2.0, 1.0])
    assert [rank_for(singular, eta) for eta in (0.76, 0.8, 1.0)] == [1, 2, 3]
    shifts = torch.diag(torch.tensor([4.0, 2.0, 1.0]))
    assert subspace(shifts, 0.8, 64).shape == (3, 2)
    assert subspace(shifts, 1.0, 1).shape == (3, 1)
    with pytest.raises(UserError, match="no direction"):
        subspace(torch.zeros(4, 3), 0.8, 64)


def test_only_the_centred_zscore_has_no_mean():
    shifts = torch.randn(20, 5) + 3
    assert zscore(shifts, "center_and_scale").mean(0).abs().max() < 1e-5
    assert zscore(shifts, "scale_only").mean(0).min() > 0.5
    assert torch.isfinite(zscore(torch.zeros(3, 2), "scale_only")).all()


def test_the_sign_of_an_svd_does_not_matter():
    direction, shift = unit(9), unit(9, seed=1)
    assert torch.equal(oriented(direction, shift), oriented(-direction, shift))
    assert oriented(direction, shift) @ shift >= 0


def test_threshold_separates_by_either_sign():
    low, high = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.6, 0.7])
    tau, good = balanced_threshold(low, high, "below")
    assert 0.3 < tau < 0.6
    assert good == 1
    assert balanced_threshold(low, high, "above")[1] == 0.5
    assert balanced_threshold(high, low, "above")[1] == 1


def test_gate_signs():
    scores = torch.tensor([0.2, 0.9])
    assert fires(scores, "below", 0.5).tolist() == [True, False]
    assert fires(scores, "above", 0.5).tolist() == [False, True]
    assert fires(scores, "always", 0.5).all()
    assert not fires(scores, "off", 0.5).any()
    assert share_inside(torch.tensor([[3.0, 4.0]]), torch.eye(2)).item() == pytest.approx(1)


# --- on a model ---


def logits(model):
    ids = torch.tensor([[1, 40, 41, 42]])
    with torch.no_grad():
        first = model(input_ids=ids, use_cache=True)
        return model(input_ids=torch.tensor([[43]]), past_key_values=first.past_key_values, use_cache=True).logits


def test_gate_off_is_bit_identical_and_removing_restores():
    plain = logits(tiny_model())
    assert torch.equal(logits(steered(gate="off")), plain)
    model = steered()
    assert not torch.allclose(logits(model), plain)
    hooks.detach(model)
    assert torch.equal(logits(model), plain)
    assert hooks.steerings_of(model) == ()


@pytest.mark.parametrize("apply_to", ["generated", "last_prompt_and_generated"])
@pytest.mark.parametrize("gate", ["above", "always"])
def test_shared_prefixes_batches_and_single_runs_are_steered_alike(gate, apply_to):
    """Our loop with lanes and compaction, transformers' own, and one request at a time: the same answers."""
    rule = {"gate": gate, "tau": middle(), "apply_to": apply_to, "scoring_layer": 0}
    model = steered(**rule)
    together = [one.token_ids for one in said(model)]
    fired = hooks.steerings_of(model)[0].firing
    assert len(fired.scores) == len(REQUESTS)
    assert (fired.fired == len(REQUESTS)) == (gate == "always")
    assert fired.fired > 0
    assert [one.token_ids for one in said(model, engine=PLAIN)] == together
    assert [said(model, [one], PLAIN)[0].token_ids for one in REQUESTS] == together
    assert [one.token_ids for one in said(model, batch_size=2)] == together
    assert together != [one.token_ids for one in said(tiny_model())]


def middle():
    """Return a threshold that some of the requests pass."""
    model = steered(gate="above", tau=2.0, scoring_layer=0)
    said(model)
    scores = sorted(hooks.steerings_of(model)[0].firing.scores)
    return (scores[4] + scores[5]) / 2


def test_ungated_requests_say_what_they_said():
    plain = [one.token_ids for one in said(tiny_model())]
    model = steered(gate="above", tau=middle(), scoring_layer=0)
    mixed = [one.token_ids for one in said(model)]
    firing = hooks.steerings_of(model)[0].firing
    changed = sum(a != b for a, b in zip(mixed, plain, strict=True))
    assert 0 < changed <= firing.fired < len(REQUESTS)
    summary = firing.summary()
    assert summary["firing_rate"] == pytest.approx(firing.fired / len(REQUESTS))
    assert set(summary["mean_rotation_deg"]) == {"0", "1"}
    json.dumps(summary)


def test_text_and_image_requests_have_their_own_directions():
    """A batch with both: each is steered as in a batch of its own kind."""
    one = replace(directions(seed=10), v_text=directions(seed=90).v_text)
    plain = artefact()
    changed = replace(plain, directions={**plain.directions, 0: one})
    answers = []
    for steers in (plain, changed):
        model = tiny_model()
        hooks.attach(model, steers)
        answers.append([answer.token_ids for answer in said(model)])
    assert answers[0][:6] == answers[1][:6]
    assert answers[0][6:] != answers[1][6:]


@pytest.mark.parametrize("update", ["slerp", "additive"])
def test_all_tokens_can_be_steered_only_without_a_gate(update):
    with pytest.raises(UserError, match="gate=always"):
        artefact(apply_to="all", gate="below")
    model = steered(apply_to="all", update=update)
    assert not model.get_input_embeddings().weight[0].any()  # padding, which is steered too
    together = [one.token_ids for one in said(model)]
    assert [one.token_ids for one in said(model, engine=PLAIN)] == together


def test_a_direction_inside_the_reasoning_subspace_is_not_used():
    one = directions(seed=10)
    inside = replace(one, v_mm=one.rrs[:, 0].contiguous())
    model = tiny_model()
    found = hooks.attach(model, Artefact(rule=artefact(layers=(0,)).rule, directions={0: inside, 1: directions()}))
    assert found.skipped_layers == [0]
    plain = [answer.token_ids for answer in said(tiny_model())]
    mixed = [answer.token_ids for answer in said(model)]
    assert mixed[:6] == plain[:6]
    assert mixed[6:] != plain[6:]


def test_saved_and_loaded_again(tmp_path):
    model = steered(gate="above", tau=middle(), scoring_layer=0)
    save_model(model, tiny_processor(), tmp_path)
    assert {"rmuse.safetensors", "rmuse.json"} <= {file.name for file in tmp_path.iterdir()}
    opened = open_model(tmp_path)
    assert [one.token_ids for one in said(opened.model)] == [one.token_ids for one in said(model)]
    assert hooks.hashes(opened.model) == hooks.hashes(model) != []


def test_adapters_are_merged_and_steering_comes_once(tmp_path):
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_processor().save_pretrained(tmp_path / "base")
    session = tiny_session(tmp_path)
    model = prepare(session.model, session.family, session.training, 0)
    hooks.attach(model, artefact())
    save_model(model, tiny_processor(), tmp_path / "one", base=tmp_path / "base")
    opened = open_model(tmp_path / "one")
    assert len(hooks.steerings_of(opened.model)) == 1
    hooks.attach(opened.model, artefact(max_rotation_deg=10.0))
    again = prepare(opened.model, session.family, session.training, 0)
    save_model(again, tiny_processor(), tmp_path / "two", base=tmp_path / "one")
    assert (tmp_path / "two" / "rmuse-2.json").exists()
    twice = open_model(tmp_path / "two")
    assert hooks.hashes(twice.model) == hooks.hashes(again)
    assert len(hooks.hashes(twice.model)) == 2


def test_a_mixed_up_artefact_is_refused(tmp_path):
    save(artefact(), tmp_path)
    facts = json.loads((tmp_path / "rmuse.json").read_text())
    facts["rule"]["tau"] = 0.1
    (tmp_path / "rmuse.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="does not belong"):
        load(tmp_path)
    (tmp_path / "rmuse.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="no steering artefact"):
        load(tmp_path)


def test_an_artefact_of_another_model_is_refused():
    wide = Artefact(rule=artefact().rule, directions={0: directions(64), 1: directions(64)})
    with pytest.raises(UserError, match="width 64"):
        hooks.attach(tiny_model(), wide)
    with pytest.raises(UserError, match="at least 8 layers"):
        hooks.attach(tiny_model(), replace(artefact(), rule=artefact(layers=(7,)).rule))


def test_the_weights_of_a_steered_model_do_not_vouch_for_its_answers(tmp_path):
    """docs/defects.md 66: an answer kept for the unsteered model is not used for the steered one."""
    from unsee.evaluation.answers import HFBackend
    from unsee.methods.common.reference_model import weights_hash

    session = tiny_session(tmp_path)
    before = weights_hash(session)
    save_model(session.model, session.processor, tmp_path / "m")
    plain = HFBackend(open_model(tmp_path / "m")).weights
    hooks.attach(session.model, artefact())
    assert weights_hash(session) != before
    save_model(session.model, session.processor, tmp_path / "s")
    assert HFBackend(open_model(tmp_path / "s")).weights != plain


def test_vllm_refuses_a_steered_model(tmp_path):
    from unsee.inference import vllm

    save(artefact(), tmp_path)
    with pytest.raises(UserError, match="use backend='hf'"), vllm._merged_folder(str(tmp_path)):
        pass
