"""Runs as values: types are checked, YAML goes round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from unsee import config
from unsee.api import Training
from unsee.benchmarks.folder import FolderSettings
from unsee.config import Run
from unsee.errors import UserError
from unsee.utils.files import atomic_write_json, atomic_write_text, hash_folder, read_jsonl, require_space
from unsee.workflows.continual.settings import Course
from unsee.workflows.grid import read_grid
from unsee.workflows.leaderboard.plan import read_plan


@dataclass(frozen=True, kw_only=True)
class Settings:
    beta: float = 0.1
    on: bool = False
    count: int = 1
    way: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    limit: float | None = None
    place: Path = Path()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("0.2", 0.2),
        ("-.inf", float("-inf")),
        ("3", 3),
        ("true", True),
        ("no", "no"),
        ("007", "007"),
        ("-0100", "-0100"),
        ("08.5", "08.5"),
        ("0", 0),
        ("0.5", 0.5),
        ("1e05", 1e05),
        ("[a, b]", ["a", "b"]),
        ("1.2.3", "1.2.3"),
        ("", ""),
        ("Say #1 only", "Say #1 only"),
        ("#5", "#5"),
        ("Note: no #2", "Note: no #2"),
        ("/data/a #1/r.yaml", "/data/a #1/r.yaml"),
        ("'a #b'", "a #b"),
        ('["#1", b]', ["#1", "b"]),
        ("C#", "C#"),
        ("2024-01-02", "2024-01-02"),
        ("2024-01-02T10:00:00Z", "2024-01-02T10:00:00Z"),
        ("=", "="),
    ],
)
def test_override_values_are_typed(text, value):
    read = config.parse_overrides([f"method.x={text}"])["method"]["x"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("bad", ["method.beta", "=1", "method..x=1"])
def test_malformed_override_says_the_form(bad):
    with pytest.raises(UserError, match=r"NAME=VALUE"):
        config.parse_overrides([bad])


@pytest.mark.parametrize("text", ["'a' #b", "{a: 1} # all", "[a] #", '"a": 1 #b'])
def test_a_comment_in_an_override_is_refused(text):
    with pytest.raises(UserError, match=r"The value of method.x ends in a comment"):
        config.parse_overrides([f"method.x={text}"])


@pytest.mark.parametrize("name", [1, None, True])
def test_names_in_mappings_are_texts(name):
    with pytest.raises(UserError, match=f"fields must have texts as names, got {name}"):
        config.build(FolderSettings, {"fields": {name: "a"}}, where="benchmark")


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("b, c", ("b, c",)),
        ("a, b, c , b", ("a", "b, c", "b")),
        ("b,a", ("b", "a")),
        (["b, c", "a"], ("b, c", "a")),
    ],
)
def test_a_choice_with_a_comma_may_be_listed(text, ways):
    assert config.convert(text, tuple[Literal["a", "b", "b, c"], ...], where="s") == ways


def test_build_converts_what_is_meant():
    made = config.build(Settings, {"beta": 1, "names": "x, y", "limit": None, "place": "a/b"}, where="s")
    assert made == Settings(beta=1.0, names=("x", "y"), place=Path("a/b"))
    assert type(made.beta) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"betta": 1}, "Did you mean beta"),
        ({"beta": "0.1x"}, "beta must be a number, got '0.1x'"),
        ({"beta": True}, "beta must be a number"),
        ({"on": 1}, "on must be true or false, got 1"),
        ({"count": True}, "count must be a whole number"),
        ({"count": 1.5}, "count must be a whole number"),
        ({"way": "c"}, "way must be one of a, b"),
        ({"names": [1]}, "names must be text"),
        ({"limit": "x"}, "limit must be a number"),
    ],
)
def test_build_refuses_wrong_types(values, message):
    with pytest.raises(UserError, match=message):
        config.build(Settings, values, where="s")


def test_a_number_with_a_leading_zero_is_not_read_as_octal():
    values = config.parse_overrides(["training.max_steps=0100"])["training"]
    with pytest.raises(UserError, match="max_steps must be a whole number, got '0100'"):
        config.build(Training, values, where="training")


@pytest.mark.parametrize("inline", [False, True])
def test_text_that_looks_like_something_else_comes_back_as_text(inline):
    words = (
        "1e5 1e-4 08 0089 0017 1.e3 12345e67 .5 yes true 2026-01-01 0x1f 0o17 1_000 1:30 ~ null .inf 7 -3.5 =".split()
    )
    values = {"words": [*words, "", "a: b", "- x"], "numbers": [7, -3.5, 1e-05, 1e300, float("inf"), True, None]}
    values |= {word: word for word in words}
    assert config.parse_yaml(config.dump_yaml(values, inline=inline), where="test") == values


def test_a_run_is_read_back_whatever_its_folder_is_called(tmp_path):
    config.write(tmp_path / "run.yaml", Run(model="1e5", out="1e-4", data="08"), record={})
    again = config.read(tmp_path / "run.yaml")
    assert (again.model, again.out, again.data) == ("1e5", "1e-4", "08")


def test_later_overrides_win_and_a_new_method_drops_the_old_ones_settings():
    base = {"method": {"name": "npo", "beta": 0.1}, "seed": 1}
    assert config.merge(base, {"method": {"beta": 0.2}})["method"] == {"name": "npo", "beta": 0.2}
    assert config.merge(base, {"method": "npo"})["method"] == {"name": "npo", "beta": 0.1}
    assert config.merge(base, {"method": "ga"})["method"] == {"name": "ga"}
    assert config.parse_overrides(["a.b=1", "a.b=2", "a.c=3"]) == {"a": {"b": 2, "c": 3}}


def test_run_goes_round_through_yaml(tmp_path):
    run = Run(
        model="m", data="d", method="npo", out="o", seed=3, settings={"beta": 1e-05}, training={"parts": ("vision",)}
    )
    path = tmp_path / "run.yaml"
    config.write(path, run, record={"commit": "x"}, result={"steps": 3})
    again = config.read(path)
    assert again.settings == {"beta": 1e-05}
    assert again.training == {"parts": ["vision"]}
    assert (again.model, again.data, again.method, again.out, again.seed) == ("m", "d", "npo", "o", 3)
    assert config.build(Training, again.training, where="training").parts == ("vision",)
    config.write(tmp_path / "second.yaml", again, record={"commit": "x"}, result={"steps": 3})
    assert (tmp_path / "second.yaml").read_text() == path.read_text()


def test_method_may_be_a_bare_name():
    assert Run.from_mapping({"method": "ga"}).method == "ga"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "must hold a mapping"),
        ("a: [", "no valid YAML"),
        ("modle: x", "Did you mean model"),
        ("training: 3", "mapping"),
    ],
)
def test_bad_run_files_are_explained(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        config.read(tmp_path / "r.yaml")


def test_missing_run_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read .*none\.yaml: there is no such file"):
        config.read(tmp_path / "none.yaml")


def test_configs_in_the_repository_can_be_read():
    files = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
    assert files
    for file in files:
        if "compute_environment" in config.read_mapping(file):  # for accelerate launch
            assert file.stem in ("ddp", "fsdp2", "zero3")
        elif file.stem.startswith("sweep"):
            assert read_grid(file).cells
        elif file.stem.startswith("leaderboard"):
            assert read_plan(file).search
        elif file.stem.startswith("requests"):  # for unsee continual --requests
            assert config.read_mapping(file)["requests"]
        elif file.stem.startswith("continual"):
            values = config.read_mapping(file)
            assert config.build(Course, values.pop("continual"), where=str(file)).tasks
            assert config.Run.from_mapping(values).method
        else:
            assert config.read(file).method


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    atomic_write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        atomic_write_json(path, {"a": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        atomic_write_text(path, "\ud800")
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_jsonl_keeps_unusual_line_separators(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": "one\u2028two"}\n\n{"a": 2}\n', encoding="utf-8")
    assert read_jsonl(path) == [{"a": "one\u2028two"}, {"a": 2}]


def test_folder_hash_sees_names_and_contents_only(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("1")
    assert hash_folder(tmp_path / "a") == hash_folder(tmp_path / "b")
    (tmp_path / "b" / ".hidden").write_text("2")
    assert hash_folder(tmp_path / "a") == hash_folder(tmp_path / "b")
    (tmp_path / "b" / "x").rename(tmp_path / "b" / "y")
    assert hash_folder(tmp_path / "a") != hash_folder(tmp_path / "b")


def test_space_is_measured_where_the_folder_will_be(tmp_path):
    require_space(tmp_path / "not" / "yet", 1, "it")
    with pytest.raises(UserError, match=r"Not enough disk for it: \d+\.\d\d GiB needed, .* GiB free"):
        require_space(tmp_path / "not" / "yet", 2**70, "it")


def test_the_engine_is_fast_or_plain(tmp_path):
    assert Run().engine == "fast"
    config.write(tmp_path / "run.yaml", Run(engine="plain"), record={})
    assert config.read(tmp_path / "run.yaml").engine == "plain"
    with pytest.raises(UserError, match="engine must be one of fast, plain, got 'slow'"):
        Run.from_mapping({"engine": "slow"})


@pytest.mark.parametrize(("text", "steps"), [("0,2,5", (0, 2, 5)), ([0, 2], (0, 2)), ("7", (7,)), (3, (3,))])
def test_numbers_may_be_listed_with_commas(text, steps):
    from unsee.attacks.relearning import Relearning

    made = config.build(Relearning, {"steps": text, "rates": "1e-3,2"}, where="attack")
    assert made.steps == steps
    assert made.rates == (1e-3, 2.0)
    with pytest.raises(UserError, match="must be a whole number, got 'x'"):
        config.build(Relearning, {"steps": "0,x"}, where="attack")


@pytest.mark.parametrize(
    ("value", "hint", "converted"),
    [
        ([1, 2], list[int], [1, 2]),
        ([1], Sequence[int], [1]),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({"a": ["b"]}, Mapping[str, tuple[str, ...]], {"a": ("b",)}),
    ],
)
def test_settings_of_a_plugin_may_be_of_any_container(value, hint, converted):
    assert config.convert(value, hint, where="method.x") == converted
