"""Commands for stored images, on the server's machine."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from api.cli.commands import Id, group, json_option
from api.cli.common import DATA, open_event_log, running_installation
from api.cli.exit_codes import FAILED
from api.cli.operator import operator
from api.cli.output import err, out, print_message
from infrastructure.configuration.settings import Settings

if TYPE_CHECKING:
    from api.cli.admin.recheck_report import RecheckReport


@group()
def images() -> None:
    """Check stored images again after an upgrade."""


@images.command(example="bioscope images recheck --dry-run")
@click.option("--dataset", type=Id(), metavar="ID", help="Only the images of this dataset.")
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@click.option("--csv", "output_format", flag_value="csv", help="Print all findings as CSV.")
@json_option("api.cli.admin.recheck_report:ReportRow", lines=True, name="output_format", flag_value="json")
@DATA
def recheck(dataset: UUID | None, data: Path | None, output_format: str | None, *, dry_run: bool) -> None:
    """Decode stored images again with the reader of this release, while everything runs.

    Run it once after an upgrade. It makes thumbnails and previews again, and corrects what was recorded of an image. Results that were
    computed from other pixels are listed and get a warning: run the model again on these images.

    The command may be interrupted and repeated. The exit code is 1 if something could not be checked.
    """
    from api.cli.admin.recheck_report import RecheckReport, output_to
    from infrastructure.observability.log_setup import configure_logging

    settings = running_installation(data)
    configure_logging(settings, "images recheck")
    report = RecheckReport(output_to(output_format, sys.stdout, out), dry_run=dry_run)
    with open_event_log(settings) as log, _progress(output_format) as progress:
        _recheck(settings, log, dataset, report, progress, dry_run=dry_run)
    print_message(report.close())
    sys.exit(0 if report.complete else FAILED)


def _recheck(settings: Settings, log: Any, dataset: UUID | None, report: "RecheckReport", progress: Progress, *, dry_run: bool) -> None:
    from application.recheck.image_recheck import ImageRecheck, RecheckResult, require_complete
    from application.recheck.pixel_reader import PixelReader
    from infrastructure.container import blobs
    from infrastructure.inference.image_recheck import recheck_images
    from projections.engine import postgres_store
    from projections.stored_images import PostgresStoredImages

    actor, store = operator(settings, log), blobs(settings)
    with postgres_store.connect(settings.postgres_url) as connection:
        stored = PostgresStoredImages(connection)
        _require_dataset(log, dataset)
        require_complete(stored, log)
        bar = progress.add_task("recheck", total=stored.count(dataset))

        def recheck_with(reader: PixelReader) -> ImageRecheck:
            return ImageRecheck(
                log=log, blobs=store, images=stored, reader=reader, actor=actor, now=lambda: datetime.now(UTC), dry_run=dry_run
            )

        def advance(result: RecheckResult | None) -> None:
            progress.advance(bar)
            if result is not None:
                report.add(result)

        recheck_images(settings, stored.pages(dataset), blobs=store, recheck_with=recheck_with, report=advance)


def _require_dataset(log: Any, dataset_id: UUID | None) -> None:
    from application.commands import load_existing
    from domain import dataset

    if dataset_id is not None:
        load_existing(log, dataset_id, dataset.evolve, what="Dataset", closed=lambda it: it.deleted)


def _progress(output_format: str | None) -> Progress:
    """On stderr; not where it would run through rows on the same terminal."""
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=err, redirect_stdout=False, disable=output_format is not None and sys.stdout.isatty())
