"""Intake of a deletion request: rows about the person, current answers, and warnings."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

from unsee.api import Benchmark, Example, Response, Role
from unsee.data.open import open_benchmark
from unsee.distributed.file_lock import owner
from unsee.errors import UserError, short_repr
from unsee.metrics.matching import everyday
from unsee.metrics.normal_form import normalise
from unsee.models.identity import model_hash
from unsee.utils.files import owned_folder, remove_folder
from unsee.workflows.requests import asking, surfaces
from unsee.workflows.requests.keys import seal_of
from unsee.workflows.requests.ledger import MONTHS, Entry, Ledger, add_months, require_codes
from unsee.workflows.requests.overview import write_overview
from unsee.workflows.requests.person import PersonRows, distinct_pictures, find_rows
from unsee.workflows.requests.project import SETTINGS, Project, Request, changed_settings
from unsee.workflows.requests.rows import TABLE, canonical, read_rows, write_rows
from unsee.workflows.requests.surfaces import Surface

WARNINGS: Final[Mapping[str, str]] = {
    "not_in_model": "the model says nothing of this person that it does not say of strangers: there is nothing to erase",
    "one_picture": "there is one picture only, so forgetting cannot be judged on a picture that it did not use",
    "no_picture": "no row to train on has a picture, so it can only be unlearned together with another request",
    "pictures_unused": "not all pictures are used: the data's questions about pictures ask for no name and for no fact that must go",
    "picture_of_kept": "one of the pictures is of somebody who is to be kept",
    "name_of_kept": "a part of the name is also the name of somebody who is to be kept",
    "common_words": "a part of the name is an everyday word, which is not searched for by itself",
    "repeats": "there is an earlier request about the same person",
    "self_made": "no data to keep were given: questions about made-up people, general ones and drawn pictures stand in, and other people "
    "whose pictures the model knows are likely lost",
}
_NEXT: Final[Mapping[bool | None, str]] = {
    True: "the model knows the person; next: approve the rows, then run",
    False: "NO BASELINE: not found in the model; next: close it with --reason not_in_model",
    None: "NOT MEASURED: no answer could be judged; next: add it again with --private, or approve the rows, then run",
}
"""Whether the model knows the person -> what to do."""


@dataclass(frozen=True, kw_only=True)
class Intake:
    """Result of `add`."""

    request: Request
    due: date
    rows: int
    images: int
    found: bool | None
    """Whether the model knows the person; None = no answer could be judged."""
    surfaces: Mapping[str, Surface]
    warnings: tuple[str, ...]
    """Keys of `WARNINGS`."""
    quotes: tuple[tuple[str, str], ...]
    """Questions and answers that give the person away. Private: for the operator's screen only."""
    table: Path

    def __str__(self) -> str:
        """Return the summary for the operator."""
        head = f"{self.request.id}: {self.rows} rows, {self.images} picture{'' if self.images == 1 else 's'}, due {self.due.isoformat()}"
        lines = [head, f"rows to approve: {self.table}"]
        for name, surface in self.surfaces.items():
            if surface.before is not None:
                low, high = surface.before.interval
                reference = surface.reference
                beside = "no reference" if reference is None else f"{surface.kind} {reference.hits} of {reference.n}"
                lines.append(
                    f"  {surfaces.WORDS[name]}: {surface.before.hits} of {surface.before.n} answers give the person away "
                    f"[{low:.0%}, {high:.0%}], {beside}"
                )
            elif surface.why != surfaces.UNASKED:
                lines.append(f"  {surfaces.WORDS[name]}: not measured ({surface.why})")
        lines += [f"  e.g. {short_repr(question)} -> {short_repr(answer)}" for question, answer in self.quotes]
        lines += [f"warning: {WARNINGS[code]}" for code in self.warnings]
        return "\n".join([*lines, _NEXT[self.found]])


def add(
    project: Project,
    name: str,
    images: Sequence[Path | str] = (),
    *,
    attributes: Sequence[str] = (),
    private: Mapping[str, Sequence[str]] | None = None,
    entity: str = "",
    due: date | None = None,
    received: date | None = None,
    basis: str = "art17",
    checked: str = "",
    operator: str = "",
    changes: Mapping[str, Any] | None = None,
) -> Intake:
    """Receive a request and return what the current model discloses about the person.

    The rows are written to `requests/ID/data.jsonl` for approval. With data, those of the person are used; else questions
    are made from templates, and what the model says today is their answer.

    Args:
        project: Where requests are kept.
        name: Name of the person (or thing) to be forgotten.
        images: Pictures of the person.
        attributes: Facts that are to go; none = everything.
        private: Further strings that must go, by fact: `{"city": ["Lisbon"]}`.
        entity: Identifier of the person in the data, where the name does not tell.
        due: Date of the reply; default one month after arrival (GDPR Art. 12(3)).
        received: Date of arrival; default today.
        basis: Code of the legal basis.
        checked: Code that says how the requester's identity was verified.
        operator: Code of whoever enters it.
        changes: Settings of the project that differ from the stored ones (`project.changed_settings`), stored with the request.

    Raises:
        UserError: A picture cannot be read, the person is ambiguous or not in the data, a code is no code, a date is impossible,
            or nothing could be asked; nothing is kept then.
    """
    require_codes(basis, checked, operator, *attributes)
    if not (name := name.strip()):
        raise UserError("Whom is the model to forget? Give --name.")
    settings, ledger = project.settings(changes), project.ledger
    ledger.entries()  # an error here comes before the model is asked
    arrival_date = _arrival(received, due)
    pictures = distinct_pictures(images)
    data = open_benchmark(settings.data, settings.benchmark) if settings.data else None
    if data is None and entity:
        raise UserError(f"--entity {entity} is an identifier in the data, and the project has none. Give --data, too.")
    request_id = _new_id()
    person = find_rows(settings, data, request_id, name, pictures, attributes, private or {}, entity)
    request = Request(
        id=request_id,
        entity=person.entity,
        name=name,
        forms=person.forms,
        attributes=tuple(attributes),
        in_data=person.in_data,
        received=arrival_date.isoformat(),
    )
    person, responses, sampling = _with_responses(settings.model, data, person)
    person_shares, reference = asking.split_shares(responses, person.entity)
    baseline = surfaces.judge_surfaces(person_shares, None, reference, "strangers") | {"sampling": sampling}
    is_known = surfaces.known_before(baseline)
    codes = _warnings(ledger, data, request, person, is_known=is_known)
    due_date = due or add_months(arrival_date, MONTHS)
    earlier_settings = project.settings() if changes and (project.folder / SETTINGS).is_file() else None
    if earlier_settings is not None:
        changes = changed_settings(project, changes or {})  # a batch may have ended while the model was asked
    if changes:
        project.write(project.settings(changes))
    ledger.begin()  # before there is any request, beside which its absence is a loss
    folder = owned_folder(project.place(request_id))
    try:
        with owner(folder):  # so that no purge takes it for a leftover of an interrupted call
            project.keep(request)
            table = write_rows(folder, person.train, person.judged)
            received_fields = {
                "due": due_date.isoformat(),
                "basis": basis,
                "checked": checked,
                "warnings": list(codes),
                "retain": "data" if settings.data else "self_made",
            }
            asked_fields = {
                "model": model_hash(settings.model),
                "found": is_known,
                "surfaces": {
                    name: surface.to_json() for name, surface in baseline.items() if surface.before is not None
                },
                "answers": len(responses),
            }
            _enter(ledger, request, person, received_fields, asked_fields, operator)
    except BaseException:
        remove_folder(folder)
        if earlier_settings is not None:
            project.write(earlier_settings)
        raise
    write_overview(project)
    return Intake(
        request=request,
        due=due_date,
        rows=len(person.rows),
        images=len(person.images),
        found=is_known,
        surfaces=baseline,
        warnings=codes,
        quotes=_quotes(responses, person.entity),
        table=table,
    )


def approve(project: Project, request: str, *, operator: str = "") -> Entry:
    """Record the approval of a request's rows in the ledger, with a commitment to them.

    Raises:
        UserError: The request is closed or purged, or its table is damaged.
    """
    require_open(project, request)
    rows = read_rows(project.place(request))
    entry = project.ledger.append(
        "approved",
        request,
        operator=operator,
        rows=len(rows),
        images=len({row.image.key for row in rows if row.image}),
        modalities=_modalities(rows),
        commitment=commitment(project.ledger, request, rows),
    )
    write_overview(project)
    return entry


def require_approved(project: Project, request: str) -> str:
    """Return the commitment to a request's rows, or raise if they are not as approved."""
    root = commitment(project.ledger, request, read_rows(project.place(request)))
    if root != project.ledger.state(request).last("approved").get("commitment"):
        raise UserError(
            f"The rows of {request} are not those that were approved: they were edited since, or approved with an earlier "
            f"unsee. Look at {project.place(request) / TABLE}, then `unsee request approve {request}`."
        )
    return root


def commitment(ledger: Ledger, request: str, rows: Iterable[Example]) -> str:
    """Return a keyed Merkle root over the rows.

    Keyed per request, since a bare hash of a short name can be guessed. Whoever holds key and rows can check it, also for a
    single row.
    """
    salt = seal_of(ledger.key, "rows", request).encode()
    level = sorted(seal_of(salt, canonical(row)) for row in rows)
    while len(level) > 1:
        pairs = [level[start : start + 2] for start in range(0, len(level), 2)]
        level = [hashlib.sha256("".join(pair).encode()).hexdigest() for pair in pairs]
    return level[0] if level else ""


def require_open(project: Project, request: str) -> None:
    """Raise if a request is closed, or its data were purged."""
    if not project.ledger.state(request).open:
        raise UserError(f"{request} is closed.")
    if project.request(request) is None:
        raise UserError(f"The data of {request} were purged, so nothing can be done with it but closing it.")


def _modalities(rows: Iterable[Example]) -> list[str]:
    """Return whether rows have pictures, are text alone, or both occur."""
    return sorted({"image" if row.image else "text" for row in rows})


def _new_id() -> str:
    return f"R-{secrets.token_hex(4)}"


def _arrival(received: date | None, due: date | None) -> date:
    """Return the day of arrival, or raise if it is to come, or after the day of the reply."""
    today = datetime.now(UTC).date()
    arrival_date = received or today
    if arrival_date > today + timedelta(days=1):  # a time zone may be a day ahead
        raise UserError(f"--received is in the future: {arrival_date.isoformat()}; today is {today.isoformat()}.")
    if due is not None and due < arrival_date:
        raise UserError(
            f"--due {due.isoformat()} is before the arrival, {arrival_date.isoformat()}. Give the right --due, or the arrival "
            "with --received."
        )
    return arrival_date


def _with_responses(
    model_path: str, data: Benchmark | None, person: PersonRows
) -> tuple[PersonRows, list[Response], Surface]:
    """Generate the current model's responses, greedy and sampled.

    If the person is not in the data, the greedy responses become the answers of the rows.
    """
    rows = asking.with_controls(person.judged, asking.strangers_of(data), {person.entity: person.forms})
    model = asking.open_vlm(model_path)
    short_responses, sampling = asking.ask(model, rows), asking.sampled_surface(model, rows, person.entity)
    responses = asking.longer(model, rows, short_responses)
    person_responses = asking.split(short_responses, person.entity)[0]  # the rows learn answers of the usual length
    if person.in_data:
        return person, responses, sampling
    train = asking.with_own_answers(person.train, person_responses)
    if not any(row.role is Role.FORGET for row in train):
        raise UserError(
            "The model answers every question about the pictures with nothing, so there is nothing to unlearn."
        )
    judged = asking.with_own_answers(person.judged, person_responses)
    return replace(person, train=train, judged=judged), responses, sampling


def _quotes(responses: Sequence[Response], entity: str) -> tuple[tuple[str, str], ...]:
    """Return up to three answers that give the person away, of different surfaces."""
    quotes: dict[str, tuple[str, str]] = {}
    for response in asking.split(responses, entity)[0]:
        if (surface := surfaces.surface_of(response)) and surfaces.gives_away(response):
            quotes.setdefault(surface, (response.question, response.text))
    return tuple(quotes.values())[:3]


def _warnings(
    ledger: Ledger, data: Benchmark | None, request: Request, person: PersonRows, *, is_known: bool | None
) -> tuple[str, ...]:
    """Return the codes of the warnings to check before approval."""
    earlier_pseudonyms = {
        pseudonym
        for state in ledger.states().values()
        for pseudonym in (state.entity, *state.last("received").get("replaces", ()))
    }
    codes = {
        "not_in_model": is_known is False,
        "one_picture": len(person.images) == 1,
        "common_words": any(everyday(part.capitalize()) for part in request.name.split()),
        "self_made": data is None,
        "repeats": not earlier_pseudonyms.isdisjoint(map(ledger.pseudonym, (request.entity, normalise(request.name)))),
        "no_picture": all(row.role is not Role.FORGET for row in person.train),
        "pictures_unused": person.in_data and not person.pictures <= person.images,
    }
    if data is not None:
        other_entities = {
            entity: forms for entity, forms in data.vocabulary().names.items() if entity != request.entity
        }
        request_forms = {normalise(form) for form in request.forms}
        codes["name_of_kept"] = any(
            normalise(form) in request_forms for forms in other_entities.values() for form in forms
        )
        codes["picture_of_kept"] = not person.owners.isdisjoint(other_entities)
    return tuple(code for code in WARNINGS if codes.get(code))


def _enter(
    ledger: Ledger,
    request: Request,
    person: PersonRows,
    received_fields: Mapping[str, Any],
    asked_fields: Mapping[str, Any],
    operator: str,
) -> None:
    """Write the first two ledger entries of a request, both or none."""
    arrival = datetime.combine(date.fromisoformat(request.received), time(12), tzinfo=UTC)
    entry_time = min(arrival, datetime.now(UTC))
    person_fields = {
        "entity": ledger.pseudonym(request.entity),
        "act": "erase",
        "rows": len(person.rows),
        "images": len(person.images),
        "modalities": _modalities(person.rows),
        "attributes": list(request.attributes),
        "replaces": [ledger.pseudonym(normalise(request.name))],
    }
    ledger.append_together(
        request.id,
        ("received", entry_time, {**person_fields, **received_fields}),
        ("asked", None, asked_fields),
        operator=operator,
    )
