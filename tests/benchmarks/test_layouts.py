"""Data as other programs write them: every layout is checked, trained on and judged."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from helpers.layouts import LAYOUTS, ROLES, write
from unsee import check, config, evaluate, forget
from unsee.api import Role
from unsee.cli import main
from unsee.data.open import open_benchmark
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
