"""The JSON schema of the files that commands read says what the loader says."""

from __future__ import annotations

import copy
import json
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from unsee import config
from unsee.api import registry
from unsee.cli.main import main
from unsee.config import Run
from unsee.config.json_schema import settings_schema, type_schema
from unsee.data import assignment
from unsee.errors import UserError
from unsee.workflows import validate
from unsee.workflows.continual import tasks
from unsee.workflows.continual.settings import Course
from unsee.workflows.grid import read_grid
from unsee.workflows.settings_schema import KINDS, schema

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[2]
OTHER_PROGRAMS = ("ddp", "fsdp2", "zero3")
"""Files in configs/ that accelerate reads."""


@pytest.fixture(scope="module")
def validators():
    """Return a validator per kind of file; the schemas themselves are checked."""
    whole = schema()
    jsonschema.Draft202012Validator.check_schema(whole)
    parts = {kind: {"$ref": f"#/$defs/{kind}", "$defs": whole["$defs"]} for kind in KINDS if kind != "any"}
    return {kind: jsonschema.Draft202012Validator(one) for kind, one in {"any": whole, **parts}.items()}


def own_files():
    files = [file for file in sorted((ROOT / "configs").glob("**/*.y*ml")) if file.stem not in OTHER_PROGRAMS]
    return [*files, *sorted((ROOT / "examples").glob("**/*.y*ml"))]


def documented():
    """Yield every YAML block of the documentation."""
    for page in sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *(ROOT / "examples").glob("**/*.md")]):
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
            yield pytest.param(block, id=f"{page.name}-{number}")


@pytest.mark.parametrize("file", own_files(), ids=lambda file: file.name)
def test_files_of_the_repository_are_valid(validators, file):
    validators["any"].validate(config.parse_yaml(file.read_text(encoding="utf-8"), where=str(file)))


@pytest.mark.parametrize("block", list(documented()))
def test_examples_of_the_documentation_are_valid(validators, block):
    validators["any"].validate(config.parse_yaml(block, where="block"))


def test_documentation_and_configs_have_examples_of_every_kind():
    blocks = [config.parse_yaml(param.values[0], where="") for param in documented()]
    keys = {key for block in blocks if isinstance(block, dict) for key in block}
    assert {"method", "axes", "requests", "forget"} <= keys
    assert len(own_files()) >= 5


BROKEN = [
    "model: lab\nmethd: npo",
    "method: npoo",
    "method: {name: npo, betta: 0.2}",
    "method: {name: npo, beta: 0}",
    "method: {name: pubg, queries: some}",
    "training: {lr: fast}",
    "training: {tune: qlora}",
    "training: {max_steps: 0}",
    "training: {parts: [language, ears]}",
    "seed: -1",
    "eval: {max_new_tokens: 0}",
    "benchmark: {name: mllmu, ratio: 7}",
    "engine: slow",
    "base: {model: lab, data: lab, method: npo}\naxes: {training.learning_rate: [1.0]}",
    "base: {model: lab, data: lab, method: npo}\naxes: {seed: []}",
    "base: {data: lab, method: npo}\naxes: {seed: [1]}",
    "method: npo\ncontinual: {tasks: 10, mode: serial}",
    "requests: [{entities: [ada], ids: 3}]",
    "requests: []",
    "forget: []",
]


@pytest.mark.parametrize("text", BROKEN)
def test_broken_files_are_not_valid(validators, text):
    assert not validators["any"].is_valid(config.parse_yaml(text, where="text"))


def test_names_of_plugins_are_valid_where_the_file_has_plugins(validators):
    assert validators["any"].is_valid({"method": {"name": "mine", "x": 1}, "plugins": ["mine.py"]})
    assert validators["any"].is_valid({"method": "mine.py"})
    assert not validators["any"].is_valid({"method": {"name": "mine", "x": 1}, "plugins": []})


def runs_of_the_mutations():
    """Return valid runs whose parts are then changed."""
    return [
        {
            "model": "lab",
            "data": "lab",
            "method": {"name": "npo", "beta": 0.2},
            "seed": 1,
            "training": {"lr": 1e-3},
            "out": "o",
        },
        {
            "model": "lab",
            "data": "lab",
            "out": "o",
            "method": {"name": "mmunlearner", "gamma": 2.0, "retain": ["retain"], "tolerance": 0.1},
            "training": {"tune": "full", "parts": ["language"], "max_steps": 3, "dropout": 0.0},
            "eval": {"limit": 3, "roles": ["forget"], "backend": "hf"},
        },
        {
            "model": "lab",
            "data": "lab",
            "out": "o",
            "method": "pubg",
            "benchmark": {"name": "mllmu", "ratio": 10, "tasks": ["cloze"], "strict": False},
            "training": {"robust": "sam", "robust_rho": 0.1},
            "engine": "plain",
        },
        {
            "model": "lab",
            "data": "lab",
            "out": "o",
            "method": {"name": "rmuse", "tau": 0.1, "layers": [1, 2]},
            "eval": {"clip": ""},
        },
    ]


VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    10**13,
    0.5,
    -0.25,
    1.5,
    "",
    "retain",
    "vision,language",
    "auto",
    "1,2",
    [],
    [1],
    ["x"],
    {},
]
"""Values put in place of others. None is a float that is a whole number, which JSON does not tell from an integer."""

ALIKE = {
    bool: lambda rng: rng.random() < 0.5,
    int: lambda rng: rng.choice([1, 2, 5, 10, 0, -1]),
    float: lambda rng: rng.choice([0.5, 2, 0.01, 0, 1.5, -0.5]),
}
"""Type -> another value of it, within the limits or beyond them."""


def mutated(rng):
    """Return a valid run in which one to two places are changed: another value, another name, a removed or added key."""
    run = copy.deepcopy(rng.choice(runs_of_the_mutations()))
    for _ in range(rng.choice([1, 1, 2])):
        parts = [run, *(value for value in run.values() if isinstance(value, dict))]
        part = rng.choice(parts)
        key = rng.choice(sorted(part))
        match rng.randrange(5):
            case 0:
                part[key + rng.choice("sx_")] = part.pop(key)
            case 1:
                part[rng.choice(["lr", "beta", "max_steps", "name", "warmup_steps", "limit", "retain_weight"])] = (
                    rng.choice(VALUES)
                )
            case 2:
                part[key] = rng.choice(VALUES)
            case _:
                part[key] = next((choice(rng) for kind, choice in ALIKE.items() if type(part[key]) is kind), part[key])
    return run


def refusal_of(values):
    """Return why `unsee forget` refuses the settings, as far as it looks without model, data and options; empty = it does not."""
    try:
        run = Run.from_mapping(values)
        if not run.method:  # an option may name it
            run = replace(run, method="prompt", settings={})
        validate._validate_run(run, None, resume=False, hashed=False)
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture
def without_data(monkeypatch):
    """Open no data: only the benchmark's settings are built."""

    class Opened:
        def __init__(self, name, settings):
            self.name, self.settings = name or "lab", settings

        def suggested(self, method):
            return {}

    def opened(data, benchmark):
        name, settings = config.name_and_settings(benchmark)
        if not name:
            return Opened("", None)
        registry.require("benchmarks", name)
        cls = registry.load("benchmarks", name)
        return Opened(name, config.build(cls.settings_type, settings, where="benchmark"))

    monkeypatch.setattr(validate, "open_benchmark", opened)
    monkeypatch.setattr(validate, "require_usable", lambda *_, **__: None)
    monkeypatch.setattr(validate, "require_locations", lambda *_: None)
    monkeypatch.setattr(validate, "benchmark_arguments", lambda opened: opened.name)
    monkeypatch.setattr(validate, "require_names", lambda run: None)
    monkeypatch.setattr(validate.builtin, "absolute_or_name", lambda place: place)


def test_schema_and_loader_agree_on_mutated_files(validators, without_data, tmp_path):
    rng = random.Random("schema")
    verdicts = []
    for number in range(150):
        values = mutated(rng)
        values["out"] = (
            values["out"]
            if isinstance(values.get("out"), dict | list | bool | int | float)
            else str(tmp_path / str(number))
        )
        refusal = refusal_of(copy.deepcopy(values))
        valid = validators["run"].is_valid(values)
        assert valid == (not refusal), (
            f"{values}\nloader: {refusal or 'takes it'}\nschema: {[e.message for e in validators['run'].iter_errors(values)]}"
        )
        verdicts.append(valid)
    assert 30 < sum(verdicts) < 120


GRID = {
    "base": {"model": "lab", "data": "lab", "training": {"stop": "never"}},
    "axes": {"method": ["ga", {"name": "npo", "beta": 0.2}], "seed": [0], "training.lr": [1e-3], "eval.limit": [3]},
}


def test_schema_and_loader_agree_on_mutated_grids(validators, tmp_path):
    rng = random.Random("grid")
    verdicts = []
    for _ in range(60):
        grid = copy.deepcopy(GRID)
        part = rng.choice([grid, grid["base"], grid["axes"], grid["axes"]])
        key = rng.choice(sorted(part.keys() - {"training"}))  # an axis below it takes the place of what is no mapping
        match rng.randrange(4):
            case 0:
                part[key + "x"] = part.pop(key)
            case 1:
                del part[key]
            case 2 if part is grid["axes"]:
                part[key] = [rng.choice(VALUES)]
            case _:
                part[key] = rng.choice([value for value in VALUES if part is not grid or value])
        file = tmp_path / "grid.yaml"
        file.write_text(json.dumps(grid), encoding="utf-8")
        try:
            read_grid(file)
            refusal = ""
        except UserError as error:
            refusal = str(error)
        valid = validators["sweep"].is_valid(grid)
        assert valid == (not refusal), (
            f"{grid}\nloader: {refusal or 'takes it'}\nschema: {[e.message for e in validators['sweep'].iter_errors(grid)]}"
        )
        verdicts.append(valid)
    assert 5 < sum(verdicts) < 50


@pytest.mark.parametrize(
    "values",
    [
        [["ada"], {"id": "b", "entities": ["bo"]}, {"rows": ["r1"], "relation": "same"}],
        {"requests": [["ada"]], "retain": ["bo"]},
        {"requests": ["ada"]},
        {"requests": [[]]},
        {"requests": [{"id": "x"}]},
        {"requests": [{"id": " ", "entities": ["a"]}]},
        {"requests": [["ada"]], "retian": ["bo"]},
        {"requests": "ada"},
        [],
    ],
)
def test_schema_and_loader_agree_on_requests(validators, tmp_path, values):
    file = tmp_path / "requests.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")
    try:
        tasks._read(file)
        loaded = True
    except UserError:
        loaded = False
    assert validators["requests"].is_valid(values) == loaded


@pytest.mark.parametrize(
    "values",
    [
        {"forget": ["a"]},
        {"forget": "a,b", "held_out": 0},
        {"forget": []},
        {"held_out": 0.5},
        {"forget": ["a"], "held_out": 1},
        {"forgt": ["a"]},
    ],
)
def test_schema_and_loader_agree_on_roles(validators, tmp_path, values):
    file = tmp_path / "roles.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")
    try:
        assignment.read(file)
        loaded = True
    except UserError:
        loaded = False
    assert validators["roles"].is_valid(values) == loaded


@pytest.mark.parametrize(
    "course",
    [
        {"tasks": 2},
        {"requests": "r.yaml"},
        {"tasks": 2, "requests": "r.yaml"},
        {"tasks": -1},
        {"tasks": 2, "density": 0},
    ],
)
def test_schema_and_loader_agree_on_courses(validators, course):
    try:
        config.build(Course, course, where="continual")
        loaded = True
    except UserError:
        loaded = False
    assert validators["continual"].is_valid({"method": "npo", "continual": course}) == loaded


@dataclass(frozen=True, kw_only=True)
class Odd:
    """Settings with limits of every kind."""

    share: float = 0.5
    """Above 0, at most 1."""
    count: int = 3
    """Between 3 and 17."""
    names: tuple[str, ...] = ("a",)
    """At least one."""
    kinds: tuple[Literal["x", "y"], ...] = ()
    needed: int

    def __post_init__(self):
        if not 0 < self.share <= 1 or not 3 <= self.count <= 17 or not self.names:
            raise UserError("no")


def test_limits_are_found_in_the_checks_of_a_dataclass():
    found = settings_schema(Odd, ({"needed": 1},))
    share, count = found["properties"]["share"], found["properties"]["count"]
    assert (share["exclusiveMinimum"], share["maximum"]) == (0, 1)
    assert (count["minimum"], count["maximum"], count["default"]) == (3, 17, 3)
    assert found["properties"]["names"]["minItems"] == 1
    assert found["properties"]["share"]["description"] == "Above 0, at most 1."
    assert found["required"] == ["needed"]


def test_text_with_commas_is_a_list():
    pattern = type_schema(tuple[Literal["x", "y"], ...])["anyOf"][2]["pattern"]
    assert re.search(pattern, "x, y")
    assert re.search(pattern, "y")
    assert re.search(pattern, "")
    assert not re.search(pattern, "x y")
    assert not re.search(pattern, "x,z")


def test_schema_is_printed_with_meanings_and_defaults(capsys):
    assert main(["schema", "run"]) == 0
    printed = json.loads(capsys.readouterr().out)
    beta = printed["$defs"]["method.npo"]["properties"]["beta"]
    assert beta["default"] == 0.1
    assert beta["exclusiveMinimum"] == 0
    assert "temperature" in beta["description"]


def test_unknown_kind_is_answered_with_the_nearest(capsys):
    assert main(["schema", "sweeps"]) == 2
    assert "Did you mean sweep" in capsys.readouterr().err
