"""Commands for results, through the API: list them with filters, show one, export all."""

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import click

from api.cli.commands import Choice, Id, argument, group, json_option
from api.cli.common import API_URL, AS_OF
from api.cli.exit_codes import WRONG_USE
from api.cli.moments import MOMENT_EXAMPLES, Moment
from api.cli.numbers import Fraction
from api.cli.output import fail, print_json, print_message
from api.cli.shapes import FoundResult, ResultDetails
from domain.classification import Verdict

F = TypeVar("F", bound=Callable[..., Any])
SCORE = Fraction()
FILTERS = (
    click.option("--job", "classification_id", type=Id(hint="See `bioscope jobs list`."), metavar="ID", help="Only results of this job."),
    click.option("--dataset", metavar="NAME|ID", help="Only results of images in this dataset."),
    click.option("--image", "image_id", type=Id(), metavar="ID", help="Only results of this image."),
    click.option("--label", metavar="LABEL", help="Only results with this label."),
    click.option("--verdict", type=Choice([verdict.value for verdict in Verdict]), help="Only results with this verdict."),
    click.option("--min-confidence", type=SCORE, metavar="NUMBER", help="Only results with this confidence or a higher one."),
    click.option("--max-confidence", type=SCORE, metavar="NUMBER", help="Only results with this confidence or a lower one."),
    click.option("--model", metavar="NAME[@VERSION]", help="Only results of this model, or of one version of it."),
    click.option("--from", "created_from", type=Moment(), metavar="TIME", help=f"Only results since this time, such as {MOMENT_EXAMPLES}."),
    click.option("--before", "created_before", type=Moment(), metavar="TIME", help="Only results before this time."),
    click.option(
        "--all-versions", is_flag=True, help="Earlier results of the same image and model too. Those of a job are always all there."
    ),
)
ENDINGS = {".csv": "csv", ".json": "json"}


def filters(command: F) -> F:
    """The options that choose results."""
    for option in reversed(FILTERS):
        command = option(command)
    return command


@group()
def results() -> None:
    """List, show and export results.

    The commands work from any machine, with your sign-in (`bioscope login`). They show the results of all datasets that you may see.
    """


@results.command("list", example="bioscope results list --verdict clear --min-confidence 0.9")
@filters
@click.option("--ids", "with_ids", is_flag=True, help="Show the ids of the results.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="NUMBER", default=50, show_default=True, help="How many to list, the newest ones."
)
@json_option(list[FoundResult])
@API_URL
def list_results(limit: int, url: str | None, *, with_ids: bool, as_json: bool, **chosen: Any) -> None:
    """List results, newest first.

    Of each image and model, the newest result is listed. Filters can be combined.
    """
    from api.cli.client import results
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = results.read_results(client, results.query_of(client, **_conditions(chosen)), maximum=limit)
    if as_json:
        print_json(found)
        return
    results.print_results(found, with_ids=with_ids)
    if len(found) == limit:
        print_message(f"These are the newest {limit:,}. --limit lists more; `bioscope results export` saves all.")


@results.command(example="bioscope results show")
@argument(
    "result", type=Id(hint="See `bioscope results list --ids`."), required=False, help="Id of the result. [default: the newest one of all]"
)
@AS_OF
@json_option(ResultDetails)
@API_URL
def show(result: UUID | None, as_of: str | None, url: str | None, *, as_json: bool) -> None:
    """Show a result: scores, model, and the other results of the model for the image.

    With --as-of, its label, confidence and verdict are those under the policies that were in force then.
    """
    from api.cli.client import results
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        found = results.read_result(client, result, as_of=as_of)
    if as_json:
        print_json(found)
    else:
        results.print_result(found)


@results.command(example="bioscope results export results.csv")
@argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), help="File to write; it must not exist. - is stdout.")
@filters
@click.option(
    "--format", "export_format", type=Choice(sorted(ENDINGS.values())), help="Format of the file. [default: by its ending; csv on stdout]"
)
@API_URL
def export(file: Path, export_format: str | None, url: str | None, **chosen: Any) -> None:
    """Save all results that match, with paths, scores, model versions and warnings.

    In CSV, a text that a spreadsheet would read as a formula begins with an apostrophe. Filters can be combined.
    """
    from api.cli.client import results
    from api.cli.client.sign_in import open_client
    from infrastructure.atomic_files import write_atomically

    to_stdout = str(file) == "-"
    chosen_format = export_format or ("csv" if to_stdout else ENDINGS.get(file.suffix.lower()))
    if chosen_format is None:
        fail(f"{file} ends in neither .csv nor .json: choose such a name, or give --format", WRONG_USE)
    if not to_stdout and file.exists():
        fail(f"{file} exists already: choose another name", WRONG_USE)
    if not to_stdout and not file.parent.is_dir():
        fail(f"there is no folder {file.parent}: make it, or choose another path", WRONG_USE)
    with open_client(url) as client:
        query = results.query_of(client, **_conditions(chosen))
        if not results.read_results(client, query, maximum=1):
            print_message("No result matches: the export is empty.")
        pieces = results.export(client, query, chosen_format)
        if to_stdout:
            sys.stdout.buffer.writelines(pieces)
            return
        write_atomically(file, pieces, durable=False)
    print_message(f"The results are in {file} ({file.stat().st_size:,} bytes).")


def _conditions(chosen: dict[str, Any]) -> dict[str, Any]:
    """The options as parameters of a request."""
    versions = {"versions": "all" if chosen["all_versions"] else None}
    texts = {name: value.isoformat() for name, value in chosen.items() if isinstance(value, datetime)}
    return {name: value for name, value in chosen.items() if name != "all_versions"} | texts | versions
