"""Who works at the command line of the server's own machine, and as whom that is recorded."""

import socket
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from domain.access import Actor
from domain.values import printable, system_actor
from infrastructure.configuration.settings import Settings

if TYPE_CHECKING:
    from application.ports import Command
    from domain.user import User
    from infrastructure.eventstore.event_store import RecorderEventStore

MAX_HOST_NAME_LENGTH = 64


def operator_command(given: Settings, log: "RecorderEventStore") -> "Command":
    from application.ports import Command

    return Command(id=uuid4(), actor=operator(given, log), at=datetime.now(UTC))


def operator(given: Settings, log: "RecorderEventStore") -> Actor:
    """The administrator who is signed in on this machine, otherwise "root on HOST".

    Whoever can read the root key may do everything, with or without an account. So anybody else who is signed in acts as root too; the
    actor's name then says whose sign-in it was. The name of the operating system's user is not recorded: it would name a person in clear.
    """
    person = _signed_in(given, log)
    if person is not None and person.is_active_admin:
        return Actor(id=person.id, role=person.role)
    root = f"root on {host_name()}"
    return Actor(id=system_actor(root), kind="system", name=root if person is None else f"{root}, signed in as {person.id}")


def host_name() -> str:
    return printable(socket.gethostname())[:MAX_HOST_NAME_LENGTH] or "an unnamed host"


def _signed_in(given: Settings, log: "RecorderEventStore") -> "User | None":
    """Whose sign-in `bioscope login` has kept, as far as it is one to this installation and has not ended."""
    from application.authentication import signed_in
    from domain.errors import NotAuthenticated

    session_id = _session(given)
    if session_id is None:
        return None
    try:
        return signed_in(session_id, log)[1]
    except NotAuthenticated:
        return None


def _session(given: Settings) -> UUID | None:
    """The access token names the session; once that has ended, the refresh token leads to it."""
    from api.cli.client.api_client import kept_credentials
    from domain.errors import NotAuthenticated
    from infrastructure.container import refresh_tokens
    from infrastructure.security.access_tokens import SignedAccessTokens
    from infrastructure.security.process_keys import operator_keys

    try:
        kept = kept_credentials()
    except OSError:  # of another user
        return None
    if kept is None:
        return None
    try:
        return SignedAccessTokens(operator_keys(given), ttl=given.access_ttl).verify(kept.access_token, at=datetime.now(UTC)).session_id
    except NotAuthenticated:
        with closing(refresh_tokens(given)) as tokens:
            return tokens.session_of(kept.refresh_token) if kept.refresh_token else None
