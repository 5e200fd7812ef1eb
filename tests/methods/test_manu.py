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
from unsee.methods.manu import Activity, Manu, _measured, importance
from unsee.testing.methods import session_at


def counted(states_tn, threshold=0.1):
    """Return the activity of one module on states, in two pieces."""
    activity = Activity.none(torch.nn.Linear(states_tn.shape[1], 1))
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
    found = importance(counted(states), Activity.none(torch.nn.Linear(2, 1)))
    assert found.tolist() == pytest.approx(
        [3 + 1.0, 0.0], abs=1e-6
    )  # three contrasts of 1, the deviation of 1 and 3 is 1


@pytest.mark.parametrize("shown", [True, False])
def test_neurons_are_measured_at_the_answer_tokens(shown, tmp_path):
    session = session_at(tmp_path, "full")
    examples = [replace(e, image=e.image if shown else None) for e in session.of(Role.FORGET)]
    name = "model.language_model.layers.1.mlp.down_proj"
    modules = {name: session.model.get_submodule(name)}
    found = _measured(session, examples, modules, set(), 0.1)[name]
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
