"""forget with objects in place of paths, and what it returns."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.run import EXAMPLE
from unsee import Run, evaluate, forget, load
from unsee.config import read_mapping
from unsee.config import run as run_file
from unsee.data.fingerprint import fingerprint
from unsee.data.open import of_object, open_benchmark
from unsee.errors import UserError
from unsee.methods.npo import NPO
from unsee.testing.tiny import save_tiny
from unsee.utils.files import read_jsonl
from unsee.workflows.forget import _free

SHORT = {"max_steps": 2, "stop": "never", "lr": 1e-2, "max_new_tokens": 4, "checkpoint_every": 1, "rank": 2, "alpha": 4}
NPO_HERE = NPO(beta=0.2)


def rows():
    """The example's rows, with absolute image paths."""
    found = read_jsonl(next(EXAMPLE.glob("*.jsonl")))
    return [{**row, "image": EXAMPLE / row["image"]} if row.get("image") else row for row in found]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("objects") / "model")


@pytest.fixture(scope="module")
def opened(model):
    return load(model)


@pytest.fixture(scope="module")
def done(opened, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "npo"
    return forget((opened.model, opened.processor), rows(), NPO_HERE, out, training=SHORT, seed=3)


def test_objects_give_the_weights_that_paths_give_and_stay_as_they_are(model, opened, done, tmp_path):
    by_path = forget(model, EXAMPLE, NPO_HERE, tmp_path / "npo", training=SHORT, seed=3)
    ours, theirs = (load_file(run / "model" / "adapter_model.safetensors") for run in (done, by_path))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    fresh = load(model).model.state_dict()
    now = opened.model.state_dict()
    assert now.keys() == fresh.keys()
    assert all(torch.equal(now[name], fresh[name]) for name in now)


def test_the_record_says_that_objects_were_given_and_their_hashes(done):
    written = read_mapping(done / "run.yaml")
    base = Path(written["model"])
    assert base == done.path.with_name("npo-base")
    assert json.loads((base / "unsee.json").read_text())["object"]["class"] == "LlavaForConditionalGeneration"
    assert len(json.loads((base / "unsee.json").read_text())["object"]["sha256"]) == 64
    assert written["data"] == "<object>"
    assert written["record"]["data_hash"] == fingerprint(of_object(rows()))
    assert not [file for file in done.path.rglob("*") if file.suffix in (".csv", ".jsonl") and file.name != "log.jsonl"]


def test_resume_wants_the_same_weights_and_rows(done, opened, tmp_path):
    def again(model, data):
        return forget((model.model, model.processor), data, NPO_HERE, done, training=SHORT, seed=3, resume=True)

    assert again(opened, rows()) == done
    with pytest.raises(UserError, match="data_hash differ"):
        again(opened, [{**row, "answer": f"{row['answer']} Truly."} for row in rows()])
    with pytest.raises(UserError, match="holds other weights"):
        again(load(save_tiny(tmp_path / "other", seed=1)), rows())


def test_rows_are_the_same_data_in_every_form(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = [
        {name: json.dumps(cell) if isinstance(cell, dict | list) else cell for name, cell in row.items()}
        for row in rows()
    ]
    texts = [{name: str(cell) for name, cell in row.items() if cell is not None} for row in table]
    wanted = fingerprint(open_benchmark(EXAMPLE))
    assert fingerprint(of_object(rows())) == wanted
    assert fingerprint(of_object(pandas.DataFrame(texts))) == wanted
    gaps = pandas.DataFrame(texts).assign(
        visible=pandas.NaT, chain=pandas.Series([pandas.NA] * len(texts), dtype=object)
    )
    without_visible = [{name: cell for name, cell in row.items() if name not in ("visible", "chain")} for row in texts]
    assert fingerprint(of_object(gaps)) == fingerprint(of_object(without_visible))
    twice = pandas.concat([pandas.DataFrame(texts), pandas.DataFrame({"answer": ["?"] * len(texts)})], axis=1)
    with pytest.raises(UserError, match="DataFrame has column 'answer' twice"):
        of_object(twice)
    named = {name: [row.get(name) for row in texts] for name in {name for row in texts for name in row}}
    import datasets

    dataset = datasets.Dataset.from_dict(named)
    assert fingerprint(of_object(dataset)) == wanted
    assert fingerprint(of_object(dataset.cast_column("image", datasets.Image()))) == wanted


def test_pictures_in_memory_are_read(tmp_path):
    row = {"question": "Who?", "answer": "Ada", "role": "forget", "entity": "ada", "private": {"name": ["Ada"]}}
    picture = Image.new("RGB", (8, 8), (1, 2, 3))
    (example,) = of_object([{**row, "image": picture}]).examples("train")
    assert example.image.load().getpixel((0, 0)) == (1, 2, 3)
    for mode, turn in (("RGB", 6), ("CMYK", 1), ("RGBA", 1), ("L", 8), ("1", 1)):
        image = Image.effect_noise((8, 4), 80).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = turn
        file = tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        image.save(file, exif=exif)
        both = of_object([{**row, "image": file}, {**row, "image": Image.open(file)}]).examples("train")
        by_path, by_object = (example.image.load() for example in both)
        assert by_path.size == by_object.size == ((4, 8) if turn in (6, 8) else (8, 4))
        assert by_path.tobytes() == by_object.tobytes()
    with pytest.raises(UserError, match=r"Row 2 of the data \(list\): the image has floating-point values"):
        of_object([{**row, "image": picture}, {**row, "image": Image.new("F", (8, 8))}])


def test_lists_of_a_parquet_file_are_read_from_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    talk = [{"from": "human", "value": "<image>Who?"}, {"from": "gpt", "value": "Ada"}]
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(stream, format="PNG")
    row = {"image": stream.getvalue(), "conversations": talk, "entity": "ada"}
    data = [
        {**row, "role": "forget", "private": {"name": ["Ada", "Lovell"], "city": ["Oslo"]}, "visible": {"hair": "red"}}
    ]
    data += [{**data[0], "role": "unseen", "perturbed": ["Bo", "Eve"]}]
    pandas.DataFrame(data).to_parquet(tmp_path / "rows.parquet")
    table = pandas.read_parquet(tmp_path / "rows.parquet")
    assert fingerprint(of_object(table)) == fingerprint(of_object(data)) == fingerprint(open_benchmark(tmp_path))


@pytest.mark.parametrize(
    ("given", "data", "message"),
    [
        ("bare", rows, "Give the processor of the LlavaForConditionalGeneration, too"),
        (torch.nn.Linear(1, 1), rows, "model must be a path, a hub id or a vision-language model"),
        ("pair", list, "have no rows"),
        ("pair", lambda: [1], "Row 1 of the data .list. must be a mapping"),
        ("pair", lambda: 3, "data must be a path, a hub id, a list of mappings"),
        ("pair", lambda: [{**rows()[0], "image": np.zeros((4, 4, 3), np.uint8)}], "Row 1 .* Image.fromarray"),
        ("pair", lambda: [{"question": "Who?"}], "answer"),
    ],
)
def test_what_is_no_model_or_no_table_is_refused_and_leaves_nothing(opened, tmp_path, given, data, message):
    known = {"bare": opened.model, "pair": (opened.model, opened.processor)}
    given = known[given] if isinstance(given, str) else given
    with pytest.raises(UserError, match=message):
        forget(given, data(), NPO_HERE, tmp_path / "x", training=SHORT)
    assert list(tmp_path.iterdir()) == []


def test_a_run_on_rows_is_judged_on_the_same_rows(done, tmp_path):
    """Its error says to give the same object."""
    assert evaluate(done, rows(), tmp_path / "judged", limit=1, max_new_tokens=4)["forget.leak"].n > 0


def test_a_class_in_place_of_a_method_is_refused(model, tmp_path):
    with pytest.raises(UserError, match=r"method is the class NPO; give an instance, NPO\(\)"):
        forget(model, EXAMPLE, NPO, tmp_path / "x")


def test_one_plugin_alone_is_not_read_letter_by_letter(tmp_path):
    """The letters `/` and `.` are folders, whose code would be run."""
    file = tmp_path / "mine.py"
    for plugins in (file, str(file), [file]):
        assert run_file.Run.of("m", "d", "npo", "o", plugins=plugins).plugins == (str(file),)


@pytest.mark.parametrize("form", ["path", "pair", "vlm"])
def test_a_processor_beside_a_model_that_has_one_is_refused(opened, model, tmp_path, form):
    forms = {"path": model, "pair": (opened.model, opened.processor), "vlm": opened}
    with pytest.raises(UserError, match="comes with its own. Leave processor out"):
        forget(forms[form], EXAMPLE, "prompt", tmp_path / "x", processor=opened.processor)
    assert list(tmp_path.iterdir()) == []


def test_a_fault_after_the_weights_are_stored_removes_them(opened, tmp_path):
    with pytest.raises(UserError, match="lr"):
        forget(opened, rows(), NPO_HERE, tmp_path / "x", training={"lr": "fast"})
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_without_a_folder_the_first_free_one_below_runs_is_used(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "prompt").mkdir(parents=True)
    run = forget(model, EXAMPLE, "prompt", settings={"instruction": "Hush."})
    assert run == Path("runs/prompt-2")
    with pytest.raises(UserError, match="Give `out`"):
        forget(model, EXAMPLE, "prompt", resume=True)
    monkeypatch.setattr(Path, "exists", lambda path: not path.name.endswith("-10001"))
    assert _free("prompt", resume=False) == Path("runs/prompt-10001")


def test_a_run_is_evaluated_shown_and_compared(done, opened, tmp_path):
    scores = done.evaluate(limit=1, max_new_tokens=4, progress=False)
    assert scores["retain.name"] == json_score(done, "retain.name", scores)
    assert done.verdict is not None
    assert done.scores == scores
    assert "npo on <object>" in repr(done)
    assert "&lt;object&gt;" in done._repr_html_()
    assert done.config.settings["beta"] == 0.2
    assert isinstance(done.model().processor, type(opened.processor))
    original = tmp_path / "original"
    evaluate(opened, of_object(rows()), original, stage="original", limit=1, max_new_tokens=4, progress=False)
    page = done.compare(original, out=tmp_path / "report")
    assert page == tmp_path / "report" / "report.html"
    assert "original" in page.read_text(encoding="utf-8")
    reread = Run(str(done))
    with pytest.raises(UserError, match="given as a Python object"):
        reread.evaluate()


def test_a_run_has_its_losses_as_rows_table_and_figure(done, tmp_path, monkeypatch):
    assert [row["step"] for row in done.history] == [1, 2]
    pytest.importorskip("pandas")
    table = done.to_pandas()
    assert list(table.index) == [1, 2]
    assert list(table["loss"]) == [row["loss"] for row in done.history]
    pytest.importorskip("matplotlib")
    guarded = [{**row, "guard_ce": 0.5, "guard_degenerate": 0.0, "usr": 0.5} for row in done.history]
    monkeypatch.setattr(Run, "history", guarded)
    (axes,) = done.plot().axes
    assert [line.get_label() for line in axes.lines] == ["loss", "npo", "forget_log_p"]
    assert list(axes.lines[0].get_ydata()) == list(table["loss"])
    assert [line.get_label() for line in done.plot(["lr"]).axes[0].lines] == ["lr"]
    assert [line.get_label() for line in done.plot(name for name in ("lr", "npo")).axes[0].lines] == ["lr", "npo"]
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"Unknown column of log.jsonl 'usr'"):  # no stop rule in this run
        done.plot(["usr"])
    with pytest.raises(UserError, match=r"Unknown column of log.jsonl 'los'. Did you mean loss"):
        done.plot(["los"])
    with pytest.raises(UserError, match=r"was never evaluated: it has no scores.json"):
        Run(str(tmp_path)).scores  # noqa: B018


def json_score(run, name, scores):
    """Return the score if scores.json holds the same value."""
    assert json.loads((run / "scores.json").read_text())[name]["value"] == scores[name].value
    return scores[name]
