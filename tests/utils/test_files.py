"""Folders that unsee makes, marks and removes."""

import pytest

from unsee.errors import UserError
from unsee.utils import files
from unsee.utils.files import foreign, owned_folder, remove_folder, sweep_temporary


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
