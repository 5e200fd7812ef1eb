"""Folders that unsee makes, marks and removes."""

import pytest

from unsee.errors import UserError
from unsee.utils.files import owned_folder, remove_folder


def test_a_folder_whose_maker_was_killed_before_it_was_marked_is_marked_later(tmp_path):
    folder = tmp_path / "row"
    folder.mkdir()
    (owned_folder(folder) / "scores.json").write_text("{}")
    remove_folder(folder)
    assert not folder.exists()


def test_a_folder_with_files_of_others_stays_theirs(tmp_path):
    (tmp_path / "theirs.txt").write_text("x")
    owned_folder(tmp_path)
    with pytest.raises(UserError, match="was not made by unsee"):
        remove_folder(tmp_path)
