"""Registered models, from the server's own machine."""

from pathlib import Path

import click

from api.cli.common import DATA, command, running, the_log


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

    with the_log(running(data)) as log:
        done = put_into_production(name=name, number=version, command=command("models promote"), log=log)
    already = "" if done.position else " already"
    click.echo(f"Version {version} of the model {name} is in production{already}.")
