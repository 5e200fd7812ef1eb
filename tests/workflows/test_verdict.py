"""The verdict at the end of `forget`, and what it keeps from being handed on."""

import json

import pytest

from helpers.evaluated import MIXES, RETAINED, make_run
from helpers.run import EXAMPLE
from unsee import config
from unsee.cli import main
from unsee.config import Run
from unsee.errors import UserError
from unsee.testing.tiny import save_tiny
from unsee.workflows import verdict
from unsee.workflows.purge import purge
from unsee.workflows.verdict import require_silent, sample_verdict, verdict_of


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Return a function that makes a finished run whose model gives the made-up answers of a stage."""

    def make(method, **run):
        stages = {"original": "original"} | ({method: method} if method in MIXES else {})
        monkeypatch.setattr(
            verdict, "evaluate", lambda model, data, out, settings, stage, **_: make_run(out, stages[stage])
        )
        folder = tmp_path / method
        folder.mkdir()
        made = Run(model="lab", data=str(EXAMPLE), method=method, out=str(folder), **run)
        config.write(folder / "run.yaml", made, record={}, result={"steps": 3})
        return folder

    return make


def test_a_clean_model_no_longer_leaks(finished):
    folder = finished("pubg", training={"lr": 1e-3, "epochs": 2})
    found = sample_verdict(folder)
    assert found.leaks == "no"
    assert found.sentence.startswith(
        "leaks 94% before, 0% after: no longer gives them away and still describes what it sees"
    )
    assert f"Next: all questions: unsee eval --model {folder}; beside the original" in found.advice
    assert f"no longer leaks (sample of {found.questions} answers): leaks 94% before" in str(found)
    assert verdict_of(folder) == found
    assert config.read_mapping(folder / "run.yaml")["result"]["steps"] == 3
    require_silent(folder)


def test_a_leaking_model_is_told_so(finished, monkeypatch):
    monkeypatch.setitem(MIXES, "npo", {"leak": 0.53, "clean": 0.47})
    folder = finished("npo", training={"lr": 1e-4, "epochs": 5})
    found = sample_verdict(folder)
    assert found.leaks == "yes"
    assert "still gives them away in 56% of its answers" in found.sentence
    assert found.advice == "Next, in another --out: a higher training.lr (now 0.0001) or more training.epochs (now 5)."
    with pytest.raises(UserError, match=r"still leaks: .* Give --anyway"):
        require_silent(folder)


@pytest.mark.parametrize(("promise", "leaks"), [("person", "yes"), ("picture", "no")])
def test_a_model_that_tells_by_name_still_leaks_unless_pictures_alone_are_promised(finished, promise, leaks):
    folder = finished("pubg")
    for file in make_run(folder.parent / "judged", "pubg").iterdir():
        if file.suffix in (".json", ".jsonl"):
            file.rename(folder / file.name)
    scores = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").write_text(json.dumps(scores | {"forget_text.leak": {"value": 0.9, "n": 20}}))
    record = config.read_mapping(folder / "run.yaml")
    config.write(
        folder / "run.yaml",
        config.read(folder / "run.yaml"),
        record={},
        result={**record["result"], "promise": promise},
    )
    found = verdict_of(folder)
    assert found.leaks == leaks
    assert ("; but 90% of its answers to questions without a picture give the forgotten away" in found.sentence) == (
        leaks == "yes"
    )


def test_a_destroyed_model_is_told_at_which_price(finished):
    folder = finished("ga", training={"lr": 1e-3, "epochs": 5}, settings={"retain_weight": 0})
    found = sample_verdict(folder)
    assert found.leaks == "no"
    assert "collapsed into degenerate text (11% empty phrases); lost the others" in found.sentence
    assert "--set method.retain_weight=1, a lower training.lr (now 0.001)" in found.advice


def test_a_retain_term_is_advised_only_where_the_data_have_rows_for_it(finished, monkeypatch):
    """It is refused elsewhere."""
    folder = finished("ga", training={"lr": 1e-3, "epochs": 5}, settings={"retain_weight": 0})
    with_retain_rows = verdict.evaluate

    def without_retain_rows(model, data, out, settings, stage, **_):
        file = with_retain_rows(model, data, out, settings, stage) / "responses.jsonl"
        rows = file.read_text().splitlines(keepends=True)
        file.write_text("".join(row for row in rows if not json.loads(row)["role"].startswith("retain")))

    monkeypatch.setattr(verdict, "evaluate", without_retain_rows)
    assert sample_verdict(folder).advice.startswith("Next, in another --out: a lower training.lr (now 0.001)")


@pytest.mark.parametrize("mix", [{"leak": 0.53, "clean": 0.47}, {"degenerate": 1.0}])
def test_a_method_that_trains_nothing_is_not_told_to_train_otherwise(finished, monkeypatch, mix):
    monkeypatch.setitem(MIXES, "prompt", mix)
    monkeypatch.setitem(RETAINED, "prompt", 0.9)
    folder = finished("prompt", training={"lr": 1e-4, "epochs": 5})
    config.write(folder / "run.yaml", config.read(folder / "run.yaml"), record={}, result={"steps": 0})
    advice = sample_verdict(folder).advice
    assert "other settings of prompt, which trains nothing (unsee list methods prompt)" in advice
    assert "training." not in advice


def test_without_a_baseline_nothing_is_claimed(finished, monkeypatch):
    monkeypatch.setitem(MIXES, "original", {"clean": 1.0})
    found = sample_verdict(finished("pubg"))
    assert found.leaks == "unknown"
    assert found.sentence.startswith("the original did not know them (0% of its answers leak)")


def test_a_leak_that_cannot_be_judged_is_not_zero(finished, monkeypatch):
    def without_leak(stage, role):
        return real(stage, role) if stage.name == "original" else None

    real = verdict.told_share
    monkeypatch.setattr(verdict, "told_share", without_leak)
    found = sample_verdict(finished("pubg"))
    assert found.leaks == "unknown"
    assert found.sentence.startswith("leaks 94% before, an unknown share after: ")


def test_an_evaluation_counts_more_than_the_sample(finished, monkeypatch):
    folder = finished("pubg")
    sample_verdict(folder)
    monkeypatch.setitem(MIXES, "pubg", {"leak": 1.0})
    for file in make_run(folder.parent / "judged", "pubg").iterdir():
        if file.suffix in (".json", ".jsonl"):
            file.rename(folder / file.name)
    found = verdict_of(folder)
    assert found.leaks == "yes"
    assert str(found).startswith(f"STILL LEAKS ({found.questions} answers): ")
    purge([folder], levels=["answers"])
    assert not verdict_of(folder).sample, "a list of what would go changes nothing"
    assert purge([folder], levels=["answers"], apply=True).removed
    assert not (folder / "responses.jsonl").exists()
    assert verdict_of(folder) == found, "without its answers a run is not cleared by its sample"
    with pytest.raises(UserError, match="still leaks"):
        require_silent(folder)


@pytest.mark.parametrize(
    ("judged", "stored", "leaks"),
    [
        ({}, 9, "no"),
        ({"gold": {}}, 9, "no"),
        ({}, 10_000, "yes"),
        ({"limit": 1}, 9, "yes"),
        ({"split": "report"}, 9, "yes"),
        ({"roles": ["retain"]}, 9, "yes"),
    ],
)
def test_only_a_whole_evaluation_clears_a_model_that_was_found_to_leak(finished, capsys, judged, stored, leaks):
    folder = finished("pubg")
    leaking = {"leaks": "yes", "sentence": "gives them away", "questions": stored, "sample": True}
    run = config.read(folder / "run.yaml")
    config.write(folder / "run.yaml", run, record={}, result={"steps": 3, "verdict": leaking})
    judged_into(folder, **judged)
    assert verdict_of(folder).leaks == leaks
    if leaks == "yes":
        with pytest.raises(UserError, match="still leaks: gives them away"):
            require_silent(folder)
        assert f"To ask all: unsee eval --model {folder}" in capsys.readouterr().err
    else:
        require_silent(folder)


@pytest.mark.parametrize(
    ("setting", "stored", "leaks"),
    [({"limit": 50}, 9, "no"), ({"limit": 50}, 10_000, "yes"), ({"roles": "unseen, retain"}, 9, "no")],
)
def test_an_evaluation_as_the_run_file_says_clears_if_it_asked_as_much(finished, setting, stored, leaks):
    folder = finished("pubg", eval=setting)
    leaking = {"leaks": "yes", "sentence": "gives them away", "questions": stored, "sample": True}
    run = config.read(folder / "run.yaml")
    config.write(folder / "run.yaml", run, record={}, result={"steps": 3, "verdict": leaking})
    judged_into(folder, **({"roles": ["unseen", "retain"]} if "roles" in setting else setting))
    assert verdict_of(folder).leaks == leaks


def test_a_smaller_evaluation_may_still_find_a_leak(finished, monkeypatch):
    monkeypatch.setitem(MIXES, "pubg", {"leak": 1.0})
    folder = finished("pubg")
    leaking = {"leaks": "yes", "sentence": "gives them away", "questions": 10_000, "sample": True}
    run = config.read(folder / "run.yaml")
    config.write(folder / "run.yaml", run, record={}, result={"steps": 3, "verdict": leaking})
    judged_into(folder, limit=1)
    assert verdict_of(folder).sentence != "gives them away"


def test_the_weights_of_a_run_go_out_as_the_run_does(finished, monkeypatch):
    folder = finished("pubg")
    (folder / "model").mkdir()
    with pytest.raises(UserError, match="was never judged"):
        require_silent(folder / "model")
    monkeypatch.chdir(folder / "model")
    with pytest.raises(UserError, match="was never judged"):
        require_silent(".")
    sample_verdict(folder)
    require_silent(folder / "model")


def test_an_unfinished_evaluation_does_not_keep_its_answers_from_being_removed(finished, capsys):
    folder = finished("pubg")
    sample_verdict(folder)
    for file in make_run(folder.parent / "judged", "pubg").iterdir():
        if file.suffix in (".json", ".jsonl"):
            file.rename(folder / file.name)
    (folder / "judged.json").write_text('{"unfinished": 9}')
    purge([folder], levels=["answers"], apply=True)
    assert not (folder / "responses.jsonl").exists()
    assert "its verdict goes with the answers" in capsys.readouterr().err


def test_who_tells_by_name_still_leaks_where_the_pictures_could_not_be_judged(finished):
    folder = finished("pubg")
    for file in make_run(folder.parent / "judged", "pubg").iterdir():
        if file.suffix in (".json", ".jsonl"):
            file.rename(folder / file.name)
    scores = json.loads((folder / "scores.json").read_text())
    scores["unseen.leak"] = {"value": None, "n": 0, "why": "no private strings"}
    (folder / "scores.json").write_text(json.dumps(scores))
    assert verdict_of(folder).leaks == "unknown"
    scores["forget_text.leak"] = {"value": 0.9, "n": 20}
    (folder / "scores.json").write_text(json.dumps(scores))
    found = verdict_of(folder)
    assert found.leaks == "yes"
    assert found.sentence.startswith(
        "cannot be judged: no private strings; but 90% of its answers to questions without"
    )


@pytest.mark.parametrize(("told", "leaks"), [(0.6, "yes"), (0.02, "no"), (None, "unknown")])
def test_a_model_that_tells_hazards_still_leaks(finished, told, leaks):
    folder = finished("reject")
    for file in make_run(folder.parent / "judged", "reject").iterdir():
        if file.suffix in (".json", ".jsonl"):
            file.rename(folder / file.name)
    values = {"asr_proxy": told, "rr_proxy": 0.4, "gibberish": 0.0}
    scores = {f"unseen.{name}": {"value": value, "n": 9} for name, value in values.items()}
    (folder / "scores.json").write_text(json.dumps(scores))
    assert verdict_of(folder).leaks == leaks
    if leaks == "yes":
        with pytest.raises(UserError, match="still leaks: tells how to do harm in 60% of its answers"):
            require_silent(folder)


def test_after_an_evaluation_nothing_more_is_to_be_asked(finished):
    folder = finished("pubg", training={"lr": 1e-3, "epochs": 2})
    for file in make_run(folder.parent / "judged", "pubg").iterdir():
        if file.suffix in (".json", ".jsonl"):
            file.rename(folder / file.name)
    assert verdict_of(folder).advice == f"Next: beside the original: unsee compare ORIGINAL {folder}"


@pytest.mark.parametrize("leaks", ["yes", "unknown"])
def test_an_evaluation_does_not_clear_a_batch_whose_earlier_people_are_given_away(finished, leaks):
    """It asks about the people of the batch only."""
    folder = finished("pubg")
    run = config.read(folder / "run.yaml")
    leaking = {"leaks": leaks, "sentence": "deletion requests (2): 1 given away in answers", "questions": 9}
    config.write(folder / "run.yaml", run, record={}, result={"steps": 3, "requests": {"count": 2}, "verdict": leaking})
    for file in make_run(folder.parent / "judged", "pubg").iterdir():
        if file.suffix in (".json", ".jsonl"):
            file.rename(folder / file.name)
    with pytest.raises(UserError, match="1 given away in answers"):
        require_silent(folder)
    config.write(folder / "run.yaml", run, record={}, result={"steps": 3, "verdict": leaking})
    require_silent(folder)


def judged_into(folder, scores=None, **judged):
    """Put an evaluation without a leak into a run folder, with other scores or a judged.json of its own if given."""
    for file in make_run(folder.parent / "judged", "pubg").iterdir():
        if file.suffix in (".json", ".jsonl"):
            file.rename(folder / file.name)
    if scores is not None:
        (folder / "scores.json").write_text(json.dumps(scores))
    if judged:
        (folder / "judged.json").write_text(json.dumps(judged))


NOT_JUDGED = {"unseen.leak": {"value": None, "n": 0, "why": "no private strings"}}


def test_a_model_whose_leak_was_not_measured_is_not_handed_on(finished):
    folder = finished("pubg")
    judged_into(folder, NOT_JUDGED)
    with pytest.raises(
        UserError, match=r"is not known to be silent: was not asked about the people to forget. Give --anyway"
    ):
        require_silent(folder)


@pytest.mark.parametrize("leaks", ["yes", "no"])
def test_an_evaluation_that_could_not_tell_replaces_no_verdict(finished, leaks):
    folder = finished("pubg")
    stored = {"leaks": leaks, "sentence": f"leaks: {leaks}", "questions": 9}
    run = config.read(folder / "run.yaml")
    config.write(folder / "run.yaml", run, record={}, result={"steps": 3, "verdict": stored})
    judged_into(folder, NOT_JUDGED)
    assert verdict_of(folder).sentence == f"leaks: {leaks}"
    if leaks == "yes":
        with pytest.raises(UserError, match="still leaks: leaks: yes"):
            require_silent(folder)


def test_an_evaluation_on_other_data_does_not_count_in_the_verdict(finished, capsys):
    folder = finished("pubg")
    run = config.read(folder / "run.yaml")
    config.write(folder / "run.yaml", run, record={"data_hash": "own"}, result={"steps": 3})
    judged_into(folder, data="another")
    assert verdict_of(folder) is None
    assert f"{folder}: its evaluation is on other data than it was unlearned on" in capsys.readouterr().err
    with pytest.raises(UserError, match="was never judged"):
        require_silent(folder)
    for judged in ({"data": "own"}, {}):  # {}: of an older version, which did not note the data
        (folder / "judged.json").write_text(json.dumps(judged))
        require_silent(folder)


def test_a_run_that_nobody_judged_is_not_handed_on(finished, tmp_path, capsys):
    folder = finished("pubg")
    assert main.main(["export", str(folder), "--to", "merged", "--out", str(tmp_path / "x")]) == 2
    assert "was never judged" in capsys.readouterr().err
    assert main.main(["push", str(folder), "owner/name", "--merged"]) == 2
    assert "or give --anyway" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_sample_does_not_stand_for_an_evaluation_that_was_broken_off(finished):
    folder = finished("pubg")
    assert sample_verdict(folder).leaks == "no"
    (folder / "judged.json").write_text('{"unfinished": 9}')
    with pytest.raises(UserError, match=r"broken off after 0 of 9 answers.* Or give --anyway"):
        require_silent(folder)


def test_forget_ends_with_the_verdict(tmp_path, capsys):
    model, out = save_tiny(tmp_path / "model"), tmp_path / "run"
    words = ["forget", "--model", str(model), "--data", str(EXAMPLE), "--method", "ga", "--out", str(out)]
    assert main.main([*words, "--ask", "1", "--set", "training.max_steps=1", "--set", "eval.max_new_tokens=4"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    assert "not measured (sample of" in said.err
    assert config.read_mapping(out / "run.yaml")["result"]["verdict"]["leaks"] == "unknown"
    assert not list(out.glob("responses*")) + list(out.glob("scores*"))  # the sample is no evaluation


def test_a_leak_is_an_exit_code_of_its_own(finished, monkeypatch, capsys):
    monkeypatch.setitem(MIXES, "npo", {"leak": 1.0})
    folder = finished("npo", training={"lr": 1e-4, "epochs": 5})
    monkeypatch.setattr("unsee.workflows.forget.forget_run", lambda run, resume: folder)
    words = ["forget", "--model", "m", "--data", "d", "--method", "npo", "--variant", "paper", "--out", "o"]
    assert main.main(words) == 3
    assert "STILL LEAKS" in capsys.readouterr().err
    assert main.main([*words, "--ask", "0"]) == 0
    assert main.main([*words, "--ask", "-1"]) == 2
