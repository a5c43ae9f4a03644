"""Use cases of registrations whose e-mail address is verified before the account exists."""

from functools import partial
from typing import Final
from uuid import UUID

import msgspec

from application import accounts
from application.commands import CommandResult, create_stream, execute, load_existing, new_id
from application.limits.sign_in_attempts import SignInLimits
from application.mail_links import read_link
from application.passwords import (
    PASSWORD,
    hash_to_resemble,
    new_password_hash,
    password_secret,
    person_of,
    stored_password_hash,
)
from application.ports import (
    Command,
    EventStore,
    MailLinks,
    PasswordHasher,
    PasswordRequester,
    RefreshTokens,
    ReleasedClaim,
    Secret,
    UniqueClaim,
)
from domain import registration, session, user, values
from domain.email_address import mailbox
from domain.errors import ConcurrencyConflict, Forbidden, InvalidLink, NotFound, Taken, Unavailable
from domain.links import LinkPurpose
from domain.registration import Registration, RegistrationCompleted, VerificationRequested
from domain.user import UserRegistered

SCOPE: Final = "registration"
MAX_ATTEMPTS: Final = 64
"""Registrations of one address at the same time: each one replaces the claim of the one before."""


def request(
    *,
    email: str,
    username: str,
    first_name: str,
    last_name: str,
    password: str,
    network: str,
    command: Command,
    log: EventStore,
    passwords: PasswordHasher,
) -> CommandResult:
    """Start a registration, whether or not an account has its address or user name. It costs the same in either case.

    It replaces earlier registrations of the address at sign-in; their links still work. Raises Invalid, and Unavailable while too many
    passwords are hashed.
    """
    registration_id = new_id(command, "registration")
    requested = registration.request(
        registration_id,
        email=email,
        username=username,
        first_name=first_name,
        last_name=last_name,
        request_id=new_id(command, "request"),
        at=command.at,
    )
    account, other = accounts.find(requested.email, log), find(requested.email, log)
    like = stored_password_hash(account, log) if account else None
    if like is None and other is not None:
        like = hash_to_resemble(other, log, passwords)
    password_hash = new_password_hash(
        password,
        person=person_of(requested),
        passwords=passwords,
        requester=PasswordRequester(network, is_stranger=True),
        like=like,
    )
    requested = msgspec.structs.replace(requested, password_commitment=user.commitment(registration_id, password_hash))
    claim = UniqueClaim(scope=SCOPE, value=requested.email, stream=registration_id)
    for _ in range(MAX_ATTEMPTS):
        earlier = log.claimed(SCOPE, requested.email)
        releases = () if earlier is None else (ReleasedClaim(stream=earlier, scope=SCOPE, value=requested.email),)
        try:
            secrets = (password_secret(registration_id, password_hash),)
            return create_stream(log, command, [requested], claims=(claim,), releases=releases, secrets=secrets)
        except Taken:
            continue
    raise Unavailable("Too many registrations of this address at the moment; try again in a few seconds", retry_after=5)


def find(email: str, log: EventStore) -> Registration | None:
    """The newest open registration of this e-mail address."""
    registration_id = log.claimed(SCOPE, email)
    found = log.load(registration_id, registration.evolve) if registration_id else None
    return found if found and found.is_open and mailbox(found.email) == mailbox(email) else None


def load_registration(log: EventStore, registration_id: UUID) -> Registration:
    """Raises NotFound for one that is completed or discarded."""
    return load_existing(log, registration_id, registration.evolve, what="Registration", closed=lambda found: not found.is_open)


def request_verification(*, email: str, command: Command, log: EventStore) -> None:
    """Send the mail of the newest registration of `email` again. Its link replaces the earlier ones. Without one, nothing happens.

    Raises UpgradeUnderWay, for any address, and Invalid if `email` is no address.
    """
    log.require_writable(VerificationRequested)
    found = find(values.email(email), log)
    if found is None:
        return
    execute(
        log,
        command,
        lambda: log.load(found.id, registration.evolve) or found,
        lambda it: registration.request_verification(it, request_id=new_id(command, "request"), at=command.at),
    )


def verify(
    *,
    token: str,
    password: str,
    username: str | None = None,
    network: str,
    command: Command,
    log: EventStore,
    links: MailLinks,
    passwords: PasswordHasher,
    tokens: RefreshTokens,
    sign_in_limits: SignInLimits,
) -> CommandResult:
    """Create the account of a registration, whose address the token proves; the id is that of the account.

    The password must be that of the registration. Otherwise somebody could register with the address of another person, who would verify
    it and so confirm an account whose password is known to a stranger. `username` replaces the requested user name.

    Raises InvalidLink, Forbidden (wrong password), TooMany, Invalid, Unavailable, and Taken: with the scope `username`, another user name
    is needed; with the scope `email`, the address has got an account.
    """
    link, pending = read_link(token, LinkPurpose.VERIFY_EMAIL, registration.evolve, lambda it: it.email, links=links, log=log)
    user_id = new_id(command, "user")
    registration.complete(pending, request_id=link.request_id, user=user_id, at=command.at)
    password_hash = stored_password_hash(pending, log)
    with sign_in_limits.password(pending.email, network, lambda: None) as requester:
        if not passwords.verify(password, password_hash, requester=requester) or password_hash is None:
            raise Forbidden("This is not the password of the registration: enter the one that you chose when you registered")
    try:
        with sign_in_limits.user_name(pending.id, network):
            result = _complete(
                pending, link.request_id, user_id=user_id, username=username, password_hash=password_hash, command=command, log=log
            )
    except Taken as taken:
        raise accounts.taken_name(taken) from None
    accounts.end_sessions(link.stream, session.Reason.ACCOUNT, command=command, log=log, tokens=tokens)
    return result


def _complete(
    pending: Registration,
    request_id: UUID,
    *,
    user_id: UUID,
    username: str | None,
    password_hash: bytes,
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Append the account and the end of the registration in one command, which also moves the password and destroys the private data."""
    decide = partial(_completed, request_id=request_id, user_id=user_id, username=username, password_hash=password_hash, command=command)
    for _ in range(MAX_ATTEMPTS):
        registered, completed = decide(pending)
        try:
            return create_stream(
                log,
                command,
                [registered, completed],
                claims=accounts.name_claims(registered),
                releases=(ReleasedClaim(stream=pending.id),),
                secrets=(password_secret(user_id, password_hash), *_destroyed(pending.id)),
            )
        except ConcurrencyConflict:  # another mail was requested, or another request has verified it
            pending = _reloaded(pending, log)
    raise InvalidLink


def _completed(
    pending: Registration, *, request_id: UUID, user_id: UUID, username: str | None, password_hash: bytes, command: Command
) -> tuple[UserRegistered, RegistrationCompleted]:
    completed = registration.complete(pending, request_id=request_id, user=user_id, at=command.at)
    registered = user.register(
        user_id,
        email=pending.email,
        username=username or pending.username,
        first_name=pending.first_name,
        last_name=pending.last_name,
        role=pending.role,
        is_verified=True,
        by=user_id,
        at=command.at,
    )
    return msgspec.structs.replace(registered, password_commitment=user.commitment(user_id, password_hash)), completed


def _reloaded(pending: Registration, log: EventStore) -> Registration:
    found = log.load(pending.id, registration.evolve)
    if found is None or not found.is_open:
        raise InvalidLink
    return found


def discard_expired(registration_id: UUID, *, command: Command, log: EventStore, tokens: RefreshTokens) -> None:
    """Discard a registration that was not verified in time, and destroy its private data. Otherwise, nothing happens."""
    try:
        result = execute(
            log,
            command,
            lambda: load_registration(log, registration_id),
            lambda found: registration.discard(found, by=command.actor.id, at=command.at),
            releases=lambda found: (ReleasedClaim(stream=found.id),),
            secrets=_destroyed(registration_id),
        )
    except NotFound:  # it was completed or discarded in the meantime
        return
    if result.position:
        accounts.end_sessions(registration_id, session.Reason.ACCOUNT, command=command, log=log, tokens=tokens)


def _destroyed(registration_id: UUID) -> tuple[Secret, Secret]:
    return (Secret(kind=PASSWORD, owner=registration_id, value=None), Secret(kind="key", owner=registration_id, value=None))
