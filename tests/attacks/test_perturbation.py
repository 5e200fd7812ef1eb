"""Fitted pictures: changes in levels, their bounds, what they lower, and what they must not be fitted on."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from helpers.families import family, pictured, processor_of
from unsee.api import VLM, Finding, Kind, Role
from unsee.api.fast_paths import PLAIN
from unsee.api.request import Completion, Prompt, Target
from unsee.attacks import perturbation
from unsee.attacks.perturbation import Perturbation, Pixels, denoised, random_signs
from unsee.errors import UserError
from unsee.evaluation.recovery import ask
from unsee.inference.batching import target_ids
from unsee.inference.encoder import encoder
from unsee.testing.attacks import victim
from unsee.testing.tiny import PEOPLE, person, save_tiny


def rows(*people):
    return [person(name, Role.FORGET, 0, Kind.NAME) for name in people]


@pytest.fixture
def loaded(tmp_path):
    return perturbation._changeable(victim(save_tiny(tmp_path / "model"), tmp_path / "work").open())


@pytest.mark.parametrize("name", ["qwen2_vl", "internvl", "idefics3"])
def test_levels_are_those_of_the_picture_and_of_every_frame(name):
    processor = processor_of(name)
    text = family(name).prompt(processor, "?", has_image=True)
    values = family(name).encode(processor, [text], [Image.new("RGB", (16, 16), (10, 120, 250))])["pixel_values"]
    pixels = Pixels(processor.image_processor)
    levels = pixels.levels(values)
    for channel, level in enumerate((10, 120, 250)):
        assert torch.allclose(levels.select(-3, channel), torch.tensor(float(level)), atol=1e-3)
    assert torch.equal(pixels.values(levels, values.shape), values) or torch.allclose(
        pixels.values(levels, values.shape), values, atol=1e-5
    )
    change = torch.zeros(3, 1, 1)
    change[0], change[2] = -12, 12
    changed = pixels.levels(pixels.perturbed(values, change))
    for channel, level in enumerate((0, 120, 255)):
        assert torch.allclose(changed.select(-3, channel), torch.tensor(float(level)), atol=1e-3)


def test_inputs_that_are_no_levels_are_refused():
    pixels = Pixels(processor_of("llava").image_processor)
    with pytest.raises(UserError, match=r"pixel values of shape \[4, 10\], of which no colour channel is known"):
        pixels.levels(torch.zeros(4, 10))
    with pytest.raises(UserError, match=r"has levels from .* not in 0\.\.255"):
        pixels.levels(torch.full((1, 3, 4, 4), 9.0))


def test_a_filter_keeps_flat_pictures_and_weakens_random_signs():
    assert torch.allclose(denoised(torch.full((2, 3, 5, 5), 7.0)), torch.tensor(7.0))
    signs = random_signs(torch.zeros(1, 3, 16, 16), 12.9, 0)
    assert set(signs.unique().tolist()) == {-12.0, 12.0}
    assert denoised(signs).abs().mean() < 0.5 * 12


def test_fitting_beats_random_signs_of_the_same_size(loaded):
    attack = Perturbation(bound=8.5, steps=20, batch_size=2)
    fitted = rows("ada", "bo")
    targets = [Target(example=row) for row in fitted]
    change = attack._common_change(loaded, fitted, 0.0, 0)
    assert change.abs().max() == 8
    assert torch.equal(change, change.round())

    def loss(change):
        return float(perturbation._nll(loaded, targets, [change] * 2))

    noise = [loss(random_signs(change, 8.5, seed)) for seed in range(8)]
    assert loss(change) < min(noise)
    (away, _) = attack._each(loaded, fitted)
    (said, _) = ask(loaded, fitted)
    own = [perturbation._answer_target(fitted[0], said, "")]
    noise = [float(perturbation._nll(loaded, own, [random_signs(change, 8.5, seed)])) for seed in range(8)]
    assert float(perturbation._nll(loaded, own, [away.image.change])) > max(noise)


def test_an_answer_of_special_tokens_is_fitted_as_an_empty_one(loaded):
    (row,) = rows("ada")
    image = loaded.processor.image_token_id
    silent = perturbation._answer_target(row, Completion("", (image,), False), "")
    assert perturbation._nll(loaded, [silent], [torch.zeros(1, 3, 16, 16)]).isfinite()
    assert target_ids(loaded.processor, loaded.family, silent) == (loaded.processor.tokenizer.eos_token_id,)


def test_answers_are_about_the_changed_picture_on_every_path(loaded):
    plain = rows("ada", "bo")
    change = random_signs(torch.zeros(1, 3, 16, 16), 200, 0)
    changed = [perturbation._with_changed_picture(row, None, change) for row in plain]
    before, after = ask(loaded, plain), ask(loaded, changed)
    assert before != after
    assert ask(replace(loaded, engine=PLAIN), changed) == after


def test_fitting_on_the_people_of_the_test_is_refused(tmp_path, monkeypatch):
    target = victim(save_tiny(tmp_path / "model"), tmp_path / "work")
    people = frozenset({"ada", "bo"})
    monkeypatch.setattr(perturbation, "_halves", lambda _rows, known, _seed: [(known, people)])
    with pytest.raises(UserError, match="fitted on what it is tested on"):
        list(Perturbation(variants=("universal",), steps=1).run(target))


def test_people_are_fitted_in_one_half_and_tested_in_the_other():
    people = [replace(row, entity=name) for name in "abcde" for row in rows("ada")]
    halves = perturbation._halves(people, people, 0)
    assert sorted(len(tested) for _, tested in halves) == [2, 3]
    assert halves[0][1] | halves[1][1] == set("abcde")
    for fitted, tested in halves:
        assert not {row.entity for row in fitted} & tested
    assert perturbation._halves(people[:1], people, 0) == []
    assert perturbation._halves(people, people[:1], 0) == []


def test_pictures_of_several_shapes_are_brought_to_one_size():
    loaded = VLM(model=torch.nn.Module(), processor=processor_of("qwen2_vl"), family=family("qwen2_vl"))
    wide, same = ([pictured(row) for row in rows("ada", "bo", "bo")], rows("ada", "bo"))
    assert perturbation._common_size(loaded, same) is None
    assert perturbation._common_size(loaded, wide) == (32, 16)
    encode = encoder(loaded.processor, loaded.family)
    shown = [perturbation._with_changed_picture(row, (32, 16)) for row in wide]
    assert len({encode.row(Prompt.of(row))["pixel_values"].shape for row in shown}) == 1


def test_an_output_that_is_not_a_number_has_no_loss(monkeypatch):
    nobody = Finding(variant="plain", recovered={}, degenerate=0.0, questions=0, further={"not finite": 1.0})
    monkeypatch.setattr(perturbation, "recovery", lambda *_: nobody)
    monkeypatch.setattr(perturbation, "_private_loss", lambda *_: {"private loss": float("nan")})
    assert perturbation._test_variant(None, [], "plain") == nobody


def test_one_person_alone_has_no_universal_change(tmp_path):
    target = victim(save_tiny(tmp_path / "model"), tmp_path / "work")
    everybody = target.benchmark

    class One(type(everybody)):
        def examples(self, split):
            return [row for row in super().examples(split) if row.entity != "bo"]

    alone = replace(target, benchmark=One())
    for only_controls_left in (Perturbation(variants=("universal",)), Perturbation().quick()):
        with pytest.raises(UserError, match="at least two forgotten entities"):
            list(only_controls_left.run(alone))
    found = list(Perturbation(variants=("plain", "per picture", "universal"), steps=1).run(alone))
    assert [finding.variant for finding in found] == ["plain", "per picture"]
    assert set(PEOPLE) >= set(found[0].recovered) == {"ada"}


@pytest.mark.parametrize("bound", [0.0, 12 / 255, 0.99])
def test_a_bound_of_less_than_a_level_is_refused(bound):
    with pytest.raises(UserError, match=rf"attack\.bound must be 1 or more, got {bound}"):
        Perturbation(bound=bound)


@pytest.mark.parametrize("settings", [{"bound": 256.0}, {"step": 0.1, "steps": 9}, {"step": -1.0}])
def test_settings_that_change_nothing_are_refused(settings):
    with pytest.raises(
        UserError, match=r"attack\.bound must be 1 to 255 of them, and attack\.steps times attack\.step 1 or"
    ):
        Perturbation(**settings)
