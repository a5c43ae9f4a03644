"""The command that shows statistics of results."""

from datetime import datetime

import click

from api.cli.commands import command, json_option
from api.cli.common import API_URL
from api.cli.output import print_json
from api.cli.shapes import ResultStatistics

DAY = click.DateTime(["%Y-%m-%d"])


@command(example="bioscope stats --by model,label")
@click.option("--from", "first", type=DAY, metavar="DAY", help="First day, in UTC. [default: 29 days before the last one]")
@click.option("--to", "last", type=DAY, metavar="DAY", help="Last day, in UTC. [default: today]")
@click.option("--dataset", metavar="NAME|ID", help="Count results of this dataset only.")
@click.option("--model", metavar="NAME[@VERSION]", help="Count results of this model only, or of one version of it.")
@click.option("--device", metavar="HOSTNAME|ID", help="Count results of images from this device only.")
@click.option(
    "--by",
    "group_by",
    metavar="COLUMNS",
    default="model,version",
    show_default=True,
    help="What to group the results by: any of model, version, dataset, device, day, label and verdict, separated by commas.",
)
@json_option(ResultStatistics)
@API_URL
def stats(
    first: datetime | None,
    last: datetime | None,
    dataset: str | None,
    model: str | None,
    device: str | None,
    group_by: str,
    url: str | None,
    *,
    as_json: bool,
) -> None:
    """Count results, with their verdicts, mean confidence and its histogram.

    The results of all datasets that you may see are counted, with the labels and verdicts that are in force. A result that repeats an
    earlier one is not counted.
    """
    from api.cli.client import statistics
    from api.cli.client.sign_in import open_client

    days = {name: str(day.date()) for name, day in (("from", first), ("to", last)) if day is not None}
    with open_client(url) as client:
        found = statistics.read_statistics(client, dataset=dataset, model=model, device=device, group_by=group_by, **days)
        devices = {} if as_json else statistics.device_names(client, found)
    if as_json:
        print_json(found)
    else:
        statistics.print_statistics(found, devices)
