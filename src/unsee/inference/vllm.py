"""Generation with vLLM (`pip install unsee[vllm]`), from the same prompts as token ids.

Prompts are tokenised here, image marks unexpanded, so that no template and no BOS token is applied twice; images are passed as
they were loaded. vLLM shares prefixes and batches by itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee.api import Example, Family
from unsee.api.request import Completion, Prompt, Sampling
from unsee.errors import UserError
from unsee.inference.encoder import encoder
from unsee.models import auto
from unsee.models.auto import eos_id
from unsee.models.checkpoint import adapter_base, family_of, open_model, read_sidecar, save_model
from unsee.models.location import ADAPTER, folder_of
from unsee.models.steering.artifact import NAME
from unsee.utils.files import hash_folder
from unsee.utils.parsing import read_object
from unsee.utils.seeds import seed_of

if TYPE_CHECKING:
    from unsee.api.request import Decoding, Values


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
        """Hash of the files, with those of an adapter's base. A hub id as it is."""
        chain = dict.fromkeys([self.folder, _base(self.folder)])
        return " ".join(hash_folder(one) if isinstance(one, Path) else str(one) for one in chain)

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
        UserError: vLLM cannot be imported.
    """
    vllm = _vllm()
    place = folder_of(folder)
    engine = _engine(str(place), _written(place))
    stops = sorted(_stops(place, processor))
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


@lru_cache(maxsize=1)
def _engine(folder: str, written: float) -> Any:  # noqa: ARG001 - part of the key
    """Start vLLM on the folder. The last engine is reused until its files change."""
    with _whole(folder) as model:
        return _vllm().LLM(model=str(model), enable_prefix_caching=True, limit_mm_per_prompt={"image": 1})


def _written(folder: Path | str) -> float:
    """Return the modification time of the newest file in a folder."""
    files = Path(folder).glob("*") if isinstance(folder, Path) else ()
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


def _base(folder: Path | str) -> Path | str:
    """Return the folder or id of an adapter's innermost base, else the folder itself."""
    if not (Path(folder) / ADAPTER).exists():
        return folder
    return _base(folder_of(adapter_base(Path(folder))))


def _stops(folder: Path | str, processor: Any) -> set[int]:
    """Return the stop token ids: the tokenizer's EOS and those of generation_config.json."""
    file = Path(_base(folder)) / "generation_config.json"
    configured = read_object(file).get("eos_token_id") if file.exists() else None
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
