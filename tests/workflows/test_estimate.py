"""The memory estimate: within 20 % of what tensors really take, the same checks as a run, and no trace of it."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from transformers import LlavaConfig

from helpers.estimate import SHORT, SLOW, taken
from helpers.run import EXAMPLE
from unsee import config, estimate, forget
from unsee.api import Method, Needs, registry
from unsee.cli import main
from unsee.compat.fake_tensors import Meter
from unsee.errors import UserError
from unsee.inference.generation import generate
from unsee.testing.tiny import save_tiny, tiny_model, tiny_processor
from unsee.workflows import forget as workflows_forget
from unsee.workflows import memory_model
from unsee.workflows.estimator import missing_weights
from unsee.workflows.probe import Timing


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.mark.parametrize(
    ("method", "training"),
    [
        ("npo", {"tune": "lora", "precision": "bf16", "batch_size": 4}),
        ("ga", {"tune": "full", "precision": "fp32", "batch_size": 2}),
        pytest.param("npo", {"tune": "lora", "precision": "fp32", "batch_size": 1}, marks=SLOW),
        pytest.param("kl", {"tune": "full", "precision": "bf16", "batch_size": 4}, marks=SLOW),
        pytest.param("ga", {"batch_size": 4, "parts": ["vision", "projector", "language"]}, marks=SLOW),
        pytest.param("ga", {"tune": "full", "precision": "bf16", "batch_size": 8}, marks=SLOW),
        pytest.param("grad_diff", {"tune": "lora", "batch_size": 4}, marks=SLOW),
        pytest.param("grad_diff", {"batch_size": 2, "accumulate": 2, "max_steps": 1}, marks=SLOW),
        pytest.param("kl", {"tune": "lora", "batch_size": 2}, marks=SLOW),
        pytest.param("ga", {"tune": "lora", "batch_size": 8, "gradient_checkpointing": True}, marks=SLOW),
    ],
    ids=str,
)
def test_within_a_fifth_of_a_real_run(model, tmp_path, monkeypatch, method, training):
    monkeypatch.setenv("UNSEE_CACHE", "off")
    settings = {**SHORT, **training}
    guess = estimate(model, EXAMPLE, method, tmp_path / "run", training=settings)
    assert not (tmp_path / "run").exists()
    real = taken(monkeypatch, method, model, EXAMPLE, method, tmp_path / "run", training=settings)
    assert 0.8 < guess.memory / real < 1.2, f"estimated {guess.memory}, took {real}\n{guess}"


def test_counts_are_those_of_the_run(model, tmp_path):
    guess = estimate(model, EXAMPLE, "ga", tmp_path / "run", training=SHORT)
    plain = tiny_model()
    assert guess.parameters - guess.trainable == sum(weight.numel() for weight in plain.parameters())
    assert guess.weights == 4 * guess.parameters
    assert guess.seconds is None
    assert guess.gradients == 4 * guess.trainable
    assert guess.optimizer == 8 * guess.trainable
    out = forget(model, EXAMPLE, "ga", tmp_path / "run", training=SHORT)
    written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    assert written < guess.disk < written + 2**27
    assert config.read_mapping(out / "run.yaml")["result"]["trainable"] == guess.trainable


def test_a_float16_checkpoint_is_counted_in_the_type_that_trains(model, tmp_path):
    place = shutil.copytree(model, tmp_path / "m")
    tiny_model().half().save_pretrained(place)
    for device, precision, size in (("cpu", "auto", 4), ("cuda", "auto", 2), ("cuda", "fp32", 4)):
        training = {**SHORT, "precision": precision}
        guess = estimate(place, EXAMPLE, "ga", tmp_path / "o", training=training, device=device)
        assert guess.weights == size * (guess.parameters - guess.trainable) + 4 * guess.trainable


@SLOW
def test_no_weights_are_needed_and_none_are_made(tmp_path, monkeypatch):
    """A LLaVA-1.5-7B by its config alone: 7.06 billion parameters, 14 GB in bf16."""
    shape = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 32064,
            "num_hidden_layers": 32,
            "max_position_embeddings": 4096,
        },
        image_token_id=tiny_processor().image_token_id,
        vision_feature_layer=-2,
        dtype="bfloat16",
    )
    shape.architectures = ["LlavaForConditionalGeneration"]
    shape.save_pretrained(tmp_path / "m")
    processor = tiny_processor()
    processor.patch_size = 14
    processor.image_processor.size = {"shortest_edge": 336}
    processor.image_processor.crop_size = {"height": 336, "width": 336}
    processor.save_pretrained(tmp_path / "m")
    guess = estimate(tmp_path / "m", EXAMPLE, "ga", tmp_path / "o", training={**SHORT, "batch_size": 1}, device="cuda")
    assert guess.parameters - guess.trainable == 7_063_427_072
    assert guess.weights == pytest.approx(2 * 7_063_427_072, rel=0.01)
    assert guess.memory > guess.weights
    assert guess.host > 0
    assert any("lacks weights: model.safetensors" in problem for problem in guess.problems)


class TestProblems:
    def test_disk_and_memory(self, model, tmp_path, monkeypatch):
        usage = namedtuple("Usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 10))
        monkeypatch.setattr("unsee.utils.memory.free_bytes", lambda device: 1000)
        disk, memory = estimate(model, EXAMPLE, "prompt", tmp_path / "o", training=SHORT).problems
        assert "0.0 MiB free; free some space or choose another --out" in disk
        assert "lower training.batch_size" in memory

    def test_missing_shard(self, model, tmp_path):
        broken = shutil.copytree(model, tmp_path / "broken")
        (broken / "model.safetensors").unlink()
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
        (broken / "model.safetensors.index.json").write_text(json.dumps(index))
        (broken / "model-00001-of-00002.safetensors").touch()
        (problem,) = estimate(broken, EXAMPLE, "prompt", tmp_path / "o", training=SHORT).problems
        assert "lacks weights: model-00002-of-00002.safetensors." in problem

    @pytest.mark.parametrize(("text", "message"), [('{"weight', "is no valid JSON"), ("{}", "is damaged: it has no w")])
    def test_damaged_list_of_shards(self, tmp_path, text, message):
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(UserError, match=rf"index\.json {message}"):
            missing_weights(tmp_path)

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"method": "gaa"}, "Unknown method 'gaa'. Did you mean ga"),
            ({"settings": {"reducton": 1}}, "Did you mean reduction"),
            ({"training": {"epochs": 0}}, "epochs must be at least 1"),
            ({"data": "/no/where"}, "No data at"),
            ({"model": "/no/where"}, "No model at"),
            ({"training": {"tune": "full", "parts": "vision"}, "device": "gpu"}, "device must be auto, cpu or cuda"),
        ],
    )
    def test_what_forget_refuses(self, model, tmp_path, more, message):
        given = {"model": model, "data": EXAMPLE, "method": "ga", "out": tmp_path / "o", **more}
        with pytest.raises(UserError, match=message):
            estimate(**given)

    def test_the_output_folder(self, model, tmp_path):
        (tmp_path / "x").touch()
        with pytest.raises(UserError, match="is not empty. Give another --out"):
            estimate(model, EXAMPLE, "ga", tmp_path)


@SLOW
def test_an_earlier_run_is_estimated_as_the_model_below_it(model, tmp_path):
    first = forget(model, EXAMPLE, "ga", tmp_path / "first", training=SHORT)
    below = estimate(model, EXAMPLE, "ga", tmp_path / "o", training=SHORT)
    assert estimate(first, EXAMPLE, "ga", tmp_path / "o", training=SHORT).memory == below.memory


def test_every_method_says_what_it_needs():
    for name in registry.names("methods"):
        made: Method = registry.load("methods", name)()
        needs = made.needs()
        assert isinstance(needs, Needs)
        assert needs.rows >= 1


@pytest.mark.slow
def test_what_a_method_needs_beside_its_rows_is_counted(model, tmp_path, monkeypatch):
    def guess(method, engine="fast", **training):
        training = {**SHORT, "batch_size": 1, **training}
        return estimate(model, EXAMPLE, method, tmp_path / "o", training=training, engine=engine, device="cpu")

    assert guess("ga", engine="plain").batch.startswith("1 rows of ")
    assert guess("pubg", engine="plain").batch.startswith("2 rows of ")  # the answer and a rollout
    head = tiny_model().lm_head.weight.nbytes
    assert [guess("kl", tune=tune).reference for tune in ("lora", "full")] == [0, head]
    masked = guess("mmunlearner", tune="full")
    assert masked.reference == masked.trainable // 8  # one bit a weight
    wrapped = guess("ga", robust="sam")
    assert wrapped.reference == 8 * wrapped.trainable  # the shift, and the weights before it
    assert guess("manu", tune="full").optimizer == 0
    kind = registry.load("methods", "ga")
    monkeypatch.setattr(kind, "needs", lambda self: Needs(before=1e6))
    long_before = guess("ga")
    assert long_before.training == long_before.weights + long_before.caches + int(1e6 * long_before.trainable)


def test_methods_that_train_nothing_take_the_weights(model, tmp_path):
    guess = estimate(model, EXAMPLE, "prompt", tmp_path / "o", training=SHORT)
    assert guess.trainable == guess.optimizer == guess.activations == 0


def test_the_probe_tells_the_time_and_leaves_no_trace(model, tmp_path):
    settings = {**SHORT, "epochs": 4, "max_steps": -1}
    guess = estimate(model, EXAMPLE, "npo", tmp_path / "run", training=settings, probe=True)
    assert list(tmp_path.iterdir()) == []
    out = forget(model, EXAMPLE, "npo", tmp_path / "run", training=settings)
    assert guess.steps == config.read_mapping(out / "run.yaml")["result"]["steps"] > 3
    assert guess.seconds > 0
    assert f"{guess.steps}\n" in str(guess)
    assert estimate(model, EXAMPLE, "npo", tmp_path / "o", training=settings, device="cuda", probe=True).seconds is None


def test_answers_are_estimated_in_the_batches_that_are_made():
    assert inspect.signature(generate).parameters["batch_size"].default == memory_model.WAVE


def test_time_is_the_sum_of_its_parts():
    assert Timing(before=10, step=2, check=5).total(steps=100, checks=4) == 230


def test_the_stop_rule_and_the_plain_engine_cost_more(model, tmp_path):
    asked = estimate(model, EXAMPLE, "kl", tmp_path / "o", training={**SHORT, "stop": "forgotten"})
    plain = estimate(model, EXAMPLE, "kl", tmp_path / "o", training=SHORT, engine="plain")
    assert plain.answering == 0 < asked.answering
    assert plain.reference == plain.weights > asked.reference == 0
    assert plain.activations > asked.activations


def test_dry_run_prints_and_leaves_no_trace(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(workflows_forget, "forget_run", lambda *_: pytest.fail("the run was started"))
    words = ["forget", "--model", str(model), "--data", str(EXAMPLE), "--method", "ga", "--out", str(tmp_path / "o")]
    words += ["--set", "training.stop=never"]
    before = sorted(tmp_path.rglob("*"))
    for alone in (["--device", "cuda"], ["--json"], ["--no-probe"]):
        assert main.main([*words, *alone]) == 2
        assert f"{alone[0]} belongs to --dry-run" in capsys.readouterr().err
    assert main.main([*words, "--dry-run", "--no-probe"]) == 0
    assert "memory (cpu)" in capsys.readouterr().out
    assert main.main([*words, "--dry-run", "--device", "cuda", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["host"] > 0
    assert main.main([*words, "--dry-run", "--set", "training.epochs=0"]) == 2
    (model / "model.safetensors").rename(model / "away")
    try:
        assert main.main([*words, "--dry-run"]) == 1
    finally:
        (model / "away").rename(model / "model.safetensors")
    assert "problem: " in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


@SLOW
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_within_a_fifth_of_the_resident_set_of_a_larger_model(tune):
    case = {"method": "npo", "tune": tune, "precision": "fp32", "batch_size": 2}
    calm = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "UNSEE_CACHE": "off"}
    command = [sys.executable, "-m", "perf.estimates", "quick", json.dumps(case)]
    done = subprocess.run(
        command, env={**os.environ, **calm}, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0.8 < found["estimated"] / found["measured"] < 1.2


def test_the_meter_counts_what_is_alive():
    with Meter() as meter:
        one = torch.zeros(1000)
        view = one[:10]
        two = one + 1
        del one
        assert meter.live == 8000
        del view
        assert (meter.live, meter.peak) == (4000, 8000)
        del two
    assert meter.live == 0


@SLOW
@pytest.mark.parametrize(("method", "training"), [("ga", {"check_every": 1}), ("pubg", {"stop": "never"})])
def test_answers_on_the_lab_within_a_fifth(tmp_path, monkeypatch, method, training):
    monkeypatch.setenv("UNSEE_CACHE", "off")
    settings = {"max_steps": 2, "max_new_tokens": 64, **training}
    guess = estimate("lab", "lab", method, tmp_path / "run", training=settings)
    real = taken(monkeypatch, method, "lab", "lab", method, tmp_path / "run", training=settings)
    assert 0.8 < guess.memory / real < 1.2
