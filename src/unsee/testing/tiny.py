"""A tiny random LLaVA with a real processor, and synthetic examples, for offline tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from unsee.api import VLM, Example, Kind, Role, Session, Training
from unsee.models.families.llava import Llava

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {% for c in m.content %}"
    "{% if c.type == 'image' %}<image>\n{% else %}{{ c.text }}{% endif %}{% endfor %} "
    "{% else %}ASSISTANT: {{ m.content[0].text }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
TEXT = (
    "Tell me the information of this person. Who is this? This is Ada Lovell , a baker from Lisbon . It is Bo Winter ,"
    " a diver from Oslo . The person has red hair and a blue shirt . I cannot help with that . USER: ASSISTANT:\n"
    "Do not reveal private information. Describe only what is visible. What does Cleo Marsh do? pilot Rome Dan Reed"
)
INSTRUCTION = "Do not reveal private information. Describe only what is visible."
QUESTION = "Tell me the information of this person."


@dataclass(frozen=True)
class Drawn:
    """An image drawn from its colour, without a file."""

    color: str
    mark: int = 0

    @property
    def key(self) -> str:
        """Equal exactly when the pixels are."""
        return f"{self.color}-{self.mark}"

    def load(self) -> Image.Image:
        """Draw the image."""
        image = Image.new("RGB", (16, 16), self.color)
        ImageDraw.Draw(image).rectangle((self.mark, self.mark, self.mark + 3, self.mark + 3), fill="white")
        return image


@cache
def tokenizer_json(special: tuple[str, ...] = ("<pad>", "<s>", "</s>", "<image>")) -> str:
    """Train the byte-level BPE once per test run, with these special tokens in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special_tokens = [AddedToken(token, special=True, normalized=False) for token in special]
    trainer = trainers.BpeTrainer(
        vocab_size=336 + len(special_tokens),
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer.to_str()


def tiny_processor(image_tokens: int = 16) -> Any:
    """Return a LlavaProcessor whose images take 1 or 16 tokens."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer_json()), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    size = {"height": 16, "width": 16}
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size)
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=16 if image_tokens == 1 else 4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def tiny_model(image_tokens: int = 16, seed: int = 0) -> LlavaForConditionalGeneration:
    """Return a random LLaVA of about 60 k parameters in eval mode."""
    processor = tiny_processor(image_tokens)
    vision_config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=processor.patch_size,
        projection_dim=16,
    )
    text_config = LlamaConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_id=processor.image_token_id,
        image_seq_length=image_tokens,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 0
    return model


def save_tiny(folder: Path, image_tokens: int = 16, seed: int = 0) -> Path:
    """Write model and processor as a plain Hugging Face folder."""
    tiny_model(image_tokens, seed).save_pretrained(folder)
    tiny_processor(image_tokens).save_pretrained(folder)
    return folder


PEOPLE = {
    "ada": ("Ada Lovell", "baker", "Lisbon", "red"),
    "bo": ("Bo Winter", "diver", "Oslo", "blue"),
    "cleo": ("Cleo Marsh", "pilot", "Rome", "green"),
    "dan": ("Dan Reed", "chemist", "Paris", "yellow"),
}


def person(entity: str, role: Role, mark: int = 0, kind: Kind = Kind.OPEN) -> Example:
    """Return one image question about a person.

    Args:
        entity: Key of `PEOPLE`.
        role: Role of the row in the deletion request.
        mark: Number drawn into the image, so that an entity has several.
        kind: Open question, or any other for the question who this is.
    """
    name, job, city, color = PEOPLE[entity]
    question, answer = (
        (QUESTION, f"This is {name} , a {job} from {city} .") if kind is Kind.OPEN else ("Who is this?", f"{name}")
    )
    return Example(
        id=f"{entity}-{mark}-{kind}",
        role=role,
        question=question,
        answer=answer,
        image=Drawn(color, mark),
        entity=entity,
        kind=kind,
        private={"name": (name, name.split()[1]), "job": (job,), "city": (city,)},
        visible={"shirt": color},
    )


def tiny_examples() -> dict[Role, list[Example]]:
    """Return examples of two forget and two retain people, and one text question."""
    forget = [
        person(name, Role.FORGET, mark, kind)
        for name in ("ada", "bo")
        for mark in (0, 8)
        for kind in (Kind.OPEN, Kind.NAME)
    ]
    retain = [person(name, Role.RETAIN, mark, Kind.OPEN) for name in ("cleo", "dan") for mark in (0, 8)]
    text_example = Example(
        id="t",
        role=Role.RETAIN_TEXT,
        question="What does Cleo Marsh do?",
        answer="pilot",
        entity="cleo",
        kind=Kind.FACT,
    )
    return {Role.FORGET: forget, Role.RETAIN: retain, Role.RETAIN_TEXT: [text_example]}


def tiny_vlm(image_tokens: int = 16, seed: int = 0, instruction: str = "") -> VLM:
    """Return a fresh tiny model with its processor."""
    model, processor = tiny_model(image_tokens, seed), tiny_processor(image_tokens)
    return VLM(model=model, processor=processor, family=Llava(), instruction=instruction)


def tiny_session(
    out: Path, *, training: Training | None = None, image_tokens: int = 16, seed: int = 0, resume: bool = False
) -> Session:
    """Return a session on a fresh tiny model, not yet prepared for training.

    Args:
        out: Run folder.
        training: Settings; None = one epoch without a stop rule.
        image_tokens: Image tokens per picture, a square number.
        seed: Seed of weights and run.
        resume: Continue from the checkpoints in `out`.
    """
    return Session(
        vlm=tiny_vlm(image_tokens, seed),
        examples=tiny_examples(),
        training=training or Training(lr=1e-2, epochs=1, max_new_tokens=8, stop="never"),
        seed=seed,
        out=out,
        resume=resume,
    )
