"""Common base of model families: Auto classes, chat templates, module names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakKeyDictionary

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import Module
from transformers import AutoModelForImageTextToText
from transformers.utils import logging

from unsee.api import Family, Part, registry
from unsee.compat.models import unwrapped
from unsee.compat.processors import open_processor
from unsee.distributed import processes
from unsee.errors import UserError, short_repr
from unsee.models.meta_device import meta_model
from unsee.models.padding import cut, extend, merge

if TYPE_CHECKING:
    from PIL.Image import Image

VISION = frozenset({"vision_tower", "visual", "vision_model"})
PROJECTOR = frozenset({"multi_modal_projector", "connector", "aligner", "merger", "deepstack_merger_list"})
LANGUAGE = frozenset({"language_model", "text_model", "lm_head"})
LONGEST_PROMPT = 1_000_000
"""Most characters that a chat template may add around a question."""
_ON_CPU: Final[ContextVar[bool]] = ContextVar("on_cpu", default=False)
"""Whether `load` leaves models on the CPU."""
ANSWER = "unsee-answer"
"""Placeholder answer, to find out what the chat template writes after it."""


class AutoFamily(Family):
    """Family based on transformers' Auto classes, the chat template and usual module names.

    Abstract.

    Most families in `models/` add nothing but the model types they serve; what differs is overridden there.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    date: ClassVar[str] = ""
    """Fixed date for chat templates that write one (`date_string`), so that prompts are reproducible; "" = today."""
    answer_values: ClassVar[Mapping[str, int]] = {}
    """Per-token inputs that are not 0 at answer tokens, with their value there."""

    def load(self, path: Path | str, *, dtype: str = "auto") -> tuple[Module, Any]:
        """Return model (eval mode) and processor."""
        return load(path, dtype=dtype)

    def prompt(self, processor: Any, question: str, *, has_image: bool, instruction: str = "") -> str:
        """Return the user turn in the checkpoint's chat template, up to the start of the answer."""
        text = f"{instruction} {question}" if instruction else question
        content = [{"type": "image"}] if has_image else []
        turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
        template_kwargs = (
            {"date_string": self.date} if self.date and "date_string" in str(processor.chat_template) else {}
        )
        try:
            rendered: str = processor.apply_chat_template(
                [turn], add_generation_prompt=True, tokenize=False, **template_kwargs
            )
        # A template is a program: besides its own errors it raises whatever its expressions do (OverflowError, KeyError, ...).
        except Exception as error:
            raise UserError(
                f"The chat template does not render a turn whose content is a list of an image and a text ({short_repr(str(error))}). "
                "Write a family with a `prompt` of its own: docs/extending.md."
            ) from error
        if len(rendered) > LONGEST_PROMPT + len(text):
            raise UserError(
                f"The chat template writes {len(rendered):,} characters around a question. It is damaged; copy chat_template.jinja "
                "of the original checkpoint."
            )
        return rendered

    def encode(self, processor: Any, prompts: Sequence[str], images: Sequence[Image | None]) -> dict[str, Tensor]:
        """Return left-padded inputs with every key of the processor.

        Rows with and without an image may be mixed.
        """
        rows = [self.encode_one(processor, text, image) for text, image in zip(prompts, images, strict=True)]
        return merge(rows, pad_id(processor))

    def encode_one(self, processor: Any, text: str, image: Image | None) -> dict[str, Tensor]:
        """Return the inputs of one prompt, unpadded."""
        return encode_one(processor, text, image)

    def extend(self, row: Mapping[str, Tensor], token_ids: Sequence[int]) -> dict[str, Tensor]:
        """Return the prompt followed by an answer."""
        return extend(row, token_ids, self.answer_values)

    def parts(self, model: Module) -> dict[Part, str]:
        """Return patterns of vision tower, projector and language model (with head)."""
        return parts(model)


def family_for(model_type: str) -> Family:
    """Return the family of a model type, else the generic one.

    Raises:
        UserError: Several families serve the type, of which at least one is a plugin's.
    """
    families: dict[str, type[Family]] = {name: registry.load("models", name) for name in registry.names("models")}
    names = [name for name, candidate in families.items() if model_type in candidate.model_types] or ["generic"]
    if len(names) > 1:
        origins = " and by ".join(f"{name} ({registry.origin('models', name)})" for name in names)
        raise UserError(
            f"Models of type {model_type} are served by {origins}. Take the type out of one, or go without its plugin."
        )
    return families[names[0]]()


def load(path: Path | str, *, dtype: str = "auto", template: bool = True) -> tuple[Module, Any]:
    """Load model (eval mode) and processor.

    Only safetensors are read; the CPU always gets fp32.

    `template`: whether the processor must have a chat template.
    """
    load_dtype = dtype if torch.cuda.is_available() else "float32"
    processor = load_processor(path)
    if template and processor.chat_template is None:
        raise UserError(
            f"The processor of {path} has no chat template; add a chat_template.jinja to the folder, or write a family with a "
            "`prompt` of its own: docs/extending.md."
        )
    if (hollow := _hollow(path)) is not None:
        _require_decoder(hollow, path)
        return hollow, processor
    try:
        with quiet(path):
            model, report = AutoModelForImageTextToText.from_pretrained(
                path, dtype=load_dtype, use_safetensors=True, output_loading_info=True, trust_remote_code=False
            )
    except SafetensorError as error:
        raise UserError(
            f"A weights file of {path} is damaged or cut off ({error}). Copy or download the checkpoint again."
        ) from error
    except torch.OutOfMemoryError:
        raise
    # Configs make transformers raise anything: RuntimeError (shapes), TypeError, KeyError, AttributeError, ...
    except Exception as error:
        refuse_code(path, error)
        raise UserError(f"Cannot load {path} as a vision-language model: {type(error).__name__}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{path} lacks {len(missing)} weights of its own architecture, which would be random: {', '.join(missing[:3])}, "
            "... Its weights may have been saved under other names; save the model again with save_pretrained."
        )
    _require_decoder(model, path)
    return model.eval().to("cpu" if _ON_CPU.get() else processes.device()), processor


@contextmanager
def on_cpu() -> Iterator[None]:
    """Make `load` leave models on the CPU for the block."""
    token = _ON_CPU.set(True)
    try:
        yield
    finally:
        _ON_CPU.reset(token)


@contextmanager
def quiet(path: Path | str) -> Iterator[None]:
    """Show no progress bars of transformers for the block, where a folder is read or written.

    Commands open several models, and their bars would be mixed with the results. Downloads keep theirs, and so does
    everything under TRANSFORMERS_VERBOSITY=info.
    """
    if not logging.is_progress_bar_enabled() or not Path(path).is_dir() or logging.get_verbosity() <= logging.INFO:
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _hollow(path: Path | str) -> Module | None:
    """Return `meta_model` of the path. An unusable config is an error of the checkpoint."""
    try:
        return meta_model(path)
    except Exception as error:
        raise UserError(f"Cannot make a model from config.json of {path}: {type(error).__name__}: {error}") from error


def load_processor(path: Path | str) -> Any:
    """Return the processor saved beside the weights."""
    try:
        return open_processor(path)
    except Exception as error:  # whatever its JSON files make transformers raise
        refuse_code(path, error)
        raise UserError(
            f"{path} has no usable processor beside its weights: {error}. Copy processor_config.json, the "
            "tokenizer's files and chat_template.jinja of the original checkpoint beside them."
        ) from error


def refuse_code(path: Path | str, error: Exception) -> None:
    """Raise if transformers failed because a checkpoint brings its own code, which it would have asked to run."""
    if "trust_remote_code" in str(error):
        raise UserError(
            f"{path} needs code of its own, which unsee never runs. Give the checkpoint in Hugging Face form, whose model is a "
            "class of transformers (its name often ends in -hf)."
        ) from error


def _require_decoder(model: Any, path: Path | str) -> None:
    """Raise unless the model is a decoder over prompt and answer in one sequence."""
    parameters = inspect.signature(model.forward).parameters
    if model.config.is_encoder_decoder or not {"input_ids", "pixel_values"} <= parameters.keys():
        raise UserError(
            f"Expected a decoder that continues a prompt with an image, but {path} holds a "
            f"{model.config.model_type!r} model, which takes {', '.join(list(parameters)[:6])}, ... Give another checkpoint."
        )


def encode_one(processor: Any, text: str, image: Image | None) -> dict[str, Tensor]:
    """Process one prompt without truncation, with exactly one BOS."""
    images = {} if image is None else {"images": [image]}
    add_bos = not starts_with_bos(processor, text)
    try:
        encoded = processor(text=[text], return_tensors="pt", add_special_tokens=add_bos, truncation=False, **images)
    except ValueError as error:
        raise UserError(f"The processor cannot make inputs of the prompt {short_repr(text)}: {error}") from error
    row = {key: value for key, value in encoded.items() if isinstance(value, Tensor)}
    if "input_ids" not in row:
        return row
    ids = row["input_ids"][0].tolist()
    span = own_span(processor, text, ids)
    return row if span == slice(0, len(ids)) else cut(row, span)


def starts_with_bos(processor: Any, text: str) -> bool:
    """Tell whether the prompt text already starts with BOS."""
    bos = processor.tokenizer.bos_token
    return bool(bos and text.startswith(bos))


def own_span(processor: Any, text: str, ids: Sequence[int]) -> slice:
    """Return the slice of token ids without a duplicate BOS and an added EOS.

    Some tokenizers add them (`add_bos_token`, `add_eos_token`). After EOS, a model would take the answer as finished.
    """
    tokenizer = processor.tokenizer
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    start = 1 if bos is not None and list(ids[:2]) == [bos, bos] else 0
    stop = len(ids)
    if eos is not None and not text.rstrip().endswith(tokenizer.eos_token):
        while stop > start and ids[stop - 1] == eos:
            stop -= 1
    return slice(start, stop)


def plain_ids(processor: Any, text: str) -> list[int]:
    """Tokenise a text without BOS and EOS."""
    ids = list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    ids = ids[own_span(processor, text, ids)]
    has_bos = ids[:1] == [processor.tokenizer.bos_token_id] and not starts_with_bos(processor, text)
    return ids[1:] if has_bos else ids


def pad_id(processor: Any) -> int:
    """Return the padding token id (EOS if there is none, since padding is masked)."""
    token_id = processor.tokenizer.pad_token_id
    return eos_id(processor) if token_id is None else int(token_id)


def image_token_id(model: Any) -> int | None:
    """Return the id of the token that stands for an image, None if the config has none."""
    config = unwrapped(model).config.to_dict()
    token = config.get("image_token_id", config.get("image_token_index"))
    return None if token is None else int(token)


_ENDS: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def eos_id(processor: Any) -> int:
    """Return the id that ends an answer: the chat template's, else the tokenizer's EOS.

    They differ where a turn has an end of its own (`<end_of_turn>` of Gemma 3, `<end_of_utterance>` of Idefics 3).
    """
    if processor not in _ENDS:
        _ENDS[processor] = _turn_end(processor)
    return _ENDS[processor]


def answer_start(processor: Any, prompt: str) -> str:
    """Return the blank between a prompt and its answer, as the chat template writes it.

    Where the template does not render the two together, or not from this prompt: a space after anything but a blank.
    """
    before, marker, _ = _rendered_turns(processor).rpartition(ANSWER)
    written = before.removeprefix(prompt)
    if marker and before.startswith(prompt) and not written.strip():
        return written
    return "" if prompt[-1:].isspace() else " "


def _turn_end(processor: Any) -> int:
    tokenizer = processor.tokenizer
    if tokenizer.eos_token_id is None:
        raise UserError("The tokenizer has no end-of-sequence token, so no answer could end; set eos_token.")
    _, marker, suffix = _rendered_turns(processor).rpartition(ANSWER)
    ids = tokenizer(suffix, add_special_tokens=False)["input_ids"] if marker else []
    added_tokens = tokenizer.added_tokens_decoder
    return next(
        (token for token in ids if token in added_tokens and added_tokens[token].special), int(tokenizer.eos_token_id)
    )


def _rendered_turns(processor: Any) -> str:
    """Return question and answer in the chat template, or nothing if it does not support that."""
    turns = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in (("user", "?"), ("assistant", ANSWER))
    ]
    try:
        return "" if processor.chat_template is None else str(processor.apply_chat_template(turns, tokenize=False))
    except (TemplateError, TypeError):
        return ""


def parts(model: Module) -> dict[Part, str]:
    """Return part -> regular expression on full module names."""
    names = [name for name, _ in model.named_modules()]
    projector = _tops(names, PROJECTOR)
    language = _tops(names, LANGUAGE)
    vision = [name for name in _tops(names, VISION) if not _inside(name, language)]
    language = [name for name in language if not _inside(name, vision)]
    projector = [name for name in projector if not _inside(name, language)]
    tops_by_part: Mapping[Part, tuple[list[str], list[str]]] = {
        "vision": (vision, projector),
        "projector": (projector, []),
        "language": (language, []),
    }
    return {part: _pattern(tops, without) for part, (tops, without) in tops_by_part.items() if tops}


def _tops(names: Sequence[str], part_names: frozenset[str]) -> list[str]:
    """Return the outermost modules with one of these names."""
    tops: list[str] = []
    for name in names:
        if name.rpartition(".")[2] in part_names and not _inside(name, tops):
            tops.append(name)
    return tops


def _inside(name: str, tops: Sequence[str]) -> bool:
    return any(name.startswith(f"{top}.") for top in tops)


def _pattern(tops: Sequence[str], without: Sequence[str]) -> str:
    """Match the top modules and everything below them, except what belongs to another part."""
    excluded = "".join(rf"(?!{re.escape(name)}(?:\.|$))" for name in without)
    return rf"{excluded}(?:{'|'.join(map(re.escape, tops))})(?:\..+)?"


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Put the model in eval mode for the block, then restore its mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
