"""CLIPScore of responses with a CLIP model from a folder or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from PIL.Image import Image
from safetensors import SafetensorError
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from unsee.api import Example, Response
from unsee.config import paths
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.metrics._words import tokens
from unsee.metrics.clip import clip_score
from unsee.utils.parsing import require_fetched
from unsee.utils.progress import track

PREFIX: Final = "A photo depicts "
"""Prefix of captions in the paper."""


@dataclass(frozen=True)
class Clip:
    """Opened CLIP model."""

    model: Any
    tokenizer: Any
    processor: Any
    name: str
    """Folder or hub id, for error messages."""

    @classmethod
    def load(cls, folder: Path | str) -> Clip:
        """Open a folder or hub id."""
        if not Path(folder).is_dir() and (paths.is_here(str(folder)) or str(folder).count("/") != 1):
            raise UserError(
                f"No CLIP model at {folder}: expected a folder, or a hub id such as openai/clip-vit-base-patch32."
                f"{paths.near(folder)}"
            )
        for file in sorted(Path(folder).glob("*")):
            require_fetched(file)
        try:
            model = CLIPModel.from_pretrained(folder, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            processor = CLIPImageProcessorPil.from_pretrained(folder)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
            raise UserError(
                f"{folder} holds no CLIP model: expected a folder with config.json, model.safetensors, the tokenizer and "
                f"preprocessor_config.json, or a hub id such as openai/clip-vit-base-patch32 ({error})."
            ) from error
        return cls(model.to(processes.device()).eval(), tokenizer, processor, str(folder))

    def with_scores(
        self, responses: Sequence[Response], examples: Sequence[Example], *, batch_size: int = 64, progress: bool = True
    ) -> list[Response]:
        """Return the responses with `clip` set where there is an image. Empty texts score 0.

        Args:
            responses: Responses, whose texts are compared with the images.
            examples: Their questions, in the same order.
            batch_size: Pairs of image and text per forward pass.
            progress: Show a progress line.
        """
        indexed_images = [
            (index, image) for index, example in enumerate(examples) if (image := example.image) is not None
        ]
        score_by_index: dict[int, float] = {}
        starts = range(0, len(indexed_images), batch_size)
        for start in track(starts, "CLIPScore", shown=progress):
            batch = indexed_images[start : start + batch_size]
            texts = [responses[index].text for index, _ in batch]
            scores = self.scores([image.load() for _, image in batch], texts)
            score_by_index.update(zip((index for index, _ in batch), scores, strict=True))
        return [replace(response, clip=score_by_index.get(index)) for index, response in enumerate(responses)]

    def scores(self, images: Sequence[Image], texts: Sequence[str]) -> list[float]:
        """Return the score of each image with its text. Long texts are truncated.

        Raises:
            UserError: The model gives embeddings without an angle: its weights are damaged.
        """
        limit = self.model.config.text_config.max_position_embeddings
        captions = [PREFIX + text for text in texts]
        with torch.no_grad():
            text_inputs = self.tokenizer(captions, padding=True, truncation=True, max_length=limit, return_tensors="pt")
            image_inputs = self.processor(images=list(images), return_tensors="pt")
            outputs = self.model(**text_inputs.to(self.model.device), **image_inputs.to(self.model.device))
        pairs = zip(outputs.image_embeds.tolist(), outputs.text_embeds.tolist(), texts, strict=True)
        try:
            return [
                clip_score(image_embedding, text_embedding) if tokens(text) else 0.0
                for image_embedding, text_embedding, text in pairs
            ]
        except ValueError as error:
            raise UserError(f"The CLIP model {self.name} is damaged. {error} Give another one as --clip.") from error
