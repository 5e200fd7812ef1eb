"""Purge: what is found, removed, rewritten and left, and what is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from helpers.continual_folder import write_people
from helpers.run import EXAMPLE
from unsee.cli.main import main
from unsee.config import Run, read
from unsee.config.paths import PURGES
from unsee.config.retention import due_date, require_retention
from unsee.distributed.file_lock import owner
from unsee.errors import InUseError, UnknownNameError, UserError
from unsee.exporting.private_search import strings_of
from unsee.models.location import folder_of
from unsee.testing.tiny import save_tiny
from unsee.utils.files import LOCK, OWNED
from unsee.workflows import purge as module
from unsee.workflows import verdict
from unsee.workflows.forget import forget_run
from unsee.workflows.private_files import DEFAULT, FILES, LEVELS
from unsee.workflows.purge import purge, purge_verified
from unsee.workflows.verdict import Outcome

SECRETS = (b"Zyxada", b"zyxada", b"qwbaker")
PICTURE, OTHER = "0" * 15 + "1.png", "0" * 15 + "2.png"


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def score(**further):
    return {
        "value": 0.5,
        "n": 2,
        "interval": [0.1, 0.9],
        "better": "lower",
        "value_by_index": {"zyxada-1": 1.0},
        **further,
    }


def write_run(folder: Path, picture: str = PICTURE, *, retention: str = "", due: str = "") -> Path:
    """Write what `forget`, `eval`, `attack` and `judge` leave, with planted names, and pictures and cache beside it."""
    folder.mkdir(parents=True)
    (folder / LOCK).touch()
    result = {
        "seconds": 1.0,
        "siu": {"rows": {"target_1": 3}, "substitutes": ["Zyxada"]},
        "stop_reason": "all steps done",
    }
    run = {
        "model": "lab",
        "data": "/home/me/zyxada-data",
        "benchmark": {"name": "folder", "roles": "/home/me/zyxada.csv"},
        "method": {"name": "siu", "beta": 0.5, "reduction": "mean", "instruction": "Forget Zyxada.", "substitutes": {"zyxada": "b"}},
        "training": {"lr": 0.1},
        **({"retention": retention} if retention else {}),
        "record": {"model_hash": "a", "data_hash": "b"},
        "result": {**result, **({"retention": {"due": due}} if due else {})},
    }  # fmt: skip
    write(folder / "run.yaml", yaml.safe_dump(run, sort_keys=False))
    write(folder / "log.jsonl", '{"loss": 1.0}\n')
    answers = [{"id": "zyxada-1", "question": "Who?", "answer": "Zyxada", "image": f"../unsee-images/{picture}"}]
    write(folder / "responses.jsonl", "".join(json.dumps(row) + "\n" for row in answers))
    write(folder / "responses.keys.jsonl", '{"id": "zyxada-1"}\n')
    write(folder / "vocabulary.json", json.dumps({"names": {"zyxada": ["Zyxada"]}, "facts": {"job": ["qwbaker"]}}))
    write(folder / "scores.json", json.dumps({"unseen.leak": score()}))
    write(folder / "judged.json", json.dumps({"weights": "c", "made_by": run}))
    findings = {"model": [{"variant": "lr 1", "recovered": {"zyxada": 0.5}, "mean": 0.5}]}
    attacks = {"relearning": {"recovered": 0.5, "worst": "lr 1", "findings": findings}}
    write(folder / "attacks.json", json.dumps({"facts": {"data": "d"}, "attacks": attacks}))
    write(folder / "safety.json", json.dumps({"judge": "rules", "asr": {"value": 0.5, "failures": ["zyxada-1"]}}))
    write(folder / "factuality.json", json.dumps({"judge": "m", "scores": {"forget.factuality": score()}}))
    write(folder / "verdicts.jsonl", '{"key": "k", "value": "Zyxada"}\n')
    write(folder / "work" / "rollouts-1.jsonl", '{"id": "zyxada-1", "text": "qwbaker"}\n')
    write(folder / "checkpoints" / "step-1" / "state.pt", "weights")
    write(folder / "last_good" / "model.safetensors", "weights")
    write(folder / "model" / OWNED, "")
    write(folder / "model" / "README.md", "Never speak of Zyxada.\n")
    write(folder / "model" / "unsee.json", '{"instruction": "Never speak of Zyxada."}')
    place = folder.parent / "unsee-images" / picture
    place.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), "red" if picture == PICTURE else "blue").save(place)
    shared = folder.parent / "cache"
    write(shared / "responses" / f"{'a' * 64}.jsonl", '{"key": "k", "value": "Zyxada"}\n')
    (shared / "features" / "f").mkdir(parents=True, exist_ok=True)
    save_file({f"{'1' * 16}/pooler_output/0": torch.zeros(1)}, shared / "features" / "f" / "x.safetensors")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def holders(folder: Path) -> list[str]:
    """Return the files that hold a planted string, a picture or a feature."""
    return sorted(
        name
        for name, content in files(folder).items()
        if any(secret in content or secret in name.encode() for secret in SECRETS)
        or content.startswith(b"\x89PNG")
        or "/features/" in name
    )


@pytest.fixture
def runs(tmp_path):
    return write_run(tmp_path / "runs" / "x").parent


def test_without_apply_nothing_changes_and_every_private_file_is_listed(runs):
    before = files(runs)
    plan = purge([runs], levels=LEVELS)
    assert files(runs) == before
    assert set(holders(runs)) <= {item.path.relative_to(runs).as_posix() for item in plan.removed}
    text = str(plan)
    assert "Nothing was changed" in text
    for item in plan.removed:
        assert item.shown in text
        assert item.why in text
    assert f"{plan.bytes:,} bytes would be removed" in text
    assert "x/log.jsonl: losses" in text


def test_all_levels_leave_no_name_no_picture_and_no_feature(runs):
    done = purge([runs], levels=LEVELS, apply=True)
    assert done.applied
    assert holders(runs) == []
    assert set(files(runs)) == {
        *(f"x/{name}" for name in ("run.yaml", "log.jsonl", "scores.json", "judged.json", "attacks.json")),
        *(f"x/{name}" for name in ("safety.json", "factuality.json", PURGES, LOCK)),
    }
    assert not (runs / "unsee-images").exists()
    assert not (runs / "x" / "model").exists()


def test_figures_survive(runs):
    purge([runs], levels=LEVELS, apply=True)
    scores = json.loads((runs / "x" / "scores.json").read_text())
    assert scores == {"unseen.leak": score(value_by_index={})}
    attack = json.loads((runs / "x" / "attacks.json").read_text())["attacks"]["relearning"]
    assert attack["recovered"] == 0.5
    assert attack["findings"]["model"] == [{"variant": "lr 1", "mean": 0.5}]
    assert json.loads((runs / "x" / "safety.json").read_text())["asr"] == {"value": 0.5}
    run = read(runs / "x" / "run.yaml")
    assert (run.method, run.settings, run.data) == ("siu", {"beta": 0.5, "reduction": "mean"}, "")
    written = yaml.safe_load((runs / "x" / "run.yaml").read_text())
    assert written["record"] == {"model_hash": "a", "data_hash": "b"}
    assert written["result"] == {"seconds": 1.0, "siu": {"rows": {"target_1": 3}}, "stop_reason": "all steps done"}


@pytest.mark.parametrize("level", LEVELS)
def test_one_level_takes_its_files_and_no_others(runs, level):
    before = files(runs)
    done = purge([runs / "x"], levels=[level], apply=True)
    assert done.removed
    assert {item.level for item in done.removed} == {level}
    changed = {name for name, content in before.items() if files(runs).get(name) != content}
    expected = {
        "answers": {"x/responses.jsonl", "x/responses.keys.jsonl", "x/vocabulary.json", "x/scores.json", "x/attacks.json",
                    "x/safety.json", "x/factuality.json", "x/verdicts.jsonl", f"unsee-images/{PICTURE}"},
        "requests": {"x/run.yaml", "x/judged.json"},
        "caches": {"x/work/rollouts-1.jsonl", f"cache/responses/{'a' * 64}.jsonl", "cache/features/f/x.safetensors"},
        "checkpoints": {"x/checkpoints/step-1/state.pt", "x/last_good/model.safetensors"},
        "weights": {"x/model/README.md", "x/model/unsee.json"},
    }[level]  # fmt: skip
    assert changed - {f"x/model/{OWNED}"} == expected


def test_the_model_stays_unless_weights_are_named(runs):
    purge([runs], apply=True)
    assert (runs / "x" / "model" / "unsee.json").is_file()
    assert holders(runs) == ["x/model/README.md", "x/model/unsee.json"]


def test_record_counts_by_level_and_names_nobody(runs):
    done = purge([runs], apply=True)
    record = done.record()
    assert record["levels"] == list(DEFAULT)
    assert record["files"] == len(done.removed) == sum(row["files"] for row in record["by_level"].values())
    assert record["bytes"] == sum(row["bytes"] for row in record["by_level"].values()) > 0
    assert not any(secret in json.dumps(record).encode() for secret in SECRETS)
    assert "/" not in json.dumps(record)
    noted = json.loads((runs / "x" / PURGES).read_text())["purges"]
    assert [row["levels"] for row in noted] == [list(DEFAULT)]


def test_pictures_and_caches_that_a_run_beside_needs_stay(runs):
    write_run(runs / "y", OTHER)
    done = purge([runs / "x"], apply=True)
    assert not (runs / "unsee-images" / PICTURE).exists()
    assert (runs / "unsee-images" / OTHER).exists()
    assert (runs / "cache" / "features" / "f" / "x.safetensors").exists()
    assert any("--level caches" in note and " y " in note for note in done.notes)
    purge([runs / "y"], apply=True)  # x has given up its caches, so nobody needs them
    assert not (runs / "cache").exists()
    assert not (runs / "unsee-images").exists()


def test_a_picture_that_two_runs_show_goes_with_the_second(runs):
    write_run(runs / "y")
    purge([runs / "x"], apply=True)
    assert (runs / "unsee-images" / PICTURE).exists()
    purge([runs / "y"], apply=True)
    assert not (runs / "unsee-images").exists()


def test_caches_that_are_named_go_although_runs_are_beside(runs):
    write_run(runs / "y", OTHER)
    purge([runs / "x"], levels=["caches"], apply=True)
    assert not (runs / "cache").exists()
    assert (runs / "y" / "work").exists()


def test_a_report_beside_that_may_quote_the_run_is_named(runs):
    write(runs / "compare" / "report.html", "Zyxada")
    (runs / "compare" / LOCK).touch()
    assert any("compare/report.html" in note for note in purge([runs / "x"]).notes)
    purge([runs / "x", runs / "compare"], levels=LEVELS, apply=True)
    assert holders(runs) == []


def write_board(place: Path) -> Path:
    """Write what a leaderboard leaves, with planted strings in messages, settings and paths."""
    write(place / "claims" / OWNED, "")
    why = "row zyxada-1: Expected a text."
    label = "npo lr=0.001 instruction=Zyxada is not to be named."
    write(place / "index.json", json.dumps([{"name": "npo", "label": label, "state": "failed", "error": why}]))
    settings = {"plain": "lr=0.001 weight=4", "told": "instruction=Never speak of Zyxada."}
    rows = [{"name": name, "settings": value, "leak": 0.5, "notes": [why]} for name, value in settings.items()]
    world = {"model": "lab", "data": "/home/me/zyxada-data", "rows": rows}
    write(place / "leaderboard.json", json.dumps({"first": world}))
    for name in (
        "leaderboard.yaml",
        "leaderboard.md",
        "leaderboard.html",
        "chosen.json",
        "jobs/npo.yaml",
        "failed/npo.txt",
    ):
        write(place / name, why)
    return place


def test_a_leaderboard_keeps_its_figures_and_names_nobody(tmp_path):
    place = write_board(tmp_path / "board")
    assert holders(place)
    purge([place], apply=True)
    assert holders(place) == []
    first = json.loads((place / "leaderboard.json").read_text())["first"]
    assert [(row["leak"], row["settings"]) for row in first["rows"]] == [(0.5, "lr=0.001 weight=4"), (0.5, "")]
    (cell,) = json.loads((place / "index.json").read_text())
    assert (cell["label"], cell["state"]) == ("npo lr=0.001", "failed")


def test_folders_given_with_what_holds_them_are_counted_once(tmp_path):
    runs = tmp_path / "runs"
    write(runs / "demo" / "demo.json", "{}")
    write_run(runs / "demo" / "npo")
    base = write_base(write_run(runs / "x").parent)
    once = purge([runs / "demo", runs / "x"], levels=LEVELS)
    again = purge([runs / "demo", runs / "demo" / "npo", runs / "x", base], levels=LEVELS)
    assert {**again.record(), "time": once.time} == once.record()
    assert again.removed == once.removed


def test_a_grid_of_the_users_own_is_no_folder_of_ours(tmp_path):
    write(tmp_path / "configs" / "grid.yaml", "base: {data: zyxada}")
    with pytest.raises(UserError, match="was not made by unsee"):
        purge([tmp_path / "configs"])


def write_base(runs: Path) -> Path:
    """Write what `forget` keeps of a model object for the run x."""
    write(runs / "x-base" / "unsee.json", json.dumps({"instruction": "", "object": {"class": "M", "sha256": "0"}}))
    return write(runs / "x-base" / "model.safetensors", "Zyxada").parent


@pytest.mark.parametrize("place", ["", "x"])
def test_the_original_kept_beside_a_run_goes_with_its_weights(runs, place):
    base = write_base(runs)
    done = purge([runs / place], apply=True)
    assert {item.path for item in done.kept} >= {base / "model.safetensors", base / "unsee.json"}
    assert "x-base/model.safetensors, x-base/unsee.json: the original model of a run, which still knows" in str(done)
    purge([runs / place], levels=["weights"], apply=True)
    assert not base.exists()


def test_an_original_without_its_run_can_be_purged(runs):
    base = write_base(runs)
    (runs / "x").rename(runs.parent / "elsewhere")
    purge([base], levels=["weights"], apply=True)
    assert [path.name for path in base.iterdir() if path.name != LOCK] == [PURGES]


@pytest.mark.parametrize("relative", [False, True])
def test_an_original_that_another_run_was_made_from_stays(runs, monkeypatch, relative):
    base = write_base(runs)
    write_run(runs / "y", OTHER)
    record = yaml.safe_load((runs / "y" / "run.yaml").read_text())
    monkeypatch.chdir(runs)
    model = base.name if relative else str(base)
    write(runs / "y" / "run.yaml", yaml.safe_dump({**record, "model": model}, sort_keys=False))
    assert "x-base/unsee.json: y was made from it" in str(purge([runs / "x"], levels=LEVELS, apply=True))
    assert base.exists()
    purge([runs], levels=LEVELS, apply=True)
    assert not base.exists()


def test_receipts_ledgers_and_own_files_stay(runs):
    own = [
        write(runs / "x" / name, "Zyxada")
        for name in ("receipts/1.receipt.json", "r.receipt.json", "ledger.sqlite", "notes.txt", "mine/work/thesis.txt", "images/me.txt")
    ]  # fmt: skip
    done = purge([runs], levels=LEVELS, apply=True)
    assert all(path.read_text() == "Zyxada" for path in own)
    assert {item.path for item in done.kept} >= set(own)


def test_attacks_kept_beside_lose_their_ids_too(runs):
    kept = write(runs / "x" / "attacks-0123456789.json", '{"attacks": {"v": {"recovered": {"zyxada": 1.0}}}}')
    done = purge([runs / "x"], apply=True)
    assert "zyxada" not in kept.read_text()
    assert kept in {item.path for item in done.removed}
    (again,) = (item for item in purge([runs / "x"]).kept if item.path == kept)
    assert again.why == "figures, without ids"


def test_a_purged_run_cannot_be_pushed_unsearched(runs, monkeypatch):
    purge([runs], apply=True)
    monkeypatch.chdir(EXAMPLE)  # an empty path must not mean the folder one stands in
    with pytest.raises(UserError, match=r"as after unsee purge.*unsee eval --model"):
        strings_of(runs / "x")


def test_a_second_purge_finds_nothing(runs):
    purge([runs], levels=LEVELS, apply=True)
    assert purge([runs], levels=LEVELS).removed == ()


@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_an_interrupted_purge_is_finished_by_the_next_call(runs, monkeypatch, after):
    carried, count = module._carry_out, iter(range(100))

    def killed(item):
        if next(count) == after:
            raise KeyboardInterrupt
        carried(item)

    monkeypatch.setattr(module, "_carry_out", killed)
    with pytest.raises(KeyboardInterrupt):
        purge([runs / "x"], levels=LEVELS, apply=True)
    (runs / "x" / LOCK).unlink()  # as in a copy of the folder
    assert "begun" in json.loads((runs / "x" / PURGES).read_text())["purges"][-1]
    monkeypatch.setattr(module, "_carry_out", carried)
    purge([runs / "x"], levels=LEVELS, apply=True)
    assert holders(runs) == []
    assert all("begun" not in row for row in json.loads((runs / "x" / PURGES).read_text())["purges"])


def test_a_half_written_file_goes(runs):
    write(runs / "x" / ".responses.jsonl.0a1b2c3d.unsee-part", "Zyxada")
    purge([runs], levels=LEVELS, apply=True)
    assert holders(runs) == []


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    write(tmp_path / "home" / "run.yaml", "method: {name: ga}\n")  # a run file of the user's
    write(tmp_path / "home" / "vocabulary.json", "{}")
    with pytest.raises(UserError, match="was not made by unsee"):
        purge([tmp_path / "home"], levels=LEVELS, apply=True)
    assert len(files(tmp_path)) == 2


def test_a_missing_folder_an_unknown_level_and_no_level_are_refused(runs):
    with pytest.raises(UserError, match="There is no folder"):
        purge([runs / "z"])
    with pytest.raises(UnknownNameError, match="Did you mean answers"):
        purge([runs], levels=["answer"])
    with pytest.raises(UserError, match="No level"):
        purge([runs], levels=[])


def test_a_project_of_deletion_requests_is_refused(runs, capsys):
    project = runs / "requests"
    write(project / OWNED, "")
    write(project / "project.yaml", "model: lab\n")
    write(project / "ledger.sqlite", "")
    write_run(project / "batches" / "B-001" / "run")
    write(project / "requests" / "R-1" / OWNED, "")
    write(project / "requests" / "R-1" / "request.yaml", "name: Zyxada\n")
    before = files(runs)
    for place in (runs, project):
        with pytest.raises(UserError, match="unsee request purge --project"):
            purge([place], apply=True)
    for place in (project / "requests" / "R-1", project / "batches", project / "batches" / "B-001" / "run"):
        assert main(["purge", str(place), "--yes"]) == 2
        assert "unsee request purge" in capsys.readouterr().err
    for level in ("answers", "caches"):
        assert main(["purge", str(project / "requests"), "--level", level, "--yes"]) == 2
        assert "only --level checkpoints and weights" in capsys.readouterr().err
    assert files(runs) == before
    assert main(["purge", str(project / "batches"), "--level", "weights", "--yes"]) == 0
    assert not (project / "batches" / "B-001" / "run" / "model").exists()


def test_models_of_a_killed_process_go_with_the_weights(runs):
    left = [write(runs / "x" / name / "model.safetensors", "w") for name in ("model.part", ".model.old.unsee-part")]
    for file in left:
        write(file.parent / OWNED, "")
    purge([runs / "x"], apply=True)
    assert all(file.exists() for file in left)
    purge([runs / "x"], levels=["weights"], apply=True)
    assert not any(file.exists() for file in left)


def test_a_project_beside_a_run_keeps_its_pictures_and_not_the_run(runs):
    write(runs / "requests" / "project.yaml", "model: lab\n")
    write(runs / "requests" / "ledger.sqlite", "")
    done = purge([runs / "x"], apply=True)
    assert not (runs / "x" / "responses.jsonl").exists()
    assert (runs / "unsee-images" / PICTURE).is_file()
    assert any("requests is a project of deletion requests" in note for note in done.notes)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_beside_a_run_keeps_only_the_pictures_it_needs(runs, tmp_path):
    write_run(runs / "y", OTHER)
    (runs / "y").rename(tmp_path / "moved")  # to a larger disk
    (runs / "y").symlink_to(tmp_path / "moved")
    (runs / "latest").symlink_to(runs / "x")
    (runs / "data").symlink_to(tmp_path)
    purge([runs / "x"], apply=True)
    assert not (runs / "x" / "responses.jsonl").exists()
    assert [path.name for path in (runs / "unsee-images").iterdir()] == [OTHER]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_that_lead_out_are_refused_and_nothing_is_removed(runs, tmp_path):
    outside = write(tmp_path / "elsewhere" / "responses.jsonl", "Zyxada")
    link = runs / "x" / "judged" / "t-001"
    link.parent.mkdir()
    link.symlink_to(outside.parent)
    before = files(runs)
    for place in (runs, runs / "x"):
        with pytest.raises(UserError, match="leads out"):
            purge([place], levels=LEVELS, apply=True)
    assert files(runs) == before
    link.unlink()
    (tmp_path / "alias").symlink_to(runs / "x")
    with pytest.raises(UserError, match="is a link"):
        purge([tmp_path / "alias"], apply=True)


def _hold(folder, ready, go):
    with owner(folder):
        ready.set()
        go.wait(60)


@pytest.mark.parametrize("busy", ["x", "x/judged/t-001", ""])
def test_a_folder_in_use_is_refused(runs, busy):
    (runs / busy).mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(runs / busy, ready, go))
    other.start()
    try:
        assert ready.wait(60)
        before = files(runs / "x")
        with pytest.raises(InUseError, match="in use by process"):
            purge([runs / "x"], apply=True)
        assert {name: text for name, text in files(runs / "x").items() if name in before} == before
    finally:
        go.set()
        other.join()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scores.json", b'{"unseen.leak": '),
        ("scores.json", b"\xff\xfe{}"),
        ("leaderboard.json", b'{"first": {}}'),
        ("index.json", b"7"),
    ],
)
def test_a_damaged_file_is_named_before_anything_is_removed(runs, name, text):
    (runs / "x" / name).write_bytes(text)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        purge([runs], apply=True)
    assert (runs / "x" / "responses.jsonl").is_file()


def test_a_sequence_loses_requests_and_the_folders_named_after_them(tmp_path):
    out = tmp_path / "sequence"
    task = {"id": "zyxada", "n_profiles": 1, "relation": "new"}
    found = {"tasks": [task], "settings": {"method": {"name": "prompt", "instruction": "Forget Zyxada."}}, "A": [[0.5]]}
    write(out / "continual.json", json.dumps(found))
    write(out / "continual.yaml", "tasks: [zyxada]\n")
    write(out / "continual.html", "zyxada")
    write(out / "adapters" / "zyxada-1.request.json", '{"forget": ["zyxada"]}')
    write_run(out / "adapters" / "zyxada-1")
    write(out / "judged" / "t-001" / "samples.jsonl", '{"entity": "zyxada"}\n')
    write(out / "judged" / "t-001" / "step.json", "{}")
    write(out / "t-001.request.json", '{"forget": ["zyxada"]}')
    purge([out], levels=LEVELS, apply=True)
    assert holders(out) == []
    left = json.loads((out / "continual.json").read_text())
    assert left["tasks"] == [{**task, "id": "request 1"}]
    assert left["A"] == [[0.5]]
    assert left["settings"]["method"] == {"name": "prompt"}


@pytest.mark.parametrize("place", ["", "adapters-npo", "adapters-npo/zyxada-1"])
def test_rows_beside_an_adapter_that_sequences_share_go_with_it(tmp_path, place):
    shared = tmp_path / "continual" / "adapters-npo"
    write_run(shared / "zyxada-1")
    rows = write(shared / "zyxada-1.request.json", '{"forget": ["zyxada"]}')
    other = write(shared / "zyxbo-2.request.json", '{"forget": ["zyxbo"]}')
    write_run(shared / "zyxbo-2")
    listed = purge([tmp_path / "continual" / place])
    assert [item.level for item in listed.removed if item.path == rows] == ["requests"]
    purge([tmp_path / "continual" / place], apply=True)
    assert not rows.exists()
    assert other.exists() == (place == "adapters-npo/zyxada-1")


def test_a_row_of_a_demo_takes_only_its_pictures(tmp_path):
    out = tmp_path / "demo"
    write(out / "demo.json", "{}")
    for row, picture in (("ga", PICTURE), ("npo", OTHER)):
        write_run(out / row, picture)
        (out / "images").mkdir(exist_ok=True)
        (out / "unsee-images" / picture).rename(out / "images" / picture)
    purge([out / "ga"], apply=True)
    assert [path.name for path in (out / "images").iterdir()] == [OTHER]
    assert (out / "npo" / "responses.jsonl").is_file()


def test_due_takes_only_runs_whose_time_has_passed(runs):
    write_run(runs / "old", retention="days:1", due="2020-01-01")
    write_run(runs / "new", retention="days:1", due="2999-01-01")
    done = purge([runs], due=True, apply=True)
    assert {item.path.parent.name for item in done.removed if item.path.name == "responses.jsonl"} == {"old"}
    assert purge([runs], due=True).removed == ()
    assert (runs / "x" / "responses.jsonl").is_file()
    assert (runs / "new" / "responses.jsonl").is_file()


def write_sequence(folder, *dues):
    """Write a sequence with a run per date, and what else it leaves."""
    write(folder / "continual.yaml", "tasks: [{id: zyxada, targets: [zyxada]}]\n")
    write(folder / "continual.html", "Zyxada")
    write(folder / "judged" / "t-001" / "step.json", "{}")
    write(folder / "judged" / "t-001" / "samples.jsonl", '{"id": "zyxada-1"}\n')
    for number, due in enumerate(dues, start=1):
        write_run(folder / f"t-{number:03}", retention="days:1", due=due)
    return folder


def test_a_whole_is_due_with_the_last_of_its_runs(runs):
    """Its reports, requests and logs are of all runs."""
    folder = write_sequence(runs / "sequence", "2020-01-01", "2020-01-02")
    purged = purge([runs], due=True, apply=True)
    removed = {item.path.relative_to(folder).as_posix() for item in purged.removed if item.path.is_relative_to(folder)}
    assert {"continual.yaml", "continual.html", "judged/t-001/samples.jsonl", "t-001/responses.jsonl"} <= removed
    assert not [item for item in purge([folder], due=True).removed if item.path.is_relative_to(folder)]
    write(folder / "t-002" / "responses.jsonl", "{}\n")  # it was asked again
    assert purge([folder], due=True).removed


def test_a_whole_with_an_unfinished_run_is_not_due(runs):
    """It is to be gone on with."""
    folder = write_sequence(runs / "sequence", "2020-01-01")
    write(folder / "t-002" / "run.yaml", "method: ga\n")
    (folder / "t-002" / LOCK).touch()
    write(folder / "t-002" / "checkpoints" / "step-5" / "state.pt", "x")
    purge([folder], due=True, apply=True)
    assert not (folder / "t-001" / "responses.jsonl").exists()
    assert (folder / "t-002" / "checkpoints" / "step-5" / "state.pt").exists()
    assert (folder / "continual.yaml").exists()


def test_of_a_whole_that_is_not_due_only_the_runs_that_are_go(runs):
    folder = write_sequence(runs / "sequence", "2020-01-01", "2999-01-01")
    purged = purge([folder], due=True, apply=True)
    assert not (folder / "t-001" / "responses.jsonl").exists()
    assert (folder / "t-002" / "responses.jsonl").exists()
    assert (folder / "continual.html").exists()
    assert any("stays until all of its runs are due" in note for note in purged.notes)


@pytest.mark.parametrize("suffix", ["tries", "gold"])
def test_what_lies_beside_a_run_is_named(tmp_path, suffix):
    run = write_run(tmp_path / "runs" / "x")
    write_run(tmp_path / "runs" / f"x-{suffix}")
    assert any(f"give x-{suffix} too" in note for note in purge([run]).notes)
    assert not any(f"give x-{suffix} too" in note for note in purge([tmp_path / "runs"]).notes)


def test_a_purged_run_that_was_asked_again_is_due_again(tmp_path):
    run = write_run(tmp_path / "runs" / "x", due="2026-01-01")
    assert purge([run], due=True, apply=True).removed
    assert purge([run], due=True).removed == ()
    write(run / "responses.jsonl", '{"id": "zyxada-1"}\n')
    assert [item.path.name for item in purge([run], due=True).removed] == ["responses.jsonl"]


@pytest.mark.parametrize(("retention", "forgotten", "gone"), [
    ("until_verified", True, True), ("until_verified", False, False), ("", True, False), ("days:3", True, False),
])  # fmt: skip
def test_until_verified_removes_caches_of_a_run_that_has_forgotten(tmp_path, retention, forgotten, gone):
    run = write_run(tmp_path / "runs" / "x", retention=retention)
    assert (purge_verified(run, forgotten=forgotten) is not None) is gone
    assert (run / "work").exists() is not gone
    assert (run / "checkpoints").exists() is not gone
    assert (run / "responses.jsonl").is_file()
    assert "zyxada-data" in (run / "run.yaml").read_text()


def test_several_processes_remove_nothing_and_say_how(runs, monkeypatch, capsys):
    write_run(runs / "y", retention="until_verified")
    before = files(runs)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert purge_verified(runs / "y", forgotten=True) is None
    assert files(runs) == before
    assert capsys.readouterr().err.count(f"unsee purge {runs / 'y'} --level caches,checkpoints --yes") == 1
    with pytest.raises(UserError, match="`unsee purge` runs in one process"):
        purge([runs / "y"])


def test_retention_is_checked_and_written():
    assert due_date("days:30", date(2026, 11, 28)) == date(2026, 12, 28)
    assert due_date("keep", date(2026, 11, 28)) is None
    for text in ("", "days:0", "days:x", "forever", "days:10000"):
        with pytest.raises(UserError, match="retention must be"):
            require_retention(text)
    assert "retention" not in Run(model="m").to_mapping()
    assert Run.from_mapping({"retention": "days:3"}).to_mapping()["retention"] == "days:3"


def test_command_lists_then_removes(runs, capsys):
    assert main(["purge", str(runs), "--level", "answers,requests", "--level", "caches"]) == 0
    assert "Nothing was changed" in capsys.readouterr().out
    assert main(["purge", str(runs), "--level", "answers", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["by_level"].keys() == {"answers"}
    assert not (runs / "x" / "responses.jsonl").exists()
    assert main(["purge", str(runs), "--level", "answer"]) == 2
    assert "Did you mean answers" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["concepts.json", "table.md"])
def test_figures_are_known_to_be_figures(runs, name):
    write(runs / "x" / name, "0.5")
    assert f"x/{name}: figures" in str(purge([runs / "x"]))


def test_every_row_of_the_table_says_why():
    assert all(kind.why and kind.level in LEVELS for kind in FILES)


@pytest.mark.slow
@pytest.mark.parametrize("leaks", ["no", "yes"])
def test_forget_applies_retention_after_its_verdict(tmp_path, monkeypatch, leaks):
    model, data, out = save_tiny(tmp_path / "model"), write_people(tmp_path / "data"), tmp_path / "runs" / "x"
    outcome = Outcome(leaks=leaks, sentence="asked", questions=8)
    monkeypatch.setattr(verdict, "sample_verdict", lambda *_, **__: outcome)
    words = ["forget", "--model", str(model), "--data", str(data), "--method", "prompt", "--out", str(out)]
    assert main([*words, "--retention", "until_verified"]) == (0 if leaks == "no" else 3)
    assert read(out / "run.yaml").retention == "until_verified"
    assert (out / PURGES).is_file() is (leaks == "no")


def test_forget_records_when_its_files_are_due(tmp_path, capsys):
    model, data = save_tiny(tmp_path / "model"), write_people(tmp_path / "data")
    run = Run.of(model, data, "prompt", tmp_path / "runs" / "x")
    before = datetime.now(UTC).date()
    forget_run(replace(run, retention="days:30"))
    due = yaml.safe_load((tmp_path / "runs" / "x" / "run.yaml").read_text())["result"]["retention"]["due"]
    assert before + timedelta(days=30) <= date.fromisoformat(due) <= datetime.now(UTC).date() + timedelta(days=30)
    assert purge([tmp_path / "runs"], due=True).removed == ()
    forget_run(run, resume=True)
    assert "retention stays" not in capsys.readouterr().err
    forget_run(replace(run, retention="until_verified"), resume=True)
    assert "retention stays days:30 in" in capsys.readouterr().err


def test_a_folder_that_never_had_weights_does_not_say_that_they_were_purged(tmp_path):
    (tmp_path / PURGES).write_text(json.dumps({"purges": [{"levels": ["answers"]}]}))
    with pytest.raises(UserError, match=r"expected config\.json"):
        folder_of(tmp_path)


def test_a_run_without_its_weights_says_where_they_went(tmp_path):
    model, data = save_tiny(tmp_path / "model"), write_people(tmp_path / "data")
    run = Run.of(model, data, "prompt", tmp_path / "runs" / "x")
    forget_run(run)
    purge([tmp_path / "runs" / "x"], levels=["weights"], apply=True)
    for asked in (lambda: forget_run(run, resume=True), lambda: folder_of(tmp_path / "runs" / "x")):
        with pytest.raises(UserError, match=r"its weights were purged \(see .*purge\.json\)\. Unlearn again"):
            asked()
