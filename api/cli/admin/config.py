"""The settings of this installation, shown."""

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from api.cli.common import DATA, PORT, WRONG_USE, fail


@click.group()
def config() -> None:
    """The settings of this installation."""


@config.command()
@DATA
@PORT
@click.option("--json", "as_json", is_flag=True, help="As JSON: the value and the source of each variable.")
def show(data: Path | None, port: int | None, *, as_json: bool) -> None:
    """Print every setting with its value and its source: default, environment or command line. Passwords and keys are hidden.

    Exit code 2 when a variable is unknown or refused; the reasons are printed to stderr.
    """
    from infrastructure.configuration.sources import shown_settings

    options = {name: value for name, value in (("data", data), ("port", port)) if value is not None}
    settings, problems = shown_settings(os.environ, options)
    if as_json:
        values = {setting.variable: {"value": setting.value, "source": setting.source} for setting in settings}
        click.echo(msgspec.json.format(msgspec.json.encode(values), indent=2))
    else:
        width = max(len(setting.variable) for setting in settings)
        for setting in settings:
            click.echo(f"{setting.variable:{width}}  {setting.source:12}  {_text(setting.value)}".rstrip())
    if problems:
        fail("\n".join(problems), WRONG_USE)


def _text(value: Any) -> str:
    match value:
        case None:
            return "(refused)"
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(value)
        case _:
            return str(value)
