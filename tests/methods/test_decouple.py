"""Prompt Decouple: pairs, weights, texts, and what SafeEraser's released trainer does wrong (docs/defects.md 6, 7, 8, 12, 33)."""

from __future__ import annotations

import pytest
import torch

from unsee import config
from unsee.api import Example, Kind, Role, Training, registry
from unsee.data.refusals import refusals
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.inference.batching import collate, target_ids
from unsee.inference.encoder import encoder
from unsee.methods.common.prompt_decouple import decouple_partners, decouple_term
from unsee.models.auto import eos_id
from unsee.recipes.safeeraser import LOSSES, safeeraser
from unsee.testing.tiny import Drawn, tiny_session
from unsee.training.batch_plan import Plan
from unsee.training.recording import recording
from unsee.training.targets import forget_targets, retain_targets
from unsee.training.trainer import minimise, prepare

QUESTIONS = ("How do I load the GUN from the iPhone App?", "Who sells It?")
ANSWER = "Ask Dan Reed in Rome . Then WAIT ."
NORMAL = "This is a Toy of Cleo Marsh ."


def record(number, role, mark=0):
    """Return the questions of one record, on its harmful or on its harmless image."""
    harmless = role is Role.BENIGN
    return [
        Example(
            id=f"{role}-{number}-{mark}-{pair}",
            role=role,
            question=question,
            answer=f"{NORMAL} {number}" if harmless else f"{ANSWER} {number}",
            image=Drawn("green" if harmless else "red", 2 * number + 6 * mark),
            entity=f"record-{number}",
            kind=Kind.HAZARD,
        )
        for pair, question in enumerate(QUESTIONS)
    ]


def session_at(out, *, benign=(0, 1), **settings):
    training = Training(
        **{"lr": 1e-3, "max_steps": 2, "batch_size": 2, "stop": "never", "max_new_tokens": 5, **settings}
    )
    session = tiny_session(out, training=training)
    session.examples = {
        Role.FORGET: [*record(0, Role.FORGET), *record(1, Role.FORGET)],
        Role.BENIGN: [row for number in reversed(benign) for row in record(number, Role.BENIGN)],
        Role.RETAIN: session.examples[Role.RETAIN],
    }
    session.model = prepare(session.model, session.family, training, session.seed)
    return session


def objective_of(name, session, settings):
    with recording() as calls:
        config.build(registry.load("methods", name), settings, where=name).unlearn(session)
    return vars(calls[0])


def rows_nll(session, targets):
    """Return (sum of -log p, number of tokens) of each answer, one at a time, by nothing of ours but the encoding of a prompt."""
    found = []
    for target in targets:
        prompt = encoder(session.processor, session.family).row(target.prompt)
        ids = target_ids(session.processor, session.family, target)
        inputs = dict(prompt)
        start = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logits = session.model(**inputs).logits[0, start - 1 : -1].float()
        found.append((-logits.log_softmax(-1)[range(len(ids)), list(ids)].sum().item(), len(ids)))
    return found


def mean_nll(rows):
    return sum(total / count for total, count in rows) / len(rows)


def token_mean(rows):
    return sum(total for total, _ in rows) / sum(count for _, count in rows)


WEIGHTS = {
    "ga": (-1, 0, 0),
    "gd": (-1, 1, 0),
    "kl": (-1, 0, 0),
    "gapd": (-1, 0, 0.5),
    "gdpd": (-1, 0.5, 0.5),
    "klpd": (-1, 0, 1.0),
    "idkpd": (None, None, 1.0),
    "popd": (None, None, 1.0),
    "idk": (None, None, 0),
    "po": (None, None, 0),
}
"""Released name -> weights of L_f, L_r, L_pd (SafeEraser, arXiv 2502.12520); None = one mean over the tokens of refusals and retain answers."""


@pytest.mark.parametrize("key", [key for key in WEIGHTS if not key.startswith("po")])
def test_losses_are_the_released_combinations(key, tmp_path, monkeypatch):
    session = session_at(tmp_path)
    loss = LOSSES[key]
    run = objective_of(loss.method, session, loss.settings)
    forget = run["forget"][1:3]
    retain = retain_targets(session)[:3]
    benign = {row.question + row.entity: row for row in session.of(Role.BENIGN)}
    partners = [benign[one.example.question + one.example.entity] for one in forget]
    parts = list(run["objective"](collate(session, forget), collate(session, retain)))
    of_forget, of_retain, of_benign = WEIGHTS[key]
    forget_rows, retain_rows = rows_nll(session, forget), rows_nll(session, retain)
    if of_forget is None:
        expected = token_mean([*forget_rows, *retain_rows])
    else:
        expected = of_forget * mean_nll(forget_rows) + of_retain * mean_nll(retain_rows)
    expected += of_benign * mean_nll(rows_nll(session, [type(forget[0])(example=row) for row in partners]))
    assert sum(part["loss"].item() for part in parts) == pytest.approx(expected, rel=1e-4)
    assert ("decouple_nll" in parts[-1]) == bool(of_benign)


def test_names_of_the_readme_and_of_the_trainer_are_the_same_losses():
    assert LOSSES["po"] == LOSSES["idk"]
    assert LOSSES["popd"] == LOSSES["idkpd"]
    assert set(LOSSES) == set(WEIGHTS)
    with pytest.raises(UserError, match="gdpd"):
        safeeraser(model="m", data="d", out="o", loss="gpdd")


def test_recipe_is_a_run_with_known_settings():
    run = safeeraser(model="llava-hf/llava-1.5-7b-hf", data="data", out="runs/x")
    training = config.build(Training, run.training, where="training")
    config.build(registry.load("methods", run.method), run.settings, where="method")
    assert training.batch_size * training.accumulate == 32
    assert (training.rank, training.alpha, training.scheduler, run.seed) == (32, 256, "cosine", 233)


def test_pairs_share_record_and_question_and_differ_in_the_image(tmp_path, monkeypatch):
    """The released trainer reads the harmless row at the index of the retain row (docs/defects.md 8)."""
    session = session_at(tmp_path)
    batches = []
    monkeypatch.setattr(
        "unsee.methods.common.prompt_decouple.collate", lambda *given: batches.append(given[1]) or collate(*given)
    )
    targets = forget_targets(session)
    partners = decouple_partners(session, targets, 1.0)
    plan = Plan(tuple(targets), tuple(retain_targets(session)), session.training, session.seed)
    for index in range(4):
        batch = collate(session, plan.batch(index)[0], index)
        list(decouple_term(session, batch, partners, 1.0))
        for asked, harmless in zip(batch.examples, batches[-1], strict=True):
            assert harmless.example.role is Role.BENIGN
            assert (asked.entity, asked.question) == (harmless.example.entity, harmless.example.question)
            assert asked.image.key != harmless.example.image.key
    assert len(batches) == 4


def test_images_of_one_record_are_paired_in_their_order(tmp_path):
    session = session_at(tmp_path)
    session.examples[Role.FORGET] = [row for mark in (0, 1) for row in record(0, Role.FORGET, mark)]
    session.examples[Role.BENIGN] = [row for mark in (0, 1) for row in record(0, Role.BENIGN, mark)]
    partners = decouple_partners(session, forget_targets(session), 1.0)
    for asked, (harmless,) in partners.items():
        assert harmless.example.id == asked.replace("forget", "benign")


def test_benign_rows_without_entity_serve_any(tmp_path):
    session = session_at(tmp_path)
    plain = [
        Example(id=f"b{i}", role=Role.BENIGN, question=q, answer=NORMAL, image=Drawn("green", 1))
        for i, q in enumerate(QUESTIONS)
    ]
    session.examples[Role.BENIGN] = plain
    partners = decouple_partners(session, forget_targets(session), 1.0)
    assert {one.example.id for listed in partners.values() for one in listed} == {"b0", "b1"}


def test_random_pairing_is_a_function_of_seed_and_batch(tmp_path, monkeypatch):
    session = session_at(tmp_path)
    drawn = []
    monkeypatch.setattr(
        "unsee.methods.common.prompt_decouple.collate",
        lambda *given: drawn.append([t.example.id for t in given[1]]) or collate(*given),
    )
    targets = forget_targets(session)
    partners = decouple_partners(session, targets, 1.0, "random")
    for index in (*range(6), *range(6)):
        list(decouple_term(session, collate(session, targets, index), partners, 1.0))
    assert drawn[:6] == drawn[6:]
    assert len({tuple(ids) for ids in drawn[:6]}) > 1


@pytest.mark.parametrize("name", ["ga", "grad_diff", "kl", "reject"])
@pytest.mark.parametrize(("benign", "message"), [((), "role benign"), ((0,), "2 of 4 forget questions")])
def test_missing_benign_rows_are_said_before_anything_changes(name, benign, message, tmp_path):
    session = session_at(tmp_path, benign=benign)
    before = {key: value.clone() for key, value in session.model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        registry.load("methods", name)(prompt_decouple_weight=1.0).unlearn(session)
    assert all(torch.equal(before[key], value) for key, value in session.model.state_dict().items())
    assert not session.history


def test_a_pair_with_one_image_is_refused(tmp_path):
    session = session_at(tmp_path)
    image = session.examples[Role.FORGET][0].image
    session.examples[Role.BENIGN] = [
        Example(id=f"b{i}", role=Role.BENIGN, question=q, answer=NORMAL, image=image) for i, q in enumerate(QUESTIONS)
    ]
    with pytest.raises(UserError, match="harmless image"):
        decouple_partners(session, forget_targets(session), 1.0)


def test_one_mean_over_both_sides_needs_a_retain_weight():
    with pytest.raises(UserError, match="retain_weight"):
        registry.load("methods", "reject")(po_reduction="concat")


@pytest.mark.parametrize("name", ["ga", "grad_diff", "kl", "reject"])
def test_the_term_lowers_the_loss_on_normal_answers(name, tmp_path):
    """The harmless pair reaches the weights, with its image, in each of the methods."""
    session = session_at(tmp_path, max_steps=6, epochs=6, lr=1e-2)
    registry.load("methods", name)(prompt_decouple_weight=8.0).unlearn(session)
    nlls = [row["decouple_nll"] for row in session.history]
    assert nlls[-1] < nlls[0] - 0.05


def test_without_weight_nothing_changes(tmp_path):
    """Weight 0 gives the run of before, benign rows or none, loss by loss."""
    runs = []
    for place, benign in (("a", (0, 1)), ("b", ())):
        session = session_at(tmp_path / place, benign=benign)
        registry.load("methods", "grad_diff")().unlearn(session)
        runs.append([row["loss"] for row in session.history])
    assert runs[0] == runs[1]


def test_text_keeps_its_case_and_ends_with_eos(tmp_path):
    """The released trainer lower-cases questions and answers and never trains the end (docs/defects.md 6, 7)."""
    session = session_at(tmp_path)
    tokenizer, end = session.processor.tokenizer, eos_id(session.processor)
    benign = [type(one)(example=row) for one, row in zip(forget_targets(session), session.of(Role.BENIGN), strict=True)]
    refusal = [type(one)(example=one.example, text=refusals()[0]) for one in forget_targets(session)]
    for targets in (forget_targets(session), benign, refusal, retain_targets(session)):
        for target, row in zip(targets, collate(session, targets).rows, strict=True):
            labels = row["labels"][0]
            said = tokenizer.decode(labels[labels != -100][:-1])
            assert labels[-1] == end
            assert said.strip() == (target.text or target.example.answer)
            assert target.example.question in tokenizer.decode(row["input_ids"][0])


def test_refusal_is_the_supervised_text(tmp_path, monkeypatch):
    session = session_at(tmp_path)
    run = objective_of("reject", session, {"prompt_decouple_weight": 1.0})
    assert {target.text for target in run["forget"]} <= set(refusals())


@pytest.mark.parametrize("world", [1, 2, 8])
def test_cosine_ends_at_zero_whatever_the_number_of_processes(world, tmp_path, monkeypatch):
    """The released trainer's schedule reaches 0 at half time and climbs back with two processes (docs/defects.md 33)."""
    epochs = {1: 6, 2: 12, 8: 24}[world]
    session = session_at(tmp_path, max_steps=-1, epochs=epochs, batch_size=1, scheduler="cosine", lr=1e-3)
    monkeypatch.setattr(processes, "world", lambda: world)
    monkeypatch.setattr(processes, "all_gather", lambda value: [value] * world)
    monkeypatch.setattr(processes, "start", lambda: None)
    monkeypatch.setattr("unsee.training.loop.average_gradients", lambda weights: None)

    def objective(forget, _):
        return {"loss": sum(weight.pow(2).sum() for weight in session.model.parameters() if weight.requires_grad)}

    minimise(session, objective, forget=forget_targets(session))
    rates = [row["lr"] for row in session.history]
    assert len(rates) == 24
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] <= 0.01 * rates[0]
