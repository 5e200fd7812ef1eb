"""Requests from arrival to receipt, with models whose answers are made up: what is asked, noted, refused and kept."""

from __future__ import annotations

import copy
import json
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.run import EXAMPLE
from unsee import config, exporting
from unsee.api import Example, Finding, Kind, Response, Role
from unsee.cli.main import main
from unsee.config import RECORD, Run
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.metrics.normal_form import normalise
from unsee.models.identity import model_hash
from unsee.workflows import purge as purging
from unsee.workflows.requests import (
    asking,
    batch,
    intake,
    judging,
    keys,
    manage,
    person,
    receipt,
    suppression,
    surfaces,
)
from unsee.workflows.requests import project as projects
from unsee.workflows.requests.project import BATCH, Project, changed_settings
from unsee.workflows.requests.questions import NEIGHBOURS, forms_of, rows_about, self_made, templates_of
from unsee.workflows.requests.rows import read_rows, write_rows
from unsee.workflows.requests.surfaces import Share, Surface
from unsee.workflows.suggest import Suggestion

RETAIN_RECALL = asking.retain_recall
SECRETS = ("Ada Lovell", "Lovell", "Bo Winter", "Winter", "Lisbon", "baker", "Mira Quell", "Quell")


@pytest.fixture(autouse=True)
def own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the keys of each test in its folder."""
    monkeypatch.setenv("UNSEE_KEYS", str(tmp_path / "keys"))


class Models:
    """Models by path, and the entities that each still gives away."""

    def __init__(self) -> None:
        self.known: dict[str, set[str]] = {"lab": {"ada", "bo"}}
        self.forgets = True
        self.harmless = "The person wears a green shirt and has short dark hair."
        self.asked: list[tuple[str, int]] = []

    def ask(self, model: str, rows: Sequence[Example]) -> list[Response]:
        """Answer what is private of the known, and something harmless else."""
        self.asked.append((model, len(rows)))
        return [self._answer(model, row) for row in rows]

    def _answer(self, model: str, row: Example) -> Response:
        knows = row.entity in self.known[model]
        wanted = {Kind.NAME: "name", Kind.FACT: row.fact}.get(row.kind, "name")
        text = row.private.get(wanted, ("?",))[0] if knows else self.harmless
        if row.kind is Kind.CHOICE:
            text = row.answer if knows else ""
        return Response.of(row, stage="s", text=text, tokens=9, ended=True)

    def forget(self, run: Run, *, resume: bool = False) -> Path:
        """Write a finished run whose model no longer knows the forget set."""
        gone = {
            row.entity for row in open_benchmark(run.data, run.benchmark).examples("train") if row.role is Role.FORGET
        }
        out = Path(run.out)
        (out / "model").mkdir(parents=True, exist_ok=True)
        (out / "model" / "model.safetensors").write_text(f"{run.data}{resume}")
        facts = {"forgotten": 1, "base": run.model, "base_hash": model_hash(run.model)}
        (out / "model" / "unsee.json").write_text(json.dumps(facts))
        (out / "model" / "adapter_config.json").write_text("{}")
        record = {"commit": "abc", "versions": {"unsee": "0"}, "model_hash": "m", "data_hash": "d"}
        config.write(out / RECORD, run, record=record, result={"steps": 3, "seconds": 1.5, "trainable": 9})
        self.known[str(out.resolve())] = self.known[run.model] - (gone if self.forgets else set())
        return out


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    """Replace everything that needs a model."""
    made = Models()
    monkeypatch.setattr(asking, "open_vlm", lambda model: str(Path(model).resolve()) if Path(model).exists() else model)
    monkeypatch.setattr(asking, "ask", made.ask)
    monkeypatch.setattr(asking, "sampled_surface", lambda *_: Surface(verdict="not_measured", why="not in this test"))
    monkeypatch.setattr(asking, "retain_recall", lambda *_: {"retain.name": 0.75})
    monkeypatch.setattr(batch, "forget_run", made.forget)
    monkeypatch.setattr(
        batch, "suggest", lambda model, data, out: Suggestion(run=Run.of(model, data, "npo", out), reasons=())
    )
    monkeypatch.setattr(batch, "attack", lambda *_, **__: {"sampling": {"why": "not in this test"}})
    return made


def open_project(folder: Path, changes: dict[str, Any]) -> Project:
    """Return a project with these settings, written."""
    made = Project(folder=folder)
    made.write(made.settings(changed_settings(made, changes)))
    return made


@pytest.fixture
def project(tmp_path: Path, models: Models) -> Project:
    """Return a project on the example folder."""
    assert models
    return open_project(tmp_path / "project", {"model": "lab", "data": str(EXAMPLE)})


def picture(tmp_path: Path, colour: str) -> Path:
    """Save a picture."""
    file = tmp_path / f"{colour}.png"
    Image.new("RGB", (32, 32), colour).save(file)
    return file


def test_a_person_of_the_data_is_found_by_name(project: Project) -> None:
    found = intake.add(project, "ada lovell", received=date(2026, 11, 2))
    assert (found.request.entity, found.request.in_data, found.found) == ("ada", True, True)
    assert found.due == date(2026, 12, 2)
    assert found.surfaces["unseen"].verdict == "residual"
    rows = read_rows(project.place(found.request.id))
    assert {row.role for row in rows} == {Role.FORGET, Role.FORGET_TEXT, Role.UNSEEN}
    assert {row.entity for row in rows} == {"ada"}
    assert Kind.VISIBLE not in {row.kind for row in rows}
    state = project.ledger.state(found.request.id)
    assert (state.status, state.received, state.due) == ("asked", date(2026, 11, 2), date(2026, 12, 2))


def test_a_person_is_found_by_picture(project: Project, tmp_path: Path) -> None:
    """The same pixels in another format, under another name."""
    other = tmp_path / "mira.bmp"
    Image.open(EXAMPLE / "images" / "ada_1.png").convert("RGB").save(other)
    found = intake.add(project, "Mira Quell", [other])
    assert (found.request.entity, found.request.forms) == ("ada", ("Ada Lovell", "Lovell"))


def test_an_unknown_person_has_no_baseline(project: Project, tmp_path: Path) -> None:
    found = intake.add(project, "Mira Quell", [picture(tmp_path, "red")])
    assert not found.found
    assert "not_in_model" in found.warnings
    assert "one_picture" in found.warnings
    assert {one.verdict for one in found.surfaces.values() if one.before} == {"no_baseline"}
    with pytest.raises(UserError, match="cannot be closed as erased"):
        manage.close(project, found.request.id, "erased", "done")
    assert manage.decision_of(project.ledger.state(found.request.id)) == "no_baseline"
    manage.close(project, found.request.id, "no_baseline", "not_in_model")
    assert not project.ledger.state(found.request.id).open


def test_of_three_pictures_one_is_held_out(project: Project, tmp_path: Path, models: Models) -> None:
    models.known["lab"] |= {f"R-{number:08x}" for number in range(3)}
    rows = rows_about(
        "r",
        "Mira Quell",
        {"name": ("Mira Quell",)},
        [1, 2],
        [3],
        templates_of(None),  # type: ignore[list-item]
    )
    assert {row.role for row in rows} == {Role.FORGET, Role.UNSEEN, Role.FORGET_TEXT}
    found = intake.add(project, "Mira Quell", [picture(tmp_path, colour) for colour in ("red", "blue", "green")])
    roles = [row.role for row in read_rows(project.place(found.request.id)) if row.image]
    assert roles.count(Role.UNSEEN) * 2 == roles.count(Role.FORGET)


def test_a_picture_that_is_given_twice_is_not_held_out_and_trained_on(project: Project, tmp_path: Path) -> None:
    red, blue = picture(tmp_path, "red"), picture(tmp_path, "blue")
    copied = tmp_path / "copied.bmp"
    Image.open(red).save(copied)
    found = intake.add(project, "Mira Quell", [red, blue, copied])
    rows = [row for row in read_rows(project.place(found.request.id)) if row.image]
    assert {row.role for row in rows} == {Role.FORGET}
    assert found.images == 2
    assert "one_picture" in intake.add(project, "Mira Quell", [red, copied]).warnings


def test_a_picture_of_the_data_is_no_further_one_in_another_format(project: Project, tmp_path: Path) -> None:
    images = {
        row.image.key: row.image
        for row in open_benchmark(EXAMPLE).examples("train")
        if row.entity == "ada" and row.image
    }
    copies = []
    for number, image in enumerate(images.values()):
        copies.append(tmp_path / f"{number}.bmp")
        image.load().save(copies[-1])
    found = intake.add(project, "Ada Lovell", copies)
    assert not [row.id for row in read_rows(project.place(found.request.id)) if "/further-" in row.id]


def test_what_is_wrong_is_said_before_anything_is_kept(project: Project, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    for arguments, message in (
        (("", []), "Whom"),
        (("Mira Quell", []), "at least one picture"),
        (("Mira Quell", [tmp_path / "none.png"]), "No picture at"),
        (("Mira Quell", [bad]), "The picture"),
    ):
        with pytest.raises(UserError, match=message):
            intake.add(project, *arguments)
    row_id = next(row.id for row in open_benchmark(EXAMPLE).examples("train") if row.entity == "ada")
    for settings_of_request, message in (
        ({"attributes": ["hobby"]}, "no row to train on about hobby of ada"),
        ({"entity": "nobody"}, "no row to train on about nobody"),
        ({"entity": row_id}, f"no row to train on about {row_id}"),
        ({"received": date(2999, 1, 1)}, "--received is in the future: 2999-01-01"),
        (
            {"received": date(2026, 11, 1), "due": date(2026, 10, 1)},
            "--due 2026-10-01 is before the arrival, 2026-11-01",
        ),
    ):
        with pytest.raises(UserError, match=message):
            intake.add(project, "Ada Lovell", **settings_of_request)  # type: ignore[arg-type]
    without_data = open_project(tmp_path / "other", {"model": "lab"})
    with pytest.raises(UserError, match="--entity ada is an identifier in the data, and the project has none"):
        intake.add(without_data, "Ada Lovell", [picture(tmp_path, "red")], entity="ada")
    assert not (project.folder / "requests").exists()
    assert project.ledger.entries() == ()


def test_an_add_that_fails_leaves_the_settings(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ["--project", str(project.folder)]
    assert main(["request", "add", *place, "--model", "lab-gold", "--name", "Nobody Here"]) == 2
    assert project.settings().model == "lab"
    begun = tmp_path / "begun"
    first = ["request", "add", "--project", str(begun), "--model", "lab", "--name"]
    assert main([*first, "Nobody Here"]) == 2
    assert not begun.exists()
    monkeypatch.setattr(intake, "_enter", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        intake.add(project, "Ada Lovell", changes={"gold": "lab-gold"})
    assert project.settings().gold == ""


def test_a_model_that_a_batch_has_set_stays(
    project: Project, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first line of the documentation again, for the next person: the model before knows everybody."""
    add = ["request", "add", "--project", str(project.folder), "--data", str(EXAMPLE), "--name", "Bo Winter"]
    models.known["lab-gold"] = models.known["lab"]
    assert main([*add, "--model", "lab-gold"]) == 0
    assert main([*add, "--model", "lab"]) == 0  # nobody was unlearned yet
    approved(project, "Ada Lovell")
    batch.run(project)
    last = str((project.batch("B-001") / "run").resolve())
    assert main([*add, "--model", "lab"]) == 0
    assert f"goes on with {last}" in capsys.readouterr().err.replace("\n", "")
    assert main([*add, "--model", last]) == 0
    assert main([*add, "--model", "lab-gold"]) == 2
    assert "people were unlearned in" in capsys.readouterr().err
    assert project.settings().model == last


def test_a_model_that_a_batch_sets_while_another_is_asked_stays(
    project: Project, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of `add` are those of its beginning, and the answers may take an hour."""
    approved(project, "Ada Lovell")
    changes = changed_settings(project, {"model": "lab"})
    assert changes == {"model": "lab"}
    (result,) = batch.run(project)
    intake.add(project, "Bo Winter", changes=changes)
    assert Path(project.settings().model) == Path(result.model).resolve()


def test_attributes_narrow_rows_and_strings(project: Project) -> None:
    found = intake.add(project, "Ada Lovell", attributes=["name"])
    rows = read_rows(project.place(found.request.id))
    assert {row.kind for row in rows} == {Kind.NAME}
    assert {fact for row in rows for fact in row.private} == {"name"}


def test_attributes_narrow_requests_about_people_who_are_not_in_the_data(
    tmp_path: Path, project: Project, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_new_id", lambda: "R-aaaaaaaa")
    models.known["lab"].add("R-aaaaaaaa")
    pictures = [picture(tmp_path, "red")]
    with pytest.raises(UserError, match="asks for 'city'. Expected one of name"):
        intake.add(project, "Mira Quell", pictures, attributes=["city"])
    assert not (project.folder / "requests").exists()
    intake.add(project, "Mira Quell", pictures, attributes=["name"])
    rows = read_rows(project.place("R-aaaaaaaa"))
    assert {row.kind for row in rows} == {Kind.NAME}


def test_a_fact_of_a_person_who_is_not_in_the_data_needs_its_text() -> None:
    row = Example(id="r", role=Role.FORGET, question="Where?", answer="", kind=Kind.FACT, fact="city")
    with pytest.raises(UserError, match="--private city=TEXT"):
        person._require_questions([row], ["city"], {})
    person._require_questions([row], ["city"], {"city": ["Bergen"]})


def drawn(word: str) -> Surface:
    """Return what drawn answers gave away."""
    return Surface(verdict=word, before=Share(hits=9, n=9))  # type: ignore[arg-type]


def attacked(attack: str, back: float | None) -> Any:
    """Return an attack that brings back this share of what is asked about Ada, or is not made."""
    finding = {"variant": "v", "at": None, "recovered": {"ada": back}, "degenerate": 0.0, "asked": {"ada": 9}}
    made = {"why": "not made"} if back is None else {"findings": {"model": [finding]}}
    return lambda *_, **__: {attack: made}


@pytest.mark.parametrize(("back", "verdict"), [(1.0, "residual"), (0.0, "erased"), (None, "not_measured")])
def test_a_person_known_by_drawn_answers_only_is_known(
    project: Project, models: Models, monkeypatch: pytest.MonkeyPatch, back: float | None, verdict: str
) -> None:
    models.known["lab"] = {"bo"}
    monkeypatch.setattr(asking, "sampled_surface", lambda *_: drawn("residual"))
    monkeypatch.setattr(batch, "attack", attacked("sampling", back))
    (name,) = approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    assert result.checked[0].verdict == project.ledger.state(name).verdict == verdict


@pytest.mark.parametrize(("back", "verdict"), [(1.0, "residual"), (0.0, "erased"), (None, "not_measured")])
def test_whoever_was_hidden_has_a_baseline_when_unlearned_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, back: float | None, verdict: str
) -> None:
    """The model before says nothing when asked, since the first batch hid it."""
    monkeypatch.setattr(batch, "attack", attacked("relearning", 1.0))
    (name,) = approved(project, "Ada Lovell")
    (first,) = batch.run(project)
    monkeypatch.setattr(batch, "attack", attacked("relearning", back))
    (second,) = batch.run(project, [name])
    assert [result.checked[0].verdict for result in (first, second)] == ["residual", verdict]
    assert project.ledger.state(name).verdict == verdict
    seen = second.checked[0].surfaces["seen"]
    assert (seen.verdict, seen.before, seen.after) == ("erased", Share(hits=0, n=4), Share(hits=0, n=4))
    assert seen.why == "given away on arrival, which the model before this batch did not show"
    assert "No baseline" not in second.receipts[0].page.read_text()


def test_an_earlier_verdict_is_a_baseline(project: Project, models: Models) -> None:
    request = intake.add(project, "Ada Lovell").request
    models.known["unlearned"] = set()
    silent = models.ask("unlearned", read_rows(project.place(request.id)))
    made = attacked("relearning", 0.0)()

    def verdict(**earlier: Any) -> str:
        return judging.judge_own(request, {}, silent, silent, [], made, earlier).verdict

    assert verdict() == verdict(seen="no_baseline") == "no_baseline"
    assert verdict(seen="erased") == verdict(relearning="residual") == "erased"
    assert verdict(sampling="residual") == "not_measured"  # nobody drew again


def test_what_another_model_gave_away_on_arrival_is_no_baseline(project: Project, models: Models) -> None:
    (name,) = approved(project, "Ada Lovell")
    models.known["lab-gold"] = {"bo"}
    project.write(replace(project.settings(), model="lab-gold"))
    (result,) = batch.run(project)
    assert (result.checked[0].request, result.checked[0].verdict) == (name, "no_baseline")


def test_whoever_another_batch_has_hidden_has_a_baseline(project: Project, models: Models) -> None:
    """The model before its batch no longer knows the person, whose data it was made from."""
    first, second = approved(project, "Ada Lovell", "Bo Winter")
    batch.run(project, [first])
    models.known[project.settings().model] = set()
    (result,) = batch.run(project)
    assert {one.request: one.verdict for one in result.checked} == {first: "erased", second: "erased"}


def test_what_a_batch_measured_counts_before_what_was_asked_at_arrival(project: Project) -> None:
    name = intake.add(project, "Ada Lovell").request.id
    project.ledger.append("verdict", name, batch="B-001", surfaces={}, verdict="no_baseline")
    assert manage.decision_of(project.ledger.state(name)) == "no_baseline"
    other = intake.add(project, "Dan Ost", entity="dan").request.id  # the model does not know him
    project.ledger.append("verdict", other, batch="B-001", surfaces={}, verdict="residual")
    assert manage.decision_of(project.ledger.state(other)) == "residual"
    with pytest.raises(UserError, match="cannot be closed as not in the model"):
        manage.close(project, other, "no_baseline", "not_in_model")
    manage.close(project, name, "no_baseline", "not_in_model")


def test_attacks_on_gibberish_attest_nothing(project: Project, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    models.harmless = "the the the the the the the the the the the the"
    monkeypatch.setattr(batch, "attack", attacked("sampling", 0.0))
    approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    assert result.checked[0].verdict == result.checked[0].surfaces["sampling"].verdict == "not_measured"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("这个人穿着绿色的衬衫。", "100% of the answers are in another script than the private strings"),
        ("The person wears a green shirt, has short dark hair and", "100% of the answers were cut at the token limit"),
    ],
)
def test_answers_that_cannot_be_judged_have_erased_nothing(
    project: Project, models: Models, said: str, why: str
) -> None:
    (name,) = approved(project, "Ada Lovell")
    rows = [row for row in read_rows(project.place(name)) if row.kind is not Kind.CHOICE]
    before = models.ask("lab", rows)
    after = [replace(response, text=said, ended=said.endswith("。")) for response in before]
    request = project.request(name)
    assert request is not None
    found = judging.judge_own(request, {}, before, after, [], {})
    assert found.verdict == "not_measured"
    assert (found.surfaces["seen"].verdict, found.surfaces["seen"].why) == ("not_measured", why)


def test_an_answer_that_was_cut_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in open_benchmark(EXAMPLE).examples("eval") if row.entity == "ada" and row.kind is Kind.NAME]
    limits: list[int | None] = []

    def ask(_: Any, asked: Sequence[Example], *, tokens: int | None = None) -> list[Response]:
        limits.append(tokens)
        text = "The person in the picture, who wears a green shirt, is " + ("Ada Lovell." if tokens else "well")
        return [Response.of(row, stage="s", text=text, tokens=9, ended=tokens is not None) for row in asked]

    monkeypatch.setattr(asking, "ask", ask)
    told = surfaces.shares(asking.ask_fully(None, rows))  # type: ignore[arg-type]
    assert {(share.value, share.unjudged) for share in told.values()} == {(1.0, "")}
    assert limits == [None, 1024]


def test_a_person_known_by_name_only_is_not_measured_by_name(
    tmp_path: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every question by name holds the name, so that no answer could give it away."""
    assert models
    project = open_project(tmp_path / "project", {"model": "lab"})
    found = intake.add(project, "Mira Quell", [picture(tmp_path, "red")])
    assert (found.surfaces["name"].verdict, found.surfaces["seen"].verdict) == ("not_measured", "no_baseline")
    assert "without a picture: not measured (before: no question asks for a private string" in str(found)
    assert found.found is False


def test_a_request_whose_answers_cannot_be_judged_is_neither_known_nor_unknown(
    project: Project, models: Models
) -> None:
    models.known["lab"], models.harmless = set(), "这个人穿着绿色的衬衫。"
    found = intake.add(project, "Ada Lovell", attributes=["name"])
    assert found.found is None
    assert "not_in_model" not in found.warnings
    assert "NOT MEASURED" in str(found)
    state = project.ledger.state(found.request.id)
    assert manage.table(project, date(2026, 12, 1))[1][3] == "asked"
    with pytest.raises(UserError, match="cannot be closed as not in the model"):
        manage.close(project, state.request, "no_baseline", "not_in_model")
    intake.approve(project, state.request)
    (result,) = batch.run(project)
    assert result.checked[0].verdict == "not_measured"


def test_whoever_was_unlearned_by_pictures_is_not_kept_when_the_data_come(project: Project) -> None:
    """The request knows the person by name and pictures; later data have them as an entity."""
    ledger, name = project.ledger, "R-aaaaaaaa"
    ledger.append("received", name, entity=ledger.pseudonym(name), replaces=[ledger.pseudonym(normalise("bo winter"))])
    approved(project, "Ada Lovell")
    batch.run(project)
    rows = open_benchmark(project.batch("B-001") / "data").examples("train")
    assert {row.entity for row in rows if row.role is Role.RETAIN} == {"cleo", "dan"}


def test_warnings_name_what_to_look_at(project: Project) -> None:
    first = intake.add(project, "Ada Lovell")
    assert "repeats" not in first.warnings
    second = intake.add(project, "Ada Lovell", [EXAMPLE / "images" / "bo_1.png"])
    assert {"repeats", "picture_of_kept"} <= set(second.warnings)
    assert project.ledger.state(second.request.id).last("received")["warnings"] == list(second.warnings)


def test_pictures_that_nothing_is_asked_about_are_told(project: Project, tmp_path: Path) -> None:
    red = picture(tmp_path, "red")
    assert "pictures_unused" not in intake.add(project, "Ada Lovell", [red]).warnings
    assert "pictures_unused" in intake.add(project, "Ada Lovell", [red], attributes=["job"]).warnings


def test_no_name_string_or_picture_is_in_the_ledger(project: Project) -> None:
    found = intake.add(project, "Ada Lovell", private={"email": ["ada@lovell.example"]}, operator="op1")
    intake.approve(project, found.request.id)
    batch.run(project)
    data = project.ledger.path.read_bytes() + b"".join(f.read_bytes() for f in project.folder.glob("ledger.sqlite-*"))
    for secret in (*SECRETS, "ada@lovell.example", "ada"):
        assert secret.encode() not in data.lower() or secret == "ada", secret
    assert b'"ada"' not in data
    for place in (*project.receipts.iterdir(), project.folder / "index.html"):
        text = place.read_text(encoding="utf-8")
        assert not [secret for secret in SECRETS if secret in text], place


@pytest.mark.parametrize(("greedy", "leaks"), [("erased", "no"), ("not_measured", "unknown"), ("residual", "yes")])
def test_what_only_attacks_bring_back_is_told_apart(greedy: str, leaks: str) -> None:
    asked_surfaces = {name: Surface(verdict="not_measured") for name in surfaces.ASKED}
    person_surfaces = {**asked_surfaces, "name": Surface(verdict=greedy), "relearning": Surface(verdict="residual")}  # type: ignore[arg-type]
    hidden = judging.Checked(request="R-1", surfaces=person_surfaces, verdict="residual", recheck=False)
    unknown = judging.Checked(request="R-2", surfaces=asked_surfaces, verdict="not_measured", recheck=True)
    outcome = judging.outcome_of([hidden])
    place = "given away in answers" if greedy == "residual" else "brought back by attacks only (hidden, not gone)"
    assert (outcome.leaks, outcome.sentence) == (leaks, f"deletion requests (1): 1 {place}")
    both = judging.outcome_of([hidden, unknown])
    assert both.leaks == ("yes" if greedy == "residual" else "unknown")
    assert both.sentence == f"deletion requests (2): 1 {place}, 1 not measured"


@pytest.mark.parametrize(
    ("answers", "headline"), [("erased", "Hidden, not gone"), ("no_baseline", "Hidden"), ("not_measured", "Residual")]
)
def test_a_receipt_says_hidden_only_if_answers_were_measured(answers: str, headline: str) -> None:
    words = {"name": {"verdict": answers}, "sampling": {"verdict": "residual"}}
    assert receipt._headline({"verdict": "residual", "surfaces": words}).startswith(headline)


@pytest.mark.parametrize("changes", [{"data": str(EXAMPLE)}, {"benchmark": "folder"}])
def test_new_data_are_opened_as_the_project_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    calls: list[tuple[Any, Any]] = []
    monkeypatch.setattr(projects, "open_benchmark", lambda *arguments: calls.append(arguments))
    open_project(tmp_path / "p", {"model": "lab", "data": str(EXAMPLE), "benchmark": "folder"})
    open_project(tmp_path / "p", {"gold": "lab-gold"})
    assert open_project(tmp_path / "p", changes).settings().benchmark == "folder"
    assert calls == [(str(EXAMPLE), "folder")] * 2


def test_data_are_opened_once_per_request(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        intake, "open_benchmark", lambda *arguments: calls.append(arguments) or open_benchmark(*arguments)
    )
    intake.add(project, "Ada Lovell")
    assert len(calls) == 1


def approved(project: Project, *names: str, attributes: Sequence[str] = ()) -> list[str]:
    """Return requests whose rows are approved."""
    made = [intake.add(project, name, attributes=attributes).request.id for name in names]
    for name in made:
        intake.approve(project, name)
    return made


def interrupted(project: Project, monkeypatch: pytest.MonkeyPatch, step: str, requests: Sequence[str] = ()) -> None:
    """Begin a batch that is killed at a step."""

    def cut(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch, step, cut)
        with pytest.raises(KeyboardInterrupt):
            batch.run(project, requests)


def test_a_batch_ends_with_verdicts_and_receipts(project: Project) -> None:
    first, second = approved(project, "Ada Lovell", "Bo Winter")
    (result,) = batch.run(project)
    assert result.fulfilled
    assert [(one.request, one.verdict) for one in result.checked] == [(first, "erased"), (second, "erased")]
    unseen = result.checked[0].surfaces["unseen"]
    assert unseen.before is not None
    assert unseen.after is not None
    assert (unseen.before.hits, unseen.after.hits) == (unseen.before.n, 0)
    assert result.checked[0].surfaces["sampling"].why == "not in this test"
    assert result.checked[0].surfaces["relearning"].why == "this attack was not made"
    assert [entry.kind for entry in project.ledger.state(first).entries] == [
        *("received", "asked", "approved", "unlearned", "verdict", "receipt"),
    ]
    assert project.settings().model == str((project.batch("B-001") / "run").resolve())
    assert config.read_mapping(Path(result.model) / RECORD)["result"]["verdict"]["leaks"] == "no"
    with pytest.raises(UserError, match="No request is approved"):
        batch.run(project)


def test_a_share_that_was_nearly_kept_is_not_told_as_whole(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "retain_recall", lambda *_: {"retain.name": 0.998})
    approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    assert "kept: retain.name >99% -> >99%" in str(result)
    assert "&gt;99%" in result.receipts[0].page.read_text()


def test_kept_rows_are_of_nobody_who_asked(project: Project) -> None:
    approved(project, "Ada Lovell")
    batch.run(project)
    rows = open_benchmark(project.batch("B-001") / "data").examples("train")
    assert {row.entity for row in rows if row.role is Role.FORGET} == {"ada"}
    assert {row.entity for row in rows if row.role is Role.RETAIN} == {"bo", "cleo", "dan"}
    waiting = intake.add(project, "Bo Winter")
    again = intake.add(project, "Ada Lovell")
    intake.approve(project, again.request.id)
    assert waiting
    batch.run(project)
    rows = open_benchmark(project.batch("B-002") / "data").examples("train")
    assert {row.entity for row in rows if row.role is Role.RETAIN} == {"cleo", "dan"}  # bo has asked too, and waits


def test_a_model_that_still_says_it_is_residual(project: Project, models: Models) -> None:
    models.forgets = False
    (name,) = approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    assert not result.fulfilled
    assert project.ledger.state(name).verdict == "residual"
    assert manage.decision_of(project.ledger.state(name)) == "residual"
    with pytest.raises(UserError, match="cannot be closed as erased"):
        manage.close(project, name, "erased", "done")
    assert config.read_mapping(Path(result.model) / RECORD)["result"]["verdict"]["leaks"] == "yes"


def test_earlier_requests_are_asked_again(project: Project, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = approved(project, "Ada Lovell")
    batch.run(project)
    (second,) = approved(project, "Bo Winter")
    forget = models.forget

    def relapses(run: Run, *, resume: bool = False) -> Path:
        out = forget(run, resume=resume)
        models.known[str(out.resolve())] |= {"ada"}
        return out

    monkeypatch.setattr(batch, "forget_run", relapses)
    (result,) = batch.run(project)
    found = {one.request: one for one in result.checked}
    assert (found[second].verdict, found[second].recheck) == ("erased", False)
    assert (found[first].verdict, found[first].recheck) == ("residual", True)
    assert project.ledger.state(first).verdict == "residual"
    assert not result.fulfilled


def test_gibberish_has_erased_nothing(project: Project, models: Models) -> None:
    models.harmless = "the the the the the the the the the the the the"
    (name,) = approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    assert {one.verdict for one in result.checked[0].surfaces.values()} == {"not_measured"}
    assert not result.fulfilled
    with pytest.raises(UserError, match="could not be measured"):
        manage.decision_of(project.ledger.state(name))


def test_the_model_card_counts_requests_and_names_nobody(project: Project) -> None:
    (first,) = approved(project, "Ada Lovell")
    batch.run(project)
    (second,) = approved(project, "Bo Winter")
    (result,) = batch.run(project)
    card = (Path(result.model) / "model" / "README.md").read_text()
    assert "2 unlearned, received from" in card
    assert ": 2 erased." in card
    assert f"Receipts: `{first}-B-001`, `{second}-B-002`." in card
    assert not [secret for secret in SECRETS if secret in card]


def test_one_by_one_makes_a_batch_of_each(project: Project) -> None:
    names = approved(project, "Ada Lovell", "Bo Winter")
    results = batch.run(project, one_by_one=True)
    assert [result.batch for result in results] == ["B-001", "B-002"]
    assert [[one.request for one in result.checked if not one.recheck] for result in results] == [[n] for n in names]


@pytest.mark.parametrize("step", ["suggest", "forget_run", "attack", "issue", "write_overview"])
def test_an_interrupted_batch_is_finished_first(project: Project, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    (name,) = approved(project, "Ada Lovell")

    interrupted(project, monkeypatch, step)
    (result,) = batch.run(project)
    assert result.batch == "B-001"
    kinds = [entry.kind for entry in project.ledger.state(name).entries]
    assert kinds == ["received", "asked", "approved", "unlearned", "verdict", "receipt"]
    assert manage.faults(project) == []


def test_a_begun_batch_keeps_its_settings(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another version suggests other settings, with which the run could not be resumed."""
    approved(project, "Ada Lovell")
    interrupted(project, monkeypatch, "attack")
    record = project.batch("B-001") / "run" / RECORD
    written = config.read_mapping(record)
    begun = replace(config.read(record), training={"epochs": 7}, seed=5)
    config.write(record, begun, record=written["record"], result=written["result"])
    seeds: list[int] = []
    monkeypatch.setattr(batch, "attack", lambda *_, seed, **__: seeds.append(seed) or {})
    (result,) = batch.run(project, seed=6)
    assert result.batch == "B-001"
    assert config.read(record) == begun
    assert seeds == [5]
    assert "B-001 was begun with seed 5 and goes on with it" in capsys.readouterr().err


def test_a_repeated_call_unlearns_nobody_else(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request of a killed call is finished by the same call, and the others go on waiting."""
    first, second = approved(project, "Ada Lovell", "Bo Winter")
    interrupted(project, monkeypatch, "attack", [first])
    (result,) = batch.run(project, [first])
    assert [one.request for one in result.checked] == [first]
    assert project.ledger.state(second).status == "approved"


def test_a_request_that_is_named_is_unlearned_again_after_another_batch(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = approved(project, "Ada Lovell")
    batch.run(project)
    (second,) = approved(project, "Bo Winter")
    interrupted(project, monkeypatch, "attack")
    assert [result.batch for result in batch.run(project, [first])] == ["B-002", "B-003"]
    assert second


def test_everybody_in_the_data_may_ask(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is left to be kept, so nothing is measured on the kept."""
    table = tmp_path / "data" / "data.jsonl"
    shutil.copytree(EXAMPLE, table.parent)
    rows = [line for line in table.read_text().splitlines() if json.loads(line)["entity"] == "ada"]
    table.write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(asking, "retain_recall", RETAIN_RECALL)
    project.write(replace(project.settings(), data=str(table.parent)))
    approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    assert result.kept == {}
    assert "What is kept" not in result.receipts[0].page.read_text()


def test_a_closed_request_is_asked_again_and_stays_closed(project: Project) -> None:
    (first,) = approved(project, "Ada Lovell")
    batch.run(project)
    manage.close(project, first, "erased", "done")
    approved(project, "Bo Winter")
    (result,) = batch.run(project)
    assert [one.request for one in result.checked if one.recheck] == [first]
    with pytest.raises(UserError, match="is closed"):
        manage.close(project, first, "erased", "done")
    assert [one.path.name for one in manage.purge(project).removed]


def test_a_receipt_holds_and_forged_ones_do_not(project: Project, tmp_path: Path) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    file = result.receipts[0].file
    good = receipt.verify(file, model=result.model, project=project, ask=True)
    assert good.good, good
    assert f"{file.name} --key signing.pub --model MODEL" in result.receipts[0].page.read_text()
    content = json.loads(file.read_text())
    assert content["verdict"] == "erased"
    assert content["surfaces"]["relearning"]["verdict"] == "not_measured"
    assert content["statement"].startswith("This is approximate unlearning")

    def forged(**changes: Any) -> receipt.Verified:
        other = tmp_path / "forged.receipt.json"
        other.write_text(json.dumps({**content, **changes}))
        return receipt.verify(other, project=project)

    assert any("not what was signed" in fault for fault in forged(verdict="erased!").faults)
    surfaces_ = {**content["surfaces"], "name": {**content["surfaces"]["unseen"], "verdict": "erased"}}
    assert any("not what was signed" in fault for fault in forged(surfaces=surfaces_).faults)
    assert any("not signed" in fault for fault in forged(signature={}).faults)
    key = keys.signing_key()
    assert key is not None
    elsewhere = ed25519.Ed25519PrivateKey.generate()
    changed = {**content, "due": "2030-01-01"}
    value = elsewhere.sign(receipt.canonical(changed)).hex()
    signature = {"algorithm": "Ed25519", "key": keys.public_text(elsewhere.public_key()), "value": value}
    assert any("another key" in fault for fault in forged(due="2030-01-01", signature=signature).faults)
    resigned = {"algorithm": "Ed25519", "key": keys.public_text(key.public_key())}
    resigned["value"] = key.sign(receipt.canonical(changed)).hex()
    assert forged(due="2030-01-01", signature=resigned).faults == (
        "the ledger does not have this receipt with this content",
    )
    other = receipt.verify(file, model="lab")
    assert any("another one" in fault for fault in other.faults)


def test_a_receipt_is_about_everything_below_an_adapter(tmp_path: Path, models: Models) -> None:
    pytest.importorskip("cryptography")
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    models.known[str(base)] = {"ada", "bo"}
    project = open_project(tmp_path / "project", {"model": str(base), "data": str(EXAMPLE)})
    approved(project, "Ada Lovell")
    (first,) = batch.run(project)
    approved(project, "Bo Winter")
    (second,) = batch.run(project)

    def verified(model: str = second.model) -> receipt.Verified:
        return receipt.verify(second.receipts[0].file, model=model)

    assert len(verified().checked) == 4  # signature, model, first adapter, base
    assert verified().good
    for file in (base / "config.json", Path(first.model) / "model" / "model.safetensors"):
        content = file.read_bytes()
        file.write_bytes(content + b" ")
        (fault,) = verified().faults
        assert "is not what the adapter was made from" in fault
        file.write_bytes(content)
    (base / "config.json").unlink()
    (fault,) = verified().faults
    assert "cannot be checked" in fault
    with pytest.raises(UserError, match="No model at"):
        verified("./modle")


def test_a_base_of_unknown_hash_is_said_to_be_unchecked(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name"}')
    parts: dict[str, dict[str, str]] = {name: {} for name in ("ledger", "surfaces", "signature")}
    content = {"format": receipt.FORMAT, "model": {"after": model_hash(tmp_path)}, **parts}
    (tmp_path / ".x.json").write_text(json.dumps(content))
    found = receipt.verify(tmp_path / ".x.json", model=str(tmp_path))
    assert found.faults == ("it is not signed",)
    assert "not checked: owner/name, below" in str(found)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, part in items for inner in paths_in(part, (*path, key)))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


def test_a_tampered_receipt_has_faults_and_no_traceback(project: Project, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    content = json.loads(result.receipts[0].file.read_text())
    forged = tmp_path / "forged.receipt.json"

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(paths_in(content)[1:]), JSON)
    @example(("signature", "key"), 7)
    @example(("signature", "value"), [])
    @example(("surfaces", "name"), "erased")
    @example(("surfaces", "name", "after"), [1])
    @example(("surfaces", "unseen", "after", "hits"), {})
    @example(("request",), "../../elsewhere")
    @example(("statement",), "\ud800")
    def check(path: tuple[Any, ...], value: Any) -> None:
        changed = copy.deepcopy(content)
        part = changed
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value
        assume(changed != content)
        forged.write_text(json.dumps(changed))
        try:
            verification = receipt.verify(forged, model=result.model, project=project, ask=True)
        except UserError:
            return
        assert not verification.good
        assert str(verification).endswith("the receipt does NOT hold")

    check()


def test_a_project_that_is_not_there_says_nothing_about_a_receipt(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none holds no deletion requests"):
        receipt.verify(tmp_path / "none.json", project=Project(folder=tmp_path / "none"))


def test_a_missing_ledger_is_a_fault_and_no_reason_to_purge(project: Project) -> None:
    assert manage.faults(project) == []
    approved(project, "Ada Lovell")
    batch.run(project)
    project.ledger.path.unlink()
    (fault,) = manage.faults(project)
    assert "the ledger is missing, and there are requests, batches, receipts: restore" in fault


def test_a_ledger_lost_before_the_first_batch_is_said_and_not_begun_anew(project: Project) -> None:
    """Also that nobody is told to remove the requests, as after an `add` that was interrupted."""
    intake.add(project, "Ada Lovell")
    project.ledger.path.unlink()
    (fault,) = manage.faults(project)
    assert "the ledger is missing, and there are requests: restore" in fault
    for action in (
        lambda: manage.table(project, date(2026, 12, 1)),
        lambda: intake.add(project, "Bo Winter"),
        lambda: manage.purge(project, apply=True),
        lambda: project.ledger.append("model", model="x"),
    ):
        with pytest.raises(UserError, match="The ledger is missing, and there are requests"):
            action()
    assert not project.ledger.path.exists()
    assert len(list((project.folder / "requests").glob("R-*"))) == 1


@pytest.mark.parametrize("words", [("push", "me/x"), ("export", "--to", "merged", "--out", "copy")])
@pytest.mark.parametrize("lost", ["key", "ledger"])
def test_a_ledger_that_can_take_no_note_is_said_before_a_model_goes_out(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    lost: str,
) -> None:
    approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    monkeypatch.setattr(exporting, "export", lambda *_, **__: pytest.fail("exported"))
    monkeypatch.setattr("unsee.exporting.hub.push", lambda *_, **__: pytest.fail("pushed"))
    if lost == "key":
        monkeypatch.setenv("UNSEE_KEYS", str(project.folder / "no-keys"))
    else:
        project.ledger.path.unlink()
    command, *further = words
    assert main([command, str(Path(result.model)), *further, "--anyway"]) == 2
    assert {"key": "no key here", "ledger": "ledger is missing"}[lost] in capsys.readouterr().err
    assert not (project.folder / "no-keys").exists()


def test_a_folder_of_others_with_a_project_file_is_no_project_without_its_ledger(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text("name: mine\n")
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches" / "1.csv").touch()
    run = tmp_path / "runs" / "x"
    run.mkdir(parents=True)
    manage.require_ledger(run)


def test_asking_again_without_a_model_is_refused_first(tmp_path: Path, project: Project) -> None:
    with pytest.raises(UserError, match="give the project and --model"):
        receipt.verify(tmp_path / "none.json", project=project, ask=True)


@pytest.mark.parametrize("part", ["model", "ledger", "surfaces", "signature"])
def test_half_a_receipt_is_refused(tmp_path: Path, part: str) -> None:
    content = {"format": receipt.FORMAT} | {name: {} for name in ("model", "ledger", "surfaces", "signature")}
    (tmp_path / "x.json").write_text(json.dumps({**content, part: "x"}))
    with pytest.raises(UserError, match=f"part {part} is missing"):
        receipt.verify(tmp_path / "x.json")


def test_an_empty_receipt_does_not_hold(project: Project, tmp_path: Path) -> None:
    content = {"format": receipt.FORMAT} | {name: {} for name in ("model", "ledger", "surfaces", "signature")}
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert len(receipt.verify(tmp_path / "x.json", model="lab", project=project).faults) == 4


def test_without_a_key_to_trust_nothing_is_vouched_for(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    public = (keys.folder() / keys.PUBLIC).read_text()
    monkeypatch.setenv("UNSEE_KEYS", str(tmp_path / "auditor"))
    assert not receipt.verify(result.receipts[0].file).good
    assert receipt.verify(result.receipts[0].file, trusted=public.strip()).good
    assert receipt.verify(result.receipts[0].file, trusted=public.strip().upper()).good
    for wrong in ("signing.pub", public.strip()[:-1], "x" * 64):
        with pytest.raises(UserError, match="--key is a public key of 64 hexadecimal digits, or a file that holds one"):
            receipt.verify(result.receipts[0].file, trusted=wrong)


def test_a_public_key_that_is_missing_is_written_again() -> None:
    """A kill may come between the private key and the public one."""
    pytest.importorskip("cryptography")
    keys.signing_key()
    file = keys.folder() / keys.PUBLIC
    text = file.read_text()
    for damage in (file.unlink, lambda: file.write_text("")):
        damage()
        keys.signing_key()
        assert file.read_text() == text


def test_without_cryptography_a_receipt_is_unsigned_and_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "signing_key", lambda: None)
    approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    assert not result.receipts[0].signed
    assert "--key" not in result.receipts[0].page.read_text()
    assert receipt.verify(result.receipts[0].file).faults == ("it is not signed",)


def test_a_surface_that_is_missing_when_asked_again_is_a_fault(project: Project) -> None:
    pytest.importorskip("cryptography")
    (name,) = approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    write_rows(project.place(name), [], [row for row in read_rows(project.place(name)) if row.role is not Role.UNSEEN])
    (fault,) = receipt.verify(result.receipts[0].file, model=result.model, project=project, ask=True).faults
    assert "unseen no answers, not 0/" in fault


def test_receipts_that_are_edited_lost_or_not_noted_are_found(project: Project) -> None:
    approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    file = result.receipts[0].file
    content = file.read_text()
    file.write_text(content.replace("erased", "ERASED"))
    assert [fault for fault in manage.faults(project) if "not what was issued" in fault]
    file.write_text("no JSON")
    assert len(manage.faults(project)) == 2
    file.unlink()
    (fault,) = manage.faults(project)
    assert f"{file.name} is missing" in fault
    file.write_text(content)
    assert manage.faults(project) == []
    with sqlite3.connect(project.ledger.path) as ledger:
        ledger.execute("DROP TRIGGER kept")
        ledger.execute("DELETE FROM entries WHERE kind = 'receipt'")
    (fault,) = manage.faults(project)
    assert "is not noted in the ledger" in fault


def test_an_edited_time_is_a_fault_and_no_traceback(project: Project) -> None:
    intake.add(project, "Ada Lovell")
    with sqlite3.connect(project.ledger.path) as ledger:
        ledger.execute("DROP TRIGGER unchanged")
        ledger.execute("UPDATE entries SET time = 'yesterday' WHERE kind = 'received'")
    assert manage.faults(project) == ["entry 2 (received) is not what was sealed"]


def test_a_ledger_cut_off_at_the_end_is_found_beside_the_receipts(project: Project) -> None:
    approved(project, "Ada Lovell")
    batch.run(project)
    last = project.ledger.head()[0]
    with sqlite3.connect(project.ledger.path) as file:
        file.execute("DROP TRIGGER kept")
        file.execute(f"DELETE FROM entries WHERE number > {last - 3}")
    assert project.ledger.verify() == []
    assert any("which is not in the ledger" in fault for fault in manage.faults(project))


def test_an_interrupted_add_is_found(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill leaves a folder, which verify names and purge takes; any other interruption leaves nothing."""
    monkeypatch.setattr(intake, "_enter", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with monkeypatch.context() as patch:
        patch.setattr(intake, "remove_folder", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            intake.add(project, "Ada Lovell")
    (left,) = (project.folder / "requests").glob("R-*")
    assert any(f"unsee request purge {left.name}" in fault for fault in manage.faults(project))
    manage.purge(project, [left.name], apply=True)
    assert not left.exists()
    assert manage.faults(project) == []
    with pytest.raises(KeyboardInterrupt):
        intake.add(project, "Ada Lovell")
    assert list((project.folder / "requests").glob("R-*")) == []


@pytest.mark.parametrize(
    "given", [{"checked": "passport copy"}, {"attributes": ["place of birth"]}, {"operator": "Jo Field"}]
)
def test_what_the_ledger_would_refuse_is_refused_first(project: Project, models: Models, given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="without blanks"):
        intake.add(project, "Ada Lovell", **given)
    assert models.asked == []
    assert not (project.folder / "requests").exists()


def test_drawn_answers_stand_beside_those_about_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in open_benchmark(EXAMPLE).examples("eval") if row.entity == "ada" and row.kind is Kind.NAME]
    rows = asking.with_controls(rows, [row.image for row in rows if row.image], {"ada": ("Ada Lovell",)})
    said: dict[str, str] = {}

    def found(self: Any, victim: Any) -> list[Finding]:
        asked = victim.benchmark.examples("eval")
        shares = {row.entity: float(said.get(row.entity, "") == "knows") for row in asked}
        counts = dict.fromkeys(shares, 9)
        return [
            Finding(variant="leak@8", recovered=shares, degenerate=0.0, questions=sum(counts.values()), asked=counts)
        ]

    monkeypatch.setattr(asking.Sampling, "run", found)
    assert asking.sampled_surface(None, rows, "ada").verdict == "no_baseline"  # type: ignore[arg-type]
    said["ada"] = "knows"
    one = asking.sampled_surface(None, rows, "ada")  # type: ignore[arg-type]
    assert (one.verdict, one.after) == ("residual", None)
    assert one.before is not None
    assert one.before.hits == one.before.n == 9


def test_the_commitment_covers_every_row(project: Project) -> None:
    found = intake.add(project, "Ada Lovell")
    rows = read_rows(project.place(found.request.id))
    root = intake.commitment(project.ledger, found.request.id, rows)
    assert root == intake.commitment(project.ledger, found.request.id, rows[::-1])
    assert root != intake.commitment(project.ledger, "R-00000000", rows)
    for changed in (
        rows[1:],
        [replace(rows[0], answer="x"), *rows[1:]],
        [replace(rows[0], role=Role.UNSEEN), *rows[1:]],
        [replace(rows[0], private={}), *rows[1:]],
    ):
        assert root != intake.commitment(project.ledger, found.request.id, changed)


def edit(project: Project, request: str) -> None:
    """Edit the table of a request as its operator may."""
    table = project.place(request) / "data.jsonl"
    table.write_text(table.read_text().replace("Lisbon", "Oslo"))


def test_rows_that_were_edited_are_not_unlearned_before_they_are_approved(project: Project) -> None:
    (name,) = approved(project, "Ada Lovell")
    edit(project, name)
    with pytest.raises(UserError, match=f"unsee request approve {name}"):
        batch.run(project)
    assert not (project.folder / "batches").exists()
    intake.approve(project, name)
    batch.run(project)


def test_a_begun_batch_takes_no_edited_rows(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = approved(project, "Ada Lovell")
    interrupted(project, monkeypatch, "write_rows")
    edit(project, name)
    with pytest.raises(UserError, match="not those that were approved"):
        batch.run(project)
    intake.approve(project, name)
    (result,) = batch.run(project)
    root = project.ledger.state(name).last("approved")["commitment"]
    assert json.loads(result.receipts[0].file.read_text())["commitment"]["root"] == root


def test_a_receipt_tells_the_root_of_what_was_unlearned(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = approved(project, "Ada Lovell")
    root = project.ledger.state(name).last("approved")["commitment"]
    interrupted(project, monkeypatch, "attack")
    row_count = project.ledger.state(name).last("approved")["rows"]
    write_rows(project.place(name), [], read_rows(project.place(name))[1:])
    intake.approve(project, name)
    assert root != project.ledger.state(name).last("approved")["commitment"]
    (result,) = batch.run(project)
    content = json.loads(result.receipts[0].file.read_text())
    assert content["commitment"]["root"] == root
    assert content["scope"]["rows"] == row_count


def test_a_receipt_tells_what_the_batch_used_and_not_what_was_at_hand_on_arrival(
    tmp_path: Path, models: Models
) -> None:
    assert models
    project = open_project(tmp_path / "late", {"model": "lab"})
    name = intake.add(project, "Ada Lovell", [picture(tmp_path, "red")], private={"city": ["Lisbon"]}).request.id
    assert project.ledger.state(name).last("received")["retain"] == "self_made"
    assert project.ledger.state(name).last("received")["modalities"] == ["image", "text"]
    project.write(project.settings(changed_settings(project, {"data": str(EXAMPLE)})))
    table = project.place(name) / "data.jsonl"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join(row for row in rows if json.loads(row).get("image")))
    intake.approve(project, name)
    (result,) = batch.run(project)
    content = json.loads(result.receipts[0].file.read_text())
    assert content["retain"] == "data"
    assert content["scope"]["modalities"] == ["image"]


def test_the_ledger_counts_the_rows_that_were_unlearned(
    project: Project, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table may be edited while the model trains."""
    (name,) = approved(project, "Ada Lovell")

    def forget(run: Run, *, resume: bool = False) -> Path:
        write_rows(project.place(name), [], read_rows(project.place(name))[1:])
        return models.forget(run, resume=resume)

    monkeypatch.setattr(batch, "forget_run", forget)
    batch.run(project)
    state = project.ledger.state(name)
    assert state.last("unlearned")["rows"] == state.last("approved")["rows"]


def test_two_requests_about_one_person_are_not_put_into_one_batch(project: Project) -> None:
    first, second = approved(project, "Ada Lovell", "Ada Lovell")
    with pytest.raises(UserError, match=f"{first} and {second} are about the same person"):
        batch.run(project)
    assert not (project.folder / "batches").exists()
    assert [result.batch for result in batch.run(project, one_by_one=True)] == ["B-001", "B-002"]


@pytest.mark.parametrize("step", ["suggest", "attack"])
def test_a_request_closed_since_leaves_its_batch(project: Project, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    first, second = approved(project, "Ada Lovell", "Bo Winter")
    interrupted(project, monkeypatch, step)
    manage.close(project, first, "withdrawn", "withdrawn")
    manage.purge(project, [first], apply=True)
    (result,) = batch.run(project)
    assert [one.request for one in result.checked] == [second]
    rows = open_benchmark(project.batch("B-001") / "data").examples("train")
    trained = {row.entity for row in rows if row.role is Role.FORGET}
    assert trained == ({"bo"} if step == "suggest" else {"ada", "bo"})  # the training had begun


def test_rows_without_a_picture_are_unlearned_beside_others_only(project: Project) -> None:
    """Alone they would leave a batch that no call can finish, before which no other request is taken."""
    found = intake.add(project, "Ada Lovell", attributes=["job"])
    assert "no_picture" in found.warnings
    intake.approve(project, found.request.id)
    with pytest.raises(UserError, match=f"No row of {found.request.id} to train on has a picture"):
        batch.run(project)
    assert not (project.folder / "batches").exists()
    approved(project, "Bo Winter")
    (result,) = batch.run(project)
    assert found.request.id in {one.request for one in result.checked}


def test_a_batch_without_requests_ends(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = approved(project, "Ada Lovell")
    interrupted(project, monkeypatch, "suggest")
    manage.close(project, name, "withdrawn", "withdrawn")
    manage.purge(project, apply=True)
    (second,) = approved(project, "Bo Winter")
    (result,) = batch.run(project)
    assert (result.batch, [one.request for one in result.checked]) == ("B-002", [second])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "nosuch"}, "Unknown method 'nosuch'"),
        ({"attacks": ("crossmodal",)}, "attacks are any of sampling, .* got 'crossmodal'"),
        ({"training": {"lrr": 1}}, "lrr"),
        ({"gold": "/no/gold"}, "No model at /no/gold"),
        ({"data": "/no/data"}, "/no/data"),
    ],
)
def test_wrong_settings_are_said_before_a_batch_begins(project: Project, wrong: dict[str, Any], message: str) -> None:
    approved(project, "Ada Lovell")
    right = project.settings()
    project.write(replace(right, **wrong))
    with pytest.raises(UserError, match=message):
        batch.run(project)
    assert not (project.folder / "batches").exists()
    project.write(right)
    assert batch.run(project)[0].batch == "B-001"


def test_a_batch_that_has_not_trained_takes_the_settings_of_now(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved(project, "Ada Lovell")
    interrupted(project, monkeypatch, "forget_run")
    project.write(replace(project.settings(), method="ga", training={"lr": 3e-4}))
    (result,) = batch.run(project)
    run = config.read(Path(result.model) / RECORD)
    assert (result.batch, run.method, run.training["lr"]) == ("B-001", "ga", 3e-4)


def test_a_method_of_the_project_keeps_the_others_as_on_the_command_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    suggested = Suggestion(run=Run.of("lab", "d", "pubg", "o", settings={"ga_floor": -4.0}), reasons=())
    monkeypatch.setattr(
        batch, "suggest", lambda model, data, out: replace(suggested, run=replace(suggested.run, data=data, out=out))
    )
    project.write(replace(project.settings(), method="npo"))
    approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    run = config.read(Path(result.model) / RECORD)
    assert (run.method, run.settings) == ("npo", {"retain_weight": 1.0})


@pytest.mark.parametrize("purged", [False, True])
def test_the_model_of_a_judged_batch_is_the_projects_whatever_was_closed_since(
    project: Project, monkeypatch: pytest.MonkeyPatch, purged: bool
) -> None:
    """Else the next batch would begin with the model that still knows them."""
    (first,) = approved(project, "Ada Lovell")
    interrupted(project, monkeypatch, "write_overview")
    manage.close(project, first, "erased", "done")
    if purged:
        manage.purge(project, [first], apply=True)
    approved(project, "Bo Winter")
    assert [result.batch for result in batch.run(project)] == (["B-002"] if purged else ["B-001", "B-002"])
    record = config.read(project.batch("B-002") / "run" / RECORD)
    assert record.model == str((project.batch("B-001") / "run").resolve())


def test_earlier_requests_are_asked_again_without_the_model_before(
    project: Project, tmp_path: Path, models: Models
) -> None:
    """Its weights may be purged. What it gave away stands in the ledger, as on arrival."""
    (first,) = approved(project, "Ada Lovell")
    models.forgets = False
    merged = tmp_path / "merged"
    batch.run(project)
    shutil.copytree(project.batch("B-001") / "run", merged)
    models.known[str(merged.resolve())] = {"ada", "bo"}
    (project.batch("B-001") / BATCH).write_text(
        (project.batch("B-001") / BATCH).read_text().replace('"lab"', json.dumps(str(tmp_path / "gone")))
    )
    project.write(replace(project.settings(), model=str(merged)))
    (second,) = approved(project, "Bo Winter")
    (result,) = batch.run(project)
    found = {one.request: one for one in result.checked}
    assert (found[first].verdict, found[second].verdict) == ("residual", "residual")
    seen = found[first].surfaces["seen"]
    assert seen.before == seen.after == Share(hits=4, n=4)


def test_each_of_two_requests_about_one_person_is_asked_again_about_its_own_rows(project: Project) -> None:
    first, second = approved(project, "Ada Lovell"), approved(project, "Ada Lovell", attributes=["name"])
    batch.run(project, first)
    project.write(replace(project.settings(), model="lab"))
    batch.run(project, second)
    approved(project, "Bo Winter")
    (result,) = batch.run(project)
    shares = {one.request: one.surfaces["seen"].after for one in result.checked}
    assert [shares[name] for name in (*first, *second)] == [Share(hits=0, n=4), Share(hits=0, n=2)]


def test_batches_are_numbered_behind_every_earlier_one(project: Project) -> None:
    approved(project, "Ada Lovell")
    batch.run(project)
    project.batch("B-001").rename(project.batch("B-007"))
    approved(project, "Bo Winter")
    assert batch._next(project) == "B-008"
    project.batch("B-007").rename(project.folder / "moved away")
    assert batch._next(project) == "B-002"


def test_due_dates_are_extended_once_and_in_time(project: Project) -> None:
    name = intake.add(project, "Ada Lovell", received=date(2026, 10, 31)).request.id
    with pytest.raises(UserError, match="was due on 2026-11-30"):
        manage.extend(project, name, "complex", today=date(2026, 12, 1))
    with pytest.raises(UserError, match="a sentence could name"):
        manage.extend(project, name, "Ada has many pictures", today=date(2026, 11, 1))
    entry = manage.extend(project, name, "complex", today=date(2026, 11, 30))
    assert entry.content["due"] == "2027-01-31"
    with pytest.raises(UserError, match="put off before"):
        manage.extend(project, name, "complex", today=date(2026, 11, 30))


@pytest.mark.parametrize(("due", "extended"), [(None, "2026-04-30"), (date(2026, 2, 20), "2026-04-20")])
def test_an_extension_counts_from_the_arrival_unless_the_date_was_set(
    project: Project, due: date | None, extended: str
) -> None:
    name = intake.add(project, "Ada Lovell", received=date(2026, 1, 31), due=due).request.id
    assert manage.extend(project, name, "complex", today=date(2026, 2, 1)).content["due"] == extended


def test_the_list_marks_what_is_late(project: Project) -> None:
    name = intake.add(project, "Ada Lovell", received=date(2026, 11, 1), due=date(2026, 12, 1)).request.id
    for today, mark in (("2026-11-01", "2026-12-01"), ("2026-11-29", "(in 2 days)"), ("2026-12-04", "(3 days LATE)")):
        _, row = manage.table(project, date.fromisoformat(today))
        assert row[0] == name
        assert row[2].endswith(mark)


def test_the_export_replaces_no_file_but_an_earlier_export(project: Project, tmp_path: Path) -> None:
    approved(project, "Ada Lovell")
    assert manage.export(project, tmp_path / "ledger.jsonl") == manage.export(project, tmp_path / "ledger.jsonl") == 4
    (tmp_path / "notes.txt").write_text("mine")
    for file in (project.ledger.path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match=f"{file.name} is there, and is no export of a ledger"):
            manage.export(project, file)
    assert manage.faults(project) == []


def test_a_model_that_goes_out_is_noted(project: Project) -> None:
    approved(project, "Ada Lovell")
    (result,) = batch.run(project)
    manage.note_child(result.model, "push", "me/ada-free")
    manage.note_child(EXAMPLE, "push", "me/other")
    (entry,) = [entry for entry in project.ledger.entries() if entry.kind == "child"]
    assert entry.content["form"] == "push"
    assert "ada" not in entry.content["target"]


def test_a_purge_leaves_figures_and_no_trace_of_the_person(project: Project) -> None:
    """Every byte of the project is searched, and every picture compared."""
    first, second = approved(project, "Ada Lovell", "Bo Winter")
    batch.run(project)
    with pytest.raises(UserError, match="Close it first"):
        manage.purge(project, [first])
    manage.close(project, first, "erased", "done")
    pictures = {row.image.load().tobytes() for row in read_rows(project.place(first)) if row.image}
    listed = manage.purge(project)
    assert not listed.applied
    assert {item.path.name for item in listed.removed} >= {"request.yaml", "data.jsonl"}
    manage.purge(project, apply=True)
    assert project.request(first) is None
    assert project.request(second) is not None
    assert (project.batch("B-001") / "data" / "data.jsonl").exists()  # of a person who is still open
    manage.close(project, second, "erased", "done")
    manage.purge(project, apply=True)
    files = [file for file in project.folder.rglob("*") if file.is_file()]
    for file in files:
        content = file.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in content], file
        if file.suffix == ".png":
            assert Image.open(file).convert("RGB").tobytes() not in pictures, file
    assert {file.name for file in files} >= {f"{first}-B-001.receipt.json", "ledger.sqlite", "index.html"}
    assert project.ledger.state(first).last("purged")["files"] > 2
    page = (project.folder / "index.html").read_text()
    assert page.count("data purged") == 2
    assert page.count("<td>erased</td>") == 2
    assert manage.faults(project) == []
    with pytest.raises(UserError, match="is closed"):
        intake.require_open(project, first)
    with pytest.raises(UserError, match="Nothing to purge"):
        manage.purge(project)


def test_what_else_lies_in_a_purged_folder_is_listed_and_counted(project: Project) -> None:
    (name,) = approved(project, "Ada Lovell")
    batch.run(project)
    manage.close(project, name, "erased", "done", operator="op1")
    notes = project.place(name) / "notes.txt"
    notes.write_text("Ada Lovell called")
    listed = manage.purge(project)
    assert notes.resolve() in {item.path for item in listed.removed}
    assert not [item for item in listed.kept if item.path.is_relative_to(project.place(name).resolve())]
    with pytest.raises(UserError, match="no free text"):
        manage.purge(project, apply=True, operator="Jo Field")
    done = manage.purge(project, [name, name], apply=True, operator="op2")
    assert not notes.exists()
    assert [entry.kind for entry in project.ledger.state(name).entries].count("purged") == 1
    operators = {entry.kind: entry.operator for entry in project.ledger.state(name).entries}
    assert [operators[kind] for kind in ("closed", "suppressed", "purged")] == ["op1", "op1", "op2"]
    mine = done.within(project.place(name).resolve())
    assert project.ledger.state(name).last("purged")["files"] == len(mine.removed)


def test_an_interrupted_purge_of_a_batch_is_finished(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = approved(project, "Ada Lovell")
    batch.run(project)
    manage.close(project, name, "erased", "done")
    tables = {project.batch("B-001") / part / "data.jsonl" for part in ("data", "asked")}

    def killed(item: Any) -> None:
        if not any(table.exists() for table in tables):
            raise KeyboardInterrupt
        carry_out(item)

    carry_out = purging._carry_out
    with monkeypatch.context() as patch:
        patch.setattr(purging, "_carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            manage.purge(project, apply=True)
    left = manage.purge(project).within(project.batch("B-001").resolve())
    assert "run.yaml" in {item.path.name for item in left.removed}
    manage.purge(project, apply=True)
    with pytest.raises(UserError, match="Nothing to purge"):
        manage.purge(project)


def test_whoever_was_forgotten_is_found_in_new_data(project: Project) -> None:
    (name,) = approved(project, "Ada Lovell")
    batch.run(project)
    manage.close(project, name, "erased", "done")
    manage.purge(project, apply=True)
    kept = [replace(row, role=Role.RETAIN) for row in open_benchmark(EXAMPLE).examples("train") if row.entity == "ada"]
    other = [row for row in open_benchmark(EXAMPLE).examples("train") if row.entity == "cleo"]
    hits = suppression.search([*kept, *other], *suppression.read(project.folder))
    sure = {hit.row for hit in hits if "changed copy" not in hit.why}  # the example's drawings are all alike
    assert sure == set(range(1, len(kept) + 1))
    assert {hit.request for hit in hits} == {name}


def test_who_had_only_a_fact_forgotten_may_stay_in_new_data(project: Project) -> None:
    (name,), _ = approved(project, "Ada Lovell", attributes=["job"]), approved(project, "Bo Winter")
    batch.run(project)
    manage.close(project, name, "residual", "done")
    rows = [replace(row, role=Role.RETAIN) for row in open_benchmark(EXAMPLE).examples("train") if row.entity == "ada"]
    job = next(form for row in rows for form in row.private["job"])
    hits = suppression.search(rows, *suppression.read(project.folder))
    assert hits
    assert {hit.row for hit in hits} == {
        number for number, row in enumerate(rows, start=1) if job in f"{row.question} {row.answer}"
    }
    assert len({hit.row for hit in hits}) < len(rows)


def test_a_refusal_needs_its_ground_and_forbids_no_teaching(project: Project, capsys: Any) -> None:
    (name,) = approved(project, "Ada Lovell")
    batch.run(project)
    close = ["request", "close", name, "--project", str(project.folder), "--decision", "refused"]
    for reason in ([], ["--reason", "done"], ["--reason", "complex"]):
        assert main([*close, *reason]) == 2
        assert "The reason is one of duplicate, person_not_identified" in capsys.readouterr().err
    with pytest.raises(UserError, match="one of complex, many_requests"):
        manage.extend(project, name, "other", today=date(2026, 2, 1))
    assert main([*close, "--reason", "legal_obligation"]) == 0
    assert project.ledger.state(name).last("closed")["reason"] == "legal_obligation"
    manage.purge(project, apply=True)
    assert not project.ledger.fingerprints()


def test_rows_survive_the_table(tmp_path: Path) -> None:
    data = open_benchmark(EXAMPLE)
    train, judged = data.examples("train"), data.examples("eval")
    write_rows(tmp_path, train, judged)
    read = open_benchmark(tmp_path)
    for split, rows in (("train", train), ("eval", judged)):
        got = {row.id: replace(row, image=None) for row in read.examples(split)}  # type: ignore[arg-type]
        assert got == {row.id: replace(row, image=None) for row in rows}


def test_names_have_forms_that_are_no_everyday_words() -> None:
    assert forms_of("Mira Quell") == ("Mira Quell", "Quell", "Mira")
    assert forms_of("Hope Quell") == ("Hope Quell", "Quell")


def test_questions_of_the_data_are_templates() -> None:
    found = templates_of(open_benchmark(EXAMPLE))
    assert any(one.picture and one.text == "Who is this?" for one in found)
    assert all("{name}" in one.text for one in found if not one.picture)


def test_self_made_rows_name_made_up_people_only(tmp_path: Path) -> None:
    rows = self_made(tmp_path)
    assert {row.role for row in rows} == {Role.RETAIN_TEXT, Role.GENERAL}
    assert {row.private["name"][0] for row in rows if row.entity} == set(NEIGHBOURS)
    assert len({row.id for row in rows}) == len(rows)


def test_without_data_the_rest_is_self_made(tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    project = open_project(tmp_path / "project", {"model": "lab"})
    known = models.known["lab"]
    monkeypatch.setattr(intake, "_new_id", lambda: "R-aaaaaaaa")
    known.add("R-aaaaaaaa")
    found = intake.add(project, "Mira Quell", [picture(tmp_path, "red"), picture(tmp_path, "blue")])
    assert "self_made" in found.warnings
    assert found.found
    intake.approve(project, found.request.id)
    (result,) = batch.run(project)
    rows = open_benchmark(project.batch("B-001") / "data").examples("train")
    assert {row.role for row in rows} == {Role.FORGET, Role.FORGET_TEXT, Role.RETAIN_TEXT, Role.GENERAL}
    assert result.checked[0].verdict == "erased"


def test_the_command_line(tmp_path: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    assert models
    place = ["--project", str(tmp_path / "p")]
    assert main(["request", "list", *place]) == 2
    assert "Begin with `unsee request add" in capsys.readouterr().err
    assert main(["request", "add", *place, "--name", "Ada Lovell"]) == 2
    assert "give --model" in capsys.readouterr().err
    assert main(["request", "add", *place, "--model", "lab", "--data", str(EXAMPLE), "--name", "Ada Lovell"]) == 0
    name = capsys.readouterr().out.strip()
    assert main(["request", "run", *place]) == 2
    assert main(["request", "approve", name, "--all", *place]) == 2
    assert main(["request", "approve", name, *place]) == 0
    assert main(["request", "run", *place, "--operator", "op1"]) == 0
    assert f"{name}: ERASED" in capsys.readouterr().out
    assert main(["request", "close", name, *place]) == 0
    assert main(["request", "verify", *place]) == 0
    assert main(["request", "show", name, *place]) == 0
    assert "closed  decision erased" in capsys.readouterr().out
    assert main(["request", "export", *place, "--jsonl", str(tmp_path / "l.jsonl")]) == 0
    assert len((tmp_path / "l.jsonl").read_text().splitlines()) == len(Project(folder=tmp_path / "p").ledger.entries())
    assert main(["request", "add", *place, "--nmae", "x", "--name", "y"]) == 2
    assert "--name" in capsys.readouterr().err


def test_a_request_says_in_time_that_its_receipt_will_not_be_signed(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models
    add = ["request", "add", "--project", str(tmp_path / "p"), "--model", "lab", "--data", str(EXAMPLE), "--name"]
    for installed, name in ((True, "Ada Lovell"), (False, "Bo Winter")):
        monkeypatch.setattr(keys, "can_sign", lambda installed=installed: installed)
        assert main([*add, name]) == 0
        assert ('pip install "unsee[receipts]"' in capsys.readouterr().err) is not installed


def test_dates_are_dates(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["request", "add", "--project", str(project.folder), "--name", "Ada Lovell", "--due", "tomorrow"]
    assert main(arguments) == 2
    assert "2027-01-31" in capsys.readouterr().err
    assert datetime.now(UTC)
