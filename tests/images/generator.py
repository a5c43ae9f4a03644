"""Samples of all accepted encodings: a deterministic list that covers pairs of values early, and a Hypothesis strategy."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

from hypothesis import strategies as st

from tests.images.choices import FAMILIES
from tests.images.encodings import Encoding

TURNS = ("TIFF", "PNG", "TIFF", "TIFF of ImageJ", "TIFF", "JPEG", "TIFF", "PNG", "TIFF", "TIFF in JPEG")

Value = tuple[str, Any]


def encodings(seed: int, count: int) -> list[Encoding]:
    """Deterministic for a seed; a shorter list is the beginning of a longer one. Pairs of field values are covered early."""
    choosers = {family: _Chooser(f"{family} {seed}") for family in FAMILIES}
    return [choosers[family].encoding(family) for family in islice(cycle(TURNS), count)]


@st.composite
def encoding_strategy(draw: st.DrawFn) -> Encoding:
    """Any accepted encoding. Shrinks towards the plainest options."""
    choose_fields = FAMILIES[draw(st.sampled_from(list(FAMILIES)), label="family")]
    return choose_fields(lambda name, options: draw(st.sampled_from(options), label=name))


class _Chooser:
    """Chooses the option that forms the most new pairs with the values already chosen; then the one that met them least often."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._meetings: Counter[tuple[Value, Value]] = Counter()
        self._chosen: list[Value] = []

    def encoding(self, family: str) -> Encoding:
        self._chosen = [("family", family)]
        return FAMILIES[family](self._choose)

    def _choose(self, name: str, options: Sequence[Any]) -> Any:
        best = max(options, key=lambda option: (*self._rank((name, option)), self._random.random()))
        self._meetings.update((other, (name, best)) for other in self._chosen)
        self._chosen.append((name, best))
        return best

    def _rank(self, value: Value) -> tuple[int, int]:
        meetings = [self._meetings[other, value] for other in self._chosen]
        return meetings.count(0), -sum(meetings)
