"""Interpretation of a model's outputs for one image: label, confidence, and the out-of-domain gate. Pure functions."""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from infrastructure.inference.models.manifest import ModelManifest, OutOfDomainGates, scores
from infrastructure.inference.preprocessing import Preprocessing, Tensor, colours

Status = Literal["accepted", "needs_review", "out_of_domain"]

LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


class Interpretation(msgspec.Struct, frozen=True, kw_only=True):
    """`probabilities` are in the order of the manifest's labels. `signals` are the measures; `reasons` are the failed gates."""

    label: str
    confidence: float
    probabilities: tuple[float, ...]
    status: Status
    signals: dict[str, float]
    reasons: tuple[str, ...]


def interpret(tensor: Tensor, outputs: Sequence[NDArray[Any]], record: ModelManifest) -> Interpretation:
    """Interpret the outputs for one image.

    `tensor` is the network's input, (3, size, size); `outputs` are its output rows in the order of `record.output_names`, logits first.
    """
    logits = np.asarray(outputs[0], np.float64)
    probabilities = scores(logits, record.temperature)
    top = int(probabilities.argmax())
    signals = measures(tensor, record.preprocessing) | {"energy": energy(logits)}
    if len(outputs) > 1:
        signals["distance"] = float(np.asarray(outputs[1]).reshape(-1)[0])
    reasons = outside(signals, record.gates)
    return Interpretation(
        label=record.labels[top],
        confidence=float(probabilities[top]),
        probabilities=tuple(probabilities.tolist()),
        status="out_of_domain" if reasons else "needs_review" if probabilities[top] < record.review_below else "accepted",
        signals=signals,
        reasons=reasons,
    )


def measures(tensor: Tensor, how: Preprocessing) -> dict[str, float]:
    """Measures of the network's input as RGB from 0 to 1, with luma weights of ITU-R BT.601.

    brightness: mean luma. contrast: standard deviation of luma. saturation: mean over pixels of (max - min) over the colours.
    focus: mean absolute Laplacian of luma divided by contrast, so that a blurred picture scores low at any contrast.
    """
    picture = colours(tensor, how) / 255
    luma = picture @ LUMA
    contrast = float(luma.std())
    edges = np.abs(4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:])
    return {
        "brightness": float(luma.mean()),
        "contrast": contrast,
        "saturation": float((picture.max(axis=2) - picture.min(axis=2)).mean()),
        "focus": float(edges.mean()) / max(contrast, 1e-3),
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
