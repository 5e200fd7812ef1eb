"""continual: all modes on a tiny model, resumed between requests and inside them, with nothing done twice."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.continual_folder import write_people
from unsee import continual, load
from unsee.api import Score, Session, Training
from unsee.api.idle import require_effect
from unsee.cli.commands import continual as verb
from unsee.cli.main import main
from unsee.config import EvalConfig, Run, dump_yaml, read, read_mapping, settings_of
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.methods.ga import GA
from unsee.methods.npo import NPO
from unsee.testing.tiny import save_tiny
from unsee.workflows.continual import continual_run, judging, merging, sequence
from unsee.workflows.continual.judging import Judge
from unsee.workflows.continual.settings import Course
from unsee.workflows.continual.tasks import Task, Tasks, tasks_of
from unsee.workflows.continual.work import Work, folder_name
from unsee.workflows.forget import _require_same_base

SHORT = {"max_steps": 2, "stop": "never", "lr": 1e-2, "max_new_tokens": 4, "checkpoint_every": 1, "rank": 2, "alpha": 4}
COURSE = {"tasks": 2, "max_new_tokens": 4, "kinds": ["name", "fact", "general"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("continual")
    save_tiny(place / "model")
    write_people(place / "people")
    return place


@pytest.fixture(scope="module", autouse=True)
def drawn():
    """Draw no page unless a test is about it; return what draws."""
    from unsee.workflows.continual import page

    with pytest.MonkeyPatch.context() as patch:
        draw = page.write_page
        patch.setattr(page, "write_page", lambda folders, out: out)
        yield draw


@pytest.fixture(scope="module")
def runs(place):
    """Return a function that makes a sequence once; merged and expert sequences share their adapters."""

    def make(name, *, method="ga", course=None, training=None):
        joined = (course or {}).get("mode") in ("merge", "experts")
        shared = {"adapters": str(place / "adapters")} if joined else {}
        return continual(
            place / "model",
            place / "people",
            method,
            place / name,
            course={**COURSE, **shared, **(course or {})},
            training={**SHORT, **(training or {})},
        )

    return make


IDLE = [
    ({"requests": "x", "tasks": 0, "per_task": 2}, "per_task"),
    ({"mode": "joint", "reference": "initial"}, "reference"),
    ({"retain_rows": 9}, "retain_rows"),
    ({"joint_steps": "fixed"}, "joint_steps"),
    ({"merge": "ties"}, "merge"),
    ({"mode": "experts", "scale": 0.5}, "scale"),
    ({"mode": "merge", "density": 0.5}, "density"),
    ({"mode": "merge", "merge": "ties", "drop": 0.5}, "drop"),
    ({"mode": "merge", "merge": "mcu", "merge_rank": 4}, "merge_rank"),
    ({"adapters": "elsewhere"}, "adapters"),
    ({"mode": "merge", "router": "oracle"}, "router"),
    ({"mode": "experts", "router": "oracle", "router_quantile": 0.5}, "router_quantile"),
]
"""Settings of a course, and the one without effect."""


@pytest.mark.parametrize(("settings", "name"), IDLE)
def test_settings_without_effect_are_refused(settings, name):
    course = Course(**{"tasks": 2, **settings})
    with pytest.raises(UserError, match=rf"continual\.{name}=.* has no effect: it counts only"):
        require_effect({"continual": course}, course.idle())


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_merge_has_a_positive_scale(scale):
    with pytest.raises(UserError, match="continual.scale must be a number above 0"):
        Course(tasks=2, mode="merge", scale=scale)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"course": {"merge": "ties"}}, "continual.merge='ties' has no effect"),
        ({"training": {"robust_rho": 0.5}}, "training.robust_rho=0.5 has no effect"),
        (
            {"course": {"mode": "joint", "joint_steps": "fixed"}, "training": {"max_steps": -1}},
            "continual.joint_steps='fixed' has no effect: it counts only with training.max_steps",
        ),
    ],
)
def test_nothing_is_written_where_a_setting_has_no_effect(runs, place, settings, message):
    with pytest.raises(UserError, match=message):
        runs("idle", **settings)
    assert not (place / "idle").exists()


def test_settings_of_the_evaluation_are_not_given_twice(place):
    run = Run.of(place / "model", place / "people", "ga", place / "twice", training=SHORT)
    with pytest.raises(
        UserError, match="continual.max_new_tokens=4 has no effect: it counts only without eval.max_new_tokens"
    ):
        continual_run(replace(run, eval={"max_new_tokens": 9}), COURSE)


@pytest.fixture(scope="module")
def whole(runs):
    return runs("whole")


def weights(folder):
    return load_file(folder / "model" / "adapter_model.safetensors")


def equal(one, two):
    return one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one)


def result(folder):
    return json.loads((folder / "continual.json").read_text())


def test_every_model_is_judged_on_every_request(whole):
    found = result(whole)
    assert found["protocol"] == "icu_style/1"
    assert found["at"] == [0, 1, 2]
    assert [len(row) for row in found["A"]] == [2, 2, 2]
    assert [len(row) for row in found["A_text"]] == [2, 2, 2]
    assert {"CF", "HP", "FR", "FT", "RU", "RSR", "RD", "GU"} <= found["metrics"].keys()
    assert [task["n_profiles"] for task in found["tasks"]] == [1, 1]
    rows = [json.loads(line) for line in (whole / "judged" / "t-001" / "samples.jsonl").read_text().splitlines()]
    assert {row["k"] for row in rows} == {0, 1, 2}
    assert {row["entity"] for row in rows if row["k"] == 1} == {"ada"}


def test_cost_is_known_for_every_step(whole):
    for t, cost in enumerate(result(whole)["cost"]):
        assert cost["t"] == t
        assert cost["judged_sec"] > 0
        assert cost["sec"] > 0 or t == 0
        assert cost["bytes"] > 0 or t == 0
        assert cost["peak_gb"] or t == 0


def test_how_a_sequence_was_trained_and_judged_is_kept_with_its_results(whole):
    settings = result(whole)["settings"]
    assert settings["training"]["lr"] == SHORT["lr"]
    assert settings["training"]["rank"] == 2
    assert settings["eval"]["max_new_tokens"] == 4
    assert len(settings["data"]) == 12


def test_only_the_same_sequence_goes_on_in_a_folder(tmp_path):
    course, asked = Course(tasks=1), Tasks(tasks=(Task(id="r1", targets=("12345e67", "0017")),))
    run = Run(model="m", data="d", method="ga", out=str(tmp_path))

    def claim(**judging):
        sequence._claim(tmp_path, replace(run, eval=judging), course, asked, "hash")

    claim()
    claim(batch_size=2)  # no answer depends on it
    claim(max_new_tokens=course.max_new_tokens)  # as without it
    with pytest.raises(UserError, match="another sequence: eval differ"):
        claim(max_new_tokens=5)
    file = tmp_path / sequence.RECORD
    file.write_text(file.read_text().replace("eval: {}\n", ""))
    claim(max_new_tokens=5)  # the file of an earlier version does not say how its answers were made


def test_a_sequence_of_a_version_with_fewer_settings_goes_on(tmp_path):
    course, asked = Course(tasks=1), Tasks(tasks=(Task(id="r1", targets=("ada",)),))
    run = Run(model="m", data="d", method="npo", out=str(tmp_path), training=settings_of(Training()))
    run = replace(run, settings=settings_of(NPO()))
    sequence._claim(tmp_path, run, course, asked, "hash")
    file = tmp_path / sequence.RECORD
    values = read_mapping(file)
    for part, name in (("continual", "fr_support"), ("training", "guard"), ("method", "beta")):
        del values[part][name]
    file.write_text(dump_yaml(values))
    sequence._claim(tmp_path, run, course, asked, "hash")
    with pytest.raises(UserError, match="another sequence: method differ"):
        sequence._claim(tmp_path, replace(run, settings={**run.settings, "beta": 0.9}), course, asked, "hash")
    with pytest.raises(UserError, match="another sequence: method differ"):
        sequence._claim(tmp_path, replace(run, method="ga", settings={}), course, asked, "hash")


def test_a_sequence_does_not_go_on_with_changed_data(tmp_path):
    """The models so far were trained and judged on the old rows, and one matrix would hold both."""
    course, asked = Course(tasks=1), Tasks(tasks=(Task(id="r1", targets=("ada",)),))
    run = Run(model="m", data="rows.jsonl", method="ga", out=str(tmp_path))
    sequence._claim(tmp_path, run, course, asked, "old")
    with pytest.raises(UserError, match=r"data of rows\.jsonl are not those of the earlier calls.*Give another --out"):
        sequence._claim(tmp_path, run, course, asked, "new")
    file = tmp_path / sequence.RECORD
    file.write_text(file.read_text().replace("data_hash: old\n", ""))
    sequence._claim(tmp_path, run, course, asked, "new")  # the file of an earlier version does not tell


def test_the_order_of_requests_does_not_change_what_a_sequence_is_about(place):
    def data(course, folder="people"):
        run = Run(model="m", data=str(place / folder), method="ga")
        work = Work(run=run, course=course, tasks=tasks_of(open_benchmark(run.data), course))
        return Judge(work=work, request=work.eval_request()).data

    write_people(place / "edited")
    listed = place / "edited" / "data.jsonl"
    listed.write_text(listed.read_text().replace("chemist", "cook"))
    assert data(Course(tasks=3)) == data(Course(tasks=3, order=1)) == data(Course(tasks=3, order=2))
    assert data(Course(tasks=3)) != data(Course(tasks=2))
    assert data(Course(tasks=3)) != data(Course(tasks=3), "edited")


def test_several_sequences_on_one_page(whole, merged, drawn, tmp_path):
    page = drawn([whole, merged], tmp_path).read_text()
    assert page.count("<figure") == 6 + 2
    assert "ga, sequential" in page
    assert "<script" not in page
    assert "src=" not in page
    assert "ga, merge sum" in (tmp_path / "continual.md").read_text()


def test_each_request_starts_from_the_model_that_the_one_before_left(whole, place):
    assert read(whole / "t-001" / "run.yaml").model == str(place / "model")
    assert read(whole / "t-002" / "run.yaml").model == str(whole / "t-001")


def test_no_request_sees_anything_of_the_others(whole, place):
    for t, name in ((1, "ada"), (2, result(whole)["tasks"][1]["id"])):
        rows = open_benchmark(whole / f"t-{t:03}.request.json").examples("train")
        forgotten = {row.entity for row in rows if row.role == "forget"}
        assert len(forgotten) == 1
        assert name in {*forgotten, "r2"}
        assert len({row.entity for row in rows if row.role == "retain"}) == 2


def test_the_same_call_again_does_nothing(whole, runs, monkeypatch):
    monkeypatch.setattr(GA, "unlearn", lambda self, session: pytest.fail("trained again"))
    monkeypatch.setattr(judging, "evaluate", lambda *_, **__: pytest.fail("asked again"))
    before = (whole / "continual.json").read_text()
    assert runs("whole") == whole
    assert (whole / "continual.json").read_text() == before


def test_another_call_into_the_same_folder_is_refused(whole, runs):
    with pytest.raises(UserError, match="holds another sequence: continual, tasks differ"):
        runs("whole", course={"order": 1})
    with pytest.raises(UserError, match="training differ"):
        runs("whole", training={"lr": 1e-4})


def test_killed_between_requests_it_goes_on_to_the_same_weights(whole, runs, place, monkeypatch):
    judge = Judge.judge

    def killed(self: Judge, t: int, step: object) -> None:
        judge(self, t, step)
        if t == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Judge, "judge", killed)
        with pytest.raises(KeyboardInterrupt):
            runs("between")
    assert not (place / "between" / "t-002").exists()
    assert equal(weights(runs("between") / "t-002"), weights(whole / "t-002"))
    assert result(place / "between")["A"] == result(whole)["A"]


def test_killed_inside_a_request_it_goes_on_to_the_same_weights(whole, runs, place, monkeypatch):
    unlearn, starts = GA.unlearn, []

    def killed(self: GA, session: Session) -> None:
        from unsee import losses

        starts.append(session.resume)
        calls = 0
        loss = losses.ga_loss

        def counted(*values):
            nonlocal calls
            calls += 1
            if len(starts) == 2 and calls == 2:
                raise KeyboardInterrupt
            return loss(*values)

        with monkeypatch.context() as patch:
            patch.setattr("unsee.methods.ga.ga_loss", counted)
            unlearn(self, session)

    with monkeypatch.context() as patch:
        patch.setattr(GA, "unlearn", killed)
        with pytest.raises(KeyboardInterrupt):
            runs("inside")
    assert (place / "inside" / "t-002" / "checkpoints" / "checkpoint-1").exists()
    monkeypatch.setattr(GA, "unlearn", lambda self, session: (starts.append(session.resume), unlearn(self, session)))
    assert equal(weights(runs("inside") / "t-002"), weights(whole / "t-002"))
    assert starts == [False, False, True]  # the first request was not trained again


def test_initial_reference_goes_on_with_one_adapter(runs, place, monkeypatch):
    references = []
    unlearn = NPO.unlearn

    def watched(self: NPO, session: Session) -> None:
        from unsee.methods.common.reference_model import weights_hash

        norm = sum(float(w.detach().norm()) for name, w in session.model.named_parameters() if "lora_B" in name)
        references.append((weights_hash(session), norm > 0))
        unlearn(self, session)

    monkeypatch.setattr(NPO, "unlearn", watched)
    out = runs("initial", method="npo", course={"reference": "initial"})
    assert references[0][0] == references[1][0]  # adapter off is the original model, in both
    assert [fresh for _, fresh in references] == [False, True]
    written = read(out / "t-002" / "run.yaml")
    assert written.model == str(place / "model")
    assert written.training["adapter"] == str(out / "t-001" / "model")


def test_an_adapter_of_another_rank_cannot_be_gone_on_from(whole, place, tmp_path):
    from unsee import forget

    training = {**SHORT, "rank": 3, "adapter": str(whole / "t-001")}
    with pytest.raises(UserError, match="other layers or another rank"):
        forget(place / "model", place / "people", "ga", tmp_path / "x", training=training)
    with pytest.raises(UserError, match="needs training.tune=lora"):
        forget(place / "model", place / "people", "ga", tmp_path / "x", training={**training, "tune": "full"})


def test_an_adapter_of_another_scale_or_base_cannot_be_gone_on_from(whole, place, tmp_path):
    from unsee import forget

    training = {**SHORT, "adapter": str(whole / "t-001")}
    alpha = read(whole / "t-001" / "run.yaml").training["alpha"]
    with pytest.raises(UserError, match="scales its update by .* alpha / rank"):
        forget(place / "model", place / "people", "ga", tmp_path / "x", training={**training, "alpha": 2 * alpha})
    with pytest.raises(UserError, match="trained with training.quantization=none .* and this run has int8"):
        _require_same_base(Training(adapter=str(whole / "t-001"), quantization="int8"), "")
    with pytest.raises(UserError, match="was trained on another model"):
        forget(save_tiny(tmp_path / "other", seed=1), place / "people", "ga", tmp_path / "x", training=training)


def test_joint_unlearns_everything_so_far_from_the_start(runs, place):
    out = runs("joint", course={"mode": "joint"})
    last = read_mapping(out / "t-002" / "run.yaml")
    assert last["model"] == str(place / "model")
    assert last["training"]["max_steps"] == 4
    asked = json.loads((out / "t-002.request.json").read_text())["forget"]
    assert len(asked) == 2


@pytest.fixture(scope="module")
def merged(runs):
    return runs("merged", course={"mode": "merge"})


def test_merged_weights_equal_the_formula_and_are_what_is_judged(merged, place):
    base = load(place / "model").model.state_dict()
    opened = load(merged / "t-002").model.state_dict()
    adapters = [merging.read_adapter(place / "adapters" / folder_name(name) / "model") for name in ("r1", "r2")]
    for layer in adapters[0]:
        name = f"{layer.removeprefix('base_model.model.')}.weight"
        wanted = base[name] + sum(one[layer].delta_oi for one in adapters)
        assert torch.allclose(opened[name], wanted, atol=1e-5)
    first = merging.read_adapter(merged / "t-001" / "model")
    assert all(first[layer].delta_oi.allclose(update.delta_oi) for layer, update in adapters[0].items())
    assert [cost["t"] for cost in result(merged)["cost"]] == [0, 1, 2]


def test_adapters_do_not_depend_on_the_order_and_are_shared(merged, runs, monkeypatch):
    monkeypatch.setattr(GA, "unlearn", lambda self, session: pytest.fail("trained again"))
    other = runs("ties", course={"mode": "merge", "merge": "ties", "density": 0.5, "order": 1})
    assert result(other)["order_seed"] == 1
    with pytest.raises(UserError, match="Cannot resume .* differ"):
        runs("other", course={"mode": "merge"}, training={"lr": 1e-3})


def test_adapters_of_other_requests_are_refused_and_left_as_they_are(merged, runs, place):
    file = place / "adapters" / f"{folder_name('r1')}.request.json"
    before = file.read_text()
    with pytest.raises(UserError, match=r"trained on the rows of .*Give another continual\.adapters"):
        runs("three", course={"mode": "merge", "tasks": 3})
    assert file.read_text() == before


def test_experts_answer_what_is_routed_to_them_and_nobody_else(merged, whole, runs, place, monkeypatch):
    monkeypatch.setattr(GA, "unlearn", lambda self, session: pytest.fail("trained again"))
    out = runs("experts", course={"mode": "experts", "router": "oracle"})
    found = result(out)
    assert found["routing"][2]["precision"] == found["routing"][2]["recall"] == found["routing"][2]["abstention"] == 1
    said = {row["id"]: row for row in map(json.loads, (out / "judged" / "t-002" / "responses.jsonl").open())}
    start = {row["id"]: row for row in map(json.loads, (out / "judged" / "t-000" / "responses.jsonl").open())}
    rows = [json.loads(line) for line in (out / "judged" / "t-002" / "samples.jsonl").open()]
    assert said.keys() == start.keys() == {row["id"] for row in rows}
    kept = [row["id"] for row in rows if row["k"] == 0]
    assert kept
    assert all(said[name]["text"] == start[name]["text"] for name in kept)
    image = next(row for row in said.values() if row["image"])
    assert (out / "judged" / "t-002" / image["image"]).is_file()


def test_the_nearest_router_knows_images_and_names(merged, runs):
    found = result(runs("nearest", course={"mode": "experts", "router_quantile": 0.9}))["routing"][2]
    assert {"precision", "recall", "abstention", "precision_image", "sec_per_question"} <= found.keys()
    assert found["recall"] > 0.3  # names in text questions alone give this


def test_the_gold_model_is_asked_the_same_and_bounds_what_could_be_forgotten(runs, place, monkeypatch):
    gold, asked = save_tiny(place / "gold", seed=1), []
    known = {place / "model": {"ada": 1.0, "bo": 1.0, "cleo": 1.0, "dan": 1.0}, gold: {"ada": 0.5, "dan": 1.0}}

    def evaluate(model, data, folder, settings, **more):
        asked.append(Path(model))
        judging_evaluate(model, data, folder, settings, **more)
        worth = known.get(Path(model), {"ada": 0.25, "dan": 0.5})
        wanted = [row for row in data.examples("eval") if row.kind in ("name", "fact")]
        return {"x.name": Score(value=0.0, n=1, value_by_index={row.id: worth.get(row.entity, 0.0) for row in wanted})}

    judging_evaluate = judging.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(judging, "evaluate", evaluate)
        out = runs("golden", course={"gold": str(gold)})
    assert asked == [place / "model", gold, out / "t-001", out / "t-002"]  # before anything is trained
    said = [(out / "judged" / name / "responses.jsonl").read_text() for name in ("t-000", "gold")]
    assert said[0] != said[1]
    found = result(out)
    assert found["A"] == [[1.0, 1.0], [0.25, 0.0], [0.25, 0.0]]
    assert found["metrics"]["nCF"] == [pytest.approx(0.75 / 0.5), 1.0]  # (1 - .25)/(1 - .5), (1 - 0)/(1 - 0)
    assert found["summary"]["nCF"] == pytest.approx(1.25)
    before = (out / "continual.json").read_text()
    monkeypatch.setattr(judging, "evaluate", lambda *_, **__: pytest.fail("asked again"))
    assert (runs("golden", course={"gold": str(gold)}) / "continual.json").read_text() == before


@pytest.mark.parametrize(
    ("course", "said"), [({"gold": "no/such/model"}, "no/such/model"), ({"headline": ["choice"]}, "measures choice")]
)
def test_what_cannot_be_judged_is_told_before_anything_is_trained(runs, monkeypatch, course, said):
    monkeypatch.setattr(GA, "unlearn", lambda self, session: pytest.fail("trained"))
    with pytest.raises(UserError, match=said):
        runs(f"unjudged-{next(iter(course))}", course=course)


def test_merging_needs_adapters(runs):
    with pytest.raises(UserError, match="needs an adapter for each request"):
        runs("full", course={"mode": "merge"}, training={"tune": "full"})


@pytest.mark.parametrize(
    ("course", "setting"), [({"mode": "merge"}, "mode=merge"), ({"reference": "initial"}, "reference=initial")]
)
def test_methods_that_train_nothing_have_no_adapters_to_merge_or_to_go_on_with(place, course, setting):
    with pytest.raises(UserError, match=rf"continual\.{setting} needs adapters .* rmuse trains nothing"):
        continual(place / "model", place / "people", "rmuse", place / "idle", course={**COURSE, **course})
    assert not (place / "idle").exists()


def test_long_sequences_are_judged_now_and_then():
    assert sequence.evaluation_points(3) == [0, 1, 2, 3]
    assert sequence.evaluation_points(45) == [0, 1, 2, 5, 10, 20, 30, 40, 45]


def test_the_command(place, tmp_path, capsys):
    words = ["continual", "--model", str(place / "model"), "--data", str(place / "people"), "--method", "ga"]
    assert main([*words, "--out", str(tmp_path / "x")]) == 2
    assert "Give either --requests FILE or --tasks N" in capsys.readouterr().err
    assert main([*words, "--tasks", "2", "--mode", "sideways", "--out", str(tmp_path / "x")]) == 2
    assert "continual: mode must be one of sequential, merge, experts, joint" in capsys.readouterr().err
    assert main(["continual", "--compare", str(place), "--out", str(tmp_path / "y")]) == 2
    assert "has no continual.json" in capsys.readouterr().err


def test_a_written_sequence_can_be_called_again(whole, capsys):
    assert main(["continual", str(whole / "continual.yaml"), "--out", str(whole)]) == 0
    assert capsys.readouterr().out.strip() == str(whole / "continual.html")


def test_settings_on_the_command_line_belong_to_the_method_there(tmp_path):
    parser = argparse.ArgumentParser()
    verb.options(parser)
    file = tmp_path / "run.yaml"
    file.write_text("method: {name: npo, beta: 0.5}\ncontinual: {tasks: 3, order: 2}\ntraining: {lr: 0.1}\n")
    words = [
        str(file),
        "--method",
        "grad_diff",
        "--set",
        "method.alpha=0.3",
        "--set",
        "continual.order=4",
        "--tasks",
        "5",
    ]
    run, course = verb._read(parser.parse_args(words))
    assert (run.method, run.settings, run.training) == ("grad_diff", {"alpha": 0.3}, {"lr": 0.1})
    assert course == {"tasks": 5, "order": 4}


@pytest.mark.parametrize(
    ("listed", "words", "expected"),
    [
        ("{requests: a.yaml}", ["--tasks", "5"], {"tasks": 5}),
        ("{tasks: 3}", ["--requests", "b.yaml"], {"requests": "b.yaml"}),
        ("{tasks: 3}", ["--requests", "b.yaml", "--tasks", "5"], {"requests": "b.yaml", "tasks": 5}),
    ],
)
def test_where_requests_come_from_is_said_by_the_option(tmp_path, listed, words, expected):
    parser = argparse.ArgumentParser()
    verb.options(parser)
    (tmp_path / "run.yaml").write_text(f"continual: {listed}\n")
    assert verb._read(parser.parse_args([str(tmp_path / "run.yaml"), *words]))[1] == expected


@pytest.mark.parametrize("misplaced", ["tasks: 3", "retain: [dan]"])
def test_settings_of_the_course_at_the_top_of_a_file_are_no_settings(tmp_path, misplaced):
    parser = argparse.ArgumentParser()
    verb.options(parser)
    (tmp_path / "run.yaml").write_text(f"continual: {{tasks: 2}}\n{misplaced}\n")
    with pytest.raises(UserError, match=f"Unknown setting of .*'{misplaced.partition(':')[0]}'"):
        verb._read(parser.parse_args([str(tmp_path / "run.yaml")]))


def test_columns_and_roles_on_the_command_line_reach_the_data(tmp_path):
    parser = argparse.ArgumentParser()
    verb.options(parser)
    words = "--model m --data d --fields image=photo,answer=response --method ga --tasks 2".split()
    run, _ = verb._read(parser.parse_args([*words, "--roles", str(tmp_path / "roles.csv")]))
    columns = {"image": "photo", "answer": "response"}
    assert run.benchmark == {"fields": columns, "roles": str(tmp_path / "roles.csv")}


def test_eval_settings_reach_every_model_of_a_sequence(tmp_path):
    run = Run(model="m", data="d", method="ga", out=str(tmp_path), eval={"likelihood": True, "batch_size": 3})
    work = Work(run=run, course=Course(tasks=1, max_new_tokens=5, batch_size=9), tasks=None)
    assert work.judging == EvalConfig(likelihood=True, batch_size=3, max_new_tokens=5)


@pytest.mark.parametrize("narrowed", [{"limit": 3}, {"split": "report"}, {"roles": ["forget"]}, {"gold": "runs/gold"}])
def test_a_sequence_refuses_eval_settings_that_its_course_decides(tmp_path, narrowed):
    run = Run(model="lab", data="lab", method="ga", out=str(tmp_path / "x"), eval=narrowed)
    with pytest.raises(UserError, match=f"eval.{next(iter(narrowed))}.*continual"):
        continual_run(run, {"tasks": 1})
    assert not (tmp_path / "x").exists()
