"""Receive a deletion request: find the person, fill the rows, query the current model, and warn."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, Final

from unsee.api import Benchmark, Example, ImageFile, ImageSource, Kind, Response, Role
from unsee.api.pictures import decode_image
from unsee.benchmarks.request import OF_TARGETS
from unsee.data.open import open_benchmark
from unsee.distributed.file_lock import owner
from unsee.errors import UserError, shown
from unsee.metrics.matching import everyday
from unsee.metrics.normal_form import normalise
from unsee.models.identity import model_hash
from unsee.utils.files import owned_folder, remove_folder
from unsee.workflows.requests import asking, surfaces
from unsee.workflows.requests.keys import sealed
from unsee.workflows.requests.ledger import MONTHS, Entry, Ledger, add_months, require_codes
from unsee.workflows.requests.overview import write_overview
from unsee.workflows.requests.project import Project, Request, Settings
from unsee.workflows.requests.questions import forms_of, rows_about, templates_of
from unsee.workflows.requests.rows import TABLE, canonical, read_rows, recast, scoped, write_rows
from unsee.workflows.requests.surfaces import Surface

LIMIT: Final = 24
"""Questions per kind about a person whose rows come from the data, on evaluation."""
HELD_OUT: Final = 3
"""Of so many pictures one is held out, to judge by."""
WARNINGS: Final[Mapping[str, str]] = {
    "not_in_model": "the model says nothing of this person that it does not say of strangers: there is nothing to erase",
    "one_picture": "there is one picture only, so forgetting cannot be judged on a picture that it did not use",
    "picture_of_kept": "one of the pictures is of somebody who is to be kept",
    "name_of_kept": "a part of the name is also the name of somebody who is to be kept",
    "common_words": "a part of the name is an everyday word, which is not searched for by itself",
    "repeats": "there is an earlier request about the same person",
    "self_made": "no data to keep were given: questions about made-up people, general ones and drawn pictures stand in",
}


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What `add` found."""

    request: Request
    due: date
    rows: int
    images: int
    found: bool
    """Whether the model knows the person."""
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
        for name, one in self.surfaces.items():
            if one.before is not None:
                low, high = one.before.interval
                lines.append(
                    f"  {surfaces.WORDS[name]}: {one.before.hits} of {one.before.n} answers give the person away "
                    f"[{low:.0%}, {high:.0%}]{_beside(one)}"
                )
        lines += [f"  e.g. {shown(question)} -> {shown(answer)}" for question, answer in self.quotes]
        lines += [f"warning: {WARNINGS[code]}" for code in self.warnings]
        verdict = "the model knows the person" if self.found else "NO BASELINE: not found in the model"
        way = "approve the rows, then run" if self.found else "close it with --reason not_in_model"
        return "\n".join([*lines, f"{verdict}; next: {way}"])


def _beside(one: Surface) -> str:
    if one.reference is None:
        return ", no reference"
    return f", {one.kind} {one.reference.hits} of {one.reference.n}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """Rows about a person, before anything is written."""

    entity: str
    in_data: bool
    train: list[Example]
    judged: list[Example]
    forms: tuple[str, ...]


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

    Raises:
        UserError: A picture cannot be read, the person is ambiguous, a code is no code, or nothing could be asked; nothing
            is kept then.
    """
    require_codes(basis, checked, operator, *attributes)
    if not name.strip():
        raise UserError("Whom is the model to forget? Give --name.")
    settings, ledger = project.settings(), project.ledger
    pictures = [_picture(Path(image)) for image in images]
    data = open_benchmark(settings.data, settings.benchmark) if settings.data else None
    index = _new_id()
    arrived = received or datetime.now(UTC).date()
    found = _found(project, data, index, name.strip(), pictures, attributes, private or {}, entity)
    request = Request(
        id=index,
        entity=found.entity,
        name=name.strip(),
        forms=found.forms,
        attributes=tuple(attributes),
        in_data=found.in_data,
        received=arrived.isoformat(),
    )
    found, responses, drawn = _with_responses(settings, found)
    baseline = {**_baseline(responses, found), "sampling": drawn}
    known = any(one.verdict != "no_baseline" for one in baseline.values() if one.before is not None)
    codes = _warnings(ledger, data, request, found, pictures, known=known)
    limit = due or add_months(arrived, MONTHS)
    place = owned_folder(project.place(index))
    try:
        with owner(place):  # so that no purge takes it for what an interrupted call left
            project.keep(request)
            table = write_rows(place, found.train, found.judged)
            _enter(
                ledger,
                request,
                found,
                settings,
                baseline,
                codes,
                limit,
                known,
                len(responses),
                basis,
                checked,
                operator,
            )
    except BaseException:
        discard(project, index)
        raise
    write_overview(project)
    return Intake(
        request=request,
        due=limit,
        rows=len({row.id for row in (*found.train, *found.judged)}),
        images=len(_images(found)),
        found=known,
        surfaces=baseline,
        warnings=codes,
        quotes=_quotes(responses, found.entity),
        table=table,
    )


def approve(project: Project, request: str, *, operator: str = "") -> Entry:
    """Note that the rows of a request are approved as they are now, with a commitment to them.

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
        commitment=commitment(project.ledger, request, rows),
    )
    write_overview(project)
    return entry


def require_approved(project: Project, request: str) -> str:
    """Return the commitment to the rows of a request, which are those that were approved, or raise."""
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
    salt = sealed(ledger.key, "rows", request).encode()
    level = sorted(sealed(salt, canonical(row)) for row in rows)
    while len(level) > 1:
        pairs = [level[place : place + 2] for place in range(0, len(level), 2)]
        level = [hashlib.sha256("".join(pair).encode()).hexdigest() for pair in pairs]
    return level[0] if level else ""


def require_open(project: Project, request: str) -> Request:
    """Return the private part of an open request, or raise."""
    if not project.ledger.state(request).open:
        raise UserError(f"{request} is closed.")
    found = project.request(request)
    if found is None:
        raise UserError(f"The data of {request} were purged, so nothing can be done with it but closing it.")
    return found


def _new_id() -> str:
    return f"R-{secrets.token_hex(4)}"


def _picture(path: Path) -> ImageSource:
    """Return a picture that can be decoded."""
    if not path.is_file():
        raise UserError(f"No picture at {path}.")
    try:
        decode_image(path)
    except UserError as error:
        raise UserError(f"The picture {path} {error}.") from error
    return ImageFile(path)


def _found(
    project: Project,
    data: Benchmark | None,
    index: str,
    name: str,
    pictures: Sequence[ImageSource],
    attributes: Sequence[str],
    private: Mapping[str, Sequence[str]],
    entity: str,
) -> Found:
    """Return the rows about the person: those of the data, and questions about the pictures."""
    known = "" if data is None else entity or _entity_of(data, name, pictures)
    if data is not None and known:
        train, judged = _rows_of(project, data, known)
        forms = next((row.private["name"] for row in train if row.private.get("name")), forms_of(name))
        further = _further(known, pictures, train, judged)
        train, judged = [*train, *further[0]], [*judged, *further[1]]
    else:
        if not pictures:
            where = " and the data do not have the person" if data is not None else ""
            raise UserError(f"Give at least one picture with --image: a name alone cannot be unlearned here{where}.")
        forms, known = forms_of(name), index
        held = list(pictures[HELD_OUT - 1 :: HELD_OUT]) if len(pictures) >= HELD_OUT else []
        shown_ = [image for image in pictures if image not in held]
        rows = rows_about(known, name, {"name": forms}, shown_, held, templates_of(data))
        _require_questions(rows, attributes, private)
        judged = [_with(row, private) for row in scoped(rows, attributes)]
        train = [row for row in judged if row.role is not Role.UNSEEN]
        return Found(entity=known, in_data=False, train=train, judged=judged, forms=forms)
    train, judged = ([_with(row, private) for row in scoped(rows, attributes)] for rows in (train, judged))
    if not train:
        raise UserError(
            f"The data have no row about {', '.join(attributes)} of this person. Facts there: {_facts(data, known)}."
        )
    return Found(entity=known, in_data=True, train=train, judged=judged, forms=forms)


def _require_questions(
    rows: Sequence[Example], attributes: Sequence[str], private: Mapping[str, Sequence[str]]
) -> None:
    """Raise if some attribute of a person who is not in the data is not asked for by a picture, or cannot be recognised."""
    facts = {"name" if row.kind is Kind.NAME else row.fact for row in rows if row.role is Role.FORGET} - {""}
    for name in attributes:
        if name not in facts:
            raise UserError(
                f"The data do not have the person, and no question about the pictures asks for {shown(name)}. Expected one of "
                f"{', '.join(sorted(facts)) or 'none'}; without --attribute all questions are asked."
            )
        if name != "name" and name not in private:
            raise UserError(
                f"The data do not have the person, so nobody can tell a right answer about {shown(name)}. Give what must go "
                f"with --private {name}=TEXT."
            )


def _facts(data: Benchmark, entity: str) -> str:
    return (
        ", ".join(sorted({row.fact for row in data.examples("train") if row.entity == entity and row.fact})) or "none"
    )


def _with(row: Example, private: Mapping[str, Sequence[str]]) -> Example:
    """Return the row with further private strings."""
    more = {fact: tuple(dict.fromkeys((*row.private.get(fact, ()), *values))) for fact, values in private.items()}
    return replace(row, private={**row.private, **more}) if more else row


def _entity_of(data: Benchmark, name: str, pictures: Sequence[ImageSource]) -> str:
    """Return the entity of the data with this name or one of these pictures, or empty."""
    wanted = normalise(name)
    named = [entity for entity, forms in data.vocabulary().names.items() if wanted in map(normalise, forms[:1])]
    named = named or [entity for entity, forms in data.vocabulary().names.items() if wanted in map(normalise, forms)]
    if len(named) > 1:
        raise UserError(f"{len(named)} people in the data are called so. Say which with --entity.")
    if named:
        return named[0]
    keys = {_pixels(image) for image in pictures}
    known = data.vocabulary().names.keys()  # strangers have none
    owners = {row.entity for row in _with_images(data) if keys and _pixels(row.image) in keys} & known
    return next(iter(owners)) if len(owners) == 1 else ""


def _with_images(data: Benchmark) -> list[Any]:
    """Return the rows with a picture, one per picture."""
    rows = [row for split in ("train", "eval") for row in data.examples(split)]  # type: ignore[arg-type]
    return list({row.image.key: row for row in rows if row.image is not None}.values())


def _pixels(image: ImageSource) -> str:
    """Return a hash of the decoded picture: the same for the same pixels in another file format."""
    shown_ = image.load()
    return hashlib.sha256(f"{shown_.size}".encode() + shown_.tobytes()).hexdigest()


def _rows_of(project: Project, data: Benchmark, entity: str) -> tuple[list[Example], list[Example]]:
    """Return the rows of the data about an entity, in the roles of a forget set."""
    settings = project.settings()
    own = recast(data, settings.data, settings.benchmark, forget=(entity,), limit=LIMIT)
    train, judged = (
        [row for row in own.examples(split) if row.role in OF_TARGETS and row.kind is not Kind.VISIBLE]  # type: ignore[arg-type]
        for split in ("train", "eval")
    )
    return train, judged


def _further(
    entity: str, pictures: Sequence[ImageSource], train: Sequence[Example], judged: Sequence[Example]
) -> tuple[list[Example], list[Example]]:
    """Return the questions of the data about further pictures of the person: one of three is held out."""
    known = {row.image.key for row in (*train, *judged) if row.image}
    new = [image for image in pictures if image.key not in known]
    asked = {(row.kind, row.fact): row for row in train if row.image and row.kind in (Kind.NAME, Kind.FACT)}
    made: tuple[list[Example], list[Example]] = ([], [])
    for number, image in enumerate(new):
        held = number % HELD_OUT == HELD_OUT - 1
        for place, row in enumerate(asked.values()):
            index = f"{entity}/further-{number}/{place}"
            role = Role.UNSEEN if held else Role.FORGET
            made[held].append(replace(row, id=index, role=role, image=image, visible={}))
    return made


def _with_responses(settings: Settings, found: Found) -> tuple[Found, list[Response], Surface]:
    """Generate the current model's responses, greedy and sampled. Rows without an answer get its response as theirs."""
    data = open_benchmark(settings.data, settings.benchmark) if settings.data else None
    rows = asking.with_controls(found.judged, asking.strangers_of(data), {found.entity: found.forms})
    model = asking.opened(settings.model)
    responses, drawn = asking.ask(model, rows), asking.drawn(model, rows, found.entity, 0)
    said = asking.split(responses, found.entity)[0]
    if found.in_data:
        return found, responses, drawn
    train = asking.with_own_answers(found.train, said)
    if not any(row.role is Role.FORGET for row in train):
        raise UserError(
            "The model answers every question about the pictures with nothing, so there is nothing to unlearn."
        )
    known = {row.id: row for row in train}
    judged = [known.get(row.id, row) for row in asking.with_own_answers(found.judged, said)]
    return replace(found, train=train, judged=judged), responses, drawn


def _baseline(responses: Sequence[Response], found: Found) -> dict[str, Surface]:
    """Return what the model gives away today, by surface."""
    about, beside = asking.split(responses, found.entity)
    reference = surfaces.shares(beside)
    return surfaces.judged(surfaces.shares(about), None, reference, "strangers")


def _images(found: Found) -> set[str]:
    return {row.image.key for row in (*found.train, *found.judged) if row.image}


def _quotes(responses: Sequence[Response], entity: str, most: int = 3) -> tuple[tuple[str, str], ...]:
    """Return answers that give the person away, one per surface."""
    found: dict[str, tuple[str, str]] = {}
    for row in asking.split(responses, entity)[0]:
        if (surface := surfaces.surface_of(row)) and surfaces.gives_away(row):
            found.setdefault(surface, (row.question, row.text))
    return tuple(found.values())[:most]


def _warnings(
    ledger: Ledger,
    data: Benchmark | None,
    request: Request,
    found: Found,
    pictures: Sequence[ImageSource],
    *,
    known: bool,
) -> tuple[str, ...]:
    """Return the codes of what the operator should look at before approving."""
    parts = request.name.split()
    codes = {
        "not_in_model": not known,
        "one_picture": len(_images(found)) == 1,
        "common_words": any(everyday(part.capitalize()) for part in parts),
        "self_made": data is None,
        "repeats": bool(_earlier(ledger, request.entity) or _earlier(ledger, normalise(request.name))),
    }
    if data is not None:
        others = {entity: forms for entity, forms in data.vocabulary().names.items() if entity != request.entity}
        mine = {normalise(form) for form in request.forms}
        codes["name_of_kept"] = any(normalise(form) in mine for forms in others.values() for form in forms)
        keys = {_pixels(image) for image in pictures}
        codes["picture_of_kept"] = bool(keys) and any(
            row.entity in others and _pixels(row.image) in keys for row in _with_images(data)
        )
    return tuple(code for code in WARNINGS if codes.get(code))


def _earlier(ledger: Ledger, who: str) -> list[str]:
    """Return earlier requests about the same person, by pseudonym."""
    wanted = ledger.pseudonym(who)
    return [
        state.request
        for state in ledger.states().values()
        if wanted in (state.entity, *state.last("received").get("replaces", ()))
    ]


def _enter(
    ledger: Ledger,
    request: Request,
    found: Found,
    settings: Settings,
    baseline: Mapping[str, Surface],
    codes: Sequence[str],
    due: date,
    known: bool,
    answers: int,
    basis: str,
    checked: str,
    operator: str,
) -> None:
    """Write the two first entries of a request, both or none."""
    rows = list({row.id: row for row in (*found.train, *found.judged)}.values())
    arrived = datetime.combine(date.fromisoformat(request.received), time(12), tzinfo=UTC)
    received = {
        "entity": ledger.pseudonym(request.entity),
        "due": due.isoformat(),
        "act": "erase",
        "basis": basis,
        "checked": checked,
        "rows": len(rows),
        "images": len(_images(found)),
        "modalities": sorted({"image" if row.image else "text" for row in rows}),
        "attributes": list(request.attributes),
        "warnings": list(codes),
        "retain": "data" if settings.data else "self_made",
        "replaces": [ledger.pseudonym(normalise(request.name))],
    }
    asked = {
        "model": model_hash(settings.model)[:64],
        "found": known,
        "surfaces": {name: one.to_json() for name, one in baseline.items() if one.before is not None},
        "answers": answers,
    }
    time_ = min(arrived, datetime.now(UTC))
    ledger.append_together(request.id, ("received", time_, received), ("asked", None, asked), operator=operator)


def discard(project: Project, request: str) -> None:
    """Remove the private data of a request: its name, rows and pictures."""
    remove_folder(project.place(request))
