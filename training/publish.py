"""Turns a trained network into a model folder. All numbers in its manifest are chosen here, on the tuning pictures alone."""

import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image

from infrastructure.inference.models.manifest import load_manifest
from infrastructure.inference.preprocessing import Preprocessing, prepare
from infrastructure.inference.scoring import measures
from training.calibration import temperature
from training.export import Description, sha256, write_onnx, write_record, write_test_tensors
from training.fit import HALF, Course
from training.measure import by_source, flagged, judged, quality
from training.network import CellNetwork
from training.pictures import data_digest
from training.served import embedded, gates, knowing, write_int8
from training.sessions import run
from training.sets import png

OUTPUTS = {"logits": 0, "distance": 1}
CALIBRATION = 200
ASKED_OF_HUMANS = 0.02
"""Share of the tuning pictures of known classes that may get no clear result."""


class Known(NamedTuple):
    """Encoded pictures, and the index of the label of each."""

    encoded: list[bytes]
    classes: NDArray[np.int64]

    def tensors(self, how: Preprocessing) -> NDArray[np.float32]:
        return np.stack([prepare(data, how) for data in self.encoded])


class Strange(NamedTuple):
    """Encoded foreign pictures, of the sources on which `other` was trained."""

    sources: list[str]
    encoded: list[bytes]


def pictured(found: Iterator[tuple[str, NDArray[np.uint8]]]) -> Strange:
    sources, pixels = zip(*found, strict=True)
    return Strange(list(sources), [png(Image.fromarray(one)) for one in pixels])


def publish(
    network: CellNetwork,
    out: Path,
    about: Description,
    course: Course,
    *,
    labels: list[str],
    other: str,
    how: Preprocessing,
    train: Known,
    tune: Known,
    strange: Strange,
    resumed: bool = False,
) -> None:
    """Write model.onnx, model-int8.onnx, test tensors, labels.txt, rdf.yaml and the first part of metrics.json into `out`.

    `resumed` means that the network comes from a checkpoint, so the duration of its training is unknown.
    """
    out.mkdir(parents=True, exist_ok=True)
    seen, held = train.tensors(how), tune.tensors(how)
    served = knowing(network, embedded(network, seen), train.classes, own=len(labels) - 1)
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
    _note(out, course, labels, tune, strange, resumed=resumed)


def _review_threshold(out: Path, tune: Known, other: str) -> float:
    """The highest top probability for which, with gates and `other`, no more than ASKED_OF_HUMANS get no clear result."""
    found = judged(out, tune.encoded).judgements
    plain = [judgement.confidence for judgement in found if judgement.status == "accepted" and judgement.label != other]
    left = int(ASKED_OF_HUMANS * len(found)) - (len(found) - len(plain))
    return round(sorted(plain)[max(left, 1)], 4)


def _note(out: Path, course: Course, labels: list[str], tune: Known, strange: Strange, *, resumed: bool) -> None:
    """Write how the model was trained, and its figures on the tuning pictures. `evaluate` adds the report."""
    record = load_manifest(out)
    reached = quality(record, judged(out, tune.encoded), [labels[index] for index in tune.classes])
    foreign = judged(out, strange.encoded).judgements
    made = {
        "seed": course.seed,
        "epochs": sum(epochs for epochs, _ in course.stages),
        "data": data_digest(),
        "convolutions": "bfloat16" if HALF else "float32",
        "processor_minutes": None if resumed else time.process_time() / 60,
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "onnx": onnx.__version__,
            "numpy": np.__version__,
        },
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "tuning": {name: reached[name] for name in ("pictures", "balanced_accuracy", "ece", "flagged")}
        | {"recall": {label: one["recall"] for label, one in reached["per_class"].items()}},
        "tuning_foreign": {
            "pictures": len(foreign),
            "flagged": flagged(record, foreign),
            "by_source": by_source(record, strange.sources, foreign),
        },
    }
    print(f"tuning pictures: balanced accuracy {reached['balanced_accuracy']:.4f}, recall {made['tuning']['recall']}", flush=True)
    sums = {"fp32": record.sha256, "int8": sha256(out / "model-int8.onnx")}
    (out / "metrics.json").write_bytes(msgspec.json.format(msgspec.json.encode({"sha256": sums, "training": made}), indent=1) + b"\n")


def _write(out: Path, about: Description, labels: list[str], how: Preprocessing, serving: dict[str, Any]) -> None:
    write_record(out, about, labels, how, OUTPUTS | {"logits": len(labels)}, serving)


def _file(path: Path) -> dict[str, Any]:
    return {"file": path.name, "sha256": sha256(path), "size_bytes": path.stat().st_size}
