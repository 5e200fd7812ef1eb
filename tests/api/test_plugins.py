"""Plugins: found by path, by module and by entry point, refused when broken, and never found in data or models."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from helpers.evaluated import make_run
from unsee import config
from unsee.api import Kind, Measure, Method, Needs, Response, Role, Vocabulary, describe, plugins, registry
from unsee.api.benchmark import NoSettings
from unsee.cli import main
from unsee.config import Run
from unsee.config.plugins import with_plugins
from unsee.data.open import benchmark_arguments, open_benchmark
from unsee.errors import UnknownNameError, UserError
from unsee.evaluation.evaluate import rescore
from unsee.models.auto import family_for
from unsee.scoring.aggregate import score
from unsee.scoring.measures import extra
from unsee.workflows.forget import validate_run

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
METHOD = """
    '''Nothing: leave the model as it is (Doe, 2031).'''
    from __future__ import annotations
    from dataclasses import dataclass
    from unsee.api import Method, Needs, Session

    @dataclass(frozen=True, kw_only=True)
    class Nothing(Method):
        '''Change nothing.'''

        weight: float = 0.5
        '''How much nothing.'''

        def needs(self) -> Needs:
            return Needs(rows=3)

        def unlearn(self, session: Session) -> None:
            session.notes["weight"] = self.weight
"""
BENCHMARK = """
    '''Shapes: a benchmark of the tests.'''
    from unsee.api import Benchmark, Vocabulary

    class Shapes(Benchmark):
        name = "shapes"
        layout = "a folder with shapes.csv"

        def __init__(self, place, settings=None):
            self.settings = settings or self.settings_type()

        @classmethod
        def fits(cls, place):
            return (place / "shapes.csv").is_file()

        def examples(self, split):
            return []

        def vocabulary(self):
            return Vocabulary()
"""
FAMILY = """
    '''Blind: a family of the tests.'''
    from unsee.models.auto import AutoFamily

    class Blind(AutoFamily):
        model_types = ("blind_model",)
"""


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch):
    """Leave no plugin to other tests."""
    monkeypatch.setattr(registry, "_ADDED", {})


def write(path: Path, text: str = METHOD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


def test_a_file_is_a_method_with_its_name_origin_and_summary(tmp_path):
    file = write(tmp_path / "nothing.py")
    [entry] = registry.add(file)
    assert (entry.kind, entry.name, entry.origin) == ("methods", "nothing", str(file))
    assert "nothing" in registry.names("methods")
    assert registry.load("methods", "nothing")(weight=2).weight == 2
    assert registry.summary("methods", "nothing") == "Nothing: leave the model as it is (Doe, 2031)."
    assert not list(tmp_path.rglob("*.pyc"))


@pytest.mark.parametrize("package", [True, False])
def test_a_folder_is_all_its_public_files_and_may_import_its_own(tmp_path, package):
    folder = tmp_path / "mine"
    write(
        folder / "nothing.py",
        METHOD.replace("= 0.5", "= HALF").replace("from unsee", "from ._numbers import HALF\n    from unsee"),
    )
    write(folder / "_numbers.py", "HALF = 0.25")
    write(folder / "shapes.py", BENCHMARK)
    write(folder / "blind.py", FAMILY)
    if package:
        write(folder / "__init__.py", "'''Mine.'''")
    assert {(entry.kind, entry.name) for entry in registry.add(folder)} == {
        ("methods", "nothing"),
        ("benchmarks", "shapes"),
        ("models", "blind"),
    }
    assert registry.load("methods", "nothing")().weight == 0.25
    assert type(family_for("blind_model")).__name__ == "Blind"
    write(tmp_path / "data" / "shapes.csv", "")
    assert open_benchmark(tmp_path / "data").name == "shapes"
    assert open_benchmark(tmp_path / "data", "shapes").name == "shapes"


def test_one_of_several_classes_is_named_by_itself(tmp_path):
    text = METHOD + METHOD.replace("class Nothing", "class Less").replace("from __future__ import annotations", "")
    file = write(tmp_path / "two.py", text)
    with pytest.raises(UserError, match=r"two\.py, line \d+: Nothing is one of several in its file"):
        registry.add(file)
    assert [entry.name for entry in registry.add(f"{file}:Less")] == ["less"]
    named = text.replace("    class ", "    class ").replace("(Method):\n", "(Method):\n        name = 'a'\n", 1)
    write(file, named.replace("class Less(Method):\n", "class Less(Method):\n        name = 'b'\n"))
    assert [entry.name for entry in registry.add(file)] == ["a", "b"]


def test_a_module_that_can_be_imported_is_a_plugin(tmp_path, monkeypatch):
    write(tmp_path / "a_package" / "inner.py", METHOD)
    write(tmp_path / "a_package" / "__init__.py", "")
    monkeypatch.syspath_prepend(tmp_path)
    [entry] = registry.add("a_package.inner:Nothing")
    assert (entry.name, entry.origin) == ("nothing", "a_package.inner:Nothing")
    with pytest.raises(UserError, match="a_package.inner has no Something"):
        registry.add("a_package.inner:Something")
    with pytest.raises(UserError, match=r"there is no module a_package\.none in this environment"):
        registry.add("a_package.none")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install the package of examples/plugin, as pip would lay it out."""
    lines = (EXAMPLE / "pyproject.toml").read_text().splitlines()
    groups = [line.replace("[project.entry-points.", "[").replace('"', "") for line in lines]
    kept = [line for line in groups if line.startswith(("[unsee.", "fixed_answer", "brevity"))]
    write(tmp_path / "unsee_example-0.1.0.dist-info" / "entry_points.txt", "\n".join(kept))
    write(
        tmp_path / "unsee_example-0.1.0.dist-info" / "METADATA",
        "Metadata-Version: 2.1\nName: unsee-example\nVersion: 0.1.0\n",
    )
    for file in (EXAMPLE / "unsee_example").glob("*.py"):
        write(tmp_path / "unsee_example" / file.name, file.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("unsee_example")]:
        del sys.modules[name]


def test_installed_packages_are_listed_without_importing_them(installed, capsys):
    assert main.main(["list", "methods"]) == 0
    assert main.main(["list", "metrics"]) == 0
    said = capsys.readouterr().out
    assert "Fixed answer: train every forget question on one sentence. [package unsee-example 0.1.0]" in said
    assert "twenty words. [package unsee-example 0.1.0]" in said
    assert "unsee_example" not in sys.modules
    assert registry.load("methods", "fixed_answer")().sentence == "I do not know."
    [spec] = registry.pin("methods", "fixed_answer")
    assert spec.startswith("unsee_example.fixed_answer:FixedAnswer#sha256=")
    assert [entry.name for entry in registry.add(spec)] == ["fixed_answer"]


def test_an_installed_package_that_changed_is_refused(installed):
    [spec] = registry.pin("methods", "fixed_answer")
    file = installed / "unsee_example" / "fixed_answer.py"
    file.write_text(file.read_text() + "\n# changed\n")
    with pytest.raises(UserError, match=r"FixedAnswer has changed: its SHA-256 is .* Nothing of it was run"):
        registry.add(spec)


def test_a_broken_installed_package_is_named_when_it_is_used(installed):
    file = installed / "unsee_example" / "fixed_answer.py"
    file.write_text(file.read_text().replace("answer_nll\n", "answer_nlll\n", 1))
    with pytest.raises(
        UserError, match=r"FixedAnswer of package unsee-example failed at .*fixed_answer\.py, line 11: Import"
    ):
        registry.load("methods", "fixed_answer")
    assert registry.load("methods", "ga").__name__ == "GA"


@pytest.mark.parametrize("text", [None, "x = (", "x = '\0'"])
def test_a_package_whose_module_is_gone_or_damaged_breaks_no_list(installed, capsys, text):
    file = installed / "unsee_example" / "fixed_answer.py"
    file.unlink() if text is None else file.write_text(text)
    assert main.main(["list", "methods"]) == 0
    said = capsys.readouterr().out
    assert "cannot be" in next(line for line in said.splitlines() if "fixed_answer" in line)
    assert "Gradient ascent" in said


def test_a_broken_package_is_named_and_stops_nobody_who_does_not_need_it(installed, capsys):
    points = installed / "unsee_example-0.1.0.dist-info" / "entry_points.txt"
    points.write_text("[unsee.methods]\nfixed_answer = unsee_example.gone:FixedAnswer\n[unsee.method]\nlost = x:Y\n")
    plugins._installed.cache_clear()
    with pytest.raises(
        UserError, match="gone:FixedAnswer of package unsee-example cannot be found: there is no module"
    ):
        registry.load("methods", "fixed_answer")
    assert Run.of("m", "d", registry.load("methods", "npo")(), "o").method == "npo"
    assert main.main(["list", "methods"]) == 0
    said = capsys.readouterr().err
    assert "Unknown group of entry points in an installed package 'unsee.method'. Did you mean unsee.methods" in said
    plugins._installed.cache_clear()


def test_a_module_with_a_byte_order_mark_is_summed_up(installed):
    file = installed / "unsee_example" / "fixed_answer.py"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert registry.summary("methods", "fixed_answer").startswith("Fixed answer: train")


def test_two_families_of_one_model_type_are_refused(tmp_path):
    file = write(tmp_path / "mine.py", FAMILY.replace("blind_model", "llava"))
    registry.add(file)
    with pytest.raises(UserError, match=rf"type llava are served by llava \(unsee\) and by mine \({file}\)"):
        family_for("llava")


TWO = METHOD.replace("weight: float", "name: ClassVar[str] = 'nothing'\n\n        weight: float") + METHOD[
    METHOD.index("    @data") :
].replace("class Nothing", "class Steered").replace(
    "weight: float",
    "name: ClassVar[str] = 'steered'\n        group: ClassVar[Group] = \"steering\"\n\n        weight: float",
)


def test_each_of_several_methods_of_a_file_is_in_its_own_group(tmp_path, installed):
    text = TWO.replace("import Method", "import Group, Method").replace(
        "import dataclass", "import dataclass\n    from typing import ClassVar"
    )
    registry.add(write(tmp_path / "two.py", text))
    assert [registry.group(name) for name in ("nothing", "steered")] == ["loss", "steering"]
    write(installed / "unsee_example" / "two.py", text)
    points = installed / "unsee_example-0.1.0.dist-info" / "entry_points.txt"
    points.write_text("[unsee.methods]\nstill=unsee_example.two:Nothing\nturned=unsee_example.two:Steered\n")
    plugins._installed.cache_clear()
    assert [registry.group(name) for name in ("still", "turned")] == ["loss", "steering"]
    assert "unsee_example" not in sys.modules


def test_a_taken_name_is_refused_with_both_origins(tmp_path, installed):
    with pytest.raises(UserError, match=r"The method ga is defined twice: by unsee and by .*ga\.py"):
        registry.add(write(tmp_path / "a" / "ga.py"))
    registry.add(write(tmp_path / "a" / "nothing.py"))
    with pytest.raises(UserError, match=r"nothing is defined twice: by .*a/nothing\.py and by .*b/nothing\.py"):
        registry.add(write(tmp_path / "b" / "nothing.py"))
    with pytest.raises(UserError, match=r"by package unsee-example 0\.1\.0 and by .*c/fixed_answer\.py"):
        registry.add(write(tmp_path / "c" / "fixed_answer.py"))
    points = installed / "unsee_example-0.1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text().replace("fixed_answer =", "npo ="))
    plugins._installed.cache_clear()
    with pytest.raises(UserError, match=r"npo is defined twice: by unsee and by package unsee-example"):
        registry.load("methods", "npo")
    assert registry.load("methods", "ga").__name__ == "GA"
    plugins._installed.cache_clear()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", r"failed at .*bad\.py, line 1: SyntaxError"),
        (
            "\nimport no_such_package",
            r"failed at .*bad\.py, line 2: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("def f():\n    return 1 / 0\n\n\nf()", r"failed at .*bad\.py, line 2: ZeroDivisionError"),
        ("import sys\nsys.exit(3)", r"failed at .*bad\.py, line 2: SystemExit: 3"),
        ("x = 1", "defines no method, benchmark, metric, family or attack"),
        (METHOD.replace("def unlearn", "def forget"), r"bad\.py, line \d+: Nothing lacks unlearn"),
        (METHOD.replace("@dataclass(frozen=True, kw_only=True)", ""), r"bad\.py, line \d+: put @dataclass"),
        (BENCHMARK.replace("layout =", "l ="), r"bad\.py, line \d+: Shapes needs `name` and `layout`"),
        (
            "from unsee.api import Measure\nX = Measure(key='x', better='up', applies=bool, value=max)",
            r"bad\.py: `better` of the measure x must be one of higher, lower, neither, got 'up'",
        ),
    ],
)
def test_a_broken_plugin_is_an_error_with_file_and_line(tmp_path, capsys, text, message):
    file = write(tmp_path / "bad.py", text)
    with pytest.raises(UserError, match=message):
        registry.add(file)
    assert main.main(["list", "methods", "--plugin", str(file)]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert "bad" not in registry.names("methods")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return (place / ", "return 1 / 0 or (place / ", r"line 14: ZeroDivisionError"),
        ("return []", "return [][0]", r"line 17: IndexError: list index out of range"),
        ("place, settings=None", "place", r"TypeError: Shapes\.__init__\(\) takes 2 positional arguments but 3"),
    ],
)
def test_a_fault_in_a_benchmark_is_an_error_with_its_line(tmp_path, capsys, old, new, message):
    file = write(tmp_path / "shapes.py", BENCHMARK.replace(old, new).replace("settings or ", ""))
    write(tmp_path / "data" / "shapes.csv", "")
    assert main.main(["check", str(tmp_path / "data"), "--plugin", str(file)]) == 2
    said = capsys.readouterr().err
    assert re.search(rf"unsee: The plugin {file} failed at .*{message}", said)
    assert "Traceback" not in said
    with pytest.raises((ZeroDivisionError, IndexError, UserError)):
        main.main(["check", str(tmp_path / "data"), "--plugin", str(file), "--debug"])


def test_a_benchmark_that_does_not_keep_its_settings_gets_them(tmp_path):
    """They are written into run.yaml, from which the data are opened again."""
    text = BENCHMARK.replace("self.settings = settings or self.settings_type()", "pass")
    registry.add(write(tmp_path / "shapes.py", text))
    write(tmp_path / "data" / "shapes.csv", "")
    assert open_benchmark(tmp_path / "data").settings == NoSettings()
    settings = (
        "from dataclasses import make_dataclass\n    Colors = make_dataclass('Colors', [('color', str, 'red')])\n"
    )
    text = text.replace("    from unsee", f"    {settings}    from unsee").replace(
        "name =", "settings_type = Colors\n        name ="
    )
    registry.add(write(tmp_path / "shapes.py", text))
    opened = open_benchmark(tmp_path / "data", {"name": "shapes", "color": "blue"})
    assert benchmark_arguments(opened) == {"name": "shapes", "color": "blue"}


def test_a_path_may_have_colons_of_its_own(tmp_path):
    """As those of Windows have behind the drive."""
    file = write(tmp_path / "a:b" / "nothing.py", METHOD)
    for text, attribute in ((str(file), ""), (f"{file}:Nothing", "Nothing")):
        assert (plugins.Spec.parse(text).place, plugins.Spec.parse(text).attribute) == (str(file), attribute)
        assert plugins.Spec.parse(str(plugins.Spec.parse(text))) == plugins.Spec.parse(text)


def test_a_plugin_that_is_not_there_is_refused(tmp_path):
    for missing in (tmp_path / "none.py", "none.py", "some folder"):
        with pytest.raises(UserError, match="There is no plugin"):
            registry.add(missing)


def test_code_with_another_hash_is_not_run(tmp_path):
    file = write(tmp_path / "nothing.py")
    [spec] = with_plugins(Run(plugins=(str(file),))).plugins
    assert spec.startswith(f"{file}#sha256=")
    trace = tmp_path / "trace"
    write(file, METHOD + f"    open({str(trace)!r}, 'w')")
    registry._ADDED.clear()
    with pytest.raises(UserError, match="has changed.*take `#sha256=...` out of a copy of the run file"):
        with_plugins(Run(plugins=(spec,)))
    assert not trace.exists()


def test_an_edited_file_replaces_what_it_defined(tmp_path):
    file = write(tmp_path / "nothing.py")
    registry.add(file)
    assert registry.add(file)[0].load() is registry.load("methods", "nothing")
    registry.add(write(file, METHOD.replace("0.5", "0.7")))
    assert registry.load("methods", "nothing")().weight == 0.7


def test_a_method_can_be_given_as_file_or_class(tmp_path):
    file = write(tmp_path / "nothing.py")
    for text in (str(file), f"{file}:Nothing"):
        run = with_plugins(Run(method=text))
        assert run.method == "nothing"
        assert run.plugins[0].startswith(f"{text}#sha256=")
    with pytest.raises(UserError, match=r"shapes\.py must define one method, found: none"):
        with_plugins(Run(method=str(write(tmp_path / "shapes.py", BENCHMARK))))


def test_a_method_can_be_given_as_an_instance(tmp_path):
    registry.add(write(tmp_path / "nothing.py"))
    mine = registry.load("methods", "nothing")(weight=3)
    run = Run.of("m", "d", mine, "o")
    assert (run.method, dict(run.settings)) == ("nothing", {"weight": 3})
    assert run.plugins[0].startswith(str(tmp_path / "nothing.py"))
    known = registry.load("methods", "npo")(beta=0.2)
    assert Run.of("m", "d", known, "o") == Run.of("m", "d", "npo", "o", settings={**vars(known)})
    with pytest.raises(UserError, match="given twice"):
        Run.of("m", "d", mine, "o", settings={"weight": 1})


class Local(Method):
    """A method that only Python code knows."""


def test_a_class_that_is_in_no_plugin_gets_its_name_in_lower_case():
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Mine(Local):
        """Mine."""

        def unlearn(self, session):
            raise NotImplementedError

    run = Run.of("m", "d", Mine(), "o")
    assert run.method == "mine"
    assert registry.load("methods", "mine") is Mine
    assert run.plugins[0].startswith(f"{__name__}:")
    assert with_plugins(run) == run


def test_plugins_stand_in_a_run_file(tmp_path):
    file = write(tmp_path / "nothing.py")
    run = Run.from_mapping({"method": "nothing", "plugins": [str(file)]})
    assert run.to_mapping()["plugins"] == [str(file)]
    assert Run.from_mapping(with_plugins(run).to_mapping()) == with_plugins(run)
    assert "plugins" not in Run().to_mapping()
    assert registry.names("methods").count("nothing") == 1


def test_plugins_stand_in_a_grid_and_in_a_sequence(tmp_path):
    from unsee.workflows.grid import read_grid

    file = write(tmp_path / "nothing.py")
    grid = tmp_path / "grid.yaml"
    base = "base:\n  model: lab\n  data: lab\n"
    grid.write_text(base + f"  plugins: [{file}]\naxes:\n  method: [ga, nothing]\n")
    named = [cell.run.plugins for cell in read_grid(grid).cells]
    assert [spec.partition("#")[0] for specs in named for spec in specs] == [str(file)] * 2
    grid.write_text(base + "axes:\n  method: [ga, nothing]\n")
    given = [cell.name for cell in read_grid(grid, [str(file)]).cells]
    write(file, METHOD + "    # changed")
    assert given != [cell.name for cell in read_grid(grid, [str(file)]).cells]
    parser = main.parsers(main.verbs())[0]
    (tmp_path / "course.yaml").write_text(f"method: nothing\nplugins: [{file}]\ncontinual: {{tasks: 2}}\n")
    from unsee.cli.commands.continual import _read

    run, _ = _read(parser.parse_args(["continual", str(tmp_path / "course.yaml")]))
    assert run.plugins[0].startswith(f"{file}#sha256=")


def test_a_metric_is_a_column_that_can_be_asked_for(tmp_path):
    registry.add(EXAMPLE / "unsee_example" / "brevity.py")
    response = {
        "stage": "s",
        "role": Role.RETAIN,
        "fact": "",
        "entity": "a",
        "question": "q",
        "answer": "a b",
        "image": "a.png",
    }
    said = [
        Response(id=str(n), kind=kind, text=text, tokens=1, ended=True, **response)
        for n, (kind, text) in enumerate([(Kind.OPEN, "one two three four five"), (Kind.NAME, "")])
    ]
    scores = score(said, Vocabulary(measures=("brevity", "brevity@open")))
    assert scores["retain.brevity"].value_by_index == {"0": 0.75, "1": 1.0}
    assert scores["retain.brevity@open"].value == 0.75
    with pytest.raises(UnknownNameError, match="Did you mean brevity"):
        extra("brevty")


def test_a_reason_may_hold_braces():
    measure = Measure(
        key="x",
        better="neither",
        applies=bool,
        value=lambda *_: None,
        undefined=lambda answer: f"{{missing}}: {answer}",
    )
    assert measure.why(["{a}", "{a}", "{}"]) == "2: {a}; 1: {}"


@pytest.mark.parametrize("key", ["rouge1", "leak", "leak.city", "clean", "rr_proxy", "known_name", "forget_quality"])
def test_a_metric_does_not_take_the_place_of_one_of_unsee(tmp_path, key):
    """Not in any role: `retain.leak` would be the plugin's, and `forget.leak` that of unsee."""
    text = (EXAMPLE / "unsee_example" / "brevity.py").read_text().replace('key="brevity"', f'key="{key}"')
    registry.add(write(tmp_path / "r.py", text))
    with pytest.raises(UserError, match=rf"{key} is defined twice: by unsee and by .*r\.py"):
        extra(key)


def test_list_says_everything_about_one_name(tmp_path, capsys):
    file = write(tmp_path / "nothing.py")
    assert main.main(["list", "methods", "nothing", "--plugin", str(file)]) == 0
    said = capsys.readouterr().out
    assert f"defined by: {file}\nsource: Doe, 2031\n" in said
    assert "  method.weight=0.5\n      How much nothing.\n" in said
    assert f"  rows=3: {describe.field_docs(Needs)['rows']}" in said
    for kind, name, line in (
        ("methods", "npo", "Zhang et al., 2024, arXiv 2404.05868\n"),
        ("methods", "mmunlearner", 'method.granularity="sample" (one of sample, batch)'),
        ("methods", "prompt", "cost of a step: none, no weight is trained"),
        ("benchmarks", "mllmu", "benchmark.ratio=5"),
        ("families", "llava", "model types: llava, llava_next"),
        ("recipes", "mllmu", "defined by: unsee"),
    ):
        assert main.main(["list", kind, name]) == 0
        assert line in capsys.readouterr().out
    assert main.main(["list", "methods", "npoo"]) == 2
    assert "Did you mean npo" in capsys.readouterr().err


def test_every_setting_of_every_method_and_benchmark_is_explained():
    for name in registry.names("methods"):
        cls = registry.load("methods", name)
        assert all(describe.field_docs(cls).get(field) for field in cls.__dataclass_fields__), name
    for name in registry.names("benchmarks"):
        cls = registry.load("benchmarks", name).settings_type
        assert all(describe.field_docs(cls).get(field) for field in cls.__dataclass_fields__), name


def test_the_documented_example_is_the_package():
    text = (EXAMPLE.parents[1] / "docs" / "extending.md").read_text()
    for file in ("fixed_answer.py", "brevity.py"):
        assert (EXAMPLE / "unsee_example" / file).read_text().strip() in text
    toml = (EXAMPLE / "pyproject.toml").read_text()
    assert toml[toml.index("[project.entry") : toml.index("[tool.set")].strip() in text


def test_suggest_and_init_take_plugins_and_name_them_in_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = BENCHMARK.replace("return []", "return Lab().examples(split)").replace(
        "return Vocabulary()", "return Lab().vocabulary()"
    )
    plugin = write(
        tmp_path / "shapes.py",
        text.replace("import Benchmark, Vocabulary", "import Benchmark\n    from unsee.benchmarks.lab import Lab"),
    )
    data = write(tmp_path / "data" / "shapes.csv", "").parent
    words = [str(data), "--plugin", str(plugin)]
    assert main.main(["suggest", "--model", "lab", "--data", *words, "--out", "runs/x"]) == 0
    assert f"- {plugin}" in capsys.readouterr().out
    assert main.main(["init", *words, "--model", "lab"]) == 0
    written = config.read(tmp_path / "run.yaml")
    assert (written.plugins, written.benchmark) == ((str(plugin),), "shapes")
    assert validate_run(written).run.method == "pubg"


def test_rescoring_names_the_plugin_of_a_measure(tmp_path):
    folder = make_run(tmp_path / "run", "npo")
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").write_text(
        json.dumps({"visible": {}, "sentences": [], **vocabulary, "measures": ["brevity"]})
    )
    plugin = write(tmp_path / "brevity.py", "raise SystemExit('run')")
    config.write(
        folder / "run.yaml", Run(model="lab", data="lab", method="npo", plugins=(str(plugin),)), record={}, result={}
    )
    with pytest.raises(UserError, match=rf"brevity.*--plugin {plugin}"):
        rescore(folder)


def test_nothing_in_a_data_or_model_folder_is_run(tmp_path, capsys):
    """A model says by which plugin it was made; that plugin is named to the user, and not loaded."""
    trace = tmp_path / "trace"
    for place in ("data", "model"):
        write(tmp_path / place / "plugin.py", f"open({str(trace)!r}, 'w')")
        write(tmp_path / place / "shapes.csv", "")
    write(tmp_path / "model" / "model" / "config.json", "{}")  # a run folder, whose weights are not looked at
    evil = write(tmp_path / "model" / "evil.py", f"open({str(trace)!r}, 'w')")
    made = Run(model="lab", data=str(tmp_path / "data"), benchmark="shapes", method="nothing", plugins=(str(evil),))
    config.write(tmp_path / "model" / "run.yaml", made, record={}, result={})
    words = ["eval", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    assert main.main(words) == 2
    said = capsys.readouterr().err
    assert "Unknown benchmark 'shapes'" in said
    assert f"--plugin {evil}" in said
    assert main.main(["check", str(tmp_path / "data")]) == 2
    assert (
        main.main(
            [
                "forget",
                "--model",
                str(tmp_path / "model"),
                "--data",
                str(tmp_path / "data"),
                "--method",
                "ga",
                "--out",
                str(tmp_path / "o"),
            ]
        )
        == 2
    )
    assert not trace.exists()
