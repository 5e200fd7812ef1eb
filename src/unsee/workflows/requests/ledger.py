"""Ledger of deletion requests: append-only, sealed entry by entry, without private data.

One SQLite file (write-ahead log, so that many processes may use it). Every entry is sealed by an HMAC over its content and
the seal before it, with a key outside the project: a changed, removed, inserted or moved entry breaks the chain, and cannot
be sealed anew without the key. Removed entries at the *end* show only beside a receipt, which names the entry it was
written after; `verify` compares both.

What it may hold is listed per kind of entry in `FIELDS`. Texts are codes, hashes and ids; a free text could name somebody.
"""

from __future__ import annotations

import calendar
import json
import re
import sqlite3
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from unsee.errors import UserError, short_repr
from unsee.utils.grouping import by_key
from unsee.workflows.requests.keys import key_id, ledger_key, require_key, seal_of

FILE: Final = "ledger.sqlite"
SCHEMA: Final = 1
"""Version of the tables, kept in the file as `user_version`."""
MONTHS, FURTHER = 1, 2
"""Months until a reply is due, and those that an extension adds (GDPR Art. 12(3))."""

FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "opened": frozenset({"key"}),
    "received": frozenset(
        "entity due act basis checked rows images modalities attributes warnings retain replaces".split()
    ),
    "asked": frozenset({"model", "found", "surfaces", "answers"}),
    "approved": frozenset({"rows", "images", "modalities", "commitment"}),
    "extended": frozenset({"due", "reason"}),
    "unlearned": frozenset({"batch", "before", "after", "method", "settings", "rows", "seconds", "steps"}),
    "verdict": frozenset({"batch", "model", "verdict", "surfaces", "recheck"}),
    "receipt": frozenset({"receipt", "sha256", "signed"}),
    "closed": frozenset({"decision", "reason"}),
    "purged": frozenset({"levels", "files", "bytes"}),
    "suppressed": frozenset({"fingerprints"}),
    "child": frozenset({"form", "model", "target"}),
    "model": frozenset({"model"}),
}
"""Kind of entry -> what it may hold."""
GROUNDS: Final = (
    *"duplicate person_not_identified requester_not_verified legal_obligation public_interest".split(),
    *"freedom_of_expression legal_claims manifestly_unfounded other".split(),
)
"""Grounds of a refusal, which the requester is told (GDPR Art. 11(2), 12(2), 12(4) to 12(6), 17(3))."""
EXTENSIONS: Final = ("complex", "many_requests")
"""Reasons to put a reply off (GDPR Art. 12(3))."""
REASONS: Final = ("done", "not_in_model", "withdrawn", *GROUNDS)
"""Reasons of a decision. Codes only: a sentence could name the person."""
DECISIONS: Final = ("erased", "residual", "no_baseline", "refused", "withdrawn")
_STATUS: Final = {kind: kind for kind in "received asked approved unlearned closed".split()} | {"verdict": "judged"}
_TABLES: Final = (
    """CREATE TABLE entries (
    number INTEGER PRIMARY KEY, time TEXT NOT NULL, request TEXT NOT NULL, kind TEXT NOT NULL,
    operator TEXT NOT NULL, content TEXT NOT NULL, seal TEXT NOT NULL
)""",
    "CREATE TRIGGER unchanged BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "CREATE TRIGGER kept BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
)
_WAIT: Final = 30.0
"""Seconds to wait for another process that writes."""
_CODE: Final = re.compile(r"[\w.:@/+=,-]{0,200}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger."""

    number: int
    time: str
    """UTC, ISO 8601."""
    request: str
    """Id of the request; empty for entries about the project."""
    kind: str
    operator: str
    content: Mapping[str, Any]
    seal: str

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        return {**vars(self), "content": dict(self.content)}


@dataclass(frozen=True, kw_only=True)
class State:
    """State of a request, from its entries."""

    request: str
    received: date
    due: date
    status: str
    entity: str
    """Pseudonym."""
    entries: tuple[Entry, ...] = field(repr=False)

    def last(self, kind: str) -> Mapping[str, Any]:
        """Return the content of the last entry of a kind, or nothing."""
        return next((entry.content for entry in reversed(self.entries) if entry.kind == kind), {})

    @property
    def verdict(self) -> str:
        """Verdict of the request's batch, or `residual` of a later check. Empty before any.

        A later check asks questions but runs no attacks, so it counts only if it finds something. One that could not
        measure changes nothing.
        """
        own_verdict, later_verdict = "", ""
        for check in (entry.content for entry in self.entries if entry.kind == "verdict"):
            word = str(check.get("verdict", "not_measured"))  # none where the entry was edited
            if not check.get("recheck"):
                own_verdict, later_verdict = word, ""
            elif word != "not_measured" or not later_verdict:
                later_verdict = word
        return later_verdict if later_verdict == "residual" or not own_verdict else own_verdict

    @property
    def open(self) -> bool:
        """Tell whether the request still awaits a reply."""
        return self.status != "closed"


class Ledger:
    """The ledger of a project. It is created by the first entry."""

    def __init__(self, path: Path | str, *, key: bytes | None = None) -> None:
        """Set the path: the ledger's file or its project folder. `key` replaces the user's own."""
        path = Path(path)
        self.path = path if path.suffix == ".sqlite" else path / FILE
        self._key = key

    @property
    def key(self) -> bytes:
        """Key of pseudonyms and seals."""
        self._key = ledger_key() if self._key is None else self._key
        return self._key

    def pseudonym(self, entity: str) -> str:
        """Return the pseudonym of an entity in this ledger."""
        return seal_of(self.key, "entity", entity)[:16]

    def append(
        self,
        kind: str,
        request: str = "",
        *,
        operator: str = "",
        **content: Any,
    ) -> Entry:
        """Add an entry and return it.

        Args:
            kind: Kind of the entry, such as "opened" or "closed". Each allows fields of its own.
            request: Request that it is about. Empty: of the whole ledger.
            operator: Code of who did it. Empty: not noted.
            **content: Fields of the kind. Texts must be codes, so that no name gets in.

        Raises:
            UserError: The kind or a field is unknown, a text is no code, or the file is of another key or a newer unsee.
        """
        return self.append_together(request, (kind, None, content), operator=operator)[0]

    def append_together(
        self, request: str, *drafts: tuple[str, datetime | None, Mapping[str, Any]], operator: str = ""
    ) -> list[Entry]:
        """Add several entries about a request, all or none, and return them.

        Args:
            request: Request that they are about. Empty: of the whole ledger.
            *drafts: Kind, time (with time zone; None: now) and fields of each, as `append` takes them.
            operator: Code of who did it. Empty: not noted.

        Raises:
            UserError: As `append` does; no entry is added then.
        """
        require_codes(operator)
        for kind, _, content in drafts:
            _require_silent(kind, content)
        with self._writing() as connection:
            return [
                self._insert(connection, _utc(time), request, kind, operator, content) for kind, time, content in drafts
            ]

    def begin(self) -> None:
        """Create the ledger, unless it is there.

        Raises:
            UserError: It is missing, and there are requests whose entries it held.
        """
        with self._writing():
            pass

    def fault(self) -> str:
        """Return that the ledger is missing beside what it must have entries of, else nothing."""
        patterns = {"requests": "R-*", "batches": "*", "receipts": "*"}
        parts = [name for name, pattern in patterns.items() if any((self.path.parent / name).glob(pattern))]
        if self.path.is_file() or not parts:
            return ""
        return f"the ledger is missing, and there are {', '.join(parts)}: restore {self.path} from a backup"

    def entries(self, request: str | None = None) -> tuple[Entry, ...]:
        """Return all entries, or those of one request, in order.

        Raises:
            UserError: The ledger is missing or damaged, or of another key or a newer unsee.
        """
        self._require_there()
        if not self.path.is_file():
            return ()
        with self._connection() as connection:
            if not _has_entries(connection):
                raise UserError(
                    f"{self.path} cannot be used as a ledger: it has no entries. If a first `unsee request add` was "
                    "interrupted, remove the file; else restore it from a backup."
                )
            rows = connection.execute(
                "SELECT number, time, request, kind, operator, content, seal FROM entries ORDER BY number"
            ).fetchall()
        entries = tuple(_entry(row) for row in rows)
        return entries if request is None else tuple(entry for entry in entries if entry.request == request)

    def states(self) -> dict[str, State]:
        """Return the state of every request, in the order of their arrival."""
        entries = by_key((entry.request, entry) for entry in self.entries() if entry.request)
        return {request: _state(request, request_entries) for request, request_entries in entries.items()}

    def state(self, request: str) -> State:
        """Return the state of one request."""
        states = self.states()
        if request not in states:
            known_ids = ", ".join(states) or "none"
            raise UserError(f"No request {short_repr(request)} in {self.path}. Requests there: {known_ids}.")
        return states[request]

    def verify(self) -> list[str]:
        """Return the faults of the chain of seals, empty if no entry was changed."""
        faults, seal, expected_number = [], "", 1
        for entry in self.entries():
            if entry.number != expected_number:
                faults.append(f"entry {expected_number} is missing: the next one is {entry.number}")
            if entry.seal != self._seal(seal, entry):
                faults.append(f"entry {entry.number} ({entry.kind}) is not what was sealed")
            seal, expected_number = entry.seal, entry.number + 1
        return faults

    def head(self) -> tuple[int, str]:
        """Return number and seal of the last entry."""
        entries = self.entries()
        return (entries[-1].number, entries[-1].seal) if entries else (0, "")

    def fingerprints(self) -> dict[str, Mapping[str, Any]]:
        """Return the fingerprints of forgotten people by request (see `suppression`)."""
        return {
            entry.request: entry.content.get("fingerprints", {"damaged": True})
            for entry in self.entries()
            if entry.kind == "suppressed"
        }

    def export(self) -> Iterator[str]:
        """Yield one JSON line per entry."""
        for entry in self.entries():
            yield json.dumps(entry.to_json(), sort_keys=True, ensure_ascii=False)

    def _insert(
        self,
        connection: sqlite3.Connection,
        time: str,
        request: str,
        kind: str,
        operator: str,
        content: Mapping[str, Any],
    ) -> Entry:
        last_row = connection.execute("SELECT number, seal FROM entries ORDER BY number DESC LIMIT 1").fetchone()
        number, seal = last_row or (0, "")
        entry = Entry(
            number=number + 1, time=time, request=request, kind=kind, operator=operator, content=content, seal=""
        )
        entry = replace(entry, seal=self._seal(seal, entry))
        connection.execute(
            "INSERT INTO entries VALUES (:number, :time, :request, :kind, :operator, :content, :seal)",
            {**vars(entry), "content": canonical_text(content)},
        )
        return entry

    def _seal(self, previous_seal: str, entry: Entry) -> str:
        parts = (
            str(entry.number),
            entry.time,
            entry.request,
            entry.kind,
            entry.operator,
            canonical_text(entry.content),
        )
        return seal_of(self.key, "entry", previous_seal, *parts)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection inside a transaction that no other process can enter."""
        self._require_there()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                if not _has_entries(connection):
                    self._create(connection)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite itself ends it where the disk is full
                    connection.execute("ROLLBACK")
                raise

    def _require_there(self) -> None:
        """Raise if the ledger is missing beside what it must have entries of: a new one would begin a second chain."""
        if fault := self.fault():
            raise UserError(f"{fault[0].upper()}{fault[1:]}.")

    def _create(self, connection: sqlite3.Connection) -> None:
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        self._insert(connection, _utc(None), "", "opened", "", {"key": key_id(self.key)})

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection to a ledger of this version and key."""
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)) as connection:
                _log_ahead(connection)
                connection.execute("PRAGMA synchronous = FULL")
                self._require_known(connection)
                yield connection
        except sqlite3.Error as error:
            raise UserError(f"{self.path} cannot be used as a ledger: {error}.") from error

    def _require_known(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise UserError(f"{self.path} was written by a newer unsee (version {version} of the ledger). Upgrade.")
        if not version:
            return
        first_row = connection.execute("SELECT content FROM entries WHERE number = 1").fetchone()
        expected_id = _content(first_row[0]).get("key") if first_row else None
        if expected_id is not None:  # else the entry was edited, as `verify` says
            self._key = require_key(str(expected_id), self.path, self._key)


def _has_entries(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone() is not None


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Switch the database to write-ahead logging, retrying while another process does.

    SQLite reports a conflict of two such switches at once, instead of waiting as long as for any other lock.
    """
    deadline = clock.monotonic() + _WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or clock.monotonic() > deadline:
                raise
            clock.sleep(0.01)
        else:
            return


def add_months(day: date, months: int) -> date:
    """Return the same day of a later month, or its last day.

    >>> add_months(date(2027, 1, 31), 1)
    datetime.date(2027, 2, 28)
    """
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def canonical_text(content: Mapping[str, Any]) -> str:
    """Return JSON values in the one form that is sealed and signed: sorted keys, no blanks."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _entry(row: Sequence[Any]) -> Entry:
    number, time, request, kind, operator, content_text, seal = row
    return Entry(
        number=number,
        time=time,
        request=request,
        kind=kind,
        operator=operator,
        content=_content(content_text),
        seal=seal,
    )


def _content(text: str) -> dict[str, Any]:
    """Return the content of an entry, whatever it was edited to."""
    try:
        content = json.loads(text)
    except (TypeError, ValueError):
        content = None
    return content if isinstance(content, dict) else {"damaged": str(text)}


def _state(request: str, entries: Sequence[Entry]) -> State:
    first_entry = entries[0]
    due = next((entry.content["due"] for entry in reversed(entries) if "due" in entry.content), first_entry.time[:10])
    return State(
        request=request,
        received=_day(request, first_entry.time[:10]),
        due=_day(request, str(due)),
        status=_status(entries),
        entity=str(first_entry.content.get("entity", "")),
        entries=tuple(entries),
    )


def _day(request: str, text: str) -> date:
    """Parse the date of an entry, or raise if the entry was edited."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UserError(
            f"An entry of {request} has no date where one is expected; got {short_repr(text)}. `unsee request verify` names the "
            "entries that were edited; restore the ledger from a backup."
        ) from error


def _status(entries: Sequence[Entry]) -> str:
    """Return the status of a request.

    Later entries about a closed request, of its batch or another, do not open it again.
    """
    steps = [_STATUS[entry.kind] for entry in entries if entry.kind in _STATUS and not entry.content.get("recheck")]
    return "closed" if "closed" in steps else steps[-1] if steps else "received"


def _require_silent(kind: str, content: Mapping[str, Any]) -> None:
    """Raise unless every field is known for this kind and every text is a code."""
    if kind not in FIELDS:
        raise UserError(f"The ledger has no entries of kind {kind!r}; expected one of {', '.join(FIELDS)}.")
    if unknown_fields := sorted(content.keys() - FIELDS[kind]):
        raise UserError(f"An entry of kind {kind} holds {', '.join(sorted(FIELDS[kind]))}, not {unknown_fields[0]}.")
    require_codes(*_texts(content))


def require_codes(*texts: str) -> None:
    """Raise if a text is no code, so that the ledger would refuse it.

    Raises:
        UserError: One has blanks or other characters that codes do not have, so that it could name somebody.
    """
    for text in texts:
        if not _CODE.fullmatch(text):
            raise UserError(
                f"The ledger holds codes, hashes and ids, no free text; got {short_repr(text)}. "
                "Expected letters of ASCII, digits and any of _ . : @ / + = , - without blanks, such as id_card."
            )


def _utc(time: datetime | None) -> str:
    """Return a time, by default now, as entries write it."""
    return (time or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts inside a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (str(key), *_texts(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
