"""Adds to a trained network what the product serves: distance to the known classes, gates, int8 weights."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from training.network import CellNetwork
from training.sessions import INPUT

SHRINKAGE = 0.05


class Served(nn.Module):
    """Logits, and the distance of the embedding to the nearest known class.

    It is the Mahalanobis distance under one covariance for all classes, divided by the root of the dimension: about 1 for a familiar
    picture (Lee et al. 2018, arXiv:1807.03888).
    """

    def __init__(self, network: CellNetwork, means: Tensor, whitening: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("means", means @ whitening)
        self.register_buffer("whitening", whitening)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.network.embedding(x)
        apart = (embedding @ self.whitening).unsqueeze(1) - self.means.unsqueeze(0)
        nearest = (apart * apart).mean(2).min(1, keepdim=True).values
        return self.network.head(embedding), nearest.sqrt()


def knowing(network: CellNetwork, embeddings: NDArray[np.float32], classes: NDArray[np.int64], *, own: int) -> Served:
    """Add distances to the first `own` classes, from embeddings (N, dimension) of training pictures."""
    means = np.stack([embeddings[classes == one].mean(axis=0) for one in range(own)])
    residuals = np.concatenate([embeddings[classes == one] - means[one] for one in range(own)]).astype(np.float64)
    covariance = residuals.T @ residuals / len(residuals)
    covariance += SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    return Served(network, torch.from_numpy(means).float(), torch.from_numpy(whitening).float())


@torch.no_grad()
def embedded(network: CellNetwork, tensors: NDArray[np.float32], *, batch: int = 256) -> NDArray[np.float32]:
    return np.concatenate(
        [network.embedding(torch.from_numpy(tensors[start : start + batch])).numpy() for start in range(0, len(tensors), batch)]
    )


def gates(
    signals: list[dict[str, float]], distances: list[float], *, outside: float = 0.0005, slack: float = 0.1, far: float = 0.997
) -> dict[str, float]:
    """Bounds of each measure: quantiles `outside` and 1 - `outside` of the training pictures, widened by `slack`; `far` for distance."""
    found = {}
    for name in ("brightness", "contrast", "saturation", "focus"):
        values = np.array([signal[name] for signal in signals])
        low, high = np.quantile(values, [outside, 1 - outside])
        found[f"{name}_above"] = round(float(low * (1 - slack)), 4)
        found[f"{name}_below"] = round(float(high * (1 + slack)), 4)
    found["distance_below"] = round(float(np.quantile(distances, far)), 4)
    return found


def write_int8(source: Path, target: Path, tensors: NDArray[np.float32]) -> None:
    """Quantise the convolutions statically, per channel, with ranges from `tensors`. Heads and distance stay in float."""
    model = onnx.load(source)
    del model.graph.value_info[:]
    cleared = target.with_suffix(".tmp")
    onnx.save(model, cleared)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(
            cleared,
            target,
            _Tensors(tensors),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add", "Relu"],
            calibrate_method=CalibrationMethod.MinMax,
        )
    cleared.unlink()


class _Tensors(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, tensors: NDArray[np.float32]) -> None:
        self.rest = iter([tensors[start : start + 16] for start in range(0, len(tensors), 16)])

    def get_next(self) -> dict[str, Any] | None:
        following = next(self.rest, None)
        return None if following is None else {INPUT: following}
