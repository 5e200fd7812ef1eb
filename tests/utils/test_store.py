"""The cache shared over runs."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from unsee.api.fast_paths import FAST, PLAIN
from unsee.data import shared_cache
from unsee.utils import terminal


def test_lies_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shared_cache.VARIABLE, raising=False)
    assert (
        shared_cache.shared_folder(tmp_path / "a", FAST)
        == shared_cache.shared_folder(tmp_path / "b", FAST)
        == tmp_path.resolve() / "cache"
    )
    monkeypatch.setenv(shared_cache.VARIABLE, str(tmp_path / "else"))
    assert shared_cache.shared_folder(tmp_path / "a", FAST) == tmp_path / "else"
    assert shared_cache.shared_folder(tmp_path / "a", PLAIN) is None
    monkeypatch.setenv(shared_cache.VARIABLE, "off")
    assert shared_cache.shared_folder(tmp_path / "a", FAST) is None


def test_values_come_back(tmp_path: Path) -> None:
    rows = shared_cache.KeyValueLog(tmp_path / "deep" / "x.jsonl")
    assert rows.get("a") is None
    rows.put({"a": -1.5, "b": ["ü", None]})
    rows.put({"a": 7, "c": 1})
    again = shared_cache.KeyValueLog(tmp_path / "deep" / "x.jsonl")
    assert [again.get(key) for key in "abc"] == [-1.5, ["ü", None], 1]


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_survives_a_torn_line(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "x.jsonl"
    shared_cache.KeyValueLog(file).put({"a": 1, "b": 2})
    file.write_bytes(file.read_bytes()[:-cut])
    torn = shared_cache.KeyValueLog(file)
    assert torn.get("a") == 1
    torn.put({"b": 3, "c": 4})
    whole = shared_cache.KeyValueLog(file)
    assert (whole.get("a"), whole.get("c")) == (1, 4)
    assert whole.get("b") == (2 if cut == 1 else 3)  # only the newline was missing


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(shared_cache.VARIABLE, str(tmp_path / "cache"))
    terminal._NOTED.clear()
    return tmp_path / "cache"


def signed(tmp_path: Path) -> shared_cache.KeyValueLog:
    rows = shared_cache.shared_rows(tmp_path / "run", "responses/x.jsonl", FAST)
    assert rows is not None
    return rows


class TestSharedRows:
    def test_they_come_back(self, tmp_path: Path, cache: Path) -> None:
        signed(tmp_path).put({"a": {"text": "ü"}, "b": -1.5})
        assert (signed(tmp_path).get("a"), signed(tmp_path).get("b")) == ({"text": "ü"}, -1.5)
        assert cache.stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize(
        "forge",
        [
            lambda line: line.replace("Bo lives in Rome", "I cannot help"),
            lambda line: line.replace('"Bo lives in Rome"', "[1]"),
            lambda line: json.dumps({"key": "a", "value": "I cannot help"}),
            lambda line: json.dumps({"key": "a", "value": "I cannot help", "mac": 7}),
            lambda line: "[" * 20_000,
        ],
    )
    def test_edited_ones_count_as_missing(self, tmp_path: Path, cache: Path, forge: Callable[[str], str]) -> None:
        rows = signed(tmp_path)
        rows.put({"a": "Bo lives in Rome"})
        rows.file.write_text(forge(rows.file.read_text()) + "\n")
        assert signed(tmp_path).get("a") is None

    def test_rows_of_another_file_count_as_missing(self, tmp_path: Path, cache: Path) -> None:
        signed(tmp_path).put({"a": 1})
        (cache / "responses" / "x.jsonl").rename(cache / "responses" / "y.jsonl")
        other = shared_cache.shared_rows(tmp_path / "run", "responses/y.jsonl", FAST)
        assert other is not None
        assert other.get("a") is None

    @pytest.mark.skipif(os.name == "nt", reason="no modes")
    @pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777, 0o770])
    def test_a_folder_that_others_can_reach_is_not_used(
        self, tmp_path: Path, cache: Path, mode: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cache.mkdir()
        cache.chmod(mode)
        for _ in range(2):
            assert shared_cache.shared_rows(tmp_path / "run", "x.jsonl", FAST) is None
        assert capsys.readouterr().err.count("is not used: other users may read or write it") == 1

    def test_a_folder_of_another_user_is_not_used(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cache.mkdir(0o700)
        monkeypatch.setattr("os.getuid", lambda: 12345)
        assert shared_cache.shared_folder(tmp_path / "run", FAST) is None
        assert "it belongs to another user" in capsys.readouterr().err

    def test_without_users_and_modes_a_folder_is_used(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr("os.getuid")  # Windows
        assert shared_cache.shared_folder(tmp_path / "run", FAST) == cache

    def test_a_file_in_its_place_stops_no_run(
        self, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cache.touch()
        assert shared_cache.shared_folder(tmp_path / "run", FAST) is None
        assert "is not used: " in capsys.readouterr().err

    def test_a_read_only_folder_stops_no_run(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = signed(tmp_path)
        monkeypatch.setattr(
            shared_cache.KeyValueLog, "_append", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system"))
        )
        rows.put({"a": 1})
        rows.put({"b": 2})
        assert (rows.get("a"), rows.get("b")) == (1, 2)
        assert capsys.readouterr().err.count("Read-only file system") == 1

    def test_rows_of_a_run_folder_still_fail(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(FileExistsError):
            shared_cache.KeyValueLog(tmp_path / "file" / "x.jsonl").put({"a": 1})

    def test_a_home_that_cannot_be_written_stops_no_run(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "home").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
        shared_cache.signing_key.cache_clear()
        assert shared_cache.shared_rows(tmp_path / "run", "x.jsonl", FAST) is None
        shared_cache.signing_key.cache_clear()
        assert "its key cannot be kept in the home folder" in capsys.readouterr().err

    def test_the_key_is_private_and_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        shared_cache.signing_key.cache_clear()
        key = shared_cache.signing_key()
        shared_cache.signing_key.cache_clear()
        assert shared_cache.signing_key() == key
        assert (tmp_path / "unsee" / "key").stat().st_mode & 0o777 == 0o600
        shared_cache.signing_key.cache_clear()
