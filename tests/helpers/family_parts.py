"""Processors and configs of the tiny models in `families.py`: real classes, a few thousand weights, images of 16 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
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

from unsee.compat import processors

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
TIED = ("gemma3_text", "qwen2_vl_text")
"""Language models whose checkpoints share the output head with the embeddings."""


def next_processor(tokenizer: Any, template: str | None) -> Any:
    images = LlavaNextImageProcessorPil(size={"shortest_edge": 16}, crop_size=SIZE, image_grid_pinpoints=PINPOINTS)
    return transformers.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def llava_processor(tokenizer: Any, template: str | None, image: int = 16, patch: int = 4) -> Any:
    images = CLIPImageProcessorPil(size={"shortest_edge": image}, crop_size={"height": image, "width": image})
    return transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _pictures_only(name: str) -> Any:
    """Return a processor class without its part for videos, which needs torchvision."""
    return processors.without_videos(getattr(transformers, name))


def onevision_processor(tokenizer: Any, template: str | None) -> Any:
    images = LlavaOnevisionImageProcessorPil(size=SIZE, image_grid_pinpoints=PINPOINTS)
    kind = _pictures_only("LlavaOnevisionProcessor")
    return kind(images, tokenizer, num_image_tokens=16, vision_feature_select_strategy="full", chat_template=template)


def qwen_processor(name: str, patch: int = 4, most: int = 1024) -> Callable[[Any, str | None], Any]:
    def make(tokenizer: Any, template: str | None) -> Any:
        images = Qwen2VLImageProcessorPil(patch_size=patch, merge_size=2, min_pixels=64, max_pixels=most)
        return _pictures_only(name)(images, tokenizer, chat_template=template)

    return make


def idefics_processor(tokenizer: Any, template: str | None) -> Any:
    images = Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    return transformers.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template)


def smol_processor(tokenizer: Any, template: str | None) -> Any:
    images = SmolVLMImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    return _pictures_only("SmolVLMProcessor")(images, tokenizer, None, image_seq_len=4, chat_template=template)


def internvl_processor(tokenizer: Any, template: str | None) -> Any:
    images = GotOcr2ImageProcessorPil(size=SIZE, max_patches=2)
    return _pictures_only("InternVLProcessor")(images, tokenizer, image_seq_length=4, chat_template=template)


def gemma_processor(tokenizer: Any, template: str | None) -> Any:
    return transformers.Gemma3Processor(
        Gemma3ImageProcessorPil(size=SIZE), tokenizer, image_seq_length=4, chat_template=template
    )


def paligemma_processor(tokenizer: Any, template: str | None) -> Any:
    images = SiglipImageProcessorPil(size=SIZE)
    images.image_seq_length = 16
    return transformers.PaliGemmaProcessor(images, tokenizer)


def mllama_processor(tokenizer: Any, template: str | None) -> Any:
    return transformers.MllamaProcessor(
        MllamaImageProcessorPil(size=SIZE, max_image_tiles=4), tokenizer, chat_template=template
    )


def aya_processor(tokenizer: Any, template: str | None) -> Any:
    images = GotOcr2ImageProcessorPil(size=SIZE, max_patches=2)
    return transformers.AyaVisionProcessor(images, tokenizer, patch_size=8, img_size=16, chat_template=template)


def idefics2_processor(tokenizer: Any, template: str | None) -> Any:
    images = Idefics2ImageProcessorPil(size={"longest_edge": 32, "shortest_edge": 16}, do_image_splitting=False)
    return transformers.Idefics2Processor(images, tokenizer, image_seq_len=4, chat_template=template)


def _text(kind: str, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {**TEXT_MODEL, "model_type": kind, "vocab_size": vocabulary, "tie_word_embeddings": kind in TIED, **more}


def llava_config(**more: Any) -> Callable[[Any, int], Any]:
    def make(processor: Any, vocabulary: int) -> Any:
        return transformers.LlavaConfig(
            text_config=_text("llama", vocabulary, **more),
            vision_config={**TOWER, "model_type": "clip_vision_model", "projection_dim": 16},
            image_token_id=processor.image_token_id,
            image_seq_length=16,
            vision_feature_layer=-1,
        )

    return make


def next_config(kind: str, **more: Any) -> Callable[[Any, int], Any]:
    def make(processor: Any, vocabulary: int) -> Any:
        return transformers.LlavaNextConfig(
            text_config=_text(kind, vocabulary, **more),
            vision_config={**TOWER, "model_type": "clip_vision_model", "projection_dim": 16},
            image_grid_pinpoints=PINPOINTS,
            image_token_id=processor.image_token_id,
            vision_feature_layer=-1,
        )

    return make


def onevision_config(processor: Any, vocabulary: int) -> Any:
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


def qwen2_config(processor: Any, vocabulary: int) -> Any:
    return transformers.Qwen2VLConfig(
        text_config=_text("qwen2_vl_text", vocabulary, **MROPE),
        vision_config=_qwen_vision(embed_dim=16),
        tie_word_embeddings=True,
        **_qwen_ids(processor),
    )


def qwen2_5_config(processor: Any, vocabulary: int) -> Any:
    vision = _qwen_vision(intermediate_size=64, out_hidden_size=32, fullatt_block_indexes=[1], window_size=16)
    return transformers.Qwen2_5_VLConfig(
        text_config=_text("qwen2_5_vl_text", vocabulary, **MROPE), vision_config=vision, **_qwen_ids(processor)
    )


def qwen3_config(processor: Any, vocabulary: int) -> Any:
    vision = _qwen_vision(
        intermediate_size=64, out_hidden_size=32, deepstack_visual_indexes=[0, 1], num_position_embeddings=16
    )
    return transformers.Qwen3VLConfig(
        text_config=_text("qwen3_vl_text", vocabulary, **MROPE, head_dim=8),
        vision_config=vision,
        **_qwen_ids(processor),
    )


def qwen3_moe_config(processor: Any, vocabulary: int) -> Any:
    vision = _qwen_vision(
        intermediate_size=64, out_hidden_size=32, deepstack_visual_indexes=[0, 1], num_position_embeddings=16
    )
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    return transformers.Qwen3VLMoeConfig(
        text_config=_text("qwen3_vl_moe_text", vocabulary, **MROPE, **experts),
        vision_config=vision,
        **_qwen_ids(processor),
    )


def idefics_config(kind: str) -> Callable[[Any, int], Any]:
    def make(processor: Any, vocabulary: int) -> Any:
        return getattr(transformers, kind)(
            text_config=_text("llama", vocabulary),
            vision_config={**TOWER, "initializer_range": 0.2},
            scale_factor=2,
            image_token_id=processor.image_token_id,
            pad_token_id=0,
        )

    return make


def internvl_config(**more: Any) -> Callable[[Any, int], Any]:
    def make(processor: Any, vocabulary: int) -> Any:
        return transformers.InternVLConfig(
            text_config=_text("qwen2", vocabulary, **more),
            vision_config={**TOWER, "image_size": [16, 16], "patch_size": [4, 4], "initializer_range": 0.2},
            image_token_id=processor.image_token_id,
            image_seq_length=4,
            tie_word_embeddings=False,
        )

    return make


def aya_config(processor: Any, vocabulary: int) -> Any:
    text = _text("cohere2", vocabulary, sliding_window=16, layer_types=["sliding_attention", "full_attention"])
    return transformers.AyaVisionConfig(
        text_config=text,
        vision_config={**TOWER, "model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_id=processor.image_token_id,
        vision_feature_layer=-1,
        downsample_factor=2,
        tie_word_embeddings=False,
    )


def idefics2_config(processor: Any, vocabulary: int) -> Any:
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


def vip_config(processor: Any, vocabulary: int) -> Any:
    return transformers.VipLlavaConfig(
        text_config=_text("llama", vocabulary),
        vision_config={**TOWER, "model_type": "clip_vision_model", "projection_dim": 16},
        image_token_id=processor.image_token_id,
        image_seq_length=16,
        vision_feature_layers=[-1, -2],
    )


def gemma_config(processor: Any, vocabulary: int) -> Any:
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


def paligemma_config(kind: str, **more: Any) -> Callable[[Any, int], Any]:
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
            tie_word_embeddings=False,
        )

    return make


def mllama_config(processor: Any, vocabulary: int) -> Any:
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
