"""The cache shared over runs."""

from pathlib import Path

import pytest

from unsee import engine, store


def test_lies_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(store.VARIABLE, raising=False)
    assert store.shared(tmp_path / "a") == store.shared(tmp_path / "b") == tmp_path.resolve() / "cache"
    monkeypatch.setenv(store.VARIABLE, str(tmp_path / "else"))
    assert store.shared(tmp_path / "a") == tmp_path / "else"
    with engine.using("plain"):
        assert store.shared(tmp_path / "a") is None
    monkeypatch.setenv(store.VARIABLE, "off")
    assert store.shared(tmp_path / "a") is None


def test_values_come_back(tmp_path: Path) -> None:
    rows = store.Rows(tmp_path / "deep" / "x.jsonl")
    assert rows.get("a") is None
    rows.put({"a": -1.5, "b": ["ü", None]})
    rows.put({"a": 7, "c": 1})
    again = store.Rows(tmp_path / "deep" / "x.jsonl")
    assert [again.get(key) for key in "abc"] == [-1.5, ["ü", None], 1]


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_survives_a_torn_line(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "x.jsonl"
    store.Rows(file).put({"a": 1, "b": 2})
    file.write_bytes(file.read_bytes()[:-cut])
    torn = store.Rows(file)
    assert torn.get("a") == 1
    torn.put({"b": 3, "c": 4})
    whole = store.Rows(file)
    assert (whole.get("a"), whole.get("c")) == (1, 4)
    assert whole.get("b") == (2 if cut == 1 else 3)  # only the newline was missing
