"""Pages of the site that are made when it is built: start page, one page per method and attack, reference."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from unsee.api import registry
from unsee.api.describe import describe, settings_rows
from unsee.utils import markdown

_OUTSIDE = re.compile(
    r"\[[^\]]+\]\((?:\.\./)?((?:perf|requirements|examples|configs|CONTRIBUTING|CHANGELOG|src|LICENSE)[^)#]*)\)"
)
"""Links to files of the repository that are not part of the site."""
ROOT = Path(__file__).parents[1]
FUNCTIONS = (
    "workflows.forget.forget",
    "workflows.suggest.suggest",
    "evaluation.evaluate.evaluate",
    "workflows.attack.attack",
    "workflows.serve.serve.serve",
    "report.page.compare",
    "workflows.check.check",
    "workflows.estimate.estimate",
    "workflows.continual.sequence.continual",
    "workflows.train_lab.train",
    "workflows.demo.demo",
    "workflows.doctor.doctor",
    "exporting.export",
    "exporting.hub.push",
    "models.checkpoint.load",
)
CLASSES = (
    "api.method.Method",
    "api.attack.Attack",
    "api.benchmark.Benchmark",
    "api.family.Family",
    "api.measure.Measure",
)
TYPES = (
    "workflows.run.Run",
    "config.run.EvalConfig",
    "api.example.Example",
    "api.example.Role",
    "api.example.Kind",
    "api.example.ImageSource",
    "api.example.ImageFile",
    "api.example.Vocabulary",
    "api.session.Session",
    "api.training.Training",
    "api.method.Needs",
    "api.method.Trial",
    "api.attack.Victim",
    "api.attack.Finding",
    "api.fast_paths.Engine",
    "api.vlm.VLM",
    "api.response.Response",
    "api.response.Score",
)


def on_config(config: Any) -> Any:
    """Add the generated pages of the methods to the navigation."""
    for section in config["nav"]:
        if "Methods" in section:
            section["Methods"] += [{name: f"methods/{name}.md"} for name in registry.names("methods")]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    readme = re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text(encoding="utf-8"))
    pages = {"index.md": readme, "reference.md": reference()}
    pages |= {f"methods/{name}.md": method(name) for name in registry.names("methods")}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(text: str, **_: Any) -> str:
    """Put in the settings of benchmarks and recipes, and name files that are not part of the site instead of linking to them."""
    text = re.sub(r"<!-- settings: (\w+) -->", lambda found: "\n" + _benchmark(found[1]), text)
    text = text.replace(
        "<!-- recipes -->", "\n" + runpy.run_path(str(ROOT / "scripts" / "recipes_table.py"))["table"]()
    )
    return _OUTSIDE.sub(r"`\1`", text)


def method(name: str) -> str:
    """Return the page of a method: meaning, settings, cost of a step."""
    cls = registry.load("methods", name)
    cost = [line for line in describe("methods", name) if line.startswith("cost")]
    settings = _settings("method", cls)
    tune = "" if "lora" in cls.trial.tunes else f" --tune {cls.trial.tunes[0]}"
    return "\n".join(
        [
            f"# {name}",
            "",
            registry.summary("methods", name),
            "",
            inspect.getdoc(cls) or "",
            "",
            "```",
            f"unsee forget --model lab --data lab --method {name}{tune} --out runs/{name}",
            "```",
            "",
            *(["## Settings", "", settings, ""] if settings else []),
            "## Cost",
            "",
            *cost,
            "",
        ]
    )


def _benchmark(name: str) -> str:
    return _settings("benchmark", registry.load("benchmarks", name).settings_type)


def _settings(part: str, cls: type) -> str:
    """Return the table of a class's fields, empty without any."""
    rows = [(f"`{part}.{row.name}`", f"`{row.default}`", row.meaning) for row in settings_rows(cls)]
    return markdown.table(("setting", "default", "meaning"), rows) + "\n" if rows else ""


def reference() -> str:
    """Return the reference page."""
    parts = [("Functions", FUNCTIONS), ("What plugins implement", CLASSES), ("Types", TYPES)]
    return "\n\n".join(
        [
            "# Reference",
            *(block for title, names in parts for block in (f"## {title}", *(f"::: unsee.{name}" for name in names))),
        ]
    )
