"""What every family shares: loading, prompting and encoding through transformers' Auto classes and the chat template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers import AutoModelForImageTextToText, AutoProcessor

from unsee import devices
from unsee.api import Part
from unsee.errors import UserError
from unsee.padding import merge

if TYPE_CHECKING:
    from PIL.Image import Image

VISION = frozenset({"vision_tower", "visual", "vision_model"})
PROJECTOR = frozenset({"multi_modal_projector", "connector", "aligner", "merger"})
LANGUAGE = frozenset({"language_model", "text_model", "lm_head"})


def load(path: Path | str, *, dtype: str = "auto") -> tuple[Module, Any]:
    """Return model (eval mode) and processor; on a CPU always in fp32, weights only from safetensors."""
    wanted = dtype if torch.cuda.is_available() else "float32"
    processor = load_processor(path)
    try:
        model = AutoModelForImageTextToText.from_pretrained(path, dtype=wanted, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot load {path} as a vision-language model: {error}") from error
    return model.eval().to(devices.device()), processor


def load_processor(path: Path | str) -> Any:
    """Return the processor saved beside the weights."""
    try:
        processor = AutoProcessor.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} has no usable processor beside its weights (processor_config.json): {error}"
        ) from error
    if processor.chat_template is None:
        raise UserError(f"The processor of {path} has no chat template; add a chat_template.jinja to the folder.")
    return processor


def prompt(processor: Any, question: str, *, has_image: bool, instruction: str = "") -> str:
    """Render the user turn with the checkpoint's own chat template, up to where the answer begins."""
    text = f"{instruction} {question}" if instruction else question
    content = [{"type": "image"}] if has_image else []
    turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
    rendered: str = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    return rendered


def encode(processor: Any, prompts: Sequence[str], images: Sequence[Image | None]) -> dict[str, Tensor]:
    """Return model inputs, left-padded; rows are processed one by one so that text-only rows may stand among them."""
    rows = [_encode_one(processor, text, image) for text, image in zip(prompts, images, strict=True)]
    return merge(rows, pad_id(processor))


def pad_id(processor: Any) -> int:
    """Return the id used for padding (EOS if the tokenizer has no padding token; it is masked anyway)."""
    tokenizer = processor.tokenizer
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def _encode_one(processor: Any, text: str, image: Image | None) -> dict[str, Tensor]:
    """Process one prompt; a template that writes the BOS token itself must not get a second one."""
    bos = processor.tokenizer.bos_token
    special = not (bos and text.startswith(bos))
    images = {} if image is None else {"images": [image]}
    encoded = processor(text=[text], return_tensors="pt", add_special_tokens=special, **images)
    return {key: value for key, value in encoded.items() if isinstance(value, Tensor)}


def parts(model: Module) -> dict[Part, str]:
    """Return part -> regular expression on full module names, found from the names of the top modules."""
    names = [name for name, _ in model.named_modules()]
    projector = _tops(names, PROJECTOR)
    language = _tops(names, LANGUAGE)
    vision = [name for name in _tops(names, VISION) if not _inside(name, language)]
    language = [name for name in language if not _inside(name, vision)]
    projector = [name for name in projector if not _inside(name, language)]
    found: Mapping[Part, tuple[list[str], list[str]]] = {
        "vision": (vision, projector),
        "projector": (projector, []),
        "language": (language, []),
    }
    return {part: _pattern(tops, without) for part, (tops, without) in found.items() if tops}


def _tops(names: Sequence[str], wanted: frozenset[str]) -> list[str]:
    """Return the outermost modules whose own name is wanted."""
    tops: list[str] = []
    for name in names:
        if name.rpartition(".")[2] in wanted and not _inside(name, tops):
            tops.append(name)
    return tops


def _inside(name: str, tops: Sequence[str]) -> bool:
    return any(name.startswith(f"{top}.") for top in tops)


def _pattern(tops: Sequence[str], without: Sequence[str]) -> str:
    """Match the top modules and everything below them, except what belongs to another part."""
    excluded = "".join(rf"(?!{re.escape(name)}(?:\.|$))" for name in without)
    return rf"{excluded}(?:{'|'.join(map(re.escape, tops))})(?:\..+)?"
