"""Interpretation of a model's outputs for one image: label, confidence, scores, and the out-of-domain gates. Pure functions."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from application.result_rules import DECIMALS, MAX_ROUNDING, MAX_SUM_DIFFERENCE, within
from domain.model import NONE_APPLIES
from infrastructure.inference.models.manifest import OutOfDomainGates, scores
from infrastructure.inference.packages.package_manifest import PackageManifest
from infrastructure.inference.preprocessing import Preprocessing, Tensor, colours

LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


class Interpretation(msgspec.Struct, frozen=True, kw_only=True):
    """`scores` are in the order of `result_labels`; `value` is the number of a regression. `reasons` are the gates that `signals` fail."""

    label: str
    confidence: float
    scores: tuple[float, ...]
    value: float | None
    signals: dict[str, float]
    reasons: tuple[str, ...]


class NotOfItsKind(ValueError):
    """Numbers of a network that are no result of the kind that its manifest declares. The message is a sentence about "it"."""


def result_labels(manifest: PackageManifest) -> tuple[str, ...]:
    """The labels of results: those of the manifest, and for `multi_label` that of an image to which none of them applies."""
    return (*manifest.labels, NONE_APPLIES) if manifest.kind == "multi_label" else manifest.labels


def interpret(outputs: Mapping[str, NDArray[Any]], manifest: PackageManifest, *, picture: Mapping[str, float]) -> Interpretation:
    """Interpret the outputs for one image by their ids; `picture` are the measures of its picture. Raises NotOfItsKind.

    docs/models/format.md has the table of kinds.
    """
    values = np.asarray(outputs[manifest.scored_output], np.float64).reshape(-1)
    _require(f"gives {len(values)} numbers for {len(manifest.labels)} labels", holds=len(values) == len(manifest.labels))
    _require("gives numbers that are not finite", holds=bool(np.isfinite(values).all()))
    signals = dict(picture)
    if manifest.kind == "logits":
        signals["energy"] = energy(values)
    if manifest.distance_output is not None:
        signals["distance"] = _first_number(outputs[manifest.distance_output])
    label, confidence, found, value = _result(values, manifest)
    return Interpretation(
        label=label, confidence=confidence, scores=found, value=value, signals=signals, reasons=outside(signals, manifest.gates)
    )


def _first_number(output: NDArray[Any]) -> float:
    _require("gives an empty distance", holds=output.size > 0)
    number = float(output.reshape(-1)[0])
    _require("gives a distance that is not finite", holds=isfinite(number))
    return number


class _Result(NamedTuple):
    label: str
    confidence: float
    scores: tuple[float, ...]
    value: float | None = None


def _result(values: NDArray[np.float64], manifest: PackageManifest) -> _Result:
    match manifest.kind:
        case "logits":
            return _most_probable(scores(values, manifest.temperature), manifest.labels)
        case "softmax":
            probabilities = _within_0_and_1(values)
            total = float(values.sum())
            _require(f"gives probabilities that add up to {total:.6g} instead of 1", holds=abs(total - 1) <= MAX_SUM_DIFFERENCE)
            return _most_probable(probabilities, manifest.labels)
        case "multi_label":
            return _applying(_within_0_and_1(values), manifest)
        case "regression":
            assert manifest.range is not None
            return _number(float(values[0]), manifest.labels[0], manifest.range)
        case _:
            raise NotOfItsKind(f"is of the kind {manifest.kind}, which is not run here")


def _most_probable(probabilities: NDArray[np.float64], labels: Sequence[str]) -> _Result:
    top = int(probabilities.argmax())
    return _Result(labels[top], float(probabilities[top]), tuple(probabilities.tolist()))


def _applying(values: NDArray[np.float64], manifest: PackageManifest) -> _Result:
    """The label with the highest score, where that reaches the threshold as results show it: rounded."""
    shown = values.round(DECIMALS)
    top = int(shown.argmax())
    highest = float(shown[top])
    found = (*shown.tolist(), 1 - highest)
    return _Result(manifest.labels[top], highest, found) if highest >= manifest.threshold else _Result(NONE_APPLIES, 1 - highest, found)


def _number(value: float, quantity: str, bounds: tuple[float, float]) -> _Result:
    lowest, highest = bounds
    found = within(value, bounds)
    if found is None:
        raise NotOfItsKind(f"it gives {value:.6g}; a result lies between {lowest:.6g} and {highest:.6g}")
    return _Result(quantity, 0.0, ((found - lowest) / (highest - lowest),), found)


def _within_0_and_1(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without the rounding errors of the network."""
    _require("gives scores below 0 or above 1", holds=bool((values >= -MAX_ROUNDING).all() and (values <= 1 + MAX_ROUNDING).all()))
    return np.clip(values, 0.0, 1.0)


def _require(otherwise: str, *, holds: bool) -> None:
    if not holds:
        raise NotOfItsKind(f"it {otherwise}")


def measures(tensor: Tensor, how: Preprocessing) -> dict[str, float]:
    """The measures of the network's input in the older form."""
    return picture_measures(colours(tensor, how) / 255)


def picture_measures(picture: NDArray[np.floating[Any]]) -> dict[str, float]:
    """Measures of an RGB picture, (height, width, 3) from 0 to 1, with luma weights of ITU-R BT.601.

    brightness: mean luma. contrast: standard deviation of luma. saturation: mean over pixels of (max - min) over the colours.
    focus: mean absolute Laplacian of luma divided by contrast, so that a blurred picture scores low at any contrast; 0 for a picture of
    fewer than 3 pixels along an edge.
    """
    luma = picture @ LUMA
    contrast = float(luma.std())
    edges = np.abs(4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:])
    return {
        "brightness": float(luma.mean()),
        "contrast": contrast,
        "saturation": float((picture.max(axis=2) - picture.min(axis=2)).mean()),
        "focus": float(edges.mean()) / max(contrast, 1e-3) if edges.size else 0.0,
    }


def energy(logits: NDArray[np.float64]) -> float:
    """The log of the sum of exp(logits), high if some class has strong support (Liu et al. 2020, arXiv:2010.03759, negated)."""
    highest = logits.max()
    return float(highest + np.log(np.exp(logits - highest).sum()))


def outside(signals: dict[str, float], gates: OutOfDomainGates) -> tuple[str, ...]:
    """The measures outside the gates, such as `contrast too low`."""
    found = []
    for name, value in signals.items():
        lowest, highest = getattr(gates, f"{name}_above", None), getattr(gates, f"{name}_below", None)
        if lowest is not None and value < lowest:
            found.append(f"{name} too low")
        if highest is not None and value > highest:
            found.append(f"{name} too high")
    return tuple(found)
