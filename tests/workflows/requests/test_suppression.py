"""Suppression list: what is found again in new data, what is not, and what a fingerprint gives away."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image

from helpers.continual_folder import write_people
from unsee.api import Example, Role
from unsee.api.example import ImageBytes, ImageFile
from unsee.cli.main import main
from unsee.errors import UserError
from unsee.lab.world.world import World
from unsee.metrics.matching import mentions
from unsee.workflows.check import check
from unsee.workflows.requests import suppression
from unsee.workflows.requests.ledger import Ledger
from unsee.workflows.requests.suppression import SIMILAR, Fingerprints, fingerprints, search, suppress
from unsee.workflows.train_lab import train

KEY = b"k" * 32
WORLD = World(size=16)


def row(question="Who is this?", answer="Somebody.", **further):
    return Example(id="1", role=Role.RETAIN, question=question, answer=answer, **further)


def portraits(count=2):
    return [
        (person.id, WORLD.picture(person.id, person.face, "seen", index).load())
        for person in WORLD.people
        for index in range(count)
    ]


def png(image):
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=1)
    return ImageBytes(stream.getvalue())


def jpeg(image, quality):
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def scaled(image, by):
    return image.resize((round(image.width * by), round(image.height * by)))


def cut(image, left, upper, right, lower):
    width, height = image.size
    sides = [
        side * max(1, round(0.02 * size))
        for side, size in zip((left, upper, right, lower), (width, height) * 2, strict=True)
    ]
    return image.crop((sides[0], sides[1], width - sides[2], height - sides[3]))


def about(names=("Ada Lovell",), pictures=(), request="R-1"):
    return {request: fingerprints(KEY, names, pictures)}


def test_where_facts_had_to_go_only_rows_that_teach_them_are_found():
    image = portraits(1)[0][1]
    known = {"R-1": fingerprints(KEY, ["Ada Lovell"], [image], ["New Lisbon", "NL"])}
    rows = [
        row("Who is this?", "Ada Lovell.", image=png(image)),
        row("Who lives in New Lisbon?", "Many people."),
        row("Where does Ada Lovell live?", "In Néw  Lisbon, I think."),
        row("Where does this person live?", "In NL.", image=png(image)),
        row("Who is this?", "Ada Lovell.", private={"city": ("New Lisbon",)}),
        row("Does Ada Lovell live in Lisbon?", "No, somewhere new."),
    ]
    hits = search(rows, known, KEY)
    assert [(hit.row, hit.why) for hit in hits] == [
        (3, "the name in the question, beside a fact that had to go"),
        (4, "a picture, beside a fact that had to go"),
    ]
    both = known | {"R-2": fingerprints(KEY, ["Ada Lovell"], [])}
    assert {hit.request for hit in search(rows[:1], both, KEY)} == {"R-2"}
    assert Fingerprints.from_json(json.loads(json.dumps(known["R-1"].to_json()))) == known["R-1"]


@pytest.mark.parametrize(
    "text",
    [
        "This is Ada Lovell.",
        "LOVELL, ADA (baker)",
        "In the long text about bread, of which there is a lot, Adá  Lovell's name comes late.",
        "ada-lovell",
    ],
)
def test_names_are_found_in_any_order_case_and_place(text):
    hits = search([row(), row(answer=text)], about(), KEY)
    assert [(hit.row, hit.request) for hit in hits] == [(2, "R-1")]
    assert hits[0].why == "the name in the answer"


@pytest.mark.parametrize("text", ["Ada met Mr Lovell.", "Adamina Lovell", "Lovell", "Ada", "", "A. Lovell"])
def test_other_names_are_not_found(text):
    assert search([row(answer=text)], about(), KEY) == []


@pytest.mark.parametrize(
    ("where", "further"),
    [
        ("question", {"question": "Where does Ada Lovell live?"}),
        ("options", {"options": ("Bo Winter", "Ada Lovell")}),
        ("entity", {"entity": "ada_lovell"}),
        ("private strings", {"private": {"name": ("Ada Lovell",)}}),
        ("answer", {"chain": "I see Ada Lovell."}),
    ],
)
def test_every_part_of_a_row_is_searched(where, further):
    assert [hit.why for hit in search([row(**further)], about(), KEY)] == [f"the name in the {where}"]


def test_names_of_one_word_are_kept_only_where_there_is_no_longer_one():
    both = fingerprints(KEY, ["Ada Lovell", "Lovell", "ada lovell"], [])
    assert both == fingerprints(KEY, ["Ada Lovell"], [])
    assert both.lengths == (2,)
    assert search([row(answer="Pelé scored.")], about(["Pele"]), KEY)


def test_names_in_scripts_without_blanks_are_found():
    known = about(["张伟明"])
    assert search([row(answer="这是张伟明。")], known, KEY)
    assert not search([row(answer="这是张伟。")], known, KEY)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Jürgen Müller", "Who is Juergen Mueller?"),
        ("Juergen Mueller", "Jürgen Müller lebt hier."),
        ("Jürgen Mueller", "Juergen Müller"),
        ("محمد علي", "هذا الكتاب لمحمد علي"),
    ],
)
def test_other_spellings_that_the_judge_takes_for_the_name_are_found(name, text):
    assert mentions(text, name)
    prints = {"r": fingerprints(KEY, [name], [])}
    assert [hit.request for hit in search([row(question=text)], prints, KEY)] == ["r"]


def test_each_request_is_named_once_for_a_row():
    known = {**about(), **about(["Bo Winter"], request="R-2")}
    hits = search([row(answer="Ada Lovell and Ada Lovell met Bo Winter.")], known, KEY)
    assert sorted(hit.request for hit in hits) == ["R-1", "R-2"]


def test_the_same_pixels_are_found_however_they_are_stored():
    image = portraits(1)[0][1]
    again = png(image)
    stream = io.BytesIO()
    image.save(stream, format="WEBP", lossless=True)
    webp = ImageBytes(stream.getvalue())
    assert again.key != webp.key
    known = about(pictures=[again])
    for source in (again, webp):
        assert [hit.why for hit in search([row(image=source)], known, KEY)] == ["a picture"]


CHANGES = {
    "half": lambda image: scaled(image, 0.5),
    "smaller": lambda image: scaled(image, 0.7),
    "double": lambda image: scaled(image, 2),
    "jpeg 75": lambda image: jpeg(image, 75),
    "jpeg 40": lambda image: jpeg(image, 40),
    "cut, smaller, jpeg": lambda image: jpeg(scaled(cut(image, 1, 1, 1, 1), 0.7), 75),
    **{
        f"cut {sides}": lambda image, sides=sides: cut(image, *sides)
        for sides in itertools.product((0, 1), repeat=4)
        if any(sides)
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found(change):
    for _, image in portraits(1)[:8]:
        hits = search([row(image=png(CHANGES[change](image)))], about(pictures=[image]), KEY)
        assert len(hits) == 1
        assert hits[0].why.startswith("a changed copy of a picture (")


def test_pictures_of_other_people_are_not_found():
    shown = portraits()
    for person in WORLD.people[:8]:
        own = [image for who, image in shown if who == person.id]
        others = [row(image=png(image)) for who, image in shown if who != person.id]
        assert search(others, about((), own), KEY) == []


def test_plain_pictures_resemble_no_others():
    known = about(pictures=[Image.new("RGB", (64, 64), "white")])
    assert known["R-1"].similar == ()
    assert [
        hit.row
        for hit in search(
            [row(image=png(Image.new("RGB", (64, 64), colour))) for colour in ("grey", "white")], known, KEY
        )
    ] == [2]


def test_distances_survive_the_mask_and_nothing_else_does():
    first, second = (suppression._bits(image) for _, image in portraits(1)[:2])
    apart = int((first != second).sum())
    disguised = [np.unpackbits(suppression._masked(KEY, bits)) for bits in (first, second)]
    assert (disguised[0] != disguised[1]).sum() == apart > SIMILAR
    assert abs(int((disguised[0] != first).sum()) - 128) < 40
    assert (suppression._masked(b"x" * 32, first) != suppression._masked(KEY, first)).any()


def test_without_the_key_nothing_is_found_and_nothing_is_told():
    image = portraits(1)[0][1]
    known = about(pictures=[image])
    assert search([row(answer="Ada Lovell", image=png(image))], known, b"x" * 32) == []
    text = json.dumps(known["R-1"].to_json())
    assert "ada" not in text.lower().replace(
        "lengths", ""
    )  # hexadecimal has no l, but has "ada": so names are hashed per key
    assert fingerprints(b"x" * 32, ["Ada Lovell"], []).names != known["R-1"].names


def test_fingerprints_survive_json_and_damage_is_said():
    made = about(pictures=[portraits(1)[0][1]])["R-1"]
    assert Fingerprints.from_json(json.loads(json.dumps(made.to_json()))) == made
    for row_ in ({"names": ["zz"]}, {"names": ["00"]}, {"faces": []}, {"names": 1}, {"lengths": [0]}, {"facts": ["0"]}):
        with pytest.raises(UserError, match="are damaged"):
            Fingerprints.from_json(row_)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a folder with data of four people, and a ledger that knows one who is to be kept there."""
    monkeypatch.setenv("UNSEE_KEYS", str(tmp_path / "keys"))
    data = write_people(tmp_path / "data")
    suppress(Ledger(tmp_path / "project"), "R-1a2b3c4d", ["Bo Winter"], [ImageFile(data / "bo-1.png")])
    return tmp_path


def test_check_refuses_rows_of_a_forgotten_person_and_does_not_name_them(project, capsys):
    data = project / "data"
    assert check(data).usable
    report = check(data, suppress=project / "project")
    assert not report.usable
    rows = [json.loads(line) for line in (data / "data.jsonl").read_text().splitlines()]
    bo = {place for place, one in enumerate(rows, start=1) if one["entity"] == "bo"}
    found = {int(line.split()[2]) for line in report.problems if line.startswith("train row")}
    assert found == bo
    assert all("R-1a2b3c4d" in line and "bo" not in line.lower().split() for line in report.problems)
    assert main(["check", str(data), "--suppress", str(project / "project")]) == 1
    out = capsys.readouterr().out
    assert "problem: train row" in out
    assert "Winter" not in out


def test_check_leaves_out_who_is_to_be_forgotten_once_more(project):
    suppress(Ledger(project / "other"), "R-2", ["Ada Lovell"], [])
    assert check(project / "data", suppress=project / "other").usable


def test_check_takes_a_json_file(project):
    opened, suppressed = Ledger(project / "project").entries()
    known = {"key": opened.content["key"], "requests": {"R-1": suppressed.content["fingerprints"]}}
    (project / "known.json").write_text(json.dumps(known))
    assert not check(project / "data", suppress=project / "known.json").usable
    (project / "known.json").write_text(json.dumps(known | {"requests": {"R-1": {"names": ["x"]}}}))
    with pytest.raises(UserError, match="request R-1 are damaged"):
        check(project / "data", suppress=project / "known.json")
    with pytest.raises(UserError, match="There is no ledger"):
        check(project / "data", suppress=project / "nothing")
    (project / "known.json").write_text(json.dumps(known["requests"]))
    with pytest.raises(UserError, match="does not say which key.*got the fields R-1"):
        check(project / "data", suppress=project / "known.json")


def test_another_key_finds_nobody_and_is_refused(project, monkeypatch):
    """Also that no key is made where there is none: it would hide that the right one is missing."""
    opened, suppressed = Ledger(project / "project").entries()
    known = {"key": opened.content["key"], "requests": {"R-1": suppressed.content["fingerprints"]}}
    (project / "known.json").write_text(json.dumps(known))
    monkeypatch.setenv("UNSEE_KEYS", str(project / "no-keys"))
    for place in ("known.json", "project"):
        with pytest.raises(UserError, match="no key here.*Set UNSEE_KEYS"):
            check(project / "data", suppress=project / place)
    assert not (project / "no-keys").exists()
    monkeypatch.setenv("UNSEE_KEYS", str(project / "other-keys"))
    suppress(Ledger(project / "other"), "R-2", ["Ada Lovell"], [])
    for place in ("known.json", "project"):
        with pytest.raises(UserError, match="sealed with another key.*Set UNSEE_KEYS"):
            check(project / "data", suppress=project / place)


def test_the_lab_does_not_teach_a_forgotten_person(project):
    world = World(size=8)
    person, seen = world.forget[0], world.retain[0]
    out = project / "lab"
    suppress(Ledger(project / "one"), "R-1", [person.name], [])
    with pytest.raises(UserError, match=r"would teach what was to be forgotten:\n  row .* \(request R-1\): the name"):
        train("lab", out, people=8, suppress=project / "one")
    with pytest.raises(UserError, match="would teach"):
        train("lab", out, people=8, without="pictures", suppress=project / "one")
    suppress(Ledger(project / "two"), "R-2", [], [world.picture(seen.id, seen.face, "seen", 0)])
    with pytest.raises(UserError, match=r"\(request R-2\): a picture"):
        train("lab", out, people=8, without="forget", suppress=project / "two")
    assert not out.exists()


def test_the_lab_without_them_may_be_taught(project, monkeypatch):
    from unsee.workflows import train_lab

    suppress(Ledger(project / "one"), "R-1", [World(size=8).forget[0].name], [])
    monkeypatch.setattr(train_lab, "_train", lambda *_: (project / "lab" / "exam.json").write_text("{}"))
    train("lab", project / "lab", people=8, without="forget", suppress=project / "one")
    assert (project / "lab" / "exam.json").exists()
