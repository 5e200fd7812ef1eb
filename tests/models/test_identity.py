"""Hashes of models and of what they stand on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unsee.errors import UserError
from unsee.models.identity import bases, lineage_hash, model_hash
from unsee.models.location import folder_of


def adapter(place: Path, base: Path | str, **facts: str) -> Path:
    """Write an adapter folder without weights."""
    place.mkdir()
    (place / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    (place / "unsee.json").write_text(json.dumps(facts))
    return place


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Write a base without weights."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    return tmp_path / "base"


def test_a_model_is_all_that_it_stands_on(base: Path, tmp_path: Path) -> None:
    first = adapter(tmp_path / "first", base, base_hash=model_hash(base))
    second = adapter(tmp_path / "second", first, base_hash=model_hash(first))
    assert [(found.adapter, found.made_from == found.hash) for found in bases(second)] == [
        (second, True),
        (first, True),
    ]
    before, alone = lineage_hash(second), lineage_hash(base)
    assert alone == model_hash(base)
    (base / "README.md").write_text("scores")
    assert lineage_hash(second) == before
    (base / "config.json").write_text("{ }")
    assert lineage_hash(second) != before
    assert [found.made_from == found.hash for found in bases(second)] == [True, False]


def test_a_folder_with_a_config_is_the_model_whatever_lies_in_it(base: Path) -> None:
    (base / "model").mkdir()
    (base / "model" / "config.json").write_text("{}")
    before = model_hash(base)
    (base / "config.json").write_text("{ }")
    assert folder_of(base) == base
    assert model_hash(base) != before


def test_what_is_not_here_has_no_bases(tmp_path: Path) -> None:
    gone = adapter(tmp_path / "gone", tmp_path / "nowhere")
    itself = adapter(tmp_path / "itself", tmp_path / "itself")
    with pytest.raises(UserError, match=r"stands on .*nowhere, which is not here\. Change .*No model at"):
        list(bases(gone))
    with pytest.raises(UserError, match="stands on itself"):
        list(bases(itself))
    assert lineage_hash(gone) == model_hash(gone)
    assert lineage_hash("owner/name") == "owner/name"
