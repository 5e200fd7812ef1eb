"""MMUBench metrics (arXiv 2405.12523), and the defects of the released scripts (docs/defects.md 13, 68, 74)."""

from __future__ import annotations

import math

import pytest

from unsee.api import Kind, Response, Role, Vocabulary
from unsee.errors import UserError
from unsee.metrics.mmubench import c_dis, diversity, fluency, pair_images, strip_targets, target_gone
from unsee.scoring.aggregate import score


def test_targets_with_blanks_are_stripped_counted_and_hit():
    """The released file has " yes", " yes " and " yes trump", which unstripped never match (docs/defects.md 13)."""
    clean, touched = strip_targets(["yes", " yes", " yes ", " yes trump", "trump"])
    assert clean == ["yes", "yes", "yes", "yes trump", "trump"]
    assert touched == 3
    assert not target_gone("Yes, it is", [" yes"])
    assert not target_gone("yes", ["yes "])


def test_targets_are_whole_words_in_any_spelling():
    assert target_gone("He left yesterday.", ["yes"])
    assert not target_gone("It is TRUMP!", ["trump"])
    said = ["Mr Trump", "The Donald", "A man"]
    assert [target_gone(text, ["Donald Trump", "Trump"]) for text in said] == [False, True, True]


def test_prompts_and_images_are_paired_in_turn_or_all_with_all():
    assert pair_images("abc", "xy") == [("a", "x"), ("b", "y"), ("c", "x")]
    assert len(pair_images("abc", "xy", "product")) == 6
    assert pair_images("abc", "") == []


def test_c_dis_is_a_divergence():
    """0 for equal models, never negative, however small the probabilities (docs/defects.md 74)."""
    values = [0.0, 1e-12, 0.3, 0.999, 1.0]
    assert c_dis(values, values) == 0.0
    for p in values:
        for q in values:
            assert 0 <= c_dis([p], [q]) < 24
    by_hand = 0.8 * math.log(0.8 / 0.3) + 0.2 * math.log(0.2 / 0.7)
    assert c_dis([0.8, 0.8], [0.3, 0.3]) == pytest.approx(by_hand)
    with pytest.raises(UserError, match="at least one token"):
        c_dis([], [])


def test_fluency_is_the_perplexity_of_the_answer_without_the_name():
    """The teacher's answer decides, the name does not (docs/defects.md 68)."""
    logprobs, concept = [math.log(0.5), math.log(0.25), math.log(1e-9)], [False, False, True]
    assert fluency(logprobs, concept) == pytest.approx(math.exp(-(math.log(0.5) + math.log(0.25)) / 2))
    assert fluency([*logprobs[:2], -1.0], concept) == fluency(logprobs, concept)
    assert fluency([-3.0, *logprobs[1:]], concept) != fluency(logprobs, concept)
    uniform = math.exp(-(math.log(0.5) + math.log(0.25) - math.log(100)) / 3)
    assert fluency(logprobs, concept, "uniform", vocabulary=100) == pytest.approx(uniform)
    assert fluency([-1.0], [True]) is None
    with pytest.raises(UserError, match="size of the vocabulary"):
        fluency(logprobs, concept, "uniform")


def test_diversity_counts_distinct_words_and_empty_outputs():
    assert diversity(["yes yes yes yes"]) == 25.0
    assert diversity(["a red dog", ""]) == 50.0
    assert diversity(["ab ab"], "characters") == 50.0
    assert diversity([]) is None


def response(number, role, image, text, question="Who is this?"):
    return Response(
        id=str(number), stage="siu", role=role, kind=Kind.NAME, fact="name", entity="c", question=question, answer="Donald Trump",
        text=text, tokens=4, ended=True, image_key=image, private={"name": ("Donald Trump", "Trump")},
    )  # fmt: skip


def test_responses_count_by_role():
    """Efficacy: training images; generality: unseen images; a name in the question is no target, silence has none of it."""
    rows = [
        response(0, Role.FORGET, "train", "This is Jacob Campbell."),
        response(1, Role.FORGET, "other", "Trump"),
        response(2, Role.UNSEEN, "u1", "Trump"),
        response(3, Role.UNSEEN, "u2", ""),
        response(4, Role.FORGET_TEXT, "", "Trump"),
        response(5, Role.RETAIN, "r", "Trump"),
        response(6, Role.UNSEEN, "u3", "No, Trump is not there.", "Is Donald Trump in the picture?"),
    ]
    found = score(rows, Vocabulary(measures=("em", "diversity")))
    assert found["forget.em"].value_by_index == {"0": 1.0, "1": 0.0}
    assert found["unseen.em"].value_by_index == {"2": 0.0, "3": 1.0}
    assert found["unseen.empty"].value_by_index["3"] == 1.0
    assert found["unseen.diversity"].value_by_index == {"2": 100.0, "3": 0.0}
    assert not {"retain.em", "forget_text.em"} & found.keys()
