"""MMUBench: the released files and a folder a concept, every fault by its row, one run from forgetting to comparing."""

from __future__ import annotations

import pytest

from fixtures.mmubench import PROMPTS, SIU, TESTS, build, build_folders, write_table
from unsee.api import Kind, Response, Role
from unsee.cli.main import main
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.scoring.aggregate import score
from unsee.workflows.check import check


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    place = tmp_path_factory.mktemp("mmubench")
    build(place)
    return place


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("concepts")
    build_folders(place)
    return place


def opened(place, **settings):
    return open_benchmark(place, {"name": "mmubench", **settings})


def test_the_released_files_are_recognised_from_the_clone_and_from_its_folder(released):
    for place in (released, released / "SIU"):
        assert open_benchmark(place).name == "mmubench"


def test_forget_rows_say_the_true_name_and_their_image_is_found_by_its_file_name(released):
    rows = opened(released).examples("train")
    forget = [one for one in rows if one.role is Role.FORGET]
    assert [one.answer for one in forget] == ["This is Donald Trump.", 'It is "Donald Trump",\nI think.']
    assert forget[0].question == "Who is the central figure of this photograph?"
    assert {one.kind for one in forget} == {Kind.NAME}
    assert {one.image.path.name for one in forget} == {"Trump_Image118.jpg"}
    assert forget[0].private == {"name": ("Donald Trump", "Trump")}


def test_text_rows_are_known_by_the_name_in_the_question_and_kept_once(released):
    rows = opened(released).examples("train")
    assert [one.question for one in rows if one.role is Role.FORGET_TEXT] == ["Who is Donald Trump?"]
    (kept,) = [one for one in rows if one.role is Role.RETAIN_TEXT]
    assert (kept.answer, kept.entity, kept.image) == ("Yes: José Müller « is » a singer.", "", None)
    assert len({one.id for one in rows}) == len(rows)


def test_text_rows_need_no_target_phrase(tmp_path):
    build(tmp_path)
    rows = [{key: cell for key, cell in row.items() if key != "target_phrase" or row.get("image")} for row in SIU]
    assert rows != SIU
    write_table(tmp_path, "finetunedata/SIU.json", rows)
    assert opened(tmp_path).problems() == []
    texts = [row for row in opened(tmp_path).examples("train") if row.image is None]
    assert {row.role for row in texts} == {Role.FORGET_TEXT, Role.RETAIN_TEXT}


def test_a_yes_with_a_full_stop_is_no_name(tmp_path):
    build(tmp_path)
    write_table(tmp_path, "evaldata/execcuatedata.json", [{"prompt": "Is this Trump?", "target": "Yes."}])
    prompts = [row for row in opened(tmp_path).examples("eval") if row.image is not None]
    assert {(row.kind, row.answer, row.fact) for row in prompts} == {(Kind.GENERAL, "yes", "")}


def test_prompts_go_to_the_training_image_and_in_turn_to_the_test_images(released):
    judged = opened(released).examples("eval")
    unseen = [one for one in judged if one.role is Role.UNSEEN]
    assert [one.image.path.name for one in unseen] == [*TESTS, TESTS[0]]
    assert [(one.kind, one.answer) for one in unseen] == [
        (Kind.NAME, "trump"), (Kind.GENERAL, "yes"), (Kind.GENERAL, "yes"), (Kind.GENERAL, "yes"), (Kind.NAME, "trump"),
    ]  # fmt: skip
    trained = [one for one in judged if one.role is Role.FORGET]
    assert len(trained) == len(PROMPTS)
    assert {one.image.path.name for one in trained} == {"Trump_Image118.jpg"}
    every = opened(released, pairing="product").examples("eval")
    assert sum(one.role is Role.UNSEEN for one in every) == len(PROMPTS) * 4
    assert len({one.id for one in every}) == len(every)


def test_prompts_without_reference_are_probes_for_the_name(released):
    judged = opened(released, prompts=["multilanguage", "Multi-hop"]).examples("eval")
    unseen = [one for one in judged if one.role is Role.UNSEEN]
    assert [one.kind for one in unseen] == [Kind.OPEN] * 3
    assert unseen[1].question == "这是谁"
    assert unseen[2].image.path.name == "Trump_Image753.jpeg"


def said(place, text, **settings):
    bench = opened(place, **settings)
    rows = [row for row in bench.examples("eval") if row.image is not None]
    told = [
        Response.of(row, stage="s", text=text, tokens=3, ended=True, image="i", image_key=row.image.key) for row in rows
    ]
    return score(told, bench.vocabulary()), told


def test_exact_match_counts_names_and_yes_and_never_what_the_question_says(released):
    """Of five prompts two ask for the name and three for yes."""
    for text, gone, by_image in (
        ("It is Donald Trump.", 3 / 5, 3 / 4),
        ("Yes, Trump.", 0.0, 0.0),
        ("A man.", 1.0, 1.0),
        ("I saw yesterday.", 1.0, 1.0),
        ("", 1.0, 1.0),
    ):
        scores, _ = said(released, text)
        assert scores["forget.em"].value == pytest.approx(gone)
        assert scores["unseen.em"].value == pytest.approx(by_image)  # as all scores: a mean over images
        assert scores["forget.em"].n == len(PROMPTS)
    assert scores["unseen.empty"].value == 1.0
    assert said(released, "a dog a cat")[0]["unseen.diversity"].value == 75.0


def test_the_released_protocol_keeps_its_blanks_and_substrings(released):
    """`" yes "` and `" yes trump"` are never said, and "yesterday" says yes."""
    scores, _ = said(released, "Yes, Trump.", protocol="released")
    assert scores["forget.em.released"].value == pytest.approx(2 / 5)
    assert said(released, "I saw yesterday.", protocol="released")[0]["forget.em.released"].value == pytest.approx(
        4 / 5
    )
    # Prompts without a published target have no such score: an empty one would be in every text.
    unseen = said(released, "A man.", protocol="released", prompts=["execcuatedata", "multilanguage"])[0]
    assert unseen["unseen.em.released"].value == 1.0
    assert unseen["unseen.em"].n > unseen["unseen.em.released"].n


def test_ga_rows_have_the_released_true_answers(released):
    forget = [one for one in opened(released, forget_rows="ga").examples("train") if one.role is Role.FORGET]
    assert [one.answer for one in forget] == ["This is President Donald Trump.", "Yes, I have heard of Donald Trump."]
    assert [one.kind for one in forget] == [Kind.NAME, Kind.GENERAL]


def test_the_vocabulary_has_the_substitute_so_that_it_counts_as_somebody_else(released):
    assert opened(released).vocabulary().names == {
        "donald trump": ("Donald Trump", "Trump"),
        "jacob campbell": ("Jacob Campbell",),
    }


def test_check_finds_awkward_content_usable_and_says_what_was_put_right(released, capsys):
    assert main(["check", "--data", str(released)]) == 0
    said = capsys.readouterr().out
    assert "3 targets had blanks at their ends" not in said
    assert "2 targets had blanks at their ends" in said
    assert "1 text-only rows occur twice" in said
    assert "1 rows that give the concept a new look" in said


def test_names_that_occur_nowhere_are_a_problem_with_a_way_out(released):
    assert any("set benchmark.names" in line for line in opened(released, names=["Ada Lovell"]).problems())


def test_wrong_settings_get_the_nearest_names(released, folders):
    with pytest.raises(UserError, match="must be one of execcuatedata"):
        opened(released, prompts=["execuatedata"])
    with pytest.raises(UserError, match=r"Unknown concept 'Schnauze'. Did you mean Schnauzer"):
        opened(folders, concepts=["Schnauze"])
    with pytest.raises(UserError, match="chooses among folders"):
        opened(released, concepts=["x"])


def test_a_folder_a_concept(folders):
    bench = opened(folders, concepts=["Bo_Winter"])
    train, judged = bench.examples("train"), bench.examples("eval")
    forget = [one for one in train if one.role is Role.FORGET]
    assert {one.image.path.name for one in forget} == {"0.png"}
    assert forget[0].private == {"name": ("Bo Winter", "Winter"), "job": ("diver",), "city": ("Oslo",)}
    assert {one.entity for one in train if one.role is Role.RETAIN} == {"Hello Kitty", "Schnauzer"}
    assert {one.image.path.name for one in judged if one.role is Role.UNSEEN} == {"1.png", "2.png"}
    assert {one.answer for one in judged if one.kind is Kind.GENERAL} == {"yes"}
    assert check(folders).usable
    assert open_benchmark(folders).name == "mmubench"


def test_hidden_folders_and_files_are_no_concepts_and_no_images(tmp_path):
    build_folders(tmp_path)
    before = [row.id for row in opened(tmp_path).examples("train")]
    for hidden in (".ipynb_checkpoints/0.png", "Bo_Winter/._0.png"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"no image")
    assert [row.id for row in opened(tmp_path).examples("train")] == before
    assert opened(tmp_path).problems() == []


def test_a_fact_called_name_does_not_replace_the_names(tmp_path):
    build_folders(tmp_path)
    (tmp_path / "concepts.json").write_text('{"Schnauzer": {"facts": {"name": "dog"}}}', encoding="utf-8")
    with pytest.raises(UserError, match=r"facts of Schnauzer has a fact called name"):
        opened(tmp_path)


def test_a_folder_with_one_image_or_an_unknown_concept_is_said(tmp_path):
    build_folders(tmp_path)
    for name in ("1.png", "2.png"):
        (tmp_path / "Schnauzer" / name).unlink()
    assert "Schnauzer: one image to train on and at least one to test are needed, found 1." in check(tmp_path).problems
    (tmp_path / "concepts.json").write_text('{"Schnautzer": {}}')
    with pytest.raises(UserError, match="Did you mean Schnauzer"):
        opened(tmp_path)
    (tmp_path / "concepts.json").write_text("{}")
    assert opened(tmp_path, concepts=["Bo_Winter"]).vocabulary().names["Bo_Winter"] == ("Bo Winter",)
    (tmp_path / "concepts.json").write_text("{")
    with pytest.raises(UserError, match=r"concepts\.json is no valid JSON"):
        opened(tmp_path)


@pytest.mark.parametrize("settings", [{"forget_rows": "ga"}, {"prompts": "Multi-hop"}, {"pairing": "product"}])
def test_settings_of_the_released_files_have_no_effect_on_folders(folders, released, settings):
    with pytest.raises(UserError, match=r"benchmark\..* has no effect: it counts only with the released files"):
        check(folders, benchmark={"name": "mmubench", **settings})
    assert not list(opened(released, **settings).idle())
