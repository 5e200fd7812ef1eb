"""`unsee attack`: what it writes, resumes, prints and shows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.evaluated import make_run
from helpers.run import EXAMPLE
from unsee import evaluate, forget, load
from unsee.api import Finding, registry
from unsee.api.fast_paths import engine_named
from unsee.attacks.membership import Membership
from unsee.attacks.prompts import Prompts
from unsee.cli import main
from unsee.data.fingerprint import fingerprint
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.report import compare
from unsee.report.attacked import recovered_by_attack
from unsee.report.read import Record, Stage, read_run
from unsee.testing.tiny import save_tiny
from unsee.workflows import attack as workflow
from unsee.workflows.attack import attack, line, worst_summary


def found(variant, at=None, degenerate=0.0, **recovered):
    return Finding(variant=variant, recovered=recovered, degenerate=degenerate, questions=4, at=at)


def test_what_counts_is_the_worst_above_gold():
    model = [found("x", ada=0.9, bo=0.9), found("y", ada=0.5, bo=0.7)]
    gold = [found("x", ada=0.8, bo=0.8), found("y", ada=0.0, bo=0.0)]
    worst = worst_summary(model, gold)
    assert worst["worst"] == "y"
    assert worst["above_gold"] == pytest.approx(0.6)
    assert worst["interval"] == pytest.approx([0.5, 0.7])
    assert worst_summary(model, None)["worst"] == "x"
    assert worst_summary(model, None)["above_gold"] is None


def test_gibberish_is_no_forgetting():
    worst = worst_summary([found("x", degenerate=0.9, ada=0.0)], [found("x", ada=0.0)])
    assert worst["collapsed"]
    assert "recovered" not in worst
    assert (
        line("prompts", worst) == "prompts: not measured: in every variant at least 90% of the answers are degenerate"
    )


@pytest.mark.parametrize(("key", "words"), [("cut", "cut"), ("unjudged", "not to be judged")])
def test_the_largest_share_of_answers_that_show_no_silence_is_told(key, words):
    several = [replace(found(name, ada=0.0), further={key: share}) for name, share in (("x", 0.1), ("y", 0.4))]
    worst = worst_summary([*several, replace(found("z", degenerate=0.9, ada=0.0), further={key: 1.0})], None)
    assert (worst["cut"], worst["unjudged"]) == ((0.4, 0.0) if key == "cut" else (0.0, 0.4))
    assert f"up to 40% of the answers {words}" in line("prompts", {**worst, "axis": "", "seconds": 1.0})


def test_traces_without_gold_are_said_to_show_nothing():
    said = {"recovered": 1.0, "gold": None, "worst": "identity", "at": None, "seconds": 1.0}
    assert line("prompts", said) == "prompts: 100% comes back (identity; 1 s)"
    assert line("probes", {**said, "finds": "traces"}).startswith(
        "probes: 100% left inside (identity; 1 s); shows nothing: a model that never met the forgotten has traces too"
    )
    assert "shows nothing" not in line("probes", {**said, "gold": 0.0, "finds": "traces"})


def test_what_came_back_counts_even_among_rubbish():
    worst = worst_summary(
        [found("x", degenerate=1.0, ada=1.0), found("y", ada=0.2)], [found("x", ada=0.0), found("y", ada=0.0)]
    )
    assert (worst["worst"], worst["above_gold"]) == ("x", 1.0)
    assert worst_summary([found("x", degenerate=0.9, ada=0.04)], [found("x", ada=0.0)])["collapsed"]


def test_a_gold_model_that_collapses_is_no_yardstick():
    model = [found("x", ada=0.9), found("y", ada=0.3)]
    gold = [found("x", degenerate=0.9, ada=0.0), found("y", ada=0.2)]
    assert worst_summary(model, gold)["worst"] == "y"
    worst = worst_summary(model[:1], gold[:1])
    assert worst["why"] == "in every variant most answers of the gold model are degenerate"


def test_what_cannot_be_judged_in_gold_is_not_above_it():
    worst = worst_summary([found("x", ada=1.0, bo=0.5), found("y", bo=0.4)], [found("x", bo=0.5), found("y", bo=0.2)])
    assert (worst["worst"], worst["recovered"], worst["gold"]) == ("y", 0.4, 0.2)
    assert worst["above_gold"] == pytest.approx(0.2)
    for gold in ([found("x", bo=0.0)], [found("y", ada=0.0)]):
        worst = worst_summary([found("x", ada=1.0)], gold)
        assert worst["why"] == "in no variant there is an entity that the answers of both models can be judged for"


def test_an_attack_without_findings_says_so():
    assert worst_summary([], None)["why"] == "the data have nothing that any variant could be tried on"


def test_only_who_could_be_judged_for_both_models_is_compared():
    """An answer in another script than the names gives no share: it is not that gold has recovered nothing."""
    model = [found("x", ada=0.9, bo=0.5), found("y", ada=0.6, bo=0.6)]
    gold = [found("x", bo=0.4), found("y", ada=0.1, bo=0.1)]
    worst = worst_summary(model, gold)
    assert (worst["worst"], worst["gold"]) == ("y", 0.1)
    assert worst["above_gold"] == pytest.approx(0.5)
    alone = worst_summary(model[:1], gold[:1])
    assert (alone["recovered"], alone["gold"], alone["interval"]) == (0.5, 0.4, None)
    assert alone["above_gold"] == pytest.approx(0.1)
    nobody = worst_summary(model[:1], [found("x", cleo=0.0)])
    assert nobody["why"] == "in no variant there is an entity that the answers of both models can be judged for"
    assert "recovered" not in nobody


def test_data_that_are_given_are_not_read_as_those_of_the_run(tmp_path, monkeypatch):
    run, other = tmp_path / "run", tmp_path / "other"
    save_tiny(run / "model")
    (run / "run.yaml").write_text(f"model: m\ndata: {EXAMPLE}\nbenchmark: folder\nmethod: ga\nresult: {{}}\n")
    opened = []

    def open_benchmark(data, benchmark):
        opened.append((data, benchmark))
        raise UserError("seen enough")

    monkeypatch.setattr(workflow, "open_benchmark", open_benchmark)
    for data in ("", EXAMPLE, other):
        with pytest.raises(UserError, match="seen enough"):
            attack(run, data, benchmark={"roles": "r.yaml"})
    own = {"name": "folder", "roles": "r.yaml"}
    assert opened == [(str(EXAMPLE), own), (str(EXAMPLE), own), (str(other), {"roles": "r.yaml"})]


def test_findings_on_another_model_do_not_go_to_the_folder_of_a_run(tmp_path):
    model, run = save_tiny(tmp_path / "model"), tmp_path / "run"
    run.mkdir()
    (run / "run.yaml").write_text("model: m\nresult: {}\n")
    with pytest.raises(UserError, match=r"is the folder of a run, and would get the results of .*model\. Give the run"):
        attack(model, EXAMPLE, out=run)
    assert [file.name for file in run.iterdir()] == ["run.yaml"]


def test_an_attack_that_could_not_be_made_is_tried_again(tmp_path, monkeypatch):
    model, out = save_tiny(tmp_path / "model"), tmp_path / "out"
    asked = {"attacks": ["prompts"], "settings": {"prompts": {"forms": ["plain"], "shots": 0}}, "out": out}

    def full(self, victim):
        raise UserError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Prompts, "run", full)
        assert attack(model, EXAMPLE, **asked)["prompts"]["why"] == "the disk is full"
    found = attack(model, EXAMPLE, **asked)["prompts"]
    assert "findings" in found
    other = {**asked, "settings": {"prompts": {"forms": ["doubt"], "shots": 0}}}
    with monkeypatch.context() as patch:
        patch.setattr(Prompts, "run", full)
        assert attack(model, EXAMPLE, **other)["prompts"]["why"] == "the disk is full"
    assert json.loads((out / "attacks.json").read_text())["attacks"]["prompts"] == found


SHARE = """
from dataclasses import dataclass
from unsee.api import Attack, Finding


@dataclass(frozen=True, kw_only=True)
class Share(Attack):
    def run(self, victim):
        return [Finding(variant="x", recovered={"ada": 0.5}, degenerate=0.0, questions=3)]
"""


@pytest.fixture
def share(tmp_path, monkeypatch):
    """Return a function that writes an attack of one's own, loads it, and attacks."""
    monkeypatch.setattr(registry, "_ADDED", {})
    model, file = save_tiny(tmp_path / "model"), tmp_path / "share.py"

    def found(old="", new=""):
        file.write_text(SHARE.replace(old, new) if old else SHARE)
        registry.add(file)
        return attack(model, EXAMPLE, attacks=["share"], out=tmp_path / "out")["share"]

    return found


def test_an_attack_whose_code_has_changed_is_made_again(share):
    assert share()["recovered"] == 0.5
    assert share("0.5", "0.25")["recovered"] == 0.25


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("0.5", "1.7", "The finding 'x' has the share 1.7 for ada; expected 0 to 1."),
        ("0.5", "float('nan')", "The finding 'x' has the share nan for ada; expected 0 to 1."),
        ("degenerate=0.0", "degenerate=-1", "The finding 'x' has the share -1 for degenerate; expected 0 to 1."),
        ('{"ada": 0.5}', "{}", workflow._UNJUDGED),
        ('{"ada": 0.5}, degenerate=0.0', '{}, degenerate=0.0, further={"not finite": 1.0}', workflow._NO_NUMBER),
        ("questions=3)]", "questions=3)] * 2", "the attack has two findings of the variant 'x' at None"),
    ],
)
def test_a_finding_that_says_nothing_is_not_measured(share, old, new, why):
    outcome = share(old, new)
    assert outcome["why"] == why
    assert "recovered" not in outcome


def test_a_variant_that_cannot_be_judged_leaves_the_others(share, capsys):
    """Of the model and of gold alike, so that what another variant brought back is not lost."""
    nobody = '[Finding(variant="y", recovered={}, degenerate=0.0, questions=0), '
    outcome = share("return [", f"return {nobody}")
    assert (outcome["worst"], outcome["recovered"]) == ("x", 0.5)
    assert [row["mean"] for row in outcome["findings"]["model"]] == [None, 0.5]
    assert "the variant y does not count: no answer can be judged" in " ".join(capsys.readouterr().err.split())
    gold = [found("x", ada=0.4), found("y")]
    summary = worst_summary([found("x", ada=0.5), found("y", ada=1.0)], gold)
    assert (summary["worst"], summary["gold"]) == ("x", 0.4)
    for nothing in (gold[1:], []):
        assert "answers of both models" in worst_summary([found("x", ada=0.5)], nothing)["why"]


def test_a_fault_in_an_attack_is_an_error_with_its_line(share):
    with pytest.raises(UserError, match=r"failed at .*share\.py, line 9: ZeroDivisionError"):
        share("return [", "return [1 / 0, ")
    with pytest.raises(UserError, match="failed at .*: TypeError: 'NoneType' object is not iterable"):
        share("return [", "[")


def test_a_plugin_of_the_run_is_named_where_its_data_need_it(tmp_path):
    run = tmp_path / "run"
    save_tiny(run / "model")
    (run / "run.yaml").write_text(
        f"model: m\ndata: {EXAMPLE}\nbenchmark: shapes\nmethod: ga\nplugins: [a.py#sha256=1]\nresult: {{}}\n"
    )
    with pytest.raises(
        UserError, match=r"Unknown benchmark 'shapes'.* The model was made with plugins.*: --plugin a\.py$"
    ):
        attack(run)


def test_data_that_have_changed_since_the_run_are_told(tmp_path, capsys):
    run, asked = tmp_path / "run", {"attacks": ["prompts"], "settings": {"prompts": {"forms": ["plain"], "shots": 0}}}
    save_tiny(run / "model")
    for data_hash, told in ((fingerprint(open_benchmark(EXAMPLE)), False), ("0", True)):
        (run / "run.yaml").write_text(
            f"model: ''\ndata: {EXAMPLE}\nrecord: {{data_hash: '{data_hash}'}}\nresult: {{}}\n"
        )
        attack(run, **asked)
        assert ("it may have been trained on what they call unseen" in capsys.readouterr().err) == told


def test_attacks_of_another_seed_are_kept_beside(tmp_path):
    model, out = save_tiny(tmp_path / "model"), tmp_path / "out"
    asked = {"attacks": ["prompts"], "settings": {"prompts": {"forms": ["plain"], "shots": 0}}, "out": out}
    first = attack(model, EXAMPLE, **asked)
    attack(model, EXAMPLE, **asked, seed=1)
    assert len(list(out.glob("attacks-*.json"))) == 1
    written = (out / "attacks.json").read_text()
    assert attack(model, EXAMPLE, **asked) == first
    assert (out / "attacks.json").read_text() != written
    assert len(list(out.glob("attacks-*.json"))) == 1


def test_finished_attacks_are_kept_and_other_weights_start_anew(tmp_path, monkeypatch):
    calls = []
    real = workflow._run_attack
    monkeypatch.setattr(workflow, "_run_attack", lambda name, *rest: calls.append(name) or real(name, *rest))
    model, out = save_tiny(tmp_path / "model"), tmp_path / "out"
    settings = {"prompts": {"forms": ["plain"], "shots": 0}}
    first = attack(model, EXAMPLE, attacks=["prompts"], settings=settings, out=out)
    assert first["prompts"]["settings"]["forms"] == ["plain"]
    assert attack(model, EXAMPLE, attacks=["prompts"], settings=settings, out=out) == first
    (model / "README.md").write_text("a card with the scores of a later evaluation")
    assert attack(model, EXAMPLE, attacks=["prompts"], settings=settings, out=out) == first
    assert calls == ["prompts"]
    attack(model, EXAMPLE, attacks=["prompts"], settings={"prompts": {"forms": ["doubt"], "shots": 0}}, out=out)
    attack(save_tiny(tmp_path / "other", seed=3), EXAMPLE, attacks=["prompts"], settings=settings, out=out)
    assert calls == ["prompts"] * 3
    assert list(json.loads((out / "attacks.json").read_text())["attacks"]) == ["prompts"]


def test_attacks_of_another_model_do_not_stand_beside_new_answers(tmp_path):
    """They come back with their model, without being made again."""
    models, out = (
        [save_tiny(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "other"))],
        tmp_path / "out",
    )
    asked = {"attacks": ["prompts"], "settings": {"prompts": {"forms": ["plain"], "shots": 0}}, "out": out}
    first = attack(models[0], EXAMPLE, **asked)
    for model, attacks in ((models[0], first), (models[1], {})):
        evaluate(model, EXAMPLE, out, max_new_tokens=2, limit=1, progress=False)
        assert read_run(out).attacks == attacks
    assert attack(models[0], EXAMPLE, **asked) == first
    for model, attacks in ((models[0], first), (load(models[0]), first), (load(models[1]), {})):
        evaluate(model, EXAMPLE, out, max_new_tokens=2, limit=1, progress=False)
        assert read_run(out).attacks == attacks


def test_findings_of_a_version_that_did_not_count_cut_answers_are_made_again(share, tmp_path):
    share()
    file = tmp_path / "out" / "attacks.json"
    written = json.loads(file.read_text())
    del written["attacks"]["share"]["cut"]
    file.write_text(json.dumps(written))
    assert share()["cut"] == 0.0
    assert not workflow._stands({"findings": {}, "recovered": 0.5}, {"finds": "answers"})
    assert workflow._stands({"findings": {}, "recovered": 0.5}, {"finds": "traces"})
    assert workflow._stands({"findings": {}, "collapsed": True}, {"finds": "answers"})


class Beside(Prompts):
    """An attack that asks another model, too."""

    def named_models(self):
        yield str(self.beside)


def test_other_weights_of_a_model_that_a_setting_names_make_an_attack_anew(tmp_path, monkeypatch):
    assert list(Membership(reference="a").named_models()) == ["a"]
    assert list(Membership(reference="a", scores=("loss",)).named_models()) == []
    attacked = []
    real = workflow._opener
    monkeypatch.setattr(workflow, "_opener", lambda path, engine: _noting(attacked, path, real(path, engine)))
    monkeypatch.setattr(Beside, "beside", tmp_path / "beside", raising=False)
    model, gold = (save_tiny(tmp_path / name, seed=seed) for name, seed in (("model", 1), ("gold", 2)))
    asked = {"gold": gold, "attacks": [Beside(forms=("plain",), shots=0)], "out": tmp_path / "out"}
    with pytest.raises(UserError, match="No model at .*beside"):
        attack(model, EXAMPLE, **asked)
    for seed, expected in ((3, ["model", "gold"]), (3, []), (4, ["model", "gold"])):
        save_tiny(tmp_path / "beside", seed=seed)
        attack(model, EXAMPLE, **asked)
        assert attacked == expected
        attacked.clear()


def test_two_attacks_of_one_name_are_refused(tmp_path):
    first, second = Prompts(forms=("plain",)), Prompts(forms=("doubt",))
    model = save_tiny(tmp_path / "model")
    with pytest.raises(UserError, match="different settings are called prompts"):
        attack(model, EXAMPLE, attacks=[first, second], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list(workflow._by_name([first, Prompts(forms=("plain",))], {}, quick=False)) == ["prompts"]


def _noting(attacked, path, opened):
    return lambda: attacked.append(Path(path).name) or opened()


@pytest.mark.parametrize(("told", "expected"), [("", "plain"), ("fast", "fast")])
def test_an_attack_takes_the_engine_of_the_run_unless_told(tmp_path, monkeypatch, told, expected):
    training = {"max_steps": 1, "stop": "never", "max_new_tokens": 4}
    forget(save_tiny(tmp_path / "tiny"), EXAMPLE, "ga", tmp_path / "ga", training=training, engine="plain")
    engines = []

    class Looking(Prompts):
        def run(self, victim):
            engines.append([opened().engine for opened in (victim.open, victim.original)])
            return super().run(victim)

    looking = Looking(forms=("plain",), shots=0)
    attack(tmp_path / "ga", attacks=[looking], engine=told)
    assert engines == [[engine_named(expected)] * 2]
    facts = json.loads((tmp_path / "ga" / "attacks.json").read_text())["facts"]
    assert facts.get("engine", "fast") == expected


def test_the_gold_model_is_attacked_once_for_all_runs_beside_it(tmp_path, monkeypatch):
    attacked = []
    real = workflow._opener
    monkeypatch.setattr(workflow, "_opener", lambda path, engine: _noting(attacked, path, real(path, engine)))
    gold = save_tiny(tmp_path / "gold", seed=5)
    asked = {"data": EXAMPLE, "gold": gold, "attacks": ["prompts"], "settings": {"prompts": {"forms": ["plain"]}}}

    def findings(run, **more):
        model = save_tiny(tmp_path / run, seed=ord(run))
        attacked.clear()
        return attack(model, out=tmp_path / "runs" / run, **{**asked, **more})["prompts"]["findings"], set(attacked)

    first, models = findings("a")
    assert models == {"a", "gold"}
    beside, _ = findings("b")
    assert beside["gold"] == first["gold"]
    assert beside["model"] != first["model"]
    lines = (tmp_path / "runs" / "cache" / "attacks.jsonl").read_text().splitlines()
    assert len(lines) == 1
    with monkeypatch.context() as changed:  # as if the attack were a plugin that somebody rewrote
        changed.setattr(workflow, "_hash_of", lambda _: "other")
        assert findings("e")[1] == {"e", "gold"}
        changed.setattr(workflow, "_hash_of", lambda _: "")
        assert findings("f")[1] == {"f", "gold"}
    with monkeypatch.context() as changed:  # as if answers were judged by the rules of another version
        changed.setattr(workflow, "rules", lambda: "other")
        assert findings("g")[1] == {"g", "gold"}
    findings("c", seed=1)
    findings("d", settings={"prompts": {"forms": ["doubt"]}})
    assert len((tmp_path / "runs" / "cache" / "attacks.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack", "relerning"], "Did you mean relearning"),
        (["--attack", "prompts", "--set", "relearning.rank=4"], "which is not among prompts"),
        (["--attack", "prompts", "--set", "prompts.shot=4"], "Did you mean shots"),
        (["--attack", "prompts", "--set", "prompts=4"], "expected settings by name, such as prompts.NAME=VALUE, got 4"),
        ([], "Give --out"),
        (["--out", "out", "--gold", "nosuch"], "No model at nosuch"),
        (["--out", "out", "--original", "nosuch"], "No model at nosuch"),
        (["--out", "out", "--model", "nosuch"], "No model at nosuch"),
    ],
)
def test_mistakes(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workflow, "_run_attack", lambda *_: pytest.fail("attacked"))
    model = save_tiny(tmp_path / "model")
    assert main.main(["attack", "--model", str(model), "--data", str(EXAMPLE), *words]) == 2
    assert message in capsys.readouterr().err


def test_an_attack_without_a_reason_is_not_measured():
    run = Record(
        folder=Path(), stage="m", seed="0", scores={}, responses=(), known=0, attacks={"prompts": {"why": None}}
    )
    assert recovered_by_attack(Stage(name="m", runs=(run,))) == {"prompts": "not measured"}


IDLE = [
    ("relearning", {"tune": "full", "rank": 4}, "rank"),
    ("membership", {"scores": ["reference"]}, "scores"),
    ("membership", {"scores": ["loss"], "reference": "lab"}, "reference"),
    ("membership", {"scores": ["loss"], "lowest": 0.1}, "lowest"),
    ("perturbation", {"variants": ["plain", "random signs"], "steps": 5}, "steps"),
    ("perturbation", {"variants": ["plain"], "step": 0.5}, "step"),
    ("perturbation", {"variants": ["plain"], "batch_size": 2}, "batch_size"),
    ("perturbation", {"variants": ["per picture"], "denoiser": 0.5}, "denoiser"),
]


@pytest.mark.parametrize(("name", "settings", "setting"), IDLE)
def test_settings_without_effect_are_refused(name, settings, setting):
    for quick in (False, True):
        workflow.attack_of(name, {}, quick=quick)
        with pytest.raises(UserError, match=rf"attack\.{setting}=.* has no effect: it counts only with"):
            workflow.attack_of(name, {name: settings}, quick=quick)


@pytest.mark.parametrize(("settings", "quick"), [({"prompts": {"shots": 1}}, False), ({}, True)])
def test_an_attack_that_is_an_object_has_its_settings(settings, quick):
    with pytest.raises(UserError, match="the attack prompts is an object and has its settings"):
        workflow.attack_of(Prompts(), settings, quick=quick)
    assert workflow.attack_of(Prompts(), {}, quick=False) == ("prompts", Prompts())


def test_the_report_shows_what_came_back(tmp_path):
    original, run = make_run(tmp_path / "original", "original"), make_run(tmp_path / "pubg", "pubg")
    clean = compare([original, run], tmp_path / "before").read_text()
    assert "What attacks bring back" not in clean
    result = {"recovered": 0.68, "gold": 0.13, "worst": "facts, lr 0.001", "at": 10, "axis": "optimiser steps"}
    hidden = {"why": "the data have no <b>facts</b>"}
    traces = {"recovered": 0.9, "gold": 0.1, "worst": "layer 2", "at": None, "finds": "traces"}
    (run / "attacks.json").write_text(
        json.dumps({"facts": {}, "attacks": {"relearning": result, "prompts": hidden, "probes": traces}})
    )
    page = compare([original, run], tmp_path / "after").read_text()
    assert "What attacks bring back" in page
    assert 'title="facts, lr 0.001, 10 optimiser steps">68%<small>gold 13%</small>' in page
    assert "Attacked: relearning brings 68% back (gold 13%), at worst." in page
    assert "Attacked: traces of 90% are found by probes (gold 10%), at worst." in page
    assert '<th scope="col">probes <small>inside</small></th>' in page
    assert "Hidden" in page
    assert "<b>facts</b>" not in page


def test_the_columns_of_a_table_are_named_as_elsewhere(tmp_path, monkeypatch):
    rows = (EXAMPLE / "data.jsonl").read_text().replace("images/", f"{EXAMPLE / 'images'}/")
    (tmp_path / "table.jsonl").write_text(rows.replace('"image"', '"bild"').replace('"answer"', '"sagt"'))
    opened = []
    monkeypatch.setattr(
        workflow, "_run_attack", lambda name, chosen, data, *rest: opened.append(data) or {"why": "none"}
    )
    model = save_tiny(tmp_path / "model")
    words = ["--fields", "image=bild,answer=sagt", "--attack", "prompts", "--out", str(tmp_path / "out")]
    assert main.main(["attack", "--model", str(model), "--data", str(tmp_path / "table.jsonl"), *words]) == 0
    asked = {(str(row.image), row.answer) for row in opened[0].examples("eval")}
    assert asked == {(str(row.image), row.answer) for row in open_benchmark(EXAMPLE).examples("eval")}
