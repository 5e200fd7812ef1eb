"""From answers to matrices and summaries: what is averaged over what, worked by hand."""

from __future__ import annotations

import json

import pytest

from unsee.errors import UserError
from unsee.workflows.continual import page, results
from unsee.workflows.continual.results import Judged


def row(k, entity, role, *, image="i", kind="name", **values):
    return {"t": 0, "k": k, "id": "x", "role": role, "kind": kind, "entity": entity, "image": image, "values": values}


def judged(*steps, count=2, **more):
    return Judged(at=tuple(range(len(steps))), samples=steps, count=count, **more)


def everybody(first, second, kept, general=1.0):
    """Return answers of one model: two entities in the first request, one in the second."""
    return [
        row(1, "a", "unseen", image="a1", name=first),
        row(1, "a", "unseen", image="a1", fact=1.0),
        row(1, "a", "unseen", image="a2", name=first),
        row(1, "b", "unseen", image="b1", name=0.0, refusal=1.0),
        row(1, "b", "forget", image="b0", name=1.0),
        row(2, "c", "forget", image="c0", name=second, leak=second),
        row(1, "a", "forget_text", image="", fact=0.5),
        row(0, "d", "retain", image="d0", name=kept, visible=0.0, refusal=0.0),
        row(0, "e", "retain", image="e0", name=1.0, refusal=1.0),
        row(0, "g", "general", image="g0", kind="general", accuracy=general),
    ]


def test_remembering_is_a_mean_over_entities_of_images_of_questions():
    found = judged(everybody(0.5, 1.0, 1.0))
    # a: images (.5 + 1)/2 = .75 and .5 -> .625; b: its new image only, 0; request 2 has seen images only
    assert found.recall_by_entity(0, 1, ("name", "fact"), image=True) == {"a": 0.625, "b": 0.0}
    assert found.matrix(("name", "fact")) == [[0.3125, 1.0]]
    assert found.matrix(("name", "fact"), image=False) == [[0.5, None]]


def test_what_is_kept_is_measured_alike():
    found = judged(everybody(1, 1, 0.5, general=0.25))
    assert found.curve(("name", "fact"), results.Role.RETAIN) == [0.75]
    assert found.curve(("accuracy",), results.Role.GENERAL, image=None) == [0.25]
    assert found.curve(("accuracy",), results.Role.RETAIN) is None


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"choice": 1.0, "cloze": 1.0}, ("choice",)),
        ({"cloze": 1.0, "rougeL_recall": 0.3}, ("cloze",)),
        ({"rougeL_recall": 0.3}, ("rougeL_recall",)),
        ({"fact": 1.0, "choice": 1.0}, ("name", "fact")),
    ],
)
def test_the_headline_is_what_the_data_have(values, wanted):
    assert judged([row(1, "a", "forget", **values)], count=1).counts == wanted


def test_data_without_a_measurable_question_are_refused():
    with pytest.raises(UserError, match="No question about the requested entities"):
        assert judged([row(1, "a", "forget", leak=1.0)], count=1).counts
    with pytest.raises(UserError, match="Request 2 has no judged question with an image that measures name or fact"):
        results.required_matrix(judged([row(1, "a", "forget", name=1.0)]))


def test_a_whole_document():
    steps = (everybody(1, 1, 1), everybody(0, 1, 1), everybody(0.5, 0, 0, general=0.5))
    found = results.document(judged(*steps), support="common")
    # request 1: a has images (1+1)/2 and 1 -> 1; then (0+1)/2 and 0 -> .25; then (.5+1)/2 and .5 -> .625; b always 0
    assert found["A"] == [[0.5, 1.0], [0.125, 1.0], [0.3125, 0.0]]
    assert found["metrics"]["CF"] == [0.875, 1.0]
    assert found["metrics"]["FR"] == [None, pytest.approx(0.1875)]
    assert found["metrics"]["RU"] == [1.0, 1.0, 0.5]
    assert found["metrics"]["GU"] == [1.0, 1.0, 0.5]
    assert found["U"] == [1.0, 1.0, 0.5]
    assert found["summary"]["CF"] == 0.9375
    assert found["summary"]["HP"] == 0.6875
    assert found["summary"]["RU"] == 0.75
    assert found["summary"]["FR_share"] == 1.0
    assert found["summary"]["overall"] == pytest.approx(4 / (1 / 0.9375 + 1 / 0.6875 + 2 / 0.75))
    assert found["Q"][0]["refusal_on_retain"] == 0.5
    assert found["aftermath"][1]["refusal"] == 1.0  # of request 1, on its new images; the second is not asked for yet
    assert found["aftermath"][0]["refusal"] is None
    low, high = found["ci"]["CF"]
    assert low <= 0.9375 <= high
    assert low < high
    assert found["ci"]["RU"][0] <= 0.75 <= found["ci"]["RU"][1]


def test_what_a_summary_counts():
    def step(first, second, kept, old=1.0, fresh=0.0):
        rows = [row(1, "a", "unseen", name=first, leak=fresh), row(1, "a", "forget", leak=old)]
        return [*rows, row(2, "c", "unseen", name=second), *(row(0, name, "retain", name=kept[name]) for name in kept)]

    def known(*values):
        return dict(zip("defg", values, strict=True))

    steps = (step(1, 1, known(1, 0, 0, 0)), step(0, 1, known(1, 1, 0, 1)), step(0, 0, known(1, 0, 0, 0)))
    found = results.document(judged(*steps), support="common")
    assert found["aftermath"][1]["leak"] == 0.0  # new images only
    assert found["metrics"]["FR"] == [None, 0.0]
    assert found["summary"]["FR_share"] == 0.0  # a rebound is more than a point
    assert found["metrics"]["RU"] == [1.0, 3.0, 1.0]
    assert found["summary"]["RU"] == 1.0  # what is gained elsewhere makes up for nothing
    assert found["summary"]["RU_last"] == 1.0


def test_a_summary_weighs_stretches_by_their_length():
    def step(first, kept):
        return [
            row(1, "a", "forget", name=first),
            *(row(k, "x", "forget", name=0.0) for k in range(2, 6)),
            row(0, "d", "retain", name=kept),
        ]

    asked = (step(1, 1), step(1, 1), step(0, 0.5), step(1, 0))
    found = results.document(Judged(at=(0, 1, 2, 5), samples=asked, count=5), support="common")
    assert found["metrics"]["CF"] == [0.0, 1.0, 1.0]
    assert found["summary"]["CF_area"] == pytest.approx((0.5 + 3) / 4)
    assert found["summary"]["CF_std"] == pytest.approx(2**0.5 / 3)
    assert found["metrics"]["HP"] == [None, 1.0, 0.75]
    assert found["summary"]["HP_area"] == 0.875
    assert found["summary"]["HP_std"] == 0.125
    assert found["summary"]["RU_area"] == pytest.approx((1 + 0.75 + 3 * 0.25) / 5)


def test_intervals_draw_the_kept_anew():
    kept = [row(0, name, "retain", name=float(name < "h")) for name in "defghijk"]
    gone = [row(0, name, "retain", name=float(name < "f")) for name in "defghijk"]
    asked = [row(1, name, "unseen", name=1.0) for name in "ab"]
    found = results.document(judged([*asked, *kept], [*asked, *gone], count=1), support="common")
    low, high = found["ci"]["RD"]
    assert low < found["summary"]["RD"] < high


def test_single_entities_give_no_interval():
    step = [row(1, "a", "forget", name=1.0), row(2, "c", "forget", name=1.0)]
    found = results.document(judged(step, step, step), support="common")
    assert found["ci"] is None
    assert found["U"] is None
    assert found["summary"]["RD" if "RD" in found["summary"] else "CF"] == 0.0


def test_a_model_that_can_do_nothing_is_measured_too():
    step = everybody(0, 0, 0, general=0)
    for one in step:
        one["values"] = dict.fromkeys(one["values"], 0.0)
    found = results.document(judged(step, step, step), support="running")
    assert found["metrics"]["RU"] == [None, None, None]
    assert found["summary"]["RU_area"] is None
    assert found["summary"]["CF"] == 1.0
    assert found["missing"] == [
        f"what is left of {name}, also in `overall`: the original model answers none of its questions right"
        for name in ("kept people (U)", "unrelated questions (G)")
    ]


def test_classes_are_of_everybody_whether_there_are_held_out_images_or_not():
    step = [
        row(1, "a", "unseen", leak=0.0),
        row(1, "a", "forget", leak=1.0),
        row(2, "c", "forget", name=1.0, leak=1.0),
        row(2, "c", "forget_text", image="", leak=0.0),
    ]
    asked = judged(step, step, step)
    assert [results._aftermath(asked, index)["leak"] for index in range(3)] == [None, 0.0, 0.5]


def test_what_cannot_be_judged_later_is_missing_and_raises_nothing():
    asked = [row(1, "a", "forget", name=1.0)]
    gone = [row(1, "a", "forget", name=0.0)]
    found = results.document(
        judged([*asked, row(0, "d", "retain", name=1.0)], [*gone, row(0, "d", "retain")], count=1), support="common"
    )
    assert found["U"] == [1.0, None]
    assert found["metrics"]["RU"] == [1.0, None]
    assert found["metrics"]["RD"] is None
    assert found["summary"]["CF"] == 1.0
    assert found["summary"]["overall"] is None
    assert found["missing"] == ["kept people (U) after 1 requests: no answer to its questions can be judged"]


def test_an_entity_without_a_value_at_a_step_is_left_out_of_the_intervals():
    full = [row(1, "a", "unseen", name=1.0), row(1, "b", "unseen", name=0.0), row(1, "e", "unseen", name=1.0)]
    kept = [row(0, name, "retain", name=float(name < "h")) for name in "defghijk"]
    found = results.document(
        judged([*full, *kept], [full[0], row(1, "b", "unseen"), full[2], *kept[1:]], count=1), support="common"
    )
    assert found["A"] == [[pytest.approx(2 / 3)], [1.0]]
    assert found["missing"] == []
    assert found["ci"]["CF"] == (0.0, 0.0)
    assert found["ci"]["RD"] == (0.0, 0.0)  # of e to k, who have a value at both steps
    second = row(2, "c", "unseen", name=1.0)
    other = judged([*full[:2], second], [full[0], second], [full[1], second])
    assert results.document(other, support="common")["ci"] is None


def test_a_request_without_a_value_at_a_step_makes_that_step_missing():
    def step(first, second):
        known = [row(k, name, "forget", **({} if v is None else {"name": v})) for k, name, v in (first, second)]
        return [*known, row(0, "d", "retain", name=1.0)]

    steps = (step((1, "a", 1.0), (2, "c", 1.0)), step((1, "a", 0.0), (2, "c", None)), step((1, "a", 0.5), (2, "c", 0)))
    found = results.document(judged(*steps), support="common")
    assert found["A"] == [[1.0, 1.0], [0.0, None], [0.5, 0.0]]
    assert found["metrics"]["CF"] == [None, 1.0]
    assert found["metrics"]["FT"] == [None, None]
    assert found["metrics"]["HP"] == [None, 0.5]
    assert found["summary"]["overall"] is None
    assert found["missing"] == ["request 2 after 1 requests: no answer to its questions can be judged"]
    group = page.groups_of([{**document(), **found}])[0]
    assert group.cell("overall") == "-"
    assert "missing is request 2 after 1 requests" in page.table([group])
    drawn = page.html([group])
    assert "missing is request 2 after 1 requests" in drawn
    assert "after 1, request 2" not in drawn


# the page


def document(method="ga", order=0, mode="sequential", a=0.5, seed=0, data="d1", **training):
    course = {"order": order, "merge": "sum", "router": "nearest", "reference": "previous", "adapters": f"x{order}"}
    steps = (everybody(1, 1, 1), everybody(a, 1, 1), everybody(0, a, 1))
    found = results.document(judged(*steps), support="common")
    settings = {"continual": {**course, "mode": mode}, "method": {}, "training": training, "data": data}
    made = {"method": method, "mode": mode, "model": "lab", "seed": seed}
    return {**found, **made, "settings": settings, "tasks": [1, 2]}


def test_orders_of_one_sequence_are_one_group():
    groups = page.groups_of([document(), document(order=1, a=0.25), document("npo"), document(mode="merge")])
    assert [(group.label, len(group.runs)) for group in groups] == [
        ("ga, sequential", 2),
        ("npo, sequential", 1),
        ("ga, merge sum", 1),
    ]
    means = [run["summary"]["CF"] for run in groups[0].runs]
    assert groups[0].cell("CF") == f"{sum(means) / 2:.2f} [{min(means):.2f}, {max(means):.2f}]"
    assert groups[1].cell("RU") == "1.00"
    assert page.table(groups).count("\n") == 5


def test_sequences_of_another_training_or_other_data_are_no_orders_of_one():
    runs = [document(lr=1e-3), document(order=1, lr=1e-3), document(seed=1, lr=1e-3), document(lr=1e-4)]
    found = {group.label: len(group.runs) for group in page.groups_of(runs)}
    assert found == {"ga, sequential lr=0.001": 3, "ga, sequential lr=0.0001": 1}
    found = {group.label: len(group.runs) for group in page.groups_of([document(), document(data="d2")])}
    assert found == {"ga, sequential data=d1": 1, "ga, sequential data=d2": 1}
    known = document()
    judged = [{**known, "settings": {**known["settings"], "eval": {"max_new_tokens": n}}} for n in (8, 64)]
    found = {group.label: len(group.runs) for group in page.groups_of(judged)}
    assert found == {"ga, sequential max_new_tokens=8": 1, "ga, sequential max_new_tokens=64": 1}
    many = [document(lr=n, rank=n, alpha=n, clip=n) for n in (1, 2)]
    assert [group.label for group in page.groups_of(many)] == ["ga, sequential (1)", "ga, sequential (2)"]


@pytest.mark.parametrize(
    ("method", "weight", "label"),
    [
        ("npo", 1.0, "npo + retain, sequential"),
        ("npo", 0.0, "npo, sequential"),
        ("siu", 0.5, "siu + retain, sequential"),
        ("bg_only", 2.0, "bg_only + retain, sequential"),
        ("grad_diff", 1.0, "grad_diff, sequential"),
        ("ga", None, "ga, sequential"),
    ],
)
def test_a_retain_term_that_the_method_has_not_by_itself_is_named(method, weight, label):
    run = document(method)
    run["settings"]["method"] = {} if weight is None else {"retain_weight": weight}
    assert page.label_of(run) == label


@pytest.mark.parametrize(
    "damage", [{"tasks": None}, {"A": []}, {"at": []}, {"model": 3}, {"U": 7}, {"headline": [1]}, {"metrics": {}}]
)
def test_a_damaged_sequence_is_told_and_leaves_no_page(tmp_path, damage):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "continual.json").write_text(json.dumps({**document(), **damage}))
    with pytest.raises(UserError, match=r"continual\.json is damaged .*Run its `unsee continual` again"):
        page.write_page([tmp_path / "run"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sequence_that_is_named_twice_is_drawn_once(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "continual.json").write_text(json.dumps(document()))
    page.write_page([tmp_path / "run", tmp_path / "run" / ".." / "run"], tmp_path / "out")
    assert "[" not in (tmp_path / "out" / "continual.md").read_text()  # no range over orders


@pytest.mark.parametrize("theirs", [("continual.md",), ("continual.md", "continual.html")])
def test_files_of_others_are_not_replaced_by_a_comparison(tmp_path, theirs):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "continual.json").write_text(json.dumps(document()))
    (tmp_path / "out").mkdir()
    for name in theirs:
        (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(UserError, match="holds no page of sequences"):
        page.write_page([tmp_path / "run"], tmp_path / "out")
    for name in theirs:
        (tmp_path / "out" / name).unlink()
    page.write_page([tmp_path / "run"], tmp_path / "out")
    page.write_page([tmp_path / "run"], tmp_path / "out")  # its own page


def test_a_sequence_that_was_broken_off_is_not_compared(tmp_path):
    for name, tasks in (("whole", [1, 2]), ("part", [1, 2, 3])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "continual.json").write_text(json.dumps({**document(), "tasks": tasks}))
    with pytest.raises(UserError, match=r"part is not finished: 2 of 3 requests are judged\. Run its"):
        page.write_page([tmp_path / "whole", tmp_path / "part"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_curves_of_the_page():
    found = document(a=0.5)
    titles = dict(page.PANELS)
    # request 1 after itself: a has images (.5+1)/2 and .5 -> .625, b 0 -> .3125
    assert titles["Just asked to be forgotten: still remembered"](found) == [None, 0.3125, 0.5]
    assert titles["Not asked for yet: remembered"](found) == [0.75, 1.0, None]


def test_the_page_draws_curves_and_maps_and_escapes_text():
    found = {**document(a=0.5), "model": "a & b"}
    groups = page.groups_of([found])
    drawn = page.html(groups)
    assert "to the model a &amp; b." in drawn
    assert "Just asked to be forgotten: still remembered: ga, sequential ends at 0.50" in drawn
    # after 1 and 2 of 2 requests, 0.3125 and 0.5 of the height between 122 and 12
    assert 'points="150.0,87.6 296.0,67.0"' in drawn
    shown = page._map(groups[0])
    assert [cell["value"] for cell in shown["cells"]] == [round(v, 2) for row in found["A"] for v in row]
    assert shown["step"] == "0,14 20,14 20,28 40,28"  # one model before request 1, two before request 2
