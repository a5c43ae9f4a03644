"""What the commands share: settings, the log, and errors told in a sentence."""

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

from api.cli.errors import AWAY, FAILED, TAKEN, TAMPERED, WRONG_USE, operator_error
from infrastructure.configuration.settings import Settings, load

__all__ = [
    "AWAY",
    "DATA",
    "FAILED",
    "PORT",
    "TAKEN",
    "TAMPERED",
    "URL",
    "WRONG_USE",
    "CommandGroup",
    "err",
    "fail",
    "friendly_errors",
    "needs",
    "open_log",
    "out",
    "running",
    "settings",
]

out = Console()
err = Console(stderr=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    err.print(f"[red]bioscope:[/red] {escape(message)}", highlight=False, soft_wrap=True, emoji=False)
    sys.exit(code)


def settings(**changes: Any) -> Settings:
    """From the environment, with the options given on the command line. Raises WrongSetting."""
    given = msgspec.structs.replace(load(os.environ), **{name: value for name, value in changes.items() if value is not None})
    return msgspec.structs.replace(given, data=given.data.absolute())


DATA = click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder for everything that is kept [.bioscope].")
PORT = click.option("--port", type=click.IntRange(0, 65535), help="Port of the API [8000].")
URL = click.option("--url", help="Address of the API [the one you signed in to, or http://127.0.0.1:8000].")


def running(data: Path | None) -> Settings:
    """The settings of the system that runs here: those given, completed by what `bioscope up` wrote into its data folder.

    Raises NotRunning, and for a database that does not fit SchemaBehind or SchemaAhead.
    """
    from infrastructure.embedded.supervisor import running_settings
    from infrastructure.postgres.schema import check

    given = running_settings(settings(data=data))
    check(given.postgres_url)
    return given


def open_log(given: Settings) -> AbstractContextManager[Any]:
    """With the keys that are here. Raises WrongRootKey."""
    from infrastructure.eventstore.event_store import open_event_store

    return open_event_store(given)


@contextmanager
def friendly_errors() -> Iterator[None]:
    """Errors that the user can act on end the process with a sentence; all others keep their traceback."""
    try:
        yield
    except Exception as error:
        if (known := operator_error(error)) is None:
            raise
        fail(known.sentence, known.exit_code)


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


def needs(given: Settings, *names: str) -> None:
    for name in names:
        if not getattr(given, name):
            fail(f"BIOSCOPE_{name.upper()} is not set: it is needed by this process (`bioscope up` sets it for an embedded one)", WRONG_USE)
