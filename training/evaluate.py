"""`python -m training.evaluate MODEL_FOLDER ... [--data DIR] [--write]`: compares the shipped models with their goals.

Without --data, the figures come from metrics.json of each folder, after a check that it belongs to the weights in the folder.
With --data, all figures are measured again from the pictures. --write stores them in metrics.json and docs/models, with plots if
matplotlib is installed.
The exit code is 1 if a goal is missed.
"""

import argparse
import hashlib
import importlib.util
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import PIL
from rich.console import Console
from rich.table import Table

from infrastructure.inference.models.manifest import ModelManifest, Weights, load_manifest
from infrastructure.inference.preprocessing import digest
from training.card import refresh
from training.goals import goals
from training.measure import Judged, by_source, flagged, interval, judged, plain, quality
from training.pictures import data_digest, data_folder
from training.sessions import images_per_second
from training.sets import WHITE_CELLS, Report, Set, digest_of, for_model

CARDS = Path(__file__).parents[1] / "docs" / "models"


def measured(folder: Path, data: Path) -> tuple[dict[str, Any], dict[str, Judged], Report]:
    """The metrics, and the judgements and pictures that they are computed from."""
    record = load_manifest(folder)
    report = for_model(record.name, data)
    found = {name: judged(folder, chosen.encoded) for name, chosen in report.familiar.items()}
    found["foreign"] = judged(folder, report.foreign.encoded)
    found |= {name: judged(folder, chosen.encoded) for name, chosen in report.shifted.items()}
    return _metrics(folder, record, report, found), found, report


def _metrics(folder: Path, record: ModelManifest, report: Report, found: dict[str, Judged]) -> dict[str, Any]:
    assert record.int8, "a shipped model has both files"
    val = report.familiar["val"]
    light = judged(folder, val.encoded, weights=record.int8.file)
    metrics = {
        "model": record.name,
        "version": record.version,
        "sha256": {"fp32": record.sha256, "int8": record.int8.sha256},
        "bytes": record.size_bytes + record.int8.size_bytes,
        "preprocessing": digest(record.preprocessing),
        "labels": record.labels,
        "temperature": record.temperature,
        "review_below": record.review_below,
        "other_label": record.other_label,
        "data": data_digest(),
        "gates": msgspec.to_builtins(record.gates),
        "sets": {
            name: {"sha256": digest_of(chosen)} | quality(record, found[name], chosen.truths) for name, chosen in report.familiar.items()
        },
        "int8": quality(record, light, val.truths) | {"agrees_with_fp32": _agreement(found["val"], light)},
        "foreign": {
            "sha256": digest_of(report.foreign),
            "pictures": len(report.foreign.names),
            "flagged": flagged(record, found["foreign"].judgements),
            "by_source": by_source(record, report.foreign.truths, found["foreign"].judgements),
        },
        "images_per_second": _speeds(folder, record),
        "versions": {
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "pillow": PIL.__version__,
            "numpy": np.__version__,
        },
    }
    shifts = {name: _shift(record, chosen, found[name]) for name, chosen in report.shifted.items()}
    return metrics | ({"other_scanner": shifts} if shifts else {})


def _agreement(one: Judged, other: Judged) -> float:
    return float((one.logits.argmax(axis=1) == other.logits.argmax(axis=1)).mean())


def _shift(record: ModelManifest, shifted: Set, found: Judged) -> dict[str, Any]:
    """Results for cells from another scanner. Right means any class of white cells for WBC, and platelet for Platelets."""
    right = {"WBC": WHITE_CELLS, "Platelets": ("platelet",)}
    parts = {}
    for truth, accepted in right.items():
        mine = [judgement for judgement, label in zip(found.judgements, shifted.truths, strict=True) if label == truth]
        sure = [judgement for judgement in mine if plain(judgement, record.other_label)]
        parts[truth] = {
            "pictures": len(mine),
            "right": sum(judgement.label in accepted for judgement in mine) / len(mine),
            "called_other": sum(judgement.label == record.other_label for judgement in mine) / len(mine),
            "right_95": interval(sum(judgement.label in accepted for judgement in mine), len(mine)),
            "plain": len(sure) / len(mine),
            "right_of_plain": sum(judgement.label in accepted for judgement in sure) / len(sure) if sure else None,
            "said": dict(Counter(judgement.label for judgement in mine).most_common()),
        }
    return parts


def _speeds(folder: Path, record: ModelManifest) -> dict[str, float]:
    assert record.int8, "a shipped model has both files"
    tensors = np.repeat(np.load(folder / record.test_input.file)[:1], 16, axis=0)
    return {"fp32": images_per_second(folder / record.weights.file, tensors), "int8": images_per_second(folder / record.int8.file, tensors)}


def stored(folder: Path) -> dict[str, Any]:
    """metrics.json of a model folder. Raises SystemExit if it does not belong to the weights in the folder."""
    metrics: dict[str, Any] = msgspec.json.decode((folder / "metrics.json").read_bytes())
    for kind, weights in _files(load_manifest(folder)).items():
        found = hashlib.sha256((folder / weights.file).read_bytes()).hexdigest()
        if not metrics["sha256"][kind] == found == weights.sha256:
            raise SystemExit(f"{folder / 'metrics.json'} does not belong to {weights.file}: measure again with --data DIR --write")
    return metrics


def _files(record: ModelManifest) -> dict[str, Weights]:
    assert record.int8, "a shipped model has both files"
    return {"fp32": record.weights, "int8": record.int8}


def _show(metrics: dict[str, Any], console: Console) -> bool:
    table = Table(title=f"{metrics['model']} {metrics['version']}", title_justify="left")
    for column in ("goal", "bound", "found", ""):
        table.add_column(column, justify="left" if column == "goal" else "right")
    for goal in goals(metrics):
        sign = ">=" if goal.at_least else "<="
        table.add_row(goal.what, f"{sign} {goal.bound:g}", f"{goal.found:.4g}", "[green]reached" if goal.reached else "[red]missed")
    console.print(table)
    return all(goal.reached for goal in goals(metrics))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="MODEL_FOLDER")
    parser.add_argument("--data", type=Path, help="measure again from the pictures in this folder")
    parser.add_argument("--write", action="store_true", help="write metrics.json, and the figures and tables of the model card")
    given = parser.parse_args()
    console = Console()
    reached = [_show(_evaluated(folder, given.data, write=given.write), console) for folder in given.folders]
    sys.exit(0 if all(reached) else 1)


def _evaluated(folder: Path, data: Path | None, *, write: bool) -> dict[str, Any]:
    if data is None:
        return stored(folder)
    metrics, found, report = measured(folder, data_folder(data))
    if write:
        metrics = _rounded({"training": stored(folder)["training"]} | metrics)
        (folder / "metrics.json").write_bytes(msgspec.json.format(msgspec.json.encode(metrics), indent=1) + b"\n")
        refresh(CARDS / f"{metrics['model']}.md", metrics)
        if importlib.util.find_spec("matplotlib"):
            from training.figures import draw  # noqa: PLC0415 - only with the extra `train`

            draw(CARDS / "figures", metrics, found, report)
    return metrics


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, 5)
        case dict():
            return {name: _rounded(one) for name, one in value.items()}
        case list() | tuple():
            return [_rounded(one) for one in value]
        case _:
            return value


if __name__ == "__main__":
    main()
