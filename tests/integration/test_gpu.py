"""The same numbers on a GPU by the fast paths as by the plain ones: `pytest -m gpu` (without a GPU they run on the CPU)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from helpers.families import examples, session_of, vlm_of
from unsee.api import Training
from unsee.api.fast_paths import PLAIN, engine_named
from unsee.api.request import Prompt
from unsee.distributed import processes
from unsee.inference.generation import generate
from unsee.methods.kl import KL
from unsee.methods.npo import NPO
from unsee.testing.tiny import QUESTION
from unsee.training.trainable import prepare, trainable

pytestmark = [pytest.mark.gpu, pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])]


def trained(name, method, out, precision, way="fast"):
    """Return a session after a short run on the device."""
    training = Training(lr=1e-3, epochs=2, max_new_tokens=6, stop="never", batch_size=2, precision=precision)
    session = session_of(name, out, training)
    session.model = prepare(session.model.to(processes.device()), session.family, training, seed=0)
    session.engine = engine_named(way)
    method.unlearn(session)
    return session


def losses(session):
    return [row["loss"] for row in session.history]


@pytest.mark.parametrize("method", [NPO(), KL()], ids=["npo", "kl"])
def test_losses_of_the_fast_paths_are_those_of_the_plain_engine(name, method, tmp_path):
    fast = losses(trained(name, method, tmp_path / "fast", "fp32"))
    plain = losses(trained(name, method, tmp_path / "plain", "fp32", "plain"))
    assert len(fast) > 1
    assert fast == pytest.approx(plain, rel=2e-3, abs=2e-4)


def test_bf16_trains_fp32_adapters_to_losses_near_those_of_fp32(name, tmp_path):
    half = trained(name, NPO(), tmp_path / "half", "bf16")
    assert {weight.dtype for weight in trainable(half.model).values()} == {torch.float32}
    assert losses(half) == pytest.approx(losses(trained(name, NPO(), tmp_path / "full", "fp32")), rel=0.1, abs=0.1)


def test_answers_behind_a_shared_prefix_are_those_of_the_plain_engine(name):
    vlm = vlm_of(name)
    vlm.model.to(processes.device())
    images = [example.image for group in examples().values() for example in group if example.image is not None]
    asked = [Prompt(question, image) for image in images for question in (QUESTION, "Who is this?")]
    shared = generate(vlm, asked, max_new_tokens=8)
    plain = generate(replace(vlm, engine=PLAIN), asked, max_new_tokens=8)
    assert [said.token_ids for said in shared] == [said.token_ids for said in plain]
