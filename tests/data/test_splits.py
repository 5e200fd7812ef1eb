"""Selection, report and attack questions are disjoint."""

from collections import defaultdict

import pytest

from unsee.benchmarks.lab import Lab
from unsee.data.fingerprint import fingerprint
from unsee.data.splits import PARTS, only, part_of
from unsee.errors import UserError
from unsee.evaluation.evaluate import evaluate, read_answers
from unsee.evaluation.recovery import probed_rows
from unsee.testing.attacks import People
from unsee.testing.tiny import save_tiny
from unsee.utils.parsing import read_object


def test_parts_are_disjoint_and_whole():
    whole = Lab()
    parts = {part: {row.id for row in only(whole, part).examples("eval")} for part in PARTS}
    ids = {row.id for row in whole.examples("eval")}
    assert sum(map(len, parts.values())) == len(ids)
    assert set.union(*parts.values()) == ids
    assert all(len(found) > len(ids) / 4 for found in parts.values())
    assert only(whole, "all") is whole


def test_a_part_has_all_training_rows_and_another_fingerprint():
    assert only(People(), "report").examples("train") == People().examples("train")
    assert len({fingerprint(only(People(), part)) for part in (*PARTS, "all")}) == 4


def test_all_pictures_and_wordings_of_a_question_lie_in_one_part():
    parts = defaultdict(set)
    for row in probed_rows(Lab()):
        parts[row.entity, row.kind, row.fact].add(part_of(row))
    assert {len(found) for found in parts.values()} == {1}
    assert set.union(*parts.values()) == set(PARTS)


def test_selection_reads_no_question_of_report_or_attacks(tmp_path):
    evaluate(save_tiny(tmp_path / "model"), People(), tmp_path / "out", split="selection", max_new_tokens=2)
    answered = {row.id for row in read_answers(tmp_path / "out")}
    rows = People().examples("eval")
    assert answered == {row.id for row in rows if part_of(row) == "selection"}
    assert answered
    assert not answered & {row.id for row in rows if part_of(row) in ("report", "attacks")}
    assert read_object(tmp_path / "out" / "judged.json")["split"] == "selection"


def test_an_unknown_part_is_named():
    with pytest.raises(UserError, match="choice"):
        only(Lab(), "choice")
