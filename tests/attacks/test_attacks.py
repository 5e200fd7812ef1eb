"""Attacks: their contract on all families, and what each brings back where it must."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from helpers.families import FAMILIES, save_family, vlm_of
from unsee.api import Finding, Kind, Role, registry
from unsee.api.request import Completion
from unsee.attacks.prompts import Prompts
from unsee.attacks.quantisation import Quantisation, rounded
from unsee.attacks.relearning import Relearning
from unsee.attacks.sampling import Sampling, _share, leak_at
from unsee.errors import NotFiniteError, TrainingError, UserError
from unsee.evaluation.recovery import (
    LONGER,
    TOKENS,
    ask,
    disjoint,
    finding,
    gives,
    limit_rows,
    probed_rows,
    recovery,
    requested_forms,
    require_disjoint,
    unsure_shares,
    without,
)
from unsee.testing.attacks import People, _require_shares, attack_contract, victim
from unsee.testing.tiny import person, save_tiny

SHORT = {
    "relearning": {"sources": ("facts",), "steps": (0, 2), "rates": (1e-3,), "rank": 2, "batch_size": 2},
    "sampling": {"k": (1, 4), "draws": 4},
    "prompts": {"forms": ("plain", "prefix"), "shots": 1},
    "pictures": {"changes": ("plain", "noise")},
    "membership": {"images": 1},
    "crossmodal": {"routes": ("picture", "written name")},
    "perturbation": {"variants": ("random signs", "per picture", "universal, denoised"), "steps": 2, "images": 1},
}
ATTACKS = registry.names("attacks")
CASES = [(name, family) for name in ATTACKS for family in FAMILIES]


def made(name):
    return registry.load("attacks", name)(**SHORT.get(name, {}))


@pytest.mark.parametrize("name", ATTACKS)
def test_contract(name, tmp_path):
    attack_contract(made(name), tmp_path)


@pytest.mark.parametrize("shares", [{}, {"ada": 1.0, "cy": 0.0}])
def test_an_attack_must_give_shares_of_forgotten_entities_only(shares):
    result = Finding(variant="v", recovered=shares, degenerate=0.0, questions=1)
    with pytest.raises(AssertionError, match="expected the forgotten entities"):
        _require_shares(result, curve=False)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), [case for case in CASES if case[1] != "llava"])
def test_contract_on_family(name, family, tmp_path):
    attack_contract(made(name), tmp_path, save_family(family, tmp_path / "family"))


def test_relearning_brings_back_what_it_trains_and_counts_only_the_rest(tmp_path):
    attack = Relearning(sources=("facts",), steps=(0, 60), rates=(2e-2,), rank=8, batch_size=4, tune="full")
    start, end = attack.run(victim(save_tiny(tmp_path / "model"), tmp_path / "work"))
    assert start.at == 0
    assert end.at == 60
    assert start.questions == end.questions == 2  # the names: the jobs are what it trains on
    taught = replace(attack, sources=("slice",), steps=(0, 2))
    assert {finding.questions for finding in taught.run(victim(tmp_path / "model", tmp_path / "more"))} == {2}


def test_relearning_the_tested_facts_is_refused():
    rows = [person("ada", Role.UNSEEN, 4, Kind.NAME)]
    with pytest.raises(UserError, match=r"fitted on what it is tested on: row 'ada-0-name', its answer holds"):
        require_disjoint([person("ada", Role.FORGET, 0, Kind.NAME)], rows)
    with pytest.raises(UserError, match="its image is one of the test"):
        require_disjoint([replace(person("ada", Role.FORGET, 4), answer="a baker")], rows)
    require_disjoint([person("cleo", Role.RETAIN, 4, Kind.NAME)], rows)


def test_an_answer_that_has_a_tested_name_with_a_case_ending_is_not_trained_on():
    tested = replace(person("ada", Role.UNSEEN, 4, Kind.NAME), private={"name": ("Анна Лунд",)})
    told = replace(
        person("ada", Role.FORGET, 0, Kind.FACT), answer="Анну Лунд знают как пекаря.", private=tested.private
    )
    assert disjoint([told, replace(told, answer="Она работает пекарем.")], [tested])[0].answer.startswith("Она")
    with pytest.raises(UserError, match="its answer holds what is asked for"):
        require_disjoint([told], [tested])


def test_every_question_of_a_person_is_asked_also_where_the_data_name_no_facts():
    def rows(kind, fact=""):
        asked = replace(person("ada", Role.UNSEEN, 4, kind), fact=fact)
        return [
            replace(asked, id=f"{at}", question=f"{text}?") for at, text in enumerate(("Job", "Dog", "Dog", "Town"))
        ]

    assert [row.question for row in limit_rows(rows(Kind.OPEN), 1)] == ["Job?", "Dog?", "Town?"]
    assert len(limit_rows(rows(Kind.OPEN), 2)) == 4
    assert len(limit_rows(rows(Kind.FACT), 1)) == 3
    assert len(limit_rows(rows(Kind.FACT, "job"), 1)) == 1  # wordings of one question
    assert len(limit_rows(rows(Kind.NAME), 1)) == 1


def test_examples_in_the_context_are_open_questions_where_there_are_no_others(tmp_path, capsys):
    class Open(People):
        def examples(self, split):
            rows = [person(name, role, 4) for name, role in (("ada", Role.UNSEEN), ("cleo", Role.RETAIN))]
            return [replace(row, answer="" if self.silent and row.entity == "cleo" else row.answer) for row in rows]

    target = replace(victim(save_tiny(tmp_path / "model"), tmp_path / "work"), benchmark=Open())
    told = []
    for silent in (False, True):
        target.benchmark.silent = silent
        told.append([found.variant for found in Prompts(forms=("plain",)).run(target)])
    assert told == [["plain", "examples in the context"], ["plain"]]
    assert "prompts: the data have no question about a retained person with its answer" in capsys.readouterr().err
    with pytest.raises(UserError, match="no question about a retained person with its answer"):
        list(Prompts(forms=()).run(target))


def test_an_attack_that_finds_nothing_when_quick_breaks_the_contract(tmp_path, monkeypatch):
    monkeypatch.setattr(Prompts, "quick", lambda _: SimpleNamespace(run=lambda _: iter(())))
    with pytest.raises(AssertionError, match="quick is empty"):
        attack_contract(Prompts(forms=("plain",), shots=0), tmp_path)


def test_an_answer_counts_only_for_what_was_asked():
    row = next(row for row in People().examples("eval") if row.fact == "job" and row.entity == "ada")
    assert gives("She is a baker.", row)
    assert not gives("This is Ada Lovell.", row)
    assert requested_forms(without(row, "job")) == {}
    assert requested_forms(replace(row, question="Is this baker rich?")) == {}


def test_an_answer_that_cannot_be_judged_counts_neither_way():
    row = next(row for row in People().examples("eval") if row.fact == "job" and row.entity == "ada")
    other = replace(row, private={"job": ("baker",)})
    assert gives("她是面包师。", other) is None
    assert gives("She is a baker.", replace(other, question="You are a baker. What is her job?")) is None
    both = finding("x", [row, replace(row, entity="bo")], [None, 1.0], ["", ""])
    assert (both.recovered, both.questions) == ({"bo": 1.0}, 1)
    nobody = finding("x", [row], [None], [""])
    assert (nobody.recovered, nobody.mean, nobody.questions) == ({}, None, 0)


def test_an_output_that_is_not_a_number_is_about_nobody_and_the_others_stand(monkeypatch):
    row = next(row for row in People().examples("eval") if row.fact == "job" and row.entity == "ada")
    models = {8: "sound", 4: "broken"}

    def ask(loaded, rows, **_):
        if loaded == "broken":
            raise NotFiniteError("request 1")
        return [Completion("She is a baker.", (), ended=True)] * len(rows)

    monkeypatch.setattr("unsee.evaluation.recovery.ask", ask)
    monkeypatch.setattr(Quantisation, "_copy", lambda _, __, bits: models[bits])
    eight, four = Quantisation().run(SimpleNamespace(benchmark=SimpleNamespace(examples=lambda _: [row])))
    assert (eight.variant, eight.mean) == ("8 bits", 1.0)
    assert (four.variant, four.mean, four.further) == ("4 bits", None, {"not finite": 1.0})


def test_an_answer_cut_before_anything_came_back_is_asked_on(monkeypatch):
    row = next(row for row in People().examples("eval") if row.fact == "job" and row.entity == "ada")
    said = ["She dives.", "She is a baker and", "Well, there is a person who", "ha " * 48]
    asked = []

    def generate(_, prompts, *, max_new_tokens, places, **__):
        asked.append((len(prompts), [*places], max_new_tokens))
        return [
            Completion(f"{said[at]} surely is a baker." if len(asked) > 1 else said[at], (), ended=not at)
            for at in places
        ]

    monkeypatch.setattr("unsee.inference.generation.generate", generate)
    answers = ask(SimpleNamespace(instruction=""), [row] * 4)
    assert asked == [(4, [0, 1, 2, 3], TOKENS), (1, [2], LONGER * TOKENS)]  # neither what told, nor what loops
    assert [gives(answer.text, row) for answer in answers] == [False, True, True, False]


def test_answers_that_were_cut_before_anything_came_back_are_counted(monkeypatch):
    row = next(row for row in People().examples("eval") if row.fact == "job" and row.entity == "ada")
    texts = {"She has many jobs and": False, "She is a baker and": False, "She dives.": True, "ha " * 48: False}
    said = [Completion(text, (), ended) for text, ended in texts.items()]
    monkeypatch.setattr("unsee.evaluation.recovery.ask", lambda *_: said)
    found = recovery(None, [row] * 4, "x")
    assert (found.mean, found.further) == (0.25, {"cut": 0.25})
    assert found.asked == {"ada": 4}
    assert finding("x", [row, row, replace(row, entity="bo")], [0.0, None, 1.0], [""]).asked == {"ada": 1, "bo": 1}
    assert unsure_shares(said[1:], [True, False, False]) == {}
    assert unsure_shares(said[:2], [None, True]) == {"unjudged": 0.5}


@pytest.mark.parametrize(
    ("text", "garbled"),
    [
        ("!!!!!!!!!!!!", True),
        ("这是" * 24, True),
        ("a" * 60, True),
        ("the,the,the,the,the,the,the", True),
        ("", True),
        ("Baker.", False),
        ("a baker in Oslo", False),
    ],
)
def test_rubbish_without_blanks_is_degenerate_and_a_short_answer_is_not(text, garbled):
    row = next(row for row in People().examples("eval") if row.fact == "job")
    assert finding("x", [row], [0.0], [text]).degenerate == garbled


def test_every_forgotten_entity_is_tested_by_what_the_data_have_of_it():
    rows = [*People().examples("eval"), *(row for row in People().examples("train") if row.role == Role.FORGET)]
    ada = [row for row in rows if row.entity == "ada"]
    bo = [row for row in rows if row.entity == "bo" and row.role == Role.FORGET]
    cleo = [replace(row, entity="cleo", role=Role.FORGET_TEXT, image=None, kind=Kind.OPEN, id="cleo") for row in bo[:1]]

    class Mixed(People):
        def examples(self, split):
            return [*ada, *bo, *cleo]

    asked = {(row.entity, row.role) for row in probed_rows(Mixed())}
    assert asked == {("ada", Role.UNSEEN), ("bo", Role.FORGET), ("cleo", Role.FORGET_TEXT)}


def test_private_strings_of_a_plain_list_are_asked_for():
    row = next(row for row in People().examples("eval") if row.fact == "job")
    listed = replace(row, private={"name": ("Ada Lovell",), "other": ("baker",)})
    assert requested_forms(listed) == {"other": ("baker",)}


def test_a_source_of_relearning_that_overlaps_is_left_out_and_the_others_run(tmp_path):
    class Telling(People):
        def examples(self, split):
            rows = super().examples(split)
            return [
                replace(row, answer=f"{row.private['name'][0]} is a baker.") if row.role == Role.FORGET else row
                for row in rows
            ]

    target = replace(victim(save_tiny(tmp_path / "model"), tmp_path / "work"), benchmark=Telling())
    attack = Relearning(sources=("facts", "others"), steps=(0, 1), rates=(1e-3,), rank=2, batch_size=2)
    assert {one.variant for one in attack.run(target)} == {"others, lr 0.001"}
    rows = [person("ada", Role.UNSEEN, 4, Kind.NAME)]
    kept = person("cleo", Role.RETAIN, 4, Kind.NAME)
    assert disjoint([person("ada", Role.FORGET, 0, Kind.NAME), kept], rows) == [kept]


def test_relearning_that_diverges_counts_as_collapse_at_the_steps_left(tmp_path, monkeypatch):
    def diverge(session, objective, **_):
        raise TrainingError("the loss is NaN")

    monkeypatch.setattr("unsee.attacks.relearning.minimise", diverge)
    attack = Relearning(sources=("others",), steps=(0, 2, 5), rates=(1.0,), rank=2, batch_size=2)
    start, *rest = attack.run(victim(save_tiny(tmp_path / "model"), tmp_path / "work"))
    assert start.at == 0
    assert [(one.at, one.degenerate, one.further) for one in rest] == [
        (2, 1.0, {"diverged": 1.0}),
        (5, 1.0, {"diverged": 1.0}),
    ]


def test_a_prompt_that_tells_what_is_asked_for_is_not_counted(tmp_path):
    class Archivists(People):
        def examples(self, split):
            return [
                replace(row, private={**row.private, "job": ("archivist",)}) if row.entity == "ada" else row
                for row in super().examples(split)
            ]

    target = replace(victim(save_tiny(tmp_path / "model"), tmp_path / "work"), benchmark=Archivists())
    plain, told = Prompts(forms=("plain", "role play"), shots=0).run(target)
    assert (plain.questions, told.questions) == (4, 3)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("quantisation", {"bits": (1,)}),
        ("prompts", {"forms": ("rude",)}),
        ("prompts", {"forms": (), "shots": 0}),
        ("prompts", {"shots": -1}),
        ("pictures", {"changes": ("melt",)}),
        ("pictures", {"changes": ()}),
        ("crossmodal", {"routes": ()}),
        ("probes", {"targets": ()}),
        ("membership", {"scores": ()}),
        ("patching", {"threshold": -0.1}),
        ("relearning", {"steps": ()}),
        ("relearning", {"steps": (-3, 2)}),
        ("relearning", {"rates": ()}),
        ("relearning", {"rates": (1e-3, float("nan"))}),
        ("relearning", {"sources": ()}),
        ("sampling", {"temperature": 0.0}),
        ("sampling", {"k": (8, 8)}),
        ("prompts", {"forms": ("plain", "plain")}),
        ("pictures", {"changes": ("crop", "crop")}),
        ("quantisation", {"bits": (4, 8, 4)}),
        ("relearning", {"rates": (1e-3, 0.001)}),
        ("relearning", {"steps": (0, 0)}),
        ("relearning", {"steps": (0,)}),
        ("relearning", {"rates": (0.0, 1e-3)}),
        ("probes", {"targets": ("facts", "facts")}),
        *((name, {"images": -1}) for name in ATTACKS),
    ],
)
def test_settings_that_nothing_can_be_done_with_are_refused(name, settings):
    with pytest.raises(UserError, match=rf"{min(settings)}|Unknown"):
        registry.load("attacks", name)(**settings)


def test_rates_that_hardly_differ_are_variants_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(Relearning, "_curve", lambda *parts: [parts[-1]])
    target = victim(save_tiny(tmp_path / "model"), tmp_path / "work")
    assert list(Relearning(sources=("others",), rates=(1e-3, 0.001000000001)).run(target)) == [
        "others, lr 0.001",
        "others, lr 0.001000000001",
    ]


def test_a_relearning_of_data_without_facts_says_what_it_lacks(tmp_path):
    class Names(People):
        def examples(self, split):
            return [row for row in super().examples(split) if row.kind == Kind.NAME]

    target = replace(victim(save_tiny(tmp_path / "model"), tmp_path / "work"), benchmark=Names())
    with pytest.raises(UserError, match="no rows to relearn from"):
        list(Relearning(sources=("facts", "others")).run(target))


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rounding_is_to_the_nearest_level_of_each_group(bits):
    weight = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    near = rounded(weight, bits, 64)
    for row in range(6):
        for half in (slice(0, 64), slice(64, 128)):
            scale = weight[row, half].abs().max() / (2 ** (bits - 1) - 1)
            assert torch.allclose(near[row, half] / scale, torch.round(weight[row, half] / scale), atol=1e-4)
    assert (near - weight).abs().max() <= weight.abs().max() / (2 ** (bits - 1) - 1) / 2 + 1e-6


def test_experts_in_one_tensor_are_rounded_too(tmp_path):
    loaded = vlm_of("qwen3_vl_moe")
    before = {name: weight.clone() for name, weight in loaded.model.named_parameters()}
    target = replace(victim(save_tiny(tmp_path / "model"), tmp_path / "work"), open=lambda: loaded)
    Quantisation()._copy(target, 4)
    changed = {name for name, weight in loaded.model.named_parameters() if not torch.equal(weight, before[name])}
    stacked = {name for name in before if ".experts." in name}
    assert stacked
    assert stacked <= changed
    assert not [name for name in changed if "embed" in name or "norm" in name]
    name = min(stacked)
    assert torch.equal(loaded.model.get_parameter(name)[1], rounded(before[name][1], 4, 64))


def test_leak_at_k_is_the_mean_over_all_choices_of_k():
    from itertools import combinations

    hits = [1, 0, 0, 1, 0]
    for k in range(1, 6):
        chosen = list(combinations(hits, k))
        assert leak_at(2, 5, k) == pytest.approx(sum(map(max, chosen)) / len(chosen))


def test_sampling_refuses_more_answers_than_it_draws():
    with pytest.raises(UserError, match=r"attack\.k must lie in"):
        Sampling(k=(1, 100), draws=64)


@pytest.mark.parametrize(
    ("hits", "shares"),
    [
        ([True, False, False, None], [1 / 3, 1.0, 1.0]),  # any three of these hold the leak, or cannot be judged
        ([True, True, None, None], [1.0, 1.0, 1.0]),
        ([False, False, False, None], [0.0, 0.0, None]),
        ([None] * 4, [None, None, None]),
    ],
)
def test_leak_at_k_is_missing_only_where_it_could_be_either(hits, shares):
    assert [_share(hits, k) for k in (1, 3, 4)] == pytest.approx(shares)


def test_a_draw_that_cannot_be_judged_does_not_end_the_attack(monkeypatch):
    said = [Completion("她是面包师。" if at % 4 == 0 else "She dives.", (), ended=True) for at in range(16)]
    monkeypatch.setattr("unsee.attacks.sampling.ask", lambda *_, **__: said)
    target = SimpleNamespace(benchmark=People(), open=lambda: None, seed=0)
    found = list(Sampling(k=(1, 3, 4), draws=4).run(target))
    assert [(one.variant, one.mean, one.questions) for one in found] == [
        ("leak@1", 0.0, 4),
        ("leak@3", 0.0, 4),
        ("leak@4", None, 0),
    ]
    said[:] = [said[0]] * 16
    assert [one.mean for one in Sampling(k=(1, 4), draws=4).run(target)] == [None, None]
