"""A small connection pool for single statements of commands."""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from infrastructure.postgres.errors import database_unavailable
from infrastructure.postgres.profiles import COMMANDS


class StatementPool:
    """Connects with the first statement. Thread-safe. Calls block."""

    def __init__(self, url: str, *, max_size: int) -> None:
        self._pool = COMMANDS.pool(url, min_size=0, max_size=max_size, num_workers=1, check=ConnectionPool.check_connection)
        self._pool.open()

    def close(self) -> None:
        self._pool.close()

    def rows(self, statement: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """The rows of a statement, an empty list if it returns none. Raises Unavailable, and other psycopg errors."""
        try:
            with self._pool.connection() as connection:
                cursor = connection.execute(statement.encode(), parameters, prepare=True)
                return cursor.fetchall() if cursor.description else []
        except (psycopg.OperationalError, PoolTimeout):
            raise database_unavailable() from None
