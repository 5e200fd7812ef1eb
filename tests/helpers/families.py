"""Tiny random models of the real classes of every family, with their real processors, built offline and without torchvision.

The chat templates are ours, in the shape in which the families' checkpoints have them; special tokens have their real names.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image, ImageDraw
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from helpers.family_parts import (
    aya_config,
    aya_processor,
    gemma_config,
    gemma_processor,
    idefics2_config,
    idefics2_processor,
    idefics_config,
    idefics_processor,
    internvl_config,
    internvl_processor,
    llava_config,
    llava_processor,
    mllama_config,
    mllama_processor,
    next_config,
    next_processor,
    onevision_config,
    onevision_processor,
    paligemma_config,
    paligemma_processor,
    qwen2_5_config,
    qwen2_config,
    qwen3_config,
    qwen3_moe_config,
    qwen_processor,
    smol_processor,
    vip_config,
)
from unsee.api import VLM, Example, Family, Kind, Role, Session, Training
from unsee.models.auto import family_for
from unsee.testing.tiny import PEOPLE, person, tokenizer_json


@dataclass(frozen=True)
class Picture:
    """An image drawn from its colour, in any shape: families cut wide and tall ones into different numbers of tiles."""

    color: str
    mark: int = 0
    width: int = 16
    height: int = 16

    @property
    def key(self) -> str:
        return f"{self.color}-{self.mark}-{self.width}x{self.height}"

    def load(self) -> Image.Image:
        image = Image.new("RGB", (self.width, self.height), self.color)
        ImageDraw.Draw(image).rectangle((self.mark, self.mark, self.mark + 3, self.mark + 3), fill="white")
        return image


@dataclass(frozen=True)
class Tiny:
    """What a family is built from."""

    specials: tuple[str, ...]
    """Special tokens beside BOS, EOS and padding."""
    template: str | None
    processor: Callable[[Any, str | None], Any]
    """(tokenizer, template) -> processor."""
    config: Callable[[Any, int], Any]
    """(processor, vocabulary) -> config of the model."""
    model: str
    """Class of the model."""
    begin: str
    """What a prompt with an image begins with."""
    bos: str = "<s>"
    eos: str = "</s>"
    end: str = ""
    """What ends an answer, if not EOS."""
    named: tuple[tuple[str, str], ...] = ()
    """Tokens that the tokenizer knows by name."""
    last: str = ""
    """Special token that stands behind the vocabulary of the output head (Mllama)."""
    targets: str = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"
    """Linear layers of the language model."""


def chatml(image: str, system: str = "", blank: str = "\n") -> str:
    """Return Qwen's chat format around an image mark."""
    return (
        (
            f"{{% if messages[0].role != 'system' %}}<|im_start|>system\n{system}<|im_end|>\n{{% endif %}}"
            if system
            else ""
        )
        + f"{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}{blank}{{% for c in m.content %}}"
        + f"{{% if c.type == 'image' %}}{image}{{% else %}}{{{{ c.text }}}}{{% endif %}}{{% endfor %}}<|im_end|>\n{{% endfor %}}"
        + f"{{% if add_generation_prompt %}}<|im_start|>assistant{blank}{{% endif %}}"
    )


def plain(user: str, assistant: str, image: str, between: str = " ", end: str = "", begin: str = "") -> str:
    """Return a chat format of role names and an image mark."""
    return (
        f"{begin}{{% for m in messages %}}{{% if m.role == 'user' %}}{user}{{% else %}}{assistant}{{% endif %}}{{% for c in m.content %}}"
        + f"{{% if c.type == 'image' %}}{image}{{% else %}}{{{{ c.text | trim }}}}{{% endif %}}{{% endfor %}}"
        + f"{end}{{% if m.role == 'user' %}}{{{{ {between!r} }}}}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{assistant.rstrip(' ')}{{% endif %}}"
    )


VICUNA = "A chat between a curious user and an assistant. "
QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
SPLIT = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *TILES)
IM = {"eos": "<|im_end|>"}
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"

COHERE = ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>")
AYA = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE_1", "TILE_2", "TILE_GLOBAL")

FAMILIES: dict[str, Tiny] = {
    "llava": Tiny(
        ("<image>",),
        plain("USER: ", "ASSISTANT: ", "<image>\n"),
        llava_processor,
        llava_config(),
        "LlavaForConditionalGeneration",
        "USER: <image>\n",
    ),
    "llava_next_vicuna": Tiny(
        ("<image>",),
        plain("USER: ", "ASSISTANT: ", "<image>\n", begin=VICUNA),
        next_processor,
        next_config("llama"),
        "LlavaNextForConditionalGeneration",
        f"{VICUNA}USER: <image>\n",
    ),
    "llava_next_mistral": Tiny(
        ("<image>",),
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {% endif %}{% for c in m.content %}"
        "{% if c.type == 'image' %}<image>\n{% elif m.role == 'user' %}{{ c.text }} [/INST]{% else %} {{ c.text }}</s>{% endif %}"
        "{% endfor %}{% endfor %}",
        next_processor,
        next_config("mistral", sliding_window=None),
        "LlavaNextForConditionalGeneration",
        "[INST] <image>\n",
    ),
    "llava_onevision": Tiny(
        ("<image>", "<video>", "<|im_start|>"),
        chatml("<image>\n", blank=" "),
        onevision_processor,
        onevision_config,
        "LlavaOnevisionForConditionalGeneration",
        "<|im_start|>user <image>\n",
        **IM,
    ),
    "qwen2_vl": Tiny(
        (*QWEN, "<|im_start|>"),
        chatml(QWEN_IMAGE, "You are a helpful assistant."),
        qwen_processor("Qwen2VLProcessor"),
        qwen2_config,
        "Qwen2VLForConditionalGeneration",
        f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{QWEN_IMAGE}",
        **IM,
    ),
    "qwen2_5_vl": Tiny(
        (*QWEN, "<|im_start|>"),
        chatml(QWEN_IMAGE, "You are a helpful assistant."),
        qwen_processor("Qwen2_5_VLProcessor"),
        qwen2_5_config,
        "Qwen2_5_VLForConditionalGeneration",
        f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{QWEN_IMAGE}",
        **IM,
    ),
    "qwen3_vl": Tiny(
        (*QWEN, "<|im_start|>"),
        chatml(QWEN_IMAGE),
        qwen_processor("Qwen3VLProcessor"),
        qwen3_config,
        "Qwen3VLForConditionalGeneration",
        f"<|im_start|>user\n{QWEN_IMAGE}",
        **IM,
    ),
    "idefics3": Tiny(
        SPLIT,
        plain("User:", "Assistant: ", "<image>", "\n", "<end_of_utterance>", "<|begin_of_text|>"),
        idefics_processor,
        idefics_config("Idefics3Config"),
        "Idefics3ForConditionalGeneration",
        "<|begin_of_text|>User:<image>",
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        end="<end_of_utterance>",
    ),
    "smolvlm": Tiny(
        (*SPLIT, "<|endoftext|>"),
        plain("User:", "Assistant: ", "<image>", "\n", "<end_of_utterance>", "<|im_start|>"),
        smol_processor,
        idefics_config("SmolVLMConfig"),
        "SmolVLMForConditionalGeneration",
        "<|im_start|>User:<image>",
        bos="<|im_start|>",
        end="<end_of_utterance>",
    ),
    "internvl": Tiny(
        ("<img>", "</img>", "<IMG_CONTEXT>", "<video>", "<|im_start|>"),
        chatml("<IMG_CONTEXT>\n"),
        internvl_processor,
        internvl_config(),
        "InternVLForConditionalGeneration",
        "<|im_start|>user\n<IMG_CONTEXT>\n",
        named=(
            ("start_image_token", "<img>"),
            ("end_image_token", "</img>"),
            ("context_image_token", "<IMG_CONTEXT>"),
            ("video_token", "<video>"),
        ),
        **IM,
    ),
    "gemma3": Tiny(
        ("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<start_of_turn>", "<end_of_turn>"),
        plain("<start_of_turn>user\n", "<start_of_turn>model\n", "<start_of_image>", "\n", "<end_of_turn>", "<bos>"),
        gemma_processor,
        gemma_config,
        "Gemma3ForConditionalGeneration",
        "<bos><start_of_turn>user\n<start_of_image>",
        bos="<bos>",
        eos="<eos>",
        end="<end_of_turn>",
        named=(
            ("boi_token", "<start_of_image>"),
            ("eoi_token", "<end_of_image>"),
            ("image_token", "<image_soft_token>"),
        ),
    ),
    "paligemma": Tiny(
        ("<image>",),
        None,
        paligemma_processor,
        paligemma_config("gemma"),
        "PaliGemmaForConditionalGeneration",
        "<image><bos>",
        bos="<bos>",
        eos="<eos>",
        named=(("image_token", "<image>"),),
    ),
    "mllama": Tiny(
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"),
        plain(HEADER.format("user"), HEADER.format("assistant"), "<|image|>", "", "<|eot_id|>", "<|begin_of_text|>"),
        mllama_processor,
        mllama_config,
        "MllamaForConditionalGeneration",
        f"<|begin_of_text|>{HEADER.format('user')}<|image|>",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        last="<|image|>",
    ),
    "aya_vision": Tiny(
        ("<image>", *COHERE, *AYA),
        "<BOS_TOKEN>{% for m in messages %}<|START_OF_TURN_TOKEN|>{% if m.role == 'user' %}<|USER_TOKEN|>{% else %}"
        "<|CHATBOT_TOKEN|><|START_RESPONSE|>{% endif %}{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}"
        "{{ c.text }}{% endif %}{% endfor %}{% if m.role == 'assistant' %}<|END_RESPONSE|>{% endif %}<|END_OF_TURN_TOKEN|>"
        "{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>{% endif %}",
        aya_processor,
        aya_config,
        "AyaVisionForConditionalGeneration",
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|><image>",
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        end="<|END_RESPONSE|>",
    ),
}
"""The last one has no file in `models/`: the generic family serves it."""

YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}

VARIANTS: dict[str, Tiny] = {
    "llava, llama 3 positions": replace(FAMILIES["llava"], config=llava_config(rope_parameters=LLAMA3)),
    "llava, yarn": replace(FAMILIES["llava"], config=llava_config(rope_parameters=YARN)),
    "llava_next, sliding window": replace(
        FAMILIES["llava_next_mistral"], config=next_config("mistral", sliding_window=24)
    ),
    "internvl, dynamic positions": replace(FAMILIES["internvl"], config=internvl_config(rope_parameters=DYNAMIC)),
    "vipllava": replace(FAMILIES["llava"], config=vip_config, model="VipLlavaForConditionalGeneration"),
    "idefics2": replace(
        FAMILIES["idefics3"],
        processor=idefics2_processor,
        config=idefics2_config,
        model="Idefics2ForConditionalGeneration",
    ),
    "qwen3_vl_moe": replace(FAMILIES["qwen3_vl"], config=qwen3_moe_config, model="Qwen3VLMoeForConditionalGeneration"),
    "paligemma 2": replace(
        FAMILIES["paligemma"],
        config=paligemma_config("gemma2", sliding_window=64, final_logit_softcapping=5.0, attn_logit_softcapping=20.0),
    ),
}
"""The same families as other checkpoints have them: what a fast path must notice."""
ALL = {**FAMILIES, **VARIANTS}


def tokenizer_of(name: str) -> Any:
    """Return the family's tokenizer; padding is 0, BOS 1, EOS 2."""
    tiny = ALL[name]
    specials = ("<pad>", tiny.bos, tiny.eos, *(token for token in tiny.specials if token not in (tiny.bos, tiny.eos)))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer_json(specials)),
        bos_token=tiny.bos,
        eos_token=tiny.eos,
        pad_token="<pad>",
        extra_special_tokens=dict(tiny.named),
    )
    if tiny.last:
        tokenizer.add_special_tokens({"additional_special_tokens": [tiny.last]})
    return tokenizer


def processor_of(name: str) -> Any:
    """Return a fresh processor of the family."""
    tiny = ALL[name]
    return tiny.processor(tokenizer_of(name), tiny.template)


@cache
def _built(name: str) -> Any:
    tiny, processor = ALL[name], processor_of(name)
    vocabulary = len(processor.tokenizer) - bool(tiny.last)
    torch.manual_seed(0)
    model = getattr(transformers, tiny.model)(tiny.config(processor, vocabulary)).eval()
    for key, weight in model.named_parameters():
        if key.endswith("gate"):  # Mllama starts with its cross-attention shut
            torch.nn.init.constant_(weight, 0.7)
        elif any(word in key for word in ("vision", "visual", "projector", "connector")):
            weight.data.add_(torch.randn_like(weight) * 0.1)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = 0
    return model


def model_of(name: str) -> Any:
    """Return a fresh tiny random model of the family, in eval mode."""
    return copy.deepcopy(_built(name))


def family(name: str) -> Family:
    """Return the family that claims the model, as `open_model` finds it."""
    return family_for(_built(name).config.model_type)


def save_family(name: str, folder: Path) -> Path:
    """Write model and processor as a plain Hugging Face folder."""
    _built(name).save_pretrained(folder)
    processor_of(name).save_pretrained(folder)
    return folder


SHAPES = {"ada": (16, 16), "bo": (32, 16), "cleo": (16, 32), "dan": (32, 32)}


def pictured(example: Example) -> Example:
    """Return the example with a picture whose shape depends on the person."""
    if example.image is None:
        return example
    drawn: Any = example.image
    return replace(example, image=Picture(drawn.color, drawn.mark, *SHAPES[example.entity]))


def examples() -> dict[Role, list[Example]]:
    """Return forget and retain questions about pictures of several shapes, and one without a picture."""
    forget = [pictured(person(name, Role.FORGET, 0, kind)) for name in ("ada", "bo") for kind in (Kind.OPEN, Kind.NAME)]
    retain = [pictured(person(name, Role.RETAIN)) for name in ("cleo", "dan")]
    text = Example(
        id="t",
        role=Role.RETAIN_TEXT,
        question="What does Cleo Marsh do?",
        answer="pilot",
        entity="cleo",
        kind=Kind.FACT,
    )
    assert set(SHAPES) == set(PEOPLE)
    return {Role.FORGET: forget, Role.RETAIN: retain, Role.RETAIN_TEXT: [text]}


def vlm_of(name: str) -> VLM:
    """Return a fresh model of the family with its processor."""
    return VLM(model=model_of(name), processor=processor_of(name), family=family(name))


def session_of(name: str, out: Path, training: Training | None = None) -> Session:
    """Return a session on a fresh model of the family, not yet prepared for training."""
    return Session(
        vlm=vlm_of(name),
        examples=examples(),
        training=training or Training(lr=1e-2, epochs=1, max_new_tokens=6, stop="never"),
        seed=0,
        out=out,
        resume=False,
    )
