"""The report of a recheck of stored images: tables for a terminal, CSV and JSON for programs."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, Final, Literal, Protocol, TextIO

import msgspec
from rich.console import Console

from api.cli.output import Column, print_message, print_table
from api.spreadsheets import spreadsheet_safe
from application.recheck.image_recheck import RecheckResult

MAX_ROWS_SHOWN: Final = 500  # in a table; CSV and JSON are written row by row, however many there are


class ReportRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finding about an image. Fields without a value are left out."""

    kind: Annotated[
        Literal["changed", "other_pixels", "not_checked"],
        msgspec.Meta(description="what was found"),
    ]
    image_id: str
    field: Annotated[str, msgspec.Meta(description="field of the image")] = ""
    before: Annotated[str, msgspec.Meta(description="value in the log")] = ""
    after: Annotated[str, msgspec.Meta(description="value by this release")] = ""
    classification_id: Annotated[str, msgspec.Meta(description="id of the job")] = ""
    model: Annotated[str, msgspec.Meta(description="name and version")] = ""
    label: Annotated[str, msgspec.Meta(description="recorded label")] = ""
    confidence: Annotated[float | None, msgspec.Meta(description="recorded confidence, from 0 to 1")] = None
    label_now: Annotated[str, msgspec.Meta(description="label by this release")] = ""
    confidence_now: Annotated[float | None, msgspec.Meta(description="confidence by this release")] = None
    detail: Annotated[str, msgspec.Meta(description="why it could not be checked")] = ""


class Output(Protocol):
    def write(self, row: ReportRow) -> None: ...

    def close(self) -> None: ...


class CsvOutput:
    def __init__(self, file: TextIO) -> None:
        self._writer = csv.DictWriter(file, fieldnames=ReportRow.__struct_fields__)
        self._writer.writeheader()

    def write(self, row: ReportRow) -> None:
        self._writer.writerow({name: spreadsheet_safe(value) for name, value in msgspec.to_builtins(row).items()})

    def close(self) -> None:
        pass


class JsonOutput:
    """One object a line; fields without a value are left out."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: ReportRow) -> None:
        self._file.write(msgspec.json.encode(row).decode() + "\n")

    def close(self) -> None:
        pass


class TableOutput:
    """A table for each kind of row, written at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, list[ReportRow]] = {kind: [] for kind in TABLES}
        self._omitted = dict.fromkeys(TABLES, 0)

    def write(self, row: ReportRow) -> None:
        rows = self._rows[row.kind]
        if len(rows) < MAX_ROWS_SHOWN:
            rows.append(row)
        else:
            self._omitted[row.kind] += 1

    def close(self) -> None:
        for kind, (title, columns) in TABLES.items():
            if rows := self._rows[kind]:
                self._print(title, columns, rows)
            if self._omitted[kind]:
                print_message(f"… and {self._omitted[kind]} more: --csv lists all", console=self._console)

    def _print(self, title: str, columns: dict[str, Callable[[ReportRow], str]], rows: list[ReportRow]) -> None:
        print_message(title, console=self._console)
        print_table(
            [Column(name, wraps=name in PROSE) for name in columns],
            [[cell(row) for cell in columns.values()] for row in rows],
            console=self._console,
        )
        self._console.print()


PROSE: Final = frozenset({"what", "before", "after", "model", "recorded", "now", "why"})
TABLES: Final[dict[str, tuple[str, dict[str, Callable[[ReportRow], str]]]]] = {
    "changed": (
        "Corrected",
        {
            "image": lambda row: row.image_id,
            "what": lambda row: row.field,
            "before": lambda row: row.before,
            "after": lambda row: row.after,
        },
    ),
    "other_pixels": (
        "Results that were computed from other pixels: run the model again",
        {
            "image": lambda row: row.image_id,
            "job": lambda row: row.classification_id,
            "model": lambda row: row.model,
            "recorded": lambda row: f"{row.label} {row.confidence:.1%}",
            "now": lambda row: f"{row.label_now} {row.confidence_now:.1%}",
        },
    ),
    "not_checked": (
        "Not checked",
        {"image": lambda row: row.image_id, "job": lambda row: row.classification_id, "why": lambda row: row.detail},
    ),
}


class RecheckReport:
    """Counts what was found, and writes it as it comes."""

    def __init__(self, output: Output, *, dry_run: bool) -> None:
        self._output, self._dry_run = output, dry_run
        self._totals: Counter[str] = Counter()

    def add(self, result: RecheckResult) -> None:
        self._totals["images"] += 1
        self._totals.update(name for name in ("changes", "redrawn", "recorded") if getattr(result, name))
        self._totals["outdated"] += len(result.outdated)
        self._totals["not_checked"] += len(result.not_checked)
        for row in rows_of(result):
            self._output.write(row)

    @property
    def complete(self) -> bool:
        return not self._totals["not_checked"]

    def close(self) -> str:
        """The summary."""
        self._output.close()
        count = self._totals
        summary = f"{count['outdated']} results were computed from other pixels, {count['not_checked']} could not be checked"
        if self._dry_run:
            return f"{count['images']} images checked; {count['changes']} would be corrected; {summary}. Nothing was written."
        done = f"pictures of {count['redrawn']} made again, {count['changes']} corrected, {count['recorded']} recorded"
        return f"{count['images']} images checked; {done}; {summary}."


def output_to(output_format: str | None, file: TextIO, console: Console) -> Output:
    match output_format:
        case "csv":
            return CsvOutput(file)
        case "json":
            return JsonOutput(file)
        case _:
            return TableOutput(console)


def rows_of(recheck: RecheckResult) -> Iterator[ReportRow]:
    image = str(recheck.image)
    for change in recheck.changes:
        yield ReportRow(kind="changed", image_id=image, field=change.field, before=change.before, after=change.after)
    for result in recheck.outdated:
        yield ReportRow(
            kind="other_pixels",
            image_id=image,
            classification_id=str(result.job),
            model=f"{result.model_name} version {result.model_version}",
            label=result.label,
            confidence=result.confidence,
            label_now=result.label_now,
            confidence_now=result.confidence_now,
        )
    for missed in recheck.not_checked:
        yield ReportRow(kind="not_checked", image_id=image, classification_id=str(missed.job or ""), detail=missed.detail)
