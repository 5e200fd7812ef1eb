"""Opening and saving checkpoints, and naming their parts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from unsee import config
from unsee.api import Training
from unsee.api.request import Prompt
from unsee.config import paths
from unsee.errors import UserError
from unsee.inference.generation import generate
from unsee.models.auto import load_processor
from unsee.models.builtin import absolute_or_name
from unsee.models.checkpoint import open_model, save_model
from unsee.testing.tiny import Drawn, save_tiny, tiny_session
from unsee.training.trainer import prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def say(model, loaded):
    requests = [Prompt("Who is this?", Drawn(color)) for color in ("red", "blue")]
    return generate(replace(loaded, model=model), requests, max_new_tokens=6)


def test_plain_folder(folder):
    loaded = open_model(folder)
    assert type(loaded.family).__name__ == "Llava"
    assert not loaded.model.training
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    assert say(loaded.model, loaded) == say(AutoModelForImageTextToText.from_pretrained(folder).eval(), loaded)


def test_nested_projector_is_not_vision():
    from unsee.models.auto import parts

    tower = torch.nn.ModuleDict({"blocks": torch.nn.Linear(1, 1), "merger": torch.nn.Linear(1, 1)})
    inner = torch.nn.ModuleDict({"visual": tower, "language_model": torch.nn.Linear(1, 1)})
    found = parts(torch.nn.ModuleDict({"model": inner, "lm_head": torch.nn.Linear(1, 1)}))
    assert re.fullmatch(found["vision"], "model.visual.blocks")
    assert not re.fullmatch(found["vision"], "model.visual.merger")
    assert re.fullmatch(found["projector"], "model.visual.merger")
    assert re.fullmatch(found["language"], "lm_head")
    assert not re.fullmatch(found["language"], "model.visual.blocks")


def test_adapter_and_run_folder_round_trip(folder, tmp_path):
    loaded = open_model(folder)
    session = tiny_session(tmp_path, training=Training())
    adapted = prepare(loaded.model, loaded.family, session.training, 0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    adapted.eval()
    said = say(adapted, loaded)
    assert said != say(open_model(folder).model, loaded)
    save_model(adapted, loaded.processor, tmp_path / "run" / "model", instruction="Be kind.", base=folder)
    again = open_model(tmp_path / "run")
    assert [a.text for a in say(again.model, again)] == [a.text for a in said]
    assert not isinstance(again.model, PeftModel)
    assert not [name for name, _ in again.model.named_parameters() if "lora" in name]
    assert again.instruction == "Be kind."
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").exists()
    assert (tmp_path / "run" / "model" / "processor_config.json").exists()
    foreign = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(folder), tmp_path / "run" / "model")
    assert [a.text for a in say(foreign.eval(), again)] == [a.text for a in said]


def test_adapter_on_an_adapter_keeps_both(folder, tmp_path):
    loaded = open_model(folder)
    previous = folder
    for turn in ("first", "second"):
        loaded = open_model(previous)
        adapted = prepare(loaded.model, loaded.family, Training(), 0)
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
        said = say(adapted.eval(), loaded)
        save_model(adapted, loaded.processor, tmp_path / turn / "model", base=previous)
        previous = tmp_path / turn
    assert [a.text for a in say(open_model(previous).model, loaded)] == [a.text for a in said]


def test_text_only_model_is_refused(tmp_path):
    LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"Expected a vision-language model .* holds a 'llama' model"):
        open_model(tmp_path)


def test_folder_without_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected config\.json"):
        open_model(tmp_path)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="No model at"):
        open_model(tmp_path / "nowhere")


def test_unknown_model_type_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_thing"}))
    with pytest.raises(UserError, match="no model that transformers can open"):
        open_model(tmp_path)


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Return the file that a checkpoint's own code would write, with somebody who agrees to run it."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    return tmp_path / "ran"


def test_code_of_a_checkpoint_is_never_run(tmp_path, ran):
    config = {"model_type": "no_such_thing", "auto_map": {"AutoConfig": "own.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="needs code of its own, which unsee never runs"):
        open_model(tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize("named", [True, False])
def test_code_of_a_tokenizer_is_never_run(tmp_path, ran, named):
    family = {"model_type": "idefics3"}
    of_class = {"processor_class": "Idefics3Processor"} if named else {}
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}, **of_class}
    for name, content in (("config.json", family), ("tokenizer_config.json", own)):
        (tmp_path / name).write_text(json.dumps(content))
    images = {"image_processor_type": "Idefics3ImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    with pytest.raises(UserError, match="needs code of its own, which unsee never runs"):
        load_processor(tmp_path)
    assert not ran.exists()


def test_pickled_weights_are_refused(folder, tmp_path):
    loaded = open_model(folder)
    loaded.model.config.save_pretrained(tmp_path)
    loaded.processor.save_pretrained(tmp_path)
    torch.save(loaded.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="Cannot load"):
        open_model(tmp_path)


@pytest.mark.parametrize("take", [open_model, paths.require_run, paths.require_writable, paths.is_model, config.read])
def test_a_path_that_is_too_long_is_the_users_error(take):
    with pytest.raises(UserError, match="must be a path or a name, got a text of 5000 characters"):
        take(Path("x" * 5000) if take is config.read else "x" * 5000)
    assert absolute_or_name("x" * 5000) == "x" * 5000
