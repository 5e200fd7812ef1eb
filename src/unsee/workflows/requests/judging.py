"""Verdicts on the people of requests after a batch, and on the model that it made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unsee.api import Response
from unsee.workflows.requests import asking, surfaces
from unsee.workflows.requests.project import Request
from unsee.workflows.requests.surfaces import Reference, Share, Surface, Word
from unsee.workflows.verdict import Leaks, Outcome


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a model after a batch gives away about one person."""

    request: str
    surfaces: Mapping[str, Surface]
    verdict: Word
    recheck: bool
    """Whether the person was unlearned in an earlier batch."""

    def __str__(self) -> str:
        """Return the verdict and a line per surface."""
        suffix = " (earlier request, asked again)" if self.recheck else ""
        lines = [f"  {surfaces.WORDS[name]}: {surface}" for name, surface in self.surfaces.items()]
        return "\n".join([f"{self.request}: {self.verdict.upper().replace('_', ' ')}{suffix}", *lines])


def judge_own(
    request: Request,
    arrival: Mapping[str, Any],
    before: Sequence[Response],
    after: Sequence[Response],
    gold: Sequence[Response],
    attacks: Mapping[str, Any],
    earlier: Mapping[str, Word] | None = None,
) -> Checked:
    """Return the verdict on a person whom the batch unlearned.

    Args:
        request: Request about the person.
        arrival: What was given away when the request arrived, by surface, as the ledger has it.
        before: Answers of the model before, about the people of the batch and the strangers beside them.
        after: Answers of the model after to the same questions.
        gold: Answers of a model that never saw these people; empty = there is none.
        attacks: Name of an attack -> its result.
        earlier: Surface -> last verdict of earlier batches that was measured.
    """
    earlier = earlier or {}
    person_surfaces = _asked(request.entity, arrival, before, after, gold)
    known_by_asking = surfaces.known_before(person_surfaces)
    # the model may have known what its greedy answers did not say
    known_by_drawing = arrival.get("sampling", {}).get("verdict") == "residual"
    known = known_by_drawing or not {"erased", "residual"}.isdisjoint(earlier.values()) or known_by_asking
    controls = asking.controls_of(request.entity)
    person_surfaces |= {
        name: surfaces.attack_surface(attacks[name], request.entity, controls, known=known)
        if name in attacks
        else Surface(verdict="not_measured", why="this attack was not made")
        for name in surfaces.ATTACKED
    }
    person_surfaces = _without_gibberish(person_surfaces, request.entity, after)
    owed = {name for name, word in earlier.items() if word == "residual"}
    if known_by_drawing and not known_by_asking:
        owed.add("sampling")
    verdict = surfaces.overall(person_surfaces, known=bool(known), owed=owed)
    return Checked(request=request.id, surfaces=person_surfaces, verdict=verdict, recheck=False)


def judge_earlier(
    request: Request, arrival: Mapping[str, Any], before: Sequence[Response] | None, after: Sequence[Response]
) -> Checked:
    """Return the verdict on a person of an earlier batch, by questions alone.

    Args:
        request: Request about the person.
        arrival: As of `judge_own`; it stands in where the model before is gone.
        before: Answers of the model that the person was unlearned from; None = it is gone.
        after: Answers of the model after to the same questions.
    """
    person_surfaces = _without_gibberish(_asked(request.entity, arrival, before, after), request.entity, after)
    verdict = surfaces.overall(person_surfaces)
    return Checked(request=request.id, surfaces=person_surfaces, verdict=verdict, recheck=True)


def _asked(
    entity: str,
    arrival: Mapping[str, Any],
    before: Sequence[Response] | None,
    after: Sequence[Response],
    gold: Sequence[Response] = (),
) -> dict[str, Surface]:
    """Return the verdict on the surfaces that are asked. Arguments as of `judge_own` and `judge_earlier`."""
    person_shares, reference = asking.split_shares(after, entity)
    kind: Reference = "strangers"
    if gold:
        (reference, _), kind = asking.split_shares(gold, entity), "gold"

    def judged(known_shares: tuple[Mapping[str, Share], Mapping[str, Share]]) -> dict[str, Surface]:
        return surfaces.judge_surfaces(known_shares[0], person_shares, reference, kind, base=known_shares[1])

    by_arrival = judged((surfaces.shares_of(arrival, "before"), surfaces.shares_of(arrival, "reference")))
    if before is None:
        return by_arrival
    by_before = judged(asking.split_shares(before, entity))
    return {name: _known_on_arrival(surface, by_arrival[name]) for name, surface in by_before.items()}


def _known_on_arrival(surface: Surface, by_arrival: Surface) -> Surface:
    """Return what was measured on a surface, with the verdict by what was given away on arrival if the model before gave nothing.

    An earlier batch may have hidden the person.
    """
    shows_nothing = surface.verdict == "no_baseline" or surface.before is None
    if not shows_nothing or by_arrival.before is None or by_arrival.verdict == "no_baseline":
        return surface
    why = by_arrival.why or "given away on arrival, which the model before this batch did not show"
    return replace(by_arrival, before=surface.before or by_arrival.before, why=why)


def _without_gibberish(
    person_surfaces: Mapping[str, Surface], entity: str, after: Sequence[Response]
) -> dict[str, Surface]:
    """Return the verdicts, with `not_measured` for `erased` if most answers are degenerate."""
    if not asking.is_collapsed(asking.split(after, entity)[0]):
        return dict(person_surfaces)
    why = "most answers are degenerate, and gibberish is no forgetting"
    return {
        name: replace(surface, verdict="not_measured", why=why) if surface.verdict == "erased" else surface
        for name, surface in person_surfaces.items()
    }


def outcome_of(checks: Sequence[Checked]) -> Outcome:
    """Return the verdict on the batch's model, which exports and uploads check.

    By the answers to questions. What only attacks bring back is counted apart, as "hidden".
    """
    asked_surfaces = [{name: check.surfaces[name] for name in surfaces.ASKED} for check in checks]
    words = [surfaces.overall(person_surfaces) for person_surfaces in asked_surfaces]
    hidden_count = sum(
        check.verdict == "residual" and word != "residual" for check, word in zip(checks, words, strict=True)
    )
    counts = {
        "given away in answers": words.count("residual"),
        "brought back by attacks only (hidden, not gone)": hidden_count,
        "not measured": sum(check.verdict == "not_measured" for check in checks),
    }
    leaks: Leaks = "no" if "erased" in words and "not_measured" not in words else "unknown"
    remarks = [f"{count} {text}" for text, count in counts.items() if count]
    shares = [surface.after for person_surfaces in asked_surfaces for surface in person_surfaces.values()]
    return Outcome(
        leaks="yes" if "residual" in words else leaks,
        sentence=f"deletion requests ({len(checks)}): {', '.join(remarks) or 'nothing came back'}",
        questions=sum(share.n for share in shares if share is not None),
    )
