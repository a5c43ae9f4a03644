"""CSV for spreadsheets: no cell is read as a formula."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]], *, header: bool = True) -> str:
    """The rows as CSV, with the names of the columns in the first line if `header`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns)
    if header:
        writer.writeheader()
    writer.writerows({name: spreadsheet_safe(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def spreadsheet_safe(value: object) -> object:
    """A cell that no spreadsheet reads as a formula (OWASP, CSV injection): an apostrophe goes before such a text. Numbers stay."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def list_text(entries: Iterable[str]) -> str:
    """Several texts in one cell."""
    return "; ".join(entries)


def scores_text(scores: Mapping[str, float]) -> str:
    """The highest score first, such as `round=0.9100; flat=0.0900`."""
    return list_text(f"{label}={score:.4f}" for label, score in sorted(scores.items(), key=lambda scored: -scored[1]))
