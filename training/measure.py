"""Measures a model folder on labelled pictures, with the code that the product uses. It needs onnxruntime, but not torch."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from infrastructure.inference.models.manifest import ModelManifest, load_manifest, manifest_as_json
from infrastructure.inference.packages.manifest_reader import parse_record
from infrastructure.inference.packages.package_manifest import PackageManifest
from infrastructure.inference.preprocessing import Tensor, prepare
from infrastructure.inference.scoring import Interpretation, interpret, measures
from training.calibration import balanced_accuracy, bins, expected_calibration_error, negative_log_likelihood
from training.sessions import run

Status = Literal["accepted", "needs_review", "out_of_domain"]

REPEATS = 1000


class PictureResult(Interpretation, frozen=True, kw_only=True):
    """`status` is what the product says of the result, where no other threshold is given."""

    status: Status


class Judged(NamedTuple):
    """Logits (N, classes) and interpretation of each picture, in the given order."""

    logits: NDArray[np.float32]
    judgements: list[PictureResult]


def judged(folder: Path, encoded: Sequence[bytes], *, weights: str | None = None) -> Judged:
    """Decode, preprocess, run and interpret, as an inference worker does."""
    record = load_manifest(folder)
    tensors = np.stack([prepare(data, record.preprocessing) for data in encoded])
    outputs = run(folder / (weights or record.weights.file), tensors, list(record.output_names))
    rows = [[output[index] for output in outputs] for index in range(len(tensors))]
    manifest = parse_record(manifest_as_json(folder))
    return Judged(outputs[0], [interpret_picture(tensor, row, manifest) for tensor, row in zip(tensors, rows, strict=True)])


def interpret_picture(tensor: Tensor, outputs: Sequence[NDArray[Any]], manifest: PackageManifest) -> PictureResult:
    """Of one picture in the older form of manifests. `outputs` are those that results are read from."""
    assert manifest.legacy_preprocessing is not None
    found = interpret(
        dict(zip(manifest.result_outputs, outputs, strict=True)), manifest, picture=measures(tensor, manifest.legacy_preprocessing)
    )
    status: Status = "out_of_domain" if found.reasons else "needs_review" if found.confidence < manifest.review_below else "accepted"
    return PictureResult(**msgspec.structs.asdict(found), status=status)


def quality(record: ModelManifest, found: Judged, truth: Sequence[str]) -> dict[str, Any]:
    """Accuracy, recall and precision per class, confusion (rows: truth), calibration, and the share without a clear result."""
    classes = np.array([record.labels.index(label) for label in truth])
    probabilities = np.array([judgement.scores for judgement in found.judgements])
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(record.labels), len(record.labels)), int)
    np.add.at(confusion, (classes, predicted), 1)
    return {
        "pictures": len(truth),
        "accuracy": float((predicted == classes).mean()),
        "accuracy_95": interval(int((predicted == classes).sum()), len(classes)),
        "balanced_accuracy": balanced_accuracy(predicted, classes),
        "balanced_accuracy_95": _balanced_interval(predicted, classes),
        "per_class": _per_class(record.labels, confusion),
        "confusion": confusion.tolist(),
        "ece": expected_calibration_error(probabilities, classes),
        "nll": negative_log_likelihood(probabilities, classes),
        "reliability": bins(probabilities, classes),
        "flagged": flagged(record, found.judgements),
    }


def flagged(record: ModelManifest, judgements: Sequence[PictureResult]) -> dict[str, float]:
    """Shares (0 to 1) without a clear result: in total (`any`), and by reason: `other`, out of domain, needs review."""
    total = len(judgements)
    kinds = Counter(_flag(record, judgement) for judgement in judgements)
    return {"any": 1 - kinds["accepted"] / total} | {kind: kinds[kind] / total for kind in ("other", "out_of_domain", "needs_review")}


def by_source(record: ModelManifest, sources: Sequence[str], judgements: Sequence[PictureResult]) -> dict[str, dict[str, Any]]:
    grouped: dict[str, list[PictureResult]] = defaultdict(list)
    for source, judgement in zip(sources, judgements, strict=True):
        grouped[source].append(judgement)
    return {source: {"pictures": len(mine), "flagged": flagged(record, mine)} for source, mine in sorted(grouped.items())}


def plain(judgement: PictureResult, other: str | None) -> bool:
    """Whether the result is clear: one of the own classes, in the domain, above the review threshold."""
    return judgement.status == "accepted" and judgement.label != other


def _flag(record: ModelManifest, judgement: PictureResult) -> str:
    return "other" if judgement.status != "out_of_domain" and judgement.label == record.other_label else judgement.status


def _per_class(labels: Sequence[str], confusion: NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for index, label in enumerate(labels):
        truth, predicted, right = int(confusion[index].sum()), int(confusion[:, index].sum()), int(confusion[index, index])
        if truth:
            found[label] = {
                "pictures": truth,
                "recall": right / truth,
                "recall_95": interval(right, truth),
                "precision": right / predicted if predicted else 0.0,
            }
    return found


def interval(right: int, count: int) -> list[float]:
    """The 95 % Wilson interval of a proportion."""
    part, z = right / count, 1.96
    middle = (part + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(part * (1 - part) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return [max(0.0, float(middle - half)), min(1.0, float(middle + half))]


def _balanced_interval(predicted: NDArray[np.int64], classes: NDArray[np.int64]) -> list[float]:
    """The 95 % interval by 1,000 bootstrap samples within the classes."""
    chance = np.random.default_rng(0)
    recalls = []
    for one in np.unique(classes):
        right = (predicted[classes == one] == one).astype(float)
        recalls.append(right[chance.integers(0, len(right), (REPEATS, len(right)))].mean(axis=1))
    low, high = np.percentile(np.mean(recalls, axis=0), [2.5, 97.5])
    return [float(low), float(high)]
