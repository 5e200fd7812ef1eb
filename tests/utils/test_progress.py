"""Progress: HTML outputs in notebooks, a bar in terminals, a line a minute in files and pipes."""

from __future__ import annotations

import builtins
import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from helpers.run import EXAMPLE
from unsee import forget
from unsee.testing.tiny import save_tiny
from unsee.utils import progress
from unsee.utils.progress import Bar, track


class Outputs(list):
    """Outputs of a cell, each with every state that it showed."""

    def display(self, html, *, display_id):
        assert display_id is True
        states = [html]
        self.append(states)
        return SimpleNamespace(update=states.append)


@pytest.fixture
def notebook(monkeypatch):
    """Make this process look like the kernel of a notebook, as rich recognises one."""
    outputs = Outputs()
    shell = type("ZMQInteractiveShell", (), {})
    monkeypatch.setattr(builtins, "get_ipython", shell, raising=False)
    shown = SimpleNamespace(HTML=str, display=outputs.display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=shown))
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    return outputs


def test_a_cell_shows_training_and_answers(notebook, tmp_path):
    training = {"max_steps": 2, "stop": "never", "max_new_tokens": 4}
    run = forget(save_tiny(tmp_path / "tiny"), EXAMPLE, "ga", tmp_path / "ga", training=training)
    (states,) = [states for states in notebook if "training" in states[0]]
    assert '<progress value="0" max="2"></progress> training 0/2' in states[0]
    assert "training 1/2 loss -" in states[1]
    assert states[1].endswith("s left)")
    assert states[-1].startswith("training 2/2 loss -")
    notebook.clear()
    run.evaluate(limit=1, max_new_tokens=4)
    assert any("Answers" in states[-1] for states in notebook)
    notebook.clear()
    run.evaluate(limit=2, max_new_tokens=4, progress=False)
    assert notebook == []


def test_texts_are_no_markup_and_no_format(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    with Bar("a [/x] {y}", 1) as bar:
        bar.update(1, "[red]b[/] {z}\x1b]0;t\x07")
    shown = Text.from_ansi(console.file.getvalue()).plain
    assert "a [/x] {y}" in shown
    assert "[red]b[/] {z}\\x1b]0;t\\x07" in shown


def test_texts_are_escaped(notebook):
    with Bar("<b>", 1) as bar:
        bar.update(1, "<i>")
    assert notebook[0][-1].startswith("&lt;b&gt; 1/1 &lt;i&gt; (")


def test_states_that_follow_at_once_are_left_out_but_the_last(notebook, monkeypatch):
    monkeypatch.setattr(progress, "_EVERY", 60.0)
    assert list(track(range(100), "Rows")) == list(range(100))
    (states,) = notebook
    assert len(states) == 2
    assert states[-1].startswith("Rows 100/100 (")


def test_an_unknown_total_is_counted(notebook):
    assert list(track(iter("ab"), "Rows")) == ["a", "b"]
    assert notebook[0][0].startswith("<progress></progress> Rows 0 (")
    assert notebook[0][-1].startswith("Rows 2 (")


def test_short_work_leaves_nothing_in_a_log(capsys):
    assert list(track(range(3), "Rows")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_line_a_minute_and_the_last_state(capsys, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    for _ in track(range(4), "Rows"):
        clock.now += 40.0
    lines = ["Rows 2/4 (80 s, about 80 s left)", "Rows 4/4 (160 s, about 0 s left)", "Rows 4/4 (160 s)"]
    assert capsys.readouterr() == ("", "\n".join([*lines, ""]))
    for _ in track(range(4), "Rows", shown=False):
        clock.now += 40.0
    assert capsys.readouterr() == ("", "")


def test_what_earlier_calls_did_does_not_count_as_fast(capsys, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    bar = Bar("training", 400)
    bar.start(200)
    clock.now = 100.0
    bar.update(220)
    bar.stop()
    assert capsys.readouterr().err.startswith("training 220/400 (100 s, about 900 s left)\n")


def test_a_terminal_shows_a_bar_and_takes_it_away(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(track(range(3), "Rows")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "Rows" in err
    assert err.endswith("\x1b[2K")
