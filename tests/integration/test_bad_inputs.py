"""Bad input of every kind: exit code 2, one message with what was expected, what came and the way out, and no file changed.

The tables are in `bad_inputs.py`, a row a kind; a further kind of input is a further row there.
"""

from __future__ import annotations

import hashlib

import pytest

from helpers.bad_inputs import DATA, MODELS, MORE, POINTER, RUNS, Bad, model_of
from unsee.api import Training
from unsee.cli import main
from unsee.errors import UserError
from unsee.evaluation.clip import Clip
from unsee.testing.tiny import save_tiny, tiny_session
from unsee.training.trainer import prepare


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A tiny model that nobody changes; rows that need a damaged one copy it."""
    return save_tiny(tmp_path_factory.mktemp("bad_inputs") / "tiny")


def contents(place):
    """Return what lies below a folder: names, kinds and contents."""
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(place.rglob("*"))
    }


def refuse(bad: Bad, words, place, capsys):
    before = contents(place)
    code = main.main([str(word) for word in words])
    said = capsys.readouterr()
    assert code == 2, said
    assert contents(place) == before, "bad input changed files"
    assert "Traceback" not in said.err + said.out
    assert said.err.isprintable() or set(said.err) <= {*said.err} - {"\x00", "\x1b", "\x07"}
    assert len(said.err) < 4000, "a message that nobody reads"
    for part in bad.says:
        assert part in said.err, said.err
    return said.err


@pytest.mark.parametrize("bad", DATA, ids=lambda bad: bad.kind)
def test_bad_data(bad, tmp_path, capsys):
    bad.make(tmp_path)
    data = tmp_path / bad.data
    words = ["forget", "--model", "lab", "--data", data, "--method", "ga", "--out", tmp_path / "out"]
    refuse(bad, words, tmp_path, capsys)
    # `check` agrees with `forget`: unusable (1), or no data at all (2).
    assert main.main(["check", str(data)]) in (1, 2)
    said = capsys.readouterr()
    assert bad.says[0] in said.out + said.err


@pytest.mark.parametrize("bad", [*RUNS, *MORE], ids=lambda bad: bad.kind)
def test_bad_run(bad, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse(bad, bad.make(tmp_path), tmp_path, capsys)


@pytest.mark.parametrize("bad", MODELS, ids=lambda bad: bad.kind)
def test_bad_model(bad, tiny, tmp_path, capsys):
    model = model_of(bad, tiny, tmp_path)
    words = ["forget", "--model", model, "--data", tmp_path / "d", "--method", "ga", "--out", tmp_path / "out"]
    refuse(bad, [*words, "--set", "training.max_steps=1"], tmp_path, capsys)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_a_clip_model_that_is_a_git_lfs_pointer(name, tmp_path):
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(UserError, match=rf"{name} is a git-lfs pointer"):
        Clip.load(tmp_path)


@pytest.mark.parametrize(("content", "message"), [(POINTER, "is a git-lfs pointer"), ("hello", "damaged or cut off")])
def test_an_adapter_to_go_on_from_that_cannot_be_read(content, message, tmp_path):
    (tmp_path / "adapter_model.safetensors").write_text(content)
    session = tiny_session(tmp_path / "out", training=Training(adapter=str(tmp_path)))
    with pytest.raises(UserError, match=message):
        prepare(session.model, session.family, session.training, session.seed)


def test_the_table_is_large_and_names_each_kind_once():
    kinds = [bad.kind for bad in (*DATA, *RUNS, *MORE, *MODELS)]
    assert len(set(kinds)) == len(kinds) >= 350
