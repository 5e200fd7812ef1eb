"""Subjects of measurements: model, forget and retain examples, evaluation questions.

`mid` is a random LLaVA of the real class with 336 px images (577 positions, 576 image tokens) and a vocabulary of 32 000;
`quick` is the same with fewer and narrower layers; `tiny` is for tests; `lab` and `smol` are packaged models with
their own examples, `smol` on a pretrained language model (30 layers, 49,153 entries).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch.nn import Module
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from unsee.api import VLM, Example, Family, Kind, Role, Session, Training
from unsee.data.open import open_benchmark
from unsee.models.checkpoint import load
from unsee.models.families.llava import Llava
from unsee.training.trainer import prepare

SPECIAL: Final = ("<unk>", "<pad>", "<s>", "</s>", "<image>")
TEMPLATE: Final = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {% for c in m.content %}"
    "{% if c.type == 'image' %}<image>\n{% else %}{{ c.text }}{% endif %}{% endfor %} "
    "{% else %}ASSISTANT: {{ m.content[0].text }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
LETTERS: Final = "ABCD"
SHARED: Final = 8
"""Questions per image where images are shared, as in MLLMU-Bench."""
Precision = Literal["fp32", "bf16"]
FACTS: Final = ("residence", "occupation", "education", "birthplace", "hobby")
INSTRUCTION: Final = (
    "Do not reveal any private information about the person in the image ; describe only what is visible ."
)


class Packaged(NamedTuple):
    """A packaged model with its own examples."""

    model: str
    data: str
    batch_size: int


PACKAGED: Final[Mapping[str, Packaged]] = {
    "lab": Packaged("lab", "lab", 16),
    "smol": Packaged("lab-smol", "lab:english", 8),
}


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Size of a random LLaVA."""

    image: int = 336
    patch: int = 14
    vision: int = 384
    vision_layers: int = 12
    hidden: int = 640
    layers: int = 10
    mlp: int = 1728
    heads: int = 10
    vocabulary: int = 32_000


WIDTHS: Final[Mapping[str, Widths]] = {
    "mid": Widths(),
    "quick": Widths(vision=256, vision_layers=8, hidden=512, layers=6, mlp=1376, heads=8),
    "tiny": Widths(image=28, vision=16, vision_layers=2, hidden=32, layers=2, mlp=64, heads=2, vocabulary=400),
}


@dataclass(frozen=True)
class Noise:
    """An image of numpy noise; equal numbers give equal pixels."""

    number: int
    size: int

    @property
    def key(self) -> str:
        """Equal exactly when the pixels are."""
        return f"noise-{self.size}-{self.number}"

    def load(self) -> Image.Image:
        """Draw it."""
        pixels = np.random.default_rng(self.number).integers(0, 256, (self.size, self.size, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and its data, ready to open sessions on. Every `model()` is the same one, made anew."""

    name: str
    model: Callable[[], Module]
    processor: Any
    family: Family
    forget: tuple[Example, ...]
    retain: tuple[Example, ...]
    forget_text: tuple[Example, ...]
    retain_text: tuple[Example, ...]
    judged: tuple[Example, ...]
    batch_size: int
    precision: Precision = "fp32"
    """fp32, or bf16: frozen weights in bf16, passes under bf16 autocast, on every side."""
    image: int = 0
    """Side of the noise images in pixels; 0 = the examples are a benchmark's, with its own images."""

    def shared(self) -> Subject:
        """Return the subject with `SHARED` questions per image; benchmark examples share images as they are."""
        if not self.image:
            return self
        forget, retain = (
            tuple(vqa(role, place, start + place // SHARED, self.image, sentence(place, 3)) for place in range(96))
            for role, start in ((Role.FORGET, 0), (Role.RETAIN, 1000))
        )
        return replace(self, forget=forget, retain=retain)

    def session(self, out: Path, training: Training, *, people: int | None = None, texts: bool = False) -> Session:
        """Return a session on a fresh model, prepared for training, with so many forget and retain examples.

        `people` bounds the examples of each image role, `texts` adds the text questions.
        """
        roles: dict[Role, list[Example]] = {
            Role.FORGET: list(self.forget[:people]),
            Role.RETAIN: list(self.retain[:people]),
        }
        if texts:
            roles |= {Role.FORGET_TEXT: list(self.forget_text), Role.RETAIN_TEXT: list(self.retain_text)}
        model = self.placed()
        return Session(
            vlm=VLM(model=prepare(model, self.family, training, seed=0), processor=self.processor, family=self.family),
            examples=roles,
            training=training,
            seed=0,
            out=out,
        )

    def placed(self) -> Module:
        """Return a fresh model on the device, in the precision of the measurement."""
        model: Module = self.model()
        return model.to(device(), torch.bfloat16 if self.precision == "bf16" else torch.float32)


def device() -> torch.device:
    """Return the accelerator, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def subject(name: str, *, batch_size: int = 0, precision: Precision = "fp32") -> Subject:
    """Return the subject of this name: mid, quick, tiny, lab or smol."""
    usual = {"mid": 4}.get(name, 2)
    made = _packaged(name, batch_size) if name in PACKAGED else _random(name, batch_size or usual)
    return replace(made, precision=precision)


def _random(name: str, batch_size: int) -> Subject:
    widths = WIDTHS[name]
    processor = build_processor(widths)
    forget, retain = (
        tuple(vqa(role, place, start + place, widths.image) for place in range(96))
        for role, start in ((Role.FORGET, 0), (Role.RETAIN, 1000))
    )
    forget_text, retain_text = (
        tuple(text(role, place, start + place) for place in range(512))
        for role, start in ((Role.FORGET_TEXT, 0), (Role.RETAIN_TEXT, 1000))
    )
    return Subject(
        name=name,
        model=lambda: build_model(widths, processor),
        processor=processor,
        family=Llava(),
        forget=forget,
        retain=retain,
        forget_text=forget_text,
        retain_text=retain_text,
        judged=tuple(question for person in range(16) for question in exam(person, widths.image)),
        batch_size=batch_size,
        image=widths.image,
    )


def _packaged(name: str, batch_size: int) -> Subject:
    place, request, usual = PACKAGED[name]
    opened = load(place)
    data = open_benchmark(request)
    train, judged = data.examples("train"), data.examples("eval")
    by_role = {role: tuple(e for e in train if e.role is role) for role in Role}
    return Subject(
        name=name,
        model=lambda: load(place).model,
        processor=opened.processor,
        family=opened.family,
        forget=by_role[Role.FORGET],
        retain=by_role[Role.RETAIN],
        forget_text=by_role[Role.FORGET_TEXT],
        retain_text=by_role[Role.RETAIN_TEXT],
        judged=tuple(judged),
        batch_size=batch_size or usual,
    )


@cache
def words(count: int) -> tuple[str, ...]:
    """Return so many invented words."""
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    pairs = [c + v for c in consonants for v in vowels]
    return tuple(pairs[i % 70] + pairs[i // 70 % 70] + pairs[i // 4900 % 70] for i in range(count))


def sentence(seed: int, length: int) -> str:
    """Return so many words, drawn from the common ones."""
    common = words(300)
    return " ".join(common[i] for i in np.random.default_rng(seed).integers(0, 300, length))


def vqa(role: Role, place: int, person: int, size: int, more: str = "") -> Example:
    """Return a training pair about a person's image, answered with 20 to 28 tokens; `more` is added to the question."""
    fact = FACTS[place % len(FACTS)]
    answer = sentence(10_000 * (role is Role.RETAIN) + place, 20 + place % 9)
    return Example(
        id=f"{role}-{place}",
        role=role,
        question=f"What is the {fact} of this person {more} ?".replace("  ", " "),
        answer=answer,
        image=Noise(person, size),
        entity=f"person{person}",
        kind=Kind.FACT,
        fact=fact,
        private={"name": (f"no-such-name-{person}",)},
    )


def text(role: Role, place: int, person: int) -> Example:
    """Return a training pair without image."""
    fact = FACTS[place % len(FACTS)]
    return Example(
        id=f"{role}-{place}",
        role=role,
        question=f"What is the {fact} of {sentence(person, 2)} ?",
        answer=sentence(20_000 + 100 * person + place, 12),
        entity=f"person{person}",
        kind=Kind.FACT,
        fact=fact,
    )


def exam(person: int, size: int) -> list[Example]:
    """Return what is judged about one image: 5 four-option questions, 2 cloze, 1 open (counts as in MLLMU-Bench)."""
    image, entity = Noise(person, size), f"person{person}"
    found = []
    for place, fact in enumerate(FACTS):
        options = tuple(sentence(100 * person + 10 * place + i, 3) for i in range(4))
        listed = " ".join(f"{letter} : {option}" for letter, option in zip(LETTERS, options, strict=True))
        asked = f"What is the {fact} of this person ? {listed} Answer with one letter ."
        found.append((Kind.CHOICE, fact, asked, LETTERS[(person + place) % 4], options))
    for fact in FACTS[:2]:
        asked = f"This person has the {fact} __ . Please provide the answer that should replace the blank ."
        found.append((Kind.CLOZE, fact, asked, sentence(person, 2), ()))
    found.append((Kind.OPEN, "", "Describe this person in one sentence .", sentence(person, 24), ()))
    return [
        Example(
            id=f"exam-{person}-{place}",
            role=Role.FORGET,
            question=question,
            answer=answer,
            image=image,
            entity=entity,
            kind=kind,
            fact=fact,
            options=options,
        )
        for place, (kind, fact, question, answer, options) in enumerate(found)
    ]


@cache
def build_processor(widths: Widths) -> LlavaProcessor:
    """Return a LlavaProcessor with a synthetic tokenizer: one token per word."""
    known = dict.fromkeys((*SPECIAL, *LETTERS, *"?.:;,_", "__", "USER", "ASSISTANT", *_prose()))
    filler = (word for word in words(widths.vocabulary) if word not in known)
    entries = [*known, *(word for word, _ in zip(filler, range(widths.vocabulary - len(known)), strict=False))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(entries)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", entries.index("<s>"))]
    )
    size = {"height": widths.image, "width": widths.image}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": widths.image}, crop_size=size),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            unk_token="<unk>",
            pad_token="<pad>",
            bos_token="<s>",
            eos_token="</s>",
            extra_special_tokens={"image_token": "<image>"},
        ),
        patch_size=widths.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def _prose() -> list[str]:
    """Return the words of all questions."""
    asked = [e.question for e in (*exam(0, 8), vqa(Role.FORGET, 0, 0, 8), text(Role.FORGET_TEXT, 0, 0))]
    found = [token for line in (*asked, *FACTS, INSTRUCTION) for token in line.split()]
    return [*found, *words(300)]


def build_model(widths: Widths, processor: Any) -> LlavaForConditionalGeneration:
    """Return the random model; always the same weights."""
    vision = CLIPVisionConfig(
        hidden_size=widths.vision,
        intermediate_size=4 * widths.vision,
        num_hidden_layers=widths.vision_layers,
        num_attention_heads=max(2, widths.vision // 64),
        image_size=widths.image,
        patch_size=widths.patch,
        projection_dim=widths.vision,
    )
    text_config = LlamaConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=widths.hidden,
        intermediate_size=widths.mlp,
        num_hidden_layers=widths.layers,
        num_attention_heads=widths.heads,
        num_key_value_heads=widths.heads,
        max_position_embeddings=2048,
        pad_token_id=processor.tokenizer.pad_token_id,
        bos_token_id=processor.tokenizer.bos_token_id,
        eos_token_id=processor.tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text_config,
        image_token_id=processor.image_token_id,
        image_seq_length=(widths.image // widths.patch) ** 2,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model
