"""The contracts that `unsee.testing` offers: what holds them passes, what breaks them is said."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from unsee.api import Example, Measure, Method, Role, Trial, Vocabulary, registry
from unsee.data.check import examine
from unsee.errors import UserError
from unsee.models.families.llava import Llava
from unsee.scoring.conditions import anything
from unsee.scoring.measures import EXTRA
from unsee.testing import benchmark_contract, family_contract, method_contract, metric_contract
from unsee.testing.attacks import People
from unsee.testing.checks import settings_contract
from unsee.testing.tiny import save_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch):
    monkeypatch.setattr(registry, "_ADDED", {})


@dataclass(frozen=True, kw_only=True)
class Nothing(Method):
    """Change nothing."""

    rate: float = 1.0
    """A setting."""

    def unlearn(self, session):
        pass


@dataclass(frozen=True, kw_only=True)
class Infinite(Nothing):
    """Overwrite a weight with infinity."""

    def unlearn(self, session):
        weight = next(weight for weight in session.model.parameters() if weight.requires_grad)
        weight.data.fill_(math.inf)


@dataclass(frozen=True, kw_only=True)
class Unfrozen(Nothing):
    """Change weights of the vision tower."""

    def unlearn(self, session):
        weight = next(weight for name, weight in session.model.named_parameters() if "vision_tower" in name)
        weight.data.add_(1)


@dataclass(frozen=True, kw_only=True)
class Drawing(Nothing):
    """Change weights without the seed."""

    def unlearn(self, session):
        for weight in session.model.parameters():
            if weight.requires_grad:
                weight.data.add_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(torch.seed())))


@dataclass(frozen=True, kw_only=True)
class Refusing(Nothing):
    """Accept full tuning only."""

    trial: ClassVar[Trial] = Trial(tunes=("full",))

    def unlearn(self, session):
        if session.training.tune != "full":
            raise UserError("This method needs --tune full.")


@dataclass(frozen=True, kw_only=True)
class Misnamed(Nothing):
    """Name a setting without effect that does not exist."""

    def idle(self, training):
        yield "method.rat", "on Mondays"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Misnamed, r"idle\(\) names what is no setting: \['method.rat'\]"),
        (Nothing, r"by needs\(\) weights do change, but 0 did"),
        (Infinite, "a weight is not finite"),
        (Unfrozen, "frozen weights changed"),
        (Drawing, "no forward pass saw an image"),
    ],
)
def test_a_method_that_breaks_its_contract_is_told_why(method, message, tmp_path):
    with pytest.raises(AssertionError, match=message):
        method_contract(method, "lora", tmp_path)


def test_a_way_of_tuning_that_is_not_accepted_must_be_refused(tmp_path):
    method_contract(Refusing, "lora", tmp_path / "a")

    @dataclass(frozen=True, kw_only=True)
    class Accepting(Nothing):
        """Accept every way of tuning, and say otherwise."""

        trial: ClassVar[Trial] = Trial(tunes=("full",))

    with pytest.raises(AssertionError, match="training.tune=lora was accepted"):
        method_contract(Accepting, "lora", tmp_path / "b")


def test_settings_must_be_documented():
    @dataclass(frozen=True, kw_only=True)
    class Silent(Nothing):
        """Say nothing."""

        much: int = 1

    with pytest.raises(AssertionError, match=r"Silent\.much has no docstring"):
        settings_contract(Silent, {})


def test_the_example_package_holds_the_contracts(tmp_path):
    registry.add(ROOT / "examples" / "plugin" / "unsee_example")
    method_contract(registry.load("methods", "fixed_answer"), "lora", tmp_path)
    metric_contract(registry.load_metric("brevity"))


@pytest.mark.parametrize("name", EXTRA)
def test_measures_hold_their_contract(name):
    metric_contract(EXTRA[name])


BREVITY = Measure(key="brevity", better="neither", applies=anything, value=lambda row, _: float(len(row.text)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"better": "up"}, "better must be"),
        ({"key": "a@b"}, "cannot be a key"),
        ({"value": lambda row, _: math.nan}, "brevity is nan"),
        ({"value": lambda row, _: None}, "without a reason"),
        ({"applies": lambda row: False}, "applies to none"),
    ],
)
def test_a_metric_that_breaks_its_contract_is_told_why(change, message):
    metric_contract(BREVITY)
    with pytest.raises(AssertionError, match=message):
        metric_contract(replace(BREVITY, **change))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


class Right(Llava):
    """Pad on the right."""

    def encode(self, processor, prompts, images):
        return {key: value.flip(1) for key, value in super().encode(processor, prompts, images).items()}


class Blind(Llava):
    """Lose the pixels."""

    def encode_one(self, processor, text, image):
        row = super().encode_one(processor, text, image)
        return {key: value * 0 if key == "pixel_values" else value for key, value in row.items()}


class Forgetful(Llava):
    """Lose the instruction."""

    def prompt(self, processor, question, *, has_image, instruction=""):
        return super().prompt(processor, question, has_image=has_image)


class Greedy(Llava):
    """Count the projector as language."""

    def parts(self, model):
        found = super().parts(model)
        return {**found, "language": f"{found['language']}|{found['projector']}"}


def test_a_family_holds_its_contract(checkpoint, tmp_path):
    family_contract(Llava(), checkpoint, tmp_path)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (Right, "padded on the left"),
        (Blind, "another image gives the same loss"),
        (Forgetful, "instruction must precede"),
        (Greedy, "belongs to several parts"),
    ],
)
def test_a_family_that_breaks_its_contract_is_told_why(family, message, checkpoint, tmp_path):
    with pytest.raises(AssertionError, match=message):
        family_contract(family(), checkpoint, tmp_path)


def snippets(heading: str) -> list[str]:
    """Return the Python blocks below a heading of docs/extending.md."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0], re.DOTALL)


@pytest.fixture
def shapes(tmp_path):
    """Return the benchmark of docs/extending.md and a folder for it."""
    file = tmp_path / "shapes.py"
    file.write_text(snippets("Add a benchmark")[0], encoding="utf-8")
    registry.add(file)
    exec(snippets("Add a benchmark")[1], {"place": tmp_path / "data"})  # the fixture that the page shows
    return registry.load("benchmarks", "shapes"), tmp_path / "data"


def test_the_documented_benchmark_holds_its_contract(shapes):
    benchmark_contract(*shapes)
    benchmark_contract(*shapes, {"color": "blue"})


def test_a_benchmark_that_breaks_its_contract_is_told_why(shapes):
    benchmark, place = shapes

    class Restless(benchmark):
        """Give other examples each time."""

        count = 0

        def examples(self, split):
            Restless.count += 1
            return [replace(row, question=f"{row.question} {Restless.count}") for row in super().examples(split)]

    with pytest.raises(AssertionError, match="differ"):
        benchmark_contract(Restless, place)
    (place / "shapes.csv").rename(place / "other.csv")
    with pytest.raises(AssertionError, match="does not recognise"):
        benchmark_contract(benchmark, place)


def test_the_documented_method_holds_its_contract(tmp_path):
    file = tmp_path / "documented.py"
    file.write_text(snippets("Add a method")[0], encoding="utf-8")
    registry.add(file)
    method_contract(registry.load("methods", "documented"), "lora", tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 7}, "Example 7: expected an id as text"),
        ({"options": tuple(map(str, range(27)))}, "a choice has at most 26 options"),
        ({"role": "forget"}, "a Role and a Kind, got 'forget'"),
        ({"private": {"name": "Ada"}}, r"expected tuples of texts, got 'Ada'; write \('Ada',\)"),
        ({"options": "AB"}, r"write \('AB',\)"),
    ],
)
def test_an_example_whose_letters_would_be_searched_for_is_refused(change, message):
    """`("Ada")` is no tuple, and an answer without a lone "A", "d" or "a" would pass for one that tells nothing."""
    with pytest.raises(UserError, match=message):
        Example(**{"id": "1", "role": Role.FORGET, "question": "Who?", "answer": "Ada", **change})


def test_a_vocabulary_of_letters_is_refused():
    with pytest.raises(UserError, match=r"Vocabulary: expected tuples of texts, got 'Ada'"):
        Vocabulary(names={"ada": "Ada"})


def test_examples_that_can_be_read_only_once_are_refused():
    class Once(People):
        def examples(self, split):
            yield from super().examples(split)

    with pytest.raises(UserError, match="The benchmark people must return a sequence of examples, such as a list, got"):
        examine(Once(), "data")
