"""Registered models, from the server's own machine."""

from pathlib import Path

import click

from api.cli.common import DATA, open_event_log, running_installation
from api.cli.operator import operator_command


@click.group()
def models() -> None:
    """Registered models, from the server's own machine."""


@models.command()
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1))
@DATA
def promote(name: str, version: int, data: Path | None) -> None:
    """Put VERSION of the model NAME into production.

    New jobs use it at once. Jobs under way and results keep the version that they name. An older version is taken back the same way.

    \b
      bioscope models promote pbc8 2
    """
    from application.models import promote as put_into_production

    settings = running_installation(data)
    with open_event_log(settings) as log:
        done = put_into_production(name=name, number=version, command=operator_command(settings, log), log=log)
    already = "" if done.position else " already"
    click.echo(f"Version {version} of the model {name} is in production{already}.")
