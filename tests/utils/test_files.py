"""Folders that unsee makes, marks and removes."""

import os
from pathlib import Path

import pytest

from unsee.errors import UserError
from unsee.utils import files
from unsee.utils.files import foreign, owned_folder, remove_folder, sweep_temporary, write_private


def test_a_folder_appears_with_its_mark(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.rename", killed)
    with pytest.raises(KeyboardInterrupt):
        owned_folder(tmp_path / "row")
    monkeypatch.undo()
    assert not (tmp_path / "row").exists()
    assert foreign(tmp_path) == []  # what the kill left is temporary
    sweep_temporary(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (owned_folder(tmp_path / "row") / "scores.json").write_text("{}")
    remove_folder(tmp_path / "row")
    assert not (tmp_path / "row").exists()


def test_a_folder_with_files_of_others_stays_theirs(tmp_path):
    (tmp_path / "theirs.txt").write_text("x")
    owned_folder(tmp_path)
    with pytest.raises(UserError, match="was not made by unsee"):
        remove_folder(tmp_path)


def test_sweeping_leaves_temporary_folders_that_hold_anything(tmp_path):
    part = tmp_path / f".x.abcd1234{files.PART}"
    part.mkdir()
    (part / "weights").write_text("x")
    sweep_temporary(tmp_path)
    assert (part / "weights").exists()


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "row").write_text("x")
    with pytest.raises(OSError, match="row"):
        owned_folder(tmp_path / "row")
    assert [path.name for path in tmp_path.iterdir()] == ["row"]


def test_a_private_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(tmp_path / "key", b"secret")
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_leaves_of_a_private_file_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_private(tmp_path / "key", b"secret")
    monkeypatch.undo()
    (left,) = tmp_path.iterdir()
    assert left.read_bytes() == b"secret"
    sweep_temporary(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_private_file_is_readable_by_its_owner_alone(tmp_path):
    write_private(tmp_path / "key", b"secret")
    assert (tmp_path / "key").read_bytes() == b"secret"
    if os.name != "nt":
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_folder_has_the_same_hash_where_paths_are_sorted_otherwise(tmp_path, monkeypatch):
    for name in ("README.md", "config.json", "sub.json", "sub/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    expected = files.hash_folder(tmp_path)
    monkeypatch.setattr(Path, "__lt__", lambda one, other: str(one).lower() < str(other).lower())  # as on Windows
    assert files.hash_folder(tmp_path) == expected
