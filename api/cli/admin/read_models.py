"""Queries of read models by commands on the server's machine, which may see everything."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from api.cli.output import print_message
from domain.access import Actor
from domain.values import system_actor
from infrastructure.configuration.settings import Settings

if TYPE_CHECKING:
    from application.services import QueryDatabase
    from projections.pagination import Page

T = TypeVar("T")

OPERATOR: Final = Actor(id=system_actor("operator"), kind="system")
MAX_PAGE: Final = 200
PROJECTION_TIMEOUT_SECONDS: Final = 2.0
CURSOR: Final = click.option("--cursor", metavar="TEXT", help="Continue after the previous page, which prints the value on stderr.")


@asynccontextmanager
async def open_reads(settings: Settings) -> "AsyncIterator[QueryDatabase]":
    from infrastructure.postgres.query_database import PostgresQueryDatabase

    database = PostgresQueryDatabase(settings.postgres_url, size=1)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def all_rows(settings: Settings, query: "Callable[..., Awaitable[Page[Any]]]", **conditions: object) -> list[Any]:
    """The rows of a list, page by page."""
    rows: list[Any] = []
    cursor: str | None = None
    async with open_reads(settings) as reads:
        while True:
            page = await query(reads, OPERATOR, cursor=cursor, **conditions)
            rows += page.items
            if (cursor := page.next_cursor) is None:
                return rows


async def newest_page(
    settings: Settings, query: "Callable[[QueryDatabase, Actor], Awaitable[Page[T]]]", *, position: int
) -> "tuple[Page[T], int]":
    """A page, and by how many events the read models are behind `position` after a short wait."""
    from infrastructure.postgres.query_database import PositionWaiter

    visible = PositionWaiter(settings.postgres_url)
    async with open_reads(settings) as reads:
        await visible.start()
        try:
            await visible.wait(position, PROJECTION_TIMEOUT_SECONDS)
            return await query(reads, OPERATOR), max(0, position - visible.position)
        finally:
            await visible.stop()


def print_rest(page: "Page[Any]", lag: int, *, what: str) -> None:
    """Say what the list may lack: events that are not in the read models yet, and further pages."""
    if lag:
        print_message(f"The list may be out of date: {lag} events are not in the read models yet. Is the projector running?")
    if page.next_cursor:
        print_message(f"There are more {what}: repeat the command with --cursor {page.next_cursor}")
