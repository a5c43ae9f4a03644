"""Generates the tables of a model card from metrics.json. The text around them is written by hand."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training.goals import goals

BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refresh(path: Path, metrics: dict[str, Any]) -> None:
    path.write_text(refreshed(path.read_text(), metrics))


def refreshed(text: str, metrics: dict[str, Any]) -> str:
    """`text` with new content in each block `<!-- table: NAME -->`. Raises KeyError for an unknown name."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]](metrics)}\n{found[3]}", text)


def _goals(metrics: dict[str, Any]) -> str:
    return _table(
        ("goal", "bound", "found", ""),
        (
            (goal.what, f"{'≥' if goal.at_least else '≤'} {goal.bound:g}", f"{goal.found:.4g}", "reached" if goal.reached else "**missed**")
            for goal in goals(metrics)
        ),
    )


def _sets(metrics: dict[str, Any]) -> str:
    return _table(
        ("pictures", "number", "accuracy (95 %)", "balanced accuracy (95 %)", "calibration error", "no clear result"),
        (
            (
                name,
                one["pictures"],
                f"{_percent(one['accuracy'])} ({_between(one['accuracy_95'])})",
                f"{_percent(one['balanced_accuracy'])} ({_between(one['balanced_accuracy_95'])})",
                f"{one['ece']:.3f}",
                _percent(one["flagged"]["any"]),
            )
            for name, one in {**metrics["sets"], "val, int8": metrics["int8"]}.items()
        ),
    )


def _classes(metrics: dict[str, Any]) -> str:
    return _table(
        ("class", "val pictures", "recall (95 %)", "precision"),
        (
            (label, one["pictures"], f"{_percent(one['recall'])} ({_between(one['recall_95'])})", _percent(one["precision"]))
            for label, one in metrics["sets"]["val"]["per_class"].items()
        ),
    )


def _signals(metrics: dict[str, Any]) -> str:
    gates = {name: bound for name, bound in metrics["gates"].items() if bound is not None}
    measures = dict.fromkeys(name.rsplit("_", 1)[0] for name in gates)
    rows = [(name, f"{gates.get(f'{name}_above', '')}", f"{gates.get(f'{name}_below', '')}") for name in measures]
    return _table(("measure", "at least", "at most"), [*rows, ("top probability (below: needs review)", metrics["review_below"], "")])


def _foreign(metrics: dict[str, Any]) -> str:
    return _caught(metrics["foreign"])


def _tuning(metrics: dict[str, Any]) -> str:
    return _caught(metrics["training"]["tuning_foreign"])


def _caught(foreign: dict[str, Any]) -> str:
    sources = {**foreign["by_source"], "**all**": foreign}
    return _table(
        ("source", "pictures", "caught", "`other`", "out of domain", "needs review"),
        (
            (source, one["pictures"], *(_percent(one["flagged"][kind]) for kind in ("any", "other", "out_of_domain", "needs_review")))
            for source, one in sources.items()
        ),
    )


def _shift(metrics: dict[str, Any]) -> str:
    return _table(
        ("fields", "cells", "pictures", "right (95 %)", "called `other`", "clear results", "of these right", "labels"),
        (
            (
                fields.replace("_", " "),
                truth,
                one["pictures"],
                f"{_percent(one['right'])} ({_between(one['right_95'])})",
                _percent(one["called_other"]),
                _percent(one["plain"]),
                "none" if one["right_of_plain"] is None else _percent(one["right_of_plain"]),
                ", ".join(f"{label} {count}" for label, count in one["said"].items()),
            )
            for fields, parts in metrics["other_scanner"].items()
            for truth, one in parts.items()
        ),
    )


def _making(metrics: dict[str, Any]) -> str:
    made, speeds = metrics["training"], metrics["images_per_second"]
    versions = ", ".join(f"{name} {version}" for name, version in (made["versions"] | metrics["versions"]).items())
    rows = [
        ("weights, fp32", f"`{metrics['sha256']['fp32']}`"),
        ("weights, int8", f"`{metrics['sha256']['int8']}`"),
        ("data", f"`{metrics['data']}` (training/data.sha256)"),
        ("preprocessing", f"`{metrics['preprocessing']}`"),
        ("temperature", metrics["temperature"]),
        ("seed, epochs, convolutions", f"{made['seed']}, {made['epochs']}, {made['convolutions']}"),
        ("processor minutes", _minutes(made)),
        ("pictures per second on one core", f"{speeds['fp32']:.0f} fp32, {speeds['int8']:.0f} int8"),
        ("versions", versions),
    ]
    return _table(("what", "value"), rows)


def _minutes(made: dict[str, Any]) -> str:
    if made["processor_minutes"] is None:
        return "not measured: published from a checkpoint"
    return f"{made['processor_minutes']:.1f} on {made['threads']} thread{'s' * (made['threads'] > 1)}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"


def _between(bounds: list[float]) -> str:
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"


TABLES = {
    "goals": _goals,
    "sets": _sets,
    "classes": _classes,
    "signals": _signals,
    "foreign": _foreign,
    "tuning": _tuning,
    "shift": _shift,
    "making": _making,
}
