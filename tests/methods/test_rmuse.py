"""R-MUSE: what it computes, what it hands over, and that a run folder carries it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unsee import evaluate, forget
from unsee import load as opened
from unsee.api import Role
from unsee.api.request import Prompt, Target
from unsee.config import build
from unsee.errors import UserError
from unsee.inference.batching import collate
from unsee.inference.generation import generate
from unsee.methods.rmuse.hidden_states import PROMPT_END, ForcedAnswer, span_means
from unsee.methods.rmuse.method import GUIDE, IDEAL, RMuse, _layers, _Statistics
from unsee.metrics.refusal import refusal
from unsee.models.steering import hooks
from unsee.models.steering.artifact import load
from unsee.models.steering.geometry import share_inside, subspace
from unsee.recipes.rmuse import ABLATIONS, rmuse
from unsee.testing.tiny import person, save_tiny, tiny_session
from unsee.utils.seeds import seed_of


def session_at(out, **roles):
    session = tiny_session(out)
    session.examples = {**session.examples, **roles}
    return session


def steered(out, **settings):
    session = session_at(out)
    RMuse(**settings).unlearn(session)
    return session, hooks.steerings_of(session.model)[0]


def test_span_means_are_the_states_of_the_span(tmp_path):
    """Against the model's own hidden states, for rows of different length in one batch."""
    session = session_at(tmp_path)
    asked = [session.of(Role.FORGET)[0], session.of(Role.RETAIN_TEXT)[0]]
    ids = [(40, 41, 42, 43), (50, 51)]
    texts = [
        ForcedAnswer(Target(example=one, token_ids=said, ended=False), (PROMPT_END, (0, 2), (1, 2)))
        for one, said in zip(asked, ids, strict=True)
    ]
    found = span_means(session, texts, [0, 1])
    for text, means in zip(texts, found, strict=True):
        batch = collate(session, [text.target])
        with torch.no_grad():
            states = session.model(**batch.inputs, output_hidden_states=True).hidden_states[1][0]
        start = len(states) - len(text.target.token_ids)
        wanted = torch.stack([states[start - 1], states[start : start + 2].mean(0), states[start + 1]])
        assert torch.allclose(means[:, 0], wanted, atol=1e-5)


def test_the_middle_third_is_steered():
    assert _layers(RMuse(), range(32)) == (tuple(range(11, 22)), 16)
    assert _layers(RMuse(), range(28)) == (tuple(range(10, 19)), 14)
    assert _layers(RMuse(layers=(3, 1), scoring_layer=0), range(4)) == ((1, 3), 0)
    with pytest.raises(UserError, match="decoder layers 0 to 3"):
        _layers(RMuse(layers=(9,)), range(4))


def test_cross_attention_layers_are_never_steered():
    able = [layer for layer in range(40) if layer % 5 != 3]
    steered, scoring = _layers(RMuse(), able)
    assert set(steered) == set(range(14, 27)) - {18, 23}
    assert scoring in steered
    with pytest.raises(UserError, match="that every request goes through"):
        _layers(RMuse(layers=(18,)), able)


def test_faithful_defaults_are_the_formulas(tmp_path):
    session, found = steered(tmp_path)
    rule = found.rule
    assert (rule.gate, rule.score, rule.update, rule.max_rotation_deg) == ("below", "reasoning", "slerp", 180.0)
    assert 0.6 <= rule.tau <= 0.9
    assert found.artefact.facts["settings"]["mode"] == "faithful"
    assert session.notes["steps"] == session.notes["trainable"] == 0


@pytest.mark.parametrize(("gate", "sign"), [("below", -1), ("above", 1)])
def test_a_margin_makes_a_calibrated_gate_stricter(gate, sign, tmp_path):
    session, found = steered(tmp_path, mode="safe", gate=gate, tau_margin=0.1)
    calibrated = session.notes["rmuse"]["calibration"][gate]["tau"]
    assert found.rule.tau == pytest.approx(calibrated + sign * 0.1)


def test_safe_mode_limits_rotation_and_calibrates_the_gate(tmp_path):
    session, found = steered(tmp_path, mode="safe")
    assert found.rule.max_rotation_deg == 30.0
    notes = session.notes["rmuse"]
    tried = notes["calibration"]
    best = max(tried, key=lambda sign: tried[sign]["balanced_accuracy"])
    assert tried[best]["balanced_accuracy"] >= 0.5
    assert found.rule.tau == pytest.approx(tried[found.rule.gate]["tau"])
    assert tried[found.rule.gate]["balanced_accuracy"] == tried[best]["balanced_accuracy"]
    assert set(notes["firing"]) == {"forget", "retain"}
    assert notes["firing"]["forget"]["n"] == 2 * notes["forget_samples"]
    json.dumps(notes)


def test_directions_point_from_the_private_answer_to_refusal(tmp_path):
    """Step 2 of docs/published.md: the orientation is that of the mean shift of answer and chain."""
    session = session_at(tmp_path)
    found = _Statistics(RMuse(zscore="scale_only"), session)
    pairs = found._forget_pairs()
    directions = found.artefact().directions[1]
    shift = torch.stack([pair.answer[0] + pair.chain[0] for pair in pairs]).mean(0)
    assert directions.v_mm @ shift >= 0
    assert torch.allclose(directions.rrs.T @ directions.rrs, torch.eye(directions.rrs.shape[1]), atol=1e-5)


def test_shifts_lead_from_what_is_to_go_to_what_is_to_come(tmp_path):
    """Steps 1 and 3 of docs/published.md: refusal minus answer, rationale minus chain; on retain data reasoning minus the direct answer."""
    session = session_at(tmp_path)
    found = _Statistics(RMuse(), session)

    def mean(example, question, text, instruction, lead=""):
        ids = (*found._ids(lead), *found._ids(text)) if lead else found._ids(text)
        asked = replace(example, question=question)
        target = Target(example=asked, token_ids=ids, ended=False, instruction=instruction)
        return span_means(
            session, [ForcedAnswer(target, ((len(found._ids(lead)) if lead else 0, len(ids)),))], found.layers
        )[0][0]

    pair = found._forget_pairs()[0]
    example, question, chain = next(found._chains([pair.example]))
    rationale, answer = IDEAL[seed_of(0, "ideal", example.id) % len(IDEAL)]
    ideal = mean(example, example.question, f" Answer: {answer}", GUIDE, f"Reasoning: {rationale}")
    assert torch.allclose(pair.ideal, ideal, atol=1e-4)
    assert torch.allclose(pair.answer, ideal - mean(example, example.question, example.answer, ""), atol=1e-4)
    reason = mean(example, example.question, f"Reasoning: {rationale}", GUIDE)
    assert torch.allclose(pair.chain, reason - mean(example, question, chain, ""), atol=1e-4)
    kept = found._retain_pairs()[0][0]
    example, _, chain = next(found._chains([kept.example]))
    told, traced = (mean(example, example.question, text, GUIDE) for text in (example.answer, chain))
    assert torch.allclose(kept.answer, traced - told, atol=1e-4)


def test_examples_without_an_answer_are_left_out_and_counted(tmp_path):
    session = session_at(tmp_path)
    sides = {role: list(session.of(role)) for role in (Role.FORGET, Role.RETAIN)}
    for examples in sides.values():
        examples[0] = replace(examples[0], answer="Reasoning: It is in the archive. Answer:")
    session.examples = {**session.examples, **sides}
    found = _Statistics(RMuse(), session)
    forget, (retain, calibration) = found._forget_pairs(), found._retain_pairs()
    used = {pair.example.id for pair in (*forget, *retain, *calibration)}
    assert used.isdisjoint(examples[0].id for examples in sides.values())
    assert found.notes["forget_without_answer"] == found.notes["retain_without_answer"] == 1
    assert found.notes["forget_without_chain"] == 0


def test_a_single_retained_person_serves_as_both_sides_and_the_record_says_so(tmp_path):
    session = session_at(tmp_path)
    found = _Statistics(RMuse(), session)
    kept, calibrating = found._retain_pairs()
    assert found.notes["calibration_held_out"] is True
    assert [len(kept), len(calibrating)] == [found.notes["retain_samples"], found.notes["calibration_samples"]]
    alone = [example for example in session.of(Role.RETAIN) if example.entity == "cleo"]
    session.examples = {**session.examples, Role.RETAIN: alone, Role.RETAIN_TEXT: []}
    kept, calibrating = found._retain_pairs()
    assert found.notes["calibration_held_out"] is False
    assert len(kept) == len(calibrating) == len(alone)
    assert (found.notes["retain_samples"], found.notes["calibration_samples"]) == (len(alone), len(alone))


def test_questions_by_name_are_steered_as_the_promise_of_the_person_says(tmp_path):
    session, found = steered(tmp_path, gate="always")
    generate(session.vlm, [Prompt("What does Ada Lovell do?")], max_new_tokens=2)
    assert found.firing.fired == 1
    assert all(degrees[0] > 1 for degrees in found.firing.degrees.values())
    assert RMuse.promise == "person"


def test_the_sign_of_a_decomposition_means_nothing(tmp_path, monkeypatch):
    found = _Statistics(RMuse(zscore="scale_only"), session_at(tmp_path))
    pairs = found._forget_pairs()
    _, one, _ = found._unlearning(pairs, 0)
    monkeypatch.setattr("unsee.methods.rmuse.method.subspace", lambda *given: -subspace(*given))
    _, other, _ = found._unlearning(pairs, 0)
    assert torch.equal(one, other)


def test_questions_with_and_without_an_image_have_directions_of_their_own(tmp_path):
    text = replace(person("ada", Role.FORGET_TEXT), id="text", image=None, question="What does Ada Lovell do?")
    other = replace(text, id="text-2", question="Where does Ada Lovell live?", answer="Lisbon")
    session = session_at(tmp_path, **{Role.FORGET_TEXT: [text, other]})
    found = _Statistics(RMuse(zscore="scale_only"), session)
    forget, (retain, _) = found._forget_pairs(), found._retain_pairs()
    directions = found._directions(forget, retain, 0)
    for pictured, v, mu in ((True, directions.v_mm, directions.mu_mm), (False, directions.v_text, directions.mu_text)):
        pairs = [pair for pair in forget if (pair.example.image is not None) == pictured]
        _, wanted, ideal = found._unlearning(pairs, 0)
        assert torch.allclose(v, wanted)
        assert torch.allclose(mu, ideal)
    assert not torch.allclose(directions.v_mm, directions.v_text, atol=1e-3)


def test_without_the_reasoning_span_another_direction_is_found(tmp_path):
    _, both = steered(tmp_path / "a", zscore="scale_only")
    _, alone = steered(tmp_path / "b", zscore="scale_only", reasoning=False)
    assert not torch.allclose(both.artefact.directions[1].v_mm, alone.artefact.directions[1].v_mm, atol=1e-3)


def test_two_runs_give_one_artefact_and_another_seed_another(tmp_path):
    hashes = []
    for number, seed in enumerate((0, 0, 1)):
        session = session_at(tmp_path / str(number))
        session.seed = seed
        RMuse().unlearn(session)
        hashes += hooks.hashes(session.model)
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_gate_asks_what_the_formula_says(tmp_path):
    """The score logged while answering is |P h| / |h| of the last prompt token at the scoring layer."""
    session, found = steered(tmp_path)
    one = session.of(Role.FORGET)[0]
    generate(session.vlm, [Prompt.of(one)], max_new_tokens=2)
    text = ForcedAnswer(Target(example=one, token_ids=(40,), ended=False), (PROMPT_END,))
    end = span_means(session, [text], [found.rule.scoring_layer])[0][0, 0]
    wanted = share_inside(end, found.artefact.directions[found.rule.scoring_layer].rrs)
    assert found.firing.scores == pytest.approx([float(wanted)], abs=1e-5)


def test_contrast_tells_forget_from_retain(tmp_path):
    session, found = steered(tmp_path, score="contrast", calibration_share=0.0)
    assert session.notes["rmuse"]["calibration"]["above"]["balanced_accuracy"] > 0.9
    assert found.rule.gate == "above"
    firing = session.notes["rmuse"]["firing"]
    assert firing["forget"]["firing_rate"] > 0.8
    assert firing["retain"]["firing_rate"] < 0.2


def test_the_guide_can_stand_before_every_question(tmp_path):
    session, _ = steered(tmp_path, guide_at_inference=True)
    assert session.instruction == GUIDE
    RMuse(guide_at_inference=True).unlearn(session)  # a second request
    assert session.instruction == GUIDE
    session, _ = steered(tmp_path / "b")
    assert session.instruction == ""


def test_ideal_refusals_are_refusals():
    assert all(refusal(answer) == "full" for _, answer in IDEAL)
    assert len(set(IDEAL)) == 8


def test_missing_roles_are_named(tmp_path):
    nothing = session_at(tmp_path)
    nothing.examples = {Role.RETAIN: nothing.of(Role.RETAIN)}
    with pytest.raises(UserError, match="nothing to forget"):
        RMuse().unlearn(nothing)
    alone = session_at(tmp_path)
    alone.examples = {Role.FORGET: alone.of(Role.FORGET)}
    with pytest.raises(UserError, match="no retain"):
        RMuse().unlearn(alone)


def test_weights_stay(tmp_path):
    session = session_at(tmp_path)
    before = {name: value.clone() for name, value in session.model.state_dict().items()}
    RMuse().unlearn(session)
    assert all(torch.equal(before[name], value) for name, value in session.model.state_dict().items())


def test_a_second_request_acts_beside_the_first(tmp_path):
    session, first = steered(tmp_path)
    RMuse(mode="safe").unlearn(session)
    assert hooks.hashes(session.model)[0] == first.artefact.hash
    assert len(hooks.steerings_of(session.model)) == 2
    hooks.save_all(session.model, tmp_path / "m")
    assert load(tmp_path / "m", "rmuse-2").rule.max_rotation_deg == 30.0


@pytest.mark.parametrize("ablation", sorted(ABLATIONS))
def test_the_recipe_is_a_run_of_the_method(ablation):
    run = rmuse(model="m", data="d", out="o", ablation=ablation)
    made = build(RMuse, run.settings, where="method rmuse")
    assert (made.mode, made.tau, made.energy) == ("faithful", 0.75, 0.8)
    assert (made == RMuse(tau=0.75)) == (ablation == "full")


def test_a_run_folder_carries_the_steering(tmp_path):
    """forget writes the artefact beside the model, load attaches it, eval logs the gate, and the card warns other programs' users."""
    data = Path(__file__).parents[2] / "examples" / "own_folder"
    start, out = save_tiny(tmp_path / "tiny"), tmp_path / "runs" / "rmuse"
    forget(start, data, "rmuse", out, settings={"gate": "always"}, training={"max_new_tokens": 4})
    assert {"rmuse.json", "rmuse.safetensors"} <= {file.name for file in (out / "model").iterdir()}
    assert "open it with unsee" in (out / "model" / "README.md").read_text()
    assert len(hooks.steerings_of(opened(out).model)) == 1
    evaluate(out, data, out, max_new_tokens=4, likelihood=True, progress=False)
    noted = json.loads((out / "steering.json").read_text())
    assert noted[0]["firing_rate"] == 1.0
    assert noted[0]["requests"] > 0
    assert not any("logprob" in name or "answer_prob" in name for name in json.loads((out / "scores.json").read_text()))
