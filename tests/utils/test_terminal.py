"""What reaches the terminal: control characters are shown, markup is not obeyed."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

import unsee
from unsee.cli.main import main
from unsee.utils import terminal

SOURCES = sorted(Path(unsee.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\x1b]0;owned\x07b", r"a\x1b]0;owned\x07b"),
        ("a\rb\x7f\x9b2J", r"a\rb\x7f\x9b2J"),
        ("\u202eevil\u2028", r"\u202eevil\u2028"),
        ("\ud800", r"\ud800"),
        ("a[/red]b", "a[/red]b"),
        ("two\nlines\tof Zoë 李 👩\u200d🔬", "two\nlines\tof Zoë 李 👩\u200d🔬"),
    ],
)
def test_control_characters_are_shown(text, wanted, capsys):
    assert terminal.escape_controls(text) == wanted
    terminal.out(text)
    terminal.err(text)
    said = capsys.readouterr()
    assert said.out == said.err == f"{wanted}\n"


def test_notes_obey_no_markup_and_stay_on_one_line(capsys):
    terminal.note(("1/2", "dim"), " a[/red]b\x1b[2J\nc: done")
    assert capsys.readouterr().err == "1/2 a[/red]b\\x1b[2J\\nc: done\n"


def test_what_the_encoding_of_stdout_lacks_is_escaped(monkeypatch):
    """Such as a redirected stdout on Windows; the result is there, and the command went well."""
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, encoding="latin-1", write_through=True, newline="\n"))
    terminal.out("runs/Łukasz and José")
    assert stream.getvalue() == b"runs/\\u0141ukasz and Jos\xe9\n"


def test_errors_are_shown_the_same_way(capsys, tmp_path):
    assert main(["forget", "--model", "a\x1b]0;owned\x07", "--data", "[/red]", "--method", "g\x07a", "--out", "x"]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "\x07" not in said


def test_nothing_prints_beside_the_helper():
    """`print`, `console.print` and the streams themselves are used in terminal.py alone."""
    calls = re.compile(r"(?<!>>> )(?<![\w.])print\(|[Cc]onsole(\(stderr=True\))?\.print\(|sys\.(stdout|stderr)\.write")
    allowed = {
        "terminal.py",
        "train_lab.py",
        "__main__.py",
    }  # a table of figures; what is said when packages are broken
    found = {path.name for path in SOURCES if calls.search(path.read_text())}
    assert found <= allowed
