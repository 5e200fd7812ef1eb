"""Random models with the widths of LLaVA-1.5-7B and Qwen2.5-VL-7B, and their data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from torch.nn import Module

from perf.subject import FACTS, SHARED, Noise, device, exam, sentence
from unsee.api import Example, Family, Role
from unsee.models.auto import family_for

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # the families' tokenizers and processors

from helpers import families, family_parts

WORDS: Final = 6
"""Words of an answer: 20 to 30 tokens of the tests' tokenizer, as many as the answers of MLLMU-Bench have."""


def llava_config(processor: Any) -> Any:
    """Return the config of llava-hf/llava-1.5-7b-hf."""
    return transformers.LlavaConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": 32064,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
        },
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
        image_token_id=processor.image_token_id,
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def qwen_config(processor: Any) -> Any:
    """Return the config of Qwen/Qwen2.5-VL-7B-Instruct."""
    ids = processor.tokenizer.convert_tokens_to_ids
    return transformers.Qwen2_5_VLConfig(
        text_config={
            "model_type": "qwen2_5_vl_text",
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
        },
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model to be built: its family in the tests, its config and processor, and the side of its images."""

    family: str
    config: Callable[[Any], Any]
    processor: Callable[[Any, str | None], Any]
    image: int

    @cached_property
    def built_processor(self) -> Any:
        """Return the processor, with the tests' tokenizer of a few hundred entries."""
        return self.processor(families.tokenizer_of(self.family), families.ALL[self.family].template)

    def model(self) -> Module:
        """Return the random model on the device, in bf16 there and in fp32 on a CPU."""
        config = self.config(self.built_processor)
        dtype = torch.bfloat16 if device().type == "cuda" else torch.float32
        torch.manual_seed(0)
        with torch.device(device()):
            made = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
        tokenizer = self.built_processor.tokenizer
        made.generation_config.eos_token_id, made.generation_config.pad_token_id = tokenizer.eos_token_id, 0
        return made

    def known_family(self) -> Family:
        """Return the family that claims the model."""
        return family_for(self.config(self.built_processor).model_type)

    def save(self, folder: Path) -> Path:
        """Write config and processor, no weights: what an estimate needs."""
        config = self.config(self.built_processor)
        config.dtype = torch.bfloat16
        config.save_pretrained(folder)
        self.built_processor.save_pretrained(folder)
        return folder


def _tiny(family: str) -> Size:
    made = families.ALL[family]
    return Size(
        family=family,
        config=lambda processor: made.config(processor, len(processor.tokenizer)),
        processor=made.processor,
        image=16,
    )


SIZES: Final = {
    "llava_1_5_7b": Size(
        family="llava",
        config=llava_config,
        processor=lambda tokenizer, template: family_parts.llava_processor(tokenizer, template, image=336, patch=14),
        image=336,
    ),
    "qwen2_5_vl_7b": Size(
        family="qwen2_5_vl",
        config=qwen_config,
        processor=family_parts.qwen_processor("Qwen2_5_VLProcessor", patch=14, most=504 * 504),
        image=504,
    ),
}
TINY: Final = {name: _tiny(size.family) for name, size in SIZES.items()}
"""The same families with a few thousand weights, for rehearsals."""


def write_data(folder: Path, size: int, people: int) -> Path:
    """Write a folder of data: so many people to forget and to retain, `SHARED` questions about one image each."""
    folder.mkdir(parents=True)
    with (folder / "data.jsonl").open("w", encoding="utf-8") as file:
        for start, role in ((0, Role.FORGET), (1000, Role.RETAIN)):
            for person in range(start, start + people):
                name = f"{person}.png"
                Noise(person, size).load().save(folder / name)
                for row in _rows(person, role, name):
                    file.write(json.dumps(row) + "\n")
    return folder


def _rows(person: int, role: Role, image: str) -> Iterator[dict[str, Any]]:
    """Yield the questions about a person's image and, of those to retain, as many without it."""
    private = {"name": [f"Nobody {person}"]} if role is Role.FORGET else {}
    for number in range(SHARED):
        seed = SHARED * person + number
        asked = f"What is the {FACTS[number % len(FACTS)]} {sentence(seed, 1)} of this person?"
        row = {"question": asked, "answer": sentence(10_000 + seed, WORDS), "entity": f"person{person}"}
        yield {**row, "image": image, "role": role.value, "private": private}
        if role is Role.RETAIN:
            named = asked.replace("this person", sentence(person, 2))
            yield {**row, "question": named, "image": "", "role": Role.RETAIN_TEXT.value, "private": {}}


def questions(size: int, images: int) -> list[Example]:
    """Return what is judged about so many images: five with options, two cloze, one open each."""
    return [question for person in range(images) for question in exam(person, size)]
