"""MANU: importance against numpy, neurons measured with hooks of our own, pruning of the highest."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
import torch

from unsee.api import Role, registry
from unsee.api.request import Target
from unsee.errors import UserError
from unsee.inference.batching import collate
from unsee.methods.common.down_projections import down_projections
from unsee.methods.manu import released
from unsee.methods.manu.activity import Activity, importance, neuron_activity
from unsee.methods.manu.method import Manu
from unsee.testing.methods import session_at
from unsee.utils import terminal

CPU = torch.device("cpu")
RESTS = (Role.FORGET, Role.RETAIN)


def counted(states_tn, threshold=0.1):
    """Return the activity of one module on states, in two pieces."""
    activity = Activity.none(states_tn.shape[1], CPU)
    for piece in torch.tensor(states_tn).split(3):
        activity.add(piece, threshold)
    return activity


def contrast(one, other):
    return numpy.abs(one - other) / (one + other + 1e-8)


def by_hand(multi_tn, text_tn, threshold=0.1):
    """Return I(D, n) as the paper writes it."""
    z_m, z_t = (numpy.abs(states).mean(0) for states in (multi_tn, text_tn))
    v_m, v_t = ((states - z) ** 2 for states, z in ((multi_tn, z_m), (text_tn, z_t)))
    n_m, n_t = ((numpy.abs(states) > threshold).sum(0) for states in (multi_tn, text_tn))
    e_m, e_t = ((states**2).sum(0) for states in (multi_tn, text_tn))
    roots = numpy.sqrt(v_m.mean(0) + v_t.mean(0)) + numpy.sqrt(contrast(e_m, e_t))
    return contrast(z_m, z_t) + contrast(n_m, n_t) + roots


def test_importance_is_the_sum_of_four_contrasts():
    rng = numpy.random.default_rng(0)
    multi, text = rng.normal(size=(7, 5)), 0.2 * rng.normal(size=(7, 5))
    found = importance(counted(multi), counted(text))
    assert numpy.allclose(found.numpy(), by_hand(multi, text))


def test_a_neuron_that_only_forget_images_excite_is_ranked_first():
    rng = numpy.random.default_rng(1)
    plain = [rng.normal(size=(50, 8)) for _ in range(4)]
    plain[0][:, 3] = 5 + rng.normal(size=50)  # forget, with image
    plain[1][:, 3] *= 0.01
    forget, retain = (importance(counted(plain[i]), counted(plain[i + 1])) for i in (0, 2))
    assert int((forget / retain).argmax()) == 3


def test_without_tokens_nothing_counts_against_the_image():
    states = numpy.array([[1.0, 0.0], [3.0, 0.0]])
    found = importance(counted(states), Activity.none(2, CPU))
    assert found.tolist() == pytest.approx(
        [3 + 1.0, 0.0], abs=1e-6
    )  # three contrasts of 1, the deviation of 1 and 3 is 1


@pytest.mark.parametrize("shown", [True, False])
def test_neurons_are_measured_at_the_answer_tokens(shown, tmp_path):
    session = session_at(tmp_path, "full")
    examples = [replace(e, image=e.image if shown else None) for e in session.of(Role.FORGET)]
    name = "model.language_model.layers.1.mlp.down_proj"
    modules = {name: session.model.get_submodule(name)}
    found = neuron_activity(session, examples, modules, set(), 0.1)[name]
    rows = []
    handle = modules[name].register_forward_pre_hook(lambda _, args: rows.append(args[0][0].double()))
    for example in examples:
        batch = collate(session, [Target(example=example)])
        with torch.no_grad():
            session.model(**batch.inputs)
        rows[-1] = rows[-1][batch.labels_bt[0] != -100]
    handle.remove()
    states = torch.cat(rows).numpy()
    assert found.tokens == len(states)
    assert numpy.allclose(found.size_n.numpy(), numpy.abs(states).sum(0), rtol=1e-4)
    assert numpy.allclose(found.square_n.numpy(), (states**2).sum(0), rtol=1e-4)
    assert abs(found.active_n.numpy() - (numpy.abs(states) > 0.1).sum(0)).max() <= 1


@pytest.mark.parametrize("parts", [("language",), ("vision", "language")])
def test_the_highest_share_of_each_part_is_zeroed_and_nothing_else(parts, tmp_path):
    session = session_at(tmp_path, "full", parts=parts)
    before = {name: weight.detach().clone() for name, weight in session.model.named_parameters()}
    registry.load("methods", "manu")(share=0.05).unlearn(session)
    zeroed = {"language": 0, "vision": 0}
    for name, weight in session.model.named_parameters():
        columns = weight.ndim == 2 and (weight == 0).all(0) & ~(before[name] == 0).all(0)
        if torch.is_tensor(columns) and columns.any():
            assert "down_proj" in name or "fc2" in name
            zeroed["vision" if "vision" in name else "language"] += int(columns.sum())
            assert torch.equal(weight[:, ~columns], before[name][:, ~columns])
        else:
            assert torch.equal(weight, before[name])
    assert zeroed == {"language": round(0.05 * 2 * 64), "vision": round(0.05 * 2 * 32) if "vision" in parts else 0}
    assert {
        part: sum(found["zeroed"].values()) for part, found in session.notes["manu"].items()
    }.items() <= zeroed.items()


def test_what_cannot_be_pruned_is_refused(tmp_path):
    with pytest.raises(UserError, match="finds no MLP"):
        Manu().unlearn(session_at(tmp_path, "full", parts=("projector",)))
    session = session_at(tmp_path, "full")
    session.examples = {Role.FORGET: session.examples[Role.FORGET]}
    with pytest.raises(UserError, match="retain role has no image"):
        Manu().unlearn(session)
    with pytest.raises(UserError, match="above 0 and below 1"):
        Manu(share=1.0)


@pytest.mark.parametrize("mode", ["paper", "as_released"])
def test_a_projector_that_is_not_pruned_is_told(mode, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_NOTED", set())
    Manu(mode=mode).unlearn(session_at(tmp_path, "full", parts=("language", "projector")))
    assert "training.parts=projector is not pruned" in capsys.readouterr().err


def by_hand_released(forget_tn, retain_tn):
    """Return the score as the published code adds it up: absolute 2, frequency 0, variance 2, root mean square 2."""
    total = 0
    for weight, statistic in (
        (2, lambda z: numpy.abs(z).mean(0)),
        (0, lambda z: (numpy.abs(z) > 0.1).mean(0)),
        (2, lambda z: z.var(0)),
        (2, lambda z: numpy.sqrt((z**2).mean(0))),
    ):
        total = total + weight * (statistic(forget_tn) / (statistic(retain_tn) + 1e-5) - 1)
    return total


def test_released_score_is_a_weighted_sum_of_ratios():
    rng = numpy.random.default_rng(2)
    forget, retain = 1 + rng.normal(size=(7, 5)), rng.normal(size=(9, 5))
    assert numpy.allclose(released.score(counted(forget), counted(retain)).numpy(), by_hand_released(forget, retain))


def outputs(session, name, examples):
    """Return what a module puts out at every token of the examples, asked one by one."""
    rows = []
    handle = session.model.get_submodule(name).register_forward_hook(lambda _, __, out: rows.append(out.double()))
    for example in examples:
        with torch.no_grad():
            session.model(**collate(session, [Target(example=example)]).inputs)
    handle.remove()
    return torch.cat([row.flatten(0, -2) for row in rows]).clamp(-1e3, 1e3).numpy()


def test_released_prunes_output_rows_of_the_last_layers_by_one_threshold(tmp_path):
    """Vision by images, language by text; scored again from plain hooks, one example a pass."""
    session = session_at(tmp_path, "full", parts=("vision", "language"))
    session.model.eval()
    expected = {}
    for name, _ in session.model.named_modules():
        vision = "vision_tower.encoder.layers" in name and name.endswith((".fc1", ".fc2"))
        if vision or name.endswith((".gate_proj", ".up_proj", ".down_proj")):
            shown = [[replace(e, image=e.image if vision else None) for e in session.of(role)] for role in RESTS]
            expected[name] = by_hand_released(*(outputs(session, name, examples) for examples in shown))
    every = numpy.concatenate(list(expected.values()))
    count = round(0.1 * len(every))
    limit = numpy.sort(every)[-count]
    before = {name: weight.detach().clone() for name, weight in session.model.named_parameters()}
    Manu(mode="as_released", share=0.1).unlearn(session)
    zeroed = 0
    for name, weight in session.model.named_parameters():
        scores = expected.get(name.rpartition(".")[0])
        if scores is None:
            assert torch.equal(weight, before[name])
            continue
        chosen = torch.tensor(scores >= limit * (1 - 1e-6))
        assert (weight[chosen] == 0).all()
        assert torch.equal(weight[~chosen], before[name][~chosen])
        zeroed += int(chosen.sum()) * name.endswith("weight")
    assert zeroed == count == sum(session.notes["manu"]["zeroed"].values())


def test_released_takes_the_last_three_layers():
    stack = torch.nn.ModuleDict(
        {"layers": torch.nn.ModuleList(torch.nn.ModuleDict({"fc1": torch.nn.Linear(2, 3)}) for _ in range(5))}
    )
    assert list(released.matrices(stack, ".*")) == [f"layers.{place}.fc1" for place in (2, 3, 4)]


@pytest.mark.parametrize("read", ["inputs", "outputs"])
def test_measuring_computes_no_logits_that_nobody_reads(read, tmp_path):
    session = session_at(tmp_path, "full")
    modules = down_projections(session.model, session.family.parts(session.model)["language"])
    widths = []
    session.model.lm_head.register_forward_hook(lambda _, __, output: widths.append(output.shape[1]))
    neuron_activity(session, list(session.of(Role.FORGET)), modules, set(), 0.1, read)
    assert set(widths) == {1}
