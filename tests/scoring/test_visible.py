"""Questions about what is seen: the claimed value beside the true one."""

from __future__ import annotations

import pytest

from unsee.api import Kind, Response, Role, Vocabulary
from unsee.scoring.values import visible_correct_of

VOCABULARY = Vocabulary(visible={"hair": {"red": r"\bred hair\b", "fair": r"\bfair hair\b"}})


@pytest.mark.parametrize("visible", [{"hair": "red"}, {}])
@pytest.mark.parametrize("answer", ["red hair", "The person has red hair.", "crimson"])
@pytest.mark.parametrize(
    ("text", "right"),
    [("The person has red hair.", 1.0), ("Fair hair.", 0.0), ("Red hair, or fair hair.", 0.0), ("A dog.", 0.0)],
)
def test_without_a_value_of_its_own_a_row_is_judged_by_its_reference(visible, answer, text, right):
    asked = Response(
        id="a", stage="x", role=Role.RETAIN, kind=Kind.VISIBLE, fact="hair", entity="e", question="What hair?",
        answer=answer, text=text, visible=visible, tokens=2, ended=True,
    )  # fmt: skip
    known = bool(visible) or answer != "crimson"  # else the reference says it in words that no row is known to have
    assert visible_correct_of(asked, VOCABULARY) == (right if known else 0.0)
