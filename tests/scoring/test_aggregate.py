"""Values of measures from outside: numbers of any kind, and what is no number."""

from __future__ import annotations

import json

import numpy as np
import pytest

from unsee.api import Kind, Measure, Response, Role, Vocabulary
from unsee.errors import UserError
from unsee.scoring.aggregate import score_by

ROW = Response(
    id="a", stage="x", role=Role.RETAIN, kind=Kind.OPEN, entity="e", fact="", question="Who?", answer="", text="She.",
    tokens=1, ended=True,
)  # fmt: skip


def scored(value: object) -> dict[str, object]:
    measure = Measure(
        key="theirs", better="higher", applies=lambda _: True, value=lambda *_: value, undefined="no {missing}"
    )
    return score_by(measure, [ROW], Vocabulary())["retain_text.theirs"].to_json()


@pytest.mark.parametrize(("value", "number"), [(True, 1.0), (np.float32(0.5), 0.5), (0, 0.0)])
def test_a_value_of_any_number_type_can_be_written(value: object, number: float) -> None:
    written = json.loads(json.dumps(scored(value)))
    assert (written["value"], written["value_by_index"]) == (number, {"a": number})


def test_an_undefined_value_is_missing_and_one_that_is_no_number_is_refused() -> None:
    assert (scored(None)["value"], scored(None)["why"]) == (None, "no 1")
    for value in (float("nan"), -np.inf, "0.5", [1.0]):
        with pytest.raises(UserError, match="The measure theirs is .* for the answer to 'a'; expected a finite number"):
            scored(value)


def test_a_score_without_any_value_never_lacks_a_reason() -> None:
    silent = Measure(key="silent", better="higher", applies=lambda _: True, value=lambda *_: None)
    score = score_by(silent, [ROW], Vocabulary())["retain_text.silent"]
    assert (score.value, score.why) == (None, "silent has no value for 1 answers, and says not why")
