"""A run as a plain value: names, settings and a seed, to and from YAML, with every type checked against the fields."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from unsee import places
from unsee.engine import Name
from unsee.errors import UserError, did_you_mean, nearest, shown, unknown_name
from unsee.files import atomic_write_text
from unsee.parsing import DEEPEST, read_text, text_fault

T = TypeVar("T")

SEEDS: Final = 2**32
"""Seeds are below this: NumPy takes no others."""

_RECORD: Final = ("record", "result")
"""Top-level keys of a written run.yaml that describe what happened; they are no settings and are skipped on reading."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One unlearning run, whatever it is used for. Saved beside every result, and run again from there."""

    model: str = ""
    """Folder of a model, Hugging Face id, run folder, or a packaged model ("lab", "lab-gold")."""
    data: str = ""
    """Folder or file of the data, or "lab"."""
    benchmark: str | Mapping[str, Any] = ""
    """How the data is laid out: a name, or a mapping with `name` and settings; no name = recognise it."""
    method: str = ""
    """Name of the unlearning method."""
    out: str = ""
    """Folder that receives the results."""
    seed: int = 0
    """Start of every random stream."""
    engine: Name = "fast"
    """fast, or plain: the same numbers without any of the fast paths of `unsee.engine`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the method that differ from its defaults (in YAML: below `method`, beside `name`)."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Training` that differ from the defaults."""
    eval: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Eval` that differ from the defaults."""

    def __post_init__(self) -> None:
        """Refuse seeds that no random generator takes."""
        if not 0 <= self.seed < SEEDS:
            raise UserError(f"seed must be between 0 and 2**32 - 1, got {self.seed}.")

    @classmethod
    def of(
        cls,
        model: Path | str,
        data: Path | str,
        method: str,
        out: Path | str,
        *,
        benchmark: str | Mapping[str, Any] = "",
        settings: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        seed: int = 0,
        engine: Name = "fast",
    ) -> Run:
        """Return the run that the arguments of a public function say, paths as text."""
        return cls(
            model=str(model),
            data=str(data),
            benchmark=benchmark if isinstance(benchmark, str) else dict(benchmark),
            method=method,
            out=str(out),
            seed=seed,
            engine=engine,
            settings=dict(settings or {}),
            training=dict(training or {}),
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str = "the run") -> Run:
        """Read the nested form that the YAML file has."""
        flat = {key: value for key, value in values.items() if key not in _RECORD}
        method = flat.get("method", "")
        if isinstance(method, Mapping):
            flat["method"] = method.get("name", "")
            flat["settings"] = {key: value for key, value in method.items() if key != "name"}
        for key in ("settings", "training", "eval"):
            if not isinstance(flat.get(key, {}), Mapping):
                raise UserError(f"{where}: {key!r} must be a mapping of settings, got {shown(flat[key])}.")
        return build(cls, flat, where=where)

    def to_mapping(self) -> dict[str, Any]:
        """Return the nested form that the YAML file has."""
        values = {key: plain(value) for key, value in asdict(self).items() if key not in ("method", "settings")}
        values["method"] = {"name": self.method, **plain(self.settings)}
        order = ("model", "data", "benchmark", "method", "training", "eval", "seed", "engine", "out")
        return {key: values[key] for key in order}


@dataclass(frozen=True, kw_only=True)
class Eval:
    """How a model is asked. The fields are what `eval:` in a run file and `--set eval.x=y` may name."""

    limit: int | None = None
    """Examples per role and kind, spread evenly; none = all."""
    max_new_tokens: int = 256
    """Length limit of every answer."""
    batch_size: int = 64
    """Questions asked at once."""
    roles: tuple[str, ...] = ()
    """Only these roles; none = all."""
    likelihood: bool = False
    """Also ask how probable the reference answers and options are."""
    backend: Literal["hf", "vllm"] = "hf"
    """What generates: transformers, or vLLM (`pip install "unsee[vllm]"`)."""
    measures: tuple[str, ...] = ()
    """Further measures: rouge1, rouge2, bleu, exact."""
    gold: str = ""
    """Judged run of a model that never saw what is to be forgotten: gives forget quality; implies likelihood."""
    clip: str = ""
    """Folder or hub id of a CLIP model: gives CLIPScore of answers about images."""

    def __post_init__(self) -> None:
        """Refuse values that nothing could be asked with."""
        for name in ("max_new_tokens", "batch_size"):
            if vars(self)[name] < 1:
                raise UserError(f"eval.{name} must be at least 1, got {vars(self)[name]}.")


MOST_NODES: Final = 100_000
"""Values of a YAML text, those that aliases repeat counted again; ten lines of aliases can mean billions."""


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2: `1e-3` is a number, and only true and false are booleans.

    A name twice in a mapping, deep nesting and aliases that grow or contain themselves are errors.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, and count what it stands for."""
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
        """Construct a mapping; of a name that occurs twice the last value would win without a word."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"the name {shown(twice[0])} occurs twice; keep one of them", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


def _inner_nodes(node: Any) -> Iterable[Any]:
    if isinstance(node, yaml.MappingNode):
        return [inner for pair in node.value for inner in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":int"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?\d+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str, *, where: str) -> Any:
    """Parse YAML text; a mistake in it is reported with its line."""
    try:
        # _Loader is a SafeLoader: it builds plain values only.
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise UserError(f"{where} is no valid YAML: it is nested too deeply.") from error
    except (yaml.YAMLError, ValueError) as error:
        why = "a number has thousands of digits" if "digits" in str(error) else error
        raise UserError(f"{where} is no valid YAML: {why}") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping."""
    if path.is_dir():
        inside = f" Give {path / 'run.yaml'}." if (path / "run.yaml").is_file() else ""
        raise UserError(f"Cannot read the run file {path}: it is a folder.{inside}")
    if not path.exists():
        raise UserError(f"Cannot read the run file {path}: there is no such file.{places.near(path)}")
    values = parse_yaml(read_text(path), where=str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a mapping such as `model: lab`, got {type(values).__name__}.")
    return values


def read(path: Path) -> Run:
    """Read a run from a YAML file, be it written by hand or by an earlier run."""
    return Run.from_mapping(read_mapping(path), where=str(path))


def write(path: Path, run: Run, *, record: Mapping[str, Any], result: Mapping[str, Any] | None = None) -> None:
    """Write the run, the circumstances (`record`) and, once there is one, the result."""
    values = {**run.to_mapping(), "record": plain(record)}
    if result is not None:
        values["result"] = plain(result)
    atomic_write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn `method.beta=0.2` into `{"method": {"beta": 0.2}}`, values read as YAML."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not all(path.strip().split(".")):
            raise UserError(f"--set wants NAME=VALUE such as method.beta=0.2, got {shown(assignment)}.")
        nested: Any = parse_yaml(text, where=f"The value of {path.strip()}") if text.strip() else ""
        for key in reversed(path.strip().split(".")):
            nested = {key: nested}
        values = merge(values, nested)
    return values


def require_ended(folder: Path) -> None:
    """Raise if `folder` is that of a run which has not ended: its weights are not the result."""
    record = folder / "run.yaml"
    if record.is_file() and "result" not in read_mapping(record):
        raise UserError(
            f"The run in {folder} has not ended: {record} has no result. Go on with it: unsee forget {record} --resume."
        )


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over` put in, mapping by mapping; a method or benchmark keeps its name beside its settings."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if key == "method":
            merged[key] = _merge_named(_named(old), _named(value))
        elif key == "benchmark":
            merged[key] = _short(_merge_named(_named(old), _named(value)))
        else:
            merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _merge_named(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the settings of two methods or benchmarks; those of another one than the new one are dropped."""
    replaced = bool(new.get("name")) and bool(old.get("name")) and new["name"] != old["name"]
    return merge({} if replaced else old, new)


def _named(thing: Any) -> dict[str, Any]:
    """Return the mapping form of a method or benchmark, which may be given as its bare name."""
    if isinstance(thing, Mapping):
        return dict(thing)
    return {"name": thing} if thing else {}


def _short(thing: Mapping[str, Any]) -> Any:
    """Return the bare name of a benchmark without settings."""
    return thing.get("name", "") if set(thing) <= {"name"} else dict(thing)


def name_and_settings(thing: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name (empty if none is given) and the settings of a benchmark in either form."""
    values = _named(thing)
    name = values.pop("name", "")
    if not isinstance(name, str):
        raise UserError(f"benchmark: name must be text, got {shown(name)}.")
    return name, values


def benchmark_of(run: Run, earlier: Run) -> str | Mapping[str, Any]:
    """Return how to open the data of `run`: as `earlier` did if it is the same data, with what `run` says put in."""
    if run.data and run.data != earlier.data and str(Path(run.data).resolve()) != earlier.data:
        return run.benchmark
    merged = merge({"benchmark": earlier.benchmark}, {"benchmark": run.benchmark})
    found: str | Mapping[str, Any] = merged["benchmark"]
    return found


def settings_of(settings: Any) -> dict[str, Any]:
    """Return the fields of a settings dataclass as plain values."""
    found: dict[str, Any] = plain(asdict(settings))
    return found


def build(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Return the settings dataclass `cls` from plain values, each checked against the type of its field."""
    hints = get_type_hints(cls)
    # `cls` is a dataclass; its bound cannot be written with the types of 3.11.
    known = {item.name: hints[item.name] for item in fields(cls) if item.init}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise unknown_name(f"setting of {where}", str(name), known)
    return cls(**{name: convert(value, known[name], where=f"{where}: {name}") for name, value in values.items()})


def convert(value: Any, hint: Any, *, where: str) -> Any:
    """Return `value` as the type `hint` wants it (a list as a tuple, an integer as a float), or raise."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        return _one_of(value, arguments, where)
    if origin is tuple:
        return tuple(convert(item, arguments[0], where=where) for item in _items(value))
    if origin in (Union, UnionType):
        return _any_of(value, arguments, where)
    if origin is not None:
        hint = origin
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        if isinstance(value, str) and (fault := text_fault(value)):
            raise UserError(f"{where} {fault}; remove it.")
        return value
    raise UserError(f"{where} must be {_in_words(hint)}, got {shown(value)}.")


def _in_words(hint: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "nothing"}
    return words.get(hint, f"a {hint.__name__}")


def _one_of(value: Any, choices: Sequence[Any], where: str) -> Any:
    if value in choices and type(value) in {type(choice) for choice in choices}:
        return value
    names = list(map(str, choices))
    hint = did_you_mean(nearest(shown(value).strip("'\""), names))
    raise UserError(f"{where} must be one of {', '.join(names)}, got {shown(value)}.{hint}")


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return list(value) if isinstance(value, list | tuple) else [value]


def _any_of(value: Any, hints: Sequence[Any], where: str) -> Any:
    if value is None and type(None) in hints:
        return None
    refusals = []
    for hint in hints:
        try:
            return convert(value, hint, where=where)
        except UserError as error:
            refusals.append(str(error))
    raise UserError(refusals[0])


def plain(value: Any) -> Any:
    """Return `value` with tuples, mappings and paths as the lists, dicts and strings that YAML and JSON know."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def versions() -> dict[str, str]:
    """Return the versions that a result depends on, without importing the packages."""
    found = {"python": python_version()}
    for package in ("unsee", "torch", "transformers", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """Return the git commit that unsee runs from, with "+changes" if files differ from it; empty when installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    head = _git(root, "rev-parse", "HEAD")
    return head + ("+changes" if head and _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


RECORD: Final = "run.yaml"
