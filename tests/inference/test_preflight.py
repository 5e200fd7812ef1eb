"""Rows are encoded before a run; tokenizers' habits do not reach prompts; a checkpoint is opened as it is or not at all."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForImageTextToText

from helpers.families import save_family
from helpers.folder import KEPT, folder, row, write
from unsee.api import ImageFile
from unsee.api.pictures import decode_image, size_of
from unsee.cli import main
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.inference.encoder import Encoder, answer_ids
from unsee.inference.preflight import Preflight, of_model
from unsee.models.auto import encode_one
from unsee.models.checkpoint import save_model
from unsee.models.families.llava import Llava
from unsee.testing.tiny import save_tiny, tiny_examples, tiny_model, tiny_processor, tiny_vlm
from unsee.workflows.check import check

__all__ = ["folder"]

HABITS = {
    "none": "$A",
    "BOS": "<s> $A",
    "BOS twice": "<s> <s> $A",
    "EOS": "$A </s>",
    "both": "<s> $A </s>",
    "EOS twice": "$A </s> </s>",
}


def habitual(habit):
    """A processor whose tokenizer adds special tokens of itself."""
    processor = tiny_processor()
    ids = [("<s>", processor.tokenizer.bos_token_id), ("</s>", processor.tokenizer.eos_token_id)]
    processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(HABITS[habit], special_tokens=ids)
    return processor


@pytest.mark.parametrize("habit", HABITS)
def test_prompts_never_end_in_eos_nor_begin_with_two_bos(habit):
    processor, family = habitual(habit), Llava()
    plain = tiny_processor()
    prompt = family.prompt(processor, "Who is this?", has_image=False)
    expected = plain.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    begin = [processor.tokenizer.bos_token_id] * ("BOS" in habit or habit == "both")
    row = encode_one(processor, prompt, None)
    assert row["input_ids"][0].tolist() == [*begin, *expected]
    assert row["attention_mask"].shape == row["input_ids"].shape
    assert list(Encoder(processor, family).tokens(prompt)) == [*begin, *expected]
    with_picture = encode_one(processor, family.prompt(processor, "Who?", has_image=True), Image.new("RGB", (16, 16)))
    assert with_picture["input_ids"][0, -1] != processor.tokenizer.eos_token_id
    assert answer_ids(processor, family, "Ada Lovell") == answer_ids(plain, family, "Ada Lovell")


def test_a_tokenizer_that_ignores_add_special_tokens(monkeypatch):
    processor, family = habitual("both"), Llava()
    called = processor.tokenizer.__class__.__call__
    monkeypatch.setattr(
        processor.tokenizer.__class__,
        "__call__",
        lambda self, *given, **more: called(self, *given, **{**more, "add_special_tokens": True}),
    )
    monkeypatch.undo()
    assert answer_ids(processor, family, "Ada") == answer_ids(tiny_processor(), family, "Ada")


def preflight(processor=None):
    return Preflight(replace(tiny_vlm(), processor=processor or tiny_processor()))


def test_rows_that_fit_pass_and_others_are_named(folder):
    rows = [row(id="fits"), row(id="long", question="Who is this? " * 3000), row(id="end", answer="Ada </s>"), KEPT]
    examples = open_benchmark(write(folder, rows)).examples("train")
    lines = list(preflight().lines([*examples, *examples]))
    assert [line.split(",")[0] for line in lines] == ["row long", "row end"], "each row is named once"
    assert str(folder / "a.png") in lines[0]
    assert "tokens with its image and answer" in lines[0]
    assert len(lines[0]) < 400
    assert "the answer holds '</s>'" in lines[1]


def test_an_instruction_with_a_special_token_is_refused():
    with pytest.raises(UserError, match="the instruction holds '<image>', a special token"):
        Preflight(replace(tiny_vlm(), instruction="Look at <image> first."))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"perturbed": ("Bo Winter", "<image>")}, "the false answer holds '<image>'"),
        ({"options": ("Ada", "</s>")}, "the option holds '</s>'"),
        ({"perturbed": ("Bo " * 9000,)}, "tokens with its image and answer"),
    ],
)
def test_all_answers_of_a_row_are_read(changes, said):
    example = replace(tiny_examples()["forget"][0], **changes)
    (line,) = preflight().lines([example])
    assert said in line


def test_the_length_of_a_row_is_what_collate_makes(folder):
    from unsee.api.request import Target
    from unsee.inference.batching import collate
    from unsee.testing.tiny import tiny_session

    image = open_benchmark(write(folder, [row(), KEPT])).examples("train")[0]
    session = tiny_session(folder / "out")
    batch = collate(session, [Target(example=image)])
    ready = Preflight(session.vlm)
    ready._room = 1
    found = int(ready.fault(image).split()[1])
    assert found == batch.inputs["input_ids"].shape[1]


def test_pictures_that_a_processor_refuses_are_named(folder, tmp_path):
    Image.new("RGB", (1, 300)).save(folder / "a.png")
    write(folder, [row(), KEPT])
    model = save_family("qwen2_5_vl", tmp_path / "q")
    problems = check(folder, model=model).problems
    assert len(problems) == 1
    assert "row row-1" in problems[0]
    assert "a.png" in problems[0]
    assert "1 x 300 pixels" in problems[0]
    assert check(folder).usable, "only this model does not take it"


def test_pictures_are_processed_once_for_each_size(folder, monkeypatch):
    ready, sizes = preflight(), []
    monkeypatch.setattr(ready, "_image_tokens", lambda size: sizes.append(size) or 3)
    for number in range(6):
        Image.new("RGB", (8, 8 + number % 2)).save(folder / f"{number}.png")
    rows = [row(image=f"{number % 6}.png") for number in range(60)]
    assert list(ready.lines(open_benchmark(write(folder, [*rows, KEPT])).examples("train"))) == []
    assert sizes == [(8, 8), (8, 9), (4, 4)]


def test_check_takes_a_model_and_reads_no_weights(folder, tmp_path, capsys):
    model = save_tiny(tmp_path / "m")
    (model / "model.safetensors").unlink()
    write(folder, [row(answer="<pad> Ada"), KEPT])
    assert main.main(["check", str(folder), "--model", str(model)]) == 1
    assert "the answer holds '<pad>'" in capsys.readouterr().out
    write(folder, [row(), KEPT])
    assert main.main(["check", str(folder), "--model", str(model)]) == 0
    assert of_model(model).fault(open_benchmark(folder).examples("train")[0]) == ""


def test_a_check_goes_by_the_instruction_and_processor_of_an_adapter(folder, tmp_path):
    base = save_tiny(tmp_path / "base")
    tuned = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"]))
    processor = tiny_processor()
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<secret>"]})
    save_model(tuned, processor, tmp_path / "tuned", instruction="Be brief. " * 9000, base=base)
    save_model(tiny_model(), tiny_processor(), tmp_path / "whole", instruction="Be brief. " * 9000)
    write(folder, [row(), row(id="b", answer="<secret> Ada"), KEPT])
    short, marked = open_benchmark(folder).examples("train")[:2]
    assert of_model(base).fault(short) == of_model(base).fault(marked) == ""
    assert "tokens with its image and answer" in of_model(tmp_path / "whole").fault(short)
    assert "tokens with its image and answer" in of_model(tmp_path / "tuned").fault(short)
    assert "the answer holds '<secret>'" in of_model(tmp_path / "tuned").fault(marked)


# pictures


@pytest.mark.parametrize(
    ("values", "format"),
    [("u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF"), ("i4", "TIFF")],
)
def test_16_bit_pictures_keep_their_levels(tmp_path, values, format):
    ramp = np.tile(np.arange(256) * 257, (16, 1)).astype(values)
    path = tmp_path / "a.img"
    Image.fromarray(ramp).save(path, format)
    loaded = np.asarray(ImageFile(path).load())
    assert loaded.shape == (16, 256, 3)
    assert (loaded[0, :, 0] == np.arange(256)).all()
    assert loaded.mean() == 127.5


def test_transparency_of_16_bit_pictures_is_white(tmp_path):
    Image.fromarray(np.array([[300, 40_000]], dtype="u2")).save(tmp_path / "a.png", transparency=300)
    assert np.asarray(ImageFile(tmp_path / "a.png").load())[0, :, 0].tolist() == [255, 40_000 >> 8]


def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch):
    from unsee.data.tables import undecodable

    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    (tmp_path / "x.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    assert "cannot be decoded" in undecodable(tmp_path / "x.png")


# warnings of check


def warned(folder, *rows):
    report = check(write(folder, [*rows]))
    assert report.usable
    return "\n".join(report.warnings)


def test_pictures_on_two_sides_are_warned_about(folder):
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    Image.new("RGB", (4, 4), "green").save(folder / "b.png")
    text = warned(folder, row(), row(id="u", image="copy.png", role="unseen"), {**KEPT, "id": "k"})
    assert "so it is not new: u." in text
    assert "to be forgotten and to be kept" not in text
    text = warned(folder, row(), row(id="u", image="b.png", role="unseen"), {**KEPT, "id": "k", "image": "copy.png"})
    assert "a picture is to be forgotten and to be kept: k have the picture" in text
    assert "not new" not in text


def test_private_strings_that_are_kept_or_never_found_are_warned_about(folder):
    Image.new("RGB", (4, 4), "green").save(folder / "b.png")
    fine = warned(folder, row(), KEPT)
    for line in ("answers that are to be kept", "no answer about", "without a letter"):
        assert line not in fine
    assert "row-2 ('Ada Lovell' of ada)" in warned(folder, row(), {**KEPT, "answer": "A friend of Ada Lovell."})
    shared = {**KEPT, "answer": "Bo, Lisbon", "private": ["Bo Winter", "Lisbon"]}
    assert "to be kept hold" not in warned(folder, row(), shared), "it is private to the other one as well"
    assert "no answer about ada holds" in warned(folder, row(private="Ida Lovall"), KEPT)
    assert "can never be found in an answer: ':-)' (ada)" in warned(folder, row(private=["Ada Lovell", ":-)"]), KEPT)
    assert "a word that programs write for an empty cell in row-2" in warned(folder, row(), {**KEPT, "answer": "nan"})


def test_columns_that_nothing_reads_are_named_with_the_nearest(folder):
    text = warned(folder, row(visibel={"hair": "red"}, pertubed=["No."], source="web"), KEPT)
    assert "'visibel' (did you mean visible?)" in text
    assert "'pertubed' (did you mean perturbed?)" in text
    assert "'source'" in text


# own folders


def test_options_are_shown_unless_the_question_lists_them(folder):
    base = {"kind": "choice", "options": ["baker", "pilot"], "answer": "A"}
    asked = [
        row(**base, question="What is her job?"),
        row(**base, question="Which?\nA. baker\nB. pilot"),
        row(**base, question="Is she a baker or a pilot?"),
        row(**{**base, "options": {"A": "baker", "B": "pilot"}}, question="Job? (A) baker (B) pilot"),
    ]
    questions = [example.question for example in open_benchmark(write(folder, [*asked, KEPT])).examples("train")[:4]]
    assert questions[0] == "What is her job?\nA: baker\nB: pilot"
    assert questions[1] == asked[1]["question"]
    assert questions[2] == "Is she a baker or a pilot?\nA: baker\nB: pilot", "nobody says which letter is which"
    assert questions[3] == asked[3]["question"]


def test_one_picture_in_images_and_pictures_in_parquet(folder):
    talk = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "Cleo"}]
    rows = [{**row(), "image": "", "images": ["a.png"], "conversations": talk}, {**KEPT, "conversations": talk}]
    first = open_benchmark(write(folder, rows)).examples("train")[0]
    assert (first.question, first.image) == ("Who?", ImageFile(folder / "a.png"))
    (folder / "data.jsonl").unlink()
    picture = {"bytes": (folder / "a.png").read_bytes(), "path": None}
    opened = open_benchmark(write(folder, [row(image=picture, question="<image> Who?")], "data.parquet"))
    assert opened.problems() == []
    example = opened.examples("train")[0]
    assert example.image.load().size == (4, 4)
    assert example.image.key == ImageFile(folder / "a.png").key
    assert example.question == "Who?"


# where things lie


def test_pictures_go_beside_runs_only_where_nothing_else_lies(tmp_path):
    from unsee.config.paths import pictures_folder

    runs, mixed = tmp_path / "runs", tmp_path / "data"
    for place in (runs / "x", mixed / "x"):
        place.mkdir(parents=True)
    assert pictures_folder(runs / "y") == runs / "unsee-images"
    (runs / "x" / "run.yaml").write_text("method: ga\n")
    assert pictures_folder(runs / "y") == runs / "unsee-images"
    (mixed / "data.jsonl").write_text("{}")
    assert pictures_folder(mixed / "x") == mixed / "x" / "images"
    (mixed / "data.jsonl").unlink()
    (mixed / "photos").mkdir()
    (mixed / "photos" / "a.png").write_bytes(b"x")
    assert pictures_folder(mixed / "x") == mixed / "x" / "images"


def test_a_copied_run_is_where_its_run_file_lies(tmp_path):
    import argparse

    from unsee.cli.commands._shared import run_of

    (tmp_path / "b").mkdir()
    text = "model: lab\ndata: lab\nmethod: ga\nout: a\n"
    given = {"file": str(tmp_path / "b" / "run.yaml"), "set": [], "out": None, "plugin": []}
    (tmp_path / "b" / "run.yaml").write_text(text)
    assert run_of(argparse.Namespace(**given)).out == "a", "a file written by hand says where"
    (tmp_path / "b" / "run.yaml").write_text(f"{text}record: {{commit: x}}\n")
    assert run_of(argparse.Namespace(**given)).out == str(tmp_path / "b")
    assert run_of(argparse.Namespace(**{**given, "out": "c"})).out == "c"


# models


def test_an_adapter_with_more_embeddings_brings_its_tokenizer(tmp_path):
    from unsee.models.checkpoint import open_model

    base = save_tiny(tmp_path / "base")
    model = AutoModelForImageTextToText.from_pretrained(base)
    before = model.get_input_embeddings().weight.shape[0]
    processor = tiny_processor()
    processor.tokenizer.add_tokens(["adalovell", "bowinter"])
    model.resize_token_embeddings(before + 2, mean_resizing=False)
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    tuned.peft_config["default"].base_model_name_or_path = str(base)
    with torch.no_grad():
        tuned.get_input_embeddings().weight[-1] = 7.0
    tuned.save_pretrained(tmp_path / "a", save_embedding_layers=True)
    processor.tokenizer.save_pretrained(tmp_path / "a")
    opened = open_model(tmp_path / "a")
    weight = opened.model.get_input_embeddings().weight
    assert weight.shape[0] == before + 2
    assert (weight[-1] == 7.0).all()
    assert opened.processor.tokenizer("adalovell", add_special_tokens=False)["input_ids"] == [before]


def test_a_dry_run_for_a_gpu_takes_checkpoints_of_float16(folder, tmp_path, capsys):
    model = save_tiny(tmp_path / "m")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    write(folder, [row(), KEPT])
    words = ["forget", "--model", model, "--data", folder, "--method", "ga", "--out", tmp_path / "o", "--dry-run"]
    assert main.main([*map(str, words), "--device", "cuda", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "cuda"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_the_size_in_the_header_is_that_of_the_decoded_picture(tmp_path, suffix):
    for turn in (1, 3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.new("RGB", (8, 4)).save(tmp_path / f"{turn}.{suffix}", exif=exif)
        assert size_of(tmp_path / f"{turn}.{suffix}") == decode_image(tmp_path / f"{turn}.{suffix}").size
