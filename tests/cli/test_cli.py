"""The command line: nearest names, one readable line for a mistake, exit codes, and one whole round on a tiny model."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from unsee import config
from unsee.api import registry
from unsee.cli import main
from unsee.cli.commands import _shared
from unsee.cli.commands import eval as eval_command
from unsee.cli.commands.list import KINDS
from unsee.config import Run
from unsee.data.fingerprint import fingerprint
from unsee.data.open import open_benchmark
from unsee.errors import TrainingError
from unsee.models.builtin import PACKAGED

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_folder"


@pytest.fixture
def asked(monkeypatch):
    """Catch the run that `unsee forget` would start."""
    runs = []

    def record(run: Run, *, resume: bool = False) -> Path:
        runs.append((run, resume))
        return Path(run.out)

    monkeypatch.setattr("unsee.workflows.forget.forget_run", record)
    return runs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("forgte", "Unknown command 'forgte'. Did you mean forget"),
        ("forget --metod ga", "Unknown option of unsee forget '--metod'. Did you mean --method"),
        ("forget --model m --data d --out o --method gaa", "Unknown method 'gaa'. Did you mean ga"),
        ("forget --set method.beta", "--set wants NAME=VALUE"),
        ("forget --set trainig.lr=1", "Did you mean training"),
        ("forget --seed x", "invalid int value: 'x'"),
        ("forget a.yaml b.yaml", "Unexpected argument 'b.yaml'"),
        (
            "eval --model lab --data lab --out /no/o --set eval.batch_size=0",
            "eval.batch_size must be at least 1, got 0",
        ),
        ("forget --model lab --data {example} --out o --method npo --set method.beta=0", "method.beta must be above 0"),
        ("forget none.yaml", "Cannot read none.yaml"),
        ("forget", "names no model. Give --model"),
        ("forget --model lab --data {example} --method npo", "names no output folder. Give --out"),
        ("train lba --out x", "Unknown world 'lba'. Did you mean lab"),
        ("train lab --out x --without forgt", "Did you mean forget"),
        ("train lab --out x --strangers gess", "Did you mean guess"),
        ("eval", "Which model"),
        ("eval --model lab --data lab --set training.lr=1", "--set training: unsee eval trains nothing"),
        ("eval --model lab --data lab --set method.beta=1", "--set method: unsee eval trains nothing"),
        ("forget --tune lora --set training.tune=full", "--tune is lora and --set training.tune is full"),
        (
            "forget --parts vision --set training.parts=vision,language",
            "--parts is vision and --set training.parts is vision,l",
        ),
        (
            "forget --quantization int8 --load-in-4bit",
            "--load-in-4bit sets quantization to nf4, and it is int8 already",
        ),
        ("forget --recipe mllmu --set recipe=5", "expected options by name, such as recipe.NAME=VALUE, got 5"),
        ("forget --dry-run --ask 3", "--ask is about the verdict"),
        ("demo --full --methods ga", "Give --full or --methods, not both"),
        ("continual --compare a b --out o --tasks 3", "does not read tasks"),
        ("judge runs/x --key-env KEY", "--key-env holds the key of a judge"),
        ("export runs/x --to merged --out o --retain-logs-path y", "--retain-logs-path is for open-unlearning"),
        ("export runs/x --to inspect --out o --benchmark lab", "--benchmark is for lmms-eval and vlmevalkit"),
        ("push runs/x me/x --merged --base me/y --dry-run", "--base names the base of an adapter"),
        ("eval --model m", "Give --data"),
        ("eval --model m --set eval.limt=1", "Unknown setting of eval 'limt'. Did you mean limit"),
        ("compare runs/none", "There is no folder runs/none. A run folder is"),
        ("forget --model m --data d --out o --method ga --lr 1", "Did you mean --set training.lr=...? Known"),
        ("forget --set lr=1", "Unknown setting of the run 'lr'. Did you mean training.lr? Known"),
        ("forget --set max_step=1", "Did you mean training.max_steps? Known"),
        ("forget --method npo --set beta=1", "Did you mean method.beta? Known"),
        (
            "forget --model lab --data {example} --out o --method npo --set method.lr=1",
            "Did you mean training.lr? Known",
        ),
        (
            "forget --model lab --data lab --out o --method npo --set training.learning_rate=1",
            "Did you mean training.lr?",
        ),
        ("forget --model lab --data {example} --out o --method npo --set training.beta=1", "Did you mean method.beta?"),
        ("forget --model lab --data {example} --out o --method npo --set method.bta=1", "Did you mean beta? Known"),
        ("forget --model lab --data {example} --out o --method npo --tune lorra", "got 'lorra'. Did you mean lora?"),
        ("forget --model lab --data labb --out /no/o --method npo", "or the word lab. Did you mean lab"),
        ("continual --model m --data d --out o --method ga --tasks 2 --mode sequental", "Did you mean sequential?"),
        ("continual --set mode=merge", "Did you mean continual.mode? Known"),
        ("continual --model m --data d --out o --method ga --set continual.lr=1", "Did you mean training.lr?"),
        ("check --data runs/none", "No data at runs/none"),
        ("eval --model runs/none", "There is no folder runs/none. A run folder is"),
        ("eval --model m --set eval.epochs=1", "Did you mean training.epochs? Known"),
        (
            "eval --model labb --data lab --out /no/o",
            f"one of {', '.join(PACKAGED)}. Did you mean lab",
        ),
        ("export runs/none --to merged --out /no/o", "There is no folder runs/none. A run folder is"),
        ("export runs/none --to peft --out /no/o", "There is no folder runs/none. A run folder is"),
        ("export runs/none --to open-unlearning --out /no/o", "There is no folder runs/none. A run folder is"),
        ("export runs/none --to lmms-eval --out /no/o", "No data at runs/none"),
        ("judge runs/none", "There is no folder runs/none. A run folder is"),
        ("push runs/none owner/name", "There is no folder runs/none. A run folder is"),
        ("import none.yaml", "there is no file none.yaml."),
        ("forget none.yaml", "Cannot read none.yaml: there is no such file."),
        ("forget --recipe mllmu --model lab --data lab --out /no/o", "The lab is not laid out as mllmu. Give --data"),
        ("eval --model lab --data lab --out /no/o --gold runs/none", "There is no folder runs/none"),
        (
            "eval --model lab --data lab --out /no/o --clip none",
            "No CLIP model at none: expected a folder, or a hub id",
        ),
        (
            "eval --model lab --data {example} --out /no/o --gold .",
            ". has no responses.jsonl: expected the output folder",
        ),
        ("forget {example}", "it is a folder."),
        (
            "forget --model m --data d --method ga --out {example}/data.jsonl",
            "data.jsonl is a file. Give another --out",
        ),
        ("compare a --out {example}/data.jsonl/x", "data.jsonl is a file. Give another --out"),
        ("train lab --out {example}/data.jsonl/x", "data.jsonl is a file. Give another --out"),
        ("sweep {example}/../../configs/lab_pubg.yaml --out /no/o", "as a run has. A grid has the run below `base`"),
        ("check", "Which data"),
        ("check --data /no/where", "No data at /no/where"),
        ("request add --nam x", "Unknown option of unsee request add '--nam'. Did you mean --name"),
        ("request lst", "Unknown action of unsee request 'lst'. Did you mean list"),
        ("request list --operator op1", "Unknown option of unsee request list '--operator'"),
        ("receipt verfy x", "Unknown action of unsee receipt 'verfy'. Did you mean verify"),
        ("list metods", "Unknown kind 'metods'. Did you mean methods"),
    ],
)
def test_mistakes_are_one_line_without_traceback(capsys, words, message):
    assert main.main(words.format(example=EXAMPLE).split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.startswith("unsee: ")
    assert "Traceback" not in said.err


FULL_ONLY = [name for name in registry.names("methods") if "lora" not in registry.load("methods", name).trial.tunes]


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("method", "tune", "taken"),
    [
        *((name, (), "full") for name in FULL_ONLY),
        ("mmunlearner", ("--set", "method.mode=as_released"), "full"),
        ("siu", ("--set", "method.mode=as_released", "--tune", "full"), "lora"),
    ],
)
def test_tuning_that_a_method_does_not_take_leaves_nothing_behind(method, tune, taken, dry_run, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["forget", "--model", "lab", "--data", str(EXAMPLE), "--method", method, "--out", str(out)]
    assert main.main([*words, *tune, *dry_run]) == 2
    assert f"takes training.tune={taken}, got " in capsys.readouterr().err
    assert not out.exists()


def test_published_mmunlearner_takes_adapters_where_it_is_asked_for():
    kind = registry.load("methods", "mmunlearner")
    assert kind(mode="as_released", allow_noop_mask=True).tunes() == ("lora", "full")


def test_debug_shows_the_traceback():
    with pytest.raises(main.UserError):
        main.main(["check", "--debug"])


def test_without_words_the_help_is_shown(capsys):
    assert main.main([]) == 2
    shown = capsys.readouterr().out
    assert all(f"\n    {verb}" in shown for verb in main.verbs())


@pytest.mark.parametrize("verb", sorted(main.verbs()))
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as left:
        main.main([verb, "--help"])
    assert left.value.code == 0
    assert f"usage: unsee {verb}" in capsys.readouterr().out


def test_file_then_set_then_flags(tmp_path, asked):
    file = tmp_path / "r.yaml"
    file.write_text("model: m\ndata: d\nout: o\nmethod: {name: npo, beta: 0.3}\ntraining: {lr: 1e-3, epochs: 2}\n")
    words = [
        str(file),
        "--set",
        "method.beta=0.2",
        "--set",
        "training.epochs=3",
        "--parts",
        "vision,projector",
        "--resume",
    ]
    assert main.main(["forget", *words, "--out", "p", "--tune", "full", "--seed", "4"]) == 0
    ((run, resume),) = asked
    assert (run.model, run.data, run.method, run.out, run.seed) == ("m", "d", "npo", "p", 4)
    assert run.settings == {"beta": 0.2}
    assert run.training == {"lr": 0.001, "epochs": 3, "tune": "full", "parts": "vision,projector"}
    assert resume


def test_interruption_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(run: Run, *, resume: bool = False) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("unsee.workflows.forget.forget_run", interrupted)
    assert main.main(["forget", "--model", "m", "--data", "d", "--method", "ga", "--out", "o"]) == 130
    assert "--resume goes on" in capsys.readouterr().err


def test_failed_training_is_no_mistake_of_the_user(monkeypatch, capsys):
    def failed(run: Run, *, resume: bool = False) -> Path:
        raise TrainingError("The loss is not a finite number at step 3.")

    monkeypatch.setattr("unsee.workflows.forget.forget_run", failed)
    assert main.main(["forget", "--model", "m", "--data", "d", "--method", "ga", "--out", "o"]) == 1
    assert "step 3" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [*KINDS, "method"])
def test_list_prints_every_name_with_a_line(kind, capsys):
    assert main.main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    known = registry.names("methods" if kind == "method" else kind)
    grouped = kind in ("method", "methods")
    named = [line for line in lines if line.startswith("  ") or not grouped]
    assert sorted(line.split()[0] for line in named) == known
    assert all(len(line.split()) > 2 for line in lines)


def test_methods_are_listed_by_group(capsys):
    assert main.main(["list", "methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [place for place, line in enumerate(lines) if not line.startswith(" ")]
    assert [lines[place].partition(":")[0] for place in heads] == ["loss", "weights", "steering", "reference"]
    groups = [[line.split()[0] for line in lines[a + 1 : b]] for a, b in pairwise([*heads, len(lines)])]
    assert {"ga", "siu"} <= set(groups[0])
    assert {"mmunlearner", "manu"} <= set(groups[1])
    assert (groups[2], groups[3]) == (["prompt", "rmuse"], ["finetune"])


def test_groups_read_from_source_are_those_of_the_classes():
    for name in registry.names("methods"):
        assert registry.group(name) == registry.load("methods", name).group


def test_check_says_usable_or_why_not(tmp_path, capsys):
    assert main.main(["check", "--data", str(EXAMPLE)]) == 0
    assert "usable (judged: 8 forget" in capsys.readouterr().out
    rows = (EXAMPLE / "data.jsonl").read_text()
    (tmp_path / "data.jsonl").write_text(rows)
    assert main.main(["check", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert len(report["problems"]) == 20
    assert report["problems"][0].startswith("row 1: image")


def test_from_a_folder_to_scores(tmp_path, capsys):
    from unsee.testing.tiny import save_tiny

    model, out = save_tiny(tmp_path / "tiny"), tmp_path / "runs" / "ga"
    settings = ["--set", "training.max_steps=1", "--set", "training.stop=never", "--set", "training.max_new_tokens=4"]
    words = [
        "forget",
        "--model",
        str(model),
        "--data",
        str(EXAMPLE),
        "--method",
        "ga",
        "--out",
        str(out),
        "--ask",
        "0",
        *settings,
        *("--set", "eval.max_new_tokens=4", "--set", "eval.limit=2"),
    ]
    assert main.main(words) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert main.main(words) == 2
    assert "is not empty. Give --resume" in capsys.readouterr().err
    assert main.main(["eval", "--model", str(out), "--set", "eval.limit=1", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert json.loads((out / "judged.json").read_text())["decoding"]["max_new_tokens"] == 4
    assert scores["unseen.leak"]["n"] > 0
    rows = [json.loads(line) for line in (out / "responses.jsonl").read_text().split("\n") if line]
    assert {row["stage"] for row in rows} == {"ga"}
    assert config.read(out / "run.yaml").data == str(EXAMPLE)
    before = (out / "scores.json").read_text()
    for wrong in ([str(out / "run.yaml")], ["--model", str(model), "--data", str(EXAMPLE), "--out", str(out)]):
        assert main.main(["eval", *wrong]) == 2
        said = capsys.readouterr().err
        assert f"would get the results of {model}. Give the run itself (--model {out}), or another --out." in said
    assert (out / "scores.json").read_text() == before


def test_results_on_other_data_than_the_runs_are_told(tmp_path, capsys):
    out, other = tmp_path / "run", tmp_path / "other"
    out.mkdir()
    own = open_benchmark(str(EXAMPLE))
    config.write(out / "run.yaml", Run(model="m"), record={"data_hash": fingerprint(own)}, result={})
    eval_command._tell_of_other_data(own, "moved", out)
    eval_command._tell_of_other_data(own, "elsewhere", tmp_path)
    assert capsys.readouterr().err == ""
    shutil.copytree(EXAMPLE, other)
    table = next(other.glob("*.jsonl"))
    table.write_text("\n".join(table.read_text().splitlines()[1:]) + "\n")
    eval_command._tell_of_other_data(open_benchmark(str(other)), str(other), out)
    assert f"The scores in {out} become those on {other}" in capsys.readouterr().err
    eval_command._tell_of_other_data(open_benchmark(str(other)), str(other), out, changed=True)
    assert "it may have been trained on what they call unseen" in capsys.readouterr().err


def test_json_stays_json_whatever_the_ids_are(capsys):
    values = {"id": "soft\u00adhyphen \x7f \u202e \x1b \ud800 \u00e9 \n", "n": 1.5}
    _shared.say_json(values)
    assert json.loads(capsys.readouterr().out) == values


def test_a_missing_run_is_answered_with_those_beside_it(tmp_path, capsys):
    for name in ("npo-1", "npo-2"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "run.yaml").write_text("")
    place = tmp_path / "out"
    assert main.main(["judge", str(place / "npo")]) == 2
    said = capsys.readouterr().err
    assert f"Did you mean {place / 'npo-2'} or {place / 'npo-1'}? In {place}: npo-1, npo-2." in said
    (tmp_path / "a.txt").write_text("")
    assert main.main(["compare", str(place / "npo-3")]) == 2
    assert "Did you mean" in capsys.readouterr().err
    assert main.main(["push", str(tmp_path / "a.txt"), "a/b"]) == 2
    assert "a.txt is a file. Give the run folder" in capsys.readouterr().err


def test_a_run_that_has_not_ended_says_how_to_go_on(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("data: lab\nmethod: ga\n")
    assert main.main(["export", str(tmp_path), "--to", "merged", "--out", str(tmp_path / "o")]) == 2
    assert f"Go on with it: unsee forget {tmp_path / 'run.yaml'} --resume." in capsys.readouterr().err
    assert main.main(["forget", str(tmp_path)]) == 2
    assert f"it is a folder. Give {tmp_path / 'run.yaml'}." in capsys.readouterr().err


def test_no_permission_is_said_before_anything_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("unsee.config.paths.os.access", lambda *_: False)
    assert main.main(["train", "lab", "--out", str(tmp_path / "o")]) == 2
    assert f"no permission in {tmp_path}. Give another --out." in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(monkeypatch, capsys):
    def locked(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "data.jsonl")

    monkeypatch.setattr("unsee.data.open.open_benchmark", locked)
    monkeypatch.setattr("unsee.workflows.validate.open_benchmark", locked)
    words = ["forget", "--model", "lab", "--data", str(EXAMPLE), "--method", "ga", "--out", "/no/o"]
    assert main.main(words) == 1
    assert "unsee: Permission denied: data.jsonl." in capsys.readouterr().err
    with pytest.raises(PermissionError):
        main.main([*words, "--debug"])


def test_a_full_disk_is_no_traceback(monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unsee.cli.commands.list._kind", full)
    assert main.main(["list", "methods"]) == 1
    assert "unsee: No space left on device. With --debug" in capsys.readouterr().err
    with pytest.raises(OSError, match="No space left"):
        main.main(["list", "methods", "--debug"])


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_how_to_go_on_is_said_with_debug_too(monkeypatch, capsys, debug):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unsee.workflows.sweep.sweep", interrupted)
    assert main.main([*debug, "sweep", "grid.yaml", "--out", "o"]) == 130
    assert "The same command goes on where this one stopped." in capsys.readouterr().err


def test_damaged_checkpoints_are_named(tmp_path, capsys):
    from unsee.testing.tiny import save_tiny

    model = save_tiny(tmp_path / "tiny")
    words = ["eval", "--model", str(model), "--data", str(EXAMPLE), "--out", str(tmp_path / "o")]
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    assert main.main(words) == 2
    assert "is damaged or cut off" in capsys.readouterr().err
    (model / "config.json").write_text('{"model_type": "llama", "hidden_size": 17}')
    assert main.main(words) == 2
    assert "is no model that transformers can open: " in capsys.readouterr().err


def test_a_name_beside_runs_is_not_sought_on_the_hub(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine" / "npo").mkdir(parents=True)
    (tmp_path / "mine" / "npo" / "run.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main.main(["eval", "--model", "mine/nop", "--data", "lab", "--out", "o"]) == 2
    assert "No model at mine/nop" in capsys.readouterr().err


def test_a_built_in_model_is_no_missing_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "npo").mkdir()
    (tmp_path / "npo" / "run.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main.main(["eval", "--model", "lab"]) == 2
    assert "Give --data: lab is no run folder that records it." in capsys.readouterr().err
    assert main.main(["eval", "--model", "nop"]) == 2
    assert "There is no folder nop" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["eval", "attack"])
def test_a_built_in_model_is_no_run_of_that_name(tmp_path, monkeypatch, capsys, verb):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "run.yaml").write_text(f"model: m\ndata: {EXAMPLE}\nmethod: ga\nresult: {{}}\n")
    monkeypatch.chdir(tmp_path)
    assert main.main([verb, "--model", "lab"]) == 2
    assert "Give --data: lab is no run folder that records it." in capsys.readouterr().err


def test_options_with_several_values_may_be_repeated():
    parser, _ = main.parsers(main.verbs())
    pictures = ["request", "add", "--name", "Ada", "--image", "1.jpg", "2.jpg", "--image", "3.jpg"]
    for _ in range(2):
        assert parser.parse_args(pictures).image == ["1.jpg", "2.jpg", "3.jpg"]
    assert parser.parse_args(["continual", "--compare", "a", "--compare", "b"]).compare == ["a", "b"]


def test_data_are_given_once(capsys):
    assert main.main(["check", "lab", "--data", str(EXAMPLE)]) == 2
    assert "Two data are given, lab and --data" in capsys.readouterr().err


def test_compare_passes_over_what_lies_beside_runs(tmp_path, monkeypatch, capsys):
    for name in ("a", "b", "images", "cache", "compare"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        (tmp_path / name / "scores.json").write_text("{}")
    (tmp_path / "compare" / "leaderboard.json").write_text("{}")
    (tmp_path / "grid.yaml").write_text("")
    seen = []
    monkeypatch.setattr("unsee.report.compare", lambda runs, out: seen.extend(runs) or out / "report.html")
    assert main.main(["compare", *(str(path) for path in sorted(tmp_path.iterdir()))]) == 0
    assert [run.name for run in seen] == ["a", "b"]
    assert main.main(["compare", str(tmp_path / "cache")]) == 2
    assert "is a run folder" in capsys.readouterr().err
