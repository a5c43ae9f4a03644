"""The report of a sweep: counts, and tables of all that deserves a look."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.images.sweep.comparison import Comparison
from tests.images.sweep.files import Examined

SLOW_SECONDS = 5.0
FILE_COLUMNS = ("file", "kind", "outcome", "refused_by", "reason", "message", "seconds", "peak_mib", "verdict")
COLUMNS = (*FILE_COLUMNS, "oracle", "agrees", "plane", "what", "largest", "mean")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the folder (`name` relative to it), what became of it, and what other decoders see."""

    name: str
    kind: str
    examined: Examined
    comparisons: list[Comparison]

    @property
    def planes(self) -> set[str]:
        return {comparison.plane for comparison in self.comparisons}

    @property
    def verdict(self) -> str:
        """Of an accepted file: same, different, or not compared where no other decoder can read it."""
        agreed = {comparison.plane for comparison in self.comparisons if comparison.agrees}
        if agreed == self.planes and agreed:
            return "same"
        read = {comparison.plane for comparison in self.comparisons if comparison.read}
        return "different" if read - agreed else "not compared"

    @property
    def falsely_damaged(self) -> bool:
        return self.examined.outcome == "damaged_image" and any(comparison.agrees for comparison in self.comparisons)


def print_report(rows: Sequence[Row], console: Console) -> None:
    console.print(_counts(rows))
    accepted = [row for row in rows if row.examined.outcome == "accepted"]
    _print_comparisons(console, "Differences: no other decoder sees what the product sees", accepted, "different")
    _print_comparisons(console, "Accepted, and no other decoder can read them", accepted, "not compared")
    disputed = [row for row in accepted if row.verdict == "same" and any(it.read and not it.agrees for it in row.comparisons)]
    _print_comparisons(console, "Decoders that differ from another decoder, which agrees with the product", disputed, "same")
    _print_files(console, "Crashes and time-outs", (row for row in rows if row.examined.outcome in {"crashed", "timed out"}))
    _print_files(console, "Refused as damaged, and read by others without complaint", (row for row in rows if row.falsely_damaged))
    late = (row for row in rows if row.examined.refused_by == "reader")
    _print_files(console, "Accepted by the validator, and refused by the reader", late)
    _print_files(console, f"More than {SLOW_SECONDS:g} s of processor time", (row for row in rows if row.examined.seconds > SLOW_SECONDS))
    slowest, largest = max(row.examined.seconds for row in rows), max(row.examined.peak_mib for row in rows)
    console.print(f"Slowest file: {slowest:.1f} s of processor time. Most memory: {largest:.0f} MiB.")


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line for each comparison, and for each file without any."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            examined = row.examined
            facts = (examined.refused_by, examined.reason, examined.message, f"{examined.seconds:.3f}", f"{examined.peak_mib:.0f}")
            for it in row.comparisons or [None]:
                seen = (it.oracle, it.agrees, it.plane, it.what, f"{it.largest:.5f}", f"{it.mean:.5f}") if it else ()
                writer.writerow(
                    (row.name, row.kind, examined.outcome, *facts, row.verdict if examined.outcome == "accepted" else "", *seen)
                )


def _counts(rows: Sequence[Row]) -> Table:
    kinds = ("jpeg", "png", "tiff")
    table = Table("outcome", "reason", *kinds, "all", title=f"{len(rows)} files")
    found: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        reason = row.verdict if row.examined.outcome == "accepted" else f"{row.examined.reason} ({row.examined.refused_by})"
        found[row.examined.outcome, reason, row.kind] += 1
    for outcome, reason in sorted({key[:2] for key in found}):
        counts = [found[outcome, reason, kind] for kind in kinds]
        table.add_row(outcome, reason, *map(str, counts), str(sum(counts)))
    return table


def _print_comparisons(console: Console, title: str, rows: Iterable[Row], verdict: str) -> None:
    table = Table("file", "plane", "decoder", "what", "max", "mean", title=title)
    for row in rows:
        for it in row.comparisons if row.verdict == verdict else ():
            numbers = (f"{it.largest:.4f}", f"{it.mean:.4f}") if it.read else ("", "")
            table.add_row(row.name, it.plane, f"{it.oracle} {'(agrees)' if it.agrees else ''}", it.what, *numbers)
    if table.row_count:
        console.print(table)


def _print_files(console: Console, title: str, rows: Iterable[Row]) -> None:
    table = Table("file", "refused by", "reason", "message", "read by", "seconds", title=title)
    for row in rows:
        read = ", ".join(it.oracle for it in row.comparisons if it.agrees)
        examined = row.examined
        table.add_row(row.name, examined.refused_by, examined.reason, examined.message, read, f"{examined.seconds:.1f}")
    if table.row_count:
        console.print(table)
