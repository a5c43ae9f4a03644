"""Errors that an operator or a user can act on, each as a sentence and an exit code; all others are defects and keep their traceback."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

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


class Rule(NamedTuple):
    errors: tuple[type[Exception], ...]
    exit_code: int
    sentence: Callable[[Any], str] = str


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
    from infrastructure.postgres.errors import database_error

    error = database_error(error) or error
    for rule in _rules():
        if isinstance(error, rule.errors):
            return OperatorError(rule.sentence(error), rule.exit_code)
    if isinstance(error, OSError) and error.filename is not None and error.errno in REMEDIES:
        return OperatorError(f"{error.filename}: {os.strerror(error.errno)}; {REMEDIES[error.errno]}", FAILED)
    return None


def _rules() -> tuple[Rule, ...]:
    """The first one that fits applies. Imported here, because a command that succeeds needs none of these modules."""
    import httpx

    from api.cli.client.api_client import DamagedDownload, NotVisible, RequestRefused
    from api.cli.client.http_connection import UnusableEnvironment
    from api.cli.client.registry import NothingNamed
    from domain.errors import DomainError, Unavailable
    from infrastructure.configuration.settings import WrongSetting
    from infrastructure.embedded.supervisor import AlreadyRunning, CannotStart, NotRunning
    from infrastructure.operations.backup import NoBackup
    from infrastructure.postgres.errors import DatabaseAway, DatabaseRefused
    from infrastructure.postgres.schema import SchemaAhead, SchemaBehind
    from infrastructure.sandbox.policy import Unsandboxed
    from infrastructure.security.keys import WrongRootKey
    from projections.engine.checkpoints import CheckpointUnfit, FoldsDiffer

    cannot_proceed = (CannotStart, NoBackup, SchemaBehind, SchemaAhead, Unsandboxed, FoldsDiffer, CheckpointUnfit)
    return (
        Rule((AlreadyRunning,), ALREADY_RUNNING),
        Rule((*cannot_proceed, RequestRefused, NotVisible, UnusableEnvironment, DamagedDownload), FAILED),
        Rule((WrongSetting, WrongRootKey, DatabaseRefused, NothingNamed), WRONG_USE),
        Rule((DatabaseAway, NotRunning), AWAY),
        Rule((Unavailable,), AWAY, lambda error: error.detail + _cause(error)),
        Rule((DomainError,), FAILED, lambda error: error.detail),
        Rule((httpx.UnsupportedProtocol, httpx.InvalidURL), WRONG_USE, _wrong_url),
        Rule((httpx.TransportError,), AWAY, _no_answer),
    )


def _wrong_url(error: Exception) -> str:
    return f"--url and BIOSCOPE_URL must be like https://bioscope.example.org ({error})"


def _no_answer(error: Exception) -> str:
    return f"the API does not answer ({type(error).__name__}): is `bioscope up` running, and is --url correct?"


def _cause(error: Exception) -> str:
    """The file that could not be used, if that is the reason."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.filename is not None:
        return f" ({cause.filename}: {cause.strerror})"
    return ""
