"""Log-likelihoods of answers: one row and one forward pass per image.

A row is a tree: common prefixes of prompts and answers are stored once, and every token attends only to its own path. So the
image is encoded once, a question once for all of its options, and an option of one token adds no position.
Shapes: b rows, t tokens, k kept positions, v vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from unsee.api import VLM, Example, Role
from unsee.api.fast_paths import PLAIN
from unsee.api.request import Prompt, Target
from unsee.compat.probes import proven
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.batching import collate, device_of, require_room
from unsee.inference.encoder import encoder
from unsee.inference.packing import packable
from unsee.inference.prefix_groups import Group, groups
from unsee.inference.vision_cache import with_features
from unsee.models.auto import eos_id, evaluating, pad_id
from unsee.models.padding import is_sequence, merge
from unsee.models.positions import alike
from unsee.utils.progress import track

ROW_TOKENS: Final = 256
"""Tokens of a row before a new one is begun; more if the image alone takes more."""
BATCH_TOKENS: Final = 8192
"""Tokens per forward pass."""
BATCH_LOGITS: Final = 2**28
"""Logits per forward pass."""

PromptAnswer = tuple[Prompt, tuple[int, ...]]
"""A question and the tokens of an answer."""
Forms = Sequence[Sequence[tuple[int, ...]]]
"""Token sequences of each option."""


@dataclass(frozen=True)
class Likelihood:
    """Log-probabilities of one answer."""

    tokens: tuple[float, ...]
    """Log-probability of each token, EOS included."""

    @property
    def sum(self) -> float:
        """Log-probability of the answer."""
        return math.fsum(self.tokens)

    @property
    def mean(self) -> float:
        """Mean token log-probability."""
        return self.sum / len(self.tokens)


@dataclass(frozen=True)
class Choice:
    """The option with the highest log-probability."""

    index: int
    """Index of the option; the first one of a tie."""
    logprobs: tuple[float, ...]
    """Mean token log-probability of each option, without EOS."""

    @classmethod
    def of(cls, options: Sequence[Sequence[tuple[float, ...]]]) -> Choice:
        """Return the choice among options from the token log-probabilities of all spellings."""
        scores = tuple(_option_logprob(spellings) for spellings in options)
        return cls(max(range(len(scores)), key=scores.__getitem__), scores)


def likelihoods(
    vlm: VLM,
    prompt_answers: Sequence[tuple[Prompt, str]],
    *,
    batch_size: int = 64,
) -> list[Likelihood]:
    """Return the log-likelihood of each answer, EOS included, as `answer_logprob` defines it."""
    return likelihoods_and_choices(vlm, prompt_answers, (), batch_size=batch_size)[0]


def likelihoods_and_choices(
    vlm: VLM,
    prompt_answers: Sequence[tuple[Prompt, str]],
    questions: Sequence[tuple[Prompt, Sequence[str]]],
    *,
    batch_size: int = 64,
    progress: str = "",
) -> tuple[list[Likelihood], list[Choice]]:
    """Return the log-likelihood of each answer and the most probable option of each question, from the same forward passes.

    Options are compared by mean token log-probability. If all of a question are one token long (letters), their probabilities
    are read at the last position of the prompt, summed over the spellings with and without a leading space (CLEAR,
    arXiv 2410.18057).

    Args:
        vlm: Model, processor, family and instruction.
        prompt_answers: Prompts, each with the answer to score.
        questions: Prompts, each with the options to choose from.
        batch_size: Most rows (images) per forward pass.
        progress: Label of a progress line; empty for none.

    Raises:
        UserError: An answer is empty.
    """
    encode, eos = encoder(vlm.processor, vlm.family), eos_id(vlm.processor)
    for prompt, answer in prompt_answers:
        if not answer.strip():
            raise UserError(f"Expected an answer to {prompt.question!r}, got an empty one; leave the row out.")
    option_forms = [_spellings(vlm, options) for _, options in questions]
    pairs = [(prompt, (*encode.answer(answer), eos)) for prompt, answer in prompt_answers]
    for (prompt, _), options in zip(questions, option_forms, strict=True):
        pairs += [(prompt, ids) for forms in options for ids in forms]
    logprobs = iter(_logprobs(vlm, pairs, batch_size, progress))
    answer_likelihoods = [Likelihood(next(logprobs)) for _ in prompt_answers]
    return answer_likelihoods, [
        Choice.of([[next(logprobs) for _ in forms] for forms in options]) for options in option_forms
    ]


def _spellings(vlm: VLM, options: Sequence[str]) -> list[list[tuple[int, ...]]]:
    """Return the token sequences of each option."""
    if not options or not all(option.strip() for option in options):
        raise UserError(f"Expected options with a text each, got {list(options)!r}.")
    encode = encoder(vlm.processor, vlm.family)
    continuations = [encode.answer(option) for option in options]
    standalone = [tuple(vlm.processor.tokenizer(option, add_special_tokens=False)["input_ids"]) for option in options]
    if any(len(ids) != 1 for ids in (*continuations, *standalone)):
        return [[ids] for ids in continuations]
    return [list(dict.fromkeys(pair)) for pair in zip(continuations, standalone, strict=True)]


def _option_logprob(spellings: Sequence[tuple[float, ...]]) -> float:
    """Return the mean log-probability of an option. One-token spellings are summed."""
    if len(spellings) == 1:
        return math.fsum(spellings[0]) / len(spellings[0])
    top = max(spelling[0] for spelling in spellings)
    return top + math.log(math.fsum(math.exp(spelling[0] - top) for spelling in spellings))


def _logprobs(vlm: VLM, pairs: Sequence[PromptAnswer], batch_size: int, progress: str) -> list[tuple[float, ...]]:
    """Return the log-probability of each token of each answer."""
    image_token = packable(vlm.model) if vlm.engine.shared_prefix else None
    plain_indices: list[int] = [] if image_token is not None else list(range(len(pairs)))
    logprobs: dict[int, tuple[float, ...]] = {}
    with torch.no_grad(), evaluating(vlm.model):
        if image_token is not None:
            trees = _trees(vlm, pairs, image_token, plain_indices)
            batches = list(_batches(trees, batch_size, vlm.model.config.get_text_config().vocab_size))  # type: ignore[operator,union-attr]
            if batches and not _proven(vlm, pairs, batches[0][0]):
                batches, plain_indices = [], list(range(len(pairs)))
            for batch in track(batches, progress, shown=bool(progress)):
                logprobs.update(_forward(vlm, pairs, batch))
        for start in range(0, len(plain_indices), batch_size):
            logprobs.update(_plainly(vlm, pairs, plain_indices[start : start + batch_size]))
    return [logprobs[index] for index in range(len(pairs))]


def _proven(vlm: VLM, pairs: Sequence[PromptAnswer], tree: _Tree) -> bool:
    """Tell whether answers in one row have the same likelihoods as in separate rows."""
    indices = [index for index, _, _ in tree.read][:4]
    plain = replace(vlm, engine=PLAIN)

    def in_order(logprobs: Iterator[tuple[int, tuple[float, ...]]]) -> Tensor:
        by_index = dict(logprobs)
        return torch.tensor([value for index in indices for value in by_index[index]])

    return proven(
        "packed_likelihoods",
        vlm.model,
        lambda: in_order(_forward(plain, pairs, [tree])),
        lambda: in_order(_plainly(plain, pairs, indices)),
    )


class _Tree:
    """One row: the tokens of several sequences, common prefixes once."""

    def __init__(self, group: Group) -> None:
        """Start with no token."""
        self.group = group
        self.ids: list[int] = []
        self.depths: list[int] = []
        self.parents: list[int] = []
        self.read: list[tuple[int, list[int], tuple[int, ...]]] = []
        """Index of an answer, the positions that predict its tokens, and these."""
        self._last: tuple[int, ...] = ()
        self._path: list[int] = []

    def cost(self, sequence: Sequence[int]) -> int:
        """Return the length of the row with this sequence added."""
        return len(self.ids) + len(sequence) - self._common(sequence)

    def add(self, index: int, prompt_length: int, sequence: tuple[int, ...]) -> None:
        """Add prompt and answer. The last token is only predicted, so takes no position."""
        inputs = sequence[:-1]
        common = self._common(inputs)
        self._path = self._path[:common]
        for depth in range(common, len(inputs)):
            self.parents.append(self._path[-1] if self._path else -1)
            self._path.append(len(self.ids))
            self.ids.append(inputs[depth])
            self.depths.append(depth)
        self._last = inputs
        self.read.append((index, self._path[prompt_length - 1 :], sequence[prompt_length:]))

    def _common(self, sequence: Sequence[int]) -> int:
        limit = min(len(sequence), len(self._last))
        return next((depth for depth in range(limit) if sequence[depth] != self._last[depth]), limit)

    def longest(self) -> int:
        """Return the index of the answer that ends deepest."""
        return max(self.read, key=lambda answer: self.depths[answer[1][-1]])[0]

    def columns(self) -> set[int]:
        """Return the positions whose logits are read, counted from the end, as rows are aligned."""
        return {len(self.ids) - position for _, positions, _ in self.read for position in positions}

    def row(self) -> dict[str, Tensor]:
        """Return the model inputs of the row, without the attention mask."""
        image_inputs = {key: value for key, value in self.group.row.items() if not is_sequence(self.group.row, key)}
        ids = torch.tensor([self.ids])
        return {**image_inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def sees(self, width: int) -> Tensor:
        """Return the attention mask [t, t]. Padded positions attend to themselves only."""
        mask = torch.eye(width, dtype=torch.bool)
        pad_width = width - len(self.ids)
        mask_array = mask.numpy()
        for token, parent in enumerate(self.parents):
            if parent >= 0:
                mask_array[pad_width + token] |= mask_array[pad_width + parent]
        return mask


def _trees(vlm: VLM, pairs: Sequence[PromptAnswer], image_token: int, plain_indices: list[int]) -> Iterator[_Tree]:
    """Yield rows. Indices of answers whose prompts cannot share a row are added to `plain_indices`."""
    for group in groups(vlm.processor, vlm.family, [prompt for prompt, _ in pairs], image_token):
        if not group.sharable(image_token):
            plain_indices.extend(group.places)
            continue
        prompts = dict(zip(group.places, group.ids, strict=True))
        sequences = sorted((prompts[i] + pairs[i][1], i) for i in group.places)
        limit = max(ROW_TOKENS, 2 * group.shared) if group.image else ROW_TOKENS
        tree = _Tree(group)
        for sequence, index in sequences:
            if tree.ids and tree.cost(sequence) > limit:
                yield tree
                tree = _Tree(group)
            tree.add(index, len(prompts[index]), sequence)
        yield tree


def _batches(trees: Iterator[_Tree], batch_size: int, vocabulary: int) -> Iterator[list[_Tree]]:
    """Group rows of similar length within the limits on tokens and logits."""
    batch: list[_Tree] = []
    columns: set[int] = set()
    for tree in sorted(trees, key=lambda tree: len(tree.ids)):
        rows, tree_columns = len(batch) + 1, tree.columns()
        logits = rows * len(columns | tree_columns) * vocabulary
        wasteful = bool(batch) and 2 * len(batch[0].ids) < len(tree.ids)
        full = rows > batch_size or rows * len(tree.ids) > BATCH_TOKENS or logits > BATCH_LOGITS
        if batch and (full or wasteful):
            yield batch
            batch, columns = [], set()
        batch.append(tree)
        columns |= tree_columns
    if batch:
        yield batch


def _forward(
    vlm: VLM, pairs: Sequence[PromptAnswer], trees: Sequence[_Tree]
) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Yield (index, token log-probabilities) of all answers in these rows, from one pass."""
    model: Any = vlm.model
    device = device_of(model)
    for tree in trees:
        require_room(model, max(tree.depths) + 1, pairs[tree.longest()][0].question)
    width = max(len(tree.ids) for tree in trees)
    pad_widths = [width - len(tree.ids) for tree in trees]
    rows = [tree.row() for tree in trees]
    inputs = merge(rows, pad_id(vlm.processor))
    inputs["attention_mask"] = torch.stack([tree.sees(width) for tree in trees])[:, None]
    position_ids = [
        pad(tree.group.positions(torch.tensor(tree.depths)), (pad_width, 0))
        for pad_width, tree in zip(pad_widths, trees, strict=True)
    ]
    inputs["position_ids"] = torch.stack(alike(position_ids), dim=1).squeeze(0)
    inputs = {key: value.to(device) for key, value in inputs.items()}
    cells = [
        (row, pad_width + position, label)
        for row, (pad_width, tree) in enumerate(zip(pad_widths, trees, strict=True))
        for _, positions, labels in tree.read
        for position, label in zip(positions, labels, strict=True)
    ]
    row_n, column_n, label_n = torch.tensor(cells, device=device).T.contiguous()
    columns = column_n.unique()
    images = [tree.group.image for tree in trees]
    inputs = with_features(model, rows, images, inputs, vlm.engine)
    logits_bkv = model(**inputs, logits_to_keep=columns, use_cache=False).logits
    slot_n = torch.searchsorted(columns, column_n)
    logsumexp_bk = torch.stack([logits_kv.float().logsumexp(-1) for logits_kv in logits_bkv])
    logp = iter((logits_bkv[row_n, slot_n, label_n].float() - logsumexp_bk[row_n, slot_n]).tolist())
    for tree in trees:
        for index, _, labels in tree.read:
            yield index, tuple(next(logp) for _ in labels)


def _plainly(
    vlm: VLM, pairs: Sequence[PromptAnswer], indices: Sequence[int]
) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Yield (index, token log-probabilities) with one full prompt and answer per row."""
    targets = []
    for index in indices:
        prompt, ids = pairs[index]
        example = Example(id=str(index), role=Role.GENERAL, question=prompt.question, answer="-", image=prompt.image)
        targets.append(Target(example=example, token_ids=ids, ended=False, instruction=prompt.instruction))
    token_ba = answer_logprob(vlm.model, collate(vlm, targets)).token_ba
    for index, logp_a in zip(indices, token_ba.tolist(), strict=True):
        yield index, tuple(logp_a[-len(pairs[index][1]) :])
