"""Numbers on the command line."""

import math
from typing import Any

import click


class FiniteNumber(click.types.FloatParamType):
    """A number that is neither infinite nor NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return _finite(self, super().convert(value, param, ctx), param, ctx)


class Fraction(click.FloatRange):
    """A number from 0 to 1, such as a confidence or a score."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return _finite(self, super().convert(value, param, ctx), param, ctx)


def _finite(kind: click.ParamType, number: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
    if not math.isfinite(number):
        kind.fail(f"{number} is not a finite number.", param, ctx)
    return float(number)
