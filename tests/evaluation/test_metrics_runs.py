"""Probabilities of false answers, forget quality, utility, further measures and CLIPScore through `evaluate`, `rescore` and `compare`."""

import json
import math
import random
from dataclasses import replace

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from fixtures.benchmarks import fixtures
from unsee.api import Benchmark, Kind, Response, Role, Score, Vocabulary
from unsee.api.request import Target
from unsee.benchmarks.folder import Folder
from unsee.config.paths import is_model
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.evaluation.clip import PREFIX, Clip
from unsee.evaluation.evaluate import evaluate, rescore
from unsee.inference.answer_logits import answer_logprob
from unsee.inference.batching import collate
from unsee.lab.world.examples import eval_examples
from unsee.lab.world.world import World
from unsee.models import builtin
from unsee.report import compare
from unsee.scoring.against_gold import FQ_NEEDS, against_gold, forget_quality_score, model_utility
from unsee.scoring.aggregate import score
from unsee.testing.tiny import Drawn, tiny_examples, tiny_model, tiny_processor, tiny_vlm, tokenizer_json

FALSE = ("a diver from Oslo", "a pilot from Rome", "a pilot")


class Facts(Benchmark):
    name = "facts"

    def examples(self, split):
        rows = [row for rows in tiny_examples().values() for row in rows]
        return [replace(row, perturbed=FALSE, paraphrase="from Lisbon , a baker") for row in rows]

    def vocabulary(self):
        return Vocabulary()


def loaded(seed=0):
    return tiny_vlm(seed=seed)


def asked(out, seed=0, data=None, **changes):
    changes = {"likelihood": True, **changes}
    return evaluate(loaded(seed), data or Facts(), out, max_new_tokens=2, progress=False, **changes)


def rows_of(folder):
    return [Response.from_json(json.loads(line)) for line in (folder / "responses.jsonl").read_text().splitlines()]


def row(index, true, false, role=Role.FORGET, entity="", **changes):
    fields = {
        "id": str(index),
        "stage": "x",
        "role": role,
        "kind": Kind.FACT,
        "fact": "job",
        "entity": entity or str(index),
    }
    fields |= {"question": "What?", "answer": "baker", "text": "baker", "tokens": 2, "ended": True, "image": "i.png"}
    fields |= {"true_logprob": true, "perturbed_logprobs": tuple(false)}
    return Response(**{**fields, **changes})


# probabilities of false answers


def test_true_and_false_answers_are_measured_as_full_forward_passes_measure_them(tmp_path):
    asked(tmp_path / "x")
    found = rows_of(tmp_path / "x")
    example = Facts().examples("eval")[0]
    texts = (example.paraphrase, *FALSE)
    one = loaded()
    batch = collate(one, [Target(example=replace(example, answer=text)) for text in texts])
    with torch.no_grad():
        logp = answer_logprob(one.model, batch)
    means = logp.mean_b.tolist()
    assert found[0].true_logprob == pytest.approx(means[0], abs=1e-4)
    assert found[0].perturbed_logprobs == pytest.approx(means[1:], abs=1e-4)
    assert found[0].logprob is not None


def test_without_paraphrase_the_answer_is_held_against_the_false_ones(tmp_path):
    class Bare(Facts):
        def examples(self, split):
            return [replace(row, paraphrase="") for row in super().examples(split)]

    asked(tmp_path / "x", data=Bare())
    for found in rows_of(tmp_path / "x"):
        assert found.true_logprob == pytest.approx(found.logprob / found.logprob_tokens)


def test_false_answers_are_asked_for_only_where_there_are_some(tmp_path):
    class Bare(Facts):
        def examples(self, split):
            return [replace(row, paraphrase="", perturbed=()) for row in super().examples(split)]

    scores = asked(tmp_path / "x", data=Bare())
    assert "forget.answer_prob" in scores
    assert not [key for key in scores if key.endswith("truth_ratio")]
    assert all(found.true_logprob is None and found.perturbed_logprobs == () for found in rows_of(tmp_path / "x"))


def test_other_false_answers_are_measured_again(tmp_path):
    class Other(Facts):
        def examples(self, split):
            return [replace(row, perturbed=FALSE[:1]) for row in super().examples(split)]

    asked(tmp_path / "x")
    asked(tmp_path / "y", data=Other())
    assert {len(found.perturbed_logprobs) for found in rows_of(tmp_path / "y")} == {1}


def test_answers_written_before_there_were_false_ones_are_still_read():
    written = dict(row(1, None, ()).to_json())
    for name in ("paraphrase", "perturbed", "true_logprob", "perturbed_logprobs", "clip"):
        del written[name]
    assert Response.from_json(json.loads(json.dumps(written))) == row(1, None, ())
    whole = row(1, -1.0, (-2.0, -3.0), perturbed=("a", "b"), clip=0.5)
    assert Response.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_truth_ratio_of_what_goes_and_of_what_stays():
    rows = [
        row(1, -1.0, (-2.0,)),
        row(2, -1.0, (-1.0,)),
        row(3, -1.0, (-2.0,), Role.RETAIN),
        row(4, -2.0, (-1.0,), Role.RETAIN),
    ]
    scores = score(rows, Vocabulary())
    assert scores["forget.truth_ratio"].value == pytest.approx((math.exp(-1) + 1) / 2)
    assert scores["retain.truth_ratio"].value == pytest.approx((1 - math.exp(-1)) / 2)
    others = {
        role: [row(1, -1.0, (-2.0,), role, image=image)] for role, image in ((Role.UNSEEN, "i"), (Role.FORGET, ""))
    }
    for rows, key in zip(others.values(), ("unseen", "forget_text"), strict=True):
        assert score(rows, Vocabulary())[f"{key}.truth_ratio"].value == pytest.approx(math.exp(-1))


def test_truth_prob_is_the_share_of_the_true_answer():
    rows = [row(1, math.log(0.2), (math.log(0.1), math.log(0.1)))]
    assert score(rows, Vocabulary())["forget.truth_prob"].value == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["clear", "fiubench"])
def test_published_false_answers_give_forget_quality(name, tmp_path):
    (tmp_path / name).mkdir()
    fixtures()[name].build(tmp_path / name)
    data = open_benchmark(tmp_path / name)
    roles = [Role.FORGET, Role.FORGET_TEXT]
    asked(tmp_path / "gold", seed=1, data=data, roles=roles, limit=4)
    scores = asked(tmp_path / "x", data=data, roles=roles, limit=4, gold=tmp_path / "gold")
    assert 0 < scores["forget.ks"].value <= 1
    assert 0 < scores["forget.truth_ratio"].value < 1


def test_the_lab_has_false_answers_to_every_fact_and_none_is_true():
    facts = [example for example in eval_examples(World()) if example.kind is Kind.FACT]
    assert len(facts) > 100
    for example in facts:
        true = example.private[example.fact][0]
        assert len(set(example.perturbed)) == 3
        assert all(true not in text and text != example.answer for text in example.perturbed)


def test_a_folder_of_ones_own_may_have_false_answers(tmp_path):
    Drawn("red").load().save(tmp_path / "a.png")
    cells = {"image": "a.png", "question": "Job?", "answer": "baker", "entity": "ada", "role": "forget", "private": ""}
    rows = [{**cells, "paraphrase": "She bakes.", "perturbed": ["diver", "pilot"]}, {**cells, "perturbed": None}]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    first, second = Folder(tmp_path).examples("eval")
    assert (first.paraphrase, first.perturbed) == ("She bakes.", ("diver", "pilot"))
    assert (second.paraphrase, second.perturbed) == ("", ())


def test_a_folder_of_ones_own_may_accept_words(tmp_path):
    cells = {
        "image": "",
        "question": "Capital?",
        "answer": "It is Paris.",
        "entity": "",
        "role": "general",
        "kind": "general",
        "private": "",
    }
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({**cells, "accepted": ["Paris", "Lutetia"]}) + "\n")
    (one,) = Folder(tmp_path).examples("eval")
    assert one.accepted == ("Paris", "Lutetia")
    file.write_text(json.dumps({**cells, "role": "retain", "kind": "fact", "accepted": ["Paris"]}) + "\n")
    with pytest.raises(UserError, match="accepted is for questions of kind general"):
        Folder(tmp_path).examples("eval")


# forget quality


def test_forget_quality_is_small_where_the_model_still_knows():
    draw = random.Random(0)
    knows = [row(i, draw.gauss(-0.1, 0.05), (-5.0,)) for i in range(60)]
    never, near = ([row(i, draw.gauss(-3, 1), (-3.0,)) for i in range(60)] for _ in range(2))
    bad, good = against_gold(knows, never), against_gold(near, never)
    assert bad["forget.ks"].value == bad["forget.js"].value == 1.0
    assert bad["forget.forget_quality"].value < 1e-10
    assert good["forget.forget_quality"].value > 0.1
    assert good["forget.js"].value < 0.2
    assert bad["forget.ks"].interval == (1.0, 1.0)
    assert bad["forget.ks"].better == bad["forget.js"].better == "lower"


def test_questions_are_matched_by_id_and_missing_ones_are_counted():
    ours = [row(i, -1.0 - i, (-2.0,)) for i in range(4)]
    gold = [row(i, -1.5 - i, (-2.0,)) for i in (3, 2, 1)]
    found = against_gold(ours, gold)["forget.ks"]
    assert found.n == 3
    assert "1 questions were not asked" in found.why


def test_each_role_is_compared_by_itself_and_only_forgotten_ones_are():
    rows = [row(role.value, -1.0, (-2.0,), role) for role in (Role.FORGET, Role.UNSEEN, Role.RETAIN)]
    rows.append(row("text", -1.0, (-2.0,), Role.FORGET, image=""))
    found = against_gold(rows, [replace(one, true_logprob=-1.5) for one in rows])
    assert {key.partition(".")[0] for key in found} == {"forget", "unseen", "forget_text"}


def test_distances_draw_people_and_not_their_questions():
    rows = [row(i, -i / 10, (-2.0,), entity="p") for i in range(4)]
    gold = [replace(one, true_logprob=-1.5) for one in rows]
    assert against_gold(rows, gold)["forget.ks"].interval is None
    assert against_gold([replace(one, entity=one.id) for one in rows], gold)["forget.ks"].interval is not None


def test_kinds_of_questions_are_compared_by_themselves_too():
    """CLEAR asks for captions and for names; its forget quality is that of the captions."""
    rows = [row(i, -1.0 - i / 10, (-2.0,), kind=Kind.NAME if i % 2 else Kind.OPEN) for i in range(8)]
    gold = [replace(one, true_logprob=one.true_logprob - (9.0 if one.kind is Kind.OPEN else 0.01)) for one in rows]
    found = against_gold(rows, gold)
    assert {key.partition("@")[2] for key in found} == {"", "open", "name"}
    assert (found["forget.ks@open"].value, found["forget.ks@name"].value, found["forget.ks"].n) == (1.0, 0.25, 8)
    scores = score(rows, Vocabulary())
    halves = [scores[f"forget.truth_ratio@{kind}"].value for kind in ("open", "name")]
    assert scores["forget.truth_ratio"].value == pytest.approx(sum(halves) / 2)


@pytest.mark.parametrize(
    ("ours", "gold", "words"),
    [
        ([row(1, None, ())], [row(1, -1.0, (-2.0,))], "no truth ratio.*--likelihood"),
        ([row(1, -1.0, (-2.0,))], [row(1, None, ())], "gold model's answers have no truth ratio"),
        ([row(1, -1.0, (-2.0,))], [row(2, -1.0, (-2.0,))], "other questions"),
        ([row(1, -1.0, (-2.0,))], [replace(row(1, -1.0, (-3.0,)), question="Where?")], "other questions"),
        ([row(1, -1.0, (-2.0,))], [row(1, -1.0, (-2.0,))], "judged model itself"),
    ],
)
def test_what_cannot_be_compared_says_why(ours, gold, words):
    with pytest.raises(UserError, match=words):
        against_gold(ours, gold)


def test_eval_with_gold_adds_forget_quality_and_rescoring_gives_the_same(tmp_path):
    asked(tmp_path / "gold", seed=1)
    scores = asked(tmp_path / "x", likelihood=False, gold=tmp_path / "gold")
    assert {"forget.forget_quality", "forget.ks", "forget.js", "forget.truth_ratio", "model.utility"} <= set(scores)
    assert scores["model.fq"].value is None
    assert "needs forget.cloze, forget.choice, unseen.cloze" in scores["model.fq"].why
    assert rescore(tmp_path / "x", gold=tmp_path / "gold") == scores
    assert "forget.ks" not in rescore(tmp_path / "x")


class Plain(Facts):
    """The same questions without false answers, as most people have them."""

    name = "plain"

    def examples(self, split):
        return [replace(row, perturbed=()) for row in super().examples(split)]


def test_gold_without_false_answers_gives_the_distance_alone(tmp_path):
    asked(tmp_path / "gold", seed=1, data=Plain())
    scores = asked(tmp_path / "x", data=Plain(), gold=tmp_path / "gold")
    assert 0 <= scores["model.gold_distance"].value <= 1
    assert "no truth ratio" in scores["model.fq"].why
    assert "forget.ks" not in scores


class Gone(Plain):
    """The same without any rows that are to be kept."""

    name = "gone"

    def examples(self, split):
        return [row for row in super().examples(split) if row.role is Role.FORGET]


def test_what_no_score_against_gold_can_be_told_of_is_judged_all_the_same(tmp_path):
    asked(tmp_path / "gold", seed=1, data=Gone())
    scores = asked(tmp_path / "x", data=Gone(), gold=tmp_path / "gold")
    assert "forget.leak" in scores
    assert "what was kept" in scores["model.gold_distance"].why
    assert "no truth ratio" in scores["model.fq"].why


class Kept(Facts):
    """False answers for what is kept alone."""

    name = "kept"

    def examples(self, split):
        return [row if row.role is Role.RETAIN else replace(row, perturbed=()) for row in super().examples(split)]


@pytest.mark.parametrize(
    ("data", "gold_likelihood", "why"),
    [
        (Kept, True, "the answers to questions about what was forgotten have no truth ratio"),
        (Facts, False, "the gold model's answers have no truth ratio"),
    ],
)
def test_what_forget_quality_lacks_costs_no_other_score(tmp_path, data, gold_likelihood, why):
    asked(tmp_path / "gold", seed=1, data=data(), likelihood=gold_likelihood)
    scores = asked(tmp_path / "x", data=data(), gold=tmp_path / "gold")
    assert scores["model.gold_distance"].value is not None
    assert scores["model.utility"].value is not None
    assert why in scores["model.fq"].why


def test_the_judged_model_is_no_gold_for_itself_without_false_answers_either(tmp_path):
    asked(tmp_path / "same", data=Plain())
    with pytest.raises(UserError, match="judged model itself"):
        asked(tmp_path / "x", data=Plain(), gold=tmp_path / "same")
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="judged model itself"):
        rescore(tmp_path / "same", gold=tmp_path / "same")


def test_gold_may_be_a_checkpoint_that_nobody_judged(tmp_path):
    """It is judged beside the run, as if the user had done so before."""
    tiny_model(seed=1).save_pretrained(tmp_path / "theirs")
    tiny_processor().save_pretrained(tmp_path / "theirs")
    scores = asked(tmp_path / "x", likelihood=False, gold=tmp_path / "theirs")
    assert rows_of(tmp_path / "x-gold")[0].stage == "gold"
    asked(tmp_path / "judged", seed=1)
    expected = asked(tmp_path / "y", gold=tmp_path / "judged")
    for name in ("forget.forget_quality", "forget.ks", "forget.js"):
        assert scores[name].value == pytest.approx(expected[name].value, abs=1e-6)
    judged = json.loads((tmp_path / "x" / "judged.json").read_text())
    assert judged["gold"]["folder"] == str(tmp_path / "x-gold")


def test_a_gold_model_is_judged_in_no_other_run_and_under_its_own_name(tmp_path, monkeypatch):
    tiny_model(seed=1).save_pretrained(tmp_path / "theirs")
    tiny_processor().save_pretrained(tmp_path / "theirs")
    monkeypatch.setattr(builtin, "STAGES", {str(tmp_path / "theirs"): "gold-picture"})
    asked(tmp_path / "x", data=Plain(), gold=tmp_path / "theirs")
    assert rows_of(tmp_path / "x-gold")[0].stage == "gold-picture"
    (tmp_path / "y-gold").mkdir()
    (tmp_path / "y-gold" / "run.yaml").write_text("model: lab\n")
    with pytest.raises(UserError, match="is a run of another model"):
        asked(tmp_path / "y", data=Plain(), gold=tmp_path / "theirs")
    with pytest.raises(UserError, match="No model at"):
        evaluate(tmp_path / "none", Plain(), tmp_path / "z", gold=tmp_path / "theirs")
    assert not (tmp_path / "z-gold").exists()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("gold", "model"),
    [("lab-gold", True), ("owner/name", True), ("runs/none", False), ("./owner/name", False), ("/no/where", False)],
)
def test_names_of_gold_models(gold, model):
    assert is_model(gold) is model


def test_eval_against_itself_or_nothing_is_refused(tmp_path):
    asked(tmp_path / "same")
    with pytest.raises(UserError, match="judged model itself"):
        asked(tmp_path / "x", gold=tmp_path / "same")
    with pytest.raises(UserError, match=r"no responses.jsonl"):
        asked(tmp_path / "y", gold=tmp_path / "nowhere")
    assert not (tmp_path / "y").exists()


class Others(Facts):
    """The same ids for other questions."""

    name = "others"

    def examples(self, split):
        return [replace(row, question=f"{row.question} Tell me.") for row in super().examples(split)]


def test_a_gold_model_that_was_asked_other_questions_is_refused_before_generation(tmp_path):
    asked(tmp_path / "gold", seed=1)
    with pytest.raises(UserError, match="The gold model was asked other questions; judge both on the same data"):
        asked(tmp_path / "x", gold=tmp_path / "gold", data=Others())
    assert not (tmp_path / "x").exists()
    asked(tmp_path / "others", data=Others())
    with pytest.raises(UserError, match="The gold model was asked other questions"):
        rescore(tmp_path / "others", gold=tmp_path / "gold")
    scores = asked(tmp_path / "y", gold=tmp_path / "gold", roles=["retain"])
    assert scores["model.gold_distance"].value is None
    assert scores["retain.truth_ratio"].value is not None


def test_compare_holds_every_run_against_the_gold_one(tmp_path):
    for stage, seed in (("gold", 1), ("original", 0), ("npo", 2)):
        asked(tmp_path / stage, seed=seed, stage=stage)
    compare([tmp_path / stage for stage in ("npo", "gold", "original")], tmp_path / "out")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    wanted = against_gold(rows_of(tmp_path / "npo"), rows_of(tmp_path / "gold"))
    for name in ("ks", "forget_quality"):
        assert summary["npo"]["forget"][name] == pytest.approx(wanted[f"forget.{name}"].value)
    assert "ks" not in summary["gold"]["forget"]
    board = (tmp_path / "out/leaderboard.md").read_text()
    assert "forget.ks ↓" in board
    assert "npo: FQ needs" in board
    assert "Utility" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(
    ("silent", "why"),
    [
        ("gold", "the gold model's answers have no truth ratio"),
        ("npo", "the answers to questions about what was forgotten have no"),
    ],
)
def test_compare_says_that_one_of_the_two_was_not_asked(tmp_path, silent, why):
    for stage, seed in (("gold", 1), ("npo", 0)):
        asked(tmp_path / stage, seed=seed, stage=stage, likelihood=stage != silent)
    compare([tmp_path / "npo", tmp_path / "gold"], tmp_path / "out")
    assert f"npo: no forget quality: {why}" in (tmp_path / "out/leaderboard.md").read_text()


def test_without_probabilities_the_leaderboard_has_no_empty_columns(tmp_path):
    for stage in ("gold", "npo"):
        asked(tmp_path / stage, seed=len(stage), stage=stage, likelihood=False)
    compare([tmp_path / "npo", tmp_path / "gold"], tmp_path / "out")
    board = (tmp_path / "out/leaderboard.md").read_text()
    assert ".ks" not in board
    assert "utility" not in board


# utility and FQ


def test_utility_is_the_harmonic_mean_of_what_stays():
    kept = {"answer": "a baker here", "text": "a baker", "logprob": math.log(0.5), "logprob_tokens": 1}
    rows = [row(1, -1.0, (-1.0 - math.log(4),), Role.RETAIN, **kept), row(2, -1.0, (-9.0,), Role.FORGET, **kept)]
    found = score(rows, Vocabulary())["model.utility"]
    parts = {"retain.answer_prob": 0.5, "retain.rougeL_recall": 2 / 3, "retain.truth_ratio": 0.75}
    assert found.value_by_index == pytest.approx(parts)
    assert found.value == pytest.approx(3 / (1 / 0.5 + 3 / 2 + 1 / 0.75))
    assert model_utility({}) == {}


def test_utility_is_of_all_that_stays_with_and_without_image_and_of_nothing_else():
    kept = {"logprob": -1.0, "logprob_tokens": 1}
    rows = [
        row(f"{role}{image}", -1.0, (-2.0,), role, image=image, **kept)
        for role in (Role.RETAIN, Role.GENERAL, Role.FORGET, Role.UNSEEN, Role.STRANGER, Role.BENIGN)
        for image in ("i.png", "")
    ]
    parts = score(rows, Vocabulary())["model.utility"].value_by_index
    assert {key.partition(".")[0] for key in parts} == {"retain", "retain_text", "general", "general_text"}
    assert len(parts) == 4 * 3


def test_fq_takes_js_as_a_distance():
    scores = {key: Score(value=0.25, n=1) for key in FQ_NEEDS}
    found = forget_quality_score(scores)
    distance = math.sqrt(0.25 * math.log(2))  # 0.25 bits in nats, as scipy's jensenshannon of base None
    assert found.value_by_index["js"] == pytest.approx(distance) == pytest.approx(0.416277, abs=1e-6)
    assert found.value == pytest.approx((0.75 + 0.25 + 0.75 + 0.75 + 1 - distance) / 5)


def test_the_distance_of_fq_is_scipys():
    from scipy.spatial.distance import jensenshannon

    from unsee.metrics.distance import js_divergence

    bits = js_divergence((0, 1), (1, 2))
    scores = {key: Score(value=bits if key == "forget.js" else 0.25, n=1) for key in FQ_NEEDS}
    theirs = jensenshannon((0.5, 0.5, 0.0), (0.0, 0.5, 0.5))
    assert (
        forget_quality_score(scores).value_by_index["js"] == pytest.approx(theirs) == pytest.approx(0.588705, abs=1e-6)
    )


def test_fq_of_a_run_is_the_yardsticks():
    text = {"kind": Kind.CLOZE, "answer": "baker", "logprob": math.log(0.25), "logprob_tokens": 1}
    picked = {
        "kind": Kind.CHOICE,
        "options": ("baker", "pilot"),
        "answer": "A",
        "true_logprob": None,
        "perturbed_logprobs": (),
    }
    rows = [
        one
        for role in (Role.FORGET, Role.UNSEEN)
        for one in (
            row(f"{role}-cloze", -1.0, (-2.0,), role, entity="p", **{**text, "text": "pilot"}),
            row(f"{role}-choice", None, (), role, entity="p", **{**picked, "text": "A"}),
        )
    ]
    gold = [replace(one, true_logprob=None if one.true_logprob is None else -3.0) for one in rows]
    scores = score(
        rows,
        Vocabulary(),
    )
    found = forget_quality_score({**scores, **against_gold(rows, gold)})
    # F = 1 - mean(0, 1, 0); truth ratio 1/e; probability .25; KS of two points apart is 1, JS ln 2 nats.
    assert found.value == pytest.approx((2 / 3 + math.exp(-1) + 0.75 + 0 + 1 - math.sqrt(math.log(2))) / 5)
    assert found.why == ""


# further measures


def test_further_measures_are_asked_for_by_name_and_kept_for_rescoring(tmp_path):
    scores = asked(tmp_path / "x", likelihood=False, measures=("bleu", "rouge1", "rouge2", "exact"))
    assert {"forget.bleu", "forget.rouge1", "forget.rouge2", "forget.exact"} <= set(scores)
    assert rescore(tmp_path / "x") == scores
    assert "forget.bleu" not in asked(tmp_path / "y", likelihood=False)
    assert "forget.bleu" in rescore(tmp_path / "y", measures=("bleu",))
    with pytest.raises(UserError, match="bleu"):
        asked(tmp_path / "z", measures=("blue",))
    assert not (tmp_path / "z").exists()


def test_a_measure_of_one_kind_of_question_is_asked_for_behind_an_at_sign(tmp_path):
    measures = ("bleu@open", "bleu@visible", "rougeL@open")
    scores = asked(tmp_path / "x", likelihood=False, measures=measures)
    kinds = {one.id: one.kind for one in rows_of(tmp_path / "x")}
    for name in measures:
        found = [score for key, score in scores.items() if key.partition(".")[2] == name]
        assert {kinds[index].value for score in found for index in score.value_by_index} <= {name.partition("@")[2]}
    assert scores["forget.bleu@open"].n == scores["forget.rougeL@open"].n > 0
    assert "forget.bleu" not in scores
    assert rescore(tmp_path / "x") == scores
    for wrong, named in (("bleu@opened", "opened"), ("blue@open", "blue"), ("rougeL", "rougeL")):
        with pytest.raises(UserError, match=named):
            asked(tmp_path / "z", measures=(wrong,))


# CLIPScore


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A random CLIP in a folder, as anybody's own."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), pad_token="<pad>", eos_token="</s>")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=12, eos_token_id=tokenizer.eos_token_id, **small
    )
    vision = CLIPVisionConfig(image_size=8, patch_size=4, **small)
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


def _tokenizer():
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer_json())


def test_clip_scores_are_the_models_cosines(clip):
    judge = Clip.load(clip)
    images, texts = [Drawn("red").load(), Drawn("blue").load()], ["This is Ada", "red hair and a blue shirt " * 9]
    found = judge.scores(images, texts)
    for image, text, one in zip(images, texts, found, strict=True):
        read = judge.tokenizer([PREFIX + text], truncation=True, max_length=12, return_tensors="pt")
        pixels = judge.processor(images=[image], return_tensors="pt")
        logit = judge.model(**read, **pixels).logits_per_image.item() / judge.model.logit_scale.exp().item()
        assert one == pytest.approx(2.5 * max(0.0, logit), abs=1e-5)
    assert judge.scores(images[:1], ["..."]) == [0.0]


def test_a_clip_model_without_numbers_is_named(clip):
    judge = Clip.load(clip)
    with torch.no_grad():
        judge.model.visual_projection.weight.fill_(torch.nan)
    with pytest.raises(UserError, match=f"{clip} is damaged"):
        judge.scores([Drawn("red").load()], ["This is Ada"])


def test_eval_with_clip_scores_answers_about_images_only(tmp_path, clip):
    scores = asked(tmp_path / "x", likelihood=False, clip=clip)
    assert "forget.clip_score" in scores
    assert "retain_text.clip_score" not in scores
    assert {found.clip is None for found in rows_of(tmp_path / "x") if found.image} == {False}
    assert rescore(tmp_path / "x") == scores
    with pytest.raises(UserError, match="holds no CLIP model"):
        asked(tmp_path / "y", clip=tmp_path)
    assert not (tmp_path / "y").exists()
