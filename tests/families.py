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
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tiny import PEOPLE, person, tokenizer_json
from unsee import still
from unsee.api import Example, Family, Kind, Role, Session, Training
from unsee.autoclasses import family_for

SIZE = {"height": 16, "width": 16}
PINPOINTS = [[16, 32], [32, 16], [32, 32]]
TEXT_MODEL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}
TIED = ("gemma3_text", "gemma", "qwen2_vl_text")
"""Language models whose checkpoints share the output head with the embeddings."""


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


def _next_processor(tokenizer: Any, template: str | None) -> Any:
    images = LlavaNextImageProcessorPil(size={"shortest_edge": 16}, crop_size=SIZE, image_grid_pinpoints=PINPOINTS)
    return transformers.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _llava_processor(tokenizer: Any, template: str | None) -> Any:
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=SIZE)
    return transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _pictures_only(name: str) -> Any:
    """Return a processor class without its part for videos, which needs torchvision."""
    return still.without_videos(getattr(transformers, name))


def _onevision_processor(tokenizer: Any, template: str | None) -> Any:
    images = LlavaOnevisionImageProcessorPil(size=SIZE, image_grid_pinpoints=PINPOINTS)
    kind = _pictures_only("LlavaOnevisionProcessor")
    return kind(images, tokenizer, num_image_tokens=16, vision_feature_select_strategy="full", chat_template=template)


def _qwen_processor(name: str) -> Callable[[Any, str | None], Any]:
    def make(tokenizer: Any, template: str | None) -> Any:
        images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024)
        return _pictures_only(name)(images, tokenizer, chat_template=template)

    return make


def _idefics_processor(tokenizer: Any, template: str | None) -> Any:
    images = Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    return transformers.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template)


def _smol_processor(tokenizer: Any, template: str | None) -> Any:
    images = SmolVLMImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    return _pictures_only("SmolVLMProcessor")(images, tokenizer, image_seq_len=4, chat_template=template)


def _internvl_processor(tokenizer: Any, template: str | None) -> Any:
    images = GotOcr2ImageProcessorPil(size=SIZE, max_patches=2)
    return _pictures_only("InternVLProcessor")(images, tokenizer, image_seq_length=4, chat_template=template)


def _gemma_processor(tokenizer: Any, template: str | None) -> Any:
    return transformers.Gemma3Processor(
        Gemma3ImageProcessorPil(size=SIZE), tokenizer, image_seq_length=4, chat_template=template
    )


def _paligemma_processor(tokenizer: Any, template: str | None) -> Any:
    images = SiglipImageProcessorPil(size=SIZE)
    images.image_seq_length = 16
    return transformers.PaliGemmaProcessor(images, tokenizer)


def _mllama_processor(tokenizer: Any, template: str | None) -> Any:
    return transformers.MllamaProcessor(
        MllamaImageProcessorPil(size=SIZE, max_image_tiles=4), tokenizer, chat_template=template
    )


def _aya_processor(tokenizer: Any, template: str | None) -> Any:
    images = GotOcr2ImageProcessorPil(size=SIZE, max_patches=2)
    return transformers.AyaVisionProcessor(images, tokenizer, patch_size=8, img_size=16, chat_template=template)


def _idefics2_processor(tokenizer: Any, template: str | None) -> Any:
    images = Idefics2ImageProcessorPil(size={"longest_edge": 32, "shortest_edge": 16}, do_image_splitting=False)
    return transformers.Idefics2Processor(images, tokenizer, image_seq_len=4, chat_template=template)


def _text(kind: str, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {**TEXT_MODEL, "model_type": kind, "vocab_size": vocabulary, "tie_word_embeddings": kind in TIED, **more}


def _llava_config(**more: Any) -> Callable[[Any, int], Any]:
    def make(processor: Any, vocabulary: int) -> Any:
        return transformers.LlavaConfig(
            text_config=_text("llama", vocabulary, **more),
            vision_config={**TOWER, "model_type": "clip_vision_model", "projection_dim": 16},
            image_token_id=processor.image_token_id,
            image_seq_length=16,
            vision_feature_layer=-1,
        )

    return make


def _next_config(kind: str, **more: Any) -> Callable[[Any, int], Any]:
    def make(processor: Any, vocabulary: int) -> Any:
        return transformers.LlavaNextConfig(
            text_config=_text(kind, vocabulary, **more),
            vision_config={**TOWER, "model_type": "clip_vision_model", "projection_dim": 16},
            image_grid_pinpoints=PINPOINTS,
            image_token_id=processor.image_token_id,
            vision_feature_layer=-1,
        )

    return make


def _onevision_config(processor: Any, vocabulary: int) -> Any:
    return transformers.LlavaOnevisionConfig(
        text_config=_text("qwen2", vocabulary),
        vision_config={**TOWER, "model_type": "siglip_vision_model", "vision_use_head": False},
        image_grid_pinpoints=PINPOINTS,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
    )


def _qwen_vision(**more: Any) -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "initializer_range": 0.2,
        **more,
    }


def _qwen_ids(processor: Any) -> dict[str, int]:
    name = processor.tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": processor.image_token_id,
        "video_token_id": processor.video_token_id,
        "vision_start_token_id": name("<|vision_start|>"),
        "vision_end_token_id": name("<|vision_end|>"),
    }


def _qwen2_config(processor: Any, vocabulary: int) -> Any:
    return transformers.Qwen2VLConfig(
        text_config=_text("qwen2_vl_text", vocabulary, **MROPE),
        vision_config=_qwen_vision(embed_dim=16),
        tie_word_embeddings=True,
        **_qwen_ids(processor),
    )


def _qwen2_5_config(processor: Any, vocabulary: int) -> Any:
    vision = _qwen_vision(intermediate_size=64, out_hidden_size=32, fullatt_block_indexes=[1], window_size=16)
    return transformers.Qwen2_5_VLConfig(
        text_config=_text("qwen2_5_vl_text", vocabulary, **MROPE), vision_config=vision, **_qwen_ids(processor)
    )


def _qwen3_config(processor: Any, vocabulary: int) -> Any:
    vision = _qwen_vision(
        intermediate_size=64, out_hidden_size=32, deepstack_visual_indexes=[0, 1], num_position_embeddings=16
    )
    return transformers.Qwen3VLConfig(
        text_config=_text("qwen3_vl_text", vocabulary, **MROPE, head_dim=8),
        vision_config=vision,
        **_qwen_ids(processor),
    )


def _qwen3_moe_config(processor: Any, vocabulary: int) -> Any:
    vision = _qwen_vision(
        intermediate_size=64, out_hidden_size=32, deepstack_visual_indexes=[0, 1], num_position_embeddings=16
    )
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    return transformers.Qwen3VLMoeConfig(
        text_config=_text("qwen3_vl_moe_text", vocabulary, **MROPE, **experts),
        vision_config=vision,
        **_qwen_ids(processor),
    )


def _idefics_config(kind: str) -> Callable[[Any, int], Any]:
    def make(processor: Any, vocabulary: int) -> Any:
        return getattr(transformers, kind)(
            text_config=_text("llama", vocabulary),
            vision_config={**TOWER, "initializer_range": 0.2},
            scale_factor=2,
            image_token_id=processor.image_token_id,
            pad_token_id=0,
        )

    return make


def _internvl_config(**more: Any) -> Callable[[Any, int], Any]:
    def make(processor: Any, vocabulary: int) -> Any:
        return transformers.InternVLConfig(
            text_config=_text("qwen2", vocabulary, **more),
            vision_config={**TOWER, "image_size": [16, 16], "patch_size": [4, 4], "initializer_range": 0.2},
            image_token_id=processor.image_token_id,
            image_seq_length=4,
            tie_word_embeddings=False,
        )

    return make


def _aya_config(processor: Any, vocabulary: int) -> Any:
    text = _text("cohere2", vocabulary, sliding_window=16, layer_types=["sliding_attention", "full_attention"])
    return transformers.AyaVisionConfig(
        text_config=text,
        vision_config={**TOWER, "model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_id=processor.image_token_id,
        vision_feature_layer=-1,
        downsample_factor=2,
        tie_word_embeddings=False,
    )


def _idefics2_config(processor: Any, vocabulary: int) -> Any:
    return transformers.Idefics2Config(
        text_config=_text("mistral", vocabulary, sliding_window=None),
        vision_config={**TOWER, "image_size": 32, "initializer_range": 0.2},
        perceiver_config={
            "hidden_size": 32,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        image_token_id=processor.image_token_id,
    )


def _vip_config(processor: Any, vocabulary: int) -> Any:
    return transformers.VipLlavaConfig(
        text_config=_text("llama", vocabulary),
        vision_config={**TOWER, "model_type": "clip_vision_model", "projection_dim": 16},
        image_token_id=processor.image_token_id,
        image_seq_length=16,
        vision_feature_layers=[-1, -2],
    )


def _gemma_config(processor: Any, vocabulary: int) -> Any:
    tokenizer = processor.tokenizer
    text = _text(
        "gemma3_text", vocabulary, head_dim=8, sliding_window=16, layer_types=["sliding_attention", "full_attention"]
    )
    return transformers.Gemma3Config(
        text_config=text,
        vision_config={**TOWER, "model_type": "siglip_vision_model", "vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_id=tokenizer.image_token_id,
        boi_token_id=tokenizer.boi_token_id,
        eoi_token_id=tokenizer.eoi_token_id,
        tie_word_embeddings=True,
    )


def _paligemma_config(kind: str, **more: Any) -> Callable[[Any, int], Any]:
    def make(processor: Any, vocabulary: int) -> Any:
        return transformers.PaliGemmaConfig(
            text_config=_text(kind, vocabulary, head_dim=8, num_image_tokens=16, **more),
            vision_config={
                **TOWER,
                "model_type": "siglip_vision_model",
                "vision_use_head": False,
                "projection_dim": 32,
            },
            projection_dim=32,
            hidden_size=32,
            image_token_id=processor.image_token_id,
            tie_word_embeddings=kind in TIED,
        )

    return make


def _mllama_config(processor: Any, vocabulary: int) -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e4}
    text = _text("mllama_text_model", vocabulary, num_hidden_layers=3, cross_attention_layers=[1], rope_parameters=rope)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
        "intermediate_layers_indices": [0],
        "vision_output_dim": 32,
        "initializer_range": 0.2,
    }
    return transformers.MllamaConfig(
        text_config=text, vision_config=vision, image_token_id=processor.image_token_id, tie_word_embeddings=False
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
        _llava_processor,
        _llava_config(),
        "LlavaForConditionalGeneration",
        "USER: <image>\n",
    ),
    "llava_next_vicuna": Tiny(
        ("<image>",),
        plain("USER: ", "ASSISTANT: ", "<image>\n", begin=VICUNA),
        _next_processor,
        _next_config("llama"),
        "LlavaNextForConditionalGeneration",
        f"{VICUNA}USER: <image>\n",
    ),
    "llava_next_mistral": Tiny(
        ("<image>",),
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {% endif %}{% for c in m.content %}"
        "{% if c.type == 'image' %}<image>\n{% elif m.role == 'user' %}{{ c.text }} [/INST]{% else %} {{ c.text }}</s>{% endif %}"
        "{% endfor %}{% endfor %}",
        _next_processor,
        _next_config("mistral", sliding_window=None),
        "LlavaNextForConditionalGeneration",
        "[INST] <image>\n",
    ),
    "llava_onevision": Tiny(
        ("<image>", "<video>", "<|im_start|>"),
        chatml("<image>\n", blank=" "),
        _onevision_processor,
        _onevision_config,
        "LlavaOnevisionForConditionalGeneration",
        "<|im_start|>user <image>\n",
        **IM,
    ),
    "qwen2_vl": Tiny(
        (*QWEN, "<|im_start|>"),
        chatml(QWEN_IMAGE, "You are a helpful assistant."),
        _qwen_processor("Qwen2VLProcessor"),
        _qwen2_config,
        "Qwen2VLForConditionalGeneration",
        f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{QWEN_IMAGE}",
        **IM,
    ),
    "qwen2_5_vl": Tiny(
        (*QWEN, "<|im_start|>"),
        chatml(QWEN_IMAGE, "You are a helpful assistant."),
        _qwen_processor("Qwen2_5_VLProcessor"),
        _qwen2_5_config,
        "Qwen2_5_VLForConditionalGeneration",
        f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{QWEN_IMAGE}",
        **IM,
    ),
    "qwen3_vl": Tiny(
        (*QWEN, "<|im_start|>"),
        chatml(QWEN_IMAGE),
        _qwen_processor("Qwen3VLProcessor"),
        _qwen3_config,
        "Qwen3VLForConditionalGeneration",
        f"<|im_start|>user\n{QWEN_IMAGE}",
        **IM,
    ),
    "idefics3": Tiny(
        SPLIT,
        plain("User:", "Assistant: ", "<image>", "\n", "<end_of_utterance>", "<|begin_of_text|>"),
        _idefics_processor,
        _idefics_config("Idefics3Config"),
        "Idefics3ForConditionalGeneration",
        "<|begin_of_text|>User:<image>",
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        end="<end_of_utterance>",
    ),
    "smolvlm": Tiny(
        (*SPLIT, "<|endoftext|>"),
        plain("User:", "Assistant: ", "<image>", "\n", "<end_of_utterance>", "<|im_start|>"),
        _smol_processor,
        _idefics_config("SmolVLMConfig"),
        "SmolVLMForConditionalGeneration",
        "<|im_start|>User:<image>",
        bos="<|im_start|>",
        end="<end_of_utterance>",
    ),
    "internvl": Tiny(
        ("<img>", "</img>", "<IMG_CONTEXT>", "<video>", "<|im_start|>"),
        chatml("<IMG_CONTEXT>\n"),
        _internvl_processor,
        _internvl_config(),
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
        _gemma_processor,
        _gemma_config,
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
        _paligemma_processor,
        _paligemma_config("gemma"),
        "PaliGemmaForConditionalGeneration",
        "<image><bos>",
        bos="<bos>",
        eos="<eos>",
        named=(("image_token", "<image>"),),
    ),
    "mllama": Tiny(
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"),
        plain(HEADER.format("user"), HEADER.format("assistant"), "<|image|>", "", "<|eot_id|>", "<|begin_of_text|>"),
        _mllama_processor,
        _mllama_config,
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
        _aya_processor,
        _aya_config,
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
    "llava, llama 3 positions": replace(FAMILIES["llava"], config=_llava_config(rope_parameters=LLAMA3)),
    "llava, yarn": replace(FAMILIES["llava"], config=_llava_config(rope_parameters=YARN)),
    "llava_next, sliding window": replace(
        FAMILIES["llava_next_mistral"], config=_next_config("mistral", sliding_window=24)
    ),
    "internvl, dynamic positions": replace(FAMILIES["internvl"], config=_internvl_config(rope_parameters=DYNAMIC)),
    "vipllava": replace(FAMILIES["llava"], config=_vip_config, model="VipLlavaForConditionalGeneration"),
    "idefics2": replace(
        FAMILIES["idefics3"],
        processor=_idefics2_processor,
        config=_idefics2_config,
        model="Idefics2ForConditionalGeneration",
    ),
    "qwen3_vl_moe": replace(FAMILIES["qwen3_vl"], config=_qwen3_moe_config, model="Qwen3VLMoeForConditionalGeneration"),
    "paligemma 2": replace(
        FAMILIES["paligemma"],
        config=_paligemma_config("gemma2", sliding_window=64, final_logit_softcapping=5.0, attn_logit_softcapping=20.0),
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


def session_of(name: str, out: Path, training: Training | None = None) -> Session:
    """Return a session on a fresh model of the family, not yet prepared for training."""
    return Session(
        model=model_of(name),
        processor=processor_of(name),
        family=family(name),
        examples=examples(),
        training=training or Training(lr=1e-2, epochs=1, max_new_tokens=6, stop="never"),
        seed=0,
        out=out,
        resume=False,
    )
