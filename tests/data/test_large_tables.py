"""Tables that stay on disk give the same examples, the same messages and the same weights, and cost a few bytes per row."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.folder import KEPT, folder, row, write
from unsee.api import Role
from unsee.api.lazy import Lazy, chosen, concatenated
from unsee.data import arrow, row_store, survey
from unsee.data.fingerprint import fingerprint
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.testing.tiny import save_tiny
from unsee.workflows.check import check
from unsee.workflows.forget import forget

__all__ = ["folder"]

ROWS = [
    row(private={"name": ["Ada Lovell"], "city": ["Lisbon"]}),
    row(role="unseen", private=None, answer='Zoë "Z"\nsaid \u2028'),
    row(image="b.png", entity="bo", role="retain", private=["Bo"], question="<b>?"),
    row(image="b.png", entity="bo", role="general", private=None, split="eval"),
]


@pytest.fixture
def on_disk(monkeypatch, tmp_path_factory):
    """Let every table count as large, and the cache of `datasets` be a fresh one."""

    def switch():
        monkeypatch.setattr(row_store, "IN_MEMORY", 0)
        monkeypatch.setattr(arrow, "IN_MEMORY", 0)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))

    return switch


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "data.csv", "data.parquet"])
def test_the_same_examples_from_disk(folder, name, on_disk, capfd):
    rows = [{**one, "private": json.dumps(one["private"]), "split": one.get("split", "")} for one in ROWS]
    write(folder, rows, name)
    kept = open_benchmark(folder)
    before = fingerprint(kept), kept.vocabulary(), [example.id for example in kept.examples("train")]
    on_disk()
    opened = open_benchmark(folder)
    assert isinstance(opened.examples("eval"), Lazy)
    assert (fingerprint(opened), opened.vocabulary(), [example.id for example in opened.examples("train")]) == before
    assert opened.examples("eval")[1].private["city"] == ("Lisbon",), (
        "private strings of another row of the same person"
    )
    assert check(folder).usable
    capfd.readouterr()


def test_conversations_from_disk(folder, on_disk):
    talk = [{"from": "human", "value": "<image>Who?"}, {"from": "gpt", "value": "Ada"}]
    talk += [{"from": "human", "value": "Who is it?"}, {"from": "gpt", "value": "Ada"}]
    rows = [
        {"id": f"t{n}", "image": "a.png", "conversations": talk, "entity": "ada", "role": "forget"} for n in range(2)
    ]
    before = [(e.id, e.question) for e in open_benchmark(write(folder, rows)).examples("train")]
    on_disk()
    assert [(e.id, e.question) for e in open_benchmark(folder).examples("train")] == before


def test_faults_are_said_as_before(folder, on_disk):
    rows = [row(id="x"), row(id="x"), row(role="forgte"), row(image="gone.png"), KEPT, row(answer="")]
    (folder / "a.png").write_bytes(b"no image")
    write(folder, rows)
    before = open_benchmark(folder).problems()
    assert len(before) == 6
    on_disk()
    assert open_benchmark(folder).problems() == before
    for text, message in (
        (b'{"a": 1}\n{oops\n', "line 2 is no valid JSON"),
        (b'{"a": 1}\n[1]\n', "line 2 must be an object"),
        (b'{"a":1}\n{"a":"\xff"}\n', "line 2 is not UTF-8"),
    ):
        (folder / "data.jsonl").write_bytes(text)
        with pytest.raises(UserError, match=message):
            open_benchmark(folder)


@pytest.mark.slow
def test_a_check_keeps_a_few_bytes_a_row(tmp_path, on_disk, monkeypatch):
    on_disk()
    monkeypatch.setattr(survey, "_LANGUAGES", 50)  # answers that are read for their language, however many rows

    def peak(rows):
        place = tmp_path / str(rows)
        place.mkdir()
        Image.new("RGB", (4, 4)).save(place / "a.png")
        made = [
            row(answer=f"{'long ' * 40}{n}", role="retain" if n % 2 else "forget", entity=f"e{n % 2}")
            for n in range(rows)
        ]
        write(place, made)
        tracemalloc.start()
        assert check(place).usable
        fingerprint(open_benchmark(place))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(101)  # modules and caches that are there once
    per_row = (peak(2200) - peak(200)) / 2000  # so many that when Python collects garbage does not matter
    assert per_row < 300, "an answer alone takes 250 bytes"


@pytest.mark.parametrize("method", ["grad_diff", "npo"])
def test_training_from_disk_gives_the_same_weights(folder, on_disk, method):
    rows = [
        row(answer=f"Ada {n}", image=f"{'ab'[n % 2]}.png", **({} if n % 2 else {"role": "retain", "entity": "bo"}))
        for n in range(12)
    ]
    rows += [row(image="", role="retain", entity="cleo", answer=f"Cleo {n}") for n in range(3)]
    write(folder, rows)
    model = save_tiny(folder / "model")
    training = {"max_steps": 3, "batch_size": 2, "rank": 2, "stop": "never", "accumulate": 1, "lr": 1e-3}

    def weights(name):
        run = forget(model, folder / "data.jsonl", method, folder / name, training=training)
        return load_file(next(Path(run, "model").glob("adapter_model.safetensors")))

    before = weights("kept")
    on_disk()
    after = weights("streamed")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_lazy_sequences_are_sequences():
    made = []
    lazy = Lazy(5, lambda index: made.append(index) or index * 10)
    assert (len(lazy), lazy[1], lazy[-1], made) == (5, 10, 40, [1, 4])
    assert list(lazy[1:4]) == [10, 20, 30]
    assert list(lazy[::-2]) == [40, 20, 0]
    assert list(chosen(lazy, [3, 0])) == [30, 0]
    assert list(concatenated([lazy[:2], [], [7], lazy[4:]])) == [0, 10, 7, 40]
    assert concatenated([[1], [2]]) == [1, 2]
    assert concatenated([]) == []
    with pytest.raises(IndexError):
        lazy[5]


def test_roles_of_a_session_are_views_of_the_data(folder, on_disk):
    from unsee.data.survey import Survey

    on_disk()
    found = Survey(open_benchmark(write(folder, [row(), KEPT]))).by_role()
    assert {role: type(examples) for role, examples in found.items()} == {Role.FORGET: Lazy, Role.RETAIN: Lazy}
