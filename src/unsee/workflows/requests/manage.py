"""Management of requests: list, extend, close, purge, and checks of the ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Final

from unsee.errors import UserError
from unsee.models.identity import model_hash
from unsee.utils.files import atomic_write_text, remove_folder
from unsee.utils.parsing import read_object
from unsee.workflows.private_files import DEFAULT
from unsee.workflows.purge import Purged, is_done
from unsee.workflows.purge import purge as purge_folders
from unsee.workflows.requests.ledger import (
    DECISIONS,
    EXTENSIONS,
    FURTHER,
    GROUNDS,
    MONTHS,
    REASONS,
    Entry,
    Ledger,
    State,
    add_months,
    require_codes,
)
from unsee.workflows.requests.overview import write_overview
from unsee.workflows.requests.project import BATCH, ID, SETTINGS, Project
from unsee.workflows.requests.receipt import SUFFIX, entries_of, file_hash, is_present
from unsee.workflows.requests.rows import read_rows
from unsee.workflows.requests.suppression import suppress

SOON: Final = 7
"""Days before the due date from which a request is marked."""
_LONGEST: Final = 10_000
"""Most characters of the first line of an export, which has the id of a key."""
_HEADS: Final = ("request", "received", "due", "status", "verdict", "data")


def table(project: Project, today: date) -> list[tuple[str, ...]]:
    """Return the requests as table rows with a heading, open ones first, by due date."""
    states = sorted(project.ledger.states().values(), key=lambda state: (not state.open, state.due))
    return [_HEADS, *(_row(project, state, today) for state in states)]


def _row(project: Project, state: State, today: date) -> tuple[str, ...]:
    days_left = (state.due - today).days
    remark = f" ({-days_left} days LATE)" if days_left < 0 else f" (in {days_left} days)" if days_left <= SOON else ""
    return (
        state.request,
        state.received.isoformat(),
        state.due.isoformat() + (remark if state.open else ""),
        _status(state),
        state.verdict.replace("_", " "),
        "here" if project.request(state.request) else "purged",
    )


def _status(state: State) -> str:
    """Return the status, with the decision of a closed request."""
    if state.status == "asked" and state.last("asked").get("found") is False:
        return "not in the model"
    return f"closed: {state.last('closed').get('decision')}" if not state.open else state.status


def column_text(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def story(state: State) -> str:
    """Return the entries of a request, a line each."""
    return "\n".join(f"{entry.time}  {entry.kind}  {_brief(entry)}".rstrip() for entry in state.entries)


def _brief(entry: Entry) -> str:
    """Return the short fields of an entry."""
    fields = {name: value for name, value in entry.content.items() if not isinstance(value, dict)}
    return ", ".join(f"{name} {_text(value)}" for name, value in fields.items() if value not in ("", [], None))


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    text = str(value)
    return f"{text[:16]}..." if len(text) > 40 else text


def extend(project: Project, request: str, reason: str, *, today: date, operator: str = "") -> Entry:
    """Extend the deadline by two months, announced within the first (GDPR Art. 12(3)).

    To three months after the arrival, or two after a due date that was set by hand.

    Args:
        project: Project with the ledger.
        request: Identifier of the request, which must be open.
        reason: Code of the reason, one of `EXTENSIONS`.
        today: Day of the decision, not after the day that the reply is due.
        operator: Code of who decided. Empty: not noted.

    Raises:
        UserError: The first month is over, it was put off before, or the reason is no code.
    """
    state = project.ledger.state(request)
    _require_reason(reason, EXTENSIONS)
    if not state.open:
        raise UserError(f"{request} is closed.")
    if state.last("extended"):
        raise UserError(f"{request} was put off before, to {state.due.isoformat()}; it can be put off once.")
    if today > state.due:
        raise UserError(f"{request} was due on {state.due.isoformat()}: it could be put off until then.")
    # from the arrival, since a due date at the end of a short month lost days; one set by hand stays the start
    is_regular = state.due == add_months(state.received, MONTHS)
    due = add_months(state.received, MONTHS + FURTHER) if is_regular else add_months(state.due, FURTHER)
    entry = project.ledger.append("extended", request, operator=operator, due=due.isoformat(), reason=reason)
    write_overview(project)
    return entry


def close(project: Project, request: str, decision: str, reason: str, *, operator: str = "") -> Entry:
    """End a request with a decision.

    Args:
        project: Project with the ledger.
        request: Identifier of the request, which must be open.
        decision: One of `DECISIONS`; `erased` and `no_baseline` need a measurement that says so.
        reason: Code of the reason, one of `REASONS`; one of `GROUNDS` where the request is refused.
        operator: Code of who decided. Empty: not noted.

    Raises:
        UserError: Decision or reason are unknown, or the decision says more than was measured.
    """
    state = project.ledger.state(request)
    if decision not in DECISIONS:
        raise UserError(f"The decision is one of {', '.join(DECISIONS)}, got {decision!r}.")
    _require_reason(reason, GROUNDS if decision == "refused" else REASONS)
    if not state.open:
        raise UserError(f"{request} is closed: {state.last('closed').get('decision')}.")
    if decision == "erased" and state.verdict != "erased":
        measured = state.verdict.replace("_", " ") or "nothing yet"
        raise UserError(f"{request} cannot be closed as erased: what was measured is {measured}.")
    if decision == "no_baseline" and not _was_unknown(state):
        raise UserError(
            f"{request} cannot be closed as not in the model: it gave the person away when asked, or could not be measured."
        )
    entry = project.ledger.append("closed", request, operator=operator, decision=decision, reason=reason)
    _suppress(project, project.ledger.state(request), operator)
    write_overview(project)
    return entry


def purge(project: Project, requests: Sequence[str] = (), *, apply: bool = False, operator: str = "") -> Purged:
    """Remove the private data of closed requests and of batches without other requests.

    Receipts, ledger, figures and weights stay. Fingerprints for `unsee check --suppress` are noted first.

    Args:
        project: Where the requests are kept.
        requests: Ids; none = all that are closed. What an interrupted `add` left is taken by its id only.
        apply: Remove. Otherwise it is only listed.
        operator: Code of whoever removes. Empty: not noted.

    Raises:
        UserError: A request is open: its data are still needed. Or the operator is no code.
    """
    require_codes(operator)
    states, orphan_ids = project.ledger.states(), _without_entry(project)
    chosen_ids = list(dict.fromkeys(requests)) or [request_id for request_id, state in states.items() if not state.open]
    for request_id in chosen_ids:
        if request_id not in orphan_ids and project.ledger.state(request_id).open:
            raise UserError(
                f"{request_id} is {states[request_id].status}. Close it first: unsee request close {request_id}."
            )
    present_ids = [request_id for request_id in chosen_ids if project.place(request_id).is_dir()]
    folders = [*map(project.place, present_ids), *_batches_of(project, set(chosen_ids))]
    if not folders:
        raise UserError("Nothing to purge: no closed request has data here.")
    noted_ids = [request_id for request_id in present_ids if request_id not in orphan_ids]
    if apply:
        for request_id in noted_ids:
            _suppress(project, states[request_id], operator)
    purged = _with_own_removed(
        purge_folders(folders, apply=apply), [project.place(request_id).resolve() for request_id in present_ids]
    )
    if apply:
        for request_id in present_ids:
            if request_id in noted_ids:
                record = purged.within(project.place(request_id).resolve()).record()
                facts = {name: record[name] for name in ("levels", "files", "bytes")}
                project.ledger.append("purged", request_id, operator=operator, **facts)
            remove_folder(project.place(request_id))
        write_overview(project)
    return purged


def _without_entry(project: Project) -> list[str]:
    """Return the requests with a folder but no entry: their `add` was killed."""
    request_ids = [folder.name for folder in sorted((project.folder / "requests").glob("R-*")) if folder.is_dir()]
    ledger_ids = {entry.request for entry in project.ledger.entries()}
    return [request_id for request_id in request_ids if ID.fullmatch(request_id) and request_id not in ledger_ids]


def _with_own_removed(purged: Purged, folders: Sequence[Path]) -> Purged:
    """Return the purge with all files of these folders listed as removed."""
    own_items = [item for item in purged.kept if any(item.path.is_relative_to(folder) for folder in folders)]
    extra_removed = [
        replace(item, level="requests", why="in the folder of the request", stays=False) for item in own_items
    ]
    kept_items = tuple(item for item in purged.kept if item not in own_items)
    return replace(purged, removed=(*purged.removed, *extra_removed), kept=kept_items)


def _batches_of(project: Project, purged_ids: set[str]) -> list[Path]:
    """Return the unpurged ended batches whose requests are all given or purged before."""
    purged_ids |= {request_id for request_id, state in project.ledger.states().items() if state.last("purged")}
    files = sorted((project.folder / "batches").glob(f"*/{BATCH}"))
    ended_batches = [(file.parent, facts) for file in files if "ended" in (facts := read_object(file))]
    return [
        folder
        for folder, facts in ended_batches
        if set(facts["requests"]) <= purged_ids and not is_done(folder, DEFAULT)
    ]


def _suppress(project: Project, state: State, operator: str) -> None:
    """Record the fingerprints of an unlearned person, to search new training data for them."""
    request = project.request(state.request)
    if request is None or state.last("suppressed") or not state.last("unlearned"):
        return
    if state.last("closed").get("decision") in ("refused", "withdrawn"):  # nothing forbids teaching them
        return
    rows = read_rows(project.place(request.id))
    pictures = {row.image.key: row.image for row in rows if row.image is not None}
    forms = (form for row in rows for forms in row.private.values() for form in forms)
    facts = forms if request.attributes else ()
    names = [request.name, *request.forms]
    suppress(project.ledger, request.id, names, pictures.values(), facts, operator=operator)


def decision_of(state: State) -> str:
    """Return the decision that the measurements support, or raise if there are none.

    The verdict of a batch takes precedence over the answers at arrival.
    """
    if _was_unknown(state):
        return "no_baseline"
    if state.verdict in ("erased", "residual"):
        return state.verdict
    measured = "could not be measured" if state.verdict else "was not judged yet"
    raise UserError(f"{state.request} {measured}: run it first, or give --decision refused or withdrawn.")


def _was_unknown(state: State) -> bool:
    """Tell whether the model gave nothing away: by the batch's verdict, else at arrival."""
    return state.verdict == "no_baseline" if state.verdict else state.last("asked").get("found") is False


def _require_reason(reason: str, codes: Sequence[str]) -> None:
    if reason not in codes:
        raise UserError(f"The reason is one of {', '.join(codes)} (a sentence could name the person). Got {reason!r}.")


def faults(project: Project) -> list[str]:
    """Return the problems of a project: edits, and receipts or data without ledger entry."""
    if fault := project.ledger.fault():
        return [fault]
    problems = project.ledger.verify()
    entries = project.ledger.entries()
    for file in sorted(project.receipts.glob(f"*{SUFFIX}")):
        problems += _faults_of_receipt(file, entries)
    for entry in entries:
        name = str(entry.content.get("receipt"))
        if entry.kind == "receipt" and not (project.receipts / f"{name}{SUFFIX}").is_file():
            problems.append(f"the receipt {name}{SUFFIX} is missing, which entry {entry.number} of the ledger notes")
    for name in _without_entry(project):
        problems.append(
            f"{name} has data but no entry: its `add` was interrupted; remove them with `unsee request purge {name} --yes`, "
            "and add the request again"
        )
    return problems


def _faults_of_receipt(file: Path, entries: Sequence[Entry]) -> list[str]:
    """Return the problems of a receipt: its file, its ledger entry, the entry before it."""
    receipt_entries, problems = entries_of(file.name.removesuffix(SUFFIX), entries), []
    if not receipt_entries:
        problems.append(
            f"{file.name} is not noted in the ledger: its entry was removed, or its batch was interrupted, which "
            "`unsee request run` finishes"
        )
    elif file_hash(file) != receipt_entries[-1].content.get("sha256"):
        problems.append(f"{file.name} is not what was issued: the ledger notes another content")
    try:
        ledger_position = read_object(file).get("ledger")
    except UserError as error:
        return [*problems, str(error)]
    ledger_position = ledger_position if isinstance(ledger_position, dict) else {}
    if not is_present(ledger_position, entries):
        problems.append(
            f"{file.name} was written after entry {ledger_position.get('entry')}, which is not in the ledger"
        )
    return problems


def export(project: Project, file: Path) -> int:
    """Write the ledger as JSON lines and return their number.

    Raises:
        UserError: The file is there, and is no earlier export: it would be lost.
    """
    if file.exists() and not _is_export(file):
        raise UserError(f"{file} is there, and is no export of a ledger. Give another --jsonl FILE.")
    lines = list(project.ledger.export())
    atomic_write_text(file, "".join(f"{line}\n" for line in lines))
    return len(lines)


def _is_export(file: Path) -> bool:
    """Tell whether a file begins as `export` writes it."""
    try:
        with file.open(encoding="utf-8") as stream:
            entry = json.loads(stream.readline(_LONGEST) or "{}")
    except (OSError, ValueError):
        return False
    return isinstance(entry, dict) and {"number", "kind", "seal"} <= entry.keys()


def require_ledger(model: Path | str) -> None:
    """Raise if a model is of a project whose ledger could not take a note.

    Called before the model goes out: `note_child` comes afterwards, when nothing can be taken back.

    Raises:
        UserError: The ledger is missing or damaged, or its key is not here.
    """
    if ledger := _ledger_of(model):
        ledger.entries()


def note_child(model: Path | str, form: str, target: str) -> None:
    """Record in the ledger that a project's model was exported, merged or pushed.

    Holders of a copy have to be informed of later requests (GDPR Art. 17(2), 19). The target is stored as a hash. Does
    nothing for a model outside a project.
    """
    if ledger := _ledger_of(model):
        digest = hashlib.sha256(target.encode()).hexdigest()[:32]
        ledger.append("child", form=form, model=model_hash(str(model)), target=digest)


def _ledger_of(model: Path | str) -> Ledger | None:
    """Return the ledger of the project that a model lies in, also where its file is missing, or None."""
    ledgers = (Ledger(folder) for folder in (Path(model).resolve(), *Path(model).resolve().parents))
    return next((ledger for ledger in ledgers if ledger.path.is_file() or _is_lost(ledger)), None)


def _is_lost(ledger: Ledger) -> bool:
    """Tell whether a project is without its ledger. Others' folders may have a project.yaml, too."""
    folder = ledger.path.parent
    is_ours = any(folder.glob("requests/R-*")) or any(folder.glob(f"batches/B-*/{BATCH}"))
    return (folder / SETTINGS).is_file() and is_ours and bool(ledger.fault())
