"""Rollouts of the original model: guided by the privacy instruction, or revealing.

Rollouts are cached on disk as token ids, keyed by a hash of everything they depend on (PUBG, arXiv 2506.02541).
Details of their construction are [inferred], for PUBG's code is not public.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Literal

from torch import Tensor

from unsee.api import PROBES, Example, Kind, Method, Needs, Role, Session
from unsee.api.request import Completion, Prompt, Sampling, Target
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.inference.batching import Batch
from unsee.inference.generation import generate
from unsee.inference.packing import image_token_id
from unsee.losses import Direction, Reduction, kl_loss
from unsee.methods.common.reference_model import StartLogits, Teacher, as_start, weights_hash
from unsee.metrics.matching import leaked, unreadable
from unsee.utils.files import atomic_write_jsonl, read_jsonl
from unsee.utils.seeds import seed_of

INSTRUCTION = (
    "Do not reveal any private information about the person in the image, such as the name, profession or biography. "
    "Describe only what is visually observable, such as hairstyle, facial features, clothing, pose and background."
)
"""Default in-context instruction c (PUBG, arXiv 2506.02541) [inferred]."""
ANSWER = "{answer}"
"""Placeholder of the example's answer in an instruction."""
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


def draw(session: Session, examples: Sequence[Example], wanted: Draws) -> dict[str, Drawn]:
    """Return example id -> responses of the original model, from the cache if still valid.

    To be called before training. Adds counts and the reject rate to `session.notes[wanted.name]`.
    """
    cache = session.out / "work" / f"{wanted.name}-{_fingerprint(session, examples, wanted)}.jsonl"
    if processes.from_main(cache.exists()):
        found = {row["id"]: _drawn(row) for row in read_jsonl(cache)}
    else:
        found = _draw_all(session, examples, wanted)
        if processes.is_main():
            atomic_write_jsonl(cache, ({"id": key, **asdict(value)} for key, value in found.items()))
    drawn, rejected = sum(d.drawn for d in found.values()), sum(d.rejected for d in found.values())
    session.notes[wanted.name] = {
        "questions": len(found),
        "kept": sum(len(d.kept) for d in found.values()),
        "drawn": drawn,
        "rejected": rejected,
        "reject_rate": round(rejected / max(1, drawn), 4),
        "without_any": sum(not d.kept for d in found.values()),
    }
    return found


def as_targets(example: Example, answers: Sequence[Completion]) -> list[Target]:
    """Return distinct responses as targets with token ids."""
    distinct = {(said.token_ids, said.ended): said for said in answers if said.token_ids or said.ended}
    return [Target(example=example, token_ids=said.token_ids, ended=said.ended) for said in distinct.values()]


def forget_questions(session: Session, queries: Literal["all", "open"]) -> list[Example]:
    """Return the distinct seen forget questions for private information."""
    kinds = PROBES if queries == "all" else {Kind.OPEN}
    asked: dict[tuple[str, str], Example] = {}
    for example in session.of(Role.FORGET):
        if example.kind in kinds and example.private:
            asked.setdefault((example.image.key if example.image else "", example.question), example)
    if not asked:
        raise UserError(
            f"No forget example can be used with method.queries={queries}: expected questions of kind "
            f"{', '.join(sorted(kinds))} with private strings. Add some, or set method.queries=all."
        )
    return list(asked.values())


def undesired_targets(
    session: Session, examples: Sequence[Example], source: Literal["self", "dataset"], count: int
) -> list[Target]:
    """Return the answers to unlearn: the data's own, or revealing ones of the original.

    Args:
        session: Model, examples and settings of the run.
        examples: Forget questions.
        source: dataset = the data's own answers, self = revealing responses of the original model.
        count: Responses per question to draw, with source self.

    Raises:
        UserError: The original model gives no revealing response.
    """
    if source == "dataset":
        return [Target(example=example) for example in examples]
    wanted = Draws(name="undesired", count=count, sampling=Sampling(top_p=0.9), revealing=True, greedy_first=True)
    none = (
        "The original model discloses nothing private about the forget images, so it has no revealing responses to "
        "unlearn. Check the model and the data, or set method.undesired=dataset."
    )
    return list(chain.from_iterable(drawn_targets(session, examples, wanted, none).values()))


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


def drawn_targets(session: Session, examples: Sequence[Example], wanted: Draws, none: str) -> dict[str, list[Target]]:
    """Return the kept responses of the original model as targets, by id of the example.

    Args:
        session: Model, examples and settings of the run.
        examples: Questions, which become the examples of the targets.
        wanted: Number and kind of the responses.
        none: Error message if no response was kept.

    Raises:
        UserError: No response was kept.
    """
    drawn = draw(session, examples, wanted)
    targets = {example.id: as_targets(example, drawn[example.id].kept) for example in examples}
    if not any(targets.values()):
        raise UserError(none)
    return targets


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
    """Mean or sum over an answer's tokens, in every term [inferred]."""
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


class Guide:
    """Behaviour-guidance term: KL from the instructed original model on its rollouts (PUBG).

    To be made before training: draws (or reads) the rollouts and fixes the teacher.
    """

    def __init__(self, session: Session, examples: Sequence[Example], settings: Guided) -> None:
        self.seed = session.seed
        self.settings = settings
        wanted = without_private("rollouts", settings.rollouts, settings.temperature, settings.instruction)
        none = (
            "Every guidance rollout has a private term: the model does not follow the instruction. "
            f"Try another wording of method.instruction (now {settings.instruction!r})."
        )
        self.targets = drawn_targets(session, examples, wanted, none)
        known = [target for targets in self.targets.values() for target in targets]
        self.teacher = StartLogits(session, known, instruction=settings.instruction, teacher=settings.teacher)

    def pick(self, batch: Batch) -> list[Target]:
        """Return one rollout per example of the batch, by seed and batch index.

        None where no rollout was kept.
        """
        picked = []
        for place, example in zip(batch.places, batch.examples, strict=True):
            choices = self.targets.get(example.id, [])
            if choices:
                picked.append(choices[seed_of(self.seed, "rollout", batch.index, place, example.id) % len(choices)])
        return picked

    def loss(self, picked: Sequence[Target], logits_bav: Tensor, labels_ba: Tensor) -> Tensor:
        """Return L_BG of the student's logits on picked rollouts, or 0 if there are none."""
        if not picked:
            return logits_bav.sum() * 0.0
        teacher_bav = self.teacher(picked, labels_ba)
        return kl_loss(teacher_bav, logits_bav, labels_ba, self.settings.kl_direction, self.settings.reduction)


def _draw_all(session: Session, examples: Sequence[Example], wanted: Draws) -> dict[str, Drawn]:
    """Sample until every question has its responses or the rounds are used up."""
    kept: dict[str, list[Completion]] = {example.id: [] for example in examples}
    counts = {example.id: [0, 0] for example in examples}
    image_token = image_token_id(session.model)  # a response with one cannot be trained on: no image belongs to it
    for turn in range(ROUNDS if wanted.sampling else 1):
        asked = [e for e in examples for _ in range(wanted.count - len(kept[e.id]))]
        if not asked:
            break
        for example, said in zip(asked, _ask(session, asked, wanted, turn), strict=True):
            leaks = bool(leaked(said.text, example.private, example.question))
            hidden = not leaks and bool(unreadable(said.text, example.private))  # in a script that would not be found
            right = leaks == wanted.revealing and not hidden and image_token not in said.token_ids
            counts[example.id][0] += 1
            counts[example.id][1] += not right
            if right:
                kept[example.id].append(said)
    return {key: Drawn(tuple(said), counts[key][0], counts[key][1]) for key, said in kept.items()}


def _ask(session: Session, asked: Sequence[Example], wanted: Draws, turn: int) -> list[Completion]:
    """Sample from the original model. The first response may be greedy in the first round."""
    told = [wanted.instruction.replace(ANSWER, example.answer) for example in asked]
    requests = [Prompt.of(example, text) for example, text in zip(asked, told, strict=True)]
    seed, progress = seed_of(session.seed, wanted.name, turn), f"{wanted.name}, round {turn + 1}"
    said = start_answers(session, requests, sampling=wanted.sampling, seed=seed, progress=progress)
    if turn == 0 and wanted.greedy_first:
        firsts = list({example.id: place for place, example in reversed(list(enumerate(asked)))}.values())
        greedy = start_answers(session, [requests[i] for i in firsts], progress=progress)
        for place, answer in zip(firsts, greedy, strict=True):
            said[place] = answer
    return said


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
        seed: Seed of the draws, together with the place of the prompt.
        progress: Label of a progress line; empty for none.

    Returns:
        Responses to all prompts, in order, in every process.
    """
    with as_start(session.model):
        said = generate(
            session.vlm,
            processes.share(requests),
            max_new_tokens=session.training.max_new_tokens,
            sampling=sampling,
            seed=seed,
            progress=progress if processes.is_main() else "",
            places=processes.share(range(len(requests))),
        )
    return processes.interleave(processes.all_gather(said))


def _fingerprint(session: Session, examples: Sequence[Example], wanted: Draws) -> str:
    """Hash weights, tokenizer, template, instruction, questions, images, decoding and seed."""
    tokenizer = session.processor.tokenizer
    facts = [
        weights_hash(session),
        sorted(tokenizer.get_vocab().items()),
        session.processor.chat_template,
        asdict(wanted),
        [e.answer for e in examples] if ANSWER in wanted.instruction else [],
        [(e.id, e.question, e.image.key if e.image else "", sorted(e.private.items())) for e in examples],
        session.training.max_new_tokens,
        session.seed,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _drawn(row: Mapping[str, Any]) -> Drawn:
    kept = tuple(Completion(said["text"], tuple(said["token_ids"]), said["ended"]) for said in row["kept"])
    return Drawn(kept, row["drawn"], row["rejected"])
