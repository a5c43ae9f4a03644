"""Everything that commands print: data on stdout, messages on stderr, no line broken within a word.

Lines fit the terminal, or COLUMNS where it is set. In a file or a pipe, a message is one line and a table is as wide as its cells.
"""

import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final, NamedTuple, NoReturn

import click
import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from api.cli.exit_codes import FAILED
from domain.values import printable

UNBROKEN: Final = "\ue000"
"""Stands in a cell for a space at which no line is broken."""
GAP: Final = 2  # columns between the cells of a table

out = Console()
err = Console(stderr=True)


class Column(NamedTuple):
    """`wraps`: its cells are prose, which may be broken between words."""

    title: str
    right: bool = False
    wraps: bool = False


def line_width(console: Console, most: int | None = None) -> int | None:
    """That of the terminal. In a file or a pipe, `most`; None where lines may have any length."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    return console.width if console.is_terminal else most


def fitted(text: str, width: int | None, *, indent: str = "") -> str:
    """`text` broken between words only; a longer word stays whole. `indent` begins each line but the first."""
    if width is None:
        return text
    lines = (
        textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]
        for line in text.split("\n")
    )
    return "\n".join(part for parts in lines for part in parts)


def print_message(message: str, *, prefix: str = "", style: str = "", most: int | None = None, console: Console = err) -> None:
    """`style` colours the prefix on a terminal. `most` is the width in a file or a pipe; any by default."""
    text = Text(fitted(prefix + message, line_width(console, most)))
    text.stylize(style, 0, len(prefix))
    console.print(text, highlight=False, soft_wrap=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    print_message(message, prefix="bioscope: ", style="red")
    sys.exit(code)


def print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], *, most: int | None = None, console: Console = out
) -> None:
    """A table if all cells fit whole; otherwise a block of lines for each row. `most` as above."""
    cells = [[cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row] for row in rows]
    width = line_width(console, most)
    widths = _column_widths(columns, cells, width)
    if widths is None:
        _print_blocks(columns, cells, width, console)
        return
    for row in ([Text(column.title, "bold") for column in columns], *cells):
        for line in _table_lines(columns, widths, row):
            console.print(line, highlight=False, soft_wrap=True)


def print_fields(fields: Sequence[tuple[str, str]], *, most: int | None = None, console: Console = out) -> None:
    """A name and a value on each line. `most` as above."""
    _print_blocks(
        [Column(name) for name, _ in fields], [[Text(printable(value)) for _, value in fields]], line_width(console, most), console
    )


def _column_widths(columns: Sequence[Column], rows: Sequence[Sequence[Text]], available: int | None) -> list[int] | None:
    """None if `available` is too narrow for the longest words."""
    cells = [[column.title, *(row[index].plain for row in rows)] for index, column in enumerate(columns)]
    widths = [max(map(cell_len, texts)) for texts in cells]
    if available is None:
        return widths
    least = [
        max((cell_len(word) for text in texts for word in text.split()), default=0) if column.wraps else width
        for column, texts, width in zip(columns, cells, widths, strict=True)
    ]
    excess = sum(widths) + GAP * (len(columns) - 1) - available
    if excess > sum(widths) - sum(least):
        return None
    for index in sorted(range(len(columns)), key=lambda index: least[index] - widths[index]):
        taken = min(max(excess, 0), widths[index] - least[index])
        widths[index] -= taken
        excess -= taken
    return widths


def _table_lines(columns: Sequence[Column], widths: Sequence[int], row: Sequence[Text]) -> Iterator[Text]:
    wrapped = [
        fitted(cell.plain, width).split("\n") if column.wraps else [cell.plain]
        for column, width, cell in zip(columns, widths, row, strict=True)
    ]
    for parts in zip_longest(*wrapped, fillvalue=""):
        line = Text()
        for column, width, cell, part in zip(columns, widths, row, parts, strict=True):
            padding = " " * (width - cell_len(part))
            line.append(padding if column.right else "").append(part.replace(UNBROKEN, " "), cell.style).append(
                "" if column.right else padding
            ).append(" " * GAP)
        line.rstrip()
        yield line


def _print_blocks(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int | None, console: Console) -> None:
    indent = max((len(column.title) for column in columns), default=0) + GAP
    for number, row in enumerate(rows):
        if number:
            console.print()
        for column, cell in zip(columns, row, strict=True):
            line = Text(fitted(f"{column.title:{indent}}{cell.plain}", width, indent=" " * indent).rstrip().replace(UNBROKEN, " "))
            line.stylize("bold", 0, len(column.title))
            line.stylize(cell.style, indent)
            console.print(line, highlight=False, soft_wrap=True)
