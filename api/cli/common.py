"""What the commands share: settings, the log, and errors told in a sentence."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from infrastructure.settings import Settings, WrongSetting, load

FAILED, WRONG_USE, TAKEN, TAMPERED, AWAY = 1, 2, 3, 4, 5

out = Console()
err = Console(stderr=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    err.print(f"[red]bioscope:[/red] {escape(message)}", highlight=False, soft_wrap=True, emoji=False)
    sys.exit(code)


def settings(**changes: Any) -> Settings:
    """From the environment, with the options given on the command line. A wrong setting ends the process, naming the variable."""
    try:
        given = msgspec.structs.replace(load(os.environ), **{name: value for name, value in changes.items() if value is not None})
    except WrongSetting as wrong:
        fail(str(wrong), WRONG_USE)
    return msgspec.structs.replace(given, data=given.data.absolute())


DATA = click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Folder for everything that is kept [.bioscope].")
PORT = click.option("--port", type=click.IntRange(0, 65535), help="Port of the API [8000].")
URL = click.option("--url", help="Address of the API [the one you signed in to, or http://127.0.0.1:8000].")


def running(data: Path | None) -> Settings:
    """The settings of the system that runs here: those given, completed by what `bioscope up` wrote into its data folder."""
    from infrastructure.supervisor import NotRunning, running_settings

    given = settings(data=data)
    try:
        return running_settings(given)
    except NotRunning as not_running:
        fail(str(not_running), AWAY)


def the_log(given: Settings) -> AbstractContextManager[Any]:
    from infrastructure.event_store import opened

    return opened(given)


@contextmanager
def explained() -> Iterator[None]:
    """Whatever the user can mend is told in a sentence; all else keeps its traceback."""
    import httpx

    from api.client import Refused
    from api.http import UnusableEnvironment
    from domain.errors import DomainError, Unavailable
    from infrastructure.backup import NoBackup
    from infrastructure.keys import WrongRootKey
    from infrastructure.postgres.schema import SchemaBehind
    from infrastructure.supervisor import AlreadyRunning, CannotStart

    try:
        yield
    except AlreadyRunning as taken:
        fail(str(taken), TAKEN)
    except (CannotStart, NoBackup, SchemaBehind, Refused, UnusableEnvironment) as refused:
        fail(str(refused))
    except WrongRootKey as wrong:
        fail(str(wrong), WRONG_USE)
    except Unavailable as away:
        fail(away.detail, AWAY)
    except DomainError as error:
        fail(error.detail)
    except httpx.TransportError as error:
        fail(f"no answer from the API ({type(error).__name__}): is `bioscope up` running, and is --url right?", AWAY)


def command(name: str) -> Any:
    from application.ports import Command
    from domain.access import Actor
    from domain.values import system_actor

    return Command(id=uuid4(), actor=Actor(id=system_actor(f"cli {name}"), kind="system"), at=datetime.now(UTC))


def needs(given: Settings, *names: str) -> None:
    for name in names:
        if not getattr(given, name):
            fail(f"BIOSCOPE_{name.upper()} is not set: it is needed by this process (`bioscope up` sets it for an embedded one)", WRONG_USE)
