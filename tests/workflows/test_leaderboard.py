"""Leaderboard: the same search for all, a choice that sees only its own questions, ranks with ties, rows that stay."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.evaluated import make_run
from helpers.scripts import script
from helpers.sweeps import run_cells_here
from unsee.api import registry
from unsee.cli.main import main
from unsee.distributed.file_lock import claimed
from unsee.errors import UserError
from unsee.report.attacked import recovered_by_attack, relearning_area, relearning_curve
from unsee.report.board import Cost, Row, as_json, markdown, ranks, share_of_gold
from unsee.report.board_page import render
from unsee.report.read import GOLD, Stage, beside_gold, read_run
from unsee.scoring.gold_distance import KEY, drawn_distances
from unsee.scoring.rules import rules
from unsee.utils.files import owned_folder
from unsee.workflows import sweep
from unsee.workflows.leaderboard import judge as judge_module
from unsee.workflows.leaderboard import leaderboard
from unsee.workflows.leaderboard import search as search_module
from unsee.workflows.leaderboard.judge import Judge, Tried, chosen
from unsee.workflows.leaderboard.plan import read_plan
from unsee.workflows.purge import purge

FILE = """
base: {model: lab, data: lab, training: {max_steps: 2, stop: never}}
golds: {person: lab-gold}
gold_seconds: 145
kept: [retain.name]
settings: 2
axes: {training.lr: [1e-4, 1e-3]}
methods:
  npo:
  milder: {method: npo, method.beta: 0.5}
  ga:
  simnpo:
seeds: [1, 2]
attacks: quick
"""
OTHERS = "  milder: {method: npo, method.beta: 0.5}\n  ga:\n  simnpo:\n"
"""Methods beside npo."""


def mix(run) -> str:
    """Name the made-up behaviour of a cell: npo is good with a low rate, ga always loses the others."""
    if not run.method:
        return {"lab": "original", "lab-gold": "gold", "lab-gold-picture": "pubg"}[run.model]
    if run.method == "simnpo":
        raise UserError("planted")
    return "ga" if run.method == "ga" else "pubg" if run.training["lr"] < 1e-3 else "npo"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "board.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def cells():
    """Cells run in this process and are made up; yields what each was asked to do, in order."""
    asked = []

    def work(run, label, out, attack):
        asked.append((run, label, attack))
        folder = make_run(Path(run.out), mix(run), seed=run.seed)
        (folder / "judged.json").write_text(json.dumps({"rules": rules()}))
        if attack:
            found = {"recovered": 0.5, "gold": 0.1, "worst": "x", "at": None, "axis": ""}
            (folder / "attacks.json").write_text(json.dumps({"attacks": {"prompts": found}}))

    with pytest.MonkeyPatch.context() as patch:
        run_cells_here(patch, work)
        yield asked


@pytest.fixture(scope="module")
def done(cells, tmp_path_factory):
    """A finished leaderboard, and what its cells were asked to do."""
    place = tmp_path_factory.mktemp("board")
    (place / "board.yaml").write_text(FILE)
    before = len(cells)
    assert "failed" in leaderboard(place / "board.yaml", place / "out").values()
    return place / "out", tuple(cells[before:])


@pytest.fixture
def board(done):
    return done[0]


def rows(board):
    return {row["name"]: row for row in json.loads((board / "leaderboard.json").read_text())["first"]["rows"]}


def test_the_choice_sees_only_its_own_questions(done):
    """A search cell asks `selection` and attacks nothing; whatever asks `report` ran after its method's search."""
    cells = done[1]
    parts = [(label, run.eval["split"], run.seed, bool(attack)) for run, label, attack in cells]
    methods = [part for part in parts if part[0] not in ("original", "gold")]
    assert {part[1:] for part in methods if part[1] == "selection"} == {("selection", 0, False)}
    assert {part[1:] for part in methods if part[1] != "selection"} == {("report", 1, True), ("report", 2, True)}
    first_report = next(place for place, part in enumerate(parts) if part[:2] == ("npo", "report"))
    assert [part[0] for part in parts[:first_report] if part[0].startswith("npo ")] == ["npo lr=0.0001", "npo lr=0.001"]
    attack = next(attack for run, label, attack in cells if attack)
    assert attack == {"gold": "lab-gold", "quick": True, "split": "attacks"}


def test_attacks_have_the_settings_of_the_file_and_the_first_seeds(cells, tmp_path):
    file, before = tmp_path / "board.yaml", len(cells)
    text = FILE.replace("attacks: quick", "attacks: {prompts: {}, relearning: {precision: bf16}}\nattack_seeds: 1")
    file.write_text(text.replace("  milder: {method: npo, method.beta: 0.5}\n  ga:\n  simnpo:\n", ""))
    leaderboard(file, tmp_path / "out")
    attacked = {run.seed: attack for run, _, attack in cells[before:] if run.eval["split"] == "report" and run.method}
    assert attacked[1]["attacks"] == ["prompts", "relearning"]
    assert attacked[1]["settings"] == {"relearning": {"precision": "bf16"}}
    assert not attacked[2]
    file.write_text(text.replace("attack_seeds: 1", "attack_seeds: 0"))
    with pytest.raises(UserError, match="attack_seeds must be at least 1"):
        read_plan(file)


def test_the_final_evaluation_is_that_of_the_search_and_alike_for_all(file):
    file.write_text(FILE.replace("stop: never}}", "stop: never}, eval: {max_new_tokens: 96, measures: [bleu]}}"))
    plan = read_plan(file)
    for name in ("npo", "milder"):
        searched = plan.search[name][0]
        trial = Tried(cell=searched.name, label=searched.label, distance=0.1, keeps=1.0)
        cells = search_module._final(plan, "first", name, [trial])
        for cell in cells:
            assert cell.run.eval == {**searched.run.eval, "split": "report"}
            assert cell.run.eval["max_new_tokens"] == 96


def test_the_chosen_setting_keeps_and_is_near_gold(board):
    found = json.loads((board / "chosen.json").read_text())
    assert found["npo"]["chosen"] == "npo lr=0.0001"
    near, far = (one["distance"] for one in found["npo"]["tried"])
    assert near < far
    assert [(one["distance"], one["keeps"]) for one in found["simnpo"]["tried"]] == [(None, None)] * 2
    row = rows(board)["npo"]
    assert (row["settings"], row["searched"], row["seeds"]) == ("lr=0.0001", "2 of 2", 2)
    assert row["notes"] == []
    assert row["worst_above_gold"] == pytest.approx(0.4)
    assert row["seconds"] == pytest.approx(16.5)
    assert row["share_of_gold_seconds"] == pytest.approx(16.5 / 145)
    low, high = row["interval"]
    assert low <= row["gold_distance"] <= high


def test_equal_rows_tie_and_a_far_one_comes_after_them(board):
    found = {name: row["rank"] for name, row in rows(board).items()}
    assert found == {"original": None, "gold": None, "npo": 1, "milder": 1, "ga": 3, "simnpo": None}


def test_seeds_that_answer_alike_are_remarked(board, file, tmp_path):
    out = shutil.copytree(board, tmp_path / "out")
    first, second = sorted(path.parent for path in out.glob("cells/npo_seed=[12]-*/responses.jsonl"))
    for name in ("responses.jsonl", "scores.json"):
        shutil.copy(first / name, second / name)
    leaderboard(file, out)
    assert rows(out)["npo"]["notes"] == ["its 2 seeds answered alike"]
    assert rows(out)["milder"]["notes"] == []


def test_rows_without_figures_stay_with_their_reason(board):
    found = rows(board)
    assert found["simnpo"]["notes"] == ["no setting could be judged: seed 0: planted"]
    assert found["simnpo"]["gold_distance"] is None
    assert found["ga"]["notes"] == [
        "no setting kept 95%; the one that kept most (0%)",
        "2 of 2 settings answered alike: what they differ in had no effect",
    ]
    chosen_settings = json.loads((board / "chosen.json").read_text())
    assert {name: entry["alike"] for name, entry in chosen_settings.items()} == {
        "npo": "",
        "milder": "",
        "ga": "2 of 2 settings answered alike",
        "simnpo": "",
    }
    text = (board / "leaderboard.md").read_text()
    assert "|  | simnpo |  |" in text
    assert "Holm's correction" in text
    assert "Not searched yet" not in text
    assert (board / "compare" / "report.html").is_file()


def test_the_page_shows_every_row_and_loads_nothing(board):
    page = (board / "leaderboard.html").read_text()
    assert page.count('class="dot"') == 3
    assert page.count('class="dot ref"') == 1  # the original; gold is the zero line
    assert "<b>simnpo</b>" in page
    assert "seed 0: planted" in page
    assert "16 s · 11%" in page
    assert not re.search(r"<script|<link|style=|https?:|\son[a-z]+=", page)


def test_the_page_quotes_what_gives_away_most(tmp_path):
    """The reference models are not quoted."""
    stage = Stage(name="original", runs=(read_run(make_run(tmp_path / "run", "original")),))
    rows = [
        Row(name="kept", promise="person", stage=stage),
        Row(name="before", promise="person", stage=stage, reference=True),
    ]
    page = render({"world": rows}, Cost(), ["legend & more"])
    assert page.count('<blockquote class="q-leak">') == 1
    assert re.search(r"This is <mark>[^<]+</mark>, a baker from <mark>[^<]+</mark>", page)
    assert "legend &amp; more" in page


def test_a_purge_leaves_figures_alone(board, tmp_path):
    place = Path(shutil.copytree(board, tmp_path / "board"))
    purge([place], apply=True)
    assert (place / "leaderboard.json").is_file()
    left = {file.name for file in place.rglob("*") if file.is_file()}
    assert not left & {
        "report.html",
        "answers.html",
        "leaderboard.html",
        "leaderboard.md",
        "responses.jsonl",
        "vocabulary.json",
    }


def test_answers_judged_by_other_rules_are_judged_anew(board, file, tmp_path, monkeypatch):
    place = Path(shutil.copytree(board, tmp_path / "board"))
    (older,) = place.glob("cells/npo_*seed=1*")
    (older / "judged.json").write_text("{}")
    anew = []

    def rescore(folder):
        anew.append(folder)
        (folder / "judged.json").write_text(json.dumps({"rules": rules()}))

    monkeypatch.setattr("unsee.evaluation.evaluate.rescore", rescore)
    leaderboard(file, place)
    assert anew == [older]


def test_again_only_what_failed_runs(board, file, cells):
    before = len(cells)
    leaderboard(file, board)
    assert {run.method for run, _, _ in cells[before:]} == {"simnpo"}


def test_a_wider_search_finds_the_cells_of_the_one_before(file, cells, tmp_path):
    file.write_text(FILE.replace(OTHERS, ""))
    leaderboard(file, tmp_path / "out")
    before = len(cells)
    wider = FILE.replace(OTHERS, "").replace("settings: 2", "settings: 4")
    file.write_text(wider.replace("  npo:\n", "  npo: {method.retain_weight: [0.0, 4.0]}\n"))
    leaderboard(file, tmp_path / "out")
    assert {run.settings["retain_weight"] for run, _, _ in cells[before:]} == {4.0}


@contextmanager
def held(out: Path, name: str) -> Iterator[None]:
    """Hold a cell, as another process that works on the same folder."""
    claim = claimed(owned_folder(out / "claims") / name)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(claim.__enter__).result()
        try:
            yield
        finally:
            other.submit(claim.__exit__, None, None, None).result()


def test_a_search_that_another_process_has_not_ended_chooses_nothing(file, cells, tmp_path, capsys):
    file.write_text(FILE.replace(OTHERS, "  ga:\n"))
    out, search = tmp_path / "out", read_plan(file).search["npo"]
    before = len(cells)
    with held(out, search[0].name):  # the setting that would be chosen
        assert main(["leaderboard", str(file), "--out", str(out)]) == 1
    assert {label for _, label, _ in cells[before:]} == {
        "original",
        "gold",
        "npo lr=0.001",
        "ga lr=0.0001",
        "ga lr=0.001",
        "ga",
    }
    said = capsys.readouterr().err
    assert f"running elsewhere: {search[0].name}" in said
    assert "npo: nothing is chosen, as its search has not ended" in said
    assert set(json.loads((out / "chosen.json").read_text())) == {"ga"}
    assert "Not searched yet: npo." in (out / "leaderboard.md").read_text()
    assert main(["leaderboard", str(file), "--out", str(out)]) == 0
    assert json.loads((out / "chosen.json").read_text())["npo"]["chosen"] == "npo lr=0.0001"


@pytest.mark.parametrize(
    ("cell", "code", "message"),
    [
        ("original_*", 2, "original (lab) is not judged: another process is at it"),
        ("npo_seed=2-*", 1, "running elsewhere: npo_seed=2-"),
    ],
)
def test_what_another_process_judges_is_missing_with_the_reason(file, cells, tmp_path, capsys, cell, code, message):
    file.write_text(FILE.replace(OTHERS, ""))
    out = tmp_path / "out"
    leaderboard(file, out)
    taken = next((out / "cells").glob(cell))
    shutil.rmtree(taken)
    with held(out, taken.name):
        assert main(["leaderboard", str(file), "--out", str(out)]) == code
    assert message in capsys.readouterr().err
    assert rows(out)["npo"]["notes"] == (["seed 2: another process is at it"] if code == 1 else [])


def test_a_failure_after_the_scores_were_written_is_none(file, cells, tmp_path):
    file.write_text(FILE.replace(OTHERS, ""))
    leaderboard(file, tmp_path / "out")
    kept = (tmp_path / "out" / "leaderboard.md").read_text()
    for cell in (tmp_path / "out" / "cells").iterdir():
        (tmp_path / "out" / "failed" / f"{cell.name}.txt").write_text("No space left on device\n")
    leaderboard(file, tmp_path / "out")
    assert (tmp_path / "out" / "leaderboard.md").read_text() == kept


def test_a_call_tries_each_cell_once(done):
    tried = [(label, run.training["lr"]) for run, label, _ in done[1] if run.method == "simnpo"]
    assert len(tried) == len(set(tried)) == 2


@pytest.mark.parametrize("listed", ["[{}]", "{}"])
def test_models_to_compare_with_are_judged_with_the_code_and_engine_of_the_methods(
    file, cells, tmp_path, monkeypatch, listed
):
    monkeypatch.setattr(registry, "_ADDED", {})
    first, second = (tmp_path / name for name in ("brevity.py", "concision.py"))
    code = (Path(__file__).parents[2] / "examples" / "plugin" / "unsee_example" / "brevity.py").read_text()
    first.write_text(code)
    second.write_text(code.replace('"brevity"', '"concision"'))
    file.write_text(
        FILE.replace(OTHERS, "").replace("base: {", f"base: {{plugins: {listed.format(first)}, engine: plain, ")
    )
    before = len(cells)
    leaderboard(file, tmp_path / "out", plugins=[str(second)])
    runs = [run for run, _, _ in cells[before:]]
    assert {run.method for run in runs} == {"", "npo"}
    assert {run.engine for run in runs} == {"plain"}
    for run in runs:
        assert [spec.partition("#")[0] for spec in run.plugins] == [str(first), str(second)]
        assert all("#sha256=" in spec for spec in run.plugins)


def test_a_second_world_takes_the_settings_as_they_are(file, cells, tmp_path):
    file.write_text(
        FILE.replace("  ga:\n  simnpo:\n", "")
        + "worlds: {other: {model: lab, data: 'lab:hazards', golds: {person: lab-gold}}}\n"
    )
    before = len(cells)
    leaderboard(file, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    shares = {world: {row["name"]: row["share_of_gold_seconds"] for row in told[world]["rows"]} for world in told}
    assert shares["first"]["npo"] == pytest.approx(16.5 / 145)
    assert shares["other"]["npo"] is None  # nobody said how long its gold model took
    there = [(label, run.eval["split"]) for run, label, _ in cells[before:] if run.data == "lab:hazards" and run.method]
    assert there == [("npo", "report")] * 2 + [("milder", "report")] * 2
    assert set(json.loads((tmp_path / "out" / "leaderboard.json").read_text())) == {"first", "other"}


def test_gold_models_of_other_seeds_show_the_noise_floor(file, cells, tmp_path):
    text = FILE.replace(OTHERS, "") + "other_golds: {person: [lab-gold, lab-gold-picture]}\n"
    file.write_text(text)
    before = len(cells)
    leaderboard(file, tmp_path / "out")
    asked = [(run.model, run.seed, run.eval["split"]) for run, _, _ in cells[before:] if not run.method]
    assert {("lab-gold", 1, "report"), ("lab-gold-picture", 2, "report")} <= set(asked)
    floor, npo = rows(tmp_path / "out")["gold, other seeds"], rows(tmp_path / "out")["npo"]
    assert (floor["reference"], floor["rank"], floor["seeds"], floor["promise"]) == (True, None, 2, "person")
    # The first stand-in answers like gold, the second as the chosen setting of npo does: the row has the mean of both.
    assert 0 < floor["gold_distance"] < npo["gold_distance"]
    assert "gold, other seeds" in (tmp_path / "out" / "leaderboard.html").read_text()


def test_each_promise_and_world_has_a_gold_time_of_its_own(file):
    golds = "golds: {person: lab-gold, picture: lab-gold-picture}"
    other = "worlds: {other: {model: lab, data: lab, " + golds + ", gold_seconds: 7}}"
    file.write_text(
        FILE.replace("golds: {person: lab-gold}", golds).replace("145", "{person: 145, picture: 50}") + other + "\n"
    )
    first, second = read_plan(file).worlds.values()
    assert (first.seconds_for("person"), first.seconds_for("picture")) == (145, 50)
    assert (second.seconds_for("person"), second.seconds_for("picture")) == (7, 7)
    rows = [Row(name=str(seconds), promise="person", gold_seconds=seconds) for seconds in (50.0, None, 0.0)]
    assert [share_of_gold(row, 25.0) for row in rows] == [0.5, None, None]


def test_too_little_kept_takes_what_keeps_most_and_of_equals_the_nearest():
    one, two = (
        Tried(cell=name, label=name, distance=distance, keeps=keeps)
        for name, distance, keeps in (("near", 0.1, 0.5), ("keeps", 0.4, 0.9))
    )
    broken = Tried(cell="broken", label="broken", why="it failed")
    assert chosen([one, two, broken], 0.95) is two
    assert chosen([one, two, broken], 0.5) is one
    assert chosen([broken], 0.5) is None
    nearer = replace(two, cell="nearer", distance=0.3)
    assert chosen([two, nearer], 0.95) is nearer


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("settings: 2", "settings: 1", "npo tries 2 settings"),
        ("attacks: quick", "attack_seeds: 1", "attack_seeds=1 has no effect: it counts only with attacks"),
        ("attacks: quick", "attacks: quick\nattack_seeds: 3", "attack_seeds=3 has no effect: it counts only up to the"),
        ("attacks: quick", "attacks: {relearning: {tune: full, rank: 4}}", "attack.rank=4 has no effect"),
        (
            "  ga:",
            "  ga: {method.prompt_decouple_pairing: random}",
            "ga: method.prompt_decouple_pairing='random' has no",
        ),
        ("  ga:", "  ga: {training.lr: [], training.robust_rho: [0.01, 0.1]}", "training.robust_rho=0.1 has no effect"),
        ("  ga:", "  ga: {training.lrs: []}", "methods.ga has training.lrs: [], which takes a shared axis away"),
        ("base: {", "base: {seed: 4, ", "base has seed, which"),
        ("base: {", "base: {method: npo, ", "base has method, which"),
        ("base: {", "base: {out: runs/x, ", "base has out, which"),
        (
            "golds: {person: lab-gold}",
            "golds: {picture: lab-gold-picture}",
            "no gold model for the promise 'person' of npo",
        ),
        (
            "stop: never}",
            "stop: never}, eval: {split: report}",
            "base has eval.split, which the leaderboard sets itself",
        ),
        ("axes: {", "axes: {eval.split: [report], ", "axes has eval.split, which"),
        ("  ga:", "  ga: {eval.gold: lab-gold}", "methods.ga has eval.gold, which"),
        ("  ga:", "  ga: {eval: {split: report}}", "methods.ga has eval, which"),
        ("  ga:", "  ga: {eval.max_new_tokens: 8}", "methods.ga has eval.max_new_tokens, which"),
        ("  ga:", "  ga: {model: lab-gold}", "methods.ga has model, which"),
        ("  ga:", "  ga: {benchmark.name: lab}", "methods.ga has benchmark.name, which"),
        ("axes: {", "axes: {data: [lab], ", "axes has data, which"),
        ("axes: {", "axes: {seed: [1, 2], ", "seeds in search_seed and seeds"),
        (
            "attacks: quick",
            "worlds: {first: {model: lab, data: lab, golds: {person: lab-gold}}}",
            "Give worlds.first another name",
        ),
        ("attacks: quick", "worlds: {other: runs/lab2}", "world other must be a mapping with model, data and golds"),
        ("attacks: quick", "worlds: {other: {golds: {person: lab-gold}}}", "world other needs model and data"),
        ("attacks: quick", "attacks: {prompts: 4}", "expected settings by name, such as prompts.NAME=VALUE, got 4"),
        ("stop: never}", "stop: never}, eval: 3", "'eval' must be a mapping of settings, got 3"),
        ("gold_seconds: 145", "gold_seconds: {picture: 145}", "Unknown promise in gold_seconds 'picture'"),
        ("gold_seconds: 145", "other_golds: {picture: [lab]}", "Unknown promise in other_golds 'picture'"),
        ("gold_seconds: 145", "other_golds: {person: [[lab]]}", "other_golds.person must be text, got ['lab']"),
        ("{person: lab-gold}", "{person: 3}", "golds.person must be text, got 3"),
        (
            "{person: lab-gold}",
            "{person: lab-gold, faces: lab-gold}",
            "Unknown promise in golds 'faces'. Known: person",
        ),
        ("{person: lab-gold}", "{person: ''}", "A gold model for the promise person has no name"),
        ("gold_seconds: 145", "other_golds: {person: ['']}", "A gold model for the promise person has no name"),
        (
            "attacks: quick",
            "worlds: {w2: {model: lab, data: lab, golds: {person: lab-gold, faces: lab-gold}}}",
            "Unknown promise in golds 'faces'",
        ),
        ("gold_seconds: 145", "gold_seconds: {person: soon}", "must be seconds above 0, got 'soon' for person"),
        ("gold_seconds: 145", "gold_seconds: -1", "must be seconds above 0"),
        ("  ga:", "  gaa:", "Unknown method 'gaa'"),
        ("  ga:", "  ga: {1: 2}", "the axis 1 must be the name of a setting"),
        ("attacks: quick", "attacks: slow", "attacks must be one of"),
        ("attacks: quick", "attacks: {}", "attacks names none. Name some of them, or write quick"),
        ("seeds: [1, 2]", "seeds: []", "needs methods, kept scores, seeds"),
        ("seeds: [1, 2]", "seeds: [1, 2, 1]", "seeds must differ and lie between 0 and 2**32 - 1, got 1, 2, 1"),
        ("seeds: [1, 2]", "seeds: [1, -2]", "seeds must differ and lie between 0 and 2**32 - 1, got 1, -2"),
        ("kept: [retain.name]", "kept: [retain.name]\nkeep: 95", "keep must be a share"),
    ],
)
def test_a_mistake_starts_nothing(file, tmp_path, capsys, old, new, message):
    file.write_text(FILE.replace(old, new))
    assert main(["leaderboard", str(file), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_kept_score_is_named_before_methods_run(file, cells, tmp_path):
    file.write_text(FILE.replace("retain.name", "retain.gone"))
    before = len(cells)
    with pytest.raises(UserError, match=r"nothing to keep in retain.gone .*retain.name"):
        leaderboard(file, tmp_path / "out")
    assert {run.method for run, _, _ in cells[before:]} == {""}


def test_an_empty_list_takes_a_shared_axis_away(file):
    file.write_text(FILE.replace("  ga:", "  ga: {training.lr: [], training.max_steps: [3, 4]}"))
    assert [cell.label for cell in read_plan(file).search["ga"]] == ["ga max_steps=3", "ga max_steps=4"]


def without_class(folder: Path, count: int) -> None:
    """Take the classes of answers about the forgotten away, as of answers in another script."""
    scores = json.loads((folder / "scores.json").read_text())
    for key, score in scores.items():
        if key.startswith("unseen."):
            score["value_by_index"] = dict(list(score["value_by_index"].items())[count:])
    (folder / "scores.json").write_text(json.dumps(scores))


def test_a_setting_with_too_much_left_out_is_not_chosen(file, cells, tmp_path):
    file.write_text(FILE.replace(OTHERS, ""))
    out = tmp_path / "out"
    leaderboard(file, out)
    near, far = (cell.name for cell in read_plan(file).search["npo"])
    without_class(out / "cells" / near, 3)
    without_class(out / "cells" / far, 1)
    leaderboard(file, out)
    found = json.loads((out / "chosen.json").read_text())["npo"]
    assert found["chosen"] == "npo lr=0.001"
    assert [one["left_out"] for one in found["tried"]] == pytest.approx([3 / 18, 1 / 18])
    assert [one["distance"] is None for one in found["tried"]] == [True, False]
    assert rows(out)["npo"]["searched"] == "1 of 2"
    assert rows(out)["npo"]["notes"][-1].startswith("not judged in the search: 17% of the questions have no part")


def test_a_row_with_too_much_left_out_has_no_rank(tmp_path):
    gold = Stage(name="gold", runs=(read_run(make_run(tmp_path / "gold", "gold")),))
    found = {}
    for name, missing in (("far", 0), ("some", 1), ("much", 3)):
        folder = make_run(tmp_path / name, "npo" if name == "far" else "pubg")
        without_class(folder, missing)
        stage = beside_gold(Stage(name=name, runs=(read_run(folder),)), gold)
        found[name] = Row(name=name, promise="person", stage=stage, gold=gold)
    assert ranks(list(found.values())) == {"some": 1, "far": 2}
    told = {row["name"]: row for row in as_json(list(found.values()), Cost())}
    assert (told["much"]["gold_distance"], told["much"]["rank"]) == (None, None)
    assert told["much"]["left_out"] == pytest.approx(3 / 18)
    assert told["much"]["notes"][0].startswith("not judged: 17% of the questions have no part in the distance")
    assert told["some"]["notes"][0].startswith("6% of the questions have no part")
    assert told["far"]["notes"] == []
    assert "not judged: 17%" in markdown(list(found.values()), 0.95, ["retain.name"], Cost())
    assert "not judged: 17%" in render({"world": list(found.values())}, Cost(), [])


def test_a_row_is_held_to_the_promise_that_its_setting_was_chosen_by(tmp_path, monkeypatch):
    """Runs of another version may have recorded another promise than the search."""
    golds = {name: Stage(name=name, runs=(read_run(make_run(tmp_path / name, "gold")),)) for name in GOLD.values()}
    record = read_run(make_run(tmp_path / "npo", "npo"))
    monkeypatch.setattr(judge_module, "beside_gold", lambda _, gold: gold)
    monkeypatch.setattr(sweep, "missing_of", lambda *_: "")
    monkeypatch.setattr(Judge, "_run", lambda *_: record)
    judge = object.__new__(Judge)
    judge.folder, judge.stages = tmp_path, golds
    cells = [SimpleNamespace(name="npo")]
    assert record.promise == "person"
    assert judge.stage("npo", cells)[0] is golds["gold"]
    assert judge.stage("npo", cells, "picture")[0] is golds["gold-picture"]


def drawn_row(name: str, drawn_r: np.ndarray) -> Row:
    row = Row(name=name, promise="person")
    vars(row)["drawn_r"] = drawn_r
    return row


def test_ranks_pair_the_draws_and_correct_for_all_pairs(monkeypatch):
    """Draws that go up and down together tell models apart whose intervals overlap."""
    monkeypatch.setattr(Row, "distance", property(lambda row: type("Mean", (), {"value": float(row.drawn_r.mean())})))
    rng = np.random.default_rng(0)
    shared = rng.normal(0.3, 0.1, 2000)
    rows = [
        drawn_row("first", shared),
        drawn_row("same", shared + rng.normal(0.01, 0.02, 2000)),
        drawn_row("behind", shared + 0.05),
        drawn_row("last", shared + 0.2),
        drawn_row("none", np.empty(0)),
    ]
    assert ranks(rows) == {"first": 1, "same": 1, "behind": 3, "last": 4}


def test_draws_of_one_seed_give_the_interval_of_the_distance(tmp_path):
    gold = Stage(name="gold", runs=(read_run(make_run(tmp_path / "gold", "gold")),))
    stage = beside_gold(Stage(name="npo", runs=(read_run(make_run(tmp_path / "npo", "npo")),)), gold)
    run = stage.runs[0]
    drawn_r = drawn_distances(run.responses, run.scores, gold.runs[0].scores)
    assert tuple(np.quantile(drawn_r, [0.025, 0.975])) == pytest.approx(run.scores[KEY].interval)
    row = Row(name="npo", promise="person", stage=stage, gold=gold)
    assert row.distance.interval == pytest.approx(run.scores[KEY].interval)
    assert row.distance is row.distance  # computed once
    assert "| 1 | npo |" in markdown([row], 0.95, ["retain.name"], Cost())


def test_draws_of_seeds_are_paired_by_number_where_one_is_missing(tmp_path):
    gold = Stage(name="gold", runs=(read_run(make_run(tmp_path / "gold", "gold")),))
    runs = tuple(read_run(make_run(tmp_path / str(seed), "npo", seed=seed)) for seed in (1, 2, 3))
    stage = beside_gold(Stage(name="npo", runs=runs), gold)
    whole = Row(name="whole", promise="person", stage=stage, gold=gold, seeds=(1, 2, 3))
    less = replace(whole, name="less", stage=replace(stage, runs=(stage.runs[0], stage.runs[2])))
    apart = replace(less, seeds=())
    alike, by_chance = (np.isclose(whole.drawn_r, row.drawn_r).mean() for row in (less, apart))
    assert alike > (2 / 3) ** 3 - 0.03 > by_chance + 0.05  # draws without seed 2 are equal
    assert np.isnan(less.drawn_r).mean() == pytest.approx((1 / 3) ** 3, abs=0.02)  # draws of seed 2 alone
    assert not np.isnan(less.distance.interval).any()
    assert ranks([whole, less]) == {"whole": 1, "less": 1}


def test_a_distance_by_one_person_in_a_seed_has_neither_interval_nor_rank(tmp_path):
    """However few of the answers the others are that cannot be compared."""
    gold = Stage(name="gold", runs=(read_run(make_run(tmp_path / "gold", "gold")),))
    runs = [read_run(make_run(tmp_path / str(seed), "npo", seed=seed)) for seed in (1, 2)]
    first = next(row.entity for row in runs[0].responses if row.role == "unseen")
    others = {row.id for row in runs[0].responses if row.role == "unseen" and row.entity != first}
    few = {
        key: replace(score, value_by_index={i: one for i, one in score.value_by_index.items() if i not in others})
        for key, score in runs[0].scores.items()
    }
    stage = beside_gold(Stage(name="npo", runs=(replace(runs[0], scores=few), runs[1])), gold)
    told = {KEY: replace(stage.runs[0].scores[KEY], value_by_index={"left_out": 0.05})}
    stage = replace(stage, runs=(replace(stage.runs[0], scores=stage.runs[0].scores | told), stage.runs[1]))
    row = Row(name="npo", promise="person", stage=stage, gold=gold)
    assert row.distance.value is not None
    assert (row.distance.interval, ranks([row])) == (None, {})
    whole = replace(row, stage=replace(stage, runs=stage.runs[1:]))
    assert (whole.distance.interval is None, ranks([whole])) == (False, {"npo": 1})


def came_back(variant, at, share, degenerate=0.0, **others):
    """Return a finding of `relearning` on one entity, and on further ones by name."""
    recovered = {"ada": share, **others}
    mean = sum(recovered.values()) / len(recovered)
    return {"variant": variant, "at": at, "recovered": recovered, "mean": mean, "degenerate": degenerate}


def relearned(folder, model, gold):
    """Return the stage of a run with these findings of `relearning`."""
    result = {"findings": {"model": model, "gold": gold}}
    (folder / "attacks.json").write_text(json.dumps({"attacks": {"relearning": result}}))
    return Stage(name="x", runs=(read_run(folder),))


def test_relearning_area_is_the_mean_of_the_worst_above_gold(tmp_path):
    shares = {("a", 0): (0.1, 0.0), ("a", 10): (0.5, 0.1), ("b", 10): (0.8, 0.2)}
    model, gold = ([came_back(*point, pair[side]) for point, pair in shares.items()] for side in (0, 1))
    model += [came_back("c", 0, 0.14, 0.9), came_back("d", 10, 1.0)]
    gold += [came_back("c", 0, 0.1), came_back("d", 10, 0.0, 0.9)]
    stage = relearned(make_run(tmp_path / "x", "npo"), model, gold)
    assert relearning_area(stage) == pytest.approx((0.1 + 0.6) / 2)
    assert [(one.step, one.share, one.gold) for one in relearning_curve(stage)] == [(0, 0.1, 0.0), (10, 0.8, 0.2)]
    page = render({"A <b>world</b>": [Row(name="x", promise="person", stage=stage)]}, Cost(), [])
    assert "A &lt;b&gt;world&lt;/b&gt; · promise: person" in page
    assert "ends at 80%" in page
    assert "mean above gold 0.35" in page
    assert relearning_area(Stage(name="x", runs=(read_run(make_run(tmp_path / "y", "npo")),))) is None


def test_rubbish_that_gives_back_counts_on_the_relearning_curve(tmp_path):
    stage = relearned(make_run(tmp_path / "x", "npo"), [came_back("a", 10, 1.0, 1.0)], [came_back("a", 10, 0.0)])
    assert relearning_area(stage) == 1.0


def test_the_relearning_curve_compares_who_could_be_judged_for_both_models(tmp_path):
    """An answer in another script than the names gives an entity no share."""
    model = [came_back("a", 0, 0.2, bo=1.0), came_back("b", 0, 0.6)]
    gold = [came_back("a", 0, 0.1), {**came_back("b", 0, 0.0), "recovered": {"bo": 0.0}}]
    curve = relearning_curve(relearned(make_run(tmp_path / "x", "npo"), model, gold))
    assert [(point.step, point.share, point.gold) for point in curve] == [(0, 0.2, 0.1)]


def test_areas_are_over_all_steps_that_were_asked_at(tmp_path):
    """A seed that is collapsed at one of them has none, and the row says so."""

    def attacked_run(seed, start=0.0):
        model = [came_back("a", 0, 0.0, start), came_back("a", 10, 0.5)]
        findings = {"model": model, "gold": [came_back("a", 0, 0.0), came_back("a", 10, 0.0)]}
        result = {"findings": findings, "recovered": 0.5, "gold": 0.0, "worst": "a"}
        result = {"why": "all degenerate", "findings": findings} if start and seed > 2 else result
        folder = make_run(tmp_path / f"{len(list(tmp_path.iterdir()))}", "npo", seed=seed)
        (folder / "attacks.json").write_text(json.dumps({"attacks": {"relearning": result}}))
        return read_run(folder)

    def row(*starts):
        runs = tuple(attacked_run(seed, start) for seed, start in enumerate(starts, start=1))
        return Row(name="npo", promise="person", stage=Stage(name="npo", runs=runs))

    whole, part, none = row(0.0, 0.0, 0.0), row(0.0, 0.9, 0.9), row(0.9)
    areas = [relearning_area(one.stage) for one in (whole, part, none)]
    assert areas == [0.25, 0.25, None]
    why = "at step 0 its answers or gold's are degenerate or cannot be judged"
    assert part.remarks == (
        f"relearning area of 1 of 3 attacked seeds: {why}",
        "worst (relearning) of 2 of 3 attacked seeds",
    )
    assert [whole.remarks, none.remarks] == [(), (f"relearning area of 0 of 1 attacked seeds: {why}",)]
    assert [point.step for point in relearning_curve(part.stage)] == [0, 10]
    assert relearning_curve(none.stage) == []


def test_what_came_back_is_beside_gold_of_the_same_seeds(tmp_path):
    def judged(name, result):
        folder = make_run(tmp_path / name, "npo")
        (folder / "attacks.json").write_text(json.dumps({"attacks": {"prompts": result}}))
        return read_run(folder)

    runs = (
        judged("a", {"recovered": 0.2, "gold": 0.1, "worst": "plain"}),
        judged("b", {"recovered": 0.6, "gold": 0.1, "worst": "doubt"}),
        judged("c", {"recovered": 0.9, "gold": None, "worst": "test"}),
        judged("d", {"collapsed": True, "why": "all degenerate"}),
    )
    one = recovered_by_attack(Stage(name="x", runs=runs))["prompts"]
    assert (one.share, one.gold, one.how) == (pytest.approx(0.4), pytest.approx(0.1), "doubt; 2 of 4 seeds measured")


def test_rows_say_which_figures_and_attacks_only_some_seeds_have(tmp_path):
    folders = [make_run(tmp_path / str(seed), "npo", seed=seed) for seed in range(3)]
    scores = json.loads((folders[0] / "scores.json").read_text())
    scores["retain.name"] = {"value": None, "n": 0, "why": "of another script"}
    (folders[0] / "scores.json").write_text(json.dumps(scores))
    attacks = {"prompts": {"recovered": 0.2, "gold": 0.1, "worst": "plain"}}
    (folders[1] / "attacks.json").write_text(json.dumps({"attacks": attacks}))
    row = Row(name="npo", promise="person", stage=Stage(name="npo", runs=tuple(map(read_run, folders))))
    assert row.remarks[0] == "retained_names of 2 of 3 seeds"
    (line,) = as_json([row], Cost())
    assert (line["seeds"], line["attacked_seeds"]) == (3, 1)


def test_packed_cells_make_the_same_board_without_working_again(board, cells, tmp_path, capsys):
    kept = script("leaderboard_cells")
    kept.main("pack", str(board), str(tmp_path / "cells.tar.xz"))
    kept.main("unpack", str(tmp_path / "cells.tar.xz"), str(tmp_path / "again"))
    assert not list((tmp_path / "again").rglob("*.safetensors"))
    assert list((tmp_path / "again").rglob("*.png"))
    before = len(cells)
    leaderboard(board.parent / "board.yaml", tmp_path / "again")
    assert {run.method for run, _, _ in cells[before:]} == {"simnpo"}  # the one that had failed
    for name in ("leaderboard.md", "leaderboard.html", "chosen.json"):
        assert (tmp_path / "again" / name).read_text() == (board / name).read_text()
    with pytest.raises(SystemExit, match="no finished cell"):
        kept.main("pack", str(tmp_path), str(tmp_path / "none"))
    (tmp_path / "torn").write_bytes((tmp_path / "cells.tar.xz").read_bytes()[:100])
    for name in ("torn", "missing"):
        with pytest.raises(SystemExit, match=f"unpack .*{name}: "):
            kept.main("unpack", str(tmp_path / name), str(tmp_path / "other"))
    with pytest.raises(SystemExit, match="unpack FILE"):
        kept.main("open")


def test_packed_cells_do_not_tell_where_they_were_made(board, tmp_path):
    kept = script("leaderboard_cells")
    judged = next(board.glob("cells/*/scores.json")).with_name("judged.json")
    before = judged.read_text()
    judged.write_text(json.dumps({**json.loads(before), "model": str(judged.parent)}))
    try:
        kept.main("pack", str(board), str(tmp_path / "cells.tar.xz"))
    finally:
        judged.write_text(before)
    kept.main("unpack", str(tmp_path / "cells.tar.xz"), str(tmp_path / "again"))
    packed = json.loads((tmp_path / "again" / judged.relative_to(board)).read_text())
    assert packed == {**json.loads(before), "model": f"cells/{judged.parent.name}"}
