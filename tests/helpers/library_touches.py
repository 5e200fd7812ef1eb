"""Counter of the places where code leans on the inside of another library.

`python tests/helpers/library_touches.py src/unsee` prints a line per touch and the number per library.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

LIBRARIES = frozenset({"torch", "transformers", "peft", "accelerate", "datasets", "deepspeed", "tokenizers", "vllm"})
EXTENSION_POINTS = {
    "torch.nn.Module": "the documented way to write a module",
    "torch.autograd.Function": "the documented way to write a function with a backward pass",
    "torch.utils.data.Dataset": "a documented base class",
    "transformers.TrainerCallback": "the documented hook of the Trainer",
    "torch.optim.Optimizer": "a documented base class",
    "transformers.LogitsProcessor": "the documented hook of generate",
}
"""Library classes that are meant to be subclassed, and why."""
DOCUMENTED = {
    "torch": ("torch",),
    "transformers": (
        "transformers",
        "transformers.modeling_outputs",
        "transformers.utils.logging",
        "transformers.utils",
    ),
    "peft": ("peft",),
    "accelerate": ("accelerate", "accelerate.utils"),
    "datasets": ("datasets", "datasets.exceptions"),
    "deepspeed": ("deepspeed", "deepspeed.zero"),
    "tokenizers": ("tokenizers",),
    "vllm": ("vllm",),
}
"""Modules whose names are documented API; of torch, every module without an underscore."""
REPLACEABLE = ("torch.nn.Module", "transformers.PreTrainedModel", "transformers.Trainer", "peft.PeftModel")
"""Classes whose methods nobody may replace on an object."""


@dataclass(frozen=True, order=True)
class Touch:
    """One place that leans on the inside of a library."""

    file: str
    line: int
    library: str
    kind: str
    symbol: str

    def __str__(self) -> str:
        """Write the touch like a compiler's message."""
        return f"{self.file}:{self.line}: {self.library}: {self.kind}: {self.symbol}"


@dataclass
class Reader(ast.NodeVisitor):
    """Collector of the touches of one file."""

    file: str
    names: dict[str, str] = field(default_factory=dict)
    """Local name -> full name in a library."""
    touches: list[Touch] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)
    """Library classes that the class around is derived from."""

    def note(self, node: ast.AST, kind: str, symbol: str, library: str = "") -> None:
        first = library or symbol.split(".")[0]
        named = first if first in LIBRARIES else "any"
        self.touches.append(Touch(self.file, getattr(node, "lineno", 0), named, kind, symbol))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            first = alias.name.split(".")[0]
            if first in LIBRARIES:
                self.names[alias.asname or first] = alias.name if alias.asname else first
                self._imported(node, alias.name, alias.name)
            elif first in sys.stdlib_module_names:
                self.names[alias.asname or first] = f"standard library: {first}"

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level or module.split(".")[0] not in LIBRARIES:
            return
        for alias in node.names:
            self.names[alias.asname or alias.name] = f"{module}.{alias.name}"
            self._imported(node, module, f"{module}.{alias.name}")

    def _imported(self, node: ast.AST, module: str, full: str) -> None:
        library = module.split(".")[0]
        known = any(module == one or library in ("torch", "tokenizers") for one in DOCUMENTED[library])
        if any(_private(part) for part in full.split(".")):
            self.note(node, "private import", full)
        elif not known:
            self.note(node, "undocumented module", full)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        full = [name for name in map(self._full, node.bases) if name and name.split(".")[0] in LIBRARIES]
        closed = [name for name in full if name not in EXTENSION_POINTS]
        for name in closed:
            self.note(node, "subclass", name)
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and _private(item.name):
                for name in full:
                    if _has(_object(name), item.name):
                        self.note(item, "private method overridden", f"{name}.{item.name}")
        before, self.bases = self.bases, full
        self.generic_visit(node)
        self.bases = before

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = node.value
        if _private(node.attr):
            own = isinstance(owner, ast.Name) and owner.id in ("self", "cls")
            inherited = [base for base in self.bases if own and _has(_object(base), node.attr)]
            standard = (self._full(owner) or "").startswith("standard library")
            if inherited:
                self.note(node, "private attribute", f"{inherited[0]}.{node.attr}")
            elif not own and not standard:
                library = self.bases[0].split(".")[0] if self.bases and ast.unparse(owner) == "super()" else ""
                self.note(node, "private attribute", f"{self._full(owner) or ast.unparse(owner)}.{node.attr}", library)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if not isinstance(target, ast.Attribute) or ast.unparse(target).startswith("sys.modules"):
                continue
            if target.attr == "__class__":
                self.note(node, "class swap", ast.unparse(target))
            elif ast.unparse(target.value) not in ("self", "cls") and target.attr in _methods():
                self.note(node, "method replaced", ast.unparse(target))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name == "type" and len(node.args) == 3:
            self.note(node, "class made at run time", ast.unparse(node.args[1]))
        elif name == "SimpleNamespace":
            self.note(node, "stand-in for a library's type", ast.unparse(node))
        self.generic_visit(node)

    def _full(self, node: ast.expr) -> str | None:
        """Return the full name of an expression that stands for something imported, else None."""
        if isinstance(node, ast.Subscript):
            return self._full(node.value)
        if isinstance(node, ast.Attribute):
            owner = self._full(node.value)
            return f"{owner}.{node.attr}" if owner else None
        return self.names.get(node.id) if isinstance(node, ast.Name) else None


def _private(name: str) -> bool:
    documented = ("_asdict", "_fields", "_make", "_replace")  # of named tuples
    return name.startswith("_") and not name.startswith("__") and name not in documented


def _has(kind: object, name: str) -> bool:
    """Tell whether a library class has an attribute, or says that its objects have."""
    return hasattr(kind, name) or any(
        name in vars(one).get("__annotations__", {}) for one in getattr(kind, "__mro__", ())
    )


@cache
def _object(full: str) -> object | None:
    """Return what a full name stands for; None if it cannot be imported here."""
    module, _, name = full.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


@cache
def _methods() -> frozenset[str]:
    """Return the names of methods that nobody may replace."""
    classes = filter(None, map(_object, REPLACEABLE))
    found = {name for one in classes for name in dir(one) if callable(getattr(one, name, None))}
    return frozenset(found | {"get_image_features", "forward"})


def touches_in(source: str, file: str) -> list[Touch]:
    """Return the touches in the text of one file."""
    reader = Reader(file)
    reader.visit(ast.parse(source))
    return sorted(set(reader.touches))


def touches(folder: Path) -> Iterator[Touch]:
    """Yield the touches in all Python files of a folder."""
    for file in sorted(folder.rglob("*.py")):
        yield from touches_in(file.read_text(encoding="utf-8"), str(file.relative_to(folder)))


if __name__ == "__main__":
    every = list(touches(Path(sys.argv[1])))
    counts = ", ".join(f"{name} {count}" for name, count in Counter(one.library for one in every).most_common())
    total = f"{len(every)} touches in {len({touch.file for touch in every})} files: {counts}"
    sys.stdout.write("\n".join([*map(str, every), total, ""]))
