"""Log-likelihoods of answers: one row and one forward pass per image.

A row is a tree: common prefixes of prompts and answers are stored once, and every token attends only to its own path. So the
image is encoded once, a question once for all of its options, and an option of one token adds no position.
Shapes: b rows, t tokens, k kept positions, v vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import pad

from unsee.api import VLM, Example, Role
from unsee.api.fast_paths import PLAIN
from unsee.api.request import Completion, Prompt, Sampling, Target
from unsee.compat.probes import proven
from unsee.errors import UserError
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.batching import collate, device_of, require_room
from unsee.inference.decoding import Readings
from unsee.inference.encoder import encoder
from unsee.inference.generation import generate
from unsee.inference.packing import packable
from unsee.inference.prefix_groups import Group, groups
from unsee.inference.vision_cache import encoded
from unsee.models.auto import eos_id, evaluating, pad_id
from unsee.models.padding import is_sequence, merge
from unsee.models.positions import alike
from unsee.models.steering.hooks import attached
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
    """Index of the option; the first of equals."""
    logprobs: tuple[float, ...]
    """Mean token log-probability of each option, without EOS."""

    @classmethod
    def of(cls, options: Sequence[Sequence[tuple[float, ...]]]) -> Choice:
        """Return the choice among options from the token log-probabilities of all spellings."""
        scores = tuple(_option_logprob(spelled) for spelled in options)
        return cls(max(range(len(scores)), key=scores.__getitem__), scores)


def likelihoods(
    vlm: VLM,
    asked: Sequence[tuple[Prompt, str]],
    *,
    batch_size: int = 64,
) -> list[Likelihood]:
    """Return the log-likelihood of each answer, EOS included, as `answer_logprob` defines it."""
    return judged(vlm, asked, (), batch_size=batch_size)[0]


def choose(
    vlm: VLM,
    questions: Sequence[tuple[Prompt, Sequence[str]]],
    *,
    batch_size: int = 64,
    progress: str = "",
) -> list[Choice]:
    """Return the most probable option of each question, by mean token log-probability.

    If all options are one token long (letters), it is read off the question's last position, the spellings with and without
    a leading space added up (CLEAR, arXiv 2410.18057).

    Args:
        vlm: Model, processor, family and instruction.
        questions: Prompts, each with its options.
        batch_size: Most rows (images) per forward pass.
        progress: Label of a progress line; empty for none.
    """
    return judged(vlm, (), questions, batch_size=batch_size, progress=progress)[1]


def answer(
    vlm: VLM,
    questions: Sequence[tuple[Prompt, Sequence[str]]],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    sampling: Sampling | None = None,
    seed: int = 0,
    progress: str = "",
) -> list[Choice | Completion]:
    """Answer a mixed list: `choose` for questions with options, `generate` for the others.

    Where prefixes are shared, letters are read in the passes that prepare the other answers.

    Args:
        vlm: Model, processor, family and instruction.
        questions: Prompts, each with the letters to choose from, or none.
        max_new_tokens: Most tokens of a generated response.
        batch_size: Rows per forward pass.
        sampling: Temperature and nucleus to draw responses with; greedy if not given.
        seed: Seed of the draws, together with the question's place in the list.
        progress: Label of a progress line; empty for none.
    """
    forms = {place: _spellings(vlm, options) for place, (_, options) in enumerate(questions) if options}
    joint, readings = _joint(vlm.model, forms, len(questions))
    said = generate(
        vlm,
        [questions[place][0] for place in joint],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        sampling=sampling,
        seed=seed,
        progress=progress,
        places=joint,
        readings=readings,
    )
    found: dict[int, Choice | Completion] = dict(zip(joint, said, strict=True))
    found |= {joint[row]: _read(forms[joint[row]], logprobs) for row, logprobs in readings.found.items()}
    rest = [place for place in forms if not isinstance(found.get(place), Choice)]
    asked = [questions[place] for place in rest]
    chosen = choose(vlm, asked, batch_size=batch_size, progress=progress)
    found |= dict(zip(rest, chosen, strict=True))
    return [found[place] for place in range(len(questions))]


def _joint(model: Module, forms: Mapping[int, Forms], count: int) -> tuple[list[int], Readings]:
    """Return the questions that can share passes: without options, or with one-token options.

    Options of a steered model are left to `choose`, which shows it without what steers it.
    """
    read = {} if attached(model) else {place: _flat(options) for place, options in forms.items()}
    letters = {place: [ids[0] for ids in flat] for place, flat in read.items() if all(len(ids) == 1 for ids in flat)}
    joint = [place for place in range(count) if place in letters or place not in forms]
    return joint, Readings({row: letters[place] for row, place in enumerate(joint) if place in letters})


def _flat(forms: Forms) -> list[tuple[int, ...]]:
    return [ids for spelled in forms for ids in spelled]


def _read(forms: Forms, logprobs: Sequence[float]) -> Choice:
    """Return the choice among one-token options, given the log-probability of all spellings."""
    left = iter(logprobs)
    return Choice.of([[(next(left),) for _ in spelled] for spelled in forms])


def judged(
    vlm: VLM,
    asked: Sequence[tuple[Prompt, str]],
    questions: Sequence[tuple[Prompt, Sequence[str]]],
    *,
    batch_size: int = 64,
    progress: str = "",
) -> tuple[list[Likelihood], list[Choice]]:
    """Return the results of `likelihoods` and `choose` from the same forward passes.

    Args:
        vlm: Model, processor, family and instruction.
        asked: Prompts, each with the answer whose likelihood is wanted.
        questions: Prompts, each with the options to choose from.
        batch_size: Most rows (images) per forward pass.
        progress: Label of a progress line; empty for none.

    Raises:
        UserError: An answer is empty.
    """
    encode, end = encoder(vlm.processor, vlm.family), eos_id(vlm.processor)
    for prompt, answer in asked:
        if not answer.strip():
            raise UserError(f"Expected an answer to {prompt.question!r}, got an empty one; leave the row out.")
    spelled = [_spellings(vlm, options) for _, options in questions]
    pairs = [(prompt, (*encode.answer(answer), end)) for prompt, answer in asked]
    for (prompt, _), options in zip(questions, spelled, strict=True):
        pairs += [(prompt, ids) for forms in options for ids in forms]
    found = iter(_logprobs(vlm, pairs, batch_size, progress))
    said = [Likelihood(next(found)) for _ in asked]
    return said, [Choice.of([[next(found) for _ in forms] for forms in options]) for options in spelled]


def _spellings(vlm: VLM, options: Sequence[str]) -> list[list[tuple[int, ...]]]:
    """Return the token sequences of each option."""
    if not options or not all(option.strip() for option in options):
        raise UserError(f"Expected options with a text each, got {list(options)!r}.")
    encode = encoder(vlm.processor, vlm.family)
    follow = [encode.answer(option) for option in options]
    alone = [tuple(vlm.processor.tokenizer(option, add_special_tokens=False)["input_ids"]) for option in options]
    if any(len(ids) != 1 for ids in (*follow, *alone)):
        return [[ids] for ids in follow]
    return [list(dict.fromkeys(pair)) for pair in zip(follow, alone, strict=True)]


def _option_logprob(spellings: Sequence[tuple[float, ...]]) -> float:
    """Return the mean log-probability of an option. One-token spellings are summed."""
    if len(spellings) == 1:
        return math.fsum(spellings[0]) / len(spellings[0])
    top = max(one[0] for one in spellings)
    return top + math.log(math.fsum(math.exp(one[0] - top) for one in spellings))


def _logprobs(vlm: VLM, pairs: Sequence[PromptAnswer], batch_size: int, progress: str) -> list[tuple[float, ...]]:
    """Return the log-probability of each token of each answer."""
    image_token = packable(vlm.model) if vlm.engine.shared_prefix else None
    rest: list[int] = [] if image_token is not None else list(range(len(pairs)))
    found: dict[int, tuple[float, ...]] = {}
    with torch.no_grad(), evaluating(vlm.model):
        if image_token is not None:
            trees = _trees(vlm, pairs, image_token, rest)
            batches = list(_batches(trees, batch_size, vlm.model.config.get_text_config().vocab_size))  # type: ignore[operator,union-attr]
            if batches and not _proven(vlm, pairs, batches[0][0]):
                batches, rest = [], list(range(len(pairs)))
            for batch in track(batches, progress, shown=bool(progress)):
                found.update(_forward(vlm, batch))
        for start in range(0, len(rest), batch_size):
            found.update(_plainly(vlm, pairs, rest[start : start + batch_size]))
    return [found[place] for place in range(len(pairs))]


def _proven(vlm: VLM, pairs: Sequence[PromptAnswer], tree: _Tree) -> bool:
    """Tell whether answers in one row have the same likelihoods as in separate rows."""
    places = [place for place, _, _ in tree.read][:4]
    plain = replace(vlm, engine=PLAIN)

    def in_order(logprobs: Iterator[tuple[int, tuple[float, ...]]]) -> Tensor:
        known = dict(logprobs)
        return torch.tensor([value for place in places for value in known[place]])

    return proven(
        "packed_likelihoods",
        vlm.model,
        lambda: in_order(_forward(plain, [tree])),
        lambda: in_order(_plainly(plain, pairs, places)),
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

    def add(self, place: int, prompt: int, sequence: tuple[int, ...]) -> None:
        """Add prompt and answer. The last token is only predicted, so takes no position."""
        fed = sequence[:-1]
        common = self._common(fed)
        self._path = self._path[:common]
        for depth in range(common, len(fed)):
            self.parents.append(self._path[-1] if self._path else -1)
            self._path.append(len(self.ids))
            self.ids.append(fed[depth])
            self.depths.append(depth)
        self._last = fed
        self.read.append((place, self._path[prompt - 1 :], sequence[prompt:]))

    def _common(self, sequence: Sequence[int]) -> int:
        limit = min(len(sequence), len(self._last))
        return next((place for place in range(limit) if sequence[place] != self._last[place]), limit)

    def columns(self) -> set[int]:
        """Return the positions whose logits are read, counted from the end, as rows are aligned."""
        return {len(self.ids) - token for _, before, _ in self.read for token in before}

    def row(self) -> dict[str, Tensor]:
        """Return the model inputs of the row, without the attention mask."""
        own = {key: value for key, value in self.group.row.items() if not is_sequence(self.group.row, key)}
        ids = torch.tensor([self.ids])
        return {**own, "input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def sees(self, width: int) -> Tensor:
        """Return the attention mask [t, t]. Padded positions attend to themselves only."""
        sees = torch.eye(width, dtype=torch.bool)
        lead = width - len(self.ids)
        table = sees.numpy()
        for token, parent in enumerate(self.parents):
            if parent >= 0:
                table[lead + token] |= table[lead + parent]
        return sees


def _trees(vlm: VLM, pairs: Sequence[PromptAnswer], image_token: int, rest: list[int]) -> Iterator[_Tree]:
    """Yield rows. Indices of answers whose prompts cannot share a row are added to `rest`."""
    for group in groups(vlm.processor, vlm.family, [prompt for prompt, _ in pairs], image_token):
        if not group.sharable(image_token):
            rest.extend(group.places)
            continue
        prompts = dict(zip(group.places, group.ids, strict=True))
        sequences = sorted((prompts[place] + pairs[place][1], place) for place in group.places)
        limit = max(ROW_TOKENS, 2 * group.shared) if group.image else ROW_TOKENS
        tree = _Tree(group)
        for sequence, place in sequences:
            if tree.ids and tree.cost(sequence) > limit:
                yield tree
                tree = _Tree(group)
            tree.add(place, len(prompts[place]), sequence)
        yield tree


def _batches(trees: Iterator[_Tree], batch_size: int, vocabulary: int) -> Iterator[list[_Tree]]:
    """Group rows of similar length within the limits on tokens and logits."""
    batch: list[_Tree] = []
    kept: set[int] = set()
    for tree in sorted(trees, key=lambda tree: len(tree.ids)):
        rows, own = len(batch) + 1, tree.columns()
        logits = rows * len(kept | own) * vocabulary
        wasteful = bool(batch) and 2 * len(batch[0].ids) < len(tree.ids)
        full = rows > batch_size or rows * len(tree.ids) > BATCH_TOKENS or logits > BATCH_LOGITS
        if batch and (full or wasteful):
            yield batch
            batch, kept = [], set()
        batch.append(tree)
        kept |= own
    if batch:
        yield batch


def _forward(vlm: VLM, trees: Sequence[_Tree]) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Yield (index, token log-probabilities) of all answers in these rows, from one pass."""
    model: Any = vlm.model
    device = device_of(model)
    for tree in trees:
        require_room(model, max(tree.depths) + 1, f"number {tree.read[0][0] + 1}")
    width = max(len(tree.ids) for tree in trees)
    leads = [width - len(tree.ids) for tree in trees]
    rows = [tree.row() for tree in trees]
    inputs = merge(rows, pad_id(vlm.processor))
    inputs["attention_mask"] = torch.stack([tree.sees(width) for tree in trees])[:, None]
    places = [
        pad(tree.group.positions(torch.tensor(tree.depths)), (lead, 0)) for lead, tree in zip(leads, trees, strict=True)
    ]
    inputs["position_ids"] = torch.stack(alike(places), dim=1).squeeze(0)
    inputs = {key: value.to(device) for key, value in inputs.items()}
    wanted = [
        (row, lead + token, label)
        for row, (lead, tree) in enumerate(zip(leads, trees, strict=True))
        for _, before, labels in tree.read
        for token, label in zip(before, labels, strict=True)
    ]
    row_n, column_n, label_n = torch.tensor(wanted, device=device).T.contiguous()
    kept = column_n.unique()
    images = [tree.group.image for tree in trees]
    inputs = encoded(model, rows, images, inputs, vlm.engine)
    logits_bkv = model(**inputs, logits_to_keep=kept, use_cache=False).logits
    place_n = torch.searchsorted(kept, column_n)
    all_bk = torch.stack([logits_kv.float().logsumexp(-1) for logits_kv in logits_bkv])
    logp = iter((logits_bkv[row_n, place_n, label_n].float() - all_bk[row_n, place_n]).tolist())
    for tree in trees:
        for place, _, labels in tree.read:
            yield place, tuple(next(logp) for _ in labels)


def _plainly(vlm: VLM, pairs: Sequence[PromptAnswer], places: Sequence[int]) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Yield (index, token log-probabilities) with one full prompt and answer per row."""
    targets = []
    for place in places:
        prompt, ids = pairs[place]
        example = Example(id=str(place), role=Role.GENERAL, question=prompt.question, answer="-", image=prompt.image)
        targets.append(Target(example=example, token_ids=ids, ended=False, instruction=prompt.instruction))
    token_ba = answer_logprob(vlm.model, collate(vlm, targets)).token_ba
    for place, logp_a in zip(places, token_ba.tolist(), strict=True):
        yield place, tuple(logp_a[-len(pairs[place][1]) :])
