"""The measurements: both sides do the same work, every case yields numbers, the command prints them."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from perf import __main__ as command
from perf import budget, conventional, evaluation, report, saliency, steps
from perf.subject import Subject, subject

from unsee.inference.batching import collate
from unsee.training.batch_plan import Plan
from unsee.training.targets import forget_targets, retain_targets


@pytest.fixture(scope="module")
def tiny() -> Subject:
    return subject("tiny")


def numbers(value):
    """Yield every number in a result."""
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
        if isinstance(entry, dict | list):
            yield from numbers(entry)
        elif isinstance(entry, int | float):
            yield entry


@pytest.mark.parametrize(
    "name",
    [name if place % 3 == 0 else pytest.param(name, marks=pytest.mark.slow) for place, name in enumerate(steps.CASES)],
)
def test_both_sides_of_a_step_report_the_same_loss(tiny, name):
    found = steps.measure(name, tiny, repetitions=2)
    assert found["loss_gap"]["first"] < 1e-5
    assert found["loss_gap"]["largest"] < 1e-4
    assert all(math.isfinite(value) and value >= 0 for value in numbers(found))
    assert found["speedup"] > 0
    assert found["floor"] > 0
    assert found["repetitions"] == 2


def test_both_sides_train_the_same_weights_on_the_same_examples(tiny, tmp_path):
    case = steps.CASES["npo_lora"]
    ours, theirs = (case.session(tiny, tmp_path, 3) for _ in range(2))
    side = conventional.Conventional(theirs, case.method)
    trained = [weight for group in side.optimizer.param_groups for weight in group["params"]]
    asked = [weight for weight in ours.model.parameters() if weight.requires_grad]
    assert [weight.shape for weight in trained] == [weight.shape for weight in asked]
    assert sum(weight.numel() for weight in trained) > 0
    assert side.reference is not None
    assert not any(a is b for a, b in zip(side.reference.parameters(), side.model.parameters(), strict=True))


def test_conventional_encoding_supervises_the_same_tokens(tiny, tmp_path):
    session = steps.CASES["npo_lora"].session(tiny, tmp_path, 3)
    targets = forget_targets(session)[:3]
    _, theirs = conventional.encode(session, targets)
    ours = collate(session, targets).labels_bt
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine[mine != -100], other[other != -100])


def test_forgetting_makes_the_losses_differ_if_one_side_gets_other_examples(tiny, tmp_path):
    session = steps.CASES["ga_lora"].session(tiny, tmp_path, 3)
    side = conventional.Conventional(session, "ga")
    plan = Plan(forget_targets(session), retain_targets(session), session.training, 0)
    one, other = plan.batch(0)[0], plan.batch(1)[0]
    assert abs(side.step(one, []) - side.step(other, [])) > 1e-4


def test_the_trainer_case_compares_equal_losses(tiny):
    found = steps.measure_trainer(tiny, repetitions=2)
    assert found["loss_gap"]["largest"] < 1e-5
    assert found["overhead"] > 0


def test_published_mask_in_fp32_agrees_with_ours_batch_by_batch(tiny, tmp_path):
    how_many = saliency.amount("mmunlearner_mask", tiny, 2)
    session = how_many.session(tiny, tmp_path)
    assert saliency.published_agreement(session, tmp_path)[0] > 0.995


def test_published_mask_writes_three_files_and_ours_one_small_one(tiny):
    found = saliency.measure("mmunlearner_mask", tiny, 1, 1)
    assert found["bytes"]["conventional"] > 20 * found["bytes"]["unsee"]
    assert found["agreement"] > 0.99


def test_fisher_of_one_batch_is_the_squared_gradient(tiny, tmp_path):
    session = saliency.amount("mmunlearner_mask", tiny, 1).session(tiny, tmp_path)
    targets = forget_targets(session)
    squares = saliency.fisher(session, saliency.LANGUAGE, targets, torch.float32)
    inputs, labels_bt = conventional.encode(session, targets)
    conventional.mean_nll(session.model(**inputs).logits, labels_bt).backward()
    weights = dict(session.model.named_parameters())
    assert all(torch.allclose(value, weights[name].grad ** 2, atol=1e-12) for name, value in squares.items())
    assert not any("vision_tower" in name for name in squares)


def test_a_whole_run_trains_both_sides(tiny, tmp_path):
    how_many = replace(saliency.amount("mmunlearner_run", tiny, 2), text=4, samples=4)
    for side in ("conventional", "unsee"):
        session = how_many.session(tiny, tmp_path / side)
        (tmp_path / side).mkdir()
        before = {name: weight.detach().clone() for name, weight in session.model.named_parameters()}
        saliency._work("mmunlearner_run", side, session, how_many, tmp_path / side)()
        assert any(not torch.equal(before[name], weight) for name, weight in session.model.named_parameters())


def test_evaluation_gives_the_same_answers_on_both_sides(tiny):
    found = evaluation.measure(tiny, images=2, repetitions=1)
    assert found["same_text"] == 1.0
    assert found["questions"] == 16
    assert found["images"] == 2


def test_an_exam_asks_several_questions_about_each_image(tiny):
    asked = [example for example in tiny.judged if example.entity == "person0"]
    assert len({example.image.key for example in asked}) == 1
    assert sum(bool(example.options) for example in asked) == 5
    assert all(example.answer in "ABCD" for example in asked if example.options)


def test_the_random_models_have_the_stated_size():
    from perf.subject import WIDTHS, build_model, build_processor

    widths = WIDTHS["mid"]
    processor = build_processor(widths)
    with torch.device("meta"):
        model = build_model(widths, processor)
    assert 100e6 < sum(weight.numel() for weight in model.parameters()) < 127e6
    assert len(processor.tokenizer) == 32_000
    assert model.config.image_seq_length == 576


def test_the_command_prints_json_with_the_machine(tiny, capsys, tmp_path):
    out = tmp_path / "x.json"
    code = command.main(
        [
            "--model",
            "tiny",
            "--quick",
            "--only",
            "trainer",
            "--reps",
            "2",
            "--threads",
            "1",
            "--json",
            "--out",
            str(out),
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert found == json.loads(out.read_text())
    assert {"device", "threads", "torch", "commit"} <= found["machine"].keys()
    command.main(["--table", str(out)])
    assert "| trainer |" in capsys.readouterr().out


def test_an_unknown_case_ends_with_the_list():
    with pytest.raises(SystemExit, match="npo_lora"):
        command.main(["--only", "npo_lroa"])


def test_a_packaged_model_that_is_not_there_ends_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "PACKAGED", {"smol": command.PACKAGED["smol"]._replace(model="lab-none")})
    with pytest.raises(SystemExit, match="Unknown packaged model 'lab-none'"):
        command.main(["--model", "smol", "--out", str(tmp_path / "x.json")])
    assert not list(tmp_path.iterdir())


TRAINER = ["--model", "tiny", "--quick", "--only", "trainer", "--reps", "2", "--out"]


def test_a_case_that_fails_says_so_and_is_measured_by_the_next_command(tmp_path, capsys, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("no such luck")

    out = str(tmp_path / "x.json")
    with monkeypatch.context() as patch:
        patch.setattr(command.steps, "measure_trainer", broken)
        assert command.main([*TRAINER, out]) == 1
    assert "FAILED: RuntimeError: no such luck" in capsys.readouterr().out
    monkeypatch.setattr(command.steps, "measure_trainer", lambda *_: {"overhead": 1.0})
    assert command.main([*TRAINER, out]) == 0
    assert json.loads(Path(out).read_text())["trainer"]["overhead"] == 1.0


def test_a_number_that_is_none_fails_the_case(tmp_path, monkeypatch):
    monkeypatch.setattr(command.steps, "measure_trainer", lambda *_: {"overhead": math.nan})
    assert command.main([*TRAINER, str(tmp_path / "x.json")]) == 1
    assert "ValueError" in json.loads((tmp_path / "x.json").read_text())["trainer"]["error"]


@pytest.fixture
def measured(monkeypatch):
    """Replace the measuring of cases; return the names that were measured, with their repetitions."""
    names = []

    def one(name, extent):
        names.append((name, extent.most(name)))
        if name == stop.get("at"):
            raise KeyboardInterrupt
        return {"speedup": 2.0, "repetitions": extent.most(name)}

    stop = {}
    monkeypatch.setattr(command, "one", one)
    return names, stop


CASES = ["--model", "tiny", "--only", "npo_lora,kl_lora,npo_full", "--threads", "1", "--out"]


def test_an_interrupted_command_keeps_finished_cases_and_goes_on_with_the_others(tmp_path, measured, capsys):
    names, stop = measured
    out = tmp_path / "x.json"
    stop["at"] = "kl_lora"
    assert command.main([*CASES, str(out)]) == 130
    assert "npo_lora" in json.loads(out.read_text())
    assert "the same command continues" in capsys.readouterr().err
    stop.clear()
    names.clear()
    assert command.main([*CASES, str(out)]) == 0
    assert [name for name, _ in names] == ["kl_lora", "npo_full"]
    error = capsys.readouterr().err
    assert "which holds 1 cases" in error
    assert "[2/3] kl_lora" in error
    assert "1 left" in error


def test_other_settings_start_anew_and_say_so(tmp_path, measured, capsys):
    names, _ = measured
    out = tmp_path / "x.json"
    command.main([*CASES, str(out)])
    names.clear()
    command.main([*CASES, str(out), "--batch", "3"])
    assert len(names) == 3
    assert "settings.batch_size was 4 and is 3" in capsys.readouterr().err
    assert json.loads((tmp_path / "x.previous.json").read_text())["settings"]["batch_size"] == 4


def test_another_device_starts_anew(tmp_path, measured, monkeypatch, capsys):
    names, _ = measured
    out = tmp_path / "x.json"
    command.main([*CASES, str(out)])
    names.clear()
    monkeypatch.setattr(command, "machine", lambda _: {"device": "another"})
    command.main([*CASES, str(out)])
    assert len(names) == 3
    assert "machine.device was" in capsys.readouterr().err


def test_more_cases_join_the_file(tmp_path, measured):
    out = tmp_path / "x.json"
    command.main([*CASES, str(out)])
    command.main([*CASES[:3], "ga_lora", *CASES[4:], str(out)])
    assert {"npo_lora", "kl_lora", "npo_full", "ga_lora"} <= json.loads(out.read_text()).keys()


def test_what_is_no_results_file_is_left_alone(tmp_path, measured):
    out = tmp_path / "x.json"
    out.write_text("a letter")
    with pytest.raises(SystemExit, match="Give another --out"):
        command.main([*CASES, str(out)])
    assert out.read_text() == "a letter"


def test_a_budget_leaves_the_costliest_cases_out_and_says_so(tmp_path, measured, monkeypatch, capsys):
    names, _ = measured
    monkeypatch.setattr(command.time, "perf_counter", lambda: 30.0 * len(names))  # every case takes half a minute
    assert command.main([*CASES, str(tmp_path / "x.json"), "--budget", "1.1"]) == 0
    assert [name for name, _ in names] == ["npo_lora", "npo_full"]
    assert "Left out, because 1.1 minutes do not suffice: kl_lora" in capsys.readouterr().err


def test_a_budget_lowers_repetitions_first():
    most = dict.fromkeys(["npo_lora", "kl_lora"], 9)
    full = sum(budget.cost(name, 9) for name in most)
    plan = partial(budget.plan, list(most), 2.0, most)
    assert plan(None).repetitions == 9
    assert plan(2 * full + 1).repetitions == 9
    some = plan(2 * full - 1)
    assert some.repetitions == 8
    assert not some.left_out
    assert some.seconds < 2 * full - 1
    none = plan(1.0)
    assert not none.cases
    assert none.left_out == ["npo_lora", "kl_lora"]


def test_without_a_pace_the_cheapest_case_tells_it():
    most = dict.fromkeys(["kl_lora", "trainer"], 9)
    plan = budget.plan(list(most), None, most, 600)
    assert plan.cases[0] == "trainer"
    assert plan.repetitions == budget.LEAST


def test_the_pace_is_seconds_per_unit_of_cost():
    entries = {"npo_lora": {"wall_seconds": 3 * budget.cost("npo_lora", 5), "repetitions": 5}, "x": {"error": "why"}}
    assert budget.pace(entries) == pytest.approx(3)
    assert budget.pace({"x": {"error": "why", "wall_seconds": 2.0}}) is None


def test_every_case_of_the_quick_suite_has_a_cost():
    extent = command.extent_of(command.parser().parse_args(["--quick"]))
    names = command._chosen(command.parser().parse_args(["--quick", "--model", "both"]))
    assert set(names) <= budget.COSTS.keys()
    assert 600 < sum(budget.cost(name, extent.most(name)) for name in names) < 1200


def test_shared_images_have_eight_questions_and_fill_a_batch(tiny, tmp_path):
    case = steps.CASES["npo_shared"]
    session = case.session(tiny, tmp_path, 3)
    plan = Plan(forget_targets(session), retain_targets(session), session.training, 0)
    for index in range(3):
        forget, retain = plan.batch(index)
        assert len(forget) == len(retain) == 4
        assert len({target.example.image.key for target in forget}) == 1
        assert len({target.example.question for target in forget}) == 4
    images = Counter(example.image.key for example in tiny.shared().forget)
    assert set(images.values()) == {8}


def test_a_failed_case_has_a_row_of_full_width():
    row = report.markdown({"x": {"error": "why"}, "machine": {}}).splitlines()[-1]
    assert row.count("|") == len(report.COLUMNS) + 1


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own():
    from perf import memory

    found = memory.compare("npo_lora", memory.Place("tiny", 2, 2))
    assert found["memory"] > 0
    assert found["memory_kept"] > 0
    assert set(found["gib"]) == {"unsee", "conventional"}


def test_results_kept_in_the_repository_can_be_printed():
    for file in (Path(report.__file__).parent / "results").glob("*.json"):
        assert "| case |" in report.markdown(json.loads(file.read_text(encoding="utf-8")))
