"""Ledger: the chain finds every edit, holds no free text, and stays whole under many writers and kills."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from unsee.errors import UserError
from unsee.workflows.requests import ledger as ledger_module
from unsee.workflows.requests.ledger import Ledger, add_months
from unsee.workflows.requests.overview import PAGE, write_overview
from unsee.workflows.requests.project import Project

KEY = b"k" * 32


def ledger(folder: Path, entries: int = 4) -> Ledger:
    """Return a ledger with `entries` entries behind the one that opens it."""
    made = Ledger(folder, key=KEY)
    for number in range(entries):
        made.append("received", f"R-{number}", entity=made.pseudonym(f"p{number}"), due="2027-01-31", rows=number)
    return made


def raw(made: Ledger, *statements: str) -> None:
    """Edit the file as somebody would who has the file but not the key."""
    with sqlite3.connect(made.path) as file:
        for statement in ("DROP TRIGGER unchanged", "DROP TRIGGER kept", *statements):
            file.execute(statement)


def test_a_ledger_as_written_verifies(tmp_path: Path) -> None:
    made = ledger(tmp_path)
    assert [entry.kind for entry in made.entries()] == ["opened", *["received"] * 4]
    assert made.verify() == []


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        ("UPDATE entries SET content = replace(content, '2027-01-31', '2027-03-31') WHERE number = 3", "entry 3"),
        ("UPDATE entries SET time = '2020-01-01T00:00:00+00:00' WHERE number = 2", "entry 2"),
        ("UPDATE entries SET request = 'R-9' WHERE number = 4", "entry 4"),
        ("UPDATE entries SET operator = 'me' WHERE number = 2", "entry 2"),
        ("UPDATE entries SET kind = 'closed' WHERE number = 2", "entry 2"),
        ("DELETE FROM entries WHERE number = 3", "entry 3 is missing"),
        ("UPDATE entries SET seal = (SELECT seal FROM entries WHERE number = 4) WHERE number = 3", "entry 3"),
        ("UPDATE entries SET content = 'x' WHERE number = 3", "entry 3"),
        ("UPDATE entries SET content = '{x' WHERE number = 1", "entry 1"),
        ("UPDATE entries SET content = '[]' WHERE number = 1", "entry 1"),
        (
            "INSERT INTO entries SELECT 6, time, request, kind, operator, content, seal FROM entries WHERE number = 5",
            "entry 6",
        ),
    ],
)
def test_every_edit_is_found(tmp_path: Path, edit: str, fault: str) -> None:
    made = ledger(tmp_path)
    raw(made, edit)
    faults = made.verify()
    assert faults
    assert faults[0].startswith(fault)


def test_entries_swapped_are_found(tmp_path: Path) -> None:
    made = ledger(tmp_path)
    raw(
        made,
        "UPDATE entries SET number = 99 WHERE number = 2",
        "UPDATE entries SET number = 2 WHERE number = 3",
        "UPDATE entries SET number = 3 WHERE number = 99",
    )
    assert len(made.verify()) >= 2


def test_sqlite_itself_refuses_edits(tmp_path: Path) -> None:
    made = ledger(tmp_path)
    with sqlite3.connect(made.path) as file:
        for statement in ("UPDATE entries SET kind = 'closed'", "DELETE FROM entries"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                file.execute(statement)


def test_another_key_is_refused(tmp_path: Path) -> None:
    ledger(tmp_path)
    with pytest.raises(UserError, match="another key"):
        Ledger(tmp_path, key=b"x" * 32).entries()


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    made = ledger(tmp_path)
    with sqlite3.connect(made.path) as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="newer unsee"):
        made.append("model", model="x")


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("nothing of the kind, " * 100)
    with pytest.raises(UserError, match="cannot be used as a ledger"):
        Ledger(tmp_path, key=KEY).append("model", model="x")


def test_a_ledger_without_entries_is_told_and_not_taken_for_none(tmp_path: Path) -> None:
    """A kill in the first entry leaves such a file, and so may a damaged disk."""
    (tmp_path / "ledger.sqlite").touch()
    with pytest.raises(UserError, match="has no entries.* remove the file; else restore it from a backup"):
        Ledger(tmp_path, key=KEY).states()


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("received", {"name": "Ada"}, "not name"),
        ("received", {"entity": "Ada Lovell"}, "no free text"),
        ("closed", {"decision": "erased", "reason": "Ada asked for it"}, "no free text"),
        ("unlearned", {"settings": {"word": "Ada Lovell"}}, "no free text"),
        ("told", {}, "no entries of kind"),
    ],
)
def test_free_text_stays_out(tmp_path: Path, kind: str, content: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Ledger(tmp_path, key=KEY).append(kind, "R-1", **content)
    assert Ledger(tmp_path, key=KEY).entries() == ()


def test_the_operator_is_a_code(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no free text"):
        Ledger(tmp_path, key=KEY).append("closed", "R-1", operator="Ada Lovell", decision="erased")


def test_entries_that_belong_together_are_added_all_or_none(tmp_path: Path) -> None:
    made = Ledger(tmp_path, key=KEY)
    with pytest.raises(UserError, match="no free text"):
        made.append_together("R-1", ("received", None, {"rows": 1}), ("asked", None, {"model": "Ada Lovell"}))
    assert made.entries() == ()
    made.append_together("R-1", ("received", None, {"rows": 1}), ("asked", None, {"found": True}))
    assert [entry.kind for entry in made.entries("R-1")] == ["received", "asked"]
    assert made.verify() == []


def test_a_full_disk_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite has undone the transaction itself by then."""
    made = ledger(tmp_path)
    switch = ledger_module._log_ahead

    def without_room(connection: sqlite3.Connection) -> None:
        switch(connection)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    monkeypatch.setattr(ledger_module, "_log_ahead", without_room)
    with pytest.raises(UserError, match="database or disk is full"):
        made.append_together("", *[("model", None, {"model": "a" * 200})] * 400)
    assert made.verify() == []


def test_edited_entries_of_a_request_end_in_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, made = "R-0000000a", ledger(tmp_path, 0)
    made.append("received", request, entity=made.pseudonym("p"), due="2027-01-31", rows=1)
    made.append("verdict", request, verdict="erased")
    made.append("suppressed", request, fingerprints={})
    raw(made, "UPDATE entries SET content = 'x' WHERE number > 2")
    assert made.state(request).verdict == "not_measured"
    assert made.fingerprints() == {request: {"damaged": True}}
    monkeypatch.setattr(Project, "ledger", made)
    write_overview(Project(folder=tmp_path))
    assert request in (tmp_path / PAGE).read_text(encoding="utf-8")


def test_an_edited_date_is_said(tmp_path: Path) -> None:
    made = ledger(tmp_path)
    raw(made, "UPDATE entries SET time = 'yesterday' WHERE number = 2")
    with pytest.raises(UserError, match="R-0 has no date.*unsee request verify"):
        made.states()


def test_pseudonyms_depend_on_the_key(tmp_path: Path) -> None:
    here, there = Ledger(tmp_path, key=KEY), Ledger(tmp_path, key=b"x" * 32)
    assert here.pseudonym("ada") == here.pseudonym("ada")
    assert len({here.pseudonym("ada"), here.pseudonym("bob"), there.pseudonym("ada")}) == 3


def test_states_follow_the_entries(tmp_path: Path) -> None:
    made = Ledger(tmp_path, key=KEY)
    at = datetime(2027, 1, 31, 12, tzinfo=UTC)
    made.append_together("R-1", ("received", at, {"entity": "e", "due": "2027-02-28"}))
    made.append("asked", "R-1", found=True)
    made.append("extended", "R-1", due="2027-04-28", reason="complex")
    made.append_together("R-2", ("received", at, {"entity": "f", "due": "2027-02-28"}))
    made.append("verdict", "R-1", verdict="erased")
    first, second = made.states().values()
    assert (first.status, first.due, first.verdict, first.received) == (
        "judged",
        date(2027, 4, 28),
        "erased",
        date(2027, 1, 31),
    )
    assert (second.status, second.verdict, second.open) == ("received", "", True)
    with pytest.raises(UserError, match="R-1, R-2"):
        made.state("R-3")


@pytest.mark.parametrize(
    ("own", "again", "verdict"),
    [
        ("residual", ["erased"], "residual"),  # it was attacked then, and is only asked now
        ("erased", ["erased", "residual"], "residual"),
        ("erased", ["residual", "erased"], "erased"),  # a later batch took it again
        ("erased", ["not_measured"], "erased"),
        ("erased", ["residual", "not_measured"], "residual"),  # what could not be measured takes nothing back
        ("erased", ["residual", "not_measured", "erased", "not_measured"], "erased"),
    ],
)
def test_later_checks_can_only_find_more(tmp_path: Path, own: str, again: list[str], verdict: str) -> None:
    made = Ledger(tmp_path, key=KEY)
    made.append("received", "R-1", entity="e", due="2027-02-28")
    made.append("verdict", "R-1", verdict=own, recheck=False)
    for word in again:
        made.append("verdict", "R-1", verdict=word, recheck=True)
    assert made.state("R-1").verdict == verdict


@pytest.mark.parametrize(("kind", "content"), [("unlearned", {}), ("verdict", {}), ("verdict", {"recheck": True})])
def test_a_closed_request_stays_closed(tmp_path: Path, kind: str, content: dict[str, bool]) -> None:
    made = Ledger(tmp_path, key=KEY)
    made.append("received", "R-1", entity="e", due="2027-02-28")
    made.append("closed", "R-1", decision="erased", reason="done")
    made.append(kind, "R-1", batch="B-002", **content)
    assert (made.state("R-1").status, made.state("R-1").open) == ("closed", False)


def test_a_later_check_does_not_take_an_approval_away(tmp_path: Path) -> None:
    made = Ledger(tmp_path, key=KEY)
    made.append("received", "R-1", entity="e", due="2027-02-28")
    made.append("verdict", "R-1", verdict="residual", recheck=False)
    made.append("approved", "R-1", rows=1)
    made.append("verdict", "R-1", verdict="residual", recheck=True)
    assert made.state("R-1").status == "approved"


@pytest.mark.parametrize(
    ("day", "later"),
    [((2027, 1, 31), (2027, 2, 28)), ((2028, 1, 31), (2028, 2, 29)), ((2026, 12, 15), (2027, 1, 15))],
)
def test_due_dates_are_calendar_months(day: tuple[int, int, int], later: tuple[int, int, int]) -> None:
    assert add_months(date(*day), 1) == date(*later)


def test_the_export_is_one_line_per_entry(tmp_path: Path) -> None:
    made = ledger(tmp_path)
    rows = [json.loads(line) for line in made.export()]
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[1]["content"]["due"] == "2027-01-31"


WRITER = """
import sys
from unsee.workflows.requests.ledger import Ledger
made = Ledger(sys.argv[1], key=b"k" * 32)
for number in range(int(sys.argv[2])):
    made.append("model", f"R-{sys.argv[3]}", model=str(number))
    print(number, flush=True)
"""


def started(folder: Path, count: int, name: str) -> subprocess.Popen[str]:
    """Start another process that writes."""
    arguments = [sys.executable, "-c", WRITER, str(folder), str(count), name]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def test_many_processes_write_one_chain(tmp_path: Path) -> None:
    writers = [started(tmp_path, 25, str(number)) for number in range(3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    made = Ledger(tmp_path, key=KEY)
    assert len(made.entries()) == 76
    assert made.verify() == []


class Switching(sqlite3.Connection):
    """A connection of which another process switches the journal at the same time, once."""

    busy = 1

    def execute(self, sql, *values):
        if "journal_mode" in sql and Switching.busy:
            Switching.busy -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return super().execute(sql, *values)


def test_two_processes_may_open_a_new_ledger_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: connect(*given, **more, factory=Switching))
    made = Ledger(tmp_path, key=KEY)
    made.append("model", "R-1", model="m")
    assert made.verify() == []
    assert Switching.busy == 0


def test_a_kill_loses_no_entry_that_was_reported(tmp_path: Path) -> None:
    """Kills at different moments: every entry that `append` returned from is there, and the chain is whole."""
    reported = 0
    kills = int(os.environ.get("UNSEE_KILLS", "5"))
    for number in range(kills):
        writer = started(tmp_path, 100_000, str(number))
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.02 * (number % 5))
        writer.send_signal(signal.SIGKILL)
        reported += 1 + len(writer.stdout.read().splitlines())
        writer.wait(timeout=30)
    made = Ledger(tmp_path, key=KEY)
    found = len(made.entries()) - 1
    assert reported <= found <= reported + kills  # one more per kill: written, not yet reported
    assert made.verify() == []
