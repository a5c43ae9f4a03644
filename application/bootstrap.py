"""The use case of an installation without administrators: the first one creates an account with a token that the server printed."""

from typing import Final

import msgspec

from application import accounts
from application.commands import CommandResult, create_stream, new_id
from application.passwords import new_password_hash, password_secret, person_of
from application.ports import BootstrapTokens, Command, EventStore, PasswordHasher, PasswordRequester, UniqueClaim
from domain import user
from domain.access import Role
from domain.errors import InvalidLink, Taken

SCOPE: Final = "bootstrap"
FIRST: Final = "first administrator"
REFUSED: Final = (
    "This token is wrong, or there is an administrator already. Until there is one, the server prints an address with the right token "
    "at its start"
)


def is_needed(log: EventStore) -> bool:
    """Whether no account ever had the role of administrator."""
    return not log.administrators()


def create_first_administrator(
    *,
    token: str,
    email: str,
    username: str,
    first_name: str,
    last_name: str,
    password: str,
    network: str,
    command: Command,
    log: EventStore,
    bootstrap_tokens: BootstrapTokens,
    passwords: PasswordHasher,
) -> CommandResult:
    """Create the account of the first administrator; the id is that of the account.

    Raises InvalidLink for another token, and once there is or ever was an administrator. Raises Invalid, Taken, and Unavailable.
    """
    if not bootstrap_tokens.is_genuine(token) or not is_needed(log):
        raise InvalidLink(REFUSED)
    user_id = new_id(command, "user")
    names = {"username": username, "first_name": first_name, "last_name": last_name}
    registered = user.register(user_id, email=email, **names, role=Role.ADMIN, is_verified=False, by=user_id, at=command.at)
    password_hash = new_password_hash(
        password,
        person=person_of(registered),
        passwords=passwords,
        requester=PasswordRequester(network, is_stranger=True),
    )
    registered = msgspec.structs.replace(registered, password_commitment=user.commitment(user_id, password_hash))
    claims = (UniqueClaim(scope=SCOPE, value=FIRST, stream=user_id), *accounts.name_claims(registered))
    try:
        return create_stream(log, command, [registered], claims=claims, secrets=(password_secret(user_id, password_hash),))
    except Taken as taken:
        if taken.scope == SCOPE:
            raise InvalidLink(REFUSED) from None
        raise accounts.taken_name(taken) from None
