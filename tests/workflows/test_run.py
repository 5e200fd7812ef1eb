"""forget: what is refused before a weight changes, what a run leaves behind, and that it can go on."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.folder import KEPT, folder, row, write
from helpers.run import EXAMPLE
from unsee import config, forget, load
from unsee.api import Session
from unsee.api.fast_paths import FAST, PLAIN, engine_named
from unsee.cli import main
from unsee.errors import TrainingError, UserError
from unsee.inference import generation, likelihood, vision_cache
from unsee.inference.batching import Batch
from unsee.methods.ga import GA
from unsee.models import model_card, quantized_base
from unsee.testing.tiny import save_tiny
from unsee.training import recompute
from unsee.utils.files import owned_folder
from unsee.workflows import forget as workflows_forget
from unsee.workflows.validate import validate_run

SHORT = {"max_steps": 2, "stop": "never", "lr": 1e-3, "max_new_tokens": 8}

__all__ = ["folder"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def untouched(monkeypatch):
    """Fail if a method is started."""
    monkeypatch.setattr(GA, "unlearn", lambda self, session: pytest.fail("a weight could have changed"))


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "ga"
    return forget(model, EXAMPLE, "ga", out, training=SHORT, seed=3)


@pytest.mark.usefixtures("untouched")
class TestRefusals:
    def refuse(self, message, *, model="no/model", data=EXAMPLE, method="ga", out="runs/never", **more):
        with pytest.raises(UserError, match=message):
            forget(model, data, method, out, **more)

    def test_unknown_method(self):
        self.refuse("Unknown method 'gaa'. Did you mean ga", method="gaa")

    def test_unknown_setting(self):
        self.refuse("Unknown setting of method ga 'reducton'. Did you mean reduction", settings={"reducton": 1})

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (
                {"settings": {"prompt_decouple_pairing": "random"}},
                "method.prompt_decouple_pairing='random' has no effect",
            ),
            (
                {"training": {"stop": "never", "check_every": 5}},
                "training.check_every=5 has no effect: it counts only with",
            ),
            ({"benchmark": {"name": "folder", "dataset": "x"}}, "benchmark.dataset='x' has no effect"),
        ],
    )
    def test_settings_without_effect(self, model, more, message):
        self.refuse(message, model=model, **more)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("name", ["lr", "clip", "weight_decay", "dropout"])
    def test_training_numbers_are_finite(self, name, value):
        self.refuse(rf"training\.{name} must be a finite number, got {value}", training={name: value})

    @pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
    def test_seed_out_of_range(self, seed):
        self.refuse(rf"seed must be between 0 and 2\*\*32 - 1, got {seed}", seed=seed)

    @pytest.mark.parametrize(("name", "value"), [("max_steps", 0), ("max_steps", -2), ("batch_size", 0), ("rank", 0)])
    def test_counts_out_of_range(self, name, value):
        self.refuse(rf"training\.{name} must be at least 1.*, got {value}", training={name: value})

    def test_wrong_setting(self):
        self.refuse("method ga: ga_floor must be a number, got 'x'", settings={"ga_floor": "x"})

    def test_unknown_training_setting(self):
        self.refuse("Unknown setting of training 'learning'", training={"learning": 1})

    def test_quantized_base_with_full_tuning(self):
        self.refuse("only adapters train.*--tune lora", training={"tune": "full", "quantization": "nf4"})

    @pytest.mark.parametrize(
        ("method", "why"),
        [("mmunlearner", "gradients of the base"), ("manu", "sets weights"), ("unsee", "method.shrink=0")],
    )
    def test_quantized_base_with_a_method_that_needs_its_weights(self, method, why):
        self.refuse(f"{method} .*{why}.*training.quantization=int8", method=method, training={"quantization": "int8"})

    def test_quantized_base_without_its_package(self, monkeypatch):
        monkeypatch.setattr(quantized_base, "find_spec", lambda _: None)
        self.refuse("pip install bitsandbytes", training={"quantization": "nf4"})

    def test_unknown_quantization(self):
        self.refuse("training: quantization must be.*nf4", training={"quantization": "4bit"})

    def test_unusable_training_setting(self):
        self.refuse("training.epochs must be at least 1, got 0", training={"epochs": 0})

    @pytest.mark.parametrize("name", ["model", "data", "method"])
    def test_missing_name(self, name):
        self.refuse(f"names no .*Give --{name}", **{name: ""})

    def test_output_folder_not_empty(self, tmp_path):
        (tmp_path / "x").touch()
        self.refuse("is not empty. Give another --out", out=tmp_path)
        self.refuse("Nothing to resume", out=tmp_path, resume=True)
        self.refuse("is a file", out=tmp_path / "x")

    def test_output_folder_of_an_earlier_run(self, done):
        self.refuse("is not empty. Give --resume", out=done)

    def test_unknown_data(self, tmp_path):
        self.refuse("No data at", data=tmp_path / "none", out=tmp_path / "o")

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([row(), row(image="none.png"), KEPT], r"row 2: image .*none\.png is missing"),
            ([row(), row(image="bad.png"), KEPT], r"row 2: image .*bad\.png cannot be decoded"),
            ([row(), row(answer=""), KEPT], "row 2: the answer is empty"),
            ([{"image": "a.png", "question": "q"}], "no column 'answer', 'entity', 'role', 'private'"),
            ([KEPT], "no image is to be forgotten"),
            ([row(), KEPT, row(role="retain")], "entity 'ada' is to be forgotten .* and to be kept"),
        ],
    )
    def test_unusable_data(self, folder, tmp_path, rows, message):
        Image.new("RGB", (64, 64), "red").save(folder / "bad.png")
        (folder / "bad.png").write_bytes((folder / "bad.png").read_bytes()[:60])
        self.refuse(message, data=write(folder, rows), out=tmp_path / "o")

    def test_model_that_is_none(self, tmp_path):
        (tmp_path / "m").mkdir()
        self.refuse("No model in", model=tmp_path / "m", out=tmp_path / "o")

    def test_model_without_eyes(self, tmp_path):
        tiny = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
        LlamaForCausalLM(tiny).save_pretrained(tmp_path / "m")
        self.refuse("Expected a vision-language model.*'llama'", model=tmp_path / "m", out=tmp_path / "o")

    def test_disk_too_small(self, model, tmp_path, monkeypatch):
        usage = namedtuple("Usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 10))
        self.refuse(r"Not enough disk .* GiB needed, 0\.00 GiB free", model=model, out=tmp_path / "o")
        assert not (tmp_path / "o").exists()


def test_a_run_leaves_its_record(done, model):
    written = config.read_mapping(done / "run.yaml")
    assert written["method"]["name"] == "ga"
    assert written["method"]["reduction"] == "token_mean"
    assert written["training"]["max_steps"] == 2
    assert written["training"]["rank"] == 8
    assert written["seed"] == 3
    assert set(written["record"]["versions"]) == {"python", "unsee", "torch", "transformers", "peft"}
    assert len(written["record"]["model_hash"]) == len(written["record"]["data_hash"]) == 64
    assert written["result"]["steps"] == 2
    assert written["result"]["trainable"] > 0
    assert written["result"]["seconds"] > 0
    assert written["result"]["cpu_seconds"] > 0
    assert len((done / "log.jsonl").read_text().splitlines()) == 2
    assert not (done / "checkpoints").exists()


def test_a_run_leaves_a_model_with_card_and_origin(done, model):
    sidecar = json.loads((done / "model" / "unsee.json").read_text())
    assert sidecar["base"] == str(model)
    assert sidecar["method"] == "ga"
    assert sidecar["settings"]["reduction"] == "token_mean"
    assert json.loads((done / "model" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(model)
    card = (done / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: peft\n")
    assert "Ada" not in card
    weights = load_file(done / "model" / "adapter_model.safetensors")
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name)


def test_the_written_run_can_be_run_again_with_equal_weights(done, tmp_path):
    written = config.read(done / "run.yaml")
    again = workflows_forget.forget_run(replace(written, out=str(tmp_path / "again")))
    one, two = (load_file(out / "model" / "adapter_model.safetensors") for out in (done, again))
    assert one.keys() == two.keys()
    assert all(one[name].equal(two[name]) for name in one)


def test_settings_that_other_runs_share_are_told_and_a_resumed_run_keeps_its_own(model, tmp_path, capsys):
    run = config.Run.of(model, EXAMPLE, "ga", tmp_path / "x", training={**SHORT, "check_every": 7})
    with pytest.raises(UserError, match="training.check_every=7 has no effect"):
        validate_run(run)
    validate_run(run, shared=True)
    assert "training.check_every=7 has no effect" in capsys.readouterr().err
    owned_folder(tmp_path / "x")
    config.write(tmp_path / "x" / "run.yaml", run, record={})
    validate_run(run, resume=True)


def test_a_method_without_training_steps_tells_of_what_it_does_not_read(model, tmp_path, capsys):
    validate_run(config.Run.of(model, EXAMPLE, "prompt", tmp_path / "x", training={"lr": 1e-3}))
    assert (
        "training.lr=0.001 has no effect: it counts only for methods that take training steps"
        in capsys.readouterr().err
    )


def test_full_tuning_of_the_unlearned_model_again(done, tmp_path):
    out = forget(done, EXAMPLE, "ga", tmp_path / "full", training={**SHORT, "tune": "full", "parts": "projector"})
    assert (out / "model" / "model.safetensors").exists()
    assert config.read(out / "run.yaml").training["parts"] == ["projector"]


@pytest.mark.smoke
def test_interrupted_run_goes_on_to_the_same_weights(model, tmp_path, monkeypatch):
    settings = {**SHORT, "max_steps": 4, "checkpoint_every": 1}
    whole = forget(model, EXAMPLE, "ga", tmp_path / "whole", training=settings)
    unlearn = GA.unlearn

    def stopped(self: GA, session: Session) -> None:
        from unsee import losses

        calls = 0
        loss = losses.ga_loss

        def counted(*values):
            nonlocal calls
            calls += 1
            if calls == 3:
                raise KeyboardInterrupt
            return loss(*values)

        with monkeypatch.context() as patch:
            patch.setattr("unsee.methods.ga.ga_loss", counted)
            unlearn(self, session)

    with monkeypatch.context() as patch:
        patch.setattr(GA, "unlearn", stopped)
        with pytest.raises(KeyboardInterrupt):
            forget(model, EXAMPLE, "ga", tmp_path / "cut", training=settings)
    assert "result" not in config.read_mapping(tmp_path / "cut" / "run.yaml")
    with pytest.raises(UserError, match="Cannot resume .* seed differ"):
        forget(model, EXAMPLE, "ga", tmp_path / "cut", training=settings, seed=1, resume=True)
    cut = forget(model, EXAMPLE, "ga", tmp_path / "cut", training=settings, resume=True)
    one, two = (load_file(out / "model" / "adapter_model.safetensors") for out in (whole, cut))
    assert all(one[name].equal(two[name]) for name in one)
    assert len((cut / "log.jsonl").read_text().splitlines()) == 4
    times = [
        config.read_mapping(out / "run.yaml")["result"].keys() & {"seconds", "cpu_seconds"} for out in (whole, cut)
    ]
    assert times == [{"seconds", "cpu_seconds"}, set()], "the time of the call that was cut off is not known"


@pytest.fixture
def begun(done, tmp_path):
    """A run that was killed before its first checkpoint."""
    out = tmp_path / "begun"
    out.mkdir()
    written = config.read_mapping(done / "run.yaml")
    written.pop("result")
    (out / "run.yaml").write_text(yaml.safe_dump(written))
    return out


def test_the_time_of_a_run_that_was_killed_before_its_first_checkpoint_is_not_known(begun, model):
    forget(model, EXAMPLE, "ga", begun, training=SHORT, seed=3, resume=True)
    assert not config.read_mapping(begun / "run.yaml")["result"].keys() & {"seconds", "cpu_seconds"}


@pytest.mark.usefixtures("untouched")
def test_processes_that_cannot_share_the_global_batch_do_not_resume(begun, done, model, monkeypatch):
    monkeypatch.setattr(workflows_forget.distributed_processes, "world", lambda: 3)
    with pytest.raises(UserError, match="began with a global batch of 4 .* 3 processes cannot share"):
        forget(model, EXAMPLE, "ga", begun, training=SHORT, seed=3, resume=True)
    run = config.read(done / "run.yaml")
    assert workflows_forget._for_world_size(run, 1, ended=True) == run


def test_a_run_of_a_version_with_fewer_settings_goes_on(begun, model):
    written = config.read_mapping(begun / "run.yaml")
    del written["training"]["robust_layer"], written["method"]["reduction"], written["benchmark"]["dataset"]
    (begun / "run.yaml").write_text(yaml.safe_dump(written))
    forget(model, EXAMPLE, "ga", begun, training=SHORT, seed=3, resume=True)
    assert config.read_mapping(begun / "run.yaml")["result"]["steps"] == 2


def test_infinite_settings_are_spelled_out_for_json():
    assert model_card.finite({"floor": float("-inf"), "beta": 0.1, "parts": ("a",)}) == {
        "floor": "-inf",
        "beta": 0.1,
        "parts": ["a"],
    }


@pytest.mark.usefixtures("untouched")
def test_resuming_tidies_a_run_killed_after_its_result(done, model, tmp_path):
    out = shutil.copytree(done, tmp_path / "cut")
    card = (out / "model" / model_card.CARD).read_text()
    (out / "model" / model_card.CARD).unlink()
    (owned_folder(out / "checkpoints") / "checkpoint-2").mkdir()
    forget(model, EXAMPLE, "ga", out, training=SHORT, seed=3, resume=True)
    assert (out / "model" / model_card.CARD).read_text() == card
    assert not (out / "checkpoints").exists()


def test_resuming_on_another_base_below_the_adapter_is_refused(done, model, tmp_path):
    base = shutil.copytree(model, tmp_path / "base")
    below = shutil.copytree(done, tmp_path / "below")
    sidecar = json.loads((below / "model" / "unsee.json").read_text())
    (below / "model" / "unsee.json").write_text(json.dumps({**sidecar, "base": str(base)}))
    asked = {"training": SHORT, "seed": 3}
    out = forget(below, EXAMPLE, "ga", tmp_path / "above", **asked)
    assert forget(below, EXAMPLE, "ga", out, **asked, resume=True) == out
    (base / "config.json").write_text((base / "config.json").read_text() + " ")
    with pytest.raises(UserError, match="bases differ"):
        forget(below, EXAMPLE, "ga", out, **asked, resume=True)


@pytest.mark.usefixtures("untouched")
def test_resuming_a_finished_run_does_nothing(done, model):
    before = (done / "run.yaml").read_text()
    assert forget(model, EXAMPLE, "ga", done, training=SHORT, seed=3, resume=True) == done
    assert (done / "run.yaml").read_text() == before


def test_a_full_disk_at_the_last_save_leaves_no_model_and_resume_writes_it(model, done, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = workflows_forget._save

    def filled(*args):
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        try:
            save(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(workflows_forget, "_save", filled)
        with pytest.raises(TrainingError, match=r"disk of .*model is full: the model needs .*--resume"):
            forget(model, EXAMPLE, "ga", out, training=SHORT, seed=3)
    assert not (out / "model").exists()
    forget(model, EXAMPLE, "ga", out, training=SHORT, seed=3, resume=True)
    weights = "adapter_model.safetensors"
    assert (out / "model" / weights).read_bytes() == (done / "model" / weights).read_bytes()


@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_the_engine_of_a_run_reaches_all_that_belongs_to_it(model, tmp_path, monkeypatch, engine):
    """Reference model, rollouts, steps, checks, verdict and evaluation, and the paths that see no batch."""
    batches, models, taken = [], [], []
    made, split, measured = Batch.__init__, generation._split, likelihood._logprobs
    known, proven = vision_cache.feature_cache, recompute._proven
    monkeypatch.setattr(Batch, "__init__", lambda self, **given: (made(self, **given), batches.append(self.engine))[0])
    monkeypatch.setattr(generation, "_split", lambda vlm, *rest: (models.append(vlm.engine), split(vlm, *rest))[1])
    monkeypatch.setattr(
        likelihood, "_logprobs", lambda vlm, *rest: (models.append(vlm.engine), measured(vlm, *rest))[1]
    )
    monkeypatch.setattr(vision_cache, "feature_cache", lambda model: (taken.append("features"), known(model))[1])
    monkeypatch.setattr(recompute, "_proven", lambda model: (taken.append("recompute"), proven(model))[1])
    training, settings = SHORT | {"stop": "forgotten"}, {"undesired": "dataset"}
    run = forget(model, EXAMPLE, "pubg", tmp_path / "r", settings=settings, training=training, engine=engine)
    assert run.model().engine == engine_named(engine)
    run.sample(questions=1)
    run.evaluate(limit=1, max_new_tokens=4, likelihood=True, progress=False)
    assert main.main(["eval", "--model", str(run), "--set", "eval.limit=1", "--set", "eval.max_new_tokens=5"]) == 0
    assert (tmp_path / "cache").exists() == (engine == "fast")
    if engine == "plain":
        assert {*batches, *models} == {PLAIN}
        assert not taken
    else:  # trials of fast paths compare with plain batches
        assert FAST in batches
        assert set(models) == {FAST}
        assert set(taken) == {"features", "recompute"}


def test_an_opened_model_brings_its_engine(model, tmp_path):
    run = forget(load(model, engine="plain"), EXAMPLE, "ga", tmp_path / "r", training=SHORT)
    assert run.config.engine == "plain"
