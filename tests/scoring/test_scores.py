"""Scores: a mapping with a table for terminals and notebooks."""

from __future__ import annotations

import pytest

from unsee.api import Score
from unsee.errors import UserError
from unsee.scoring.scores import Scores

SCORES = Scores(
    {
        "unseen.leak": Score(value=0.25, n=8, interval=(0.1, 0.5), better="lower"),
        "unseen.<b>": Score(value=None, n=0, why="no answer has <names> & facts"),
        "retain.name": Score(value=1.0, n=3, better="higher"),
    }
)


def test_a_mistyped_name_answers_with_the_nearest():
    with pytest.raises(UserError, match="Unknown score 'unseen.leek'. Did you mean unseen.leak") as error:
        SCORES["unseen.leek"]
    assert isinstance(error.value, KeyError)
    assert SCORES.get("unseen.leek") is None
    assert "unseen.leek" not in SCORES


def test_the_table_has_values_intervals_and_what_is_missing():
    lines = repr(SCORES).splitlines()
    assert lines[0].split() == ["score", "value", "95", "%", "interval", "n", "better"]
    assert lines[1].split() == ["unseen.leak", "0.250", "0.100", "to", "0.500", "8", "lower"]
    assert lines[2].split() == ["retain.name", "1.000", "3", "higher"]
    assert lines[3].startswith("3 scores, 1 without a value")
    assert list(SCORES.missing) == ["unseen.<b>"]


def test_the_page_is_escaped_and_loads_nothing():
    page = SCORES._repr_html_()
    assert "unseen.&lt;b&gt;" in page
    assert "no answer has &lt;names&gt; &amp; facts" in page
    assert "<td>0.250</td><td>0.100 to 0.500</td>" in page
    assert not any(word in page for word in ("src=", "href=", "<script", "<names>"))


def test_all_scores_become_a_table():
    pytest.importorskip("pandas")
    table = SCORES.to_pandas()
    assert list(table.columns) == ["value", "low", "high", "n", "better", "why"]
    assert table.loc["unseen.leak", "high"] == 0.5
    assert table["value"].isna().sum() == 1
    assert table.loc["unseen.<b>", "why"] == "no answer has <names> & facts"


def test_a_figure_has_one_row_per_score_with_a_value():
    pytest.importorskip("matplotlib")
    (axes,) = SCORES.plot().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["unseen.leak", "retain.name"]
    assert list(axes.lines[0].get_xdata()) == [0.1, 0.5]
    with pytest.raises(UserError, match="has a value to draw"):
        SCORES.plot(["unseen.<b>"])


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        SCORES.to_pandas()
