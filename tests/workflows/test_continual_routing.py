"""Who answers: names, prototypes, and what is reported about a router's decisions."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from unsee.api import Role
from unsee.testing.tiny import PEOPLE, Drawn, person, tiny_examples
from unsee.workflows.continual import routing
from unsee.workflows.continual.routing import FeatureExtractor, Keyword, Nearest, Oracle, Routing, report, whitening

NAMES = Keyword(names={1: ("Ada Lovell", "Lovell"), 2: ("Bo Winter", "Winter")})
TEXT = tiny_examples()[Role.RETAIN_TEXT][0]


def asked(question):
    return replace(TEXT, question=question)


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("What does Ada Lovell do?", 1),
        ("Where does Mr. WINTER live?", 2),
        ("What happens in midwinter?", None),
        ("Is Lovell older than Bo Winter?", 2),  # the longest name that is said wins
        ("Who is this?", None),
    ],
)
def test_keywords_are_whole_names(question, wanted):
    assert NAMES.route(asked(question)) == wanted


def test_the_oracle_knows_only_experts_that_exist():
    oracle = Oracle(requests={"a": 1, "b": 3, "c": 0}, t=2)
    assert [oracle.route(replace(TEXT, id=name)) for name in "abc"] == [1, None, None]


def seeing(vectors):
    return FeatureExtractor(
        loaded=SimpleNamespace(), pooled_by_key={key: torch.tensor(value) for key, value in vectors.items()}
    )


def test_the_nearest_prototype_fires_if_it_is_near_enough():
    extractor = seeing({"red-0": [0.1, 0.0], "blue-0": [1.0, 0.8], "green-0": [0.5, 0.5]})
    router = Nearest(
        keyword=NAMES,
        extractor=extractor,
        prototypes_nd=torch.tensor([[0.0, 0.0], [1.0, 1.0]]),
        experts=(4, 7),
        limit=0.3,
    )
    found = [router.route(person(name, Role.UNSEEN)) for name in ("ada", "bo", "cleo")]
    assert found == [4, 7, None]  # squared distances .01, .04, .5
    assert router.route(asked("What does Ada Lovell do?")) == 1
    assert (
        router.route(replace(person("cleo", Role.UNSEEN), question="Is this Ada Lovell?")) is None
    )  # the image decides


def test_whitening_makes_the_variation_within_entities_equal():
    draw = torch.Generator().manual_seed(0)
    groups = [torch.randn(200, 2, generator=draw) * torch.tensor([10.0, 0.1]) + 5 * number for number in range(3)]
    matrix = whitening(groups)
    apart = torch.cat([group - group.mean(0) for group in groups])
    covariance = apart.T @ apart / (600 - 3)
    shrunk = covariance + routing.SHRINKAGE * covariance.trace() / 2 * torch.eye(2)
    assert torch.allclose(matrix @ shrunk @ matrix, torch.eye(2), atol=1e-4)
    assert whitening([]) is None


def test_the_threshold_lets_few_kept_images_through(monkeypatch):
    def drawn(name, mark):
        return replace(person(name, Role.RETAIN, mark), image=Drawn(PEOPLE[name][3], mark))

    draw = torch.Generator().manual_seed(1)
    vectors = {f"{PEOPLE[name][3]}-{mark}": (torch.randn(4, generator=draw) + 4 * place).tolist()
               for place, name in enumerate(PEOPLE) for mark in range(10)}  # fmt: skip
    monkeypatch.setattr(routing, "_feature_extractor", lambda model: seeing(vectors))
    rows = [drawn(name, mark) for name in PEOPLE for mark in range(10)]
    work = SimpleNamespace(run=SimpleNamespace(model="m"), course=SimpleNamespace(router_quantile=0.9))
    router = routing._nearest(work, rows, {"ada": 1, "bo": 2}, NAMES)
    routes = {name: [router.route(drawn(name, mark)) for mark in range(10)] for name in PEOPLE}
    assert routes["ada"].count(1) >= 8
    assert routes["bo"].count(2) >= 8
    assert sum(route is not None for name in ("cleo", "dan") for route in routes[name]) == 2  # a tenth of twenty
    assert router.experts == (1, 2)


def test_kept_images_of_nobody_are_not_of_one_person(monkeypatch):
    groups = []
    monkeypatch.setattr(
        routing, "_feature_extractor", lambda model: seeing({f"red-{mark}": [float(mark), 1.0] for mark in range(4)})
    )
    monkeypatch.setattr(routing, "whitening", groups.extend)
    kept = [replace(person("ada", Role.RETAIN, mark), entity="", image=Drawn("red", mark)) for mark in range(3)]
    work = SimpleNamespace(run=SimpleNamespace(model="m"), course=SimpleNamespace(router_quantile=0.9))
    asked = replace(person("ada", Role.FORGET, 3), image=Drawn("red", 3))
    routing._nearest(work, [asked, *(replace(row, id=f"k{n}") for n, row in enumerate(kept))], {"ada": 1}, NAMES)
    assert groups == []


def test_the_report_counts_what_it_says():
    rows = [
        Routing(number=1, route=1, image=True),
        Routing(number=1, route=None, image=True),
        Routing(number=2, route=1, image=False),
        Routing(number=3, route=None, image=True),  # not asked for yet
        Routing(number=0, route=2, image=True),
        Routing(number=0, route=None, image=False),
    ]
    found = report(rows, 2)
    assert found["precision"] == pytest.approx(1 / 3)
    assert found["recall"] == pytest.approx(1 / 3)
    assert found["abstention"] == pytest.approx(2 / 3)
    assert found["precision_image"] == pytest.approx(1 / 2)
    assert found["recall_image"] == pytest.approx(1 / 2)
    assert found["abstention_image"] == pytest.approx(1 / 2)
    assert report([], 1)["precision"] is None
