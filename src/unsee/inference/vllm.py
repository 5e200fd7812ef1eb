"""Generation with vLLM (`pip install unsee[vllm]`), from the same prompts as token ids.

Prompts are tokenised here, image marks unexpanded, so that no template and no BOS token is applied twice; images are passed as
they were loaded. vLLM shares prefixes and batches by itself.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from transformers import AutoConfig, GenerationConfig

from unsee.api import Example, Family
from unsee.api.request import Completion, Prompt, Sampling
from unsee.errors import UserError
from unsee.inference.encoder import encoder
from unsee.inference.generation import NEUTRAL
from unsee.models import auto
from unsee.models.auto import eos_id
from unsee.models.checkpoint import adapter_base, family_of, open_model, read_sidecar, save_model
from unsee.models.location import ADAPTER, folder_of
from unsee.models.steering.artifact import NAME
from unsee.utils.files import hash_folder
from unsee.utils.seeds import seed_of

if TYPE_CHECKING:
    from unsee.api.request import Decoding, Values

_ENGINE: Final[dict[tuple[str, float], Any]] = {}
"""The running engine, by folder and its newest file. It fills the GPU, so there is one at most."""


@dataclass(frozen=True)
class VLLMBackend:
    """Model folder served by vLLM."""

    path: Path | str

    @cached_property
    def folder(self) -> Path | str:
        """Folder of the weights."""
        return folder_of(self.path)

    @cached_property
    def family(self) -> Family:
        """Model family."""
        return family_of(_base(self.folder))

    @cached_property
    def processor(self) -> Any:
        """Processor."""
        own = (Path(self.folder) / "processor_config.json").exists()
        return auto.load_processor(self.folder if own else _base(self.folder))

    @cached_property
    def instruction(self) -> str:
        """Text that precedes every question."""
        return str(read_sidecar(self.folder).get("instruction", ""))

    @cached_property
    def weights(self) -> str:
        """Hash of the files, with those of all that an adapter stands on. A hub id as it is."""
        return " ".join(hash_folder(one) if isinstance(one, Path) else str(one) for one in _chain(self.folder))

    @cached_property
    def setup(self) -> str:
        """Generation settings. All else lies in the files that `weights` has."""
        found = _decoding(self.folder)
        return f"{found.eos_token_id} {found.repetition_penalty or 1.0}"

    def say(self, requests: Sequence[Prompt], decoding: Decoding, label: str) -> list[Completion]:  # noqa: ARG002 - vLLM has its own line
        """Generate responses."""
        return generate(
            self.folder,
            self.processor,
            self.family,
            requests,
            max_new_tokens=decoding.max_new_tokens,
            seed=decoding.seed,
        )

    def measure(self, asked: Sequence[tuple[Prompt, Example]], batch_size: int, label: str) -> list[Values]:  # noqa: ARG002
        """Raise, since log-likelihoods need a model in this process."""
        raise UserError("vLLM answers only; for likelihoods use backend='hf'.")


def generate(
    folder: Path | str,
    processor: Any,
    family: Family,
    requests: Sequence[Prompt],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> list[Completion]:
    """Generate one response per request, in order. Greedy unless `sampling` is given.

    Args:
        folder: Model folder, or that of an adapter, which is merged into a temporary copy for vLLM.
        processor: Processor of the model.
        family: Its family, which renders the prompts.
        requests: Questions with or without an image.
        max_new_tokens: Most tokens of a response, EOS included.
        sampling: Temperature and nucleus to draw with.
        seed: Seed of the draws, together with the place of the request.

    Raises:
        UserError: vLLM cannot be imported, or the model has generation settings that are not passed on to it.
    """
    vllm = _vllm()
    place = folder_of(folder)
    decoding = _decoding(place)
    stops = sorted(_stops(decoding, processor))
    engine = _engine(str(place), _written(place))
    loaded: dict[int, Any] = {}
    prompts, settings = [], []
    for number, asked in enumerate(requests):
        prompts.append(_prompt(processor, family, asked, loaded))
        settings.append(
            vllm.SamplingParams(
                temperature=sampling.temperature if sampling else 0.0,
                top_p=sampling.top_p if sampling else 1.0,
                max_tokens=max_new_tokens,
                stop_token_ids=stops,
                repetition_penalty=decoding.repetition_penalty or 1.0,
                seed=seed_of(seed, number) if sampling else None,
            )
        )
    said = engine.generate(prompts, settings, use_tqdm=False)
    return [_read(processor, one.outputs[0], set(stops)) for one in said]


def _vllm() -> Any:
    try:
        import vllm
    except ImportError as error:
        raise UserError(
            f"backend='vllm' needs vLLM, which cannot be imported ({error}). Install it with `pip install unsee[vllm]`, "
            "or leave the backend out."
        ) from error
    return vllm


def _engine(folder: str, written: float) -> Any:
    """Start vLLM on the folder. The last engine is reused until its files change, and gone before another one starts."""
    key = (folder, written)
    if key not in _ENGINE:
        _ENGINE.clear()
        gc.collect()
        with _whole(folder) as model:
            _ENGINE[key] = _vllm().LLM(model=str(model), enable_prefix_caching=True, limit_mm_per_prompt={"image": 1})
    return _ENGINE[key]


def _written(folder: Path | str) -> float:
    """Return the modification time of the newest file in a folder and all that it stands on."""
    files = [file for one in _chain(folder) if isinstance(one, Path) for file in one.glob("*")]
    return max((file.stat().st_mtime for file in files), default=0.0)


@contextmanager
def _whole(folder: str) -> Iterator[Path | str]:
    """Yield the folder itself or, for an adapter, a temporary folder with the merged model."""
    if (Path(folder) / f"{NAME}.json").exists():
        raise UserError(f"{folder} is steered while it answers, which vLLM cannot do; use backend='hf'.")
    if not (Path(folder) / ADAPTER).exists():
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        opened = open_model(folder)
        save_model(opened.model, opened.processor, Path(place), instruction=opened.instruction)
        del opened
        yield Path(place)


def _chain(folder: Path | str) -> list[Path | str]:
    """Return the folder and, for an adapter, the folders or id of all that it stands on."""
    if not (Path(folder) / ADAPTER).exists():
        return [folder]
    return [folder, *_chain(folder_of(adapter_base(Path(folder))))]


def _base(folder: Path | str) -> Path | str:
    """Return the folder or id of an adapter's innermost base, else the folder itself."""
    return _chain(folder)[-1]


def _decoding(folder: Path | str) -> GenerationConfig:
    """Return the model's generation settings, as transformers reads them.

    Raises:
        UserError: One of them is not passed on to vLLM.
    """
    base = _base(folder)
    try:
        found = GenerationConfig.from_pretrained(base)
    except OSError:  # there are none beside the weights
        found = GenerationConfig.from_model_config(AutoConfig.from_pretrained(base))
    ignored = [name for name, neutral in NEUTRAL.items() if getattr(found, name, None) not in neutral]
    if other := [name for name in ignored if name != "repetition_penalty"]:
        raise UserError(
            f"{base} generates with {', '.join(other)} (generation_config.json), which vLLM would ignore; use backend='hf'."
        )
    return found


def _stops(decoding: GenerationConfig, processor: Any) -> set[int]:
    """Return the stop token ids: the tokenizer's EOS and those of the generation settings."""
    configured = decoding.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return {eos_id(processor), *(stop for stop in several if stop is not None)}


def _prompt(processor: Any, family: Family, asked: Prompt, loaded: dict[int, Any]) -> dict[str, Any]:
    """Return one prompt in vLLM's form. Equal image sources are loaded once."""
    encode = encoder(processor, family)
    ids = list(encode.tokens(encode.text(asked)))
    if asked.image is None:
        return {"prompt_token_ids": ids}
    key = id(asked.image)
    if key not in loaded:
        loaded[key] = asked.image.load()
    return {"prompt_token_ids": ids, "multi_modal_data": {"image": loaded[key]}}


def _read(processor: Any, output: Any, stops: set[int]) -> Completion:
    """Truncate at the first stop token and decode, as `unsee.inference.generation` does."""
    ids = list(output.token_ids)
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    kept = tuple(ids[:end])
    text = processor.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Completion(text.strip(), kept, end is not None or output.finish_reason == "stop")
