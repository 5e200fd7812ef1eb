"""The refusal detector: precision and recall on labelled strings, full against partial, odd input."""

from time import perf_counter

import pytest

from helpers.refusal_strings import FULL, NONE, PARTIAL
from unsee.data.refusals import refusals
from unsee.metrics.refusal import refusal


def test_recall_and_precision_on_labelled_strings():
    found = [text for text in (*FULL, *NONE) if refusal(text) == "full"]
    true = [text for text in found if text in FULL]
    assert len(FULL) >= 40
    assert len(NONE) >= 40
    assert len(true) / len(FULL) >= 0.95, set(FULL) - set(true)
    assert len(true) / len(found) >= 0.95, set(found) - set(true)


def test_the_packaged_list_is_recognised():
    missed = [text for text in refusals() if refusal(text) != "full"]
    assert len(missed) <= 0.05 * len(refusals()), missed


@pytest.mark.parametrize("text", PARTIAL)
def test_a_notice_beside_a_description_is_partial(text):
    assert refusal(text) == "partial"


def test_the_threshold_is_the_number_of_content_words_beside_the_notice():
    text = "I cannot name people. Red hair, green coat, blue hat, brown"
    assert refusal(f"{text} boots.") == "partial"
    assert refusal(f"{text}.") == "full"


@pytest.mark.parametrize(
    "change", [str.upper, str.lower, lambda text: text.replace("'", "\u2019"), lambda text: f"  {text}\n"]
)
def test_case_apostrophes_and_blanks_do_not_matter(change):
    assert [text for text in FULL if refusal(change(text)) != refusal(text)] == []


def test_long_garbage_is_read_in_reasonable_time():
    assert refusal("i am not " * 4000) in ("full", "partial", "none")


@pytest.mark.parametrize("part", ["sorry ", "i am sorry i am ", "i do not know ", "to protect privacy "])
def test_reading_takes_linear_time(part):
    def seconds(count):
        times = []
        for _ in range(3):
            start = perf_counter()
            refusal(part * count)
            times.append(perf_counter() - start)
        return min(times)

    assert seconds(4000) < 8 * seconds(1000)  # 16 times as much where it is quadratic
