"""Library insides stay in one package, and a fast path that a library breaks gives way to the plain one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlavaForConditionalGeneration, LlavaModel

import unsee
from helpers.families import FAMILIES, session_of
from helpers.library_touches import touches, touches_in
from unsee.api import Training
from unsee.api.fast_paths import FAST, PLAIN
from unsee.api.request import Prompt
from unsee.compat import cache as kv_cache
from unsee.compat import fast_paths, probes, tensors
from unsee.compat.cache import BufferedLayer
from unsee.inference import batching, likelihood, vision_cache
from unsee.inference.answer_logits import answer_logits
from unsee.inference.batching import collate
from unsee.inference.generation import generate
from unsee.losses import answer_nll
from unsee.training import recompute
from unsee.training.recompute import recomputing
from unsee.training.targets import forget_targets
from unsee.training.trainer import prepare

TRIED = probes.trial_fault
"""The trial itself, for which tests elsewhere have a stand-in (conftest.py)."""
ALLOWED = {
    ("cli/commands/_shared.py", "parser._actions"): "argparse of the standard library",
    (
        "testing/tiny.py",
        "transformers.models.clip.image_processing_pil_clip.CLIPImageProcessorPil",
    ): "the tiny model of the contracts takes images without torchvision",
}
"""Touches outside `unsee/compat`, each with its reason. The list may only become shorter."""


@pytest.fixture(scope="module")
def everywhere():
    return list(touches(Path(unsee.__file__).parent))


def test_no_library_inside_is_touched_outside_compat(everywhere):
    outside = [one for one in everywhere if not one.file.startswith("compat/")]
    assert [str(one) for one in outside if (one.file, one.symbol) not in ALLOWED] == []


def test_every_exception_is_still_needed(everywhere):
    assert ALLOWED.keys() - {(one.file, one.symbol) for one in everywhere} == set()


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("from torch._subclasses import fake_tensor", "private import"),
        ("import torch.utils._pytree", "private import"),
        ("from transformers.cache_utils import DynamicLayer", "undocumented module"),
        ("from peft.tuners.lora.layer import Linear", "undocumented module"),
        ("from transformers import Trainer\nclass A(Trainer): pass", "subclass"),
        ("import transformers as t\nclass A(t.Trainer[int]): pass", "subclass"),
        (
            "from transformers import Trainer\nclass A(Trainer):\n def _wrap_model(self): pass",
            "private method overridden",
        ),
        ("from torch.nn import Module\nclass A(Module):\n def f(self): return self._buffers", "private attribute"),
        ("x._version", "private attribute"),
        ("layer.__class__ = Other", "class swap"),
        ("model.get_image_features = twice", "method replaced"),
        ("model.forward = other", "method replaced"),
        ("made = type(name, (Mixin, kind), {})", "class made at run time"),
        ("out = SimpleNamespace(pooler_output=x)", "stand-in for a library's type"),
    ],
)
def test_a_touch_is_seen(source, kind):
    assert kind in {touch.kind for touch in touches_in(source, "x.py")}


@pytest.mark.parametrize(
    "source",
    [
        "from torch.nn import Module\nclass A(Module):\n def f(self): return self._own",
        "from transformers import TrainerCallback\nclass A(TrainerCallback): pass",
        "import torch\nclass A(torch.autograd.Function): pass",
        "from transformers.modeling_outputs import BaseModelOutput",
        "import os\nos._exit(1)",
        "settings.value = 3",
    ],
)
def test_what_is_documented_is_no_touch(source):
    assert touches_in(source, "x.py") == []


@pytest.fixture
def trials(monkeypatch, _fast_paths_on_trust):
    """Try fast paths in this test, and count the trials."""
    ran = []

    def tried(*args):
        ran.append(args)
        return TRIED(*args)

    monkeypatch.setattr(probes, "trial_fault", tried)
    monkeypatch.setattr(batching, "WORTH_SPLITTING", 1)
    monkeypatch.setattr(recompute, "SMALLEST", 0)
    fast_paths.forget()
    yield ran
    fast_paths.forget()


def session_for(name, tmp_path):
    session = session_of(name, tmp_path, Training(max_new_tokens=4))
    session.model = prepare(session.model, session.family, session.training, seed=0)
    return session


def results(session):
    """Return answers, likelihoods, logits and gradients of a few questions about two images."""
    targets = forget_targets(session)[:3]
    asked = [(Prompt.of(one.example), "Red") for one in targets]
    asked += [(Prompt(f"{request.question} Why?", request.image), "Blue") for request, _ in asked]
    texts = [one.text for one in generate(session.vlm, [request for request, _ in asked], max_new_tokens=4)]
    scores = torch.tensor([one.mean for one in likelihood.likelihoods(session.vlm, asked)])
    batch = collate(session, [targets[0], replace(targets[0], text="Some other answer"), *targets[1:]])
    session.model.train()
    with recomputing(session.model, session.engine) as forward:
        with forward():
            logits_bav, labels_ba = answer_logits(session.model, batch)
        answer_nll(logits_bav, labels_ba).backward()
    gradients = torch.cat([one.grad.flatten() for one in session.model.parameters() if one.grad is not None])
    session.model.zero_grad()
    return texts, scores, logits_bav[labels_ba != -100].detach(), gradients


def assert_same(made, expected):
    assert made[0] == expected[0]
    for values, others in zip(made[1:], expected[1:], strict=True):
        assert torch.allclose(values, others, atol=1e-5, rtol=1e-4)


def lines_of(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("unsee: fast path")]


def states():
    return {one.path.name: one.state for one in fast_paths.status()}


QUICK = ("llava", "qwen2_5_vl", "mllama")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_whole_interfaces_pass_in_every_family(name, tmp_path, trials, capsys):
    session = session_for(name, tmp_path)
    results(session)
    assert lines_of(capsys) == []
    assert set(states().values()) <= {"on", "untried"}
    assert states()["recompute"] == "on"
    assert trials
    count = len(trials)
    results(session)
    assert len(trials) == count


def likelihoods_first(session, targets):
    asked = [(Prompt.of(replace(targets[0].example, question=text)), "Red") for text in ("Who?", "Who is this?")]
    expected = likelihood.likelihoods(replace(session.vlm, engine=PLAIN), asked)
    return [
        torch.tensor([one.mean for one in scores]) for scores in (likelihood.likelihoods(session.vlm, asked), expected)
    ]


def packed_rows_first(session, targets):
    batch = collate(session, [targets[0], replace(targets[0], text="Some other answer")])
    made, labels_ba = answer_logits(session.model, batch)
    expected, _ = answer_logits(session.model, replace(batch, engine=PLAIN))
    return made[labels_ba != -100], expected[labels_ba != -100]


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", pytest.param("qwen3_vl_moe", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("first", "path"), [(likelihoods_first, "packed_likelihoods"), (packed_rows_first, "packed_rows")]
)
def test_image_features_are_tried_on_rows_of_several_questions(name, first, path, tmp_path, trials):
    """Such rows bring positions instead of token types, from which the plain way has to compute its own."""
    session = session_for(name, tmp_path)
    made, expected = first(session, forget_targets(session))
    assert torch.allclose(made, expected, atol=1e-5)
    assert {states()[path], states()["vision_features"]} == {"on"}


def raising(*_, **__):
    raise AttributeError("no such attribute")


def old_signature(patch):
    patch.setattr(BufferedLayer, "update", lambda self, keys, values, *, index: (keys, values))


def no_cache_of_layers(patch):
    patch.setattr(kv_cache, "of_layers", raising)


def wrong_keys(patch):
    update = BufferedLayer.update
    patch.setattr(BufferedLayer, "update", lambda *args, **more: tuple(2 * one for one in update(*args, **more)))


def stand_in_without_attribute(patch):
    class Output:
        pooler_output = property(raising)

        def __init__(self, pooler_output):
            """Take what the real one takes."""

    patch.setattr(vision_cache, "BaseModelOutputWithPooling", Output)


def no_features_taken(patch):
    forward = LlavaModel.forward

    def refusing(self, *args, mm_encoder_outputs=None, **more):
        if mm_encoder_outputs is not None:
            raise TypeError("unexpected keyword argument 'mm_encoder_outputs'")
        return forward(self, *args, **more)

    patch.setattr(LlavaModel, "forward", refusing)


def wrong_features(patch):
    made = vision_cache.BaseModelOutputWithPooling
    patch.setattr(
        vision_cache, "BaseModelOutputWithPooling", lambda pooler_output: made(pooler_output=2 * pooler_output)
    )


def no_masks_of_who_sees_whom(patch):
    forward = LlavaModel.forward

    def refusing(self, input_ids=None, attention_mask=None, **more):
        if attention_mask is not None and attention_mask.ndim == 4:
            raise ValueError("attention_mask must have two axes")
        return forward(self, input_ids=input_ids, attention_mask=attention_mask, **more)

    patch.setattr(LlavaModel, "forward", refusing)


def positions_ignored(patch):
    forward = LlavaModel.forward

    def forgetting(self, input_ids=None, attention_mask=None, position_ids=None, **more):
        own = None if attention_mask is not None and attention_mask.ndim == 4 else position_ids
        return forward(self, input_ids=input_ids, attention_mask=attention_mask, position_ids=own, **more)

    patch.setattr(LlavaModel, "forward", forgetting)


def wrong_logits_kept(patch):
    forward = LlavaForConditionalGeneration.forward

    def first(self, *args, logits_to_keep=0, **more):
        output = forward(self, *args, **more)
        if isinstance(logits_to_keep, int) and logits_to_keep > 1:
            output.logits = output.logits[:, :logits_to_keep]
        elif not isinstance(logits_to_keep, int) or logits_to_keep:
            kept = logits_to_keep if not isinstance(logits_to_keep, int) else slice(-logits_to_keep, None)
            output.logits = output.logits[:, kept]
        return output

    patch.setattr(LlavaForConditionalGeneration, "forward", first)


def no_operands(patch):
    patch.setattr(tensors, "operands", raising)


def wrong_operands(patch):
    operands = tensors.operands
    patch.setattr(tensors, "operands", lambda node: (2 * operands(node)[0], operands(node)[1]))


def storages_without_identity(patch):
    patch.setattr(tensors, "storage_id", lambda tensor: raising())


PACKED = {"prefix_cache", "packed_rows", "packed_likelihoods"}


@pytest.mark.parametrize(
    ("breaking", "names"),
    [
        (old_signature, {"prefix_cache"}),
        (no_cache_of_layers, {"prefix_cache"}),
        (wrong_keys, {"prefix_cache"}),
        (stand_in_without_attribute, {"vision_features"}),
        (no_features_taken, {"vision_features"}),
        (wrong_features, {"vision_features"}),
        (no_masks_of_who_sees_whom, PACKED),
        (positions_ignored, PACKED),
        (wrong_logits_kept, {"answer_logits"}),
        (no_operands, {"recompute"}),
        (wrong_operands, {"recompute"}),
        (storages_without_identity, {"recompute"}),
    ],
)
def test_a_broken_interface_means_the_plain_way_and_one_line(breaking, names, tmp_path, trials, monkeypatch, capsys):
    session = session_for("llava", tmp_path)
    session.engine = PLAIN
    expected = results(session)
    session.engine = FAST
    if names == {"answer_logits"}:
        monkeypatch.setattr("unsee.inference.answer_logits.packable", lambda _: None)
    if names == {"vision_features"} and vision_cache.feature_cache(session.model) is None:
        pytest.skip("models of this transformers version take no features")
    breaking(monkeypatch)
    capsys.readouterr()
    for _ in range(2):
        assert_same(results(session), expected)
    lines = lines_of(capsys)
    assert len(lines) == len(names)
    for name in names:
        path = fast_paths.PATHS[name]
        (line,) = [line for line in lines if f"'{name}'" in line]
        assert f"{path.library} {probes._version(path.library)}" in line
        assert path.cost in line
        assert states()[name] == "off"
    assert {name for name, state in states().items() if state == "off"} == names
    assert all(one.reason for one in fast_paths.status() if one.state == "off")


def test_what_the_plain_way_raises_is_no_fault_of_the_fast_one(tmp_path, trials, monkeypatch):
    session = session_for("llava", tmp_path)
    monkeypatch.setattr(LlavaModel, "forward", raising)
    with pytest.raises(AttributeError, match="no such attribute"):
        results(session)


def test_a_trial_leaves_no_trace(tmp_path, trials):
    session = session_for("llava", tmp_path)
    session.model.train()
    tower = session.model.get_base_model().model.vision_tower.eval()
    batch = collate(session, forget_targets(session)[:3])
    before = torch.random.get_rng_state()
    with recomputing(session.model, session.engine):
        answer_logits(session.model, batch)
    assert trials
    assert torch.equal(torch.random.get_rng_state(), before)
    assert session.model.training
    assert not tower.training
    assert all(weight.grad is None for weight in session.model.parameters())


def test_trials_that_went_well_are_remembered_on_disk_and_failed_ones_are_not(tmp_path, trials, monkeypatch, capsys):
    (tmp_path / "cache").mkdir()
    fast_paths.remember_in(tmp_path / "cache")
    wrong_keys(monkeypatch)
    results(session_for("llava", tmp_path))
    kept = json.loads((tmp_path / "cache" / fast_paths.FILE).read_text())
    assert {key.split()[0] for key in kept} == {"vision_features", "packed_rows", "packed_likelihoods", "recompute"}
    fast_paths.forget()
    trials.clear()
    fast_paths.remember_in(tmp_path / "cache")
    results(session_for("llava", tmp_path))
    assert len(trials) == 1
    assert states()["prefix_cache"] == "off"


@pytest.mark.parametrize("content", ["", "{", "{}", "[1, null]", "\xff"])
def test_a_damaged_record_is_no_record(content, tmp_path, trials):
    (tmp_path / fast_paths.FILE).write_text(content, encoding="latin-1")
    fast_paths.remember_in(tmp_path)
    assert fast_paths.RECORD.proven == set()


def test_another_config_is_tried_again(tmp_path, trials):
    session = session_for("llava", tmp_path)
    batch = collate(session, forget_targets(session)[:1])
    answer_logits(session.model, batch)
    count = len(trials)
    other = session_for("llava", tmp_path)
    answer_logits(other.model, collate(other, forget_targets(other)[:1]))
    assert len(trials) == count
    other = session_for("llava", tmp_path)
    other.model.get_base_model().config.text_config.rms_norm_eps = 0.5
    answer_logits(other.model, collate(other, forget_targets(other)[:1]))
    assert len(trials) == 2 * count


def test_every_path_has_its_switch():
    assert {one.path.switch for one in fast_paths.status()} <= set(vars(FAST))
