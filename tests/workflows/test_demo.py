"""The demo: which rows it makes, what it keeps, and (slow) the whole story."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from unsee.cli.main import main
from unsee.errors import UserError
from unsee.utils.files import atomic_write_json, owned_folder
from unsee.workflows.demo import FULL, QUICK, Row, demo, make, outcome, plan


def test_the_quick_demo_has_original_gold_and_the_promised_methods() -> None:
    stages = [row.stage for row in plan(full=False, seeds=1, methods=None)]
    assert stages == ["original", "gold", *QUICK]
    assert {"ga", "npo_retain", "reject_retain", "pubg_retain"} <= set(stages)
    assert set(QUICK) < set(FULL)


def test_the_full_demo_repeats_trained_rows_for_every_seed() -> None:
    rows = plan(full=True, seeds=3, methods=None)
    count = {name: sum(row.stage == name for row in rows) for name in ("original", "gold", *FULL)}
    assert {name for name, times in count.items() if times == 1} == {"original", "gold", "prompt"}
    assert {times for name, times in count.items()} == {1, 3}


def test_a_variant_is_a_method_under_other_settings() -> None:
    row = plan(full=False, seeds=1, methods=["pubg_retain"])[-1]
    assert (row.stage, row.method) == ("pubg_retain", "pubg")
    assert row.settings["retain_weight"] > 0


def test_the_picture_gold_is_beside_methods_that_promise_pictures_alone() -> None:
    stages = [(row.stage, row.model) for row in plan(full=False, seeds=1, methods=["vgid", "npo"])]
    assert stages[1:3] == [("gold", "lab-gold"), ("gold-picture", "lab-gold-picture")]


def test_a_method_without_adapters_is_tuned_in_full() -> None:
    tuned = {row.stage: row.training for row in plan(full=False, seeds=1, methods=["mmunlearner", "npo"])}
    assert (tuned["mmunlearner"], tuned["npo"]) == ({"tune": "full"}, {})


def test_further_seeds_lie_inside_the_folder_of_the_first(tmp_path: Path) -> None:
    first, second = (Row(stage="ga", method="ga", seed=seed).folder(tmp_path) for seed in (0, 1))
    assert first == tmp_path / "ga"
    assert second == first / "seed-1"


def test_a_wrong_method_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pubg"):
        demo(tmp_path, methods=["pupg"])
    with pytest.raises(UserError, match="--seeds"):
        demo(tmp_path, seeds=0)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, fresh: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"x")
    with pytest.raises(UserError, match="other things"):
        demo(tmp_path, fresh=fresh)
    assert [file.name for file in tmp_path.rglob("*.*")] == ["mine.png"]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        sys.modules["unsee.workflows.demo"], "make", stop
    )  # the package has the function under this name
    for _ in range(2):  # the second finds the first's own folder
        with pytest.raises(KeyboardInterrupt):
            demo(tmp_path / "new", fresh=fresh)


def test_fresh_clears_the_rows_of_every_earlier_demo_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def stop(row: Row, *_: object) -> None:
        made.append(row.stage)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["unsee.workflows.demo"], "make", stop)
    for name in ("siu", "manu", "beside"):
        (owned_folder(tmp_path / "demo" / name) / "scores.json").write_text("{}")
        atomic_write_json(tmp_path / "demo" / "demo.json", {"methods": ["original", "manu", "../mine"]})
    (owned_folder(tmp_path / "mine") / "file").touch()
    for fresh in (False, True):
        with pytest.raises(KeyboardInterrupt):
            demo(tmp_path / "demo", methods=["siu"], fresh=fresh)
        listed = json.loads((tmp_path / "demo" / "demo.json").read_text())["methods"]
        assert set(listed) >= {"manu", "siu"}
        assert (tmp_path / "demo" / "siu").exists() == (tmp_path / "demo" / "manu").exists() == (not fresh)
    assert made == ["original", "original"]
    assert (tmp_path / "demo" / "beside" / "scores.json").exists()
    assert (tmp_path / "mine" / "file").exists()


def test_a_finished_row_is_not_made_again(tmp_path: Path) -> None:
    done = tmp_path / "ga"
    done.mkdir()
    (done / "scores.json").write_text("{}")
    make(Row(stage="ga", method="ga", model="no such model"), tmp_path)
    assert (done / "scores.json").read_text() == "{}"


def test_the_outcome_of_a_row_is_said_in_one_line(tmp_path: Path) -> None:
    scores = {"unseen.leak": {"value": 0.0}, "unseen.clean": {"value": None}, "retain.name": {"value": 0.978}}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    assert outcome(tmp_path) == "leak 0%, retained names 98%"


@pytest.mark.slow
def test_the_whole_story(tmp_path: Path) -> None:
    page = demo(tmp_path, methods=["reject"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert page == tmp_path / "report.html"
    assert summary["original"]["unseen"]["leak"] > 0.8
    assert summary["gold"]["unseen"]["leak"] < 0.1
    assert summary["reject"]["unseen"]["refusal"] > 0.5
    assert {"seconds", "peak_gib"} <= set(summary["reject"])


def test_methods_may_have_blanks_between_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--methods", "ga, pupg"]) == 2
    assert "Unknown method 'pupg'" in capsys.readouterr().err
