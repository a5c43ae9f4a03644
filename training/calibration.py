"""Calibration of probabilities, and measures of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infrastructure.inference.models.manifest import scores

BINS = 15

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]


def temperature(logits: Floats, classes: Ints) -> float:
    """The divisor of the logits that maximises the likelihood of the true classes: a grid search from 0.2 to 5, in steps of 1 %."""
    candidates = np.exp(np.arange(np.log(0.2), np.log(5.0), 0.01))
    return float(min(candidates, key=lambda divisor: negative_log_likelihood(scores(logits, divisor), classes)))


def negative_log_likelihood(probabilities: Floats, classes: Ints) -> float:
    return float(-np.log(np.clip(probabilities[np.arange(len(classes)), classes], 1e-12, 1)).mean())


def bins(probabilities: Floats, classes: Ints) -> list[tuple[int, float, float]]:
    """For each of 15 equally wide bins of the top probability: count, mean probability, accuracy."""
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == classes
    place = np.minimum((top * BINS).astype(int), BINS - 1)
    found = []
    for index in range(BINS):
        here = place == index
        found.append((int(here.sum()), float(top[here].mean()) if here.any() else 0.0, float(right[here].mean()) if here.any() else 0.0))
    return found


def expected_calibration_error(probabilities: Floats, classes: Ints) -> float:
    """Mean of |probability - accuracy| of the bins, weighted by their counts (Guo et al. 2017, arXiv:1706.04599)."""
    total = max(len(classes), 1)
    return sum(count * abs(confidence - accuracy) for count, confidence, accuracy in bins(probabilities, classes)) / total


def balanced_accuracy(found: Ints, classes: Ints) -> float:
    """Mean recall over the classes that occur."""
    return float(np.mean([(found[classes == one] == one).mean() for one in np.unique(classes)]))
