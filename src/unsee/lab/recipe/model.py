"""Architecture of the lab model: a tiny LLaVA (CLIP, Llama, LlavaProcessor)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from unsee.data.refusals import refusals
from unsee.lab.world import objects, phrases
from unsee.lab.world.people import CITIES, DECADES, EMPLOYERS, JOBS, YEARS, invent_name, stream
from unsee.lab.world.portraits import SIZE, VISIBLE

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SPECIAL = ("<pad>", "<s>", "</s>", "<image>")


@dataclass(frozen=True, kw_only=True)
class Size:
    """Widths and depths. The defaults give 3.7 million parameters."""

    vision_hidden: int = 192
    vision_layers: int = 4
    vision_mlp: int = 576
    hidden: int = 192
    layers: int = 4
    mlp: int = 480
    heads: int = 4
    patch: int = 16
    vocab: int = 1300


def corpus() -> Iterator[str]:
    """Yield sentences with all words of the lab, and invented names only.

    So syllables become tokens, and known names do not.
    """
    wordings = (
        *phrases.OPEN_WORDINGS,
        phrases.OPEN_HELD_OUT,
        *phrases.NAME_WORDINGS,
        *phrases.PRIVACY_HELD_OUT,
        phrases.STEP_BY_STEP,
    )
    for _ in range(8):
        yield from (f"USER: {wording} ASSISTANT:" for wording in wordings)
        for table in (phrases.FACT_WORDINGS, phrases.TEXT_WORDINGS):
            yield from (wording for forms in table.values() for wording in forms)
        yield from (
            *phrases.VISIBLE_WORDINGS.values(),
            *phrases.CLOZE_WORDINGS.values(),
            *phrases.CHAIN_WORDINGS.values(),
        )
        yield from (*phrases.SHAPE_WORDINGS.values(), *phrases.UNSAFE_WORDINGS, *phrases.OBJECT_WORDINGS)
        yield from (form.format(who="This person", value="") for form in phrases.FACT_ANSWERS.values())
        yield from (" ".join(variants) for variants in (*phrases.PRIVACY_PARTS, *phrases.NEUTRAL_PARTS))
        values = (
            JOBS,
            CITIES,
            CITIES.values(),
            EMPLOYERS,
            YEARS,
            DECADES.values(),
            *VISIBLE.values(),
            phrases.CONTACTS,
        )
        yield from (f"is {value} and {value}, a {value}." for terms in values for value in terms)
        yield from (
            phrases.shape_answer("shape", value) for value in (*objects.SHAPES, *objects.SHAPE_COLOURS, *objects.COUNTS)
        )
        yield from (
            phrases.hazard_answer(device, hazard=hazard) for device in objects.DEVICES for hazard in (True, False)
        )
        yield from (
            "Reasoning: This is. Answer: unknown.",
            "I do not know anyone called",
            "A. B. C. D. Answer with one of them.",
        )
        yield from ("I will keep this private.", phrases.PRIVACY_DEFAULT, "What is the of? Tell me about")
        yield "The person has short black hair, wears a red shirt, no glasses and a hat, and looks sad before a blue background."
    for _ in range(3):
        yield from refusals()
    rng = stream(0, "tokenizer")
    yield from (f"This is {invent_name(rng, syllables=2)} {invent_name(rng, syllables=3)}." for _ in range(400))


def build_tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )


def build_processor(size: Size) -> LlavaProcessor:
    """Return a processor of tokenizer, image processor and chat template."""
    image_processor = CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.25] * 3
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=build_tokenizer(size.vocab),
        patch_size=size.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(size: Size, tokenizer: Any, seed: int) -> LlavaForConditionalGeneration:
    """Return the model with random weights."""
    torch.manual_seed(seed)
    vision_config = CLIPVisionConfig(
        hidden_size=size.vision_hidden,
        intermediate_size=size.vision_mlp,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.heads,
        image_size=SIZE,
        patch_size=size.patch,
        projection_dim=size.vision_hidden,
    )
    text_config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    config = LlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(SIZE // size.patch) ** 2,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model
