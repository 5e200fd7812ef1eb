"""A run on a base in few bits: from the command to answers, an export, and the memory that is estimated."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForImageTextToText

from helpers.estimate import SHORT
from helpers.run import EXAMPLE
from unsee import config, estimate, evaluate, forget
from unsee.cli.main import main
from unsee.compat.fake_tensors import Meter
from unsee.compat.tensors import plain_tensors
from unsee.exporting import checkpoints
from unsee.methods.npo import NPO
from unsee.models.checkpoint import open_model, read_sidecar
from unsee.models.quantized_base import PACKAGES
from unsee.testing.tiny import save_tiny

FLAGS = {"nf4": "--load-in-4bit", "int8": "--load-in-8bit"}
KINDS = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(find_spec(package) is None, reason=f"{package}, which holds {kind}, is not there"),
    )
    for kind, package in PACKAGES.items()
]


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_command_to_an_export(kind, tmp_path, monkeypatch):
    """The run keeps the original as its base, is asked as it was trained, and is exported whole."""
    base, run = save_tiny(tmp_path / "base"), tmp_path / "run"
    sets = [f"training.{name}={str(value).lower()}" for name, value in {**SHORT, "lr": 1e-2}.items()]
    options = [word for one in sets for word in ("--set", one)]
    command = ["forget", "--model", str(base), "--data", str(EXAMPLE), "--method", "npo", "--out", str(run)]
    main([*command, FLAGS[kind], "--ask", "0", *options])
    assert config.read(run / "run.yaml").training["quantization"] == kind
    assert read_sidecar(run / "model")["quantization"] == kind
    merged = open_model(run).model
    scores = evaluate(run, EXAMPLE, out=run, limit=1, max_new_tokens=4)
    assert scores

    checkpoints.write_merged(run, tmp_path / "whole")
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole")
    original = dict(open_model(base).model.named_parameters())
    for name, weight in merged.named_parameters():
        assert torch.equal(weight, dict(whole.named_parameters())[name])
    name = "model.vision_tower.encoder.layers.0.mlp.fc1.weight"  # without an adapter: what quantisation left of it
    assert 0 < (dict(whole.named_parameters())[name] - original[name]).abs().max() < 0.2 * original[name].abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_within_a_fifth(kind, tmp_path, monkeypatch):
    """The peak of tensors while training, with the quantised layers as they lie in memory."""
    monkeypatch.setenv("UNSEE_CACHE", "off")
    base, settings = save_tiny(tmp_path / "base"), {**SHORT, "batch_size": 2}
    plain = estimate(base, EXAMPLE, "npo", tmp_path / "run", training=settings, device="cuda")
    guess = estimate(base, EXAMPLE, "npo", tmp_path / "run", training={**settings, "quantization": kind}, device="cuda")
    assert guess.weights < plain.weights
    assert guess.host == plain.host  # it is loaded in full before

    found, unlearn = [], NPO.unlearn

    def metered(self, session):
        with Meter(session.model) as meter:
            unlearn(self, session)
        held = sum(one.nbytes for weight in session.model.parameters() for one in plain_tensors(weight))
        found.append(meter.peak + held)

    monkeypatch.setattr(NPO, "unlearn", metered)
    settings = {**settings, "quantization": kind}
    here = estimate(base, EXAMPLE, "npo", tmp_path / "run", training=settings, device="cpu")
    forget(base, EXAMPLE, "npo", tmp_path / "run", training=settings)
    assert 0.8 < here.training / found[0] < 1.2, f"estimated {here.training}, took {found[0]}"
