"""What errors of the database say about an event: nothing, while the database is unavailable; otherwise why it cannot be applied."""

from typing import Final

import psycopg

from domain.errors import Unavailable
from projections.engine.checkpoints import CheckpointConflict, CheckpointUnfit, FoldsDiffer, NotInLog

MAX_REASON_LENGTH: Final = 500

UNAVAILABLE_ERRORS: Final[tuple[type[Exception], ...]] = (Unavailable, psycopg.OperationalError, psycopg.InterfaceError)

NOT_POISON: Final[tuple[type[Exception], ...]] = (
    *UNAVAILABLE_ERRORS,
    CheckpointConflict,
    NotInLog,
    CheckpointUnfit,
    FoldsDiffer,
    psycopg.ProgrammingError,
    psycopg.InternalError,
)
"""Errors that say nothing about an event: the database is unavailable or not as this release expects it, or a newer release wrote the
event."""


def reason_of(error: Exception) -> str:
    """Why an event cannot be applied. Never holds the row's content, which may be private."""
    message = error.diag.message_primary if isinstance(error, psycopg.Error) else str(error)
    return f"{type(error).__name__}: {message}"[:MAX_REASON_LENGTH]
