"""Dead letters in Postgres, with the number of events that wait for each."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import psycopg

from projections.engine.batches import ReadModels
from projections.engine.dead_letters import DeadLetter, TouchedIds, count_parked

LISTED = "select position, stream, type, reason, at from dead_letters order by position"


def list_dead_letters(
    connection: psycopg.Connection, models: ReadModels, *, touched: Callable[[Sequence[int]], Mapping[int, TouchedIds]]
) -> list[DeadLetter]:
    """All dead letters. `touched` gives the ids of the rows that events touch, by position."""
    letters, counts = dead_letters_of(connection), count_parked(models.parked_events(), touched)
    return [msgspec.structs.replace(letter, parked=counts.get(letter.position, 0)) for letter in letters]


def dead_letters_of(connection: psycopg.Connection) -> list[DeadLetter]:
    """All dead letters, without counting parked events."""
    names = ("position", "stream", "type", "reason", "at")
    return [DeadLetter(**dict(zip(names, row, strict=True))) for row in connection.execute(LISTED).fetchall()]
