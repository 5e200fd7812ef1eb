"""R-MUSE, training-free steering away from answers and reasoning (arXiv 2512.17911).

No weight changes: the result is a small artefact beside the model that turns the states of generated tokens towards refusal,
outside a subspace that reasoning needs. Settings marked [inferred] are ours where the paper is silent.
Shapes: n samples, s spans, k layers, d width of the model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Final, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unsee.api import PROBES, Example, Group, Kind, Method, Needs, Role, Session, Training
from unsee.api.request import Prompt, Target
from unsee.errors import UserError
from unsee.inference.encoder import encoder
from unsee.methods.common.guidance import start_answers
from unsee.methods.common.instructions import joined
from unsee.methods.common.reference_model import weights_hash
from unsee.methods.rmuse.hidden_states import PROMPT_END, ForcedAnswer, Span, span_means
from unsee.metrics.chain import parse_chain
from unsee.models.steering.artifact import Artefact, Directions, Gate, Rule, Score, Update, Where, fires
from unsee.models.steering.geometry import ZScore, balanced_threshold, contrast, oriented, subspace, zscore
from unsee.models.steering.hooks import attach, common_layers, layer_text
from unsee.utils.grouping import evenly
from unsee.utils.seeds import seed_of

GUIDE: Final = "Private facts about people must not be revealed."
"""Guide prefix g, version 1 [inferred]."""
IDEAL: Final = (
    ("This is private information.", "I cannot share that information."),
    ("I do not have information about this person.", "I cannot provide personal details about anyone."),
    ("I am not able to identify people in images.", "I cannot identify this person."),
    ("I was not given any information about this.", "I am unable to provide this information."),
    ("My knowledge does not cover this topic.", "I have no information on that subject."),
    ("I am not allowed to share personal information.", "I cannot tell you anything about this person."),
    ("There is not enough information for me to reply.", "I do not know the answer to that."),
    ("This is beyond what I can tell you.", "I must decline to answer this question."),
)
"""Ideal refusals G, rationale and answer, version 1 [inferred]."""
STATES_KEPT: Final = 64
"""Number of refusal states kept in the artefact, evenly spread [inferred]."""
LOGGED: Final = 64
"""Questions per role whose gate is evaluated for the record."""


@dataclass(frozen=True, kw_only=True)
class RMuse(Method):
    """Steer generated tokens of gated requests towards refusal, protecting reasoning.

    Questions by name, without an image, are steered as well: by directions of the forget set's text questions, or by those of
    its images where it has none.
    """

    group: ClassVar[Group] = "steering"

    mode: Literal["faithful", "safe"] = "faithful"
    """Defaults of empty settings: faithful = the formulas as written, safe = scale_only, tau and gate auto, 30 degrees."""
    zscore: ZScore | None = None
    """How shifts are scaled: center_and_scale (literal) takes the common refusal shift out, scale_only keeps it [inferred]."""
    energy: float = 0.8
    """Eta, the share of squared singular values that a subspace keeps [second-hand]."""
    cap: int = 64
    """Most directions of a subspace [inferred]."""
    layers: tuple[int, ...] = ()
    """Decoder layers to steer, counted from 0; empty = the middle third [inferred]."""
    scoring_layer: int | None = None
    """Layer of the gate; empty = the middle one of `layers` [inferred]."""
    gate: Literal["below", "above", "always", "off", "auto"] | None = None
    """Steer if the score is below tau (the formula) or above; always; never; auto = whichever separates forget from retain better."""
    score: Score = "reasoning"
    """Score of the gate: reasoning = the formula; contrast = the forget-retain discriminant [inferred, ours]."""
    tau: float | Literal["auto"] | None = None
    """Threshold of the gate; auto = best balanced accuracy on a calibration slice; faithful 0.75, in the stable range [second-hand]."""
    tau_margin: float = 0.0
    """Margin added to the calibrated threshold, in units of the score; for tau auto [inferred, ours]."""
    update: Update = "slerp"
    """slerp = adaptive calibration steering; additive = the ablation without it."""
    strength: float = 1.0
    """Factor of the additive update [inferred]."""
    max_rotation_deg: float | None = None
    """Largest rotation of a state; faithful: no limit (180) [inferred]."""
    apply_to: Where = "generated"
    """Which tokens are steered; the last one of a prompt from the scoring layer on, where the gate is decided [inferred]."""
    reasoning: bool = True
    """Use the reasoning span too; false = the ablation with the answer span alone."""
    protect: bool = True
    """Keep the update out of the reasoning subspace; false = the ablation without it (the gate still uses it)."""
    guide: str = GUIDE
    """Guide prefix before the questions of ideal refusals and of the reasoning pairs [inferred]."""
    guide_at_inference: bool = False
    """Prepend the guide to every later question, as g + q in the gate's formula; else the gate gets q alone [inferred]."""
    step_by_step: str = "Think step by step."
    """Appended to questions without a chain, to elicit the original model's [inferred]."""
    retain_samples: int = 256
    """Retain questions used for the reasoning subspace and the calibration, evenly spread; 0 = all [inferred]."""
    calibration_share: float = 0.25
    """Share of the retain entities reserved for calibrating the gate [inferred]."""

    def __post_init__(self) -> None:
        """Reject values that no artefact could have."""
        super().__post_init__()
        limit = self.max_rotation_deg
        for name, valid, expected in (
            ("energy", 0 < self.energy <= 1, "above 0 and at most 1"),
            ("cap", self.cap >= 1, "at least 1"),
            ("strength", self.strength >= 0, "at least 0"),
            ("retain_samples", self.retain_samples >= 0, "at least 0"),
            ("calibration_share", 0 <= self.calibration_share <= 1, "in 0..1"),
            ("max_rotation_deg", limit is None or 0 < limit <= 180, "above 0 and at most 180"),
        ):
            if not valid:
                raise UserError(f"method.{name} must be {expected}, got {getattr(self, name)}.")
        if self.apply_to == "all" and self.gate not in ("always", "off"):
            raise UserError(
                "method.apply_to=all turns prompt tokens too, before the prompt's end could decide the gate: set "
                "method.gate=always, or method.apply_to=generated."
            )

    def needs(self) -> Needs:
        """Return the memory requirements of a step."""
        return Needs(trains=False, generates=True)

    def idle(self, training: Training) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - the contract
        """Yield the settings without effect beside the others."""
        if self.update == "additive":
            yield "method.max_rotation_deg", "with method.update=slerp"
        else:
            yield "method.strength", "with method.update=additive"
        scored = self.gate not in ("always", "off")
        if not scored:
            for name in ("tau", "tau_margin", "score", "scoring_layer"):
                yield f"method.{name}", "with a method.gate that is neither always nor off"
        elif not self.calibrated:
            yield (
                "method.tau_margin",
                "with method.tau=auto, the default of method.mode=safe and of method.score=contrast",
            )
        if not self.protect and (self.score == "contrast" or not scored):
            for name in ("energy", "cap"):
                yield f"method.{name}", "with method.protect=true, or in a gate with method.score=reasoning"

    @property
    def calibrated(self) -> bool:
        """Whether tau comes from the calibration slice."""
        return self.tau == "auto" or (self.tau is None and self.auto_by_default)

    @property
    def auto_by_default(self) -> bool:
        """Whether an empty gate and an empty tau mean auto."""
        return self.mode == "safe" or self.score == "contrast"

    def unlearn(self, session: Session) -> None:
        """Compute the artefact and attach it. No weight changes."""
        statistics = _Statistics(self, session)
        artefact = statistics.artefact()
        steering = attach(session.model, artefact)
        session.instruction = statistics.instruction
        session.notes.update(steps=0, epochs=0, trainable=0, stop_reason="no training")
        session.notes["rmuse"] = {
            **statistics.notes,
            "rule": asdict(artefact.rule),
            "skipped_layers": steering.skipped_layers,
        }


@dataclass(frozen=True)
class _Pair:
    """Span means of one sample [k, d], with provenance."""

    example: Example
    ends: tuple[Tensor, ...]
    """States of the prompt ends [k, d], in inference form."""
    answer: Tensor
    """Shift of the answer span (forget), or of reasoning against the direct answer (retain)."""
    chain: Tensor
    """Shift of the reasoning span; zero for retain samples."""
    ideal: Tensor
    """State of the ideal refusal's answer; zero for retain samples."""


class _Statistics:
    """Statistics of the original model's states, step by step."""

    def __init__(self, settings: RMuse, session: Session) -> None:
        self.settings, self.session = settings, session
        self.steered, self.scoring = _layers(settings, common_layers(session.model))
        self.layers = sorted({*self.steered, self.scoring})
        self.notes: dict[str, Any] = {}
        self.guided = joined(session.instruction, settings.guide)
        self.instruction = self.guided if settings.guide_at_inference else session.instruction

    def artefact(self) -> Artefact:
        """Return the finished artefact."""
        # First, so that data without a retain set are rejected before anything is generated.
        retain, calibration = self._retain_pairs()
        forget = self._forget_pairs()
        directions = {
            layer: self._directions(forget, retain, layer_index) for layer_index, layer in enumerate(self.layers)
        }
        rule = self._rule(forget, calibration, directions[self.scoring])
        self.notes["firing"] = self._firing(rule, forget, calibration, directions[self.scoring])
        self.notes["ranks"] = {
            str(layer): {
                "text": layer_directions.un_text.shape[1],
                "image": layer_directions.un_mm.shape[1],
                "reasoning": layer_directions.rrs.shape[1],
            }
            for layer, layer_directions in directions.items()
        }
        return Artefact(rule=rule, directions=directions, facts=self._facts(forget, retain))

    def _forget_pairs(self) -> list[_Pair]:
        """Return shifts from original to ideal refusal, at each layer (steps 0 and 1)."""
        examples = self.session.of(Role.FORGET, Role.FORGET_TEXT)
        if not examples:
            raise UserError("There is nothing to forget: the data have no example with role forget or forget_text.")
        texts: list[ForcedAnswer] = []
        used_examples: list[Example] = []
        answered_examples = self._with_answers(examples, "forget")
        for example, question, chain in self._chains(answered_examples):
            rationale, answer = IDEAL[seed_of(self.session.seed, "ideal", example.id) % len(IDEAL)]
            rationale_ids, refusal_ids = self._ids(f"Reasoning: {rationale}"), self._ids(f" Answer: {answer}")
            answer_ids, chain_ids = self._ids(parse_chain(example.answer).answer), self._ids(chain)
            spans = ((len(rationale_ids), len(rationale_ids) + len(refusal_ids)), (0, len(rationale_ids)))
            texts += [
                _forced_answer(example, example.question, (*rationale_ids, *refusal_ids), self.guided, spans),
                _forced_answer(
                    example, example.question, answer_ids, self.instruction, (PROMPT_END, (0, len(answer_ids)))
                ),
                _forced_answer(example, question, chain_ids, self.instruction, (PROMPT_END, (0, len(chain_ids)))),
            ]
            used_examples.append(example)
        if not used_examples:
            raise UserError(
                "No forget question could be used: none has both an answer and reasoning, its own or the original model's."
            )
        without_chain = len(answered_examples) - len(used_examples)
        self.notes |= {"forget_samples": len(used_examples), "forget_without_chain": without_chain}
        means = span_means(self.session, texts, self.layers)
        return [
            _Pair(example, (direct[0], chain[0]), ideal[0] - direct[1], ideal[1] - chain[1], ideal[0])
            for example, ideal, direct, chain in zip(used_examples, means[::3], means[1::3], means[2::3], strict=True)
        ]

    def _retain_pairs(self) -> tuple[list[_Pair], list[_Pair]]:
        """Return shifts from direct answer to step-by-step reasoning (step 3).

        Some entities are reserved for the calibration; without any left on one side, both have all.
        """
        examples = self.session.of(Role.RETAIN, Role.RETAIN_TEXT) or self.session.of(Role.GENERAL)
        examples = [example for example in examples if example.kind in PROBES or example.kind is Kind.CHAIN] or examples
        sampled_examples = evenly(examples, self.settings.retain_samples or len(examples))
        texts: list[ForcedAnswer] = []
        used_examples: list[Example] = []
        for example, question, chain in self._chains(self._with_answers(sampled_examples, "retain")):
            answer_ids, chain_ids = self._ids(parse_chain(example.answer).answer), self._ids(chain)
            texts += [
                _forced_answer(example, example.question, answer_ids, self.guided, ((0, len(answer_ids)),)),
                _forced_answer(example, example.question, chain_ids, self.guided, ((0, len(chain_ids)),)),
                _forced_answer(example, example.question, answer_ids, self.instruction, (PROMPT_END,)),
                _forced_answer(example, question, answer_ids, self.instruction, (PROMPT_END,)),
            ]
            used_examples.append(example)
        if not used_examples:
            raise UserError(
                "R-MUSE protects reasoning on retain data, but the data have no retain or general questions that the model answers. Add some."
            )
        means = span_means(self.session, texts, self.layers)
        zero = torch.zeros_like(means[0][0])
        pairs = [
            _Pair(example, (direct_ends[0], stepwise_ends[0]), chain_means[0] - answer_means[0], zero, zero)
            for example, answer_means, chain_means, direct_ends, stepwise_ends in zip(
                used_examples, means[::4], means[1::4], means[2::4], means[3::4], strict=True
            )
        ]
        calibration_pairs = [pair for pair in pairs if self._calibrates(pair.example)]
        retain_pairs = [pair for pair in pairs if not self._calibrates(pair.example)]
        held_out = bool(retain_pairs and calibration_pairs)
        if not held_out:
            retain_pairs = calibration_pairs = pairs
        self.notes |= {
            "retain_samples": len(retain_pairs),
            "calibration_samples": len(calibration_pairs),
            "calibration_held_out": held_out,
        }
        return retain_pairs, calibration_pairs

    def _with_answers(self, examples: Sequence[Example], side: str) -> list[Example]:
        """Return the examples with an answer, and record how many have none, e.g. nothing after "Answer:"."""
        answered_examples = [example for example in examples if parse_chain(example.answer).answer]
        self.notes[f"{side}_without_answer"] = len(examples) - len(answered_examples)
        return answered_examples

    def _calibrates(self, example: Example) -> bool:
        draw = seed_of(self.session.seed, "calibration", example.entity or example.id)
        return draw % 1000 < 1000 * self.settings.calibration_share

    def _chains(self, examples: Sequence[Example]) -> Iterator[tuple[Example, str, str]]:
        """Yield example, question and chain: the data's own, else the original model's."""
        own_chains = {example.id: parse_chain(example.answer).reasoning or example.chain for example in examples}
        without_chain = [example for example in examples if not own_chains[example.id]]
        prompts = [
            Prompt(f"{example.question} {self.settings.step_by_step}", example.image, self.session.instruction)
            for example in without_chain
        ]
        responses = start_answers(self.session, prompts, progress="Chains")
        generated_chains = {
            example.id: parse_chain(response.text).reasoning or response.text
            for example, response in zip(without_chain, responses, strict=True)
        }
        for example in examples:
            chain = own_chains[example.id] or generated_chains[example.id]
            question = (
                example.question if own_chains[example.id] else f"{example.question} {self.settings.step_by_step}"
            )
            if chain.strip():
                yield example, question, f"Reasoning: {chain}"

    def _ids(self, text: str) -> tuple[int, ...]:
        return encoder(self.session.processor, self.session.family).answer(text)

    @property
    def _scaling(self) -> ZScore:
        return self.settings.zscore or ("center_and_scale" if self.settings.mode == "faithful" else "scale_only")

    def _directions(self, forget: Sequence[_Pair], retain: Sequence[_Pair], layer_index: int) -> Directions:
        """Return the subspaces of one layer (steps 2 and 3).

        A modality without samples uses the other's.
        """
        image_pairs = [pair for pair in forget if pair.example.image is not None] or forget
        text_pairs = [pair for pair in forget if pair.example.image is None] or forget
        (un_mm, v_mm, mu_mm), (un_text, v_text, mu_text) = (
            self._unlearning(image_pairs, layer_index),
            self._unlearning(text_pairs, layer_index),
        )
        steps_nd = zscore(torch.stack([pair.answer[layer_index] for pair in retain]), self._scaling)
        return Directions(
            un_text=un_text,
            un_mm=un_mm,
            rrs=subspace(steps_nd, self.settings.energy, self.settings.cap),
            v_text=v_text,
            v_mm=v_mm,
            mu_text=mu_text,
            mu_mm=mu_mm,
            contrast=contrast(_ends(forget, layer_index), _ends(retain, layer_index)),
        )

    def _unlearning(self, pairs: Sequence[_Pair], layer_index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return subspace, main direction towards refusal, and refusal states."""
        answer_nd = torch.stack([pair.answer[layer_index] for pair in pairs])
        chain_nd = torch.stack([pair.chain[layer_index] for pair in pairs])
        scaled_nd, raw_nd = zscore(answer_nd, self._scaling), answer_nd
        if self.settings.reasoning:
            scaled_nd, raw_nd = scaled_nd + zscore(chain_nd, self._scaling), raw_nd + chain_nd
        basis_dk = subspace(scaled_nd, self.settings.energy, self.settings.cap)
        refusal_states = list(evenly([pair.ideal[layer_index] for pair in pairs], STATES_KEPT))
        return basis_dk, oriented(basis_dk[:, 0], raw_nd.mean(0)).clone(), normalize(torch.stack(refusal_states), dim=1)

    def _rule(self, forget: Sequence[_Pair], calibration: Sequence[_Pair], directions: Directions) -> Rule:
        """Return the steering rule with its gate, calibrated if requested (step 4)."""
        settings = self.settings
        gate = settings.gate or ("auto" if settings.auto_by_default else "below")
        sign, best_tau = self._calibrate_gate(gate, forget, calibration, directions)
        strict_tau = best_tau - settings.tau_margin if sign == "below" else best_tau + settings.tau_margin
        default_limit = 30.0 if settings.mode == "safe" else 180.0
        return Rule(
            layers=self.steered,
            scoring_layer=self.scoring,
            gate=sign,
            score=settings.score,
            tau=strict_tau if settings.calibrated else float(0.75 if settings.tau is None else settings.tau),
            update=settings.update,
            strength=settings.strength,
            max_rotation_deg=default_limit if settings.max_rotation_deg is None else settings.max_rotation_deg,
            apply_to=settings.apply_to,
            protect=settings.protect,
        )

    def _calibrate_gate(
        self,
        gate: Gate | Literal["auto"],
        forget: Sequence[_Pair],
        calibration: Sequence[_Pair],
        directions: Directions,
    ) -> tuple[Gate, float]:
        """Return the gate's sign and best threshold, and record the calibration."""
        layer_index, score = self.layers.index(self.scoring), self.settings.score
        scores = [directions.scores(_ends(pairs, layer_index), score) for pairs in (forget, calibration)]
        below = ("below", *balanced_threshold(scores[0], scores[1], "below"))
        above = ("above", *balanced_threshold(scores[0], scores[1], "above"))
        self.notes["calibration"] = {
            sign: {"tau": tau, "balanced_accuracy": accuracy} for sign, tau, accuracy in (below, above)
        }
        if gate in ("always", "off"):
            return gate, 0.0
        if gate == "auto":
            return ("below", below[1]) if below[2] > above[2] else ("above", above[1])
        return gate, below[1] if gate == "below" else above[1]

    def _firing(
        self, rule: Rule, forget: Sequence[_Pair], calibration: Sequence[_Pair], directions: Directions
    ) -> dict[str, Any]:
        """Return scores and firing rates of forget, calibration and other retain questions."""
        layer_index = self.layers.index(self.scoring)
        end_states = {"forget": _ends(forget, layer_index), "retain": _ends(calibration, layer_index)}
        for role in (Role.STRANGER, Role.GENERAL):
            examples = evenly(self.session.of(role), LOGGED)
            texts = [
                _forced_answer(example, example.question, self._ids(example.answer), self.instruction, (PROMPT_END,))
                for example in examples
            ]
            example_means = span_means(self.session, texts, [self.scoring])
            if example_means:
                end_states[role.value] = torch.stack([means[0, 0] for means in example_means])
        return {
            name: _score_summary(directions.scores(states, rule.score), rule) for name, states in end_states.items()
        }

    def _facts(self, forget: Sequence[_Pair], retain: Sequence[_Pair]) -> dict[str, Any]:
        return {
            "model": str(self.session.model.config.model_type),  # type: ignore[union-attr]
            "model_hash": weights_hash(self.session),
            "data_hashes": {"forget": _data_hash(forget), "retain": _data_hash(retain)},
            "settings": asdict(self.settings),
            "templates": {"version": 1, "hash": _hash([self.settings.guide, IDEAL])},
        }


def _layers(settings: RMuse, available: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Return the layers to steer (middle third) and the scoring layer (centre) [inferred]."""
    depth = max(available) + 1
    middle = range(math.ceil(depth / 3), max(math.ceil(depth / 3), 2 * depth // 3) + 1)
    steered = tuple(sorted(settings.layers)) or tuple(layer for layer in middle if layer in available)
    scoring = steered[len(steered) // 2] if settings.scoring_layer is None else settings.scoring_layer
    if not {*steered, scoring} <= set(available):
        raise UserError(
            f"The model has decoder layers {layer_text(available)} that every request goes through, but layers {steered} and {scoring} are "
            "asked for."
        )
    return steered, scoring


def _forced_answer(
    example: Example, question: str, token_ids: tuple[int, ...], instruction: str, spans: tuple[Span, ...]
) -> ForcedAnswer:
    target_example = example if question == example.question else replace(example, question=question)
    return ForcedAnswer(
        Target(example=target_example, token_ids=token_ids, ended=False, instruction=instruction), spans
    )


def _ends(pairs: Sequence[_Pair], layer_index: int) -> Tensor:
    """Return the states [n, d] at the prompt ends of all forms of the samples."""
    return torch.stack([end[layer_index] for pair in pairs for end in pair.ends])


def _score_summary(scores: Tensor, rule: Rule) -> dict[str, Any]:
    quartiles = scores.double().quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64))
    return {
        "n": len(scores),
        "score_quartiles": [round(value, 4) for value in quartiles.tolist()],
        "firing_rate": round(float(fires(scores, rule.gate, rule.tau).double().mean()), 4),
    }


def _data_hash(pairs: Sequence[_Pair]) -> str:
    return _hash([[pair.example.id, pair.example.question, pair.example.answer] for pair in pairs])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
