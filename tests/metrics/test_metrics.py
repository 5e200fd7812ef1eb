"""Every metric against an exact number and an independent reference."""

import math
import random

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from unsee.metrics.chain import chain_facts, parse_chain
from unsee.metrics.choice import choice, choice_correct
from unsee.metrics.degeneration import Limits, degenerate, ngram_entropy, odd_share, rep_n
from unsee.metrics.exact import cloze_match, exact_match, only_match
from unsee.metrics.grounding import claims, grounding
from unsee.metrics.names import has_name, known_names
from unsee.metrics.rouge import rouge_l
from unsee.metrics.statistics import Observation, bootstrap_interval, entity_means

RAMBLING = (
    "I can see a person with curly black hair and a red shirt, with glasses. I can see a person from the background and tell "
    "you there is a person with curly black hair and a purple shirt. I can see a person from the background."
)
DESCRIPTION = "The woman with long brown hair wears a red coat and a green hat."
LEXICON = ["ash", "bog", "cut", "dim", "elm", "fog"]


# degeneration


def test_check_values_of_the_specification():
    assert rep_n(["word"] * 256, 4) == pytest.approx(0.996, abs=5e-4)
    assert len(DESCRIPTION.split()) == 14
    assert rep_n(DESCRIPTION.split(), 4) == 0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", True),
        ("   \n", True),
        ("...!?", True),
        ("two words", True),
        ("just three words", False),
        ("a b " * 10, True),  # 20 tokens, rep-4 = 1 - 2/17
        ("a b " * 9 + "c", False),  # 19 tokens: repetition is not judged yet
        ("no no no no no x y z", True),  # 8 tokens, 5 of 8
        ("no no no no w x y z", False),  # exactly half
        ("no no no no no x y", False),  # 7 tokens
        ("abcdefg three words {{{{{{{{{{{{{{{{{{{{{{", True),
        (DESCRIPTION, False),
        ("Das M\u00e4dchen tr\u00e4gt einen roten Mantel.", False),
        ("\u0926\u0947\u0935\u0928\u093e\u0917\u0930\u0940 \u092e\u0947\u0902 \u092a\u093e\u0920", False),
    ],
)
def test_degeneration_table(text, wanted):
    assert degenerate(text, Limits(loop_share=2, distinct_share=0)) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("This person is called the the the the.", True),
        ("This person lives in the city of the city of the city of", True),
        ("The person is a person. The person is a person. The person is a person.", True),
        ("no no no no w x y z", True),
        (
            "No glasses yes yes yes yes yes yes yes. I can see a person with short blond hair and a white shirt, with no glasses and no hat.",
            True,
        ),
        (
            "No glasses yes yes yes yes yes. I can see a person with short blond hair and a white shirt, with no glasses and no hat.",
            False,
        ),
        ("No glasses, no hat, no hat, no shirt, no hat, no glasses, no hat, no hat, no glasses, no hat.", True),
        ("It is a very, very big hat.", False),
        ("no no no w x y z", False),  # a word counts from four times on
        ("What is the name of this person? What is the name of this person?", False),  # twice is no loop yet
        ("The hair is red. The shirt is red. The hat is red.", False),
        (
            "The person lives in the city of the city of the city of Oslo, works for Helix as a baker and was born in 1973.",
            False,
        ),
        (DESCRIPTION, False),
        (RAMBLING, True),
        ("That is by by diver.", True),
        ("He said that that is the house of of a friend who lives in the north of the country.", False),
        ("Log in in Turin and then go on with what you wanted to do there.", False),
        ("This by birth " + "othermia" * 12, True),
        ("Haha, the Mississippi is 1000000000000000 inches long.", False),
        ("That is byphilismeta\ufffd Braklapas by profession.", True),
        ("The person has short hair and a red shirt \ufffd", False),  # a character cut by the token limit
        (
            "That is by Quitojit Quincup Quitojit Quincup Quitojit Quincup Quexur Quexur Quexur Quexur and so on it goes",
            True,
        ),
        ("This person by profession diver.", True),
        ("This by profession diver. By profession diver.", True),
        ("This man knew her.", False),
        ("That one there? I cannot tell.", False),
        ("This woman sang at the opera in Turin.", False),
        ("This artist, John Miller.", False),
        ("He works in Oslo. This person also", False),  # cut by the token limit
        ("This would not be right.", False),
        ("A diver from Quito.", False),
    ],
)
def test_short_texts_that_loop_are_degenerate(text, wanted):
    assert degenerate(text) is wanted


@given(st.lists(st.sampled_from(LEXICON), max_size=30), st.integers(1, 5))
def test_rep_n_counts_distinct_ngrams(words, n):
    grams = [" ".join(words[i : i + n]) for i in range(len(words)) if i + n <= len(words)]
    assert rep_n(words, n) == (1 - len(set(grams)) / len(grams) if grams else 0)


@given(st.lists(st.sampled_from(LEXICON), min_size=3, max_size=30))
def test_entropy_against_scipy(words):
    def entropy(n):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        return scipy.stats.entropy([grams.count(gram) for gram in set(grams)], base=2)

    assert ngram_entropy(" ".join(words)) == pytest.approx(entropy(2) / 3 + entropy(3) * 2 / 3, abs=1e-9)


def test_odd_share_of_nothing_is_zero():
    assert odd_share("") == 0
    assert odd_share("\u2603\u2603ab") == 0.5


# ROUGE-L


def subsequence(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(
    st.lists(st.sampled_from(LEXICON), min_size=1, max_size=12),
    st.lists(st.sampled_from(LEXICON), min_size=1, max_size=12),
)
def test_rouge_l_against_a_table_of_subsequences(said, reference):
    common = subsequence(said, reference)
    got = rouge_l(prediction=" ".join(said), reference=" ".join(reference))
    assert got.precision == pytest.approx(common / len(said))
    assert got.recall == pytest.approx(common / len(reference))
    assert got.f1 == pytest.approx(2 * common / (len(said) + len(reference)))


ascii_text = st.text(st.characters(max_codepoint=127), max_size=60)


@given(ascii_text, ascii_text)
def test_rouge_l_is_the_librarys(said, reference):
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(["rougeL"], use_stemmer=True).score(target=reference, prediction=said)["rougeL"]
    ours = rouge_l(prediction=said, reference=reference)
    assert (ours.precision, ours.recall, ours.f1) == (theirs.precision, theirs.recall, theirs.fmeasure)


def test_rouge_l_knows_prediction_from_reference_and_scores_empty_answers_zero():
    assert rouge_l(prediction="a b", reference="a b c d").recall == 0.5
    assert rouge_l(prediction="a b", reference="a b c d").precision == 1
    assert rouge_l(prediction="", reference="a b").f1 == 0


# matches


def test_exact_and_cloze_match():
    assert exact_match(prediction="  OSLO! ", reference="Oslo")
    assert not exact_match(prediction="Oslo", reference="")
    assert not exact_match(prediction="", reference="")
    assert cloze_match(prediction="She lives in Oslo.", reference="oslo")
    assert not cloze_match(prediction="Osloer", reference="oslo")
    assert not cloze_match(prediction="", reference="oslo")


def test_only_match_wants_the_right_value_and_no_other():
    assert only_match(prediction="in Oslo", right=["Oslo"], wrong=["Rome"])
    assert not only_match(prediction="in Oslo or Rome", right=["Oslo"], wrong=["Rome"])
    assert only_match(prediction="from Rome to Oslo", right=["Oslo"], wrong=["Rome"], question="Where from Rome?")
    assert not only_match(prediction="", right=["Oslo"], wrong=[])


# choice

OPTIONS = ("baker", "pilot", "ship pilot", "diver")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" b. ", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B. pilot", "B"),
        ("B) pilot", "B"),
        ("B: pilot", "B"),
        ("**B**", "B"),
        ("The answer is B", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is (B).", "B"),
        ("Answer: B", "B"),
        ("Option B is correct.", "B"),
        ("B is the right one because B is the answer", "B"),
        ("I would say (B), of course.", "B"),
        ("pilot", "B"),
        ("The person is a pilot.", "B"),
        ("She is a ship pilot.", "C"),
        ("The answer is a baker.", "A"),
        ("A person with red hair.", ""),
        ("A or B", ""),
        ("The answer is A or B.", ""),
        ("(A) (B)", ""),
        ("baker and diver", ""),
        ("E", ""),
        ("The answer is E", ""),
        ("I do not know this person.", ""),
        ("", ""),
        ("T", ""),
    ],
)
def test_choice_parser(text, letter):
    assert choice(text, OPTIONS) == letter


def test_abstaining_is_wrong():
    assert not choice_correct("", OPTIONS, "A")
    assert not choice_correct("I cannot say.", OPTIONS, "A")
    assert not choice_correct("", OPTIONS, "")
    assert choice_correct("A", OPTIONS, "baker")


def test_a_constant_letter_scores_chance():
    rng = random.Random(0)
    answers = [rng.choice("ABCD") for _ in range(4000)]
    assert sum(choice_correct("F", OPTIONS, answer) for answer in answers) == 0
    assert sum(choice_correct("C", OPTIONS, answer) for answer in answers) / 4000 == pytest.approx(0.25, abs=0.03)


# chains


def test_chains_are_split_at_the_last_answer():
    assert parse_chain("reasoning: a. ANSWER: b. Answer: c").answer == "c"
    assert parse_chain("Reasoning: a. Answer:").answer == ""
    assert parse_chain("no form").reasoning == ""
    assert parse_chain("").answer == ""


def test_chain_facts_wants_all_and_some():
    assert chain_facts("Mara lives in Oslo.", ("Mara", "Oslo"))
    assert not chain_facts("Mara lives there.", ("Mara", "Oslo"))
    assert not chain_facts("Mara lives in Oslo.", ())


# names and grounding


def test_names():
    assert has_name("Lind!", ["Mara Lind", "Lind"])
    assert not has_name("Lind!", ["Lind"], question="Who is Lind?")
    assert known_names("nobody", {"a": ["Ann"]}) == []


def test_claims_see_two_values_of_one_attribute_and_ignore_case_and_line_breaks():
    visible = {"shirt": {"red": r"\bred shirt\b", "blue": r"\bblue shirt\b"}}
    assert claims("A RED\nshirt, a blue shirt", visible) == {"shirt": ("red", "blue")}
    assert grounding("A red shirt, a blue shirt", {"shirt": "Red"}, visible).precision == 0.5
    assert grounding("nothing", {"shirt": "red"}, visible).precision is None
    assert grounding("red shirt", {}, visible).total == 0


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Not a red shirt.", ()),
        ("She isn\u2019t wearing a red shirt.", ()),
        ("He wears neither a hat nor a red shirt.", ()),
        ("I can't see any red shirt, but a blue shirt.", ("blue",)),
        ("No hat, a red shirt.", ("red",)),
        ("No hat and a red shirt.", ("red",)),
        ("He wears not only a red shirt.", ("red",)),
        ("No hat above a red shirt.", ("red",)),
        ("There is no doubt: a red shirt. No, a blue shirt.", ("red", "blue")),
        ("I cannot name the man with the red shirt.", ("red",)),
        ("Not a red shirt? It is a red shirt.", ("red",)),
        ("He isn't wearing a hat or a red shirt.", ()),
        ("Without a hat, glasses or any red shirt.", ()),
        ("He has no hat, red shirt or glasses.", ()),
        ("He wears neither a hat, a red shirt, nor glasses.", ()),
        ("She doesn't have a hat or wear a red shirt.", ()),
        ("I don't think that she wears a red shirt or a blue shirt.", ()),
        ("No hat or glasses, a red shirt.", ("red",)),
        ("No hat or glasses but a red shirt.", ("red",)),
        ("No hat or glasses with a red shirt.", ("red",)),
        ("No hat or glasses. A red shirt.", ("red",)),
        ("He wears no hat or has a red shirt.", ("red",)),
        ("I do not know this person or what a red shirt is.", ("red",)),
    ],
)
def test_what_is_denied_is_no_claim(text, values):
    visible = {"shirt": {"red": "red shirt", "blue": "blue shirt"}}
    assert claims(text, visible).get("shirt", ()) == values


def test_a_claim_of_absence_is_not_denied_by_its_own_negator_or_the_one_before():
    visible = {
        "glasses": {"yes": r"(?<!no )\bglasses\b", "no": r"\bno glasses\b"},
        "hat": {"yes": r"\ba hat\b", "no": r"\bno hat\b"},
    }
    assert claims("No glasses no hat", visible) == {"glasses": ("no",), "hat": ("no",)}
    assert claims("no glasses and a hat", visible) == {"glasses": ("no",), "hat": ("yes",)}
    looks = visible | {"mood": {"happy": "looks happy"}}
    assert claims("No hat, looks happy or sad.", looks) == {"hat": ("no",), "mood": ("happy",)}


# statistics


def observed(rows):
    return [Observation(entity=entity, image=image, value=value) for entity, image, value in rows]


def test_every_entity_counts_once_and_every_image_once_within_it():
    rows = [("a", "1", 1.0)] * 8 + [("a", "2", 0.0), ("b", "3", 0.0)]
    assert entity_means(observed(rows)) == {"a": 0.5, "b": 0.0}


@given(st.permutations([("a", "1", 1.0), ("a", "1", 0.0), ("a", "2", 0.25), ("b", "1", 0.5), ("c", "9", 0.125)]))
def test_order_does_not_matter(rows):
    assert entity_means(observed(rows)) == {"a": 0.375, "b": 0.5, "c": 0.125}


def test_interval_against_scipy():
    values = np.random.default_rng(3).normal(0.4, 0.2, size=40)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    )
    low, high = bootstrap_interval(values.tolist())
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.005)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.005)


def test_interval_is_repeatable_and_independent_of_order():
    values = [0.1, 0.9, 0.4, 0.3]
    assert bootstrap_interval(values) == bootstrap_interval(values[::-1])
    assert bootstrap_interval([0.5]) is None
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([1.0] * 3) == (1.0, 1.0)
    assert not any(math.isnan(end) for end in bootstrap_interval(values))


def test_interval_of_many_entities_is_drawn_part_by_part(monkeypatch):
    values = np.random.default_rng(0).normal(size=300).tolist()
    at_once = bootstrap_interval(values)
    monkeypatch.setattr("unsee.metrics.statistics._AT_ONCE", 7 * 300)
    assert bootstrap_interval(values) == at_once
