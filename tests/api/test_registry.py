"""Names come from files; classes are found by their base."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from unsee.api import Benchmark, Method, registry
from unsee.errors import UnseeError, UserError


def test_names_are_the_public_files_sorted():
    found = registry.names("methods")
    assert found == sorted(found)
    assert {"ga", "pubg"} <= set(found)
    assert not any(name.startswith("_") for name in found)


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match=r"Unknown method 'pugb'\. Did you mean pubg"):
        registry.require("methods", "pugb")


def test_load_finds_the_class_by_its_base():
    cls = registry.load("benchmarks", "folder")
    assert issubclass(cls, Benchmark)
    assert cls.name == "folder"


def test_summary_is_the_first_line_of_the_docstring():
    line = registry.summary("benchmarks", "folder")
    assert line.startswith("Your own folder")
    assert "\n" not in line


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_with_no_or_two_classes_is_refused(count):
    module = ModuleType("unsee.methods.fake")
    for number in range(count):
        cls = type(f"M{number}", (Method,), {"__module__": module.__name__})
        vars(module)[cls.__name__] = cls
    with pytest.raises(UnseeError, match="exactly one public Method"):
        registry._only_class(module, Method)


@pytest.mark.parametrize("kind", ["methods", "models", "benchmarks"])
def test_every_file_defines_one_class(kind):
    for name in registry.names(kind):
        assert registry.load(kind, name).__module__ == registry.module_of(kind, name)
        assert registry.module_of(kind, name) in sys.modules
