"""Use cases of sessions: sign in, refresh, sign out."""

from datetime import datetime
from uuid import UUID

import msgspec

from application import accounts, registrations
from application.authentication import actor_of, signing_in
from application.commands import create_stream, execute, load_existing, new_id
from application.limits.sign_in_attempts import SignInLimits
from application.passwords import password_secret, stored_password_hash
from application.ports import Command, EventStore, PasswordHasher, PasswordRequester, RefreshTokens, StreamPrecondition
from domain import session, user
from domain.errors import ConcurrencyConflict, DomainError, NotAuthenticated, RefreshTokenReused
from domain.registration import Registration
from domain.session import Reason, Session
from domain.user import User

MAX_PASSWORD_ATTEMPTS = 3  # repeated when the account changes while its password is verified
REFUSED = "Invalid credentials"


class SignedIn(msgspec.Struct, frozen=True, kw_only=True):
    """A started or refreshed session of an account, or of a registration. Read models show it from `position` on."""

    session_id: UUID
    user: User | Registration
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

    An outdated hash is replaced, but not while a registration of the address is open: its password has a hash with the same parameters, and
    would no longer be accepted. Raises NotAuthenticated, with the same message and cost for every reason, and TooMany after too many
    failures.
    """
    with sign_in_limits.password(email, network, lambda: log.claimed("email", email)) as requester:
        for _ in range(MAX_PASSWORD_ATTEMPTS):
            account, known = _verified_account(email, password, at=command.at, log=log, passwords=passwords, requester=requester)
            stronger_hash = None
            if isinstance(account, User):
                sign_in_limits.remember(account.id, network)
                if passwords.outdated(known) and registrations.find(email, log) is None:
                    stronger_hash = passwords.hash(password, requester=requester)
            try:
                return _start(account, address=address, agent=agent, stronger_hash=stronger_hash, command=command, log=log, tokens=tokens)
            except ConcurrencyConflict:
                continue
        raise NotAuthenticated(REFUSED)


def _verified_account(
    email: str, password: str, *, at: datetime, log: EventStore, passwords: PasswordHasher, requester: PasswordRequester
) -> tuple[User | Registration, bytes]:
    """The account, or the newest registration, that has this password. One hash is computed, whether there are both, one or none."""
    named = (accounts.find(email, log), registrations.find(email, log))
    known = [(one, stored) for one in named if one is not None and (stored := stored_password_hash(one, log)) is not None]
    index = passwords.matching(password, [stored for _, stored in known], requester=requester)
    if index is None:
        raise _refused(named[0])
    found, stored = known[index]
    if not (found.may_sign_in if isinstance(found, User) else found.may_sign_in(at)):
        raise _refused(named[0])
    return found, stored


def _refused(account: User | None) -> NotAuthenticated:
    return NotAuthenticated(REFUSED, user_id=account.id if account else None)


def _start(
    account: User | Registration,
    *,
    address: str,
    agent: str,
    stronger_hash: bytes | None,
    command: Command,
    log: EventStore,
    tokens: RefreshTokens,
) -> SignedIn:
    """Start the session, provided that the account is at the version whose password was verified.

    Otherwise a command that ends the account's sessions at the same time could miss this one. It finds sessions by their tokens, so the
    token is issued before the event is appended. Raises ConcurrencyConflict.
    """
    by = msgspec.structs.replace(command, actor=actor_of(account))
    session_id = new_id(command, "session")
    started = session.start(session_id, user=account.id, address=address, agent=agent, at=command.at)
    rehashed = None
    if stronger_hash is not None and isinstance(account, User):
        rehashed = user.rehash_password(account, password_hash=stronger_hash, at=command.at)
    secrets = (password_secret(account.id, stronger_hash),) if stronger_hash else ()
    token = tokens.issue(session=session_id, user=account.id, at=command.at)
    try:
        unchanged = StreamPrecondition(stream=account.id, version=account.version)
        events = (started, rehashed) if rehashed else (started,)
        done = create_stream(log, by, events, guards=(unchanged,), secrets=secrets)
    except DomainError:
        tokens.revoke(session_id)
        raise
    if rehashed is not None and isinstance(account, User):
        account = user.evolve(account, rehashed) or account
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
    try:
        account = signing_in(refreshed.user_id, log)
        _require_valid(refreshed.session_id, account, log)
    except NotAuthenticated:
        tokens.revoke(refreshed.session_id)
        raise
    return SignedIn(session_id=refreshed.session_id, user=account, refresh_token=refreshed.token, position=0)


def _require_valid(session_id: UUID, account: User | Registration, log: EventStore) -> None:
    """Raises NotAuthenticated for a session that was revoked, or that a reset of the password ended."""
    found = log.load(session_id, session.evolve)
    if found is None or found.revoked or (isinstance(account, User) and account.ended(found.started_at)):
        raise NotAuthenticated("Invalid or expired refresh token")


def sign_out(session_id: UUID, *, command: Command, log: EventStore, tokens: RefreshTokens) -> UUID | None:
    """End a session and return its user's id, or None if there is no such session. Idempotent."""
    found = log.load(session_id, session.evolve)
    if found is not None:
        execute(
            log,
            command,
            lambda: _load_session(log, session_id),
            lambda it: session.revoke(it, Reason.LOGOUT, by=it.user_id, at=command.at),
        )
    tokens.revoke(session_id)
    return found.user_id if found else None


def _record_reuse(reused: RefreshTokenReused, *, address: str, command: Command, log: EventStore, tokens: RefreshTokens) -> None:
    execute(
        log,
        command,
        lambda: _load_session(log, reused.session_id),
        lambda found: session.detect_reuse(found, address=address, by=reused.user_id, at=command.at),
    )
    tokens.revoke(reused.session_id)


def _load_session(log: EventStore, session_id: UUID) -> Session:
    return load_existing(log, session_id, session.evolve, what="Session", closed=lambda _: False)
