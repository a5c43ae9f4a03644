"""The plots of the model cards."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from infrastructure.preprocessing import decoded
from training.measure import Judged
from training.sets import Report

mpl.use("Agg")
WORST = 32


def draw(folder: Path, metrics: dict[str, Any], found: dict[str, Judged], report: Report) -> None:
    """confusion.png, reliability.png, domain.png and errors.jpg into the folder `figures`."""
    target = folder / "figures"
    target.mkdir(exist_ok=True)
    _save(_confusion(metrics), target / "confusion.png")
    _save(_reliability(metrics), target / "reliability.png")
    _save(_domain(metrics, found), target / "domain.png")
    _errors(found["val"], report).save(target / "errors.jpg", quality=80)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    with Image.open(buffer) as picture:
        picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(path, optimize=True)


def _confusion(metrics: dict[str, Any]) -> Figure:
    labels, counts = list(metrics["labels"]), np.array(metrics["sets"]["val"]["confusion"])
    rows = [index for index in range(len(labels)) if counts[index].sum()]
    parts = counts[rows] / counts[rows].sum(axis=1, keepdims=True)
    figure, axes = plt.subplots(figsize=(0.8 * len(labels) + 2, 0.6 * len(rows) + 2))
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, index in enumerate(rows):
        for column in range(len(labels)):
            if counts[index, column]:
                axes.text(
                    column, row, counts[index, column], ha="center", va="center", color="white" if parts[row, column] > 0.5 else "black"
                )
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
    """What val cells and foreign pictures score: probability of the best own class, distance, and two input measures, with their bounds."""
    other = metrics["labels"].index("other") if "other" in metrics["labels"] else None
    measures = {
        "probability of the best own class": (
            lambda one: max(part for index, part in enumerate(one.probabilities) if index != other),
            metrics["review_below"],
        ),
        "distance": (lambda one: min(one.signals["distance"], 8.0), metrics["gates"]["distance_below"]),
        "contrast": (lambda one: one.signals["contrast"], metrics["gates"]["contrast_above"]),
        "saturation": (lambda one: one.signals["saturation"], metrics["gates"]["saturation_above"]),
    }
    figure, places = plt.subplots(2, 2, figsize=(10, 7))
    for axes, (name, (value, bound)) in zip(places.flat, measures.items(), strict=True):
        values = {set_name: [value(one) for one in found[set_name].judgements] for set_name in ("val", "foreign")}
        edges = np.linspace(0, max(max(one) for one in values.values()), 40)
        for set_name, colour in (("val", "tab:blue"), ("foreign", "tab:orange")):
            axes.hist(values[set_name], bins=edges, alpha=0.6, label=set_name, color=colour, density=True)
        axes.axvline(bound, color="black", linestyle="--", label="bound")
        axes.set_yscale("log")
        axes.set_xlabel(name)
        axes.legend()
    figure.suptitle("val cells and foreign pictures")
    return figure


def _errors(found: Judged, report: Report) -> Image.Image:
    """The surest mistakes first, eight a row, with truth and answer beneath."""
    val = report.familiar["val"]
    wrong = [(one.confidence, index) for index, one in enumerate(found.judgements) if one.label != val.truths[index]]
    chosen = sorted(wrong, reverse=True)[:WORST]
    rows = max(1, -(-len(chosen) // 8))
    figure, places = plt.subplots(rows, 8, figsize=(12, 1.9 * rows), squeeze=False)
    for axes in places.flat:
        axes.axis("off")
    for axes, (confidence, index) in zip(places.flat, chosen, strict=False):
        axes.imshow(np.asarray(decoded(val.encoded[index])))
        axes.set_title(f"{val.truths[index]}\n→ {found.judgements[index].label} {confidence:.2f}", fontsize=8)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=80, facecolor="white")
    plt.close(figure)
    return Image.open(buffer).convert("RGB")
