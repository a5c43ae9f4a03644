"""The settings of this installation, shown."""

import os
from pathlib import Path
from typing import Any

from api.cli.commands import group, json_option
from api.cli.common import DATA, PORT
from api.cli.exit_codes import WRONG_USE
from api.cli.output import Column, fail, print_json, print_table
from api.cli.shapes import ConfigValue


@group()
def config() -> None:
    """Show the settings of this installation."""


@config.command(example="bioscope config show")
@DATA
@PORT
@json_option(dict[str, ConfigValue])
def show(data: Path | None, port: int | None, *, as_json: bool) -> None:
    """Print each setting with its value and its source: default, environment or command line.

    Passwords and keys are hidden. The exit code is 2 if a variable is unknown or its value is refused; stderr says why.
    """
    from infrastructure.configuration.sources import shown_settings

    options = {name: value for name, value in (("data", data), ("port", port)) if value is not None}
    settings, problems = shown_settings(os.environ, options)
    if as_json:
        print_json({setting.variable: ConfigValue(value=setting.value, source=setting.source) for setting in settings})
    else:
        columns = [Column("variable"), Column("source"), Column("value", wraps=True)]
        print_table(columns, [(setting.variable, setting.source, _text(setting.value)) for setting in settings])
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
