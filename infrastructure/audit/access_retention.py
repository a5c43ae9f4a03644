"""Retention of the trail of access: the oldest records are removed in ranges that end at signed heads."""

import time
from collections.abc import Callable
from typing import Final

import psycopg

PRUNE: Final = "select removed, more from ops.prune_access_log(%s)"
PAUSE_SECONDS: Final = 0.02  # between two ranges, for appends


def remove_old_records(connection: psycopg.Connection, *, days: int, sleep: Callable[[float], None] = time.sleep) -> int:
    """Remove the records that are older than `days`, in short transactions; return their number. Blocks; may be interrupted and repeated.

    `connection` must be in autocommit mode. Raises psycopg.Error.
    """
    total, more = 0, True
    while more:
        removed, more = connection.execute(PRUNE, (days,)).fetchone() or (0, False)
        total += removed
        sleep(PAUSE_SECONDS if more else 0)
    return total
