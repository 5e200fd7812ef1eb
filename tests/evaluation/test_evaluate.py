"""Asking once, keeping answers by key, scoring from the file alone."""

import json
import math
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from PIL import Image

from unsee.api import Benchmark, Kind, Response, Role, Score, Vocabulary
from unsee.api import request as api_request
from unsee.api.fast_paths import FAST, PLAIN
from unsee.api.request import Decoding
from unsee.config import EvalConfig
from unsee.distributed import processes
from unsee.errors import UserError
from unsee.evaluation.answers import setup_hash
from unsee.evaluation.evaluate import _judged_facts, evaluate, rescore, score
from unsee.inference import generation, likelihood
from unsee.models.checkpoint import open_model, save_model
from unsee.report.read import read_run
from unsee.testing.tiny import QUESTION, Drawn, person, tiny_examples, tiny_vlm

VOCABULARY = Vocabulary(
    names={"ada": ("Ada Lovell", "Lovell"), "bo": ("Bo Winter", "Winter"), "cleo": ("Cleo Marsh", "Marsh")},
    facts={"job": ("baker", "diver", "pilot"), "country": ("Norway", "Italy")},
    visible={
        "shirt": {"red": r"\bred shirt\b", "blue": r"\bblue shirt\b"},
        "hair": {"long": r"\blong hair\b", "short": r"\bshort hair\b"},
    },
)
GOOD = "The person has long hair and wears a red shirt."


class Small(Benchmark):
    name = "small"

    def examples(self, split):
        unseen = [replace(person(name, Role.UNSEEN, 4), id=f"u-{name}") for name in ("ada", "bo")]
        return [example for examples in tiny_examples().values() for example in examples] + unseen

    def vocabulary(self):
        return VOCABULARY


def loaded(seed=0, instruction=""):
    return tiny_vlm(seed=seed, instruction=instruction)


def ask(model, out, **changes):
    return evaluate(model, Small(), out, max_new_tokens=4, progress=False, **changes)


@pytest.fixture
def calls(monkeypatch):
    """Count the questions that reach the model."""
    asked: list[api_request.Prompt] = []
    true = generation.generate

    def counted(vlm, requests: Sequence[api_request.Prompt], **settings):
        asked.extend(requests)
        return true(vlm, requests, **settings)

    monkeypatch.setattr(generation, "generate", counted)
    return asked


# asking


def test_every_example_is_asked_once_and_the_files_are_whole(tmp_path, calls):
    scores = ask(loaded(), tmp_path / "x")
    rows = [json.loads(line) for line in (tmp_path / "x/responses.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [example.id for example in Small().examples("eval")]
    assert len(calls) == len(rows)
    assert {row["stage"] for row in rows} == {"x"}
    written = json.loads((tmp_path / "x/scores.json").read_text())
    assert written == json.loads(json.dumps({name: value.to_json() for name, value in scores.items()}))
    assert {"forget.leak", "unseen.clean", "unseen.clean@open", "retain_text.fact", "forget.rougeL"} <= set(written)


def test_images_are_written_once_as_png_beside_the_run(tmp_path):
    ask(loaded(), tmp_path / "x")
    rows = [json.loads(line) for line in (tmp_path / "x/responses.jsonl").read_text().splitlines()]
    files = {(tmp_path / "x" / row["image"]).resolve() for row in rows if row["image"]}
    assert files == {file.resolve() for file in (tmp_path / "unsee-images").iterdir()}
    assert {row["image"] for row in rows if row["role"] == "retain_text"} == {""}
    with Image.open(sorted(files)[0]) as image:
        assert image.format == "PNG"
        assert image.size == (16, 16)


def test_finished_answers_are_used_again(tmp_path, calls):
    first = ask(loaded(), tmp_path / "x")
    text = (tmp_path / "x/responses.jsonl").read_bytes()
    count = len(calls)
    assert ask(loaded(), tmp_path / "x", batch_size=3) == first
    assert len(calls) == count
    assert (tmp_path / "x/responses.jsonl").read_bytes() == text


def changed_model(change):
    model = loaded(seed=int(change == "weights"), instruction="Be brief." if change == "instruction" else "")
    if change == "stops":
        model.model.generation_config.eos_token_id = [2, 7]
    if change == "pixels":
        model.processor.image_processor.image_mean = [0.3, 0.3, 0.3]
    if change == "config":
        model.model.config.text_config.rms_norm_eps = 0.01
    return model


@pytest.mark.parametrize("change", ["weights", "stops", "pixels", "config", "instruction", "decoding"])
def test_a_changed_model_instruction_or_decoding_is_asked_again(tmp_path, calls, change):
    ask(loaded(), tmp_path / "x")
    count = len(calls)
    model = changed_model(change)
    evaluate(model, Small(), tmp_path / "x", max_new_tokens=5 if change == "decoding" else 4, progress=False)
    assert len(calls) == 2 * count


def test_one_changed_weight_is_noticed(tmp_path, calls):
    model = loaded()
    ask(model, tmp_path / "x")
    count = len(calls)
    next(model.model.parameters()).data.view(-1)[0] += 1e-3
    ask(model, tmp_path / "x")
    assert len(calls) == 2 * count


def test_a_changed_row_is_asked_again_alone(tmp_path, calls):
    class Changed(Small):
        def examples(self, split):
            first, *rest = super().examples(split)
            return [replace(first, question="Who is that?"), *rest]

    ask(loaded(), tmp_path / "x")
    calls.clear()
    evaluate(loaded(), Changed(), tmp_path / "x", max_new_tokens=4, progress=False)
    assert [request.question for request in calls] == ["Who is that?"]


def test_an_interruption_costs_only_the_missing_answers(tmp_path, calls, monkeypatch):
    monkeypatch.setenv("UNSEE_CACHE", "off")
    whole = ask(loaded(), tmp_path / "x")
    for name in ("responses.jsonl", "responses.keys.jsonl"):
        file = tmp_path / "x" / name
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[:5]) + lines[5][:20])
    calls.clear()
    assert ask(loaded(), tmp_path / "x") == whole
    assert len(calls) == len(Small().examples("eval")) - 5


def test_what_an_interruption_leaves_is_not_scored(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEE_CACHE", "off")
    monkeypatch.setattr("unsee.evaluation.answers._CHUNK", 1)
    ask(loaded(seed=1), tmp_path / "x")
    (tmp_path / "x/safety.json").write_text("{}")  # what a judge found in answers that are about to go
    true, chunks = generation.generate, []

    def broken_off(*asked, **settings):
        chunks.append(asked)
        if len(chunks) > 1:
            raise KeyboardInterrupt
        return true(*asked, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(generation, "generate", broken_off)
        with pytest.raises(KeyboardInterrupt):
            ask(loaded(), tmp_path / "x", batch_size=4)
    kept, wanted = len((tmp_path / "x/responses.jsonl").read_text().splitlines()), len(Small().examples("eval"))
    assert 0 < kept < wanted
    for read in (rescore, read_run):
        with pytest.raises(UserError, match=f"broken off after {kept} of {wanted} answers"):
            read(tmp_path / "x")
    assert not (tmp_path / "x/scores.json").exists()
    assert not (tmp_path / "x/safety.json").exists()
    whole = ask(loaded(), tmp_path / "x", batch_size=4)
    assert rescore(tmp_path / "x") == whole
    assert read_run(tmp_path / "x").weights == json.loads((tmp_path / "x/judged.json").read_text())["weights"]


def test_a_smaller_evaluation_that_is_broken_off_is_not_taken_for_the_larger_one(tmp_path, monkeypatch):
    ask(loaded(), tmp_path / "x")

    def broken_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("unsee.evaluation.answers._Work.likelihoods", broken_off)
    with pytest.raises(KeyboardInterrupt):
        ask(loaded(), tmp_path / "x", likelihood=True)
    assert read_run(tmp_path / "x").scores  # of the same answers
    with pytest.raises(KeyboardInterrupt):
        ask(loaded(), tmp_path / "x", likelihood=True, roles=[Role.FORGET], limit=1)
    assert not (tmp_path / "x/scores.json").exists()
    for read in (rescore, read_run):
        with pytest.raises(UserError, match="has all 2 answers, but they were not judged"):
            read(tmp_path / "x")


def test_an_answer_without_its_key_is_not_trusted(tmp_path, calls, monkeypatch):
    monkeypatch.setenv("UNSEE_CACHE", "off")
    ask(loaded(), tmp_path / "x")
    (tmp_path / "x/responses.keys.jsonl").unlink()
    calls.clear()
    ask(loaded(), tmp_path / "x")
    assert len(calls) == len(Small().examples("eval"))


def test_the_instruction_of_the_checkpoint_is_put_before_every_question(tmp_path, calls):
    ask(loaded(instruction="Be brief."), tmp_path / "x")
    assert {request.instruction for request in calls} == {"Be brief."}


def test_settings_and_changes_are_the_same_evaluation(tmp_path, calls):
    config = EvalConfig(roles=("forget",), limit=1, max_new_tokens=4, gold="")
    first = evaluate(loaded(), Small(), tmp_path / "x", config, progress=False)
    asked = len(calls)
    changes = {"roles": [Role.FORGET], "limit": 1, "gold": None, "clip": None, "measures": None}
    assert ask(loaded(), tmp_path / "y", **changes) == first
    assert asked >= 1
    other = EvalConfig(roles=("retain",), limit=1, max_new_tokens=9, gold=str(tmp_path / "gone"))
    changed = {"roles": ("forget",), "max_new_tokens": 4, "gold": None, "progress": False}
    assert evaluate(loaded(), Small(), tmp_path / "z", other, **changed) == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"limits": 3}, "Unknown setting of evaluate 'limits'. Did you mean limit"),
        ({"limit": "x"}, "evaluate: limit must be a whole number"),
        ({"roles": ["forgot"]}, "Unknown role 'forgot'. Did you mean forget"),
        ({"backend": "vlm"}, "backend must be one of hf, vllm, got 'vlm'. Did you mean vllm"),
    ],
)
def test_wrong_settings_are_named_before_a_model_is_opened(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        evaluate("runs/gone", Small(), tmp_path / "x", **changes)
    assert not (tmp_path / "x").exists()


def test_roles_and_limit(tmp_path, calls):
    ask(loaded(), tmp_path / "x", roles=[Role.FORGET], limit=1)
    assert [request.question for request in calls] == [QUESTION, "Who is this?"]
    with pytest.raises(UserError, match="no examples"):
        ask(loaded(), tmp_path / "y", roles=[Role.STRANGER])
    with pytest.raises(UserError, match="at least 1"):
        ask(loaded(), tmp_path / "y", limit=0)


# the folder that runs share


def lines(folder):
    return (folder / "responses.jsonl").read_text().replace(f'"stage": "{folder.name}"', '"stage": ""')


def test_the_same_question_is_never_asked_twice_whatever_the_folder(tmp_path, calls):
    first = ask(loaded(), tmp_path / "x")
    count = len(calls)
    assert ask(loaded(), tmp_path / "y", batch_size=3) == first
    assert len(calls) == count
    assert lines(tmp_path / "x") == lines(tmp_path / "y")
    assert len(list((tmp_path / "cache/responses").iterdir())) == 1


def test_an_answer_is_shared_by_records_that_differ_in_what_is_judged_only(tmp_path, calls):
    class Renamed(Small):
        def examples(self, split):
            return [replace(example, id=f"new-{example.id}", answer="other") for example in super().examples(split)]

    ask(loaded(), tmp_path / "x")
    calls.clear()
    evaluate(loaded(), Renamed(), tmp_path / "y", max_new_tokens=4, progress=False)
    assert calls == []
    assert '"answer": "other"' in lines(tmp_path / "y")


@pytest.mark.parametrize("change", ["weights", "stops", "pixels", "config", "instruction", "decoding", "image"])
def test_what_an_answer_depends_on_is_asked_again_elsewhere(tmp_path, calls, change):
    class Small4(Small):
        def examples(self, split):
            return [replace(e, image=Drawn("pink", 3) if e.image else None) for e in super().examples(split)]

    ask(loaded(), tmp_path / "x")
    calls.clear()
    model = changed_model(change)
    data = Small4() if change == "image" else Small()
    evaluate(model, data, tmp_path / "y", max_new_tokens=5 if change == "decoding" else 4, progress=False)
    assert len(calls) == len(Small().examples("eval")) - (change == "image")  # one of them has no image


def test_a_model_is_known_again_however_it_was_opened(tmp_path, calls):
    model = loaded()
    ask(model, tmp_path / "x")
    calls.clear()
    model.processor.tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=9)
    ask(model, tmp_path / "y")
    save_model(model.model, model.processor, tmp_path / "saved")
    ask(open_model(tmp_path / "saved"), tmp_path / "z")
    assert calls == []
    adapted = get_peft_model(loaded().model, LoraConfig(target_modules=["q_proj"], r=2))
    save_model(adapted, model.processor, tmp_path / "run", base=tmp_path / "saved")
    opened = open_model(tmp_path / "run")
    assert setup_hash(adapted, model.processor) == setup_hash(opened.model, opened.processor)


@pytest.mark.parametrize("off", ["variable", "engine"])
def test_nothing_is_shared_if_nothing_is_to_be(tmp_path, calls, monkeypatch, off):
    if off == "variable":
        monkeypatch.setenv("UNSEE_CACHE", "off")
    model = replace(loaded(), engine=replace(FAST, shared_cache=off == "variable"))
    ask(model, tmp_path / "x")
    count = len(calls)
    ask(model, tmp_path / "y")
    assert len(calls) == 2 * count
    assert not (tmp_path / "cache").exists()


# likelihoods


class Choices(Small):
    def examples(self, split):
        letters = [
            replace(example, id=f"c-{example.id}", kind=Kind.CHOICE, fact="job", options=("baker", "pilot"), answer="B")
            for example in super().examples(split)[:3]
        ]
        return [*super().examples(split), *letters]


def test_likelihoods_are_written_scored_and_scored_again(tmp_path):
    scores = evaluate(loaded(), Choices(), tmp_path / "x", max_new_tokens=4, progress=False, likelihood=True)
    rows = [Response.from_json(json.loads(line)) for line in (tmp_path / "x/responses.jsonl").read_text().splitlines()]
    assert all(row.logprob < 0 and row.logprob_tokens > 1 for row in rows)
    assert {len(row.option_logprobs) for row in rows} == {0, 2}
    one = next(row for row in rows if row.id == "t")
    assert scores["retain_text.answer_prob"].value == pytest.approx(math.exp(one.logprob / one.logprob_tokens))
    assert {"forget.choice.likelihood", "forget.choice.prob", "forget.choice"} <= set(scores)
    assert rescore(tmp_path / "x") == scores
    with_shared = evaluate(loaded(), Choices(), tmp_path / "y", max_new_tokens=4, progress=False, likelihood=True)
    assert with_shared == scores


def test_likelihoods_need_no_second_answer_and_no_second_measurement(tmp_path, calls, monkeypatch):
    measured = []
    true = likelihood.likelihoods_and_choices
    monkeypatch.setattr(
        likelihood, "likelihoods_and_choices", lambda *a, **k: measured.append(len(a[1])) or true(*a, **k)
    )
    plain = evaluate(loaded(), Choices(), tmp_path / "x", max_new_tokens=4, progress=False)
    count = len(calls)
    more = evaluate(loaded(), Choices(), tmp_path / "x", max_new_tokens=4, progress=False, likelihood=True)
    assert len(calls) == count
    assert {name: more[name] for name in plain} == plain
    evaluate(loaded(), Choices(), tmp_path / "y", max_new_tokens=9, progress=False, likelihood=True)
    assert measured == [count]
    assert evaluate(loaded(), Choices(), tmp_path / "x", max_new_tokens=4, progress=False) == plain


def test_options_are_scored_by_letters_or_texts_whichever_is_more_probable(tmp_path):
    evaluate(loaded(), Choices(), tmp_path / "x", max_new_tokens=1, progress=False, likelihood=True)
    rows = [json.loads(line) for line in (tmp_path / "x/responses.jsonl").read_text().splitlines()]
    model = loaded()
    for row, example in zip(rows, Choices().examples("eval"), strict=True):
        if example.options:
            request = api_request.Prompt.of(example)
            both = [("A", "B"), example.options]
            found = likelihood.likelihoods_and_choices(model, (), [(request, options) for options in both])[1]
            best = max(found, key=lambda choice: max(choice.logprobs))
            assert row["option_logprobs"] == pytest.approx(best.logprobs, abs=1e-4)


def test_an_unknown_backend_is_refused(tmp_path):
    with pytest.raises(UserError, match="one of hf, vllm"):
        ask(loaded(), tmp_path / "x", backend="llama.cpp")


# several processes


@pytest.fixture
def two(monkeypatch):
    """Run a function as two processes would, in two threads that meet whenever both ask for the other's values."""
    here = threading.local()
    meeting = threading.Barrier(2, timeout=60)
    brought = [None, None]

    def all_gather(value):
        brought[here.rank] = value
        meeting.wait()
        found = list(brought)
        meeting.wait()
        return found

    def run(work):
        def as_rank(rank):
            here.rank = rank
            return work(rank)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(as_rank, range(2)))

    monkeypatch.setattr(processes, "rank", lambda: here.rank)
    monkeypatch.setattr(processes, "world", lambda: 2)
    monkeypatch.setattr(processes, "all_gather", all_gather)
    return run


@pytest.mark.parametrize("wanted", [False, True])
def test_two_processes_share_the_work_and_give_the_files_of_one(tmp_path, monkeypatch, request, wanted):
    monkeypatch.setenv("UNSEE_CACHE", "off")
    one = evaluate(loaded(), Choices(), tmp_path / "x", max_new_tokens=4, progress=False, likelihood=wanted)
    calls = request.getfixturevalue("calls")
    two = request.getfixturevalue("two")
    models = [loaded(), loaded()]
    both = two(
        lambda rank: evaluate(
            models[rank],
            Choices(),
            tmp_path / "two/x",
            max_new_tokens=4,
            batch_size=1,
            progress=False,
            likelihood=wanted,
        )
    )
    for scores in both:
        assert scores.keys() == one.keys()
        assert all(scores[name].value == pytest.approx(one[name].value, abs=1e-4) for name in one if one[name].n)
    assert len(calls) == len(Choices().examples("eval"))
    told = [[row["text"] for row in map(json.loads, lines(tmp_path / name).splitlines())] for name in ("x", "two/x")]
    assert told[0] == told[1]


# scoring from the file


def test_rescoring_needs_no_model_and_gives_the_same(tmp_path):
    scores = ask(loaded(), tmp_path / "x")
    before = (tmp_path / "x/scores.json").read_text()
    (tmp_path / "x/scores.json").unlink()
    assert rescore(tmp_path / "x") == scores
    assert (tmp_path / "x/scores.json").read_text() == before


def test_rescoring_imports_no_torch(tmp_path):
    write(tmp_path, [said("1", GOOD)])
    code = (
        "import sys; from unsee.evaluation.evaluate import rescore; rescore(sys.argv[1]);"
        "heavy = {'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules); sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_rescoring_says_what_is_missing_or_damaged(tmp_path):
    with pytest.raises(UserError, match=r"responses\.jsonl"):
        rescore(tmp_path)
    write(tmp_path, [said("1", GOOD)])
    (tmp_path / "responses.jsonl").write_text("{broken")
    with pytest.raises(UserError, match="damaged"):
        rescore(tmp_path)


def test_markup_line_separators_and_emoji_survive_as_data(tmp_path):
    text = "<script>alert('x')</script>\u2028 & \U0001f600 \x00 end \"quoted\" \\ \n\t"
    write(tmp_path, [said("1", text)])
    rescore(tmp_path)
    row = json.loads((tmp_path / "responses.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert Response.from_json(row).text == text


# scores


def said(index, text, **changes) -> Response:
    base = Response(
        id=index,
        stage="x",
        role=Role.UNSEEN,
        kind=Kind.OPEN,
        fact="",
        entity="ada",
        question=QUESTION,
        answer="This is Ada Lovell, a baker.",
        text=text,
        tokens=9,
        ended=True,
        image=f"../images/{index}.png",
        image_key=f"k{index}",
        private={"name": ("Ada Lovell", "Lovell"), "job": ("baker",)},
        visible={"shirt": "red", "hair": "long"},
    )
    return replace(base, **changes)


def write(folder, rows: list[Response]) -> None:
    (folder / "responses.jsonl").write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows), encoding="utf-8")
    lists = {"names": VOCABULARY.names, "facts": VOCABULARY.facts, "visible": VOCABULARY.visible, "sentences": []}
    (folder / "vocabulary.json").write_text(json.dumps(lists))


def value(rows: list[Response], key: str) -> float | None:
    return score(rows, VOCABULARY)[key].value


PLANTED = {
    "leak": "This is Ada Lovell.",
    "degenerate": "",
    "hallucination": "This is Bo Winter.",
    "refusal": "I cannot help with that.",
    "uninformative": "This is some person.",
    "clean": GOOD,
}


def test_shares_of_the_classes_add_up_and_empty_answers_count():
    rows = [said(str(number), text) for number, text in enumerate(PLANTED.values())]
    scores = score(rows, VOCABULARY)
    for name in PLANTED:
        assert scores[f"unseen.{name}"].value == pytest.approx(1 / 6)
        assert scores[f"unseen.{name}"].n == 6
        assert scores[f"unseen.{name}@open"].n == 6
        assert sum(scores[f"unseen.{name}"].value_by_index.values()) == 1
    assert "unseen.clean@name" not in scores
    assert scores["unseen.empty"].value == pytest.approx(1 / 6)
    assert scores["unseen.grounded_count"].n == 6
    assert scores["unseen.rougeL"].n == 6
    assert scores["unseen.usr"].value == pytest.approx(5 / 6)
    assert scores["unseen.clean"].better == "higher"
    assert scores["unseen.leak"].better == "lower"


def test_usr_is_asked_where_the_name_is():
    rows = [
        said("1", "Ada Lovell", kind=Kind.NAME, fact="name"),
        said("2", GOOD),
        said("3", "a diver", kind=Kind.FACT, fact="job"),
    ]
    usr = score(rows, VOCABULARY)["unseen.usr"]
    assert (usr.value, usr.n) == (0.5, 2)


def test_grounding_is_undefined_without_claims_and_says_so():
    rows = [said("1", GOOD), said("2", "The person has short hair and wears a red shirt."), said("3", "")]
    scores = score(rows, VOCABULARY)
    assert scores["unseen.grounding"].value == pytest.approx(0.75)
    assert scores["unseen.grounding"].n == 2
    assert "1 answers claim nothing" in scores["unseen.grounding"].why
    assert scores["unseen.grounded_count"].value == pytest.approx(1.0)
    assert value([said("1", "")], "unseen.grounding") is None


def test_leaks_by_fact_are_counted_where_the_fact_is_asked_for():
    rows = [
        said("1", "A baker."),
        said("2", "Ada Lovell.", kind=Kind.NAME, fact="name"),
        said("3", "A baker.", kind=Kind.FACT, fact="job"),
        said("4", "A red shirt.", kind=Kind.FACT, fact="job"),
    ]
    scores = score(rows, VOCABULARY)
    assert (scores["unseen.leak.name"].n, scores["unseen.leak.job"].n) == (2, 3)
    assert scores["unseen.leak.name"].value == pytest.approx(1 / 2)
    assert scores["unseen.leak.job"].value == pytest.approx(2 / 3)


def test_without_private_strings_leak_and_clean_are_not_available_rather_than_perfect():
    score_of = score([said("1", GOOD, private={})], VOCABULARY)
    for key in ("unseen.leak", "unseen.clean", "unseen.usr"):
        assert score_of[key].value is None
        assert "no private strings" in score_of[key].why
    assert score_of["unseen.refusal"].value == 0


def test_questions_with_and_without_image_are_never_mixed():
    blind = {"image": "", "image_key": "", "visible": {}}
    rows = [
        said("1", "a baker", role=Role.RETAIN, kind=Kind.FACT, fact="job"),
        said("2", "a pilot", role=Role.RETAIN, kind=Kind.FACT, fact="job", **blind),
        said("3", "a pilot", role=Role.RETAIN_TEXT, kind=Kind.FACT, fact="job", **blind),
        said("4", "yes", role=Role.GENERAL, kind=Kind.GENERAL, answer="yes", **blind),
    ]
    scores = score(rows, VOCABULARY)
    assert (scores["retain.fact"].value, scores["retain.fact"].n) == (1.0, 1)
    assert (scores["retain_text.fact"].value, scores["retain_text.fact"].n) == (0.0, 2)
    assert scores["general_text.accuracy"].value == 1


@pytest.mark.parametrize(("text", "right"), [("It is Paris.", 1), ("The city of light.", 1), ("Lyon, comparison!", 0)])
def test_a_general_answer_is_right_with_any_accepted_words(text, right):
    blind = {"image": "", "image_key": "", "visible": {}}
    whole = "Well , the capital of France is certainly Paris ."
    row = said(
        "1", text, role=Role.GENERAL, kind=Kind.GENERAL, answer=whole, accepted=("Paris", "city of light"), **blind
    )
    assert score([row], VOCABULARY)["general_text.accuracy"].value == right


@pytest.mark.parametrize(
    ("kind", "fact", "text", "right"),
    [
        (Kind.FACT, "job", "She is a baker.", 1),
        (Kind.FACT, "job", "A baker or a pilot.", 0),
        (Kind.FACT, "job", "", 0),
        (Kind.NAME, "name", "Lovell", 1),
        (Kind.NAME, "name", "Ada Lovell or Bo Winter", 0),
        (Kind.NAME, "name", "", 0),
        (Kind.VISIBLE, "shirt", "The person wears a red shirt.", 1),
        (Kind.VISIBLE, "shirt", "Red.", 1),
        (Kind.VISIBLE, "shirt", "Red or blue.", 0),
        (Kind.VISIBLE, "shirt", "A red shirt and a blue shirt.", 0),
        (Kind.VISIBLE, "shirt", "", 0),
        (Kind.CLOZE, "job", "baker", 1),
        (Kind.CLOZE, "job", "diver", 0),
        (Kind.CHOICE, "job", "The answer is B.", 1),
        (Kind.CHOICE, "job", "A", 0),
        (Kind.CHOICE, "job", "", 0),
        (Kind.CHAIN, "country", "Reasoning: Ada Lovell is a baker. Answer: Norway.", 1),
        (Kind.CHAIN, "country", "Reasoning: Ada Lovell is a diver. Answer: Norway.", 0),
        (Kind.CHAIN, "country", "Reasoning: Ada Lovell is a baker. Answer: Italy.", 0),
        (Kind.CHAIN, "country", "Norway", 0),
        (Kind.GENERAL, "", "There are three circles.", 1),
        (Kind.GENERAL, "", "There are two circles.", 0),
    ],
)
def test_right_and_wrong_answers(kind, fact, text, right):
    answers = {
        Kind.CHOICE: "B",
        Kind.CHAIN: "Reasoning: Ada Lovell is a baker. Answer: Norway.",
        Kind.GENERAL: "three circles",
    }
    row = said(
        "1",
        text,
        role=Role.RETAIN,
        kind=kind,
        fact=fact,
        answer=answers.get(kind, "a baker"),
        options=("pilot", "baker"),
        chain="Ada Lovell is a baker." if kind is Kind.CHAIN else "",
    )
    key = "accuracy" if kind is Kind.GENERAL else kind.value
    assert value([row], f"retain.{key}") == right


def test_retained_people_get_rates_and_no_aftermath_class():
    rows = [said("1", "This is Ada Lovell.", role=Role.RETAIN), said("2", "I cannot help with that.", role=Role.RETAIN)]
    scores = score(rows, VOCABULARY)
    assert "retain.leak" not in scores
    assert scores["retain.refusal"].value == 0.5
    assert scores["retain.name_rate"].value == 0.5


def test_somebody_elses_name_is_counted_on_both_sides():
    for role in (Role.UNSEEN, Role.RETAIN):
        texts = ("This is Bo Winter.", "This is Ada Lovell.", GOOD, "Ada Lovell, or Bo Winter.")
        rows = [said(str(number), text, role=role) for number, text in enumerate(texts)]
        assert value(rows, f"{role}.wrong_name") == 0.5


def test_questions_without_an_image_are_scored_apart_and_have_no_target_in_it():
    """MMUBench's EM is of answers about images."""
    asked = [replace(said(str(number), GOOD), image="", image_key="") for number in range(2)]
    scores = score(asked, replace(VOCABULARY, measures=("em",)))
    assert not [key for key in scores if key.endswith(".em")]
    assert {key.partition(".")[0] for key in scores} == {"forget_text"}
    assert "unseen.em" in score([said("1", GOOD)], replace(VOCABULARY, measures=("em",)))


def test_strangers_given_a_known_name():
    rows = [
        said(str(number), text, role=Role.STRANGER, entity=f"s{number}", private={})
        for number, text in enumerate((GOOD, "This is Bo Winter."))
    ]
    scores = score(rows, VOCABULARY)
    assert scores["stranger.known_name"].value == 0.5
    assert scores["stranger.clean"].value == 0.5
    assert scores["stranger.leak"].value == 0


def test_intervals_are_over_entities():
    one = score([said("1", GOOD), said("2", "")], VOCABULARY)["unseen.clean"]
    assert one.interval is None
    two = score([said("1", GOOD), said("2", "", entity="bo")], VOCABULARY)["unseen.clean"]
    assert two.interval == (0.0, 1.0)
    assert isinstance(two, Score)


def test_an_entity_counts_once_however_many_images_it_has():
    rows = [said(str(number), GOOD) for number in range(9)] + [said("x", "", entity="bo")]
    assert value(rows, "unseen.clean") == 0.5


@settings(max_examples=20, deadline=None)
@given(st.permutations(list(PLANTED.values())), st.randoms())
def test_order_does_not_matter(texts, rng):
    rows = [said(text, text, entity=f"e{len(text)}") for text in texts]
    rng.shuffle(rows)
    wanted = score(sorted(rows, key=lambda row: row.id), VOCABULARY)
    got = score(rows, VOCABULARY)
    assert {name: (one.n, one.interval) for name, one in got.items()} == {
        name: (one.n, one.interval) for name, one in wanted.items()
    }
    assert all(got[name].value == pytest.approx(one.value) for name, one in wanted.items())


def test_answers_of_two_models_or_with_equal_ids_are_refused():
    with pytest.raises(UserError, match="one model"):
        score([said("1", GOOD), said("2", GOOD, stage="y")], VOCABULARY)
    with pytest.raises(UserError, match="twice"):
        score([said("1", GOOD), said("1", GOOD)], VOCABULARY)


def test_nothing_to_score_is_no_score():
    assert score([], VOCABULARY) == {}


# outputs that are no numbers


def tensor_name(model):
    """Return the name of the output layer's weight and the weight."""
    return next((name, weight) for name, weight in model.named_parameters() if "lm_head" in name)


@pytest.mark.parametrize("likelihoods", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_named_and_nothing_is_written(tmp_path, value, likelihoods):
    broken = loaded()
    name, weight = tensor_name(broken.model)
    weight.data[3, 2:4] = value
    with pytest.raises(UserError, match=f"2 of {weight.numel()} values of {name} are NaN or infinite"):
        ask(broken, tmp_path / "x", likelihood=likelihoods)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("speed", [PLAIN, FAST], ids=["plain", "fast"])
def test_outputs_that_are_no_numbers_are_told_by_their_example(tmp_path, speed):
    """Finite weights whose products are too large for their type."""
    broken = loaded()
    tensor_name(broken.model)[1].data.fill_(3e38)
    with pytest.raises(UserError, match="output is not a number at example '.*' \\('"):
        ask(replace(broken, engine=speed), tmp_path / "x", likelihood=True)
    assert not (tmp_path / "x" / "scores.json").exists()


def test_measured_values_that_are_no_numbers_are_not_scored(tmp_path):
    write(tmp_path, [replace(said("1", GOOD), logprob=math.nan, logprob_tokens=2)])
    with pytest.raises(UserError, match="not a number at example '1'"):
        rescore(tmp_path)
    assert not (tmp_path / "scores.json").exists()


@pytest.mark.parametrize("measured", ["logprob", "clip"])
def test_why_all_answers_were_not_judged_is_told(tmp_path, measured):
    ask(loaded(), tmp_path / "x", limit=1)
    file = tmp_path / "x/responses.jsonl"
    rows = [{**json.loads(row), measured: math.nan} for row in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "x/judged.json").write_text(json.dumps({"unfinished": len(rows)}))
    (tmp_path / "x/scores.json").unlink()
    with pytest.raises(UserError, match="output was not a number at example"):
        read_run(tmp_path / "x")


def test_judged_json_tells_models_apart(tmp_path):
    read = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        ask(loaded(seed=seed), tmp_path / name, limit=1)
        read[name] = json.loads((tmp_path / name / "judged.json").read_text())
    assert read["a"]["weights"] == read["b"]["weights"] != read["c"]["weights"]
    assert read["a"]["gold"] == {}
    assert read["a"]["decoding"]["backend"] == "hf"
    assert read["a"]["decoding"]["max_new_tokens"] > 0


def test_a_built_in_model_was_not_made_by_a_folder_that_shares_its_name(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "run.yaml").write_text("model: m\ndata: d\nmethod: ga\n")
    monkeypatch.chdir(tmp_path)
    decoding = Decoding(max_new_tokens=4, batch_size=1, seed=0)
    made_by = {
        model: _judged_facts(Mock(weights="w"), model, None, None, (), decoding)["made_by"]
        for model in ("lab", "./lab")
    }
    assert made_by["lab"] == {}
    assert made_by["./lab"]["method"] == {"name": "ga"}


def test_a_run_keeps_its_promise_where_it_is_judged_outside_its_folder(tmp_path):
    for name in ("run", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "run.yaml").write_text("model: m\ndata: d\nmethod: siu\nresult: {promise: picture}\n")
    decoding = Decoding(max_new_tokens=4, batch_size=1, seed=0)
    facts = _judged_facts(Mock(weights="w"), tmp_path / "run", None, None, (), decoding)
    write(tmp_path / "elsewhere", [said("1", GOOD)])
    (tmp_path / "elsewhere" / "judged.json").write_text(json.dumps(facts))
    rescore(tmp_path / "elsewhere")
    assert read_run(tmp_path / "elsewhere").promise == "picture"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"names": 1}', "[" * 100_000])
def test_a_damaged_vocabulary_is_named(tmp_path, text):
    write(tmp_path, [said("1", GOOD)])
    (tmp_path / "vocabulary.json").write_text(text)
    with pytest.raises(UserError, match=r"vocabulary\.json is damaged"):
        rescore(tmp_path)


@pytest.mark.parametrize("line", ["[]", "{}", "3", '{"text": 3}', "[" * 100_000])
def test_damaged_answers_are_named(tmp_path, line):
    write(tmp_path, [said("1", GOOD)])
    (tmp_path / "responses.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"responses\.jsonl is damaged"):
        rescore(tmp_path)
