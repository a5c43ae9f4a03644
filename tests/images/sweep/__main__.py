"""`make sweep FOLDER=...`: compares every image of a folder with decoders other than the product's, and lists differences."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console
from rich.progress import track

from tests.images.sweep.files import Examined, kind_of, sweep_file
from tests.images.sweep.report import Row, print_report, write_csv

EXAMINATION_TIMEOUT_SECONDS = 300  # of waiting; processor time is limited in the child
COMPARISON_TIMEOUT_SECONDS = 300
END_TIMEOUT_SECONDS = 5
REPORT_WIDTH = 200

processes = get_context("forkserver")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when nothing differs, crashes or hangs."""
    parser = argparse.ArgumentParser(prog="make sweep", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--csv", type=Path, help="write every comparison to this file")
    parser.add_argument("--pictures", type=Path, help="write a contact sheet of each difference to this folder")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    processes.set_forkserver_preload(["tests.images.sweep.files"])
    rows = sorted(_rows(given.folder, given.pictures, given.jobs), key=lambda row: row.name)
    if not rows:
        print(f"There is no JPEG, PNG or TIFF in {given.folder}", file=sys.stderr)
        return 2
    if given.csv:
        write_csv(rows, given.csv)
    print_report(rows, Console(width=None if sys.stdout.isatty() else REPORT_WIDTH))
    return int(any(_is_defect(row) for row in rows))


def _is_defect(row: Row) -> bool:
    outcome = row.examined.outcome
    return outcome in {"crashed", "timed out"} or (outcome == "accepted" and row.verdict == "different")


def _rows(folder: Path, sheets: Path | None, jobs: int) -> Iterator[Row]:
    with ThreadPoolExecutor(jobs) as pool:
        swept = [pool.submit(_row, folder, path, kind, sheets) for path, kind in _images(folder)]
        for future in track(as_completed(swept), "sweep", total=len(swept), console=Console(stderr=True)):
            yield future.result()


def _images(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (kind := kind_of(path)):
            yield path, kind


def _row(folder: Path, path: Path, kind: str, sheets: Path | None) -> Row:
    name = str(path.relative_to(folder))
    sheet = sheets / f"{name.replace('/', '~')}.png" if sheets else None
    results, sending = processes.Pipe(duplex=False)
    child = processes.Process(target=sweep_file, args=(path, sheet, sending), daemon=True)
    child.start()
    sending.close()
    try:
        examined = _received(results, EXAMINATION_TIMEOUT_SECONDS)
        comparisons = _received(results, COMPARISON_TIMEOUT_SECONDS) if isinstance(examined, Examined) else None
        if comparisons is not None:
            child.join(END_TIMEOUT_SECONDS)
    finally:
        child.kill()
        child.join()
    if child.exitcode == -signal.SIGXCPU:
        examined = "timed out"
    if isinstance(examined, str):
        return Row(name=name, kind=kind, examined=Examined(outcome=examined, reason=f"exit {child.exitcode}"), comparisons=[])
    return Row(name=name, kind=kind, examined=examined, comparisons=comparisons if isinstance(comparisons, list) else [])


def _received(results: Connection, timeout_seconds: float) -> object:
    """What the child sends; `timed out` or `crashed` where nothing comes."""
    if not results.poll(timeout_seconds):
        return "timed out"
    try:
        return results.recv()
    except EOFError:
        return "crashed"


if __name__ == "__main__":
    sys.exit(main())
