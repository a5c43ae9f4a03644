"""Use cases of sessions: sign in, refresh, sign out."""

from uuid import UUID

import msgspec

from application import accounts
from application.commands import create_stream, execute, load_existing, new_id
from application.limits.sign_in_attempts import SignInLimits
from application.passwords import password_secret, stored_password_hash
from application.ports import Command, EventStore, PasswordHasher, PasswordRequester, RefreshTokens, StreamPrecondition
from domain import session, user
from domain.access import Actor
from domain.errors import ConcurrencyConflict, DomainError, NotAuthenticated, RefreshTokenReused
from domain.session import Reason, Session
from domain.user import User

MAX_PASSWORD_ATTEMPTS = 3  # repeated when the account changes while its password is verified
REFUSED = "Invalid credentials"


class SignedIn(msgspec.Struct, frozen=True, kw_only=True):
    """A started or refreshed session. Read models show it from `position` on."""

    session_id: UUID
    user: User
    refresh_token: str
    position: int


def sign_in(
    *,
    email: str,
    password: str,
    address: str,
    network: str,
    agent: str,
    command: Command,
    log: EventStore,
    passwords: PasswordHasher,
    tokens: RefreshTokens,
    sign_in_limits: SignInLimits,
) -> SignedIn:
    """Start a session. `address` and `agent` are recorded; `network` counts for the limits.

    Raises NotAuthenticated, with the same message and cost for every reason, and TooMany after too many failures.
    """
    with sign_in_limits.password(email, network, lambda: log.claimed("email", email)) as requester:
        for _ in range(MAX_PASSWORD_ATTEMPTS):
            account, known = _verified_account(email, password, log=log, passwords=passwords, requester=requester)
            sign_in_limits.remember(account.id, network)
            stronger_hash = passwords.hash(password, requester=requester) if passwords.outdated(known) else None
            try:
                return _start(account, address=address, agent=agent, stronger_hash=stronger_hash, command=command, log=log, tokens=tokens)
            except ConcurrencyConflict:
                continue
        raise NotAuthenticated(REFUSED)


def _verified_account(
    email: str, password: str, *, log: EventStore, passwords: PasswordHasher, requester: PasswordRequester
) -> tuple[User, bytes]:
    account = accounts.find(email, log)
    known = stored_password_hash(account, log) if account else None
    is_right = passwords.verify(password, known, requester=requester)
    if not is_right or account is None or known is None or not account.may_sign_in:
        raise NotAuthenticated(REFUSED, user_id=account.id if account else None)
    return account, known


def _start(
    account: User, *, address: str, agent: str, stronger_hash: bytes | None, command: Command, log: EventStore, tokens: RefreshTokens
) -> SignedIn:
    """Start the session, provided that the account is at the version whose password was verified.

    Otherwise a command that ends the account's sessions at the same time could miss this one. It finds sessions by their tokens, so the
    token is issued before the event is appended. Raises ConcurrencyConflict.
    """
    by = msgspec.structs.replace(command, actor=Actor(id=account.id, role=account.role))
    session_id = new_id(command, "session")
    started = session.start(session_id, user=account.id, address=address, agent=agent, at=command.at)
    rehashed = user.rehash_password(account, password_hash=stronger_hash, at=command.at) if stronger_hash else None
    secrets = (password_secret(account.id, stronger_hash),) if stronger_hash else ()
    token = tokens.issue(session=session_id, user=account.id, at=command.at)
    try:
        unchanged = StreamPrecondition(stream=account.id, version=account.version)
        events = (started, rehashed) if rehashed else (started,)
        done = create_stream(log, by, events, guards=(unchanged,), secrets=secrets)
    except DomainError:
        tokens.revoke(session_id)
        raise
    account = (user.evolve(account, rehashed) if rehashed else None) or account
    return SignedIn(session_id=session_id, user=account, refresh_token=token, position=done.position)


def refresh(
    *, token: str, address: str, network: str, command: Command, log: EventStore, tokens: RefreshTokens, sign_in_limits: SignInLimits
) -> SignedIn:
    """Exchange a refresh token for its one successor. Reuse after the grace period revokes the session and is recorded.

    Raises NotAuthenticated, whose `user_id` names the user whose sessions may have ended; TooMany instead after too many failures.
    """
    try:
        refreshed = tokens.rotate(token, at=command.at)
    except RefreshTokenReused as reused:
        _record_reuse(reused, address=address, command=command, log=log, tokens=tokens)
        raise NotAuthenticated("Invalid or expired refresh token", user_id=reused.user_id) from None
    except NotAuthenticated:
        sign_in_limits.unknown_token(network)
        raise
    account = log.load(refreshed.user_id, user.evolve)
    if account is None or not account.may_sign_in:
        tokens.revoke(refreshed.session_id)
        raise NotAuthenticated("User disabled")
    return SignedIn(session_id=refreshed.session_id, user=account, refresh_token=refreshed.token, position=0)


def sign_out(session_id: UUID, *, command: Command, log: EventStore, tokens: RefreshTokens) -> UUID | None:
    """End a session and return its user's id, or None if there is no such session. Idempotent."""
    tokens.revoke(session_id)
    found = log.load(session_id, session.evolve)
    if found is None:
        return None
    execute(
        log, command, lambda: _load_session(log, session_id), lambda it: session.revoke(it, Reason.LOGOUT, by=it.user_id, at=command.at)
    )
    return found.user_id


def _record_reuse(reused: RefreshTokenReused, *, address: str, command: Command, log: EventStore, tokens: RefreshTokens) -> None:
    tokens.revoke(reused.session_id)
    execute(
        log,
        command,
        lambda: _load_session(log, reused.session_id),
        lambda found: session.detect_reuse(found, address=address, by=reused.user_id, at=command.at),
    )


def _load_session(log: EventStore, session_id: UUID) -> Session:
    return load_existing(log, session_id, session.evolve, what="Session", closed=lambda _: False)
