"""The actor under whom the commands of an operator are recorded."""

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


def operator_command(settings: Settings, log: "RecorderEventStore") -> "Command":
    from application.ports import Command

    return Command(id=uuid4(), actor=operator(settings, log), at=datetime.now(UTC))


def operator(settings: Settings, log: "RecorderEventStore") -> Actor:
    """The administrator who is signed in on this machine, otherwise "root on HOST".

    Whoever can read the root key may do everything, with or without an account. So anybody else who is signed in acts as root too; the
    actor's name then says whose sign-in it was. The name of the operating system's user is not recorded: it would name a person in clear.
    """
    user = _signed_in_user(settings, log)
    if user is not None and user.is_active_admin:
        return Actor(id=user.id, role=user.role)
    root = f"root on {host_name()}"
    return Actor(id=system_actor(root), kind="system", name=root if user is None else f"{root}, signed in as {user.id}")


def host_name() -> str:
    return printable(socket.gethostname())[:MAX_HOST_NAME_LENGTH] or "an unnamed host"


def _signed_in_user(settings: Settings, log: "RecorderEventStore") -> "User | None":
    """The user of the stored sign-in, if that is valid for this installation."""
    from application.authentication import signed_in
    from domain.errors import NotAuthenticated
    from domain.user import User

    session_id = _stored_session(settings)
    if session_id is None:
        return None
    try:
        account = signed_in(session_id, log)[1]
    except NotAuthenticated:
        return None
    return account if isinstance(account, User) else None


def _stored_session(settings: Settings) -> UUID | None:
    """The access token names the session; once that has ended, the refresh token leads to it."""
    from api.cli.client.credentials import stored_credentials
    from domain.errors import NotAuthenticated
    from infrastructure.container import refresh_tokens
    from infrastructure.security.access_tokens import SignedAccessTokens
    from infrastructure.security.process_keys import operator_keys

    try:
        credentials = stored_credentials()
    except OSError:  # of another user
        return None
    if credentials is None:
        return None
    try:
        tokens = SignedAccessTokens(operator_keys(settings), ttl=settings.access_ttl)
        return tokens.verify(credentials.access_token, at=datetime.now(UTC)).session_id
    except NotAuthenticated:
        with closing(refresh_tokens(settings)) as refresh:
            return refresh.session_of(credentials.refresh_token) if credentials.refresh_token else None
