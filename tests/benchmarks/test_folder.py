"""A folder of one's own: every layout, every fault by its row."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil

import pyarrow.parquet
import pytest
from PIL import Image

from helpers.folder import KEPT, folder, row, write
from unsee.api import Kind, Role
from unsee.data.open import open_benchmark
from unsee.errors import NoDataError, UserError

__all__ = ["folder"]


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "rows.csv", "rows.parquet"])
def test_every_table_gives_the_same_examples(folder, name):
    rows = [row(), row(image="b.png", role="keep", entity="bo", answer='Bo, "x"\nline', private="Bo Winter")]
    one, two = open_benchmark(write(folder, rows, name)).examples("eval")
    assert (one.id, one.role, one.kind, one.entity) == ("row-1", Role.FORGET, Kind.OPEN, "ada")
    assert dict(one.private) == {"name": ("Ada Lovell",), "other": ("Lisbon",)}
    assert one.image.load().size == (4, 4)
    assert two.role is Role.RETAIN
    assert two.answer == 'Bo, "x"\nline'


def test_conversations_become_one_example_a_turn(folder):
    talk = [
        {"from": "human", "value": "<image>\nWho is this?"},
        {"from": "gpt", "value": "Ada"},
        {"from": "human", "value": "Where from?"},
        {"from": "gpt", "value": "Lisbon"},
    ]
    rows = [
        {
            "id": "t",
            "image": "a.png",
            "conversations": talk,
            "entity": "ada",
            "role": "forget",
            "private": {"name": "Ada"},
        }
    ]
    one, two = open_benchmark(write(folder, rows, "data.json")).examples("train")
    assert (one.id, one.question, one.answer) == ("t#0", "Who is this?", "Ada")
    assert (two.id, two.question, two.answer) == ("t#1", "Where from?", "Lisbon")
    assert one.image == two.image


def test_text_rows_get_the_text_roles_and_private_strings_are_shared(folder):
    rows = [
        row(private={"name": ["Ada Lovell", "Lovell"]}),
        row(image="", private='{"city": "Lisbon"}', fact="city"),
        row(image="", role="retain", entity="bo", private=""),
    ]
    picture, text, kept = open_benchmark(write(folder, rows)).examples("train")
    assert (text.role, text.image, text.kind) == (Role.FORGET_TEXT, None, Kind.FACT)
    assert kept.role is Role.RETAIN_TEXT
    expected = {"name": ("Ada Lovell", "Lovell"), "city": ("Lisbon",)}
    assert dict(picture.private) == dict(text.private) == expected
    assert list(text.private) == ["name", "city"]


def test_splits_and_judged_only_roles(folder):
    rows = [
        row(split="train"),
        row(split="test"),
        row(),
        row(role="unseen", answer=""),
        row(role="stranger", answer="", entity="", private=""),
    ]
    opened = open_benchmark(write(folder, rows))
    assert [example.id for example in opened.examples("train")] == ["row-1", "row-3"]
    assert [example.id for example in opened.examples("eval")] == ["row-2", "row-3", "row-4", "row-5"]


def test_pictures_to_forget_that_are_only_judged_and_new_are_unseen(folder):
    """As in requests and by rules: the same content is the same picture, wherever it lies."""
    Image.new("RGB", (9, 9), "blue").save(folder / "new.png")
    shutil.copy(folder / "a.png", folder / "copy.png")
    rows = [
        row(split="train"),
        row(split="test"),
        row(split="eval", image="copy.png"),
        row(split="eval", image="new.png"),
    ]
    opened = open_benchmark(write(folder, rows))
    assert [example.role for example in opened.examples("train")] == [Role.FORGET]
    assert [example.role for example in opened.examples("eval")] == [Role.FORGET, Role.FORGET, Role.UNSEEN]
    alone = open_benchmark(write(folder, rows[1:]))
    assert {example.role for example in alone.examples("eval")} == {Role.FORGET}, "nothing says what was trained on"


def test_vocabulary_holds_everything_that_could_be_claimed(folder):
    rows = [row(visible={"hair": "Red hair"}), KEPT]
    vocabulary = open_benchmark(write(folder, rows)).vocabulary()
    assert vocabulary.names == {"ada": ("Ada Lovell",), "bo": ("Bo Winter",)}
    assert vocabulary.facts == {"other": ("Lisbon",)}
    assert vocabulary.visible == {"hair": {"red hair": r"\bred\ hair\b"}}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"image": "none.png"}, r"row 2: image .*none\.png is missing"),
        ({"image": "iVBORw0KGgo" * 400}, r"row 2: '.{,90} cannot be opened: "),
        ({"answer": " "}, "row 2: the answer is empty"),
        ({"question": ""}, "row 2: the question is empty"),
        ({"entity": ""}, "row 2: the entity is empty"),
        ({"role": ""}, "row 2: the role is empty"),
        ({"role": "forgte"}, "row 2: Unknown role 'forgte'. Did you mean forget"),
        ({"role": "unseen", "image": ""}, "row 2: a row of role unseen needs an image"),
        ({"role": "forget_text"}, "row 2: a row of role forget_text has no image"),
        ({"role": "unseen", "split": "train"}, "row 2: rows of role unseen are never trained on"),
        ({"split": "trian"}, "row 2: Unknown split 'trian'. Did you mean train"),
        ({"kind": "nmae"}, "row 2: Unknown kind 'nmae'. Did you mean name"),
        ({"private": "{broken"}, "row 2: private looks like JSON but is not"),
        ({"private": True}, "row 2: private must be text"),
        ({"visible": "red"}, "row 2: visible must be a mapping"),
        ({"image": ["a.png", "b.png"]}, "row 2: image must be one path"),
        ({"id": "row-1"}, "row 2: id 'row-1' is taken by row 1"),
        ({"kind": "choice", "options": ["x", "y"], "answer": "C"}, "row 2: a choice answer is the letter"),
        ({"kind": "choice", "options": ["x", "y"], "answer": "AB"}, "row 2: a choice answer is the letter"),
    ],
)
def test_faults_name_their_row(folder, cells, message):
    opened = open_benchmark(write(folder, [row(), row(**cells), KEPT]))
    assert len(opened.problems()) == 1
    with pytest.raises(UserError, match=message):
        opened.examples("train")
    assert re.search(message, opened.problems()[0])


def test_columns_are_offered_each_for_one_missing_one_and_always_alike(folder):
    rows = [{"bild": "a.png", "frage": "Who?", "antwort": "Ada", "wer": "ada", "rolle": "forget", "geheim": "Ada"}]
    with pytest.raises(UserError, match=r"Say --fields image=frage,answer=antwort,role=rolle\."):
        open_benchmark(write(folder, rows))


@pytest.mark.parametrize("spelling", ["sub\\jo\u0308rg.png", "sub/j\u00f6rg.png", "file://sub/jo\u0308rg.png", "data"])
def test_paths_of_windows_and_macs_and_addresses_are_read(folder, spelling):
    picture = (folder / "a.png").read_bytes()
    (folder / "sub").mkdir()
    (folder / "sub" / "jo\u0308rg.png").write_bytes(picture)
    name = f"data:image/png;base64,{base64.b64encode(picture).decode()}" if spelling == "data" else spelling
    (example,) = open_benchmark(write(folder, [row(image=name)])).examples("train")
    assert example.image.load().size == (4, 4)


def test_a_picture_on_the_network_is_told_from_a_missing_one(folder):
    (problem,) = open_benchmark(write(folder, [row(image="https://x.org/a.png")])).problems()
    assert problem == "row 1: the image 'https://x.org/a.png' lies on the network; save it and give its path."


def test_all_faults_are_listed_not_only_the_first(folder):
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:40])
    rows = [row(image="bad.png"), row(answer=""), row(), row(image="gone.png"), row(image="bad.png")]
    problems = open_benchmark(write(folder, rows)).problems()
    assert [problem.partition(":")[0] for problem in problems] == ["row 1", "row 2", "row 4", "row 5"]
    assert "cannot be decoded" in problems[0]


def test_a_column_that_is_read_is_not_suggested_for_a_missing_one(folder):
    rows = [{name: value for name, value in row().items() if name != "image"}]
    with pytest.raises(UserError, match="has no column 'image'") as refused:
        open_benchmark(write(folder, rows))
    assert "meant for" not in str(refused.value)


@pytest.mark.parametrize("missing", ["image", "question", "answer", "entity", "role", "private"])
@pytest.mark.parametrize("name", ["data.jsonl", "data.csv"])
def test_missing_column_is_named(folder, missing, name):
    rows = [{key: value for key, value in row().items() if key != missing}]
    with pytest.raises(UserError, match=f"has no column '{missing}'"):
        open_benchmark(write(folder, rows, name))


def test_only_pictures_may_be_named_in_the_plural(folder):
    plural = {"images" if name == "image" else name: cell for name, cell in row().items()}
    assert open_benchmark(write(folder, [plural])).examples("train")[0].image is not None
    plural["answers"] = [plural.pop("answer")]
    with pytest.raises(UserError, match=r"has no column 'answer'\. .* Say --fields answer=answers\."):
        open_benchmark(write(folder, [plural]))


def test_an_empty_list_of_options_is_none(folder):
    assert open_benchmark(write(folder, [row(options=[])])).examples("train")[0].options == ()


@pytest.mark.parametrize(
    "talk",
    [[], "x", [{"from": "human", "value": "q"}], [{"from": "gpt", "value": "q"}, {"from": "human", "value": "a"}]],
)
def test_malformed_conversation_names_its_row(folder, talk):
    rows = [{"id": "t", "image": "a.png", "conversations": talk, "entity": "ada", "role": "forget"}]
    assert open_benchmark(write(folder, rows)).problems()[0].startswith("row 1: conversations must be a list")


def test_broken_files_are_user_errors(folder):
    (folder / "data.jsonl").write_text('{"a": 1}\n{oops\n')
    with pytest.raises(UserError, match="line 2 is no valid JSON"):
        open_benchmark(folder)
    (folder / "data.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        open_benchmark(folder)
    (folder / "data.jsonl").write_text("")
    with pytest.raises(UserError, match="no rows"):
        open_benchmark(folder)
    (folder / "data.csv").write_text("image,question\n1\n")
    with pytest.raises(UserError, match="row 1 has more or fewer cells"):
        open_benchmark(folder / "data.csv")
    with pytest.raises(UserError, match=r"found: data\.csv, data\.jsonl"):
        open_benchmark(folder)
    with pytest.raises(UserError, match="is no table"):
        open_benchmark(folder / "a.png")
    (folder / "x.parquet").write_text("no")
    with pytest.raises(UserError, match="Parquet"):
        open_benchmark(folder / "x.parquet")
    with pytest.raises(UserError, match="No data at"):
        open_benchmark(folder / "nowhere")
    with pytest.raises(UserError, match="Unknown benchmark 'floder'. Did you mean folder"):
        open_benchmark(folder, "floder")


@pytest.mark.parametrize("data", ["x" * 5000, "/".join(["x"] * 5000)])
def test_a_path_that_is_too_long_is_no_data(data):
    with pytest.raises(NoDataError, match="--data must be a path or a name, got a text of"):
        open_benchmark(data)
    with pytest.raises(UserError, match="The lab is not laid out as folder"):
        open_benchmark(f"lab:{data}", "folder")


def test_the_lab_is_opened_by_its_name_and_a_world_by_its_file(tmp_path):
    assert open_benchmark("lab").name == "lab"
    (tmp_path / "world.json").write_text('{"size": 4, "forget_share": 0.25}')
    assert len(open_benchmark(tmp_path).vocabulary().names) == 4


def test_json_lines_may_be_called_json(folder):
    (folder / "data.json").write_text("\n".join(json.dumps(item) for item in (row(), KEPT)), encoding="utf-8")
    assert len(open_benchmark(folder).examples("train")) == 2


@pytest.mark.parametrize(("mark", "encoding"), [(";", "cp1252"), ("\t", "utf-16"), ("|", "utf-8"), (",", "utf-8-sig")])
def test_tables_of_spreadsheets_are_read(folder, mark, encoding):
    rows = [
        row(answer="Zoë, \u201cZ\u201d", private='{"name": ["Zoë"], "city": "Malmö"}'),
        row(role="keep", entity="bo"),
    ]
    with (folder / "data.csv").open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=mark)
        writer.writeheader()
        writer.writerows(rows)
    opened = open_benchmark(folder)
    first = opened.examples("train")[0]
    assert (first.answer, dict(first.private)) == ("Zoë, \u201cZ\u201d", {"name": ("Zoë",), "city": ("Malmö",)})
    assert any("Windows-1252" in warning for warning in opened.warnings()) == (encoding == "cp1252")


@pytest.mark.parametrize(
    ("name", "encoding"), [("Иван Петров", "cp1251"), ("这是张伟", "gb18030"), ("Γιάννης", "cp1253")]
)
def test_tables_in_another_encoding_than_the_western_one_are_refused(folder, name, encoding):
    """Read as Windows-1252 their names would be found in no answer."""
    (folder / "data.csv").write_bytes(
        "\n".join([",".join(row()), ",".join(row(answer=name).values())]).encode(encoding)
    )
    with pytest.raises(UserError, match=r"data\.csv is not UTF-8 text, and no Windows-1252 either\. Save it as UTF-8"):
        open_benchmark(folder)


def test_a_column_that_is_taken_for_another_is_named_beside_its_faults(folder):
    rows = [{**{name: value for name, value in row().items() if name != "role"}, "Role": "actor"}]
    opened = open_benchmark(write(folder, rows))
    (problem,) = opened.problems()
    assert problem.startswith("row 1: Unknown role 'actor'")
    assert problem.endswith("; column Role is read as role; say --fields OURS=YOURS, or rename it, if that is wrong")
    with pytest.raises(
        UserError, match="cannot be used; column Role is read as role; .*\n  row 1: Unknown role 'actor'"
    ):
        opened.examples("train")


def test_columns_are_known_in_any_case(folder):
    """An unread `Split` would have rows trained on that are to be judged only."""
    rows = [row(Split="train", ID="x"), row(image="b.png", Split="test", ID="y")]
    opened = open_benchmark(write(folder, rows))
    assert [example.id for example in opened.examples("train")] == ["x"]
    assert any("column ID is read as id, column Split is read as split" in line for line in opened.warnings())


def test_photos_in_a_format_that_is_not_read_are_told(tmp_path):
    (tmp_path / "Ada").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "Ada" / "1.jpg")
    (tmp_path / "Ada" / "2.HEIC").write_bytes(b"")
    (tmp_path / "roles.yaml").write_text("forget: [Ada]")
    opened = open_benchmark(tmp_path, {"name": "folder", "roles": str(tmp_path / "roles.yaml")})
    assert "images in other formats are not read: Ada/2.HEIC; save them as PNG or JPEG" in opened.warnings()


@pytest.mark.parametrize("name", ["data.xlsx", "data.tsv", "photos/data.jsonl"])
def test_a_table_that_is_not_read_is_named_where_images_are_read_instead(tmp_path, name):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "photos" / "1.jpg")
    (tmp_path / name).write_text("")
    with pytest.raises(
        UserError, match=f"there is no table: every image is asked .* nothing is read from {name}; a table"
    ):
        open_benchmark(tmp_path)


def test_faults_of_csv_name_the_line_and_a_way_out(folder):
    header = ",".join(row())
    (folder / "data.csv").write_text(f"{header}\n\n\na.png,Who?\n")
    with pytest.raises(UserError, match=r"row 1 has more or fewer cells \(line 4\)"):
        open_benchmark(folder)
    (folder / "data.csv").write_text(f"{header}\na.png,{'x' * 200_000}\n")
    with pytest.raises(UserError, match=r"field limit .*; check its quotes, or save it as JSON lines"):
        open_benchmark(folder)


def test_a_mistyped_folder_that_looks_like_a_hub_id_is_told_the_nearest_one(tmp_path, monkeypatch):
    (tmp_path / "data" / "photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data/fotos is no folder here.* Did you mean data/photos\? Say --benchmark"):
        open_benchmark("data/fotos")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"private": 1984.0, "entity": 7.0, "id": 12.0}, {"name": ("1984",)}),
        ({"private": ["Ada", float("nan"), 1984.0], "entity": 7, "id": 12}, {"name": ("Ada",), "other": ("1984",)}),
        (
            {"private": {"NAME": "Ada", "name": "Lovell", "height": 1.5}, "entity": "7", "id": "12"},
            {"name": ("Ada", "Lovell"), "height": ("1.5",)},
        ),
    ],
)
def test_numbers_and_names_are_read_as_answers_write_them(folder, cells, expected):
    """Pandas and Parquet hold whole numbers as floats beside empty cells."""
    (example,) = open_benchmark(write(folder, [row(**cells)], "data.json")).examples("train")
    assert (example.id, example.entity, dict(example.private)) == ("12", "7", expected)


def test_private_strings_are_texts(folder):
    (problem,) = open_benchmark(write(folder, [row(private=["Ada", True])])).problems()
    assert problem.startswith("row 1: private must be text")


def test_a_choice_has_two_options_and_is_listed_by_whole_words(folder):
    cells = {"kind": "choice", "answer": "A", "question": "Job? A. baker B. pilot"}
    (problem,) = open_benchmark(write(folder, [row(**cells, options=["baker"])])).problems()
    assert problem == "row 1: a choice has at least 2 options, got 1; write the others or leave the row out."
    for options, question in ((["baker", "pilot"], cells["question"]), (["bake", "pilot"], "A: bake\nB: pilot")):
        (example,) = open_benchmark(write(folder, [row(**cells, options=options)])).examples("train")
        assert example.question.endswith(question)


def test_csv_of_windows_is_read_from_its_first_line_with_text(folder):
    lines = [";".join(row()), ";".join(row(answer='"Ada\r\nLovell"', private="Ada").values()), "", ""]
    for blank in ("", "\r\n \r\n"):
        (folder / "data.csv").write_bytes((blank + "\r\n".join(lines)).encode("utf-8-sig"))
        assert [example.answer for example in open_benchmark(folder).examples("train")] == ["Ada\nLovell"]
    (folder / "data.csv").write_text("\n\n" + "\n".join([";".join(row()), "a.png;Who?"]))
    with pytest.raises(UserError, match=r"row 1 has more or fewer cells \(line 4\)"):
        open_benchmark(folder)


def test_a_time_that_python_does_not_have_names_the_file(folder):
    table = pyarrow.Table.from_pylist([row()])
    times = pyarrow.array([2**62], type=pyarrow.timestamp("us"))
    pyarrow.parquet.write_table(table.append_column("when", times), folder / "data.parquet")
    with pytest.raises(UserError, match=r"data\.parquet holds a value out of range .*; leave its column out"):
        open_benchmark(folder)
