"""Pruning of obsolete rows beside the log: old command ids, tokens of ended sessions, uses of ended keys (migrations 0019, 0029)."""

import time
from collections.abc import Callable
from typing import Final

import psycopg

from infrastructure.observability.metrics import PRUNED, PRUNED_AT

PRUNING: Final = {
    "es.commands": "select removed, next_page from es.prune_commands(%s)",
    "es.refresh_tokens": "select removed, next_page from es.prune_refresh_tokens(%s)",
    "ops.key_uses": "select removed, next_page from ops.prune_key_uses(%s)",
}
PAUSE_SECONDS: Final = 0.02  # between two ranges of pages, for other transactions


def prune(connection: psycopg.Connection, *, sleep: Callable[[float], None] = time.sleep) -> dict[str, int]:
    """Remove obsolete rows in short transactions; return their number by table. Blocks; may be interrupted and repeated.

    `connection` must be in autocommit mode. Raises psycopg.Error.
    """
    removed = {table: _pruned(connection, query, sleep) for table, query in PRUNING.items()}
    for table, count in removed.items():
        PRUNED.labels(table).inc(count)
    PRUNED_AT.set_to_current_time()
    return removed


def _pruned(connection: psycopg.Connection, query: str, sleep: Callable[[float], None]) -> int:
    removed, page = _range_pruned(connection, query, 0)
    while page is not None:
        sleep(PAUSE_SECONDS)
        more, page = _range_pruned(connection, query, page)
        removed += more
    return removed


def _range_pruned(connection: psycopg.Connection, query: str, page: int) -> tuple[int, int | None]:
    return connection.execute(query.encode(), (page,)).fetchone() or (0, None)
