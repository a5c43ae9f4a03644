"""What a model's numbers mean for a user: label and confidence, and whether to trust them. Pure functions on one image."""

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
    """`probabilities` follow the record's labels; `signals` are the measures that the gates saw, `reasons` those that failed."""

    label: str
    confidence: float
    probabilities: tuple[float, ...]
    status: Status
    signals: dict[str, float]
    reasons: tuple[str, ...]


def interpret(tensor: Tensor, outputs: Sequence[NDArray[Any]], record: ModelManifest) -> Interpretation:
    """`tensor` as given to the network, `outputs` its rows for this image in the order of `record.output_names` (logits first)."""
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
    """Of the RGB picture in 0..1 that the network sees.

    brightness: mean luma. contrast: standard deviation of luma. saturation: mean of (max - min) over the colours of a pixel.
    focus: mean absolute Laplacian of luma over contrast, so that a blurred picture scores low at any contrast.
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
    """log of the sum of exp(logits): high where some class is strongly supported (Liu et al. 2020, arXiv:2010.03759, sign turned)."""
    highest = logits.max()
    return float(highest + np.log(np.exp(logits - highest).sum()))


def outside(signals: dict[str, float], gates: OutOfDomainGates) -> tuple[str, ...]:
    """The measures that lie outside the gates, as `contrast too low`."""
    found = []
    for name, value in signals.items():
        lowest, highest = getattr(gates, f"{name}_above", None), getattr(gates, f"{name}_below", None)
        if lowest is not None and value < lowest:
            found.append(f"{name} too low")
        if highest is not None and value > highest:
            found.append(f"{name} too high")
    return tuple(found)
