"""Truth ratio, forget quality, utility and the yardstick: against scipy, the definitions spelled out, and the published table."""

import math
import random
from itertools import combinations, pairwise

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from unsee.metrics import open_mmunlearning
from unsee.metrics.distance import BINS, Intervals, intervals, js_divergence, ks_pvalue, ks_statistic
from unsee.metrics.truth_ratio import log_truth_ratio, truth_hidden, truth_preferred
from unsee.metrics.utility import harmonic_mean

VALUES = st.lists(st.floats(-50, 50), min_size=1, max_size=30)
ROUGHLY = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


# truth ratio


@given(st.floats(-30, 0), st.lists(st.floats(-30, 0), min_size=1, max_size=6))
def test_truth_ratio_is_the_ratio_of_geometric_means(true, false):
    ratio = np.exp(true) / scipy.stats.gmean(np.exp(false))
    log_ratio = log_truth_ratio(true, false)
    assert log_ratio == pytest.approx(math.log(ratio), abs=1e-9)
    assert truth_hidden(log_ratio) == pytest.approx(min(ratio, 1 / ratio), abs=1e-9)
    assert truth_preferred(log_ratio) == pytest.approx(max(0.0, 1 - 1 / ratio), abs=1e-9)


def test_truth_ratio_of_worlds_apart_does_not_overflow():
    assert truth_hidden(1e6) == truth_hidden(-1e6) == 0.0
    assert (truth_preferred(1e6), truth_preferred(-1e6)) == (1.0, 0.0)


def test_truth_ratio_needs_false_answers():
    with pytest.raises(ValueError, match="false answer"):
        log_truth_ratio(-1.0, ())


# distances


@given(st.one_of(VALUES, ROUGHLY), st.one_of(VALUES, ROUGHLY))
def test_ks_is_scipys(one, other):
    found = scipy.stats.ks_2samp(one, other)
    assert ks_statistic(one, other) == pytest.approx(found.statistic, abs=1e-12)
    assert ks_pvalue(one, other) == pytest.approx(found.pvalue, abs=1e-12)


def test_ks_pvalue_is_the_share_of_all_relabellings_that_are_as_extreme():
    one, other = (0.1, 0.4, 0.9, 2.0), (0.3, 1.5, 2.5, 2.7)
    everything, seen = (*one, *other), ks_statistic(one, other)
    extreme = [
        ks_statistic([everything[i] for i in left], [everything[i] for i in range(8) if i not in left]) >= seen - 1e-12
        for left in combinations(range(8), 4)
    ]
    assert ks_pvalue(one, other) == pytest.approx(sum(extreme) / len(extreme))


def slow_js(one, other):
    """Histogram by numpy on the pooled quantiles, distance by scipy."""
    pooled = np.sort([*one, *other])
    inner = [pooled[place * len(pooled) // BINS] for place in range(1, BINS)]
    edges = [-np.inf, *sorted({edge for edge in inner if edge > pooled[0]}), np.inf]
    counts = [[sum(low <= v < high for v in side) for low, high in pairwise(edges)] for side in (one, other)]
    return scipy.spatial.distance.jensenshannon(*counts, base=2)


@given(st.one_of(VALUES, ROUGHLY), st.one_of(VALUES, ROUGHLY))
def test_js_is_the_square_of_scipys_distance_of_the_histograms(one, other):
    wanted = slow_js(one, other)
    assert js_divergence(one, other) == pytest.approx(wanted**2, abs=1e-9)


@given(VALUES, VALUES, st.randoms())
@settings(max_examples=50)
def test_js_pairs_nothing_and_knows_no_scale(one, other, rng):
    mixed = rng.sample(one, len(one))
    assert js_divergence(one, mixed) == pytest.approx(0, abs=1e-12)
    assert js_divergence(one, other) == pytest.approx(js_divergence(mixed, other), abs=1e-12)
    assert js_divergence(one, other) == pytest.approx(js_divergence(other, one), abs=1e-12)


def test_js_sees_a_shift():
    one = [random.Random(place).gauss(0, 1) for place in range(100)]
    assert js_divergence(one, [value + 10 for value in one]) == 1.0
    assert 0.0 < js_divergence(one, [value + 0.5 for value in one]) < 0.3


@pytest.mark.parametrize("measure", [ks_statistic, ks_pvalue, js_divergence])
def test_nothing_and_no_number_cannot_be_compared(measure):
    with pytest.raises(ValueError, match="empty"):
        measure((), (1.0,))
    with pytest.raises(ValueError, match="finite"):
        measure((1.0,), (math.nan,))


def test_intervals_draw_entities_with_both_their_answers():
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=40), rng.normal(1.0, size=40)
    owners = [f"p{place // 4}" for place in range(40)]
    found = intervals(one.tolist(), other.tolist(), owners)
    ks, js = found.ks, found.js
    slow_ks = []
    for draw in np.random.default_rng(0).multinomial(10, np.full(10, 0.1), size=1000):
        rows = [row for row in range(40) for _ in range(draw[row // 4])]
        slow_ks.append(ks_statistic(one[rows].tolist(), other[rows].tolist()))
    assert ks == pytest.approx(np.quantile(slow_ks, [0.025, 0.975]), abs=1e-9)
    assert ks[0] <= ks_statistic(one.tolist(), other.tolist()) <= ks[1]
    assert 0 <= js[0] <= js_divergence(one.tolist(), other.tolist()) <= js[1] <= 1
    assert intervals(one.tolist(), one.tolist(), owners) == Intervals(ks=(0.0, 0.0), js=(0.0, 0.0))
    assert intervals([1.0, 2.0], [3.0, 4.0], ["p", "p"]) is None


# utility


@given(st.lists(st.floats(1e-3, 1), min_size=1, max_size=12))
def test_harmonic_mean_is_scipys(parts):
    assert harmonic_mean(parts) == pytest.approx(scipy.stats.hmean(parts))


def test_one_part_at_zero_is_no_utility_and_negative_parts_are_refused():
    assert harmonic_mean([0.0, 1.0]) == 0.0
    for parts in ([], [0.5, -0.1]):
        with pytest.raises(ValueError, match="parts"):
            harmonic_mean(parts)


# the yardstick: golden values of arXiv 2610.10358

FORGETTING = {
    "GA": ((0, 0, 0.003), (0, 0, 0.003), 0.393, 0, 0.330, 0.190, 0.774),
    "GD": ((8.33, 4.08, 0.155), (10.42, 7.76, 0.130), 0.432, 0.168, 0.130, 0.130, 0.781),
    "NPO": ((12.5, 30.61, 0.209), (6.25, 37.96, 0.130), 0.623, 0.345, 0.060, 0.269, 0.749),
    "MMUnlearner": ((8.33, 37.55, 0.186), (7.29, 33.06, 0.124), 0.467, 0.190, 0.130, 0.257, 0.739),
    "MIP-Editor": ((14.58, 40.82, 0.217), (10.42, 35.51, 0.152), 0.617, 0.489, 0.060, 0.252, 0.717),
}


def split(cloze, choice, rouge):
    return {"cloze": cloze / 100, "choice": choice / 100, "rouge": rouge}


@pytest.mark.parametrize("name", FORGETTING)
def test_forget_quality_of_the_published_parts(name):
    forget, test, ratio, prob, ks, js, wanted = FORGETTING[name]
    found = open_mmunlearning.forget_quality(
        forget=open_mmunlearning.split_forgetting(**split(*forget)),
        test=open_mmunlearning.split_forgetting(**split(*test)),
        truth_ratio=ratio,
        answer_prob=prob,
        ks=ks,
        js=js,
    )
    assert found == pytest.approx(wanted, abs=1e-3)


def test_a_missing_part_is_no_aggregate():
    whole = {"forget": 1.0, "test": 1.0, "truth_ratio": 0.5, "answer_prob": 0.0, "ks": 0.0, "js": 0.0}
    assert open_mmunlearning.forget_quality(**whole) == pytest.approx(0.9)
    for name in whole:
        assert open_mmunlearning.forget_quality(**{**whole, name: None}) is None
    assert open_mmunlearning.split_forgetting(cloze=None, choice=0.5, rouge=0.5) is None
