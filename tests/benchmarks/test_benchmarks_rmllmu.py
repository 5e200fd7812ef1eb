"""RMLLMU-style data: chains find their questions, probes ask for reasoning, and RIL and RCR are scored on the right texts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fixtures.mllmu import PEOPLE, name_of
from fixtures.mllmu import build as build_mllmu
from fixtures.rmllmu import build, chains, write_chains
from unsee.api import Kind, Response, Role
from unsee.benchmarks.rmllmu import STEP_BY_STEP, RMLLMUSettings
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.scoring.aggregate import score


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rmllmu")
    build(folder)
    return folder


def opened(place, **settings):
    return open_benchmark(place, {"name": "rmllmu", **settings})


def test_training_rows_carry_their_chain_and_are_else_those_of_mllmu_bench(place):
    base = open_benchmark(place / "MLLMU-Bench", "mllmu").examples("train")
    rows = opened(place).examples("train")
    assert [(row.id, row.question, row.answer, row.role) for row in rows] == [
        (row.id, row.question, row.answer, row.role) for row in base
    ]
    chained = [row for row in rows if row.chain]
    assert {row.question for row in chained} == {"Where does this person live?"}
    assert len(chained) == len(PEOPLE)


def test_open_questions_are_asked_once_more_for_reasoning(place):
    rows = opened(place).examples("eval")
    (probe,) = [row for row in rows if row.kind is Kind.CHAIN and row.role is Role.FORGET]
    name = name_of("101")
    assert probe.question == f"Describe this person.\n{STEP_BY_STEP}"
    assert (
        probe.answer
        == f"Reasoning: The one asked about is {name}. {name} lives in Lisbon. Answer: {name} lives in Lisbon."
    )
    assert probe.fact == "born"
    assert probe.private["name"][0] == name
    counts = {role: sum(row.kind is Kind.CHAIN and row.role is role for row in rows) for role in Role}
    assert counts[Role.FORGET_TEXT] == 1
    assert counts[Role.RETAIN] == counts[Role.RETAIN_TEXT] == len(PEOPLE) - 1
    assert counts[Role.GENERAL] == 6
    assert counts[Role.UNSEEN] > 1
    assert {row.id for row in open_benchmark(place / "MLLMU-Bench").examples("eval")} < {row.id for row in rows}


def test_a_rejected_chain_is_no_second_chain_for_its_question(tmp_path):
    build(tmp_path)
    first, *others = chains()
    write_chains(tmp_path, [{**first, "accepted": False}, first, {**first, "accepted": "no"}, *others])
    data = opened(tmp_path)
    assert data.problems() == []
    assert any("3 chains were not accepted" in line for line in data.warnings())


def test_without_prompt_the_question_is_asked_bare(place):
    probes = [row for row in opened(place, prompt="").examples("eval") if row.kind is Kind.CHAIN]
    assert "Describe this person." in {row.question for row in probes}


def test_the_type_of_a_chain_keeps_image_and_text_apart(tmp_path, place):
    build(tmp_path)
    rows = [{**row, "question": "Describe this person.", "Type": "Pure_Text"} for row in chains()[:1]]
    write_chains(tmp_path, [*rows, *chains()[3:]])
    assert not [
        row
        for row in opened(tmp_path).examples("eval")
        if row.kind is Kind.CHAIN and row.role is Role.FORGET and row.image
    ]


def said(row, text):
    return Response.of(
        row, stage="s", text=text, tokens=9, ended=True, image="i.png" if row.image else "", image_key="k"
    )


def test_leakage_and_soundness_are_scored_on_these_texts(place):
    """The reference chain leaks in full on the forget side and is sound on the other; silence leaks nothing and is not sound."""
    bench = opened(place)
    probes = [row for row in bench.examples("eval") if row.kind is Kind.CHAIN]
    true = score([said(row, row.answer) for row in probes], bench.vocabulary())
    assert true["forget.ril"].value == true["forget.ril.explicit"].value == 1.0
    assert true["unseen.ril"].value == 1.0
    assert true["retain.rcr"].value == 1.0
    assert true["general.rcr"].value == 1.0
    mute = score([said(row, "") for row in probes], bench.vocabulary())
    assert (mute["forget.ril"].value, mute["forget.chain.empty"].value, mute["retain.rcr"].value) == (0.0, 1.0, 0.0)
    assert not {"forget.rcr", "retain.ril"} & true.keys()


def test_what_follows_from_what_counts_as_implicit(place):
    bench = opened(place)
    assert bench.vocabulary().implies == {"Lisbon": "Portugal"}
    (probe,) = [row for row in bench.examples("eval") if row.kind is Kind.CHAIN and row.role is Role.FORGET]
    asked = replace(probe, private={"country": ("Portugal",)})
    found = score([said(asked, "Reasoning: It must be Lisbon. Answer: unknown.")], bench.vocabulary())
    assert (found["forget.ril.explicit"].value, found["forget.ril.implicit"].value) == (0.0, 1.0)


def test_refused_and_idle_chains_are_counted(tmp_path):
    build(tmp_path)
    write_chains(tmp_path, [*chains(), {"ID": "777", "question": "Who?", "reasoning_chain": "x"}])
    bench = opened(tmp_path)
    assert bench.problems() == []
    told = " ".join(bench.warnings())
    assert "1 chains were not accepted" in told
    assert "1 chains belong to no question that is read: row 68 (ID 777)" in told


def test_column_names_are_a_setting(tmp_path):
    build(tmp_path)
    write_chains(
        tmp_path,
        [{("cot" if key == "reasoning_chain" else key): value for key, value in row.items()} for row in chains()],
    )
    assert opened(tmp_path).problems()
    assert opened(tmp_path, columns={"reasoning_chain": "cot"}).problems() == []


def test_a_rejected_chain_stays_out_however_its_column_is_written(tmp_path):
    build(tmp_path)
    rows = [{name.upper(): cell for name, cell in row.items()} for row in chains()]
    write_chains(tmp_path, rows)
    data = opened(tmp_path)
    assert data.problems() == []
    assert any("1 chains were not accepted" in line for line in data.warnings())
    for columns, message in (
        ({"acceptd": "ACCEPTED"}, "Unknown field in benchmark.columns 'acceptd'. Did you mean accepted"),
        ({"accepted": "ACCEPTE"}, "Unknown column for accepted in benchmark.columns 'ACCEPTE'. Did you mean ACCEPTED"),
    ):
        with pytest.raises(UserError, match=message):
            opened(tmp_path, columns=columns).examples("train")


@pytest.mark.parametrize("consequence", [None, ["Japan"], "", 5])
def test_what_follows_is_text(tmp_path, consequence):
    build(tmp_path)
    (tmp_path / "implies.json").write_text(json.dumps({"Tokyo": consequence}), encoding="utf-8")
    assert "implies.json: the consequence of 'Tokyo' must be text" in opened(tmp_path).problems()[0]


def test_chains_may_lie_in_the_clone_itself_if_the_benchmark_is_named(tmp_path):
    """Without its name the folder is MLLMU-Bench, which does not know chains."""
    build_mllmu(tmp_path)
    write_chains(tmp_path, chains())
    assert open_benchmark(tmp_path).name == "mllmu"
    assert any(row.chain for row in opened(tmp_path).examples("train"))
    (tmp_path / "chains.jsonl").unlink()
    with pytest.raises(UserError, match=r"has no chains\. Expected chains"):
        opened(tmp_path)


def test_a_second_ratio_is_refused():
    with pytest.raises(UserError, match=r"benchmark\.mllmu\.ratio has no effect: the ratio is benchmark\.ratio"):
        RMLLMUSettings(mllmu={"ratio": 10})


def test_settings_of_mllmu_bench_without_effect_are_refused(place):
    with pytest.raises(
        UserError, match=r"benchmark\.mllmu\.join='row_order' has no effect: .* benchmark\.mllmu\.train_pairs"
    ):
        opened(place, mllmu={"train_pairs": "tasks", "join": "row_order"})
