"""Errors that an operator or a user can act on, each as a sentence and an exit code; all others are defects and keep their traceback."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from api.cli.exit_codes import ALREADY_RUNNING, AWAY, FAILED, WRONG_USE
from api.cli.output import fail

REMEDIES: Final = {
    errno.EACCES: "give this user access, or choose another path",
    errno.EPERM: "give this user access, or choose another path",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "give the path of a file",
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some disk space",
    errno.EROFS: "choose a path on a writable file system",
}


class OperatorError(NamedTuple):
    sentence: str
    exit_code: int


@contextmanager
def friendly_errors() -> Iterator[None]:
    """End the process with a sentence on an error that the user can act on; all others keep their traceback."""
    try:
        yield
    except Exception as error:
        if (operator_error := operator_error_of(error)) is None:
            raise
        fail(operator_error.sentence, operator_error.exit_code)


def operator_error_of(error: Exception) -> OperatorError | None:
    """The sentence to print for `error` instead of a traceback; None where only a traceback helps."""
    import httpx

    from api.cli.client.api_client import RequestRefused
    from api.cli.client.http_connection import UnusableEnvironment
    from domain.errors import DomainError, Unavailable
    from infrastructure.configuration.settings import WrongSetting
    from infrastructure.embedded.supervisor import AlreadyRunning, CannotStart, NotRunning
    from infrastructure.operations.backup import NoBackup
    from infrastructure.postgres.errors import DatabaseAway, DatabaseRefused, database_error
    from infrastructure.postgres.schema import SchemaAhead, SchemaBehind
    from infrastructure.sandbox.policy import Unsandboxed
    from infrastructure.security.keys import WrongRootKey
    from projections.engine.checkpoints import CheckpointUnfit, FoldsDiffer

    error = database_error(error) or error
    match error:
        case AlreadyRunning():
            return OperatorError(str(error), ALREADY_RUNNING)
        case (
            CannotStart()
            | NoBackup()
            | SchemaBehind()
            | SchemaAhead()
            | RequestRefused()
            | Unsandboxed()
            | UnusableEnvironment()
            | FoldsDiffer()
            | CheckpointUnfit()
        ):
            return OperatorError(str(error), FAILED)
        case WrongSetting() | WrongRootKey() | DatabaseRefused():
            return OperatorError(str(error), WRONG_USE)
        case DatabaseAway() | NotRunning():
            return OperatorError(str(error), AWAY)
        case Unavailable():
            return OperatorError(error.detail + _cause(error), AWAY)
        case DomainError():
            return OperatorError(error.detail, FAILED)
        case httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return OperatorError(f"--url and BIOSCOPE_URL must be like https://bioscope.example.org ({error})", WRONG_USE)
        case httpx.TransportError():
            name = type(error).__name__
            return OperatorError(f"the API does not answer ({name}): is `bioscope up` running, and is --url correct?", AWAY)
        case OSError(errno=number) if error.filename is not None and number in REMEDIES:
            return OperatorError(f"{error.filename}: {os.strerror(number)}; {REMEDIES[number]}", FAILED)
    return None


def _cause(error: Exception) -> str:
    """The file that could not be used, if that is the reason."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.filename is not None:
        return f" ({cause.filename}: {cause.strerror})"
    return ""
