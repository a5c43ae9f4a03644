"""Calibration metrics, on numbers with a known answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.inference.models.manifest import scores
from training.calibration import balanced_accuracy, bins, expected_calibration_error, temperature
from training.measure import interval


def said(top, count, right):
    """`count` pictures of two classes, all given class 0 with probability `top`; the first `right` of them rightly."""
    return np.tile([top, 1 - top], (count, 1)), np.array([0] * right + [1] * (count - right))


def test_a_model_as_sure_as_it_is_right_has_no_calibration_error():
    assert expected_calibration_error(*said(0.8, 100, 80)) == pytest.approx(0)


def test_the_calibration_error_is_the_distance_of_probability_and_accuracy():
    assert expected_calibration_error(*said(0.95, 100, 80)) == pytest.approx(0.15)
    over, under = said(0.95, 100, 80), said(0.6, 300, 210)
    both = np.concatenate([over[0], under[0]]), np.concatenate([over[1], under[1]])
    assert expected_calibration_error(*both) == pytest.approx((100 * 0.15 + 300 * 0.1) / 400)


def test_every_picture_lies_in_one_of_fifteen_bins():
    chance = np.random.default_rng(1)
    probabilities = scores(chance.normal(size=(500, 4)) * 3, 1.0)
    found = bins(probabilities, chance.integers(0, 4, 500))
    assert len(found) == 15
    assert sum(count for count, _, _ in found) == 500
    assert bins(np.array([[1.0, 0.0]]), np.array([0]))[-1] == (1, 1.0, 1.0)


@pytest.mark.parametrize("sharpened", [0.5, 1.0, 2.5])
def test_the_temperature_takes_back_what_sharpened_the_logits(sharpened):
    chance = np.random.default_rng(2)
    logits = chance.normal(size=(6_000, 3)) * 2
    classes = np.array([chance.choice(3, p=row) for row in scores(logits, 1.0)])
    assert temperature(logits * sharpened, classes) == pytest.approx(sharpened, rel=0.06)


def test_balanced_accuracy_weighs_every_class_alike():
    classes = np.array([0] * 90 + [1] * 10)
    assert balanced_accuracy(np.zeros(100, int), classes) == 0.5


@given(st.integers(1, 500).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_an_interval_holds_the_part_that_was_seen(counts):
    right, count = counts
    low, high = interval(right, count)
    assert 0 <= low <= right / count + 1e-9
    assert right / count - 1e-9 <= high <= 1
