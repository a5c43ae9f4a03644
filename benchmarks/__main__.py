"""`python -m benchmarks [access append commits projection inference latency lists policies sign_ins statistics uploads footprint idle]`.

It compares figures with their goals, prints a table, and writes it to docs/performance.md, results.json and chart.png. Figures with a
limit are measured alternately with it, in the same run.
"""

import importlib
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.chart import drawn
from benchmarks.measure import Row, shown
from benchmarks.page import PAGE, refreshed

HERE = Path(__file__).parent
ALL = (
    "access",
    "append",
    "commits",
    "projection",
    "inference",
    "latency",
    "lists",
    "policies",
    "sign_ins",
    "statistics",
    "uploads",
    "footprint",
    "idle",
)


def main(names: list[str]) -> None:
    console = Console()
    known = {row["name"]: row for row in _stored_rows()} if names else {}
    for name in names or ALL:
        began = time.monotonic()
        for row in importlib.import_module(f"benchmarks.{name}").rows():
            known[row.name] = msgspec.to_builtins(row) | {"reached": row.reached}
            console.print(f"[dim]{time.monotonic() - began:5.0f} s[/dim]  {summary(row)}", highlight=False)
    (HERE / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(list(known.values())), indent=1) + b"\n")
    rows = [msgspec.convert({name: value for name, value in row.items() if name != "reached"}, Row) for row in known.values()]
    (HERE / "chart.png").write_bytes(drawn(rows))
    PAGE.write_text(refreshed(PAGE.read_text(), rows))
    console.print(table(rows))
    console.print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}", highlight=False)
    missed = [row.name for row in rows if not row.reached]
    console.print(
        f"benchmarks: {len(rows) - len(missed)} of {len(rows)} goals reached" + (f"; missed: {', '.join(missed)}" if missed else "")
    )


def summary(row: Row) -> str:
    sign = ">=" if row.at_least else "<="
    mark = "[green]reached[/green]" if row.reached else "[red]missed[/red]"
    return f"{row.name}: {shown(row.value)} {row.unit} ({sign} {shown(row.goal)}) {mark}"


def table(rows: list[Row]) -> Table:
    listed = Table(title="Benchmarks", title_justify="left")
    for column in ("what", "value", "goal", "limit", ""):
        listed.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        sign = ">=" if row.at_least else "<="
        limit = shown(row.limit) if row.limit is not None else ""
        mark = "[green]reached[/green]" if row.reached else "[red]missed[/red]"
        listed.add_row(row.name, f"{shown(row.value)} {row.unit}", f"{sign} {shown(row.goal)}", limit, mark)
    return listed


def _stored_rows() -> list[dict[str, object]]:
    path = HERE / "results.json"
    return msgspec.json.decode(path.read_bytes(), type=list[dict[str, object]]) if path.exists() else []


if __name__ == "__main__":
    main(sys.argv[1:])
