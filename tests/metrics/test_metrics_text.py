"""BLEU, ROUGE-1/2 and CLIPScore against independent references."""

import math
from collections import Counter

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from unsee.api import Kind, Response, Role, Vocabulary
from unsee.metrics.bleu import bleu, bleu_released
from unsee.metrics.clip import clip_score
from unsee.metrics.rouge import rouge_l, rouge_n
from unsee.scoring.aggregate import score

WORDS = st.lists(st.sampled_from(["ash", "bog", "cut", "dim", "elm"]), max_size=9).map(" ".join)


def slow_bleu(prediction, reference):
    """Papineni's formula for one pair, orders up to the prediction's length, zero counts halved once more each time."""
    said, wanted = prediction.split(), reference.split()
    if not said or not wanted:
        return 0.0
    logs, smooth = [], 1.0
    for n in range(1, 5):
        grams = Counter(tuple(said[i : i + n]) for i in range(len(said) - n + 1))
        known = Counter(tuple(wanted[i : i + n]) for i in range(len(wanted) - n + 1))
        if not grams:
            break
        hits = sum((grams & known).values())
        if not hits:
            smooth *= 2
        logs.append(math.log(hits / sum(grams.values()) if hits else 1 / (smooth * sum(grams.values()))))
    if not sum((Counter(said) & Counter(wanted)).values()):
        return 0.0
    return min(1.0, math.exp(1 - len(wanted) / len(said))) * math.exp(sum(logs) / len(logs))


@given(WORDS, WORDS)
def test_bleu_is_papineni(prediction, reference):
    assert bleu(prediction=prediction, reference=reference) == pytest.approx(slow_bleu(prediction, reference), abs=1e-9)


def test_bleu_is_sacrebleus():
    said, wanted = "The woman has long brown hair.", "The woman with long brown hair wears a red coat."
    found = sacrebleu.sentence_bleu(said, [wanted], smooth_method="exp", use_effective_order=True).score / 100
    assert bleu(prediction=said, reference=wanted) == pytest.approx(found)
    assert bleu(prediction=said, reference=wanted) != pytest.approx(bleu(prediction=wanted, reference=said))


def test_without_sacrebleu_bleu_is_missing_and_says_how_to_get_it(monkeypatch):
    for module in ("values", "measures"):
        monkeypatch.setattr(f"unsee.scoring.{module}.installed", lambda: False)
    fields = {
        "id": "1",
        "stage": "x",
        "role": Role.RETAIN,
        "kind": Kind.OPEN,
        "fact": "",
        "entity": "p",
        "question": "?",
    }
    row = Response(**fields, answer="a red coat", text="a red hat", tokens=3, ended=True, image="")
    found = score([row], Vocabulary(measures=("bleu",)))["retain_text.bleu"]
    assert found.value is None
    assert found.why == '1 answers have no BLEU, which needs sacrebleu: pip install "unsee[bleu]"'


@given(WORDS, WORDS, st.sampled_from([1, 2]))
def test_rouge_n_is_a_count_of_common_ngrams(prediction, reference, n):
    def grams(text):
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    said, wanted = grams(prediction), grams(reference)
    both = sum((said & wanted).values())
    f1 = 2 * both / (sum(said.values()) + sum(wanted.values())) if both else 0.0
    assert rouge_n(prediction=prediction, reference=reference, n=n) == pytest.approx(f1)


def test_rouge_n_is_the_librarys_with_stemming():
    from rouge_score.rouge_scorer import RougeScorer

    said, wanted = "She was running in the parks.", "She runs in a park, running."
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(wanted, said)
    for n in (1, 2):
        assert rouge_n(prediction=said, reference=wanted, n=n) == pytest.approx(scorer[f"rouge{n}"].fmeasure)
    assert rouge_l(prediction=said, reference=wanted).f1 == pytest.approx(scorer["rougeL"].fmeasure)


@given(*(st.lists(st.floats(-5, 5), min_size=4, max_size=4).filter(lambda v: math.hypot(*v) > 0.1) for _ in range(2)))
def test_clip_score_is_the_cosine_in_numpy(image, text):
    cosine = np.dot(image, text) / np.linalg.norm(image) / np.linalg.norm(text)
    assert clip_score(image, text) == pytest.approx(2.5 * max(cosine, 0), abs=1e-9)
    assert clip_score([3 * v for v in image], text) == pytest.approx(clip_score(image, text), abs=1e-9)


def test_clip_score_needs_two_embeddings_of_one_length():
    with pytest.raises(ValueError, match="one length"):
        clip_score((1.0,), (1.0, 0.0))
    with pytest.raises(ValueError, match="no angle"):
        clip_score((0.0, 0.0), (1.0, 0.0))
    for broken in (math.nan, math.inf):
        with pytest.raises(ValueError, match="no angle"):
            clip_score((broken, 0.0), (1.0, 0.0))


def test_released_bleu_by_hand():
    """Clipped matches of 1 to 4 words between blanks, 0.1 where there is none, and the brevity penalty."""
    assert bleu_released(prediction="Oslo", reference="Oslo") == pytest.approx((1 * 0.1**3) ** 0.25)
    right = bleu_released(prediction="a b c d", reference="a b c d")
    assert right == pytest.approx(1.0)
    # 1-grams 3/4 (the second "a" is clipped), 2-grams 1/3, 3-grams 0.1/2, 4-grams 0.1/1; as long as the reference
    mixed = bleu_released(prediction="a b a d", reference="a b c d")
    assert mixed == pytest.approx((3 / 4 * 1 / 3 * 0.05 * 0.1) ** 0.25)
    short = bleu_released(prediction="a b", reference="a b c d")
    assert short == pytest.approx(math.exp(1 - 4 / 2) * (1 * 1 * 0.1 * 0.1) ** 0.25)
    assert bleu_released(prediction="", reference="a") == 0
    assert bleu_released(prediction="Oslo.", reference="Oslo") == 0  # words are what stands between blanks


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))
def test_released_bleu_is_nltks_method_1(said, reference):
    translate = pytest.importorskip("nltk.translate.bleu_score")
    smooth = translate.SmoothingFunction().method1
    theirs = translate.sentence_bleu([reference], said, smoothing_function=smooth) if said else 0.0
    assert bleu_released(prediction=" ".join(said), reference=" ".join(reference)) == pytest.approx(theirs)
