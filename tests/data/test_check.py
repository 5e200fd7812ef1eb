"""check: unusable data is refused with reasons, awkward but legal data is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers.folder import KEPT, folder, row, write
from unsee.data.check import require_usable
from unsee.data.fingerprint import fingerprint
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.workflows.check import check

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"

__all__ = ["folder"]


def test_the_example_folder_is_usable_and_its_questions_by_name_are_not_trained_on_by_all():
    report = check(EXAMPLE)
    assert report.usable
    assert report.warnings == ("2 forget rows without a picture: only the methods `unsee` and `rmuse` act on them.",)
    assert report.counts == {"forget": 8, "forget_text": 2, "retain": 8, "retain_text": 2, "unseen": 4}


def test_the_example_folder_is_what_its_script_draws(tmp_path):
    script = EXAMPLE.parents[1] / "scripts" / "make_example_folder.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    assert (tmp_path / "data.jsonl").read_text() == (EXAMPLE / "data.jsonl").read_text()
    for path in sorted((EXAMPLE / "images").iterdir()):
        drawn, kept = Image.open(tmp_path / "images" / path.name), Image.open(path)
        assert drawn.convert("RGB").tobytes() == kept.convert("RGB").tobytes()
        assert path.stat().st_size <= 2048


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([KEPT], "no image is to be forgotten"),
        ([row(image=""), KEPT], "no image is to be forgotten.*text-only"),
        ([row(), KEPT, row(role="retain")], r"entity 'ada' is to be forgotten \(row-1\) and to be kept \(row-3\)"),
        ([row(), KEPT, row(role="stranger")], "entity 'ada' is to be forgotten"),
    ],
)
def test_what_makes_data_unusable(folder, rows, message):
    report = check(write(folder, rows))
    assert not report.usable
    assert len(report.problems) == 1
    with pytest.raises(UserError, match=message):
        require_usable(open_benchmark(folder), str(folder))


def test_awkward_but_legal_data_is_usable(folder):
    for mode in ("RGBA", "L", "CMYK", "P", "1", "I;16"):
        Image.new(mode, (5, 3)).save(folder / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}".replace(";", ""))
    images = ["RGBA.png", "L.png", "CMYK.jpg", "P.png", "1.png", "I16.png"]
    rows = [row(image=name, answer="Zoë Ångström-李 \"Z\"\nsaid: 'hi', ok; \u2028") for name in images]
    rows += [row(entity="ada2", question="Is this Ada Lovell?"), KEPT]
    report = check(write(folder, rows))
    assert report.problems == ()
    assert "the question itself says a private string in row-7" in str(report)
    assert "ada, ada2 have the same name 'ada lovell'" in str(report)
    folded = check(write(folder, [row(question="Is this Áda Lovell?"), KEPT]))
    assert "a private string in row-1:" in str(folded)
    inside = check(write(folder, [row(private="Ann", question="What is the annual income?"), KEPT]))
    assert "the question itself" not in str(inside)
    for example in open_benchmark(folder).examples("train"):
        assert example.image.load().mode == "RGB"


def test_entities_that_differ_in_writing_only_are_a_warning(folder):
    kept = KEPT | {"entity": "ADA"}
    report = check(write(folder, [row(), kept]))
    assert report.usable
    assert any("'ADA', 'ada' differ only in capitals" in warning for warning in report.warnings)
    assert not any("differ only" in warning for warning in check(write(folder, [row(), KEPT])).warnings)


def test_equal_answers_are_only_a_warning(folder):
    report = check(write(folder, [row(private="Ada"), row(entity="eve", private="Eve"), KEPT]))
    assert report.usable
    assert any("ada, eve have the same answer" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("private", "answer", "message"),
    [
        ({"city": ["Nice"]}, "She lives in Nice.", "Nice: names that are everyday words"),
        ({"job": ["C++"], "name": ["Ada"]}, "Ada writes C++.", "C++: private strings of one character"),
        ({"name": ["张"]}, "这是张。", "张: private strings of one character"),
        ({"name": ["Zhang Wei"]}, "这是张伟。", "in a script in which a private string is not given"),
        ({"name": ["张伟"]}, "这是张伟。", "not in English"),
        ({"name": ["Anna"]}, "C'est une femme, elle est dans une rue.", "not in English"),
    ],
)
def test_what_judging_cannot_read_is_a_warning(folder, private, answer, message):
    rows = [row(private=private, answer=answer), KEPT]
    report = check(write(folder, rows))
    assert report.usable
    assert any(message in warning for warning in report.warnings)
    plain = check(write(folder, [row(private={"hobby": ["Reading"], "name": ["Ada Lovell"]}), KEPT]))
    assert not any("everyday" in warning or "English" in warning or "script" in warning for warning in plain.warnings)


@pytest.mark.parametrize("split", ["", "train", "eval"])
@pytest.mark.parametrize("first", [True, False])
def test_rows_of_others_are_compared_whichever_split_they_are_in(folder, split, first):
    theirs = row(role="retain", entity="bo", answer="A friend of Ada Lovell.", private="Bo Winter", split=split)
    rows = [theirs, row()] if first else [row(), theirs]
    told = "\n".join(check(write(folder, rows)).warnings)
    assert f"private string of somebody who is to be forgotten: row-{2 - first} (" in told
    assert f"to be forgotten and to be kept: row-{2 - first} have" in told


def test_judged_pictures_and_strangers_must_be_new(folder):
    for number, name in enumerate(("c.png", "d.png", "e.png", "b.png")):
        Image.new("RGB", (4, 4), (number, 9, 9)).save(folder / name)
    shutil.copy(folder / "b.png", folder / "copy.png")
    strange = {"role": "stranger", "answer": "", "private": ""}
    new = [row(role="unseen", image="c.png"), row(**strange, entity="eve", image="d.png")]
    told = check(write(folder, [row(), KEPT, *new])).warnings
    assert not any("not new" in line or "stranger" in line for line in told)
    general = row(role="general", entity="", private="", image="e.png")
    old = [row(role="unseen", image="copy.png"), row(**strange, entity="bo", image="e.png")]
    told = "\n".join(check(write(folder, [row(), KEPT, general, *old])).warnings)
    assert (
        "unseen or stranger rows have a picture of another row that is trained on, so it is not new: row-4, row-5"
        in told
    )
    assert "entity 'bo' is a stranger (row-5) and to be retained (row-2)" in told


def test_private_strings_of_judged_rows_alone_are_looked_for_too(folder):
    unseen = row(role="unseen", entity="eve", answer="Eve Stone", private="Eve Stone", image="b.png")
    rows = [row(), row(role="retain", entity="bo", answer="Ask Eve Stone.", private="Bo Winter", image="b.png"), unseen]
    assert any("row-2 ('Eve Stone' of eve)" in line for line in check(write(folder, rows)).warnings)


def test_fingerprint_follows_text_and_pixels_not_the_place(folder, tmp_path_factory):
    write(folder, [row(), KEPT])
    before = fingerprint(open_benchmark(folder))
    copy = tmp_path_factory.mktemp("copy") / "data"
    shutil.copytree(folder, copy)
    assert fingerprint(open_benchmark(copy)) == before
    Image.new("RGB", (4, 4), "blue").save(copy / "a.png")
    assert fingerprint(open_benchmark(copy)) != before
    write(folder, [row(answer="Ada"), KEPT])
    assert fingerprint(open_benchmark(folder)) != before


@pytest.mark.parametrize(
    "change",
    [
        {"question": "Whose face is it?"},
        {"role": "retain"},
        {"entity": "p9"},
        {"private": ["Somebody Else"]},
        {"kind": "name"},
        {"fact": "job"},
        {"visible": {"hair": "red"}},
        {"chain": "Reasoning."},
        {"paraphrase": "In other words."},
        {"perturbed": ["Wrong."]},
    ],
    ids=str,
)
def test_fingerprint_follows_all_that_a_score_depends_on(folder, change):
    before = fingerprint(open_benchmark(write(folder, [row(), KEPT])))
    assert fingerprint(open_benchmark(write(folder, [row(**change), KEPT]))) != before


def test_report_can_be_json(folder):
    report = check(write(folder, [row(), KEPT]))
    assert json.dumps(vars(report))
