"""What methods make of the benchmarks they belong to: the released rows, the twins, the chains, and not something near them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.benchmarks import fixtures
from fixtures.mmubench import SIU
from unsee import config
from unsee.api import Role
from unsee.api.request import Completion
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.methods.common.prompt_decouple import decouple_partners
from unsee.methods.reject import Reject
from unsee.methods.rmuse.method import RMuse
from unsee.methods.siu.targets import Recipe, build_siu_rows
from unsee.models.steering.hooks import save_all
from unsee.recipes import recipe
from unsee.testing.tiny import tiny_session
from unsee.training.recording import recording
from unsee.training.targets import forget_targets

FIXTURES = fixtures()


def session_on(name, tmp_path, **settings):
    """Return a session on a tiny model with the training examples of a benchmark."""
    data = tmp_path / "data"
    data.mkdir()
    FIXTURES[name].build(data)
    session = tiny_session(tmp_path / "out")
    found = {}
    for example in open_benchmark(data, {"name": name, **settings}).examples("train"):
        found.setdefault(example.role, []).append(example)
    return replace(session, examples=found)


def test_siu_trains_on_the_released_rows_word_by_word(tmp_path):
    """With the recipe's substitute, target 1 gets back the answers that SIU.json has, the substitute masked; targets 3 and 4 theirs."""
    session = session_on("mmubench", tmp_path)
    settings = recipe("mmubench").settings
    _, rows = build_siu_rows(session, Recipe(rows=2, substitutes=settings["substitutes"]))
    told = {number: [row.target.example for row in rows if row.number == number] for number in (1, 3, 4)}
    released = [row["conversations"][1]["value"] for row in SIU]
    assert [one.answer for one in told[1]] == released[:2]
    assert [row.target.example.answer[slice(*row.spans[0])] for row in rows if row.number == 1] == [
        "Jacob Campbell"
    ] * 2
    assert [one.answer for one in told[3]] == [released[3]]
    assert {one.answer for one in told[4]} == {released[5]}
    assert {one.image.path.name for one in told[1]} == {"Trump_Image118.jpg"}


def test_prompt_decouple_pairs_a_hazard_with_its_own_twin(tmp_path):
    session = session_on("safeeraser", tmp_path)
    targets = forget_targets(session)
    partners = decouple_partners(session, targets, 1.0)
    for target in targets:
        (twin,) = partners[target.example.id]
        assert twin.example.id == target.example.id.replace("unsafe", "pd")
        assert twin.example.question == target.example.question
        assert twin.example.image.key != target.example.image.key


def test_rmuse_takes_the_chains_of_the_data(tmp_path, monkeypatch):
    """Only rows without a chain of their own are put to the original model."""
    session = session_on("rmllmu", tmp_path)
    asked = []

    def start_answers(session, requests, **more):
        del session, more
        asked.extend(requests)
        return [Completion(text="Reasoning: none. Answer: no.", token_ids=(), ended=True) for _ in requests]

    monkeypatch.setattr("unsee.methods.rmuse.method.start_answers", start_answers)
    RMuse(layers=(0, 1), retain_samples=0).unlearn(session)
    assert not any("Where does this person live?" in one.question for one in asked)
    assert len(asked) == 2 * 20


def test_rmuse_saves_a_subspace_of_one_direction(tmp_path):
    """One text-only question to forget gives one direction, which is the whole subspace and no view of it."""
    session = session_on("folder", tmp_path)
    texts = session.examples[Role.FORGET_TEXT][:1]
    session = replace(session, examples={**session.examples, Role.FORGET_TEXT: texts})
    RMuse(layers=(0, 1), zscore="scale_only").unlearn(session)
    save_all(session.model, tmp_path)
    assert (tmp_path / "rmuse.safetensors").is_file()


def test_reject_draws_from_the_refusals_of_the_archive(tmp_path):
    """prompt.json has one, so every hazard gets it."""
    session = session_on("safeeraser", tmp_path)
    settings = recipe("safeeraser", options={"refusals": str(tmp_path / "data" / "dataset" / "prompt.json")}).settings
    with recording() as calls:
        config.build(Reject, settings, where="here").unlearn(session)
    drawn = calls[0].forget
    assert {target.text for target in drawn} == {"I cannot help with that."}
    assert len(drawn) == 24
    (tmp_path / "none.json").write_text('{"no": []}')
    with pytest.raises(UserError, match="The list of refusals .* is empty"):
        Reject(refusals=str(tmp_path / "none.json")).unlearn(session)
