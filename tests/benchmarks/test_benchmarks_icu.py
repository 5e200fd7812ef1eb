"""ICU-style documents: who has which role in which request, pages, reading apart from memory, and the file that continual runs share."""

from __future__ import annotations

import pytest
from PIL import Image

from fixtures.icu import build, read_rows, write_rows
from unsee.api import ImageFile, Kind, Role
from unsee.benchmarks.icu import Pages
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.workflows.check import check


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("icu")
    build(folder)
    return folder


def opened(place, **settings):
    return open_benchmark(place, {"name": "icu", **settings})


def entities(rows, *roles):
    return sorted({row.entity for row in rows if row.role in roles})


def test_a_task_forgets_its_profiles_keeps_the_retained_and_leaves_the_others_out(place):
    rows = opened(place, task=2).examples("train")
    assert entities(rows, Role.FORGET, Role.FORGET_TEXT) == ["p1"]
    assert entities(rows, Role.RETAIN, Role.RETAIN_TEXT) == ["p3", "p4"]
    every = opened(place).examples("train")
    assert entities(every, Role.FORGET) == ["p0", "p1", "p2"]
    assert not [row for row in every if row.entity == "p5"]


def test_new_copies_are_judged_and_never_trained_on(place):
    bench = opened(place, task=1)
    assert not any("copy" in row.image.path.name for row in bench.examples("train") if isinstance(row.image, ImageFile))
    (unseen,) = [row for row in bench.examples("eval") if row.role is Role.UNSEEN]
    assert (unseen.image.path.name, unseen.entity) == ("p0_copy.png", "p0")


def test_pages_that_show_the_answer_are_reading_and_not_memory(place):
    bench = opened(place, task=1)
    pages = [row for row in bench.examples("eval") if row.fact == "ocr"]
    assert {(row.role, row.kind, row.entity, len(row.private)) for row in pages} == {
        (Role.GENERAL, Kind.GENERAL, "", 0)
    }
    assert not [row for row in bench.examples("train") if row.fact == "ocr"]


def test_several_pages_are_joined_or_first_or_each(place):
    def shown(pages):
        return [row for row in opened(place, task=1, pages=pages).examples("eval") if row.id.startswith("0d")]

    (joined,) = shown("joined")
    one, two = shown("each")
    assert joined.image.load().size == (24, 48)
    assert joined.image.load().crop((0, 24, 24, 48)).tobytes() == two.image.load().tobytes()
    assert [row.id for row in (one, two)] == ["0d", "0d/page-2"]
    assert [row.image.path.name for row in shown("first")] == ["p0_page_1.png"]


def test_joined_pages_are_as_wide_as_the_widest_and_change_their_key_with_the_pixels(tmp_path):
    files = []
    for number, size in enumerate(((10, 4), (20, 6))):
        Image.new("L", size, 9).save(tmp_path / f"{number}.png")
        files.append(ImageFile(tmp_path / f"{number}.png"))
    assert Pages(tuple(files)).load().size == (20, 14)
    before = Pages(tuple(files)).key
    Image.new("L", (20, 6), 10).save(tmp_path / "1.png")
    assert Pages(tuple(files)).key != before


def test_kinds_answers_and_private_values(place):
    rows = {row.id: row for row in opened(place, task=1).examples("train")}
    assert (rows["0a"].kind, rows["0a"].fact, rows["0a"].answer) == (Kind.FACT, "diagnosis", "gout")
    assert (rows["0b"].kind, rows["0b"].answer, rows["0b"].options[0]) == (Kind.CHOICE, "A", "gout")
    assert (rows["0c"].kind, rows["0c"].role) == (Kind.CLOZE, Role.FORGET_TEXT)
    assert rows["0f"].kind is Kind.NAME
    assert list(rows["0a"].private) == ["name", "diagnosis", "clinic"]
    assert opened(place).vocabulary().facts["diagnosis"] == ("gout", "asthma")


def with_row(place, **cells):
    """Change the multiple choice about the first profile."""
    write_rows(place, "qa", [row | (cells if row["id"] == "0b" else {}) for row in read_rows(place, "qa")])
    (row,) = [row for row in opened(place, task=1).examples("train") if row.id == "0b"]
    return row


def test_a_multiple_choice_shows_its_options_unless_it_does_already(tmp_path):
    build(tmp_path)
    shown = "Which?\nA: gout\nB: none of these\nC: scurvy\nD: 1"
    assert with_row(tmp_path).question == shown
    assert with_row(tmp_path, question=shown).question == shown


def test_options_that_are_letters_are_known_by_their_text(tmp_path):
    build(tmp_path)
    groups = ["O", "A", "B", "AB"]
    assert [with_row(tmp_path, options=groups, answer=group).answer for group in groups] == ["A", "B", "C", "D"]
    assert with_row(tmp_path, options=["gout", "asthma"], answer="B. asthma").answer == "B"
    with pytest.raises(UserError, match="has the letter of option B and the text of A"):
        with_row(tmp_path, options=["gout", "asthma"], answer="B. gout")


@pytest.mark.parametrize(
    ("options", "answer", "message"),
    [
        (["gout", "", "asthma"], "B", "option B is empty"),
        (["gout", "asthma", "Gout"], "A", "options A and C are the same"),
        ([f"o{number}" for number in range(30)], "o29", "at most 26 options"),
    ],
)
def test_options_that_shift_or_share_letters_are_refused(tmp_path, options, answer, message):
    build(tmp_path)
    with pytest.raises(UserError, match=message):
        with_row(tmp_path, options=options, answer=answer)


def rewritten(place, table, change):
    write_rows(place, table, [change(row) for row in read_rows(place, table)])


def roles(place, row_id, **settings):
    data = opened(place, task=1, **settings)
    return [
        str(row.role) if row else ""
        for row in (next((row for row in data.examples(part) if row.id == row_id), None) for part in ("train", "eval"))
    ]


def test_split_says_who_is_trained_on_and_who_is_judged_in_any_case(tmp_path):
    build(tmp_path)
    for split, expected in (("Test", ["", "forget_text"]), ("TRAIN", ["forget_text", ""]), ("", ["forget_text"] * 2)):
        rewritten(tmp_path, "qa", lambda row: {**row, "split": split} if row["id"] == "0c" else row)  # noqa: B023
        assert roles(tmp_path, "0c") == expected
    rewritten(tmp_path, "qa", lambda row: {**row, "split": "train"} if row["id"] == "0d" else row)
    assert "questions of view page are never trained on" in opened(tmp_path).problems()[0]


def test_columns_are_found_in_any_case(tmp_path):
    """Else copies for the test, and pages that show the answer, would be trained on."""
    build(tmp_path)
    before = {row_id: roles(tmp_path, row_id) for row_id in ("0a", "0d", "0e")}
    for table in ("profiles", "qa", "general"):
        rewritten(tmp_path, table, lambda row: {name.capitalize(): cell for name, cell in row.items()})
    assert {row_id: roles(tmp_path, row_id) for row_id in before} == before
    assert before["0e"] == ["", "unseen"]
    assert roles(tmp_path, "0e", columns={"split": "Split"}) == before["0e"]


def test_a_column_in_two_spellings_is_refused_unless_one_is_named(tmp_path):
    build(tmp_path)
    rewritten(tmp_path, "qa", lambda row: {**row, "Split": "test"} if row["id"] == "0c" else row)
    with pytest.raises(UserError, match="columns 'Split' and 'split', each of which may be split"):
        opened(tmp_path)
    assert roles(tmp_path, "0c", columns={"split": "Split"}) == ["", "forget_text"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"splitt": "split"}, "Unknown field in benchmark.columns 'splitt'. Did you mean split"),
        ({"split": "Splitt"}, "Unknown column for split in benchmark.columns 'Splitt'. Did you mean split"),
        ({"view": "fields"}, "Unknown column for view in benchmark.columns 'fields'"),
    ],
)
def test_columns_that_are_not_there_are_refused(place, columns, message):
    with pytest.raises(UserError, match=message):
        opened(place, columns=columns)


def test_names_of_columns_are_not_those_of_private_fields(tmp_path):
    build(tmp_path)
    rewritten(tmp_path, "profiles", lambda row: {**row, "fields": {**row["fields"], "id": "X-17"}, "uid": row["id"]})
    rewritten(tmp_path, "qa", lambda row: {**row, "uid": row["id"]})
    assert "X-17" in opened(tmp_path, columns={"id": "uid"}).vocabulary().facts["id"]


def test_the_order_is_a_function_of_its_seed(place):
    assert opened(place, order_seed=3).tasks() == opened(place, order_seed=3).tasks() != opened(place).tasks()
    assert sorted(opened(place, order_seed=3).tasks()) == sorted(opened(place).tasks())


def test_without_requests_the_profiles_are_cut(tmp_path):
    build(tmp_path)
    (tmp_path / "requests.json").unlink()
    assert opened(tmp_path, requests_per_task=2, retain_share=0.34).tasks() == [("p0", "p1"), ("p2", "p3")]
    with pytest.raises(UserError, match="between 0 \\(all\\) and 3, got 4"):
        opened(tmp_path, requests_per_task=1, task=4)


def test_other_column_names_are_a_setting(tmp_path):
    build(tmp_path)
    rows = [
        {("prompt" if key == "question" else key): value for key, value in row.items()}
        for row in read_rows(tmp_path, "qa")
    ]
    write_rows(tmp_path, "qa", rows)
    assert opened(tmp_path).problems()
    general = [
        {("prompt" if key == "question" else key): value for key, value in row.items()}
        for row in read_rows(tmp_path, "general")
    ]
    write_rows(tmp_path, "general", general)
    assert opened(tmp_path, columns={"question": "prompt"}).problems() == []


def test_it_can_be_asked_about_any_profiles(place):
    rows = opened(place, task=1).about(["p2", "p5"]).examples("train")
    assert entities(rows, Role.FORGET) == ["p2", "p5"]
    assert opened(place).about(["nobody"]).tasks() == opened(place).tasks()


def test_a_sequence_of_requests_reads_the_same_file(place):
    tasks = pytest.importorskip("unsee.workflows.continual.tasks")
    from unsee.workflows.continual.settings import Course

    listed = tasks.tasks_of(opened(place), Course(requests=str(place / "requests.json")))
    assert [task.targets for task in listed.tasks] == opened(place).tasks()
    assert listed.retain == ("p3", "p4")


def test_settings_that_the_file_or_the_task_leaves_without_effect_are_named(place, tmp_path):
    for settings in ({"requests_per_task": 2}, {"retain_share": 0.2}, {"order_seed": 3}):
        with pytest.raises(UserError, match=r"benchmark\..* has no effect: it counts only with"):
            check(place, benchmark={"name": "icu", **settings})
    assert check(place, benchmark={"name": "icu", "task": 1, "order_seed": 3}).usable
