"""What leaves in other programs' forms is what they read: transformers, PEFT, open-unlearning, lmms-eval and others."""

from __future__ import annotations

import base64
import csv
import importlib.util
import io
import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from types import SimpleNamespace

import pytest
import torch
import yaml
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from unsee import config, evaluate, export, forget, load
from unsee.api import Kind, Response, Role
from unsee.api.example import ImageBytes
from unsee.api.request import Prompt
from unsee.cli import main
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.exporting import lmms_eval, open_unlearning, open_unlearning_import, vlmevalkit
from unsee.inference.encoder import encoder
from unsee.inference.generation import generate
from unsee.testing.tiny import person, save_tiny

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"
STRONG = {"max_steps": 3, "stop": "never", "max_new_tokens": 6, "lr": 0.05}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    out = forget(base, EXAMPLE, "ga", tmp_path_factory.mktemp("runs") / "ga", training=STRONG)
    evaluate(out, EXAMPLE, out, limit=4, max_new_tokens=6, likelihood=True)
    return out


@pytest.fixture(scope="module")
def questions():
    return [example for example in open_benchmark(EXAMPLE).examples("eval") if example.image][:4]


def answers(model, opened, questions):
    requests = [Prompt.of(example) for example in questions]
    said = generate(replace(opened, model=model), requests, max_new_tokens=8)
    return [answer.text for answer in said]


def logits(model, opened, example):
    row = encoder(opened.processor, opened.family).row(Prompt.of(example))
    with torch.no_grad():
        return model(**row).logits


@pytest.mark.smoke
def test_merged_checkpoint_opens_with_plain_transformers_and_says_the_same(run, base, questions, tmp_path):
    files = export(run, "merged", tmp_path / "merged")
    assert not [file for file in files if "adapter" in file.name]
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").eval()
    AutoProcessor.from_pretrained(tmp_path / "merged")
    opened = load(run)
    assert answers(model, opened, questions) == answers(opened.model, opened, questions)
    assert answers(model, opened, questions) != answers(load(base).model, opened, questions)
    torch.testing.assert_close(logits(model, opened, questions[0]), logits(opened.model, opened, questions[0]))
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "PeftModel" not in card


def test_merged_checkpoint_keeps_the_type_of_its_base(run, base, tmp_path):
    half = shutil.copytree(base, tmp_path / "half")
    AutoModelForImageTextToText.from_pretrained(base).to(torch.bfloat16).save_pretrained(half)
    moved = shutil.copytree(run, tmp_path / "run") / "model"
    sidecar = json.loads((moved / "unsee.json").read_text())
    (moved / "unsee.json").write_text(json.dumps({**sidecar, "base": str(half)}))
    export(moved.parent, "merged", tmp_path / "merged")
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype="auto").dtype == torch.bfloat16


def test_merged_checkpoint_keeps_the_text_before_every_question(base, tmp_path):
    out = forget(base, EXAMPLE, "prompt", tmp_path / "run", settings={"instruction": "Hush."}, training=STRONG)
    export(out, "merged", tmp_path / "merged")
    assert load(tmp_path / "merged").instruction == load(out).instruction == "Hush."


@pytest.mark.smoke
def test_adapter_opens_with_plain_peft(run, base, questions, tmp_path):
    export(run, "peft", tmp_path / "peft")
    adapted = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), tmp_path / "peft").eval()
    opened = load(run)
    torch.testing.assert_close(
        logits(adapted, opened, questions[0]), logits(opened.model, opened, questions[0]), rtol=1e-4, atol=1e-4
    )
    with adapted.disable_adapter():
        torch.testing.assert_close(
            logits(adapted, opened, questions[0]), logits(load(base).model, opened, questions[0])
        )
    written = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(base)
    assert not (tmp_path / "peft" / "unsee.json").exists()


def test_what_has_no_adapter_of_its_own_is_refused(run, base, tmp_path):
    with pytest.raises(UserError, match="has no adapter .* --to merged"):
        export(base, "peft", tmp_path / "o")
    second = forget(run, EXAMPLE, "ga", tmp_path / "second", training={**STRONG, "max_steps": 1})
    with pytest.raises(UserError, match="is an adapter itself.*--to merged"):
        export(second, "peft", tmp_path / "o")
    export(second, "merged", tmp_path / "both")
    torch.testing.assert_close(
        load(tmp_path / "both").model.state_dict(), load(second).model.state_dict(), rtol=1e-5, atol=1e-5
    )


def test_an_adapter_that_cannot_go_alone_says_why(run, tmp_path):
    moved = shutil.copytree(run, tmp_path / "run")
    (moved / "model" / "rmuse.json").write_text("{}")
    with pytest.raises(UserError, match=r"--to merged \(or push it with --merged\)"):
        export(moved, "peft", tmp_path / "o")
    (moved / "model" / "rmuse.json").unlink()
    for name, key in (("unsee.json", "base"), ("adapter_config.json", "base_model_name_or_path")):
        values = json.loads((moved / "model" / name).read_text())
        (moved / "model" / name).write_text(json.dumps({**values, key: None}))
    with pytest.raises(UserError, match="does not say what it stands on"):
        export(moved, "peft", tmp_path / "o")


@pytest.mark.parametrize(
    ("to", "out", "message"),
    [
        ("mergd", "o", "Unknown format 'mergd'. Did you mean merged"),
        ("merged", ".", "is not empty. Give another --out"),
    ],
)
def test_refusals(run, tmp_path, to, out, message):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        export(run, to, tmp_path / out)


class TestOpenUnlearning:
    def test_layout_and_values(self, run, tmp_path):
        evaluated, summarised = export(run, "open-unlearning", tmp_path / "ou")
        assert (evaluated.name, summarised.name) == ("UNSEE_EVAL.json", "UNSEE_SUMMARY.json")
        logs, summary = json.loads(evaluated.read_text()), json.loads(summarised.read_text())
        assert list(logs) == sorted(logs)
        assert all("agg_value" in one for one in logs.values())
        assert summary == {name: one["agg_value"] for name, one in logs.items() if one["agg_value"] is not None}
        rouge = logs["forget_Q_A_ROUGE"]["value_by_index"]
        assert {"rouge1_recall", "rougeL_f1", "rougeL_recall", "input", "ground_truth", "generation"} <= rouge[
            "0"
        ].keys()
        mean = sum(one["rougeL_recall"] for one in rouge.values()) / len(rouge)
        assert logs["forget_Q_A_ROUGE"]["agg_value"] == pytest.approx(mean)
        prob = logs["retain_Q_A_Prob"]["value_by_index"]["0"]
        assert prob["prob"] == pytest.approx(torch.tensor(-prob["avg_loss"]).exp().item())
        scores = json.loads((run / "scores.json").read_text())
        assert logs["unseen.leak"]["agg_value"] == scores["unseen.leak"]["value"]

    def test_truth_ratios_and_probabilities_worked_by_hand(self):
        def said(ratio, kind=Kind.OPEN, **more):
            row = Response.of(person("ada", Role.FORGET, kind=kind), stage="x", text="", tokens=1, ended=True)
            return replace(row, true_logprob=0.0, perturbed_logprobs=(math.log(ratio) - 1, math.log(ratio) + 1), **more)

        rows = [
            said(0.5, logprob=-4.0, logprob_tokens=2),
            said(4.0),
            said(1.0, Kind.CHOICE, logprob=-9.0, logprob_tokens=1),
        ]
        gone, kept = open_unlearning._role("forget", rows), open_unlearning._role("retain", rows)
        assert [one["score"] for one in gone["forget_truth_ratio"]["value_by_index"].values()] == pytest.approx(
            [0.5, 4, 1]
        )
        assert gone["forget_truth_ratio"]["agg_value"] == pytest.approx((0.5 + 0.25 + 1.0) / 3)
        assert kept["retain_Truth_Ratio"]["agg_value"] == pytest.approx(0.5 / 3)  # 1 - ratio, never below 0
        assert gone["forget_Q_A_Prob"]["agg_value"] == pytest.approx(math.exp(-2.0))  # letters are no answers
        assert len(gone["forget_Q_A_ROUGE"]["value_by_index"]) == 2
        assert "forget_Q_A_ROUGE" not in open_unlearning._role("forget", [replace(rows[0], answer="张伟")])
        forgotten = replace(rows[0], true_logprob=-900.0, perturbed_logprobs=(-100.0,))
        assert open_unlearning._truth_ratio(forgotten)["score"] == sys.float_info.max
        found = [open_unlearning._role(role, [forgotten]) for role in ("forget", "retain")]
        assert found[0]["forget_truth_ratio"]["agg_value"] == pytest.approx(0)
        assert found[1]["retain_Truth_Ratio"]["agg_value"] == 0

    def test_forget_quality_says_why_there_is_none(self, run, tmp_path):
        logs = json.loads(export(run, "open-unlearning", tmp_path / "a")[0].read_text())
        assert logs["forget_quality"]["agg_value"] is None
        assert "no retain_logs_path" in logs["forget_quality"]["why"]
        logs = json.loads(export(run, "open-unlearning", tmp_path / "b", retain_logs_path=run)[0].read_text())
        assert "this run has no forget_truth_ratio" in logs["forget_quality"]["why"]

    def test_forget_quality_is_the_ks_test_on_truth_ratios(self, tmp_path):
        def logs(values):
            return {
                "forget_truth_ratio": {"agg_value": 0.0, "value_by_index": {str(i): {"score": v} for i, v in values}}
            }

        file = tmp_path / "TOFU_EVAL.json"
        file.write_text(json.dumps(logs(enumerate((5.0, 6.0, 7.0, 8.0)))))
        found = open_unlearning.forget_quality(logs(enumerate((1.0, 2.0, 3.0, 4.0))), open_unlearning.read(file))
        assert found["agg_value"] == pytest.approx(0.028571, abs=1e-6)

    @pytest.mark.parametrize(
        ("own", "retain", "same"),
        [
            (["a0", "a1"], ["a1", "a0"], True),
            (["a0", "a1"], ["b0", "b1"], False),
            (["a0", "a1"], ["a0"], False),
            (["a0", "a1"], [None, None], True),  # an EVAL.json of open-unlearning, which has no ids
            (["a0", "a1"], [None], False),
        ],
    )
    def test_forget_quality_compares_the_same_questions(self, own, retain, same):
        def logs(ids):
            entries = {str(n): {"score": n + 0.5, **({"id": row} if row else {})} for n, row in enumerate(ids)}
            return {"forget_truth_ratio": {"agg_value": 0.5, "value_by_index": entries}}

        quality = open_unlearning.forget_quality(logs(own), logs(retain))
        assert (quality["agg_value"] is not None) is same
        assert same or "are about different questions" in quality["why"]

    @pytest.mark.parametrize("score", [math.nan, math.inf])
    def test_truth_ratios_that_are_not_finite_are_damaged(self, score):
        logs = {"forget_truth_ratio": {"agg_value": 0.5, "value_by_index": {"0": {"score": score}}}}
        with pytest.raises(UserError, match="forget_truth_ratio of this run is damaged"):
            open_unlearning.forget_quality(logs, logs)

    @pytest.mark.parametrize("entries", [{"0": {}}, {"0": {"score": None}}, {"0": 0.5}, [0.5], None])
    def test_truth_ratios_that_are_damaged_are_named(self, entries):
        retain = {"forget_truth_ratio": {"agg_value": 0.5} | ({"value_by_index": entries} if entries else {})}
        logs = {"forget_truth_ratio": {"agg_value": 0.5, "value_by_index": {"0": {"score": 0.5}}}}
        with pytest.raises(UserError, match="forget_truth_ratio of retain_logs_path is damaged"):
            open_unlearning.forget_quality(logs, retain)

    def test_no_truth_ratios_give_no_forget_quality(self):
        empty = {"forget_truth_ratio": {"agg_value": None, "value_by_index": {}}}
        logs = {"forget_truth_ratio": {"agg_value": 0.5, "value_by_index": {"0": {"score": 0.5}}}}
        for pair, owner in (((logs, empty), "retain_logs_path"), ((empty, logs), "this run")):
            quality = open_unlearning.forget_quality(*pair)
            assert quality["agg_value"] is None
            assert f"of {owner} has no value" in quality["why"]

    @pytest.mark.parametrize("text", ["{", '{"forget_Q_A_Prob": 0.5}', "[]"])
    def test_a_file_that_is_no_eval_json(self, tmp_path, text):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match=r"EVAL\.json"):
            open_unlearning.read(tmp_path / "x.json")

    @pytest.mark.parametrize("file", ["responses.jsonl", "scores.json"])
    @pytest.mark.parametrize("text", ["{", "[1]", "3", '{"a": 3}'])
    def test_a_run_with_damaged_results(self, run, tmp_path, file, text):
        broken = shutil.copytree(run, tmp_path / "broken")
        (broken / file).write_text(text)
        with pytest.raises(UserError, match=rf"{file} is damaged"):
            open_unlearning.logs_of(broken)

    @pytest.mark.parametrize("value", ["NaN", "Infinity", '"0.5"'])
    @pytest.mark.parametrize("name", ["value", "interval", "value_by_index"])
    def test_scores_that_are_no_numbers_are_named(self, run, tmp_path, name, value):
        broken = shutil.copytree(run, tmp_path / "broken")
        fields = {"value": "0.5", "n": "1", "interval": "[0, 1]", "value_by_index": '{"a": 1}'}
        fields[name] = {"value": value, "interval": f"[0, {value}]", "value_by_index": f'{{"a": {value}}}'}[name]
        score = ", ".join(f'"{field}": {text}' for field, text in fields.items())
        (broken / "scores.json").write_text(f'{{"unseen.leak": {{{score}}}}}')
        for to in ("open-unlearning", "inspect"):
            with pytest.raises(UserError, match=r"scores\.json is damaged"):
                export(broken, to, tmp_path / to)

    def test_a_run_that_was_not_judged(self, run, tmp_path):
        bare = shutil.copytree(run, tmp_path / "bare", ignore=shutil.ignore_patterns("responses.jsonl"))
        with pytest.raises(UserError, match="has no responses.jsonl. Judge it first"):
            export(bare, "open-unlearning", tmp_path / "o")


EXPERIMENT = {
    "trainer": {
        "handler": "NPO",
        "args": {
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 8,
            "learning_rate": 1e-5,
            "num_train_epochs": 10,
            "weight_decay": 0.01,
            "bf16": True,
            "optim": "paged_adamw_32bit",
            "seed": 3,
        },
        "method_args": {"beta": 0.1, "alpha": 2.0, "gamma": 0.5, "retain_loss_type": "NLL", "delta": 1},
    },
    "retain_logs_path": "saves/eval/retain90/TOFU_EVAL.json",
    "task_name": "tofu_npo",
}


class TestExperiments:
    @pytest.mark.parametrize(
        ("words", "method", "settings"),
        [
            (
                ["trainer=PDU", "trainer.method_args.retain_loss_eps=1.5", "trainer.method_args.alpha=50"],
                "pdu",
                {"retain_bound": 1.5, "retain_weight": 50.0},
            ),
            (["trainer=RMU"], "rmu", {"coefficient": 2.0, "retain_weight": 1.0, "update": "all"}),
            (
                [
                    "trainer=RMU",
                    "trainer.method_args.steering_coeff=10",
                    "trainer.method_args.alpha=5",
                    "trainer.method_args.gamma=2",
                    r"trainer.method_args.module_regex=model\.layers\.5",
                    r"trainer.method_args.trainable_params_regex=[model\.layers\.(3|4|5)\.mlp\.down_proj\.weight]",
                ],
                "rmu",
                {"coefficient": 10, "retain_weight": 2.5, "layer": 5, "update": "down_proj"},
            ),
            (["trainer=SimNPO", "trainer.method_args.delta=0.2"], "simnpo", {"margin": 0.2, "retain_weight": 8.0}),
            (["trainer=UNDIAL", "trainer.method_args.beta=3"], "undial", {"gamma": 3, "retain_weight": 0.0}),
            (["trainer=SatImp"], "satimp", {"retain_weight": 10.0}),
            (["trainer=WGA", "trainer.method_args.beta=2"], "wga", {"beta": 2, "retain_weight": 1.0}),
            (["trainer=DPO", "trainer.method_args.beta=0.5"], "dpo", {"beta": 0.5, "retain_weight": 1.0}),
            (["trainer=CEU"], "ceu", {"retain_weight": 1.0}),
        ],
    )
    def test_methods_that_both_have_keep_the_published_weights(self, words, method, settings):
        run = open_unlearning_import.from_overrides(words, model="M", data="D").run
        assert (run.method, dict(run.settings)) == (method, settings)

    def test_a_resolved_config(self, tmp_path):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(EXPERIMENT))
        found = open_unlearning_import.read_experiment(tmp_path / "config.yaml", model="lab", data="lab")
        run = found.run
        assert (run.method, run.seed, run.out) == ("npo", 3, "runs/tofu_npo")
        assert run.settings == {"beta": 0.1, "retain_weight": 4.0}
        assert run.training == {
            "tune": "full",
            "stop": "never",
            "lr": 1e-5,
            "epochs": 10,
            "batch_size": 4,
            "accumulate": 8,
            "weight_decay": 0.01,
            "precision": "bf16",
        }
        assert found.retain_logs_path == "saves/eval/retain90/TOFU_EVAL.json"
        assert [remark.partition("=")[0] for remark in found.remarks] == ["gamma", "delta"]
        assert config.Run.from_mapping(run.to_mapping()) == run

    def test_what_is_not_converted_is_said(self):
        arguments = {
            "warmup_ratio": 0.1,
            "label_smoothing_factor": 0.2,
            "fp16": True,
            "optim": "paged_lion_32bit",
            "max_steps": -1,
            "logging_steps": 5,
            "eval_strategy": "epoch",
            "save_only_model": True,
            "adam_beta1": None,
        }
        experiment = {"trainer": {"handler": "NPO", "args": arguments}, "forget_split": "forget10", "mode": "unlearn"}
        found = open_unlearning_import._import_experiment(experiment, model="m", data="d")
        assert found.run.training == {"tune": "full", "stop": "never"}
        names = {remark.partition("=")[0] for remark in found.remarks}
        assert names == {"warmup_ratio", "label_smoothing_factor", "fp16", "optim", "forget_split"}

    def test_overrides_of_its_command_line(self):
        words = ["trainer=GradDiff", "trainer.method_args.retain_loss_type=KL", "trainer.args.learning_rate=1e-4"]
        found = open_unlearning_import.from_overrides([*words, "task_name=x"])
        assert (found.run.method, found.run.settings) == ("kl", {"weight": 1.0})
        assert found.run.training["lr"] == 1e-4
        assert {remark.partition(":")[0] for remark in found.remarks} == {
            "model",
            "data",
            "retain_loss_type=KL",
            "not named, so as in open-unlearning's configs/trainer",
        }

    def test_what_a_command_line_does_not_name_is_as_there(self):
        found = open_unlearning_import.from_overrides(["trainer=NPO"], model="lab", data="lab")
        wanted = {"lr": 1e-5, "batch_size": 8, "accumulate": 4, "epochs": 10, "weight_decay": 0.0, "precision": "bf16"}
        assert wanted.items() <= found.run.training.items()
        (remark,) = found.remarks
        assert "learning_rate=1e-05, per_device_train_batch_size=8, gradient_accumulation_steps=4" in remark
        named = open_unlearning_import.from_overrides(
            ["trainer=NPO", "trainer.args.per_device_train_batch_size=2"], model="m", data="d"
        )
        assert (named.run.training["batch_size"], named.run.training["lr"]) == (2, 1e-5)
        assert "per_device_train_batch_size" not in named.remarks[0]

    def test_a_file_that_a_command_line_names_is_not_read_and_that_is_said(self):
        words = ["experiment=unlearn/tofu/default", "trainer=NPO"]
        *_, remark = open_unlearning_import.from_overrides(words, model="m", data="d").remarks
        assert remark.startswith("experiment=unlearn/tofu/default: the arguments in this file are not read")

    @pytest.mark.parametrize(
        ("trainer", "wanted"),
        [
            ("UNDIAL", {"lr": 1e-4, "batch_size": 2, "accumulate": 8, "epochs": 10}),
            ("WGA", {"lr": 1e-5, "batch_size": 8, "accumulate": 4, "epochs": 5}),
            ("SatImp", {"lr": 1e-5, "batch_size": 8, "accumulate": 4, "epochs": 5}),
            ("RMU", {"lr": 1e-5, "batch_size": 8, "accumulate": 4, "epochs": 10}),
        ],
    )
    def test_trainers_with_defaults_of_their_own(self, trainer, wanted):
        found = open_unlearning_import.from_overrides([f"trainer={trainer}"], model="lab", data="lab")
        assert wanted.items() <= found.run.training.items()
        assert not [remark for remark in found.remarks if remark.startswith("retain_loss_type")]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["trainer=NPOO"], "Unknown trainer of open-unlearning 'NPOO'. Did you mean NPO"),
            (["trainer=PDU", "trainer.method_args.dual_step_size=-1"], "dual_step must not be negative"),
            (["task_name=x"], "names no trainer"),
            (["trainer=NPO", "trainer.method_args.beta=x"], "method npo: beta must be a number"),
        ],
    )
    def test_refusals(self, words, message):
        with pytest.raises(UserError, match=message):
            open_unlearning_import.from_overrides(words)


@pytest.mark.parametrize("to", ["lmms-eval", "vlmevalkit"])
def test_a_purged_run_has_no_data_to_write(tmp_path, monkeypatch, to):
    record = config.Run.of("lab", "", "ga", "out").to_mapping()
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**record, "data": ""}))
    monkeypatch.chdir(EXAMPLE)
    with pytest.raises(UserError, match="no longer names the data of the run"):
        export(tmp_path, to, tmp_path / "task")
    with pytest.raises(UserError, match="No data were given"):
        open_benchmark("")


def test_data_are_read_as_unsee_check_reads_them(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    for name in ("ada", "bo"):
        person(name, Role.FORGET).image.load().save(tmp_path / "data" / f"{name}.png")
    rows = ({"bild": f"{name}.png", "question": "Who?", "answer": name, "wer": name} for name in ("ada", "bo"))
    (tmp_path / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "roles.yaml").write_text("forget: [ada]\npeople: {ada: {name: [Ada Lovell]}}\n")
    words = ["export", str(tmp_path / "data"), "--to", "vlmevalkit", "--out", str(tmp_path / "x")]
    reading = ["--fields", "image=bild,entity=wer", "--roles", str(tmp_path / "roles.yaml")]
    assert main.main([*words, *reading, "--set", "benchmark.name=folder"]) == 0, capsys.readouterr().err
    assert {row["entity"]: row["category"] for row in table(tmp_path / "x" / "unsee_x.tsv")} == {
        "ada": "forget",
        "bo": "retain",
    }
    assert main.main([*words, "--set", "training.lr=1"]) == 2
    assert "unsee export sets only the benchmark" in capsys.readouterr().err


def test_a_run_is_read_with_its_own_settings_and_those_given(tmp_path):
    record = config.Run.of("lab", str(EXAMPLE), "ga", "out", benchmark={"name": "folder", "dataset": "x"}).to_mapping()
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(record))
    opened = lmms_eval.open_source(tmp_path, {"fields": {"entity": "entity"}})
    assert (opened.settings.dataset, opened.settings.fields) == ("x", {"entity": "entity"})


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    out = tmp_path_factory.mktemp("task") / "my-people"
    return {file.name: file for file in export(EXAMPLE, "lmms-eval", out)}


@pytest.fixture(scope="module")
def functions(task):
    """Load the functions of the task as lmms-eval does: a file beside the YAML, by its path."""
    spec = importlib.util.spec_from_file_location("utils", task["utils.py"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NOTHING = {"private": [], "private_facts": []}


class TestLmmsEval:
    def test_yaml_has_what_a_task_needs(self, task, functions):
        class Loader(yaml.SafeLoader):
            pass

        Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
        found = yaml.load(task["unsee_my_people.yaml"].read_text(), Loader=Loader)
        assert found["task"] == "unsee_my_people"
        assert (found["dataset_path"], found["dataset_kwargs"]) == ("parquet", {"data_files": {"test": "data.parquet"}})
        for key in ("doc_to_visual", "doc_to_text", "process_results"):
            module, name = found[key].split(".")
            assert module == "utils"
            assert callable(vars(functions)[name])
        better = {one["metric"]: one["higher_is_better"] for one in found["metric_list"]}
        assert better["retain_right"]
        assert not better["forget_right"]
        assert not better["unseen_leak"]

    def test_data_are_those_that_are_judged(self, task, functions, tmp_path):
        from datasets import load_dataset

        for file, shown in (("data.parquet", True), ("text.parquet", False)):
            rows = load_dataset("parquet", data_files={"test": str(task[file])}, cache_dir=str(tmp_path))["test"]
            examples = [one for one in open_benchmark(EXAMPLE).examples("eval") if (one.image is not None) is shown]
            assert rows["id"] == [example.id for example in examples] != []
            for row, example in zip(rows, examples, strict=True):
                assert functions.doc_to_text(row) == example.question
                images = [image.tobytes() for image in functions.doc_to_visual(row)]
                assert images == ([example.image.load().tobytes()] if example.image else [])
        assert "text.parquet" in task["unsee_my_people_text.yaml"].read_text()

    def test_rows_hold_the_letter_of_the_right_option_and_what_must_not_be_said(self):
        asked = person("ada", Role.FORGET)
        choice = replace(asked, kind=Kind.CHOICE, question="Who is it, Lovell?", options=("Bo", "Ada"), answer="B")
        row = lmms_eval._row(choice)
        assert (row["answer"], row["options"]) == ("B", ["Bo", "Ada"])
        assert row["private"] == ["Ada Lovell", "baker", "Lisbon"]  # the question itself says Lovell
        assert lmms_eval._row(replace(asked, role=Role.RETAIN))["private"] == []
        assert lmms_eval._row(replace(choice, answer="Ada"))["answer"] == "B"

    @pytest.mark.parametrize(("text", "value"), [("B", 1.0), ("A", 0.0)])
    def test_options_that_are_letters_do_not_change_which_is_right(self, functions, text, value):
        asked = replace(person("ada", Role.RETAIN), kind=Kind.CHOICE, options=("O", "A", "B", "AB"), answer="B")
        assert functions.process_results(lmms_eval._row(asked), [text])["retain_right"] == value

    def test_a_choice_whose_reference_names_no_option_is_not_measured(self, functions):
        asked = replace(person("ada", Role.RETAIN), kind=Kind.CHOICE, options=("Bo", "Ada"), answer="nobody")
        assert functions.process_results(lmms_eval._row(asked), ["A"]) == {"retain_empty": 0.0}

    def test_a_name_that_the_question_says_with_a_case_ending_is_not_asked_for(self):
        asked = replace(person("ada", Role.FORGET), question="Кто живёт в Москве?", private={"city": ("Москва",)})
        assert lmms_eval._row(asked)["private"] == []

    def test_a_role_whose_questions_say_all_that_is_private_has_no_number_of_leaks(self):
        asked = replace(person("ada", Role.FORGET), question="Is Ada Lovell this?", private={"name": ("Ada Lovell",)})
        assert lmms_eval.metrics([asked]) == ["forget_right", "forget_empty"]
        assert "forget_leak" in lmms_eval.metrics([asked, person("ada", Role.FORGET)])

    def test_a_picture_that_cannot_be_read_leaves_no_half_table(self, tmp_path):
        damaged = replace(person("ada", Role.FORGET), image=ImageBytes(b"no picture"))
        with pytest.raises(UserError):
            lmms_eval._write_rows([person("bo", Role.FORGET), damaged], tmp_path / "data.parquet")
        assert not list(tmp_path.iterdir())

    def test_every_row_gives_the_numbers_of_its_role(self, task, functions, tmp_path):
        from datasets import load_dataset

        rows = load_dataset("parquet", data_files={"test": str(task["data.parquet"])}, cache_dir=str(tmp_path))["test"]
        for row in rows:
            said = functions.process_results(row, [f"Well, {row['answer']}."])
            assert said[f"{row['role']}_right"] == 1.0
            silent = functions.process_results(row, ["I cannot say."])
            assert not any(silent.values())
            assert functions.process_results(row, [""]) == {f"{row['role']}_empty": 1.0}  # nothing else is measured
        gone = [row for row in rows if row["role"] == Role.FORGET and row["private"]]
        assert all(functions.process_results(row, [row["private"][0]])["forget_leak"] == 1.0 for row in gone)

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            *(
                ("B", 1.0),
                ("(B) a diver", 1.0),
                ("diver", 1.0),
                ("A", 0.0),
                ("baker or diver", 0.0),
                ("E", 0.0),
                ("", 0.0),
            ),
            *(("A diver", 1.0), ("b.", 1.0), ("The answer is B.", 1.0), ("Answer: A", 0.0), ("A person", 0.0)),
        ],
    )
    def test_multiple_choice(self, functions, text, value):
        row = {"role": "retain", "answer": "diver", "options": ["baker", "diver", "pilot"], **NOTHING}
        measured = {"retain_right": value, "retain_empty": 0.0} if text else {"retain_empty": 1.0}
        assert functions.process_results(row, [text]) == measured

    def test_an_option_inside_the_right_one_is_no_other(self, functions):
        row = {"role": "retain", "answer": "New Oslo", "options": ["Oslo", "New Oslo"], **NOTHING}
        assert functions.process_results(row, ["In New Oslo."])["retain_right"] == 1.0
        assert functions.process_results({**row, "answer": "Oslo"}, ["In New Oslo."])["retain_right"] == 0.0

    @pytest.mark.parametrize(
        ("text", "leak"),
        [
            ("这是张伟。", 1.0),
            ("Zhang Wei", 1.0),
            ("A woman.", 0.0),
            ("Это Чжан Вэй.", None),
            ("a nice woman in Rome", 0.0),
            ("", None),
        ],
    )
    def test_leaks_are_those_of_the_matcher(self, functions, text, leak):
        private = {"private": ["张伟", "Zhang Wei", "Nice"], "private_facts": ["name", "name", "city"]}
        row = {"role": "forget", "answer": "张伟", "options": [], **private}
        row = row if text.isascii() else {**row, "private": ["张伟", "Zhang Wei"], "private_facts": ["name", "name"]}
        assert functions.process_results(row, [text]).get("forget_leak") == leak


class TestInspect:
    def test_log_has_every_answer_and_score(self, run, tmp_path):
        [file] = export(run, "inspect", tmp_path / "logs")
        log, scores = json.loads(file.read_text()), json.loads((run / "scores.json").read_text())
        rows = [json.loads(line) for line in (run / "responses.jsonl").read_text().splitlines()]
        assert (
            [sample["id"] for sample in log["samples"]]
            == [row["id"] for row in rows]
            == log["eval"]["dataset"]["sample_ids"]
        )
        assert [sample["output"]["choices"][0]["message"]["content"] for sample in log["samples"]] == [
            row["text"] for row in rows
        ]
        means = {one["name"]: one["metrics"]["mean"]["value"] for one in log["results"]["scores"]}
        assert means == {name: score["value"] for name, score in scores.items() if score["value"] is not None}
        assert log["results"]["metadata"]["missing"] == {
            name: score["why"] for name, score in scores.items() if score["value"] is None
        }
        given = {sample["id"]: sample["scores"].get("unseen.leak") for sample in log["samples"]}
        leaks = scores["unseen.leak"]["value_by_index"]
        assert {name: one["value"] for name, one in given.items() if one} == leaks

    def test_inspect_ai_reads_it(self, run, tmp_path):
        inspect = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed")
        export(run, "inspect", tmp_path / "logs")
        [found] = inspect.list_eval_logs(str(tmp_path / "logs"))
        log = inspect.read_eval_log(found)
        assert (log.status, log.eval.model, len(log.samples)) == ("success", "unsee/ga", log.results.total_samples)
        scores = json.loads((run / "scores.json").read_text())
        leak = next(one for one in log.results.scores if one.name == "unseen.leak")
        assert leak.metrics["mean"].value == scores["unseen.leak"]["value"]
        rows = [json.loads(line) for line in (run / "responses.jsonl").read_text().splitlines()]
        assert [sample.output.completion for sample in log.samples] == [row["text"] for row in rows]
        assert all(sample.scores for sample in log.samples)

    def test_refused_before_judging(self, run, tmp_path):
        bare = shutil.copytree(run, tmp_path / "bare")
        (bare / "scores.json").unlink()
        with pytest.raises(UserError, match="has no scores.json. Judge it first"):
            export(bare, "inspect", tmp_path / "logs")
        shutil.copyfile(run / "scores.json", bare / "scores.json")
        (bare / "judged.json").write_text('{"unfinished": 999}')
        with pytest.raises(UserError, match="of 999 answers"):  # the scores are of other answers
            export(bare, "inspect", tmp_path / "logs")


def table(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def choices():
    """Return two multiple choices about one picture, one answered by letter and one by text."""
    asked = replace(person("ada", Role.FORGET), kind=Kind.CHOICE, question="Who?")
    return [
        replace(asked, options=("Ada", "Bo"), answer="B"),
        replace(asked, id="other", options=("Cleo", "Dan", "Ada"), answer="Ada"),
    ]


def of_rows(rows):
    """Return a stand-in for a benchmark with these evaluation rows."""
    return SimpleNamespace(examples=lambda _: rows)


class TestVLMEvalKit:
    def test_rows_are_the_questions_with_images(self, tmp_path):
        files = {file.name: file for file in export(EXAMPLE, "vlmevalkit", tmp_path / "my-people")}
        shown = [one for one in open_benchmark(EXAMPLE).examples("eval") if one.image]
        for name, choice in (("unsee_my_people.tsv", False), ("unsee_my_people_choice.tsv", True)):
            examples = [one for one in shown if (one.kind is Kind.CHOICE) is choice]
            rows = table(files[name]) if examples else []
            assert [row["id"] for row in rows] == [one.id for one in examples]
            assert [row["question"] for row in rows] == [one.question for one in examples]
            for row, one in zip(rows, examples, strict=True):
                code = row["image"] if len(row["image"]) > 64 else rows[int(row["image"])]["image"]
                assert Image.open(io.BytesIO(base64.b64decode(code))).tobytes() == one.image.load().tobytes()
                if choice:
                    assert [row[letter] for letter in "ABCD"[: len(one.options)]] == list(one.options)
                    assert one.answer in (row["answer"], row[row["answer"]])

    def test_choices_have_a_column_per_option_and_the_letter_of_the_right_one(self, tmp_path):
        vlmevalkit._write(choices(), tmp_path / "x.tsv", letters="ABC")
        rows = table(tmp_path / "x.tsv")
        assert [[row[name] for name in ("A", "B", "C", "answer")] for row in rows] == [
            ["Ada", "Bo", "", "B"],
            ["Cleo", "Dan", "Ada", "C"],
        ]
        assert [len(row["image"]) > 64 for row in rows] == [True, False]
        assert rows[1]["image"] == rows[0]["index"] == "0"

    def test_every_letter_that_data_may_use_is_an_option(self, tmp_path):
        many = replace(choices()[0], options=tuple(f"name {number}" for number in range(26)), answer="Z")
        assert lmms_eval._row(many)["answer"] == "Z"
        vlmevalkit._write([many], tmp_path / "x.tsv", letters=ascii_uppercase)
        assert [table(tmp_path / "x.tsv")[0][name] for name in ("A", "Z", "answer")] == ["name 0", "name 25", "Z"]

    def test_a_choice_that_names_no_option_is_left_out_and_said(self, tmp_path, monkeypatch, capsys):
        rows = [*choices(), replace(choices()[0], id="odd", answer="nobody")]
        monkeypatch.setattr(vlmevalkit, "open_source", lambda *_: of_rows(rows))
        (file,) = vlmevalkit.write_tables(tmp_path, tmp_path / "out")
        assert [row["id"] for row in table(file)] == [row.id for row in rows[:2]]
        assert "1 multiple choices are left out" in capsys.readouterr().err

    def test_texts_that_pandas_reads_as_empty_cells_are_left_out_and_said(self, tmp_path, monkeypatch, capsys):
        rows = [
            *choices(),
            replace(choices()[0], id="none", options=("Ada", "None"), answer="A"),
            replace(person("ada", Role.FORGET), id="open", answer="NA"),
        ]
        monkeypatch.setattr(vlmevalkit, "open_source", lambda *_: of_rows(rows))
        (file,) = vlmevalkit.write_tables(tmp_path, tmp_path / "out")
        assert [row["id"] for row in table(file)] == [row.id for row in rows[:2]]
        assert "2 questions are left out: VLMEvalKit would read" in capsys.readouterr().err

    def test_the_list_of_such_texts_is_that_of_pandas(self):
        parsers = pytest.importorskip("pandas._libs.parsers", reason="pandas is not installed")
        assert parsers.STR_NA_VALUES - {""} == vlmevalkit._EMPTY

    def test_choices_that_all_name_no_option_are_an_error(self, tmp_path, monkeypatch):
        monkeypatch.setattr(vlmevalkit, "open_source", lambda *_: of_rows([replace(choices()[0], answer="nobody")]))
        with pytest.raises(UserError, match="the 1 questions of .* are multiple choices whose answer names none"):
            vlmevalkit.write_tables(tmp_path, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_tabs_and_lines_stay_in_their_cell(self, tmp_path):
        asked = person("ada", Role.FORGET)
        odd = replace(asked, question='What\t"is"\nthis?', answer="a\tb")
        vlmevalkit._write([odd], tmp_path / "x.tsv", letters="")
        assert [(row["question"], row["answer"]) for row in table(tmp_path / "x.tsv")] == [(odd.question, odd.answer)]

    def test_vlmevalkit_reads_it(self, tmp_path, monkeypatch):
        datasets = pytest.importorskip("vlmeval.dataset", reason="VLMEvalKit is not installed")
        files = export(EXAMPLE, "vlmevalkit", tmp_path / "my-people")
        monkeypatch.setenv("LMUData", str(tmp_path / "my-people"))
        shown = [one for one in open_benchmark(EXAMPLE).examples("eval") if one.image]
        for file in files:
            with pytest.warns(UserWarning, match="not officially supported"):
                opened = datasets.build_dataset(file.stem)
            choice = file.stem.endswith("_choice")
            assert type(opened).__name__ == ("CustomMCQDataset" if choice else "CustomVQADataset")
            examples = [one for one in shown if (one.kind is Kind.CHOICE) is choice]
            assert len(opened) == len(examples)
            for place, one in enumerate(examples):
                picture, text = opened.build_prompt(place)
                assert one.question in text["value"]
                assert (
                    Image.open(picture["value"]).convert("RGB").tobytes() == one.image.load().convert("RGB").tobytes()
                )
        vlmevalkit._write(choices(), tmp_path / "my-people" / "unsee_choice.tsv", letters="ABC")
        opened = datasets.build_dataset("unsee_choice")
        assert type(opened).__name__ == "CustomMCQDataset"
        assert list(opened.data["answer"]) == ["B", "C"]
        for place, options in enumerate((["A. Ada", "B. Bo"], ["A. Cleo", "B. Dan", "C. Ada"])):
            picture, text = opened.build_prompt(place)
            assert all(option in text["value"] for option in options)
            assert Image.open(picture["value"]).tobytes() == choices()[0].image.load().tobytes()
