"""What the relay and the inference workers ask of read models; they get these functions from the command line, and no table names."""

from uuid import UUID

import psycopg

PROJECTED_POSITION = "select position from read.checkpoint where projection = 'main'"
MODELS_IN_USE = "select id, version from read.models where not retired"
SHOW_WHOLE_LOG = "select c.position >= h.position from es.head h, read.checkpoint c where c.projection = 'main'"


async def projected_position(connection: psycopg.AsyncConnection) -> int:
    """The position up to which the read models show the log."""
    row = await (await connection.execute(PROJECTED_POSITION)).fetchone()
    assert row is not None
    return int(row[0])


def models_in_use(connection: psycopg.Connection) -> dict[UUID, int]:
    """The production version of each model that is not retired."""
    return dict(connection.execute(MODELS_IN_USE).fetchall())


def show_whole_log(connection: psycopg.Connection) -> bool:
    """Whether the read models show the whole log, so that a model they lack does not exist."""
    row = connection.execute(SHOW_WHOLE_LOG).fetchone()
    return row is not None and bool(row[0])
