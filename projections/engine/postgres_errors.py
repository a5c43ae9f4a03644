"""Classification of database errors: those that are not the fault of an event, and reasons for the others."""

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
"""Errors that are not the fault of an event: the database is unavailable or does not suit this release, or a newer release wrote the
event."""


def reason_of(error: Exception) -> str:
    """The reason why an event cannot be applied. It never contains values of the row, which may be private."""
    message = error.diag.message_primary if isinstance(error, psycopg.Error) else str(error)
    return f"{type(error).__name__}: {message}"[:MAX_REASON_LENGTH]
