"""The matcher: what counts as saying a private string."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsee.metrics.matching import contains, leaked, normalise


@pytest.mark.parametrize(
    ("text", "term", "found"),
    [
        ("This is Mara's dog.", "Mara", True),
        ("This is Mara\u2019s dog.", "Mara", True),
        ("Marathon runner", "Mara", False),
        ("Tamara", "Mara", False),
        ("MARA LIND", "mara lind", True),
        ("Mara\n  Lind", "Mara Lind", True),
        ("Lind, Mara", "Mara Lind", False),
        ("Jose Nunez", "Jos\u00e9 N\u00fa\u00f1ez", True),
        ("Jose\u0301", "Jos\u00e9", True),
        ("Jean-Luc", "jean luc", True),
        ("jean luc", "Jean-Luc", True),
        ("Stra\u00dfe", "STRASSE", True),
        ("\uff2d\uff41\uff52\uff41", "Mara", True),
        ("Ma\u200bra", "Mara", True),
        ("Ma\u00adra", "Mara", True),
        ("born in 1987.", "1987", True),
        ("born in 19875", "1987", False),
        ("snake_Mara_case", "Mara", True),
        ("<b>Mara</b>", "Mara", True),
        ("anything", "", False),
        ("anything", "...", False),
        ("", "Mara", False),
    ],
)
def test_table(text, term, found):
    assert contains(text, term) is found


def test_terms_of_the_question_do_not_count_but_other_facts_do():
    private = {"name": ("Mara Lind", "Lind"), "job": ("baker",), "city": ("Oslo",)}
    assert leaked("Lind is a baker in Oslo.", private) == ("name", "job", "city")
    assert leaked("Mara Lind is a baker.", private, "What is the job of Mara Lind?") == ("job",)
    assert leaked("A red shirt.", private) == ()
    assert leaked("", private) == ()


words = st.text("abMZ09\u00e9\u00df\u00f1\u0141\u0434\u0416\u4e2d\u03a9\u0130", min_size=1, max_size=8)


@given(words, st.text(max_size=20), st.text(max_size=20))
def test_a_term_between_blanks_is_always_found(term, before, after):
    assert contains(f"{before} {term} {after}", term)


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.casefold()


@given(words)
def test_a_term_inside_a_longer_word_is_not_found(term):
    assert not contains(f"x{term}x", term)
