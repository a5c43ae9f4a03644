"""A trained network becomes a model folder: every number in its record is chosen here, on the tuning pictures alone."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infrastructure.judgement import measures
from infrastructure.preprocessing import Preprocessing, prepare
from training.calibration import temperature
from training.export import Description, sha256, write_onnx, write_record, write_test_tensors
from training.measure import judged
from training.network import CellNetwork
from training.served import embedded, gates, knowing, write_int8
from training.sessions import run

OUTPUTS = {"logits": 0, "distance": 1}
CALIBRATION = 200
ASKED_OF_HUMANS = 0.02
"""Part of familiar tuning pictures that may get no plain answer."""


class Known(NamedTuple):
    """Encoded pictures and the index of their label."""

    encoded: list[bytes]
    classes: NDArray[np.int64]

    def tensors(self, how: Preprocessing) -> NDArray[np.float32]:
        return np.stack([prepare(data, how) for data in self.encoded])


def publish(
    network: CellNetwork,
    out: Path,
    about: Description,
    *,
    labels: list[str],
    other: str | None,
    how: Preprocessing,
    train: Known,
    tune: Known,
) -> None:
    """Writes model.onnx, model-int8.onnx, test tensors, labels.txt and rdf.yaml into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    seen, held = train.tensors(how), tune.tensors(how)
    own = len(labels) - (other is not None)
    served = knowing(network, embedded(network, seen), train.classes, own=own)
    served.network.subtype_head = None
    write_onnx(served, out / "model.onnx", size=how.size, outputs=list(OUTPUTS))
    write_int8(out / "model.onnx", out / "model-int8.onnx", seen[:: max(1, len(seen) // CALIBRATION)])
    write_test_tensors(out, held[:3], list(OUTPUTS))
    logits, distance = run(out / "model.onnx", held, list(OUTPUTS))
    serving = {
        "temperature": round(temperature(logits, tune.classes), 4),
        "review_below": 0.0,
        "other_label": other,
        "gates": gates([measures(tensor, how) for tensor in seen], distance.ravel().tolist()),
        "int8": _file(out / "model-int8.onnx"),
    }
    _write(out, about, labels, how, serving)
    serving["review_below"] = _review_threshold(out, tune, other)
    _write(out, about, labels, how, serving)


def _review_threshold(out: Path, tune: Known, other: str | None) -> float:
    """The probability under which so many lie that, with gates and `other`, no more than the agreed part gets no plain answer."""
    found = judged(out, tune.encoded).judgements
    plain = [judgement.confidence for judgement in found if judgement.status == "accepted" and judgement.label != other]
    left = int(ASKED_OF_HUMANS * len(found)) - (len(found) - len(plain))
    return round(sorted(plain)[max(left, 1)], 4)


def _write(out: Path, about: Description, labels: list[str], how: Preprocessing, serving: dict[str, Any]) -> None:
    write_record(
        out, about, labels, how, OUTPUTS | {"logits": len(labels)}, {name: value for name, value in serving.items() if value is not None}
    )


def _file(path: Path) -> dict[str, Any]:
    return {"file": path.name, "sha256": sha256(path), "size_bytes": path.stat().st_size}
