"""Requests: who is asked for when, and which role every row has then."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from fixtures import umu
from helpers.continual_folder import write_people
from unsee.api import Kind, Role
from unsee.benchmarks import request
from unsee.benchmarks.request import Request, Roles
from unsee.data.check import examine
from unsee.data.open import open_benchmark
from unsee.errors import UserError
from unsee.workflows.continual.settings import Course
from unsee.workflows.continual.tasks import _read, entities_of, tasks_of
from unsee.workflows.continual.work import folder_name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def data(folder):
    return open_benchmark(folder)


def roles_of(rows):
    found = {}
    for row in rows:
        found.setdefault(row.entity, set()).add(row.role.value)
    return found


def listed(tmp_path, text):
    file = tmp_path / "requests.yaml"
    file.write_text(text)
    return Course(requests=str(file))


def test_an_id_keeps_its_leading_zeros(tmp_path):
    assert _read(Path(listed(tmp_path, "- [0017]\n- [0018]\n- [17]").requests)).targets() == ("0017", "0018", "17")


def test_the_default_request_comes_first_and_somebody_is_kept(data):
    assert entities_of(data)[0] == "ada"
    assert sorted(entities_of(data)) == ["ada", "bo", "cleo", "dan"]
    tasks = tasks_of(data, Course(tasks=3))
    assert [task.id for task in tasks.tasks] == ["r1", "r2", "r3"]
    assert tasks.tasks[0].targets == ("ada",)
    with pytest.raises(UserError, match="4 requests of 1 entities need more than 4"):
        tasks_of(data, Course(tasks=4))


def test_equal_order_seeds_give_equal_lists_of_the_same_requests(data):
    lists = {order: [task.targets for task in tasks_of(data, Course(tasks=3, order=order)).tasks] for order in range(6)}
    assert lists[3] == [task.targets for task in tasks_of(data, Course(tasks=3, order=3)).tasks]
    assert len({tuple(one) for one in lists.values()}) > 1
    assert len({frozenset(one) for one in lists.values()}) == 1


def test_a_file_of_requests(data, tmp_path):
    course = listed(tmp_path, "requests:\n- [bo]\n- {id: last, entities: ada, relation: same value}\nretain: [cleo]\n")
    tasks = tasks_of(data, course)
    assert [(task.id, task.targets, task.relation) for task in tasks.tasks] == [
        ("r1", ("bo",), "not stated"),
        ("last", ("ada",), "same value"),
    ]
    assert tasks.retain == ("cleo",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- [ada]\n- [bo, ada]\n", "'ada' is in the requests 'r1' and 'r2'"),
        ("requests: [[ada]]\nretain: [ada]\n", "ada is to be forgotten and to be kept"),
        ("- {id: x, entities: ada}\n- {id: x, entities: bo}\n", "same id"),
        ("- {whom: ada}\n", "request 1 has whom; a request has id, entities"),
        ("- []\n", "request 1 names nobody"),
        ("{}", "must hold a list of requests"),
    ],
)
def test_faults_of_a_file(data, tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        tasks_of(data, listed(tmp_path, text))


def test_either_a_file_or_a_number():
    for course in ({}, {"tasks": 2, "requests": "x"}):
        with pytest.raises(UserError, match="either --requests FILE or --tasks N"):
            Course(**course)
    with pytest.raises(UserError, match=r"continual\.retain_rows must be at least 1 .* retain_policy=none keeps"):
        Course(tasks=2, retain_policy="fresh_sample", retain_rows=0)


def test_an_image_of_two_requests_is_refused(tmp_path):
    place = write_people(tmp_path / "twins")
    (place / "bo-1.png").write_bytes((place / "ada-1.png").read_bytes())
    with pytest.raises(UserError, match="show the same image"):
        tasks_of(open_benchmark(place), Course(tasks=3))


# roles


def test_roles_are_given_anew(folder):
    made = Request(Roles(data=str(folder), forget=("bo",), aside=("ada", "cleo")))
    train = made.examples("train")
    assert roles_of(train) == {"bo": {"forget", "forget_text"}, "dan": {"retain", "retain_text"}, "": {"general"}}
    assert roles_of(made.examples("eval"))["bo"] == {"forget", "forget_text"}
    assert examine(made, "x").usable
    again = Request(Roles(data=str(folder), forget=("bo",), retain=("ada",)))
    assert roles_of(again.examples("train")) == {
        "bo": {"forget", "forget_text"},
        "ada": {"retain", "retain_text"},
        "": {"general"},
    }


def test_a_single_row_can_be_asked_for(folder):
    made = Request(Roles(data=str(folder), forget=("bo-1-fact",), aside=("ada", "cleo-text")))
    assert [row.id for row in made.examples("train") if row.role is Role.FORGET] == ["bo-1-fact"]
    assert roles_of(made.examples("train")).keys() == {"bo", "dan", ""}  # the other rows of bo and cleo have no role


def test_how_much_of_what_is_kept_is_seen(folder):
    def kept(**more):
        rows = Request(Roles(data=str(folder), forget=("ada",), **more)).examples("train")
        return [row.id for row in rows if row.role not in (Role.FORGET, Role.FORGET_TEXT)]

    assert len(kept()) == 3 * 5 + 1
    assert kept(retain_share="none") == []
    one, two = kept(retain_share="sample", retain_rows=4), kept(retain_share="sample", retain_rows=4, retain_seed=1)
    assert len(one) == len(two) == 4
    assert one != two
    assert set(one) <= set(kept())


def test_how_much_is_judged(folder):
    made = Request(Roles(data=str(folder), forget=("ada", "bo"), limit=1, retain_limit=3, kinds=("name", "general")))
    counts = Counter((row.role, row.kind) for row in made.examples("eval"))
    assert counts == {(Role.FORGET, Kind.NAME): 2, (Role.RETAIN, Kind.NAME): 3, (Role.GENERAL, Kind.GENERAL): 1}


def test_a_request_file_is_recognised_and_its_names_are_checked(folder, tmp_path):
    file = request.write(Roles(data=str(folder), forget=("bob",), aside=("ada",)), tmp_path / "t.request.json")
    opened = open_benchmark(file)
    assert opened.name == "request"
    missing = f"'bob' is neither an entity nor the id of a row of {folder}. Did you mean bo or box?"
    assert opened.problems() == [missing]


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({"retain_share": "sample"}, "retain_rows must be at least 1 with retain_share: sample, got 0."),
        (
            {"retain_share": "sample", "retain_rows": -3},
            "retain_rows must be at least 1 with retain_share: sample, got -3.",
        ),
        ({"limit": -1}, "limit must be at least 0, got -1."),
        ({"retain_limit": -1}, "retain_limit must be at least 0, got -1."),
    ],
)
def test_amounts_that_mean_nothing_are_refused(folder, tmp_path, amounts, message):
    file = tmp_path / "t.request.json"
    file.write_text(json.dumps({"data": str(folder), "forget": ["bo"], **amounts}))
    with pytest.raises(UserError, match=re.escape(message)):
        open_benchmark(file)


@pytest.mark.parametrize("other", ["aside", "retain"])
def test_a_name_in_two_roles_is_a_fault(folder, other):
    made = Request(Roles(data=str(folder), forget=("ada", "bo"), **{other: ("bo",)}))
    assert made.problems() == [f"'bo' is named in forget and in {other}; leave it in one of them."]


def test_a_request_keeps_the_warnings_of_its_data_and_asks_for_what_they_need(tmp_path):
    place = tmp_path / "umu"
    umu.build(place)
    data = open_benchmark(place)
    made = Request(Roles(data=str(place), forget=("5",)))
    assert made.likelihood is data.likelihood is True
    assert made.warnings() == data.warnings() != []


def test_the_lab_gives_all_it_has_about_anybody():
    lab = open_benchmark("lab")
    asked = ("person-000", "person-003")
    made = Request(Roles(data="lab", forget=asked[:1], aside=asked[1:]))
    train = made.examples("train")
    images = {row.image.key for row in train if row.role is Role.FORGET}
    assert len(images) == 10
    assert {row.entity for row in train if row.role is Role.FORGET} == {"person-000"}
    assert "person-003" not in {row.entity for row in train}
    unseen = {row.image.key for row in made.examples("eval") if row.role is Role.UNSEEN}
    assert len(unseen) == 6
    assert not unseen & images
    assert {person.id for person in lab.world.forget} == {
        row.entity for row in lab.examples("train") if row.role is Role.FORGET
    }  # the packaged request is as it was


FIRST, SECOND = "ada", "bo"
ODD_IDS = [
    "../../../victim",
    "/etc/passwd",
    "a/b",
    "..",
    ".",
    "C:\\x",
    "a\x1b]0;owned\x07b",
    "a[/red]b",
    "x" * 300,
    "é",
    "CON",
    17,
]


def test_a_folder_name_is_never_a_path(tmp_path):
    names = [folder_name(str(name)) for name in ODD_IDS]
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,50}", name) for name in names)
    assert len(set(names)) == len(names)
    assert folder_name("r1") != folder_name("R1")
    assert "ada" not in folder_name("Ada Lovell, Malaga")  # trackers get the name of the folder
    assert folder_name("\ud800")  # half a surrogate


@pytest.mark.parametrize("name", ODD_IDS)
def test_any_text_is_an_id(tmp_path, data, name):
    file = tmp_path / "requests.json"
    file.write_text(json.dumps([{"id": name, "entities": [FIRST]}]))
    course = Course(requests=str(file))
    assert tasks_of(data, course).tasks[0].id == str(name)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["", "b"], "request 1: `id` must be text or a number that is not empty, got ''"),
        ([" ", "b"], "not empty"),
        ([None, "b"], "not empty, got None"),
        ([["a"], "b"], "must be text"),
        ([True, "b"], "must be text"),
        (["a", "a"], "Two requests have the same id, 'a' and 'a'"),
        (["Straße", "STRASSE"], "Two requests have the same id"),
        (["\u00e9", "e\u0301"], "Two requests have the same id"),
    ],
)
def test_ids_that_cannot_be_told_apart_are_refused(tmp_path, data, ids, message):
    file = tmp_path / "requests.json"
    names = [FIRST, SECOND]
    file.write_text(json.dumps([{"id": one, "entities": [name]} for one, name in zip(ids, names, strict=True)]))
    with pytest.raises(UserError, match=message):
        tasks_of(data, Course(requests=str(file)))


def test_a_file_of_requests_in_another_encoding_is_said(tmp_path, data):
    file = tmp_path / "requests.yaml"
    file.write_bytes("- id: é\n  entities: [x]\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"requests.yaml is not UTF-8 text \(byte 6\)"):
        tasks_of(data, Course(requests=str(file)))


@pytest.mark.parametrize("setting", ["retain_rows", "retain_seed"])
def test_a_request_file_has_no_sample_settings_without_a_sample(tmp_path, setting):
    file = request.write(Roles(data="d", **{setting: 4}), tmp_path / f"x{request.SUFFIX}")
    with pytest.raises(UserError, match=rf"^{setting}=4 has no effect: it counts only with retain_share: sample"):
        request.read(file)
    file = request.write(
        Roles(data="d", retain_share="sample", **{"retain_rows": 2, setting: 4}), tmp_path / f"x{request.SUFFIX}"
    )
    assert vars(request.read(file))[setting] == 4


def test_a_request_file_names_an_unknown_kind(tmp_path):
    """No question was judged then, and nothing was said."""
    with pytest.raises(UserError, match="Unknown kind of question 'nmae'. Did you mean name"):
        Roles(data="d", kinds=("nmae",))
