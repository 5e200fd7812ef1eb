"""Defects of published unlearning code that no other test guards; docs/defects.md has the whole list."""

from __future__ import annotations

import ast
import inspect
import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.benchmarks import fixtures
from unsee import metrics
from unsee.api import Kind, Response, Role, Training, Vocabulary, registry
from unsee.api.request import Prompt
from unsee.benchmarks.lab import Lab
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.evaluation.likelihood_targets import texts
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.likelihood import likelihoods
from unsee.losses import npo_loss, per_sample, token_logprobs
from unsee.metrics.distance import js_divergence, ks_pvalue
from unsee.metrics.rouge import rouge_l
from unsee.metrics.truth_ratio import log_truth_ratio
from unsee.models.checkpoint import open_model, save_model
from unsee.scoring.aggregate import score
from unsee.scoring.measures import EXTRA, measures_of
from unsee.testing.tiny import save_tiny, tiny_session, tiny_vlm
from unsee.training.targets import forget_targets
from unsee.training.trainer import minimise, prepare

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs/defects.md").read_text(encoding="utf-8")


def answer(index, text, reference, kind=Kind.GENERAL, role=Role.GENERAL, **changes):
    fields = {"id": str(index), "stage": "x", "role": role, "kind": kind, "fact": "", "entity": str(index)}
    fields |= {"question": "What?", "answer": reference, "text": text, "tokens": 3, "ended": True, "image": "i.png"}
    return Response(**{**fields, **changes})


# the table itself


def test_every_row_of_the_table_is_there_once():
    rows = re.findall(r"^\| ([A-I])(\d+) \|", TABLE, flags=re.MULTILINE)
    numbers = [int(number) for _, number in rows]
    assert numbers == list(range(1, 89))
    last = {"A": 16, "B": 29, "C": 40, "D": 49, "E": 55, "F": 68, "G": 79, "H": 85, "I": 88}
    assert all(number <= last[letter] for letter, number in ((letter, int(number)) for letter, number in rows))


def test_every_test_that_the_table_names_exists():
    named = set(re.findall(r"`(test_\w+)\.(test_\w+)`", TABLE))
    assert len(named) > 60
    known = {}
    for file, name in named:
        if file not in known:
            tree = ast.parse(next((ROOT / "tests").rglob(f"{file}.py")).read_text(encoding="utf-8"))
            known[file] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in known[file], f"{file}.{name}"


# A. data and labels


def test_7_true_and_false_answers_go_one_way_whatever_their_case():
    """A false answer equal to the true one is exactly as probable; one of another case is another text."""
    example = replace(tiny_session(Path()).examples[Role.RETAIN_TEXT][0], answer="Bo Winter")
    example = replace(example, paraphrase="Bo Winter", perturbed=("Bo Winter", "bo winter"))
    asked = [(Prompt(example.question), text) for text in texts(example)]
    found = [one.mean for one in likelihoods(tiny_vlm(), asked)]
    assert found[0] == found[1] == found[2]
    assert found[3] != found[2]


@pytest.mark.parametrize("name", sorted({*fixtures()} - {"icu"}))  # there a row may say that it is on both sides
def test_10_no_choice_or_cloze_that_is_judged_is_trained_on(name, tmp_path):
    fixtures()[name].build(tmp_path)
    data = open_benchmark(tmp_path)

    def asked(split):
        tests = (Kind.CHOICE, Kind.CLOZE)
        rows = [example for example in data.examples(split) if split == "train" or example.kind in tests]
        return {(example.question, example.image.key if example.image else "") for example in rows}

    assert not asked("eval") & asked("train")


# B. losses


def test_18_npo_sees_the_label_and_the_normaliser_of_its_token_only():
    """Other logits may change places: their sum, and so the loss, stays."""
    torch.manual_seed(0)
    logits_btv, labels_bt = torch.randn(2, 3, 7), torch.tensor([[1, 2, 3], [-100, 4, 5]])
    mixed_btv = logits_btv.clone()
    for row in range(2):
        for place in range(3):
            others = [token for token in range(7) if token != labels_bt[row, place]]
            mixed_btv[row, place, others] = logits_btv[row, place, others].flip(0)
    losses = [
        npo_loss(per_sample(token_logprobs(one, labels_bt), labels_bt, "sequence_sum"), torch.tensor([-6.0, -4.0]))
        for one in (logits_btv, mixed_btv)
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    assert not torch.equal(logits_btv, mixed_btv)


def test_21_npo_has_the_same_step_however_its_batch_is_accumulated(tmp_path):
    """beta must not shrink with accumulation: the step of 1 x 8 is that of 4 x 2."""
    steps = []
    for size, accumulate in ((8, 1), (2, 4)):
        training = Training(
            tune="full", lr=1e-3, max_steps=1, batch_size=size, accumulate=accumulate, stop="never", clip=0
        )
        session = tiny_session(tmp_path / str(size), training=training)
        session.model = prepare(session.model, session.family, training, 0)
        targets = forget_targets(session)
        start = {target.key: -5.0 - place for place, target in enumerate(targets)}

        def objective(forget, retain, session=session, start=start):
            logp_b = answer_logprob(session.model, forget).sum_b
            start_b = torch.tensor([start[target.key] for target in forget.targets])
            return {"loss": npo_loss(logp_b, start_b, beta=0.5)}

        gradients = {}
        for name, weight in session.model.named_parameters():
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(
                    lambda p, name=name, kept=gradients: kept.update({name: p.grad.clone()})
                )
        minimise(session, objective, forget=targets)
        steps.append(gradients)
    assert len(targets) == 8
    assert steps[0].keys() == steps[1].keys()
    for name, gradient in steps[0].items():
        assert torch.allclose(gradient, steps[1][name], atol=1e-5, rtol=1e-3), name


# E. adapters and checkpoints


@pytest.mark.parametrize("what", ["adapter", "model"])
def test_51_weights_under_other_names_are_an_error_not_another_model(what, tmp_path):
    base = save_tiny(tmp_path / "base")
    session = tiny_session(tmp_path)
    session.model = prepare(session.model, session.family, Training(), 0)
    save_model(session.model, session.processor, tmp_path / "run/model", base=base)
    open_model(tmp_path / "run")
    file = tmp_path / "run/model/adapter_model.safetensors" if what == "adapter" else base / "model.safetensors"
    renamed = {name.replace("layers", "blocks"): weight for name, weight in load_file(file).items()}
    save_file(renamed, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="weights"):
        open_model(tmp_path / "run" if what == "adapter" else base)


def test_51_an_adapter_of_which_a_part_finds_no_place_is_an_error(tmp_path):
    """PEFT itself passes over weights of modules that the config does not name."""
    base = save_tiny(tmp_path / "base")
    session = tiny_session(tmp_path)
    session.model = prepare(session.model, session.family, Training(), 0)
    save_model(session.model, session.processor, tmp_path / "run/model", base=base)
    file = tmp_path / "run/model/adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "target_modules": r".*language_model.*layers\.0\.self_attn\.q_proj"}))
    with pytest.raises(UserError, match="place for 2 only"):
        open_model(tmp_path / "run")


# F. generation and judging


def test_57_every_answer_is_scored_against_its_own_reference():
    rows = [
        answer(1, "red square", "red square"),
        answer(2, "blue", "green circle"),
        answer(3, "green", "green circle"),
    ]
    found = score(rows, Vocabulary())["general.rougeL_recall"].value_by_index
    assert found == {"1": 1.0, "2": 0.0, "3": 0.5}


def test_59_one_rule_scores_a_kind_of_question_for_all_roles():
    """Same measure, same function; an empty answer and a refusal are wrong everywhere."""
    rules = {}
    for role in Role:
        row = answer(1, "", "A", Kind.CHOICE, role, options=("red", "blue"))
        for measure in measures_of([row], Vocabulary(measures=tuple(EXTRA))):
            if measure.key in ("choice", "choice.likelihood", "choice.prob", "cloze", "rougeL", "answer_prob", "bleu"):
                rules.setdefault(measure.key, set()).add(measure.value)
    assert len(rules) == 7
    assert {len(functions) for functions in rules.values()} == {1}
    for role in Role:
        for text in ("", "I cannot help with that."):
            rows = [answer(1, text, "A", Kind.CHOICE, role, options=("red", "blue"))]
            (key,) = (key for key in score(rows, Vocabulary()) if key.endswith(".choice"))
            assert score(rows, Vocabulary())[key].value == 0.0


@pytest.mark.parametrize("letter", "ABCD")
def test_60_a_model_that_always_says_one_letter_scores_chance(letter):
    rows = [
        answer(row.id, letter, row.answer, Kind.CHOICE, options=row.options)
        for row in Lab().examples("eval")
        if row.kind is Kind.CHOICE
    ]
    assert len(rows) > 60
    assert abs(score(rows, Vocabulary())["general.choice"].value - 0.25) < 3 * math.sqrt(0.25 * 0.75 / len(rows))


@pytest.mark.parametrize("name", fixtures())
def test_60_right_options_stand_at_several_places(name, tmp_path):
    fixtures()[name].build(tmp_path)
    rows = [row for row in open_benchmark(tmp_path).examples("eval") if row.kind is Kind.CHOICE]
    places = Counter(row.answer for row in rows)
    assert all(row.answer in ascii_uppercase[: len(row.options)] for row in rows)
    assert len(rows) < 8 or len(places) > 1


def test_63_prediction_and_reference_cannot_be_swapped_unseen():
    """Metrics of two texts take them by name, and the two orders differ."""
    both = [
        function
        for name in registry.names("metrics")
        for key, function in vars(__import__(f"{metrics.__name__}.{name}", fromlist=[name])).items()
        if key[0] != "_" and callable(function) and {"prediction", "reference"} <= _named(function).keys()
    ]
    assert len(both) >= 4
    for function in both:
        named = inspect.signature(function).parameters
        assert named["prediction"].kind is named["reference"].kind is inspect.Parameter.KEYWORD_ONLY
    there, back = rouge_l(prediction="a b", reference="a b c d"), rouge_l(prediction="a b c d", reference="a b")
    assert (there.precision, there.recall) == (back.recall, back.precision) == (1.0, 0.5)


def _named(function):
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


# G. metrics and statistics


def test_69_how_hard_questions_are_does_not_leak_into_the_truth_ratio():
    """Two models with one law of R on questions of different difficulty: equal; with one mean over all questions: different."""
    pvalues = {"own": [], "global": []}
    for seed in range(15):
        rng = np.random.default_rng(seed)
        found = {"own": [], "global": []}
        for spread in (0.2, 3.0):
            hardness = rng.normal(0, spread, size=80)
            true = -5 + hardness + rng.normal(0, 0.5, size=80)
            false = -5 + hardness[:, None] + rng.normal(0, 0.5, size=(80, 5))
            found["own"].append(
                [log_truth_ratio(one, others) for one, others in zip(true, false.tolist(), strict=True)]
            )
            found["global"].append((true - false.mean()).tolist())
        for name, (one, other) in found.items():
            pvalues[name].append(ks_pvalue(one, other))
    assert np.median(pvalues["own"]) > 0.2
    assert np.median(pvalues["global"]) < 0.01


def test_70_js_compares_distributions_not_vectors():
    """A permuted copy is at distance 0, one multiplied by ten is not; the raw vectors say the opposite."""
    rng = np.random.default_rng(0)
    one = np.exp(rng.normal(size=200))
    shuffled, scaled = rng.permutation(one), 10 * one

    def raw(left, right):
        p, q = left / left.sum(), right / right.sum()
        m = (p + q) / 2
        return float((p * np.log2(p / m) + q * np.log2(q / m)).sum() / 2)

    assert js_divergence(np.log(one).tolist(), np.log(shuffled).tolist()) == 0
    assert js_divergence(np.log(one).tolist(), np.log(scaled).tolist()) > 0.3
    assert raw(one, shuffled) > 0.1
    assert raw(one, scaled) == pytest.approx(0, abs=1e-12)
