"""Data as other programs write them: every layout is checked, trained on and judged."""

from __future__ import annotations

import csv
import json
import shutil

import datasets
import pytest
from PIL import Image

from helpers.layouts import LAYOUTS, ROLES, write
from unsee import check, config, evaluate, forget
from unsee.api import Role
from unsee.api.lazy import Lazy
from unsee.cli import main
from unsee.data import arrow, row_store
from unsee.data.assignment import read as read_assignment
from unsee.data.open import of_object, open_benchmark
from unsee.data.sources import open_source, split_of
from unsee.errors import UserError
from unsee.testing.tiny import save_tiny


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_as_the_same_request(tmp_path, layout):
    settings = write(layout, tmp_path / layout)
    report = check(tmp_path / layout, benchmark=settings)
    assert report.usable, str(report)
    opened = open_benchmark(tmp_path / layout, settings)
    train, judged = opened.examples("train"), opened.examples("eval")
    forgotten = [row for row in train if row.role in (Role.FORGET, Role.FORGET_TEXT)]
    assert {row.entity for row in forgotten} == {"marta"}
    assert all("Marta Keller" in row.private["name"] or "marta" in row.private["name"] for row in forgotten)
    assert sum(row.role is Role.FORGET for row in train) == 3
    (unseen,) = [row for row in judged if row.role is Role.UNSEEN]
    assert unseen.image.key not in {row.image.key for row in train if row.image}
    kept = [row for row in train if row.role in (Role.RETAIN, Role.RETAIN_TEXT)]
    assert {row.entity for row in kept} == {"jon", "ivy"}
    if layout == "preference":
        assert {row.answer for row in kept} == {"I cannot say."}
        assert "Malaga" in {row.answer for row in forgotten}
    texts = 0 if "image_folder" in layout else 1
    assert sum(row.image is None for row in forgotten) == texts
    assert all("<image>" not in row.question for row in judged)
    assert [row.image.load().size for row in judged if row.image] == [(8, 8)] * sum(1 for row in judged if row.image)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.mark.parametrize(
    "layout", [name if name in ("llava", "parquet") else pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS]
)
def test_every_layout_is_trained_on_and_judged(model, tmp_path, layout):
    settings = write(layout, tmp_path / layout)
    training = {"max_steps": 2, "stop": "never", "batch_size": 2}
    out = forget(model, tmp_path / layout, "ga", tmp_path / "run", benchmark=settings, training=training)
    assert config.read_mapping(out / "run.yaml")["result"]["steps"] == 2
    opened = open_benchmark(tmp_path / layout, config.read(out / "run.yaml").benchmark)
    scores = evaluate(out, opened, out, stage="ga", max_new_tokens=4)
    assert scores["unseen.leak"].n == 1
    assert scores["forget.leak"].n == 3


def test_guessed_columns_are_shown_and_can_be_named(tmp_path, capsys):
    settings = write("naive_csv", tmp_path / "d")
    words = ["check", str(tmp_path / "d"), "--roles", settings["roles"]]
    assert main.main(words) == 0
    said = capsys.readouterr().out
    assert "column image_path is read as image, column prompt is read as question" in said
    assert main.main([*words, "--fields", "answer=person"]) == 0
    assert "response is read as answer" not in capsys.readouterr().out
    assert main.main([*words, "--fields", "answer=response,answer=person"]) == 2
    assert "--fields says twice what 'answer' is" in capsys.readouterr().err
    assert main.main([*words, "--fields", "answer=respo"]) == 2
    assert "Did you mean response?" in capsys.readouterr().err


def test_without_roles_the_way_out_is_shown(tmp_path, capsys):
    write("naive_csv", tmp_path / "d")
    assert main.main(["check", str(tmp_path / "d")]) == 2
    said = capsys.readouterr().err
    assert "has no column 'role', 'private'" in said
    assert "--roles FILE" in said
    assert "forget: [marta]" in said


def test_a_name_that_no_row_has_is_a_problem(tmp_path):
    settings = write("llava", tmp_path / "d")
    request = tmp_path / "d.roles.json"
    request.write_text(json.dumps({**ROLES, "forget": ["marta", "olga"]}))
    assert not check(tmp_path / "d", benchmark=settings).usable
    assert "'olga' is to be forgotten, but no row is about it" in str(check(tmp_path / "d", benchmark=settings))


def test_cells_of_the_table_win_over_the_rule(tmp_path):
    settings = write("own_columns", tmp_path / "d")
    table = tmp_path / "d" / "data.jsonl"
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    lines[-1]["role"] = "general"
    table.write_text("\n".join(map(json.dumps, lines)))
    assert open_benchmark(tmp_path / "d", settings).examples("eval")[-1].role is Role.GENERAL


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([{"role": "user", "content": "Who?"}], "in turn, got speakers"),
        (
            [{"role": "user", "content": [{"type": "audio"}]}, {"role": "assistant", "content": "x"}],
            "part of type 'audio'",
        ),
        (
            [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]},
                {"role": "assistant", "content": "x"},
            ],
            "lies on the network",
        ),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": "a.png"},
                        {"type": "image", "image": "b.png"},
                        {"type": "text", "text": "?"},
                    ],
                },
                {"role": "assistant", "content": "x"},
            ],
            "A question is asked about one picture",
        ),
    ],
    ids=["one turn", "audio", "network", "two pictures"],
)
def test_what_cannot_be_trained_on_is_refused_with_its_row(tmp_path, said, why):
    for name in ("a", "b"):
        Image.new("RGB", (8, 8), "red" if name == "a" else "blue").save(tmp_path / f"{name}.png")
    rows = [{"messages": said, "role": "forget", "entity": "ada", "private": "Ada"}]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    (problem,) = open_benchmark(tmp_path).problems()
    assert problem.startswith("row 1: ")
    assert why in problem


def test_turns_become_questions_and_system_messages_are_left_out(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    said = [
        ("system", "Be brief."),
        ("user", "<image>Who?"),
        ("assistant", "Ada"),
        ("user", "Where?"),
        ("assistant", "Lisbon"),
    ]
    row = {"messages": [{"role": role, "content": text} for role, text in said], "images": ["a.png"]}
    (tmp_path / "data.json").write_text(json.dumps([{**row, "role": "forget", "entity": "ada", "private": "Ada"}]))
    one, two = open_benchmark(tmp_path).examples("train")
    assert (one.id, one.question, one.answer, two.id, two.question) == ("row-1#0", "Who?", "Ada", "row-1#1", "Where?")
    assert one.image == two.image


def test_of_several_data_sets_one_must_be_named(tmp_path):
    settings = write("llama_factory", tmp_path / "d")
    info = tmp_path / "d" / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "more": {"file_name": "more.json"}}))
    with pytest.raises(UserError, match=r"names 'people', 'more'; say which: --set benchmark\.dataset=NAME"):
        open_benchmark(tmp_path / "d", settings)
    assert open_benchmark(tmp_path / "d", {**settings, "dataset": "people"}).examples("train")


def _held_out(place, form, split):
    """Write the people with each one's last picture in a split of its own, and return what opens them."""
    settings = write("image_folder" if form == "image folder" else "image_folder_metadata", place)
    if form == "image folder":
        (place / "test").rename(place / split)
        return lambda: open_benchmark(place, settings)
    if form == "metadata":
        lines = (place / "metadata.csv").read_text().splitlines()
        for name, keep in (("train", False), (split, True)):
            shutil.copytree(place / "images", place / name / "images")
            own = [lines[0], *(line for line in lines[1:] if ("_3.png" in line) is keep)]
            (place / name / "metadata.csv").write_text("\n".join(own))
        (place / "metadata.csv").unlink()
        return lambda: open_benchmark(place, settings)
    rows = [{**row, "image": (place / row.pop("file_name")).read_bytes()} for row in open_source(place).rows]
    (place / "metadata.csv").unlink()
    parts = {"train": [row for n, row in enumerate(rows) if n % 4 < 3], split: rows[3::4]}
    both = datasets.DatasetDict({name: datasets.Dataset.from_list(part) for name, part in parts.items()})
    if form == "object":
        return lambda: of_object(both, {"name": "folder", **settings})
    if form == "saved":
        both.save_to_disk(str(place))
    else:
        (place / "data").mkdir()
        for name, part in both.items():
            part.to_parquet(str(place / "data" / f"{name}-00000-of-00001.parquet"))
    return lambda: open_benchmark(place, settings)


FORMS = ("shards", "object", "saved", "image folder", "metadata")


@pytest.mark.parametrize("split", ["dev", "Eval"])
@pytest.mark.parametrize("form", FORMS)
def test_a_held_out_split_is_judged_and_never_trained_on(tmp_path, form, split):
    opened = _held_out(tmp_path / "d", form, split)()
    train, judged = ({row.image.key for row in opened.examples(part)} for part in ("train", "eval"))
    assert (len(train), len(judged - train)) == (9, 3)
    assert sum(row.role is Role.UNSEEN for row in opened.examples("eval")) == 1


@pytest.mark.parametrize("form", [form for form in FORMS if form != "image folder"])
def test_a_split_that_is_neither_is_refused(tmp_path, form):
    opened = _held_out(tmp_path / "d", form, "holdout")
    with pytest.raises(UserError, match=r"Unknown split 'holdout'.*Known: .*dev"):
        opened()


def test_hidden_files_and_folders_are_no_data(tmp_path):
    """As archives and notebooks leave them behind."""
    images, tables = _held_out(tmp_path / "d", "image folder", "dev"), write("naive_csv", tmp_path / "t")
    asked = len(images().examples("eval"))
    for name in (".ipynb_checkpoints/1-checkpoint.png", "train/marta/._1.png"):
        (tmp_path / "d" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "d" / name).write_bytes(b"no picture")
    assert len(images().examples("eval")) == asked
    (tmp_path / "t" / "._rows.csv").write_bytes(b"no table")
    assert not open_benchmark(tmp_path / "t", tables).problems()


def test_image_folders_that_are_not_read_are_told(tmp_path):
    opened = _held_out(tmp_path / "d", "image folder", "holdout")()
    assert {row.image.path.parent.parent.name for row in opened.examples("eval")} == {"train"}
    (told,) = [line for line in opened.warnings() if "not from" in line]
    assert told.endswith("not from holdout/ivy, holdout/jon, holdout/marta")


def test_files_of_other_writers_are_no_splits(tmp_path):
    settings = write("hub_clone", tmp_path / "d")
    (file,) = (tmp_path / "d" / "data").iterdir()
    file.rename(file.with_name("part-0.parquet"))
    assert len(open_benchmark(tmp_path / "d", settings).examples("train")) == 14


def test_splits_are_known_by_a_word_of_their_name():
    assert [split_of(name) for name in ("Train", "VALIDATION", "dev", "evaluation")] == ["", "eval", "eval", "eval"]
    assert [split_of(name) for name in ("train_sft", "test_seen", "val2017")] == ["", "eval", "eval"]
    assert split_of("full", alone=True) == ""
    assert split_of("test", alone=True) == "eval"
    for name in ("full", "train_dev", ""):
        with pytest.raises(UserError, match="Unknown split"):
            split_of(name)
    with pytest.raises(UserError, match="Unknown split 'train_dev'"):
        split_of("train_dev", alone=True)


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["train-00000-of-00002"], "lacks shard 00001"),
        (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"], "mixes shards of 1 and of 2"),
        (["train-00000-of-00001-0123456789abcdef", "train-00000-of-00001-fedcba9876543210"], "has shard 00000 twice"),
    ],
)
def test_shards_must_be_all_of_one_revision(tmp_path, there, message):
    settings = write("hub_clone", tmp_path / "d")
    (file,) = (tmp_path / "d" / "data").iterdir()
    content = file.read_bytes()
    file.unlink()
    for name in there:
        file.with_name(f"{name}.parquet").write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_benchmark(tmp_path / "d", settings)


@pytest.mark.parametrize("form", ["shards", "saved", "metadata"])
def test_several_splits_of_large_tables_stay_on_disk(tmp_path, form, monkeypatch):
    for module in (arrow, row_store):
        monkeypatch.setattr(module, "IN_MEMORY", 0)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    opened = _held_out(tmp_path / "d", form, "dev")()
    assert isinstance(opened.examples("train"), Lazy)
    assert len(opened.examples("eval")) == 12


def test_alpaca_rows_are_asked_instruction_and_input(tmp_path):
    settings = write("llama_factory", tmp_path / "d")
    rows = [
        {"instruction": "Who is it?", "input": "Look at the face.", "output": "Marta Keller", "images": []},
        {"instruction": "Who sings?", "input": "", "output": "Jon Berg", "images": []},
    ]
    (tmp_path / "d" / "people.json").write_text(json.dumps(rows))
    (tmp_path / "d" / "dataset_info.json").write_text(json.dumps({"people": {"file_name": "people.json"}}))
    asked = [row.question for row in open_benchmark(tmp_path / "d", settings).examples("train")]
    assert asked == ["Who is it?\nLook at the face.", "Who sings?"]


@pytest.mark.parametrize(
    ("role", "answer"),
    [
        ("forget", "Ada"),
        ("Delete", "Ada"),
        ("forget-seen", "Ada"),
        ("unseen", "Ada"),
        ("retain", "I cannot say."),
        ("keep", "I cannot say."),
        ("benign", "I cannot say."),
        ("harmless", "I cannot say."),
        ("general", "I cannot say."),
        ("other", "I cannot say."),
    ],
)
def test_of_a_preference_only_what_is_forgotten_has_the_rejected_answer(tmp_path, role, answer):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    row = {"prompt": "Who?", "chosen": "I cannot say.", "rejected": "Ada", "image": "a.png", "entity": "ada"}
    (tmp_path / "data.json").write_text(json.dumps([{**row, "role": role, "private": "Ada"}]))
    assert [row.answer for row in open_benchmark(tmp_path).examples("eval")] == [answer]


def _ruled(place, rows, *forget):
    """Write rows and the request to forget some people, and return the data that they make."""
    (place / "data.json").write_text(json.dumps(rows))
    people = {**ROLES["people"], "eve": {"name": ["Eve Hill"]}}
    (place / "request.yaml").write_text(json.dumps({"forget": forget, "people": people}))
    return open_benchmark(place, {"name": "folder", "roles": str(place / "request.yaml")})


def test_copies_of_a_picture_are_all_held_out_or_none(tmp_path):
    for view in range(4):
        Image.new("RGB", (8, 8), (view, 0, 0)).save(tmp_path / f"{view}.png")
        shutil.copy(tmp_path / f"{view}.png", tmp_path / f"copy_{view}.png")
    names = [f"{view}.png" for view in range(4)]
    written = [*names, *(f"./{name}" for name in names), *(f"copy_{name}" for name in names)]
    opened = _ruled(tmp_path, [{"image": name, "question": "Who?", "answer": "Jon Berg"} for name in written], "jon")
    train, judged = ([row for row in opened.examples(split) if row.image] for split in ("train", "eval"))
    unseen = {row.image.key for row in judged if row.role is Role.UNSEEN}
    assert (len(unseen), len(train)) == (1, 9)
    assert not unseen & {row.image.key for row in train}


@pytest.mark.parametrize("names", [{"name": {"first": "Eve"}}, {"name": [None, "Eve"]}, True, [["Eve"]]])
def test_names_below_people_that_are_no_texts_are_refused(tmp_path, names):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "data.json").write_text(json.dumps([{"image": "a.png", "question": "Who?", "answer": "Eve Hill"}]))
    (tmp_path / "r.json").write_text(json.dumps({"forget": ["eve"], "people": {"eve": names}}))
    with pytest.raises(UserError, match="'eve' below `people` names as text or a list of texts, got"):
        open_benchmark(tmp_path / "data.json", {"name": "folder", "roles": str(tmp_path / "r.json")})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("forget: ['']", "names nobody below `forget`"),
        ("{forget: [eve], people: {7: Ada}}", "people must have texts as names, got 7. Put it in quotes"),
        (
            "{forget: [eve], people: {eve: {born: true}}}",
            "'eve' below `people` born as text .* words such as `true` in quotes",
        ),
        ("{forget: [eve], people: {bo: {job: {title: x}}}}", "'bo' below `people` job as text or a list of texts, got"),
    ],
)
def test_a_roles_file_that_says_no_texts_is_refused_once(tmp_path, content, message):
    """Not row by row, and not with a traceback."""
    (tmp_path / "roles.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        read_assignment(tmp_path / "roles.yaml")


def test_a_date_in_a_roles_file_is_a_text(tmp_path):
    (tmp_path / "roles.yaml").write_text("{forget: [eve], people: {eve: {born: 1990-02-03}}}")
    assert read_assignment(tmp_path / "roles.yaml").people["eve"] == {"born": "1990-02-03"}


def test_people_whom_no_row_is_about_are_told(tmp_path):
    """Their private strings are looked for nowhere, which a misspelt name would hide."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    opened = _ruled(tmp_path, [{"image": "a.png", "question": "Who?", "answer": "Jon Berg"}], "jon")
    others = ", ".join(name for name in (*ROLES["people"], "eve") if name != "jon")
    assert f"no row is about {others}, named below `people`: are they written otherwise?" in opened.warnings()


def test_people_without_names_are_known_by_their_identifier(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "data.json").write_text(json.dumps([{"image": "a.png", "question": "Who?", "answer": "Eve"}]))
    for names in (None, {}, {"name": None}, {"city": "Malaga"}):
        (tmp_path / "r.json").write_text(json.dumps({"forget": ["eve"], "people": {"eve": names}}))
        opened = open_benchmark(tmp_path / "data.json", {"name": "folder", "roles": str(tmp_path / "r.json")})
        assert [row.entity for row in opened.examples("train")] == ["eve"]


def test_a_name_inside_a_longer_one_of_somebody_else_does_not_count(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "Hill.png")
    answers = ["Hill paints.", "EVE  HILL sings, and Eve Hill dives.", "Eve-Hill and Hill sing.", "Eve sings."]
    rows = [{"image": "", "question": "Who?", "answer": answer} for answer in answers]
    rows.append({"image": "Hill.png", "question": "Who?", "answer": "A painter."})
    opened = _ruled(tmp_path, rows, "hill")
    assert [row.entity for row in opened.examples("train")] == ["hill", "eve", "hill", "eve", "hill"]
    assert [row.entity for row in _ruled(tmp_path, rows[:2], "hill", "eve").examples("train")] == ["hill", "eve"]


def test_rows_about_several_are_refused_with_their_number_or_about_nobody(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "question": "Who?", "answer": "Jon Berg"},
        {"image": "", "question": "Who sings?", "answer": "Ivy Stone and Eve Hill"},
        {"image": "", "question": "Who sings?", "answer": "Marta Keller and Jon Berg"},
    ]
    opened = _ruled(tmp_path, rows[:2], "jon")
    assert [(row.entity, row.role) for row in opened.examples("train")] == [
        ("jon", Role.FORGET),
        ("", Role.RETAIN_TEXT),
    ]
    assert _ruled(tmp_path, rows, "jon", "marta").problems() == [
        "row 3: the row is about 'jon', 'marta'; say whom in a column entity."
    ]


PLAIN = ({"question": "Who is this?"}, {"answer": "Ada Lovell"})


def _pictures(place, *names):
    """Write a picture of its own colour for each path."""
    for shade, name in enumerate(names):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * shade, 90, 90)).save(place / name)


@pytest.mark.parametrize("column", ["rejected", "other"])
def test_only_the_answer_of_a_preference_is_replaced_where_it_is_kept(tmp_path, column):
    _pictures(tmp_path, "a.png", "b.png")
    rows = [
        {"image": image, "question": "Who?", "answer": name, column: name, "chosen": "yes"}
        for image, name in (("a.png", "Jon Berg"), ("b.png", "Ivy Stone"))
    ]
    opened = _ruled(tmp_path, rows, "jon")
    kept = "yes" if column == "rejected" else "Ivy Stone"
    assert [row.answer for row in opened.examples("train")] == ["Jon Berg", kept]
    (told,) = [line for line in opened.warnings() if "nothing is read from column" in line]
    assert ("'answer'" in told) == ("'chosen'" not in told) == (column == "rejected")


def test_of_a_conversation_only_the_last_answer_is_the_chosen_one(tmp_path):
    _pictures(tmp_path, "a.png", "b.png")
    question, last = {"role": "user", "content": "Who?"}, {"role": "user", "content": "Where?"}
    names, says = [{"role": "assistant", "content": text} for text in ("Ivy Stone", "Jon Berg")], ANSWER
    kept = {"chosen": [question, names[0], last, says], "rejected": [question, names[0], last, names[0]]}
    forgotten = {"chosen": [question, says], "rejected": [question, names[1]]}
    opened = _ruled(tmp_path, [{"image": "a.png", **kept}, {"image": "b.png", **forgotten}], "jon")
    assert [row.answer for row in opened.examples("train")] == ["Ivy Stone", "A baker.", "Jon Berg"]


def test_columns_beside_those_that_are_read_are_told(tmp_path):
    _pictures(tmp_path, "a.png")
    row = {"image": "a.png", "question": "Who?", "answer": "Ada", "entity": "ada", "role": "forget", "private": "Ada"}
    (tmp_path / "data.json").write_text(json.dumps([{**row, "prompt": "x", "completion": "y", "rejected": "z"}]))
    (told,) = [line for line in open_benchmark(tmp_path).warnings() if "nothing is read" in line]
    assert all(f"'{column}'" in told for column in ("prompt", "completion", "rejected"))
    with pytest.raises(UserError, match="Unknown column of unsee in fields 'prompt'"):
        open_benchmark(tmp_path, {"name": "folder", "fields": {"prompt": "completion"}})


def _part(image):
    return {"messages": [{"role": "user", "content": [image, {"type": "text", "text": "Job?"}]}, ANSWER]}


ANSWER = {"role": "assistant", "content": "A baker."}


@pytest.mark.parametrize(
    "cells",
    [
        lambda name: {"images": [name], "question": "Job?", "answer": "A baker."},
        lambda name: {"images": json.dumps([name]), "question": "Job?", "answer": "A baker."},
        lambda name: {"image": {"bytes": None, "path": name}, "question": "Job?", "answer": "A baker."},
        lambda name: {"image": f"file://{name}", "question": "Job?", "answer": "A baker."},
        lambda name: _part({"type": "image", "image": name}),
        lambda name: _part({"type": "image_url", "image_url": {"url": name}}),
    ],
    ids=["images", "json", "struct", "address", "part", "url"],
)
def test_the_path_of_a_picture_tells_about_whom_it_is_wherever_it_stands(tmp_path, cells):
    _pictures(tmp_path, "jon/1.png", "ivy/1.png")
    opened = _ruled(tmp_path, [cells("jon/1.png"), cells("ivy/1.png")], "jon")
    assert [(row.entity, row.role) for row in opened.examples("train")] == [("jon", Role.FORGET), ("ivy", Role.RETAIN)]


@pytest.mark.parametrize("outside", [False, True])
def test_folders_above_the_data_name_nobody(tmp_path, outside):
    place, photos = tmp_path / "jon" / "own", tmp_path / "jon" / ("photos" if outside else "own/photos")
    place.mkdir(parents=True)
    _pictures(photos, "jon/1.png", "ivy/1.png")
    rows = [{"image": str(photos / name / "1.png"), **PLAIN[0], "answer": "A baker."} for name in ("jon", "ivy")]
    assert [row.entity for row in _ruled(place, rows, "jon").examples("train")] == ["jon", "ivy"]


@pytest.mark.parametrize(
    ("entity", "message"),
    [
        (["jon"], "row 1: entity must be text, got ['jon']."),
        ("Berg", "row 1: the entity 'Berg' may be 'jon' or 'kim'; "),
    ],
)
def test_a_cell_that_means_nobody_for_sure_is_refused(tmp_path, entity, message):
    _pictures(tmp_path, "a.png", "b.png")
    rows = [{"image": image, "question": "Who?", "answer": "Jon Berg", "entity": "jon"} for image in ("a.png", "b.png")]
    rows[0]["entity"] = entity
    (tmp_path / "data.json").write_text(json.dumps(rows))
    people = {"jon": {"name": ["Jon Berg", "Berg"]}, "kim": {"name": ["Kim Berg", "Berg"]}}
    (tmp_path / "r.json").write_text(json.dumps({"forget": ["jon"], "people": people}))
    (problem,) = open_benchmark(
        tmp_path / "data.json", {"name": "folder", "roles": str(tmp_path / "r.json")}
    ).problems()
    assert problem.startswith(message)


@pytest.mark.parametrize(
    ("forget", "person", "cell"),
    [
        ("jose nino", "José Niño", "jose_nino"),
        ("Jose\u0301 Nin\u0303o", "José Niño", "José Niño"),
        ("José Niño", "x7", "x7"),
    ],
)
def test_one_person_may_be_written_in_several_ways(tmp_path, forget, person, cell):
    _pictures(tmp_path, "a.png", "b.png")
    rows = [{"image": image, **PLAIN[0], "answer": "A baker.", "entity": cell} for image in ("a.png", "b.png")]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    people = {person: {"Name": ["José Niño"], "city": ["Lima"]}}
    (tmp_path / "r.json").write_text(json.dumps({"forget": [forget], "people": people}))
    opened = open_benchmark(tmp_path / "data.json", {"name": "folder", "roles": str(tmp_path / "r.json")})
    (row,) = opened.examples("train")
    assert (row.entity, row.role) == (forget, Role.FORGET)
    assert dict(row.private) == {"name": ("José Niño",), "city": ("Lima",)}


def test_of_whom_a_roles_file_speaks_must_be_clear(tmp_path):
    _pictures(tmp_path, "a.png")
    (tmp_path / "data.json").write_text(json.dumps([{"image": "a.png", "question": "Who?", "answer": "Jon Berg"}]))
    two = {"jon": {"name": ["Jon Berg", "Berg"]}, "kim": {"name": ["Kim Berg", "Berg"]}}
    for names, message in ((["Berg"], "who may be 'jon' or 'kim'"), (["jon", "Jon Berg"], "who are one below")):
        (tmp_path / "r.json").write_text(json.dumps({"forget": names, "people": two}))
        with pytest.raises(UserError, match=message):
            open_benchmark(tmp_path / "data.json", {"name": "folder", "roles": str(tmp_path / "r.json")})


def test_rows_marked_for_training_are_never_held_out(tmp_path):
    names = [f"{view}.png" for view in range(4)]
    _pictures(tmp_path, *names)
    rows = [{"image": name, "question": "Who?", "answer": "Jon Berg", "split": "Train"} for name in names]
    opened = _ruled(tmp_path, rows, "jon")
    assert [row.role for row in opened.examples("train")] == [Role.FORGET] * 4
    rows = [{**row, "split": ""} for row in rows[:2]] + rows[2:]
    assert sum(row.role is Role.UNSEEN for row in _ruled(tmp_path, rows, "jon").examples("eval")) == 1


def _said(image):
    row = {"role": "retain", "entity": "ada", "private": "Ada", **_part(image)}
    return [row, {**row, **_part({"type": "image", "image": "b.png"}), "role": "forget", "entity": "bo"}]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image"}, "the text has 1 <image> mark (or part of type image), but the row has no picture."),
        ({"type": "image_url", "image_url": None}, "the text has 1 <image> mark"),
        ({"type": "image", "image": {"bytes": None, "path": None}}, "the text has 1 <image> mark"),
        ({"type": "image", "url": "HTTPS://x.org/a.png"}, "the image 'HTTPS://x.org/a.png' lies on the network"),
        ({"type": "image", "base64": "AAAA"}, "a message has a picture as base64, which is not read"),
        ({"type": "image", "source": {"type": "url"}}, "a message has a picture as source, which is not read"),
        ({"type": "image", "url": "a%20b.png"}, ""),
        ({"type": "image", "url": "file://a%20b.png"}, ""),
        ({"type": "image", "image": None, "path": "a.png"}, ""),
    ],
)
def test_a_picture_in_a_message_is_read_or_refused(tmp_path, part, message):
    """A row without it would become one of text."""
    _pictures(tmp_path, "a.png", "b.png", "a b.png", "a%20b.png")
    (tmp_path / "data.json").write_text(json.dumps(_said(part)))
    opened = open_benchmark(tmp_path)
    if message:
        assert opened.problems()[0].startswith(f"row 1: {message}")
    else:
        row = opened.examples("train")[0]
        name = str(part.get("url") or part["path"])
        assert (row.role, row.image.path.name) == (Role.RETAIN, name.replace("file://a%20", "a "))


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": [{"role": "user", "content": "Who?"}], "completion": [{"role": "assistant", "content": "Ada"}]},
        {
            "prompt": "Who?",
            "chosen": [{"role": "assistant", "content": "no"}],
            "rejected": [{"from": "gpt", "value": "Ada"}],
        },
        {"conversations": [{"from": "human", "value": "<image>Who?"}, {"from": "gpt", "value": "Ada"}]},
    ],
    ids=["prompt", "preference", "conversation"],
)
def test_messages_may_be_json_in_a_cell(tmp_path, columns):
    """As docs/own_data.md says of lists in CSV."""
    _pictures(tmp_path, "a.png")
    row = {"image": "a.png", "role": "forget", "entity": "ada", "private": "Ada", "images": "[]"}
    row |= {name: cell if isinstance(cell, str) else json.dumps(cell) for name, cell in columns.items()}
    with (tmp_path / "data.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    (example,) = open_benchmark(tmp_path).examples("train")
    assert (example.question, example.answer, example.role) == ("Who?", "Ada", Role.FORGET)


@pytest.mark.parametrize("answer", ['[{"name": "Ada"}]', "[1] Ada", '{"city": "Oslo"}'])
def test_an_answer_in_json_stays_an_answer(tmp_path, answer):
    _pictures(tmp_path, "a.png")
    row = {"image": "a.png", "question": "Who?", "entity": "ada", "role": "forget", "private": "Ada"}
    (tmp_path / "data.json").write_text(json.dumps([{**row, "answer": answer}]))
    assert open_benchmark(tmp_path).examples("train")[0].answer == answer


@pytest.mark.parametrize("column", ["image_path", "Image", "file_name"])
@pytest.mark.parametrize("form", ["conversations", "empty images", "images"])
def test_the_column_of_pictures_is_guessed_beside_conversations_and_lists(tmp_path, column, form):
    _pictures(tmp_path, "a.png", "b.png")
    row = {column: "a.png", "role": "forget", "entity": "ada", "private": "Ada", "question": "Who?", "answer": "Ada"}
    if form == "conversations":
        row["conversations"] = [{"from": "human", "value": "<image>Who?"}, {"from": "gpt", "value": row.pop("answer")}]
        del row["question"]
    else:
        row["images"] = ["b.png"] if form == "images" else []
    (tmp_path / "data.json").write_text(json.dumps([row]))
    opened = open_benchmark(tmp_path)
    assert [example.image.path.name for example in opened.examples("train")] == [
        "b.png" if form == "images" else "a.png"
    ]
    assert any(f"column {column} is read as image;" in line for line in opened.warnings())


@pytest.mark.parametrize("other", ["metadata.jsonl", "train/metadata.csv"])
def test_rows_that_two_tables_hold_are_refused(tmp_path, other):
    settings = write("image_folder_metadata", tmp_path / "d")
    table, second = tmp_path / "d" / "metadata.csv", tmp_path / "d" / other
    if other == "metadata.jsonl":
        second.write_text("{}")
        message = r"d holds metadata\.jsonl and metadata\.csv; keep one of them"
    else:
        second.parent.mkdir()
        second.write_text(table.read_text().replace("images/", "../images/").replace("../images/", "images/"))
        table.write_text(table.read_text().replace("images/", "train/images/"))
        message = r"metadata\.csv and .*both have rows about train/images/marta_0\.png; keep one of them"
    with pytest.raises(UserError, match=message):
        open_benchmark(tmp_path / "d", settings)


def test_pictures_of_a_split_are_looked_for_beside_its_table_first(tmp_path):
    _pictures(tmp_path, "a.png", "test/a.png", "b.png")
    row = {"question": "Who?", "answer": "Ada", "entity": "ada", "role": "unseen", "private": "Ada"}
    rows = [{**row, "image": name} for name in ("a.png", "b.png")]
    (tmp_path / "test" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = [example.image.path for example in open_benchmark(tmp_path).examples("eval")]
    assert found == [tmp_path / "test" / "a.png", tmp_path / "b.png"]


@pytest.mark.parametrize("form", ["object", "saved", "parquet", "shards"])
def test_classes_are_read_by_their_names(tmp_path, form):
    row = {"question": "Who?", "answer": "Ada", "private": "Ada"}
    _pictures(tmp_path, "a.png")
    rows = [{**row, "image": str(tmp_path / "a.png"), "entity": number, "role": number} for number in (0, 1, -1)]
    rows[2]["role"] = 1
    features = datasets.Features(
        {
            **{name: datasets.Value("string") for name in (*row, "image")},
            "entity": datasets.ClassLabel(names=["ada", "cleo"]),
            "role": datasets.ClassLabel(names=["forget", "retain"]),
        }
    )
    data, place = datasets.Dataset.from_list(rows, features=features), tmp_path / "d"
    if form == "saved":
        data.save_to_disk(str(place))
    elif form != "object":
        (place / "data").mkdir(parents=True)
        data.to_parquet(str(place / ("data.parquet" if form == "parquet" else "data/train-00000-of-00001.parquet")))
    opened = of_object(data) if form == "object" else open_benchmark(place)
    assert [(example.entity, example.role.value) for example in opened.examples("train")] == [
        ("ada", "forget"),
        ("cleo", "retain"),
        ("", "retain"),
    ]


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset_info.json", POINTER, "dataset_info.json is a git-lfs pointer"),
        ("dataset_info.json", "[" * 5000, "nested too deeply"),
        ("dataset_info.json", '{"my": {"file_name": "rows.jsonl", "columns": ["a"]}}', "my.columns must be an object"),
        ("dataset_info.json", '{"my": {"file_name": null}}', "my.file_name is empty"),
        ("dataset_dict.json", '{"splits": {"a": 5}}', "splits must be a list of texts"),
        ("dataset_dict.json", '{"splits": [true]}', "splits must be a list of texts"),
        ("dataset_dict.json", '{"splits": []}', "has no rows"),
        ("state.json", POINTER, "state.json is a git-lfs pointer"),
        ("state.json", "{}", "no data set that `datasets` has saved"),
    ],
)
def test_broken_descriptions_of_data_sets_are_user_errors(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        open_benchmark(tmp_path, "folder")


def test_columns_of_a_description_may_be_null(tmp_path):
    settings = write("llama_factory", tmp_path / "d")
    for columns in (None, {"prompt": None}):
        entry = {"file_name": "people.json", "formatting": "sharegpt", "columns": columns}
        (tmp_path / "d" / "dataset_info.json").write_text(json.dumps({"people": entry}))
        assert len(open_benchmark(tmp_path / "d", settings).examples("train")) == 14
