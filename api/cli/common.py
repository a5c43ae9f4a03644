"""Settings, options and the event log, as several commands need them."""

import os
import shlex
import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from api.cli.commands import SettingOption
from api.cli.exit_codes import WRONG_USE
from api.cli.output import fail
from infrastructure.configuration.settings import Settings, load


def load_settings(**changes: Any) -> Settings:
    """From the environment, with the options given on the command line. Raises WrongSetting."""
    settings = msgspec.structs.replace(load(os.environ), **{name: value for name, value in changes.items() if value is not None})
    return msgspec.structs.replace(settings, data=settings.data.absolute())


def _data_folder(ctx: click.Context, _: click.Parameter, value: Path | None) -> Path | None:
    """`bioscope --data FOLDER COMMAND` is `bioscope COMMAND --data FOLDER`."""
    inherited: Path | None = ctx.find_root().params.get("data")
    return inherited if value is None else value


DEFAULTS: Final = Settings()
DATA: Final = click.option(
    "--data",
    cls=SettingOption,
    variable="BIOSCOPE_DATA",
    fallback=f"{DEFAULTS.data} in the current folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    callback=_data_folder,
    help="Data folder of the installation.",
)
PORT: Final = click.option(
    "--port",
    cls=SettingOption,
    variable="BIOSCOPE_PORT",
    fallback=str(DEFAULTS.port),
    type=click.IntRange(0, 65535),
    metavar="NUMBER",
    help="Port of the API; 0 chooses a free one.",
)
API_URL: Final = click.option(
    "--url",
    cls=SettingOption,
    variable="BIOSCOPE_URL",
    fallback="the address that you signed in to",
    metavar="URL",
    help="Address of the API.",
)


def running_installation(data: Path | None) -> Settings:
    """The settings of the installation that is running: from the environment, completed by those in its data folder.

    Raises NotRunning, and for a database that does not fit SchemaBehind or SchemaAhead.
    """
    from infrastructure.embedded.supervisor import running_settings
    from infrastructure.postgres.schema import check

    settings = running_settings(load_settings(data=data))
    check(settings.postgres_url)
    return settings


def open_event_log(settings: Settings) -> AbstractContextManager[Any]:
    """The event log, with the keys of this machine. Raises WrongRootKey."""
    from infrastructure.eventstore.event_store import open_event_store

    return open_event_store(settings)


def program(started_as: str) -> str:
    """What to type before a command, if `started_as` is sys.argv[0]: just `bioscope` where the shell finds the same file."""
    path = Path(started_as)
    if path.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m api.cli"
    on_path = shutil.which("bioscope")
    if path.name != "bioscope" or (on_path and path.exists() and path.samefile(on_path)):
        return "bioscope"
    return shlex.quote(started_as)


def require_settings(settings: Settings, *names: str) -> None:
    for name in names:
        if not getattr(settings, name):
            fail(f"set BIOSCOPE_{name.upper()}: this process needs it (`bioscope up` sets it for its own processes)", WRONG_USE)


AS_OF = click.option("--as-of", "as_of", metavar="MOMENT", help="A time (2026-03-01T12:00:00Z) or a position (4711). [default: now]")
