"""What a course's settings reach: roles of a request, what is judged, how adapters are merged. Nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from unsee.api import Role
from unsee.config import Run
from unsee.testing.tiny import person
from unsee.workflows.continual import judging, merging, modes, work
from unsee.workflows.continual.judging import Judge
from unsee.workflows.continual.settings import Course
from unsee.workflows.continual.tasks import Task, Tasks
from unsee.workflows.continual.work import Work

ONE, TWO, TEN = (Task(id=name, targets=(name[-1],)) for name in ("r-a", "r-b", "r-c"))


def work_at(out, *tasks, run=None, **course):
    course = Course(tasks=2, **course)
    run = Run(model="m", data="d", method="ga", out=str(out), seed=5, **(run or {}))
    return Work(run=run, course=course, tasks=Tasks(tasks=tasks or (ONE, TWO, TEN), retain=("z",)))


@pytest.mark.parametrize(
    ("policy", "rows", "seed", "share"),
    [
        ("all", 0, 0, "all"),
        ("none", 0, 0, "none"),
        ("fixed_sample", 9, 0, "sample"),
        ("fresh_sample", 9, 3, "sample"),
    ],
)
def test_roles_of_a_request(policy, rows, seed, share, tmp_path):
    roles = work_at(tmp_path, retain_policy=policy, retain_rows=9).roles(("b",), 3)
    assert (roles.forget, roles.aside, roles.retain) == (("b",), ("a", "c"), ("z",))
    assert (roles.retain_share, roles.retain_rows, roles.retain_seed) == (share, rows, seed)


def test_what_is_judged_is_bounded_as_the_course_says(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "Request", lambda roles: roles)
    roles = work_at(tmp_path, kinds=("name",), limit=2, retain_limit=3).eval_request()
    assert (roles.forget, roles.aside) == (("a", "b", "c"), ())
    assert (roles.kinds, roles.limit, roles.retain_limit) == (("name",), 2, 3)


def test_a_question_belongs_to_the_request_that_names_its_entity_or_itself(tmp_path):
    class Data:
        def examples(self, split):
            asked = (
                ("a", Role.FORGET),
                ("d", Role.UNSEEN),
                ("d", Role.FORGET_TEXT),
                ("a", Role.RETAIN),
                ("", Role.GENERAL),
            )
            return [replace(person("ada", role), id=f"row-{n}", entity=name) for n, (name, role) in enumerate(asked)]

    tasks = (ONE, Task(id="rows", targets=("row-1", "row-2")))
    found = Judge(work=work_at(tmp_path, *tasks), request=Data()).requests
    assert found == {"row-0": 1, "row-1": 2, "row-2": 2, "row-3": 0, "row-4": 0}


def test_every_model_is_asked_as_the_course_says(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        judging,
        "evaluate",
        lambda model, data, folder, settings, **how: seen.append((model, folder, {**vars(settings), **how})),
    )
    request = object()
    judge = Judge(work=work_at(tmp_path, max_new_tokens=9, batch_size=3), request=request)
    judge.ask("m", judge.folder(2))
    model, folder, how = seen[0]
    assert (model, folder) == ("m", tmp_path / "judged" / "t-002")
    assert (how["max_new_tokens"], how["batch_size"], how["seed"], how["stage"]) == (9, 3, 5, "ga")


@pytest.fixture
def unlearned(monkeypatch):
    """Return what would have been unlearned: (folder, model, roles, training) of each call."""
    calls = []

    def note(work, folder, model, roles, training):
        calls.append((folder, model, roles, dict(training)))
        return Path(folder)

    monkeypatch.setattr(modes, "unlearn_request", note)
    monkeypatch.setattr(modes, "cost_of", lambda folder: {"sec": 1.0, "bytes": 2})
    return calls


def test_an_adapter_of_an_earlier_version_is_gone_on_with(tmp_path, unlearned):
    """Its folder has letters of the request's id."""
    folder = tmp_path / "adapters" / work.old_folder_name(ONE.id)
    folder.mkdir(parents=True)
    step = modes.experts(work_at(tmp_path, ONE, TWO), 2)
    assert [place.name for place in step.experts] == [folder.name, work.folder_name(TWO.id)]
    assert len(unlearned) == 2


def test_an_adapter_is_the_same_in_every_order(tmp_path, unlearned):
    for order in ((ONE, TWO, TEN), (TEN, ONE, TWO)):
        step = modes.experts(work_at(tmp_path, *order, retain_policy="fresh_sample"), 3)
        assert [folder.name for folder in step.experts] == [work.folder_name(task.id) for task in order]
    made = {folder.name: (model, roles, training) for folder, model, roles, training in unlearned[:3]}
    again = {folder.name: (model, roles, training) for folder, model, roles, training in unlearned[3:]}
    assert made == again
    assert len({roles.retain_seed for _, roles, _ in made.values()}) == 3


@pytest.mark.parametrize(
    ("given", "steps", "wanted"), [("grow", 4, {"max_steps": 12}), ("fixed", 4, {}), ("grow", -1, {})]
)
def test_joint_steps_grow_with_the_requests_if_they_are_counted(given, steps, wanted, tmp_path, unlearned):
    modes.joint(work_at(tmp_path, run={"training": {"max_steps": steps}}, joint_steps=given), 3)
    _, model, roles, training = unlearned[0]
    assert (model, roles.forget, training) == ("m", ("a", "b", "c"), wanted)


def test_a_merge_is_made_as_the_course_says(tmp_path, unlearned, monkeypatch):
    seen = []
    monkeypatch.setattr(merging, "read_adapter", lambda folder: folder.parent.name)
    monkeypatch.setattr(merging, "merge_adapters", lambda adapters, settings: seen.append((adapters, settings)))

    def write(made, place, like):
        assert not list(place.glob("*.json"))
        return 7

    monkeypatch.setattr(merging, "write_adapter", write)
    course = {"merge": "dare", "scale": 0.5, "density": 0.3, "drop": 0.6, "merge_rank": 4}
    step = modes.merge(work_at(tmp_path, **course), 2)
    how = merging.Settings(how="dare", scale=0.5, density=0.3, drop=0.6, rank=4, seed=5)
    assert seen == [([work.folder_name("r-a"), work.folder_name("r-b")], how)]
    assert step.model == str(tmp_path / "t-002")
    modes.merge(work_at(tmp_path, **course), 2)
    assert len(seen) == 1  # merged once
