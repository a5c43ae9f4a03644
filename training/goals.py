"""The goals that a shipped model must reach."""

from typing import Any, NamedTuple

LEAST_BALANCED = {"pbc8": 0.97, "bccd3": 0.98}


class Goal(NamedTuple):
    what: str
    found: float
    bound: float
    at_least: bool

    @property
    def reached(self) -> bool:
        return self.found >= self.bound if self.at_least else self.found <= self.bound


def goals(metrics: dict[str, Any]) -> list[Goal]:
    """Compare `metrics`, which were measured on pictures outside the training set, with the goals."""
    val, foreign, int8 = metrics["sets"]["val"], metrics["foreign"], metrics["int8"]
    return [
        Goal("balanced accuracy on val", val["balanced_accuracy"], LEAST_BALANCED[metrics["model"]], at_least=True),
        Goal("least recall of a class", min(one["recall"] for one in val["per_class"].values()), 0.92, at_least=True),
        Goal("expected calibration error", val["ece"], 0.02, at_least=False),
        Goal("val cells without a clear result", val["flagged"]["any"], 0.03, at_least=False),
        Goal("foreign pictures without a clear result", foreign["flagged"]["any"], 0.99, at_least=True),
        Goal("int8: loss of balanced accuracy", val["balanced_accuracy"] - int8["balanced_accuracy"], 0.003, at_least=False),
        Goal("fp32 images/s on one core", metrics["images_per_second"]["fp32"], 800, at_least=True),
        Goal("int8 images/s on one core", metrics["images_per_second"]["int8"], 2000, at_least=True),
        Goal("MB of both files", metrics["bytes"] / 1e6, 6, at_least=False),
    ]
