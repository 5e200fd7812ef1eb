"""Generation with vLLM (`pip install unsee[vllm]`), from the same prompts as token ids.

Prompts are tokenised here, image placeholders unexpanded, so that no template and no BOS token is applied twice. Images are
passed as they were loaded. vLLM shares prefixes and batches by itself.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from transformers import AutoConfig, GenerationConfig

from unsee.api import Example, Family
from unsee.api.request import Completion, Prompt, Sampling
from unsee.errors import UserError
from unsee.inference.encoder import encoder
from unsee.inference.generation import NEUTRAL, completion_of, stop_ids
from unsee.models import auto, model_card
from unsee.models.checkpoint import family_of, open_model, require_whole, save_model
from unsee.models.identity import lineage_hash
from unsee.models.location import ADAPTER, adapter_chain, folder_of, is_steered, read_sidecar
from unsee.utils.seeds import seed_of

if TYPE_CHECKING:
    from unsee.api.request import Decoding, Values

_ENGINE: Final[dict[tuple[str, float], Any]] = {}
"""The running engine, by folder and its newest file; one at most, since it fills the GPU."""


@dataclass(frozen=True)
class VLLMBackend:
    """Model folder served by vLLM."""

    path: Path | str

    @cached_property
    def folder(self) -> Path | str:
        """Folder of the weights."""
        return folder_of(self.path)

    @cached_property
    def chain(self) -> list[Path | str]:
        """The folder, and the folders or ids of an adapter's bases."""
        return list(adapter_chain(self.folder))

    @cached_property
    def family(self) -> Family:
        """Model family."""
        return family_of(self.chain[-1])

    @cached_property
    def processor_source(self) -> int:
        """Index of the first model of the chain that has a processor."""
        own = (index for index, source in enumerate(self.chain) if (Path(source) / "processor_config.json").exists())
        return next(own, len(self.chain) - 1)

    @cached_property
    def processor(self) -> Any:
        """Processor."""
        return auto.load_processor(self.chain[self.processor_source])

    @cached_property
    def instruction(self) -> str:
        """Text that precedes every question, that of the base where an adapter has none."""
        sidecars = map(read_sidecar, self.chain)
        return next((str(sidecar["instruction"]) for sidecar in sidecars if "instruction" in sidecar), "")

    @cached_property
    def weights(self) -> str:
        """Hash of the model and of an adapter's bases."""
        return lineage_hash(self.folder)

    @cached_property
    def setup(self) -> str:
        """Generation settings. The hashes in `weights` cover everything else."""
        decoding = _decoding(self.folder)
        return f"{decoding.eos_token_id} {decoding.repetition_penalty or 1.0} {self.processor_source}"

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
        seed: Seed of the draws, together with the index of the request.

    Raises:
        UserError: vLLM cannot be imported, or the model has generation settings that are not passed on to it.
    """
    vllm = _vllm()
    model_folder = folder_of(folder)
    decoding = _decoding(model_folder)
    stops = stop_ids(processor, decoding)
    engine = _engine(str(model_folder), _modification_time(model_folder))
    images_by_id: dict[int, Any] = {}
    prompts, settings = [], []
    for index, prompt in enumerate(requests):
        prompts.append(_prompt(processor, family, prompt, images_by_id))
        settings.append(
            vllm.SamplingParams(
                temperature=sampling.temperature if sampling else 0.0,
                top_p=sampling.top_p if sampling else 1.0,
                max_tokens=max_new_tokens,
                stop_token_ids=sorted(stops),
                repetition_penalty=decoding.repetition_penalty or 1.0,
                seed=seed_of(seed, index) if sampling else None,
            )
        )
    outputs = engine.generate(prompts, settings, use_tqdm=False)
    return [_read(processor, output.outputs[0], stops) for output in outputs]


def _vllm() -> Any:
    try:
        import vllm
    except ImportError as error:
        raise UserError(
            f"backend='vllm' needs vLLM, which cannot be imported ({error}). Install it with `pip install unsee[vllm]`, "
            "or leave the backend out."
        ) from error
    return vllm


def _engine(folder: str, modified: float) -> Any:
    """Start vLLM on the folder.

    The last engine is reused until its files change, and freed before another one starts.
    """
    key = (folder, modified)
    if key not in _ENGINE:
        _ENGINE.clear()
        gc.collect()
        with _merged_folder(folder) as model:
            _ENGINE[key] = _vllm().LLM(model=str(model), enable_prefix_caching=True, limit_mm_per_prompt={"image": 1})
    return _ENGINE[key]


def _modification_time(folder: Path | str) -> float:
    """Return the modification time of the newest file in a folder and its bases."""
    files = [file for source in adapter_chain(folder) if isinstance(source, Path) for file in source.glob("*")]
    return max((file.stat().st_mtime for file in files if file.name != model_card.CARD), default=0.0)


@contextmanager
def _merged_folder(folder: str) -> Iterator[Path | str]:
    """Yield the folder itself or, for an adapter, a temporary folder with the merged model."""
    if is_steered(folder):
        raise UserError(f"{folder} is steered while it answers, which vLLM cannot do; use backend='hf'.")
    if not (Path(folder) / ADAPTER).exists():
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        vlm = open_model(folder)
        save_model(vlm.model, vlm.processor, Path(temporary), instruction=vlm.instruction)
        del vlm
        yield Path(temporary)


def _base(folder: Path | str) -> Path | str:
    """Return the folder or id of an adapter's innermost base, else the folder itself."""
    *_, base = adapter_chain(folder)
    return base


def _decoding(folder: Path | str) -> GenerationConfig:
    """Return the model's generation settings, as transformers reads them.

    Raises:
        UserError: One of them is not passed on to vLLM, or they are damaged.
    """
    base = _base(folder)
    require_whole(base)
    try:
        settings = GenerationConfig.from_pretrained(base)
    except OSError:  # there are none beside the weights
        settings = GenerationConfig.from_model_config(AutoConfig.from_pretrained(base))
    ignored = [name for name, neutral in NEUTRAL.items() if getattr(settings, name, None) not in neutral]
    if unsupported := [name for name in ignored if name != "repetition_penalty"]:
        raise UserError(
            f"{base} generates with {', '.join(unsupported)} (generation_config.json), which vLLM would ignore; use backend='hf'."
        )
    return settings


def _prompt(processor: Any, family: Family, prompt: Prompt, images_by_id: dict[int, Any]) -> dict[str, Any]:
    """Return one prompt in vLLM's form. Equal image sources are loaded once."""
    encode = encoder(processor, family)
    ids = list(encode.tokens(encode.text(prompt)))
    if prompt.image is None:
        return {"prompt_token_ids": ids}
    key = id(prompt.image)
    if key not in images_by_id:
        images_by_id[key] = prompt.image.load()
    return {"prompt_token_ids": ids, "multi_modal_data": {"image": images_by_id[key]}}


def _read(processor: Any, output: Any, stops: set[int]) -> Completion:
    """Decode vLLM's output, which may lack the stop token that ended it."""
    completion = completion_of(processor, output.token_ids, stops)
    return replace(completion, ended=completion.ended or output.finish_reason == "stop")
