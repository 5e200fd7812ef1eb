"""Every formula of continual unlearning, with numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from unsee.metrics import continual as metrics

A = (
    (1.0, 0.8, 0.6, 1.0),
    (0.2, 0.8, 0.6, 0.9),
    (0.3, 0.1, 0.5, 0.9),
    (0.1, 0.4, 0.0, 0.7),
    (0.2, 0.2, 0.2, 0.1),
)
"""Five models (the original model first), four requests."""
NEVER = None


def close(found, wanted):
    assert [value is None for value in found] == [value is None for value in wanted]
    known = [(a, b) for a, b in zip(found, wanted, strict=True) if b is not None]
    assert [a for a, _ in known] == pytest.approx([b for _, b in known])


def test_current_forgetting_is_one_minus_the_diagonal():
    close(metrics.current_forgetting(A), [0.8, 0.9, 1.0, 0.9])


def test_normalised_forgetting_counts_from_start_to_oracle_clipped():
    oracle = (0.0, 0.2, 0.6, 0.5)  # gaps 1, .6, 0, .5; losses .8, .7, .6, .9
    close(metrics.normalised_forgetting(A, oracle), [0.8, 0.7 / 0.6, NEVER, 1.5])


def test_history_is_the_mean_left_of_the_diagonal():
    close(metrics.historical_memory(A), [NEVER, 0.3, (0.1 + 0.4) / 2, (0.2 + 0.2 + 0.2) / 3])
    close(metrics.historical_preservation(A), [NEVER, 0.7, 0.75, 0.8])


def test_rebound_over_equal_sets_of_requests():
    # t=2: .3 - .2; t=3: (.1+.4)/2 - (.3+.1)/2; t=4: .2 - (.1+.4+0)/3
    close(metrics.rebound(A), [NEVER, 0.1, 0.05, 0.2 - 0.5 / 3])


def test_rebound_over_running_sets_hides_what_a_new_request_brings():
    # A_HF = -, .3, .25, .2 falls all the time
    close(metrics.rebound(A, support="running"), [NEVER, NEVER, 0.0, 0.0])


def test_rebound_is_never_negative():
    assert metrics.rebound([[1, 1], [0.5, 1], [0.1, 0]])[1] == 0


def test_rebound_of_each_request_counts_from_its_best_moment():
    found = metrics.task_rebound(A)
    assert [len(row) for row in found] == [0, 1, 2, 3]
    close(found[1], [0.3 - 0.2])
    close(found[2], [0.0, 0.4 - 0.1])
    close(found[3], [0.2 - 0.1, 0.2 - 0.1, 0.2 - 0.0])


def test_transfer_to_requests_not_yet_made():
    close(metrics.transfer(A), [0.1 / 3, (0.1 + 0.1) / 2, 0.3, NEVER])


def test_models_may_be_judged_only_now_and_then():
    rows, at = (A[0], A[2], A[4]), (0, 2, 4)
    close(metrics.current_forgetting(rows, at), [0.9, 0.9])
    close(metrics.historical_preservation(rows, at), [0.7, 0.8])
    close(metrics.rebound(rows, at), [NEVER, 0.0])  # both over requests 1 and 2: .2 - .2
    close(metrics.transfer(rows, at), [0.1, NEVER])
    close(metrics.task_rebound(rows, at)[1], [0.0, 0.1, 0.0])  # of what was seen: minima .2, .1, .2


def test_a_matrix_and_its_steps_must_fit():
    with pytest.raises(ValueError, match="longer"):
        metrics.current_forgetting(A, (0, 1))


def test_stability_rate():
    assert metrics.stability_rate([0.4, 0.4, 0.4]) == 0
    assert metrics.stability_rate([1, 0.9, 1]) == pytest.approx(0.1)
    assert metrics.stability_rate([1]) is None


def test_relative_to_the_start_model():
    close(metrics.relative([0.8, 0.4, 1.0]), [1.0, 0.5, 1.25])
    close(metrics.relative([0.0, 0.4]), [NEVER, NEVER])


@pytest.mark.parametrize("at", [None, (0, 1, 2, 5, 10)])
def test_drift_and_area_against_numpy(at):
    curve = [0.9, 0.7, 0.8, 0.3, 0.35]
    steps = at or range(5)
    lost, slope = metrics.drift(curve, at)
    assert lost == pytest.approx(0.55)
    assert slope == pytest.approx(np.polyfit(steps, curve, 1)[0])
    assert metrics.area(curve, at) == pytest.approx(np.trapezoid(curve, steps) / (steps[-1] - steps[0]))
    assert metrics.deviation(curve) == pytest.approx(np.std(curve))


def test_overall_is_a_harmonic_mean_that_a_broken_model_cannot_win():
    assert metrics.overall([1.0, 1.0, 0.5, 0.5]) == pytest.approx(4 / (1 + 1 + 2 + 2))
    assert metrics.overall([1.0, 1.0, 0.0, 1.0]) == 0
