"""Memory of a training step, an image encoding and a round of generation.

Measured on a model without weights: real forward and backward passes on tensors with shapes only
(`unsee.compat.fake_tensors`). So the result follows the installed torch and transformers (saved activations, autocast copies,
losses), not a formula.
Shapes: b batch, t tokens, k positions with logits, a answer positions, d width of the model, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import Module

from unsee.api import Needs, Training
from unsee.api.fast_paths import Engine
from unsee.compat.fake_tensors import NEEDS_VALUES, Meter, with_values
from unsee.compat.models import unwrapped
from unsee.inference.answer_logits import widened
from unsee.inference.batching import WORTH_SPLITTING, Batch
from unsee.inference.decoding import LIKELY
from unsee.inference.packing import pack, packable, saving
from unsee.inference.prefix_cache import POOL_BYTES, PREFILL_TOKENS
from unsee.losses import IGNORE, answer_nll, kl_loss
from unsee.models.padding import merge
from unsee.training.recompute import recomputing

WAVE: Final = 64
"""Questions per batch of stop rule and rollouts (`unsee.inference.generation.generate`)."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Rows of one forward pass."""

    rows: int
    tokens: int
    kept: int
    """Positions of a row with logits."""
    answers: tuple[int, int]
    """Questions and the length of the longest answer."""
    masked: bool
    """Whether there is an attention mask: rows of unequal length, or packed ones."""
    images: tuple[Mapping[str, Tensor], ...] = ()
    """Processor output for each row with an image."""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Bytes above the weights."""

    bytes: int
    gradients: int = 0
    """Of which gradients."""
    exact: bool = True
    """False if a part needed tensor values and was left out."""


def passes(model: Module, batch: Batch) -> list[Pass]:
    """Return the forward passes of `answer_logits` for a batch."""
    parts = [part for _, part in batch.parts] if batch.engine.split_batches else [batch]
    return [_pass(model, part) for part in parts]


def _pass(model: Module, batch: Batch) -> Pass:
    lengths = [row["input_ids"].shape[1] for row in batch.rows]
    longest_answer = max(int((row["labels"] != IGNORE).sum()) for row in batch.rows)
    image_rows = tuple(row for row, image in zip(batch.rows, batch.images, strict=True) if image)
    image_token = packable(model) if batch.engine.shared_prefix else None
    if image_token is not None and saving(batch.rows, batch.images, image_token) >= WORTH_SPLITTING:
        packed = pack(batch.rows, batch.images, image_token, batch.pad_id)
        rows, tokens = packed.inputs["input_ids"].shape
        packed_image_rows = tuple(row for row, image in zip(packed.rows, packed.images, strict=True) if image)
        return Pass(
            rows=rows,
            tokens=tokens,
            kept=len(packed.kept_positions),
            answers=(len(lengths), longest_answer),
            masked=True,
            images=packed_image_rows,
        )
    logit_positions = longest_answer + 1 if batch.engine.answer_logits else max(lengths)
    return Pass(
        rows=len(lengths),
        tokens=max(lengths),
        kept=logit_positions,
        answers=(len(lengths), longest_answer),
        masked=min(lengths) < max(lengths),
        images=image_rows,
    )


class Stage:
    """Model without weights on which passes are run, inside `weightless`."""

    def __init__(self, model: Any, training: Training, engine: Engine, *, half: bool) -> None:
        """Prepare the model. `half`: use bf16 autocast."""
        self.engine = engine
        self.model = model
        self.inner = unwrapped(model)
        self.training = training
        self.half = half
        self.exact = True
        self.head = self.inner.get_output_embeddings()
        language_ids = {id(weight) for part in (self.inner.get_decoder(), self.head) for weight in part.parameters()}
        self.encodes_images = any(
            weight.requires_grad and id(weight) not in language_ids for weight in model.parameters()
        )
        """Whether weights before the language model are trained, so that every step encodes images."""

    def step(self, terms: Sequence[Sequence[Pass]], needs: Needs) -> Peak:
        """Return the peak of a training step with terms backpropagated one by one."""
        self.model.train()
        if self.training.gradient_checkpointing:
            self.inner.gradient_checkpointing_enable({"use_reentrant": False})
        separate = self.engine.separate_terms
        recomputation = recomputing(self.model, self.engine, checkpointing=self.training.gradient_checkpointing)
        with Meter(self.model) as meter, recomputation as forward:
            for _ in range(min(2, self.training.accumulate)):
                losses = []
                for term in terms:
                    with forward():
                        losses.append(self._loss(term, needs.teacher))
                    if separate:
                        losses.pop().backward()
                if losses:
                    torch.stack(losses).sum().backward()
                    del losses
        gradients = sum(w.grad.nbytes for w in self.model.parameters() if w.grad is not None)
        return Peak(bytes=meter.peak, gradients=gradients, exact=self.exact)

    def reference(self, term: Sequence[Pass]) -> Peak:
        """Return the peak of reference log-likelihoods, before training."""
        self.model.eval()
        with Meter(self.model) as meter, torch.no_grad():
            self._loss(term, teacher=False)
        return Peak(bytes=meter.peak, exact=self.exact)

    def encoding(self, images: Sequence[Mapping[str, Tensor]]) -> Peak:
        """Return the peak of a frozen vision tower on a batch."""
        if not images:
            return Peak(bytes=0)
        self.model.eval()
        with Meter(self.model) as meter, torch.no_grad(), self._cast():
            self._features(images)
        return Peak(bytes=meter.peak, exact=self.exact)

    def features(self, image: Mapping[str, Tensor]) -> int:
        """Return the bytes of cached features per image."""
        with torch.no_grad(), self._cast():
            features = self._features([image])
        return 0 if features is None else sum(tensor.nbytes for tensor in features)

    def generation(self, prompts: int, width: int, requests: int, length: int) -> Peak:
        """Return the peak of generation.

        Args:
            prompts: Distinct prefixes that questions stand behind.
            width: Tokens of a prefix, image tokens included.
            requests: Questions in all.
            length: Most new tokens of a response.
        """
        token_bytes = self._cached_bytes()
        rows = max(1, min(prompts, WAVE, PREFILL_TOKENS // max(1, width)))
        pool_bytes = min(max(POOL_BYTES, token_bytes * width), token_bytes * width * prompts)
        self.model.eval()
        with Meter(self.model) as meter, torch.no_grad(), self._cast():
            self._hidden(Pass(rows=rows, tokens=width, kept=1, answers=(rows, 1), masked=False))
        lanes = max(1, min(width // (LIKELY + 1), requests // max(1, prompts)))
        wave = min(requests, WAVE)
        cache_bytes = token_bytes * (-(-wave // lanes) * width + wave * (length + LIKELY))
        logit_bytes = 3 * 4 * wave * self.head.weight.shape[0]
        return Peak(bytes=max(pool_bytes + meter.peak, pool_bytes + cache_bytes + logit_bytes), exact=self.exact)

    def _loss(self, term: Sequence[Pass], teacher: bool) -> Tensor:
        """Return the loss of one term, all its rows in one graph."""
        with self._cast():
            pass_logits = [self._logits(forward_pass) for forward_pass in term]
            widest = max(forward_pass.answers[1] for forward_pass in term)
            logits_bav = (
                pass_logits[0]
                if len(pass_logits) == 1
                else torch.cat([widened(logits, widest) for logits in pass_logits])
            )
            labels_ba = torch.zeros(logits_bav.shape[:2], dtype=torch.long)
            if teacher:
                weight = self.head.weight
                start_bav = self.head(torch.empty(*logits_bav.shape[:2], weight.shape[1], dtype=weight.dtype))
                return kl_loss(start_bav.detach(), logits_bav, labels_ba)
            return answer_nll(logits_bav, labels_ba)

    def _logits(self, forward_pass: Pass) -> Tensor:
        """Return the answer logits of one pass."""
        hidden_btd = self._hidden(forward_pass)
        logits_bkv = self.head(hidden_btd[:, -forward_pass.kept :])
        questions, width = forward_pass.answers
        if forward_pass.rows == questions:
            return logits_bkv[:, -width - 1 : -1]
        return logits_bkv[torch.zeros(questions, width).long(), torch.zeros(questions, width).long()]

    def _hidden(self, forward_pass: Pass) -> Tensor:
        """Return the language model's last hidden states, hidden_btd."""
        ids_bt = torch.zeros(forward_pass.rows, forward_pass.tokens, dtype=torch.long)
        embedded_btd = self.inner.get_input_embeddings()(ids_bt)
        if self.training.gradient_checkpointing and self.model.training:
            embedded_btd.requires_grad_()
        if forward_pass.images and (self.encodes_images or not self.engine.vision_features):
            embedded_btd = self._with_images(embedded_btd, forward_pass.images)
        elif forward_pass.images:
            embedded_btd = embedded_btd.clone()
        mask = (
            torch.ones(forward_pass.rows, 1, forward_pass.tokens, forward_pass.tokens, dtype=torch.bool)
            if forward_pass.masked
            else None
        )
        output = self.inner.get_decoder()(inputs_embeds=embedded_btd, attention_mask=mask, use_cache=False)
        hidden_btd: Tensor = output.last_hidden_state
        return hidden_btd

    def _with_images(self, embedded_btd: Tensor, images: Sequence[Mapping[str, Tensor]]) -> Tensor:
        image_features = self._features(images)
        if not image_features:  # the gradient of a trained tower passes through the language model all the same
            return embedded_btd.requires_grad_(embedded_btd.requires_grad or self.encodes_images)
        mask_btd = torch.zeros(embedded_btd.shape, dtype=torch.bool)
        features = (
            torch.cat([tensor.reshape(-1, tensor.shape[-1]) for tensor in image_features])
            if len(image_features) > 1
            else image_features[0]
        )
        return embedded_btd.masked_scatter(mask_btd, features.to(embedded_btd.dtype))

    def _features(self, images: Sequence[Mapping[str, Tensor]]) -> list[Tensor] | None:
        """Return the image features. None (and no longer exact) if they need tensor values."""
        base = self.inner.base_model
        if "get_image_features" not in dir(base):  # Mllama encodes images inside its decoder
            self.exact = False
            return None
        with with_values():
            merged = {key: value for key, value in merge(images, 0).items() if not per_token(images[0], key)}
            # sizes of images are small integers, and keep their values
            facts = {key: value.shape if value.is_floating_point() else value.tolist() for key, value in merged.items()}
        inputs = {
            key: torch.empty(fact) if isinstance(fact, torch.Size) else torch.tensor(fact)
            for key, fact in facts.items()
        }
        try:
            pooled = base.get_image_features(**inputs, return_dict=True).pooler_output
        except (*NEEDS_VALUES, TypeError, AssertionError):
            self.exact = False
            return None
        return [pooled] if isinstance(pooled, Tensor) else list(pooled)

    def _cast(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.half)

    def _cached_bytes(self) -> int:
        """Return the KV cache size of one token."""
        text = self.inner.config.get_text_config().to_dict()
        heads = text.get("num_key_value_heads") or text["num_attention_heads"]
        width = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
        return int(
            2 * text["num_hidden_layers"] * heads * width * (2 if self.half else self.head.weight.dtype.itemsize)
        )


def per_token(row: Mapping[str, Tensor], key: str) -> bool:
    """Tell whether an input has one entry per token, not per image."""
    return key == "labels" or row[key].shape[:2] == row["input_ids"].shape
