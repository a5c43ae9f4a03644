"""Plots of the model cards."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from infrastructure.inference.preprocessing import decoded
from training.measure import Judged, plain
from training.sets import Report

mpl.use("Agg")
WORST = 32
A_ROW = 8


def draw(target: Path, metrics: dict[str, Any], found: dict[str, Judged], report: Report) -> None:
    """Write NAME-confusion, -reliability, -domain, -errors and -missed.png to the folder `target`."""
    target.mkdir(parents=True, exist_ok=True)
    drawn = {
        "confusion": _confusion(metrics),
        "reliability": _reliability(metrics),
        "domain": _domain(metrics, found),
        "errors": _errors(found["val"], report),
        "missed": _missed(metrics, found["foreign"], report),
    }
    for name, figure in drawn.items():
        _save(figure, target / f"{metrics['model']}-{name}.png", colours=256 if name in {"errors", "missed"} else 64)


def _save(figure: Figure, path: Path, *, colours: int) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=80, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    with Image.open(buffer) as picture:
        picture.convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)


def _confusion(metrics: dict[str, Any]) -> Figure:
    labels, counts = list(metrics["labels"]), np.array(metrics["sets"]["val"]["confusion"])
    rows = [index for index in range(len(labels)) if counts[index].sum()]
    parts = counts[rows] / counts[rows].sum(axis=1, keepdims=True)
    figure, axes = plt.subplots(figsize=(0.8 * len(labels) + 2, 0.6 * len(rows) + 2))
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, index in enumerate(rows):
        for column in range(len(labels)):
            if counts[index, column]:
                shade = "white" if parts[row, column] > 0.5 else "black"
                axes.text(column, row, counts[index, column], ha="center", va="center", color=shade)
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right")
    axes.set_yticks(range(len(rows)), [labels[index] for index in rows])
    axes.set_xlabel("model says")
    axes.set_ylabel("truth")
    axes.set_title(f"val: balanced accuracy {metrics['sets']['val']['balanced_accuracy']:.1%}")
    return figure


def _reliability(metrics: dict[str, Any]) -> Figure:
    val = metrics["sets"]["val"]
    filled = [(confidence, accuracy, count) for count, confidence, accuracy in val["reliability"] if count]
    figure, (axes, below) = plt.subplots(2, 1, figsize=(5, 6), height_ratios=(3, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":", label="perfect")
    axes.plot([one[0] for one in filled], [one[1] for one in filled], marker="o", label="model")
    axes.set_ylabel("part that is right")
    axes.set_title(f"val: expected calibration error {val['ece']:.3f}")
    axes.legend()
    below.bar([one[0] for one in filled], [one[2] for one in filled], width=0.04)
    below.set_yscale("log")
    below.set_xlabel("top probability")
    below.set_ylabel("pictures")
    return figure


def _domain(metrics: dict[str, Any], found: dict[str, Judged]) -> Figure:
    """Scores of val cells and foreign pictures: probability of the best own class, distance, and input measures, with their bounds."""
    other = metrics["labels"].index("other")
    gates = metrics["gates"]
    measures = {
        "probability of the best own class": (
            lambda one: max(part for index, part in enumerate(one.scores) if index != other),
            [metrics["review_below"]],
        ),
        "distance (8 and more: 8)": (lambda one: min(one.signals["distance"], 8.0), [gates["distance_below"]]),
        "contrast": (lambda one: one.signals["contrast"], [gates["contrast_above"], gates["contrast_below"]]),
        "saturation": (lambda one: one.signals["saturation"], [gates["saturation_above"], gates["saturation_below"]]),
        "focus": (lambda one: min(one.signals["focus"], 3.0), [gates["focus_above"], gates["focus_below"]]),
        "brightness": (lambda one: one.signals["brightness"], [gates["brightness_above"], gates["brightness_below"]]),
    }
    figure, places = plt.subplots(3, 2, figsize=(10, 10))
    for axes, (name, (value, bounds)) in zip(places.flat, measures.items(), strict=True):
        values = {set_name: [value(one) for one in found[set_name].judgements] for set_name in ("val", "foreign")}
        edges = np.linspace(0, max(max(one) for one in values.values()), 40)
        for set_name, colour in (("val", "tab:blue"), ("foreign", "tab:orange")):
            axes.hist(values[set_name], bins=edges, alpha=0.6, label=set_name, color=colour)
        for index, bound in enumerate(bounds):
            axes.axvline(bound, color="black", linestyle="--", label=None if index else "bound")
        axes.set_yscale("log")
        axes.set_xlabel(name)
        axes.set_ylabel("pictures")
        axes.legend()
    figure.suptitle("val cells and foreign pictures")
    figure.tight_layout()
    return figure


def _errors(found: Judged, report: Report) -> Figure:
    """The errors with the highest confidence, with truth and label."""
    val = report.familiar["val"]
    wrong = [(one.confidence, index) for index, one in enumerate(found.judgements) if one.label != val.truths[index]]
    return _gallery(
        [
            (val.encoded[index], f"{val.truths[index]}\n→ {found.judgements[index].label} {confidence:.2f}")
            for confidence, index in sorted(wrong, reverse=True)[:WORST]
        ]
    )


def _missed(metrics: dict[str, Any], found: Judged, report: Report) -> Figure:
    """Foreign pictures with a clear result, by descending confidence."""
    missed = [(one.confidence, index) for index, one in enumerate(found.judgements) if plain(one, metrics["other_label"])]
    return _gallery(
        [
            (report.foreign.encoded[index], f"{report.foreign.truths[index]}\n→ {found.judgements[index].label} {confidence:.2f}")
            for confidence, index in sorted(missed, reverse=True)[:WORST]
        ]
    )


def _gallery(chosen: list[tuple[bytes, str]]) -> Figure:
    rows = max(1, -(-len(chosen) // A_ROW))
    figure, places = plt.subplots(rows, A_ROW, figsize=(12, 1.9 * rows), squeeze=False)
    for axes in places.flat:
        axes.axis("off")
    for axes, (encoded, caption) in zip(places.flat, chosen, strict=False):
        axes.imshow(np.asarray(decoded(encoded).resize((96, 96), Image.Resampling.BOX)))
        axes.set_title(caption, fontsize=8)
    if not chosen:
        figure.text(0.5, 0.5, "none: every foreign picture of the test was caught", ha="center", fontsize=14)
    figure.tight_layout()
    return figure
