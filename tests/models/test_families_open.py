"""Opening checkpoints of every family as they lie on the hub, with and without torchvision, and refusing what cannot work."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig

from helpers.families import FAMILIES, Picture, model_of, processor_of, save_family
from unsee.api import registry
from unsee.compat import processors
from unsee.compat.processors import open_processor
from unsee.errors import UserError
from unsee.models import auto
from unsee.models.checkpoint import open_model, save_model
from unsee.models.families.generic import Generic
from unsee.testing.tiny import save_tiny

VIDEOS = ("llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "internvl")


@pytest.fixture(autouse=True)
def _no_torchvision(monkeypatch):
    monkeypatch.setattr(processors, "find_spec", lambda _: None)


def as_on_the_hub(folder):
    """Rewrite processor_config.json into preprocessor_config.json, where checkpoints of older versions have it."""
    settings = json.loads((folder / "processor_config.json").read_text())
    images = {**settings.pop("image_processor"), "processor_class": settings["processor_class"]}
    images["image_processor_type"] = images["image_processor_type"].removesuffix("Pil") + "Fast"
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_a_checkpoint_as_on_the_hub_opens(name, tmp_path):
    opened = open_model(as_on_the_hub(save_family(name, tmp_path)))
    assert type(opened.processor).__name__ == type(processor_of(name)).__name__
    claimed = [
        family
        for family in registry.names("models")
        if opened.model.config.model_type in registry.load("models", family).model_types
    ]
    assert len(claimed) == (name != "aya_vision")
    rows = []
    for processor in (opened.processor, processor_of(name)):
        prompt = opened.family.prompt(processor, "Who?", has_image=True)
        rows.append(opened.family.encode(processor, [prompt], [Picture("red", 0, 32, 16).load()]))
    assert rows[0].keys() == rows[1].keys()
    assert all(torch.equal(rows[0][key], rows[1][key]) for key in rows[0])


@pytest.mark.parametrize("name", VIDEOS)
def test_what_the_checkpoint_says_about_videos_is_saved_with_it(name, tmp_path):
    folder = as_on_the_hub(save_family(name, tmp_path / "a"))
    (folder / "video_preprocessor_config.json").write_text(json.dumps({"video_processor_type": "X", "size": 3}))
    open_processor(folder).save_pretrained(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "video_preprocessor_config.json").read_text()) == {
        "video_processor_type": "X",
        "size": 3,
    }
    settings = json.loads((tmp_path / "b" / "processor_config.json").read_text())
    assert settings["processor_class"] == type(processor_of(name)).__name__
    assert "image_processor" in settings


def test_an_adapter_folder_without_config_opens_its_processor(tmp_path):
    loaded = open_model(save_family("qwen2_5_vl", tmp_path / "base"))
    from unsee.api import Training
    from unsee.training.trainer import prepare

    adapted = prepare(loaded.model, loaded.family, Training(), 0)
    save_model(adapted, loaded.processor, tmp_path / "run" / "model", base=tmp_path / "base")
    assert not (tmp_path / "run" / "model" / "config.json").exists()
    assert type(open_model(tmp_path / "run").processor).__name__ == "Qwen2_5_VLProcessor"


def test_a_family_without_a_file_is_served_by_the_generic_one(tmp_path):
    assert type(open_model(save_family("aya_vision", tmp_path)).family) is Generic


def unclaimed(monkeypatch):
    """Let nobody claim LLaVA, so that the generic family must serve it."""
    monkeypatch.setattr(auto, "family_for", lambda _: Generic())


def refusal(folder):
    with pytest.raises(UserError) as caught:
        open_model(folder)
    assert "docs/extending.md" in str(caught.value)
    return str(caught.value)


def test_generic_refuses_unnamed_parts(tmp_path, monkeypatch):
    unclaimed(monkeypatch)
    monkeypatch.setattr(auto, "VISION", frozenset())
    assert "no module is named like its vision part (`parts`)" in refusal(save_tiny(tmp_path))


def test_generic_refuses_a_template_that_drops_the_question(tmp_path, monkeypatch):
    unclaimed(monkeypatch)
    folder = save_tiny(tmp_path)
    (folder / "chat_template.jinja").write_text("USER: <image>")
    assert "does not write the question (`prompt`)" in refusal(folder)


def test_generic_refuses_a_template_without_image(tmp_path, monkeypatch):
    unclaimed(monkeypatch)
    folder = save_tiny(tmp_path)
    (folder / "chat_template.jinja").write_text("{% for c in messages[0].content %}{{ c.text }}{% endfor %}")
    assert "cannot make inputs of the prompt" in refusal(folder)


def test_generic_refuses_a_template_of_bare_strings(tmp_path, monkeypatch):
    unclaimed(monkeypatch)
    folder = save_tiny(tmp_path)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ 'USER: ' + m.content }}{% endfor %}")
    assert "does not render a turn whose content is a list" in refusal(folder)


def test_generic_refuses_inputs_that_the_model_does_not_take(tmp_path, monkeypatch):
    unclaimed(monkeypatch)
    plain = auto.encode_one
    monkeypatch.setattr(auto, "encode_one", lambda *a: {**plain(*a), "mystery": torch.ones(1, 2)})
    assert "makes mystery, which its forward does not take (`encode_one`)" in refusal(save_tiny(tmp_path))


def test_encoder_decoders_are_refused(tmp_path):
    from transformers import BertConfig, VisionEncoderDecoderModel, ViTConfig

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = AutoConfig.for_model(
        "vision-encoder-decoder",
        encoder=ViTConfig(**small).to_dict(),
        decoder=BertConfig(vocab_size=8, **small).to_dict(),
    )
    VisionEncoderDecoderModel(config).save_pretrained(tmp_path)
    processor_of("llava").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="Expected a decoder that continues a prompt"):
        open_model(tmp_path)


def test_models_of_other_auto_classes_say_what_is_missing(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "phi4_multimodal"}))
    with pytest.raises(UserError, match=r"AutoModelForImageTextToText.* holds a 'phi4_multimodal' model"):
        open_model(tmp_path)


def test_every_model_type_is_claimed_once_and_known_to_transformers():
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    claimed = [kind for name in registry.names("models") for kind in registry.load("models", name).model_types]
    assert len(claimed) == len(set(claimed))
    assert set(claimed) <= set(KNOWN)
    assert {model_of(name).config.model_type for name in FAMILIES} - set(claimed) == {"aya_vision"}


def test_a_template_that_writes_a_date_writes_the_same_one_every_day():
    processor = processor_of("mllama")
    processor.chat_template = "{{ date_string or strftime_now('%d %b %Y') }} {{ messages[0].content[0].text }}"
    assert registry.load("models", "mllama")().prompt(processor, "Who?", has_image=False) == "26 Jul 2024 Who?"


@pytest.mark.parametrize("name", ["llava", "llava_next_vicuna", "vipllava"])
def test_an_older_processor_is_told_how_many_tokens_an_image_takes(name, tmp_path):
    folder = save_family(name, tmp_path)
    settings = json.loads((folder / "processor_config.json").read_text())
    for key in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
        settings.pop(key)
    (folder / "processor_config.json").write_text(json.dumps(settings))
    loaded = open_model(folder)
    row = loaded.family.encode(loaded.processor, ["<image> Who?"], [Picture("red").load()])
    with torch.no_grad():
        assert loaded.model(**row).logits.shape[1] == row["input_ids"].shape[1]
