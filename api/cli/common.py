"""What the commands share: settings, the event log, and errors reported in a sentence."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from api.cli.errors import ALREADY_RUNNING, AWAY, FAILED, TAMPERED, WRONG_USE, operator_error_of
from infrastructure.configuration.settings import Settings, load

__all__ = [
    "ALREADY_RUNNING",
    "AWAY",
    "DATA",
    "FAILED",
    "PORT",
    "TAMPERED",
    "URL",
    "WRONG_USE",
    "CommandGroup",
    "err",
    "fail",
    "friendly_errors",
    "load_settings",
    "open_event_log",
    "out",
    "require_settings",
    "running_installation",
]

out = Console()
err = Console(stderr=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    err.print(f"[red]bioscope:[/red] {escape(message)}", highlight=False, soft_wrap=True, emoji=False)
    sys.exit(code)


def load_settings(**changes: Any) -> Settings:
    """From the environment, with the options given on the command line. Raises WrongSetting."""
    settings = msgspec.structs.replace(load(os.environ), **{name: value for name, value in changes.items() if value is not None})
    return msgspec.structs.replace(settings, data=settings.data.absolute())


DATA = click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder for everything that is kept [.bioscope].")
PORT = click.option("--port", type=click.IntRange(0, 65535), help="Port of the API [8000].")
URL = click.option("--url", help="Address of the API [the one you signed in to, or http://127.0.0.1:8000].")


def running_installation(data: Path | None) -> Settings:
    """The settings of the system that runs here: of the environment, completed by those in its data folder.

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


@contextmanager
def friendly_errors() -> Iterator[None]:
    """Errors that the user can act on end the process with a sentence; all others keep their traceback."""
    try:
        yield
    except Exception as error:
        if (operator_error := operator_error_of(error)) is None:
            raise
        fail(operator_error.sentence, operator_error.exit_code)


class CommandGroup(click.Group):
    """The root of all commands: no operator error ends in a traceback, and a misspelled command is answered with the nearest one."""

    def invoke(self, ctx: click.Context) -> Any:
        with friendly_errors():
            return super().invoke(ctx)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as unknown:
            for name in get_close_matches(args[0], self.list_commands(ctx), n=1):
                unknown.message += f" Did you mean {name!r}?"
            raise


def require_settings(settings: Settings, *names: str) -> None:
    for name in names:
        if not getattr(settings, name):
            fail(f"BIOSCOPE_{name.upper()} is not set: it is needed by this process (`bioscope up` sets it for an embedded one)", WRONG_USE)
