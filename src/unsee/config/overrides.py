"""Parsing and merging of YAML settings and command-line overrides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from unsee.config import paths
from unsee.errors import UserError, short_repr
from unsee.utils.parsing import DEEPEST, read_text, value_fault

MOST_NODES: Final = 100_000
"""Largest number of nodes of a YAML text after alias expansion; ten lines of aliases can mean billions."""


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.2 loader: `1e-3` is a number, a date is text, only true and false are booleans.

    A name twice in a mapping, deep nesting and aliases that grow or contain themselves are errors.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node and count its expanded size."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested too deeply; at most {DEEPEST} levels are read")
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise yaml.YAMLError("an alias (*name) stands inside of what it repeats; write the value out")
        self._sizes[id(node)] = 1 + sum(self._sizes[id(inner)] for inner in _inner_nodes(node))
        if self._sizes[id(node)] > MOST_NODES:
            raise yaml.YAMLError(f"its aliases (*name) stand for more than {MOST_NODES} values; write them out")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Construct a mapping, and reject duplicate keys, of which YAML would keep the last."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if duplicates := sorted({name for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"the name {short_repr(duplicates[0])} occurs twice; keep one of them", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


def _inner_nodes(node: Any) -> Iterable[Any]:
    if isinstance(node, yaml.MappingNode):
        return [inner for pair in node.value for inner in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()


_COMMENT: Final = re.compile(r"(?:^|\s)#")
_OWN: Final = (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    # A zero before another digit is no number: it may be an id (0017), and PyYAML reads it as octal.
    ("tag:yaml.org,2002:int", r"^[-+]?(?!0\d)\d+$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?!0\d)(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
)
"""Tag, pattern and first characters of the values that differ from YAML 1.1, which PyYAML reads."""
_TEXT: Final = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
"""Tags of YAML 1.1 whose values are text in YAML 1.2: dates and a lone equals sign."""
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in {*_TEXT, *(own for own, _, _ in _OWN)}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Safe dumper that quotes every text which _Loader or a YAML 1.1 reader would misread."""


for _tag, _pattern, _first in _OWN:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def dump_yaml(values: Any, *, inline: bool = False) -> str:
    """Return values as YAML that `parse_yaml` reads back as they are.

    Args:
        values: Mappings, lists, text, numbers, booleans and None.
        inline: Write all in one line.
    """
    text: str = yaml.dump(
        values,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=inline,
        width=10**6 if inline else 120,
    )
    return text


def parse_yaml(text: str, *, where: str) -> Any:
    """Parse YAML text. Errors name the line."""
    try:
        # _Loader is a SafeLoader: it builds plain values only.
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise UserError(f"{where} is no valid YAML: it is nested too deeply.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where} is no valid YAML: {value_fault(error)}") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping."""
    paths.require_possible(path, "A YAML file")
    if path.is_dir():
        hint = f" Give {path / 'run.yaml'}." if (path / "run.yaml").is_file() else ""
        raise UserError(f"Cannot read {path}: it is a folder.{hint}")
    if not path.exists():
        raise UserError(f"Cannot read {path}: there is no such file.{paths.near(path)}")
    values = parse_yaml(read_text(path), where=str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a mapping such as `model: lab`, got {type(values).__name__}.")
    return values


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse `method.beta=0.2` into `{"method": {"beta": 0.2}}`, values as YAML, but without comments: " #" is part of a text."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not all(path.strip().split(".")):
            raise UserError(f"--set wants NAME=VALUE such as method.beta=0.2, got {short_repr(assignment)}.")
        if path.count(".") >= DEEPEST:
            raise UserError(f"--set: {short_repr(path)} is nested too deeply; at most {DEEPEST} levels are read.")
        values = with_setting(values, path.strip(), _override_value(text, f"The value of {path.strip()}"))
    return values


def _override_value(text: str, where: str) -> Any:
    """Return the value of an override, or raise if YAML would drop the end of it as a comment."""
    if not text.strip():
        return ""
    if not _COMMENT.search(text):
        return parse_yaml(text, where=where)
    if text.strip()[0] not in "'\"[{":
        return text.strip()
    value = parse_yaml(text, where=where)
    spans = [(token.start_mark.index, token.end_mark.index) for token in yaml.scan(text, Loader=_Loader)]
    if text[max(end for start, end in spans if start < end) :].strip():
        raise UserError(
            f"{where} ends in a comment (#), which would be lost: {short_repr(text)}. Put all of it in quotes."
        )
    return value


def with_setting(values: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the values with the setting at a dotted path, as in `method.beta`, replaced or added."""
    nested: Any = value
    for key in reversed(path.split(".")):
        nested = {key: nested}
    return merge(values, nested)


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated recursively by `overrides`.

    A method or benchmark keeps its name beside its settings.
    """
    merged = dict(base)
    for key, value in overrides.items():
        old = merged.get(key)
        if key == "method":
            merged[key] = _merge_named(_as_mapping(old), _as_mapping(value))
        elif key == "benchmark":
            merged[key] = _short(_merge_named(_as_mapping(old), _as_mapping(value)))
        else:
            merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _merge_named(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the settings of two methods or benchmarks, and drop those of a different one."""
    is_different = bool(new.get("name")) and bool(old.get("name")) and new["name"] != old["name"]
    return merge({} if is_different else old, new)


def _as_mapping(choice: Any) -> dict[str, Any]:
    """Return the mapping form of a method or benchmark given by its bare name."""
    if isinstance(choice, Mapping):
        return dict(choice)
    return {"name": choice} if choice else {}


def _short(choice: Mapping[str, Any]) -> Any:
    """Return the bare name of a benchmark without settings."""
    return choice.get("name", "") if set(choice) <= {"name"} else dict(choice)


def name_and_settings(choice: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return name (or "") and settings of a benchmark in either form."""
    values = _as_mapping(choice)
    name = values.pop("name", "")
    if not isinstance(name, str):
        raise UserError(f"benchmark: name must be text, got {short_repr(name)}.")
    return name, values
