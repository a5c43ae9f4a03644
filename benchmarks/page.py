"""Writes the table of docs/performance.md."""

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Row, shown

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PLACE = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)


def refreshed(page: str, rows: Sequence[Row]) -> str:
    """`page` with these rows as its table."""
    lines = ["| figure | value | goal | limit | |", "|---|---|---|---|---|", *map(_line, rows)]
    return PLACE.sub(lambda found: found[1] + "\n".join(lines) + "\n" + found[2], page)


def _line(row: Row) -> str:
    sign = "≥" if row.at_least else "≤"
    limit = "" if row.limit is None else shown(row.limit)
    return f"| {row.name} | {shown(row.value)} {row.unit} | {sign} {shown(row.goal)} | {limit} | {'reached' if row.reached else 'missed'} |"
