"""Errors of the driver, as an operator can act on them."""

from typing import Final

import psycopg
from psycopg import errors

from domain.errors import Unavailable

AUTHENTICATION_FAILED: Final = "password authentication failed"
URLS: Final = "BIOSCOPE_POSTGRES_URL and BIOSCOPE_POSTGRES_OWNER_URL"


def database_unavailable() -> Unavailable:
    """For callers of the API, who may try again."""
    return Unavailable("The database is away; try again", retry_after=2)


class DatabaseAway(Exception):
    """The database does not answer, or cannot work now; the text says why and what to check."""


class DatabaseRefused(Exception):
    """The database denies this; the text says why and which setting to change."""


def database_error(error: BaseException) -> DatabaseAway | DatabaseRefused | None:
    """The error of the driver as one that an operator can act on; None for all others, which are our own faults."""
    match error:
        case errors.InsufficientPrivilege():
            return DatabaseRefused(
                f"the database refuses this ({_reason(error)}). Each process uses its own role, commands use bioscope_app;"
                " migrate, restore and rebuild need the owner's URL: set BIOSCOPE_POSTGRES_OWNER_URL"
            )
        case errors.ReadOnlySqlTransaction():
            return DatabaseRefused(f"the database is read-only ({_reason(error)}): name the primary server in {URLS}")
        case psycopg.OperationalError() if _is_password_refused(error):
            return DatabaseRefused(f"the database refuses to let us in ({_reason(error)}): correct the user name and password in {URLS}")
        case psycopg.OperationalError():
            return DatabaseAway(f"the database cannot be used ({_reason(error)}): check that it runs, and {URLS}")
        case psycopg.ProgrammingError() if error.sqlstate is None:  # raised before anything was sent; its text may hold a password
            return DatabaseRefused(f"the driver cannot read the database's URL: check its host, port and parameters in {URLS}")
    return None


def _is_password_refused(error: psycopg.OperationalError) -> bool:
    """Whether a password was required, and was missing or wrong. libpq gives no SQLSTATE for a connection that failed."""
    connection = error.pgconn
    if connection is None or error.sqlstate is not None:
        return False
    return connection.needs_password or (connection.used_password and AUTHENTICATION_FAILED in str(error))


def _reason(error: psycopg.Error) -> str:
    """The server's own sentence, or the first line of the driver's."""
    text = error.diag.message_primary or (str(error).splitlines() or [type(error).__name__])[0]
    return text.removeprefix("connection failed: ").removeprefix("connection is bad: ").strip()
