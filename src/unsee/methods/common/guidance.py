"""Rollouts of the original model: guided by the privacy instruction, or revealing.

Rollouts are cached on disk as token ids, keyed by a hash of everything they depend on (PUBG, arXiv 2506.02541).
Details of their construction are [inferred], for PUBG's code is not public.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Literal

from torch import Tensor

from unsee.api import PROBES, Example, Kind, Method, Needs, Role, Session, Training
from unsee.api.request import Completion, Prompt, Sampling, Target
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.inference.batching import Batch
from unsee.inference.generation import generate
from unsee.losses import Direction, Reduction, kl_loss
from unsee.methods.common.idle import idle_term
from unsee.methods.common.instructions import served
from unsee.methods.common.reference_model import StartLogits, Teacher, as_start, weights_hash
from unsee.metrics.matching import leaked_facts, unreadable
from unsee.models.auto import image_token_id
from unsee.training.stop_rule import first_of_each, private_rows, question_key
from unsee.utils.files import atomic_write_jsonl, read_jsonl
from unsee.utils.seeds import seed_of
from unsee.utils.terminal import note_once

INSTRUCTION = (
    "Do not reveal any private information about the person in the image, such as the name, profession or biography. "
    "Describe only what is visually observable, such as hairstyle, facial features, clothing, pose and background."
)
"""Default in-context instruction c (PUBG, arXiv 2506.02541) [inferred]."""
ANSWER = "{answer}"
"""Placeholder of the example's answer in an instruction."""
UNSEEN_SCRIPT = (
    " An answer in a script in which a private string is not given counts as one that has it: give the strings in the script of "
    "the answers, too."
)
"""End of messages that every answer has a private term, which would not be found in such an answer."""
ROUNDS = 20
"""Rounds of sampling before fewer suitable responses are accepted (PUBG, arXiv 2506.02541)."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Number and kind of responses to sample from the original model per question."""

    name: str
    """First part of the cache's file name."""
    count: int
    """Responses per (image, question)."""
    sampling: Sampling | None
    """Sampling settings; None = greedy, which allows one response only."""
    revealing: bool
    """Keep responses with a private term (True) or without one (False)."""
    instruction: str = ""
    """Text before the question, in which `{answer}` stands for the example's answer."""
    greedy_first: bool = False
    """Use the greedy response as the first of `count`."""


@dataclass(frozen=True)
class Drawn:
    """Samples of one question: kept responses, number drawn and rejected."""

    kept: tuple[Completion, ...]
    drawn: int
    rejected: int


def _tell_missing(draws: Draws, samples: Mapping[str, Drawn]) -> None:
    """Tell how many questions have no response, if only some have none."""
    missing = sum(not sample.kept for sample in samples.values())
    if not missing or missing == len(samples):
        return
    if draws.revealing:
        why = "none gave a private string away. method.undesired=dataset unlearns the data's own answers"
    else:
        wording = "another wording of method.instruction, or " if draws.instruction else ""
        why = f"each had a private string, or could not be searched for one. Try {wording}a higher method.temperature"
    note_once(
        f"For {missing} of {len(samples)} forget questions no answer of the original model could be taken ({draws.name} in "
        f"run.yaml): {why}."
    )


def draw(session: Session, examples: Sequence[Example], draws: Draws) -> dict[str, Drawn]:
    """Return example id -> responses of the original model, from the cache if still valid.

    To be called before training. Adds counts and the reject rate to `session.notes[draws.name]`.
    """
    cache = session.out / "work" / f"{draws.name}-{_fingerprint(session, examples, draws)}.jsonl"
    if processes.from_main(cache.exists()):
        samples = {row["id"]: _samples_of(row) for row in read_jsonl(cache)}
    else:
        samples = _draw_all(session, examples, draws)
        if processes.is_main():
            atomic_write_jsonl(cache, ({"id": example_id, **asdict(sample)} for example_id, sample in samples.items()))
    _tell_missing(draws, samples)
    drawn_count = sum(sample.drawn for sample in samples.values())
    rejected_count = sum(sample.rejected for sample in samples.values())
    session.notes[draws.name] = {
        "questions": len(samples),
        "kept": sum(len(sample.kept) for sample in samples.values()),
        "drawn": drawn_count,
        "rejected": rejected_count,
        "reject_rate": round(rejected_count / max(1, drawn_count), 4),
        "without_any": sum(not sample.kept for sample in samples.values()),
    }
    return samples


def as_targets(example: Example, answers: Sequence[Completion]) -> list[Target]:
    """Return distinct responses as targets with token ids."""
    distinct_completions = {
        (completion.token_ids, completion.ended): completion
        for completion in answers
        if completion.token_ids or completion.ended
    }
    return [
        Target(example=example, token_ids=completion.token_ids, ended=completion.ended)
        for completion in distinct_completions.values()
    ]


def forget_questions(session: Session, queries: Literal["all", "open"]) -> list[Example]:
    """Return the distinct seen forget questions for private information."""
    return first_of_each(forget_rows(session, queries), question_key)


def forget_rows(session: Session, queries: Literal["all", "open"]) -> list[Example]:
    """Return the seen forget rows that ask for private information, with distinct questions or answers."""
    kinds = PROBES if queries == "all" else {Kind.OPEN}
    rows = private_rows(session.of(Role.FORGET), kinds)
    if not rows:
        way_out = "Add some." if queries == "all" else "Add some, or set method.queries=all."
        raise UserError(
            f"No forget example can be used: expected questions of kind {', '.join(sorted(kinds))} with private strings. {way_out}"
        )
    return first_of_each(rows, lambda row: (*question_key(row), row.answer))


def undesired_targets(
    session: Session, examples: Sequence[Example], source: Literal["self", "dataset"], count: int
) -> list[Target]:
    """Return the answers to unlearn: the data's own, or the original model's revealing ones.

    Args:
        session: Model, examples and settings of the run.
        examples: Forget rows. Those of one question may have different answers.
        source: dataset = the data's own answers, self = revealing responses of the original model.
        count: Responses per question to draw, with source self.

    Raises:
        UserError: The original model gives no revealing response.
    """
    if source == "dataset":
        return [Target(example=example) for example in examples]
    draws = Draws(name="undesired", count=count, sampling=Sampling(top_p=0.9), revealing=True, greedy_first=True)
    message = (
        "The original model discloses nothing private about the forget images, so it has no revealing responses to "
        "unlearn. Check the model and the data, or set method.undesired=dataset."
    )
    return all_drawn(session, first_of_each(examples, question_key), draws, message)


def without_private(name: str, count: int, temperature: float, instruction: str = "") -> Draws:
    """Return the settings that draw responses without a private term.

    Args:
        name: First part of the cache's file name.
        count: Responses per question.
        temperature: Sampling temperature; 0 = greedy, and one response only.
        instruction: Text before the question; empty for none.
    """
    sampling = Sampling(temperature=temperature) if temperature else None
    return Draws(name=name, count=count if sampling else 1, sampling=sampling, revealing=False, instruction=instruction)


def idle_draws(setting: str, count: int, temperature: float) -> Iterator[tuple[str, str]]:
    """Yield the setting of the number of responses, where greedy decoding allows one only.

    Args:
        setting: Path of the setting.
        count: Its value.
        temperature: Sampling temperature of the responses.
    """
    if count > 1 and not temperature:
        yield setting, "with method.temperature above 0"


def drawn_targets(session: Session, examples: Sequence[Example], draws: Draws, message: str) -> dict[str, list[Target]]:
    """Return the kept responses of the original model as targets, by id of the example.

    Args:
        session: Model, examples and settings of the run.
        examples: Questions, which become the examples of the targets.
        draws: Number and kind of the responses.
        message: Error message if no response was kept.

    Raises:
        UserError: No response was kept.
    """
    samples = draw(session, examples, draws)
    targets = {example.id: as_targets(example, samples[example.id].kept) for example in examples}
    if not any(targets.values()):
        raise UserError(message if draws.revealing else message + UNSEEN_SCRIPT)
    return targets


def all_drawn(session: Session, examples: Sequence[Example], draws: Draws, message: str) -> list[Target]:
    """Return the kept responses of the original model as targets, in the order of the examples.

    Args:
        session: Model, examples and settings of the run.
        examples: Questions, which become the examples of the targets.
        draws: Number and kind of the responses.
        message: Error message if no response was kept.

    Raises:
        UserError: No response was kept.
    """
    return list(chain.from_iterable(drawn_targets(session, examples, draws, message).values()))


@dataclass(frozen=True, kw_only=True)
class Guided(Method):
    """Method with a behaviour-guidance term and its settings (PUBG)."""

    guidance_weight: float = 1.0
    """Lambda, the weight of the behaviour-guidance term [inferred]."""
    retain_weight: float = 0.0
    """Weight of the cross-entropy on the retain answers; 0 = the paper's form."""
    instruction: str = INSTRUCTION
    """In-context instruction c of the teacher (the original model) [inferred]."""
    rollouts: int = 5
    """J, guidance rollouts per image and question [inferred]."""
    temperature: float = 1.0
    """Sampling temperature of rollouts; 0 = greedy, one rollout [inferred]."""
    queries: Literal["all", "open"] = "all"
    """Train on all questions for private information, or only on open ones (the paper's single query)."""
    reduction: Reduction = "token_mean"
    """Mean or sum over an answer's tokens, in all terms but the retain term [inferred]."""
    kl_direction: Direction = "forward"
    """forward = KL(teacher || model), the paper's."""
    teacher: Teacher = "auto"
    """Source of teacher logits: kept in memory, recomputed, or as memory allows."""

    def __post_init__(self) -> None:
        """Reject settings by which nothing could be drawn."""
        super().__post_init__()
        if self.rollouts < 1 or self.temperature < 0:
            raise UserError(
                "Guidance needs method.rollouts >= 1 and method.temperature >= 0, got "
                f"{self.rollouts} and {self.temperature}."
            )

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return replace(super().needs(), teacher=True, generates=True)

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        yield from idle_draws("method.rollouts", self.rollouts, self.temperature)
        yield from idle_term(
            self.guidance_weight,
            "guidance_weight",
            ("instruction", "rollouts", "temperature", "kl_direction", "teacher"),
        )


class Guide:
    """Behaviour-guidance term: KL from the instructed original model on its rollouts (PUBG).

    To be made before training: draws (or reads) the rollouts and fixes the teacher.
    """

    def __init__(self, session: Session, examples: Sequence[Example], settings: Guided) -> None:
        self.seed = session.seed
        self.settings = settings
        draws = without_private("rollouts", settings.rollouts, settings.temperature, settings.instruction)
        message = (
            "Every guidance rollout has a private term: the model does not follow the instruction. "
            f"Try another wording of method.instruction (now {settings.instruction!r})."
        )
        self.targets = drawn_targets(session, examples, draws, message)
        self.by_question = {question_key(example): self.targets[example.id] for example in examples}
        targets = [target for targets in self.targets.values() for target in targets]
        self.teacher = StartLogits(session, targets, instruction=settings.instruction, teacher=settings.teacher)

    def pick(self, batch: Batch) -> list[Target]:
        """Return a rollout for each example of the batch that has one, by seed and batch index."""
        rollouts = []
        for row_index, example in zip(batch.places, batch.examples, strict=True):
            choices = self.by_question.get(question_key(example), [])
            if choices:
                rollouts.append(
                    choices[seed_of(self.seed, "rollout", batch.index, row_index, example.id) % len(choices)]
                )
        return rollouts

    def loss(self, rollouts: Sequence[Target], logits_bav: Tensor, labels_ba: Tensor) -> Tensor:
        """Return L_BG of the student's logits on these rollouts, or 0 if there are none."""
        if not rollouts:
            return logits_bav.sum() * 0.0
        teacher_bav = self.teacher(rollouts, labels_ba)
        return kl_loss(teacher_bav, logits_bav, labels_ba, self.settings.kl_direction, self.settings.reduction)


def _draw_all(session: Session, examples: Sequence[Example], draws: Draws) -> dict[str, Drawn]:
    """Sample until every question has its responses or the rounds are used up."""
    completions: dict[str, list[Completion]] = {example.id: [] for example in examples}
    counts = {example.id: [0, 0] for example in examples}
    image_token = image_token_id(session.model)  # a response with this token cannot be trained on: it has no image
    for round_index in range(ROUNDS if draws.sampling else 1):
        pending = [example for example in examples for _ in range(draws.count - len(completions[example.id]))]
        if not pending:
            break
        for example, completion in zip(pending, _ask(session, pending, draws, round_index), strict=True):
            is_leak = bool(leaked_facts(completion.text, example.private, example.question))
            # In a script in which a private term would not be found.
            is_unreadable = not is_leak and bool(unreadable(completion.text, example.private))
            suitable = is_leak == draws.revealing and not is_unreadable and image_token not in completion.token_ids
            counts[example.id][0] += 1
            counts[example.id][1] += not suitable
            if suitable:
                completions[example.id].append(completion)
    return {
        example_id: Drawn(tuple(kept), counts[example_id][0], counts[example_id][1])
        for example_id, kept in completions.items()
    }


def _ask(session: Session, examples: Sequence[Example], draws: Draws, round_index: int) -> list[Completion]:
    """Sample from the original model. The first response may be greedy in the first round."""
    instructions = [served(session, draws.instruction.replace(ANSWER, example.answer)) for example in examples]
    requests = [Prompt.of(example, instruction) for example, instruction in zip(examples, instructions, strict=True)]
    seed, progress = seed_of(session.seed, draws.name, round_index), f"{draws.name}, round {round_index + 1}"
    completions = start_answers(session, requests, sampling=draws.sampling, seed=seed, progress=progress)
    if round_index == 0 and draws.greedy_first:
        first_indices = list({example.id: index for index, example in reversed(list(enumerate(examples)))}.values())
        greedy = start_answers(session, [requests[i] for i in first_indices], progress=progress)
        for index, completion in zip(first_indices, greedy, strict=True):
            completions[index] = completion
    return completions


def start_answers(
    session: Session,
    requests: Sequence[Prompt],
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
    progress: str = "",
) -> list[Completion]:
    """Generate with the original model, greedily unless `sampling` is given.

    Args:
        session: Model, examples and settings of the run.
        requests: All prompts, the same list in every process.
        sampling: Temperature and nucleus to draw with.
        seed: Seed of the draws, together with the index of the prompt.
        progress: Label of a progress line; empty for none.

    Returns:
        Responses to all prompts, in order, in every process.
    """
    with as_start(session.model):
        completions = generate(
            session.vlm,
            processes.share(requests),
            max_new_tokens=session.training.max_new_tokens,
            sampling=sampling,
            seed=seed,
            progress=progress if processes.is_main() else "",
            places=processes.share(range(len(requests))),
        )
    return processes.interleave(processes.all_gather(completions))


def _fingerprint(session: Session, examples: Sequence[Example], draws: Draws) -> str:
    """Hash weights, tokenizer, template, instruction, questions, images, decoding and seed."""
    tokenizer = session.processor.tokenizer
    facts = [
        weights_hash(session),
        sorted(tokenizer.get_vocab().items()),
        session.processor.chat_template,
        asdict(draws),
        [example.answer for example in examples] if ANSWER in draws.instruction else [],
        [
            (example.id, example.question, example.image.key if example.image else "", sorted(example.private.items()))
            for example in examples
        ],
        session.training.max_new_tokens,
        session.seed,
        *([session.instruction] if session.instruction else []),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _samples_of(row: Mapping[str, Any]) -> Drawn:
    completions = tuple(
        Completion(record["text"], tuple(record["token_ids"]), record["ended"]) for record in row["kept"]
    )
    return Drawn(completions, row["drawn"], row["rejected"])
