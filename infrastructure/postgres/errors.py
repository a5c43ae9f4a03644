"""Database errors, translated into messages for clients and operators."""

from typing import Final

import psycopg
from psycopg import errors

from domain.errors import Unavailable

AUTHENTICATION_FAILED: Final = "password authentication failed"
URLS: Final = "BIOSCOPE_POSTGRES_URL and BIOSCOPE_POSTGRES_OWNER_URL"


def database_unavailable() -> Unavailable:
    """The error for API clients, who may try again."""
    return Unavailable("The database is unavailable; try again", retry_after=2)


class DatabaseAway(Exception):
    """The database does not answer, or cannot work at present. The message says why, and what to check."""


class DatabaseRefused(Exception):
    """The database refuses the operation. The message says why, and which setting to change."""


def database_error(error: BaseException) -> DatabaseAway | DatabaseRefused | None:
    """A driver error as an error for operators; None for other errors, which are defects of this program."""
    match error:
        case errors.InsufficientPrivilege():
            return DatabaseRefused(
                f"the database refuses this ({_reason(error)}). Each process uses its own role, commands use bioscope_app;"
                " migrate, restore and rebuild need the owner's URL: set BIOSCOPE_POSTGRES_OWNER_URL"
            )
        case errors.ReadOnlySqlTransaction():
            return DatabaseRefused(f"the database is read-only ({_reason(error)}): name the primary server in {URLS}")
        case psycopg.OperationalError() if _is_password_refused(error):
            return DatabaseRefused(f"the database refuses the connection ({_reason(error)}): correct the user name and password in {URLS}")
        case psycopg.OperationalError():
            return DatabaseAway(f"the database cannot be used ({_reason(error)}): check that it runs, and {URLS}")
        case psycopg.ProgrammingError() if error.sqlstate is None:  # raised before anything was sent; the text may contain a password
            return DatabaseRefused(f"the database URL is invalid: check its host, port and parameters in {URLS}")
    return None


def _is_password_refused(error: psycopg.OperationalError) -> bool:
    """Whether a required password was missing or wrong. libpq gives no SQLSTATE for a failed connection."""
    connection = error.pgconn
    if connection is None or error.sqlstate is not None:
        return False
    return connection.needs_password or (connection.used_password and AUTHENTICATION_FAILED in str(error))


def _reason(error: psycopg.Error) -> str:
    """The server's message, or the first line of the driver's."""
    text = error.diag.message_primary or (str(error).splitlines() or [type(error).__name__])[0]
    return text.removeprefix("connection failed: ").removeprefix("connection is bad: ").strip()
