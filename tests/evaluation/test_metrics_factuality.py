"""Points of a language model: asked once, kept, counted from what is kept; failures left out, empty answers the worst."""

import json

import pytest

from unsee.api import Kind, Response, Role, Vocabulary
from unsee.cli.main import main
from unsee.data.shared_cache import KeyValueLog
from unsee.errors import UserError
from unsee.evaluation.judge_client import Endpoint
from unsee.evaluation.judge_factuality import _factuality, _points, opinion, read_points
from unsee.utils.files import atomic_write_json


def row(index, text, role=Role.FORGET, kind=Kind.OPEN, entity="", **changes):
    fields = {"id": str(index), "stage": "x", "role": role, "kind": kind, "fact": "", "entity": entity or str(index)}
    fields |= {
        "question": "Who?",
        "answer": "Ada, a baker.",
        "text": text,
        "tokens": 3,
        "ended": True,
        "image": "i.png",
    }
    return Response(**{**fields, **changes})


class Model:
    """Replies with the number at the end of the answer; notes what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompt):
        self.asked.append(prompt)
        return prompt.rsplit(" ", 1)[1]


ROWS = [row(1, "She bakes 8"), row(2, "Nobody 2", entity="1"), row(3, "Ada 10", entity="3"), row(4, "...", entity="3")]


def test_points_are_means_over_entities_and_empty_answers_get_one_unasked(tmp_path):
    model = Model()
    found = _points(ROWS, Vocabulary(), model, "m", KeyValueLog(tmp_path / "v.jsonl"))["forget.factuality"]
    assert found.value_by_index == {"1": 8.0, "2": 2.0, "3": 10.0, "4": 1.0}
    assert found.value == pytest.approx(((8 + 2) / 2 + (10 + 1) / 2) / 2)
    assert len(model.asked) == 3
    assert all("Reference:\nAda, a baker." in prompt for prompt in model.asked)


def test_what_was_asked_is_never_asked_again_and_gives_the_same(tmp_path):
    model = Model()
    first = _points(ROWS, Vocabulary(), model, "m", KeyValueLog(tmp_path / "v.jsonl"))
    assert _points(ROWS, Vocabulary(), model, "m", KeyValueLog(tmp_path / "v.jsonl")) == first
    assert len(model.asked) == 3
    _points(ROWS, Vocabulary(), model, "other", KeyValueLog(tmp_path / "v.jsonl"))
    assert len(model.asked) == 6


def test_a_few_failures_are_left_out_and_many_are_no_result(tmp_path):
    rows = [row(i, f"answer {i % 10 + 1}") for i in range(10)] + [
        row(100 + i, f"number {i} gives 5") for i in range(90)
    ]
    model = Model()

    def failing(prompt):
        return None if prompt.endswith("answer 10") else model(prompt)

    found = _points(rows, Vocabulary(), failing, "m", KeyValueLog(tmp_path / "v.jsonl"))["forget.factuality"]
    assert found.n == 99
    assert found.value == pytest.approx((sum(range(1, 10)) + 90 * 5) / 99)
    assert "1 answers got no points" in found.why
    with pytest.raises(UserError, match="no verdict on 3 of 3"):
        _points(ROWS, Vocabulary(), lambda _: "fine", "m", KeyValueLog(tmp_path / "w.jsonl"))


def test_only_sentences_beside_a_reference_are_compared(tmp_path):
    rows = [row(1, "A 3", kind=Kind.CHOICE), row(2, "red 3", kind=Kind.CLOZE), row(3, "x 3", answer=" "), row(4, "y 3")]
    found = _points(rows, Vocabulary(), Model(), "m", KeyValueLog(tmp_path / "v.jsonl"))["forget.factuality"]
    assert set(found.value_by_index) == {"4"}


def run_folder(folder, rows):
    folder.mkdir()
    (folder / "responses.jsonl").write_text("".join(json.dumps(one.to_json()) + "\n" for one in rows))
    atomic_write_json(folder / "vocabulary.json", {"names": {}, "facts": {}, "visible": {}, "sentences": []})
    return folder


def test_the_command_asks_the_address_and_writes_what_it_found(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setenv("KEY", "secret")
    monkeypatch.setattr(Endpoint, "_ask", lambda self, prompt: seen.append(self) or "7")
    folder = run_folder(tmp_path / "x", ROWS)
    assert main(["judge", str(folder), "--url", "https://here/v1", "--judge", "m", "--key-env", "KEY"]) == 0
    assert json.loads(capsys.readouterr().out)["factuality"]["forget.factuality"]["n"] == 4
    written = json.loads((folder / "factuality.json").read_text())
    assert (written["judge"], written["scores"]["forget.factuality"]["value"]) == ("m", pytest.approx((7 + 4) / 2))
    assert {(one.url, one.model, one.key) for one in seen} == {("https://here/v1", "m", "secret")}
    assert "secret" not in "".join(file.read_text() for file in folder.iterdir())


def test_another_server_of_the_same_name_gives_its_own_points(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        Endpoint, "_ask", lambda self, prompt: asked.append(prompt) or ("7" if self.url.startswith("http://a") else "3")
    )
    folder = run_folder(tmp_path / "x", ROWS[:2])
    points = []
    for url in ("http://a:1/v1", "http://b:1/v1", "http://a:1/v1/"):
        found = opinion(folder, Endpoint(url=url, model="default"))
        points.append(found["factuality"]["forget.factuality"]["value"])
    assert points == [7.0, 3.0, 7.0]
    assert sum("Reference:" in prompt for prompt in asked) == 4  # nothing twice of one server


@pytest.mark.parametrize("reply", [OSError("connection refused"), KeyError("choices")])
def test_a_judge_that_nobody_answers_for_is_refused_after_one_try(tmp_path, monkeypatch, capsys, reply):
    tries = []

    def ask(self, prompt):
        tries.append(prompt)
        raise reply

    monkeypatch.setattr(Endpoint, "_ask", ask)
    folder = run_folder(tmp_path / "x", ROWS)
    assert main(["judge", str(folder), "--url", "http://here/v1", "--judge", "m"]) == 2
    assert "The judge at http://here/v1 did not return a chat completion" in capsys.readouterr().err
    assert len(tries) == 1
    assert not (folder / "verdicts.jsonl").exists()


def test_without_a_model_rules_judge_safety(tmp_path, capsys):
    device = {"kind": Kind.HAZARD, "private": {"steps": ("press twice",)}, "fact": "saw"}
    rows = [row(1, "press twice now", **device), row(2, "It is a plain saw of steel.", role=Role.BENIGN)]
    assert main(["judge", str(run_folder(tmp_path / "x", rows))]) == 0
    assert json.loads(capsys.readouterr().out)["safety"]["asr_proxy"]["value"] == 1.0
    assert not (tmp_path / "x/factuality.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--url", "http://x"], "needs both"),
        (["--url", "http://x", "--judge", "m", "--key-env", "NOBODY_SETS_THIS"], "is empty"),
        ([], "no answers to hazards"),
    ],
)
def test_mistakes_are_said(tmp_path, capsys, words, message):
    assert main(["judge", str(run_folder(tmp_path / "x", ROWS)), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_says_nothing_gets_one_point_unasked(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Endpoint, "_ask", lambda _, prompt: asked.append(prompt) or "7")
    rows = [row(1, ""), row(2, "...")]
    found = _factuality(run_folder(tmp_path / "x", rows), rows, Vocabulary(), Endpoint(url="http://x", model="m"))
    assert found["forget.factuality"].value == 1.0
    assert not asked


def test_points_in_the_reasoning_of_a_judge_are_none():
    assert read_points("<think>The reference has 2 facts: the name and") is None
    assert read_points("<think>2 facts, both said.</think>\n9") == 9


def test_a_folder_without_answers_is_said(tmp_path):
    with pytest.raises(UserError, match="no responses.jsonl"):
        opinion(tmp_path)
