"""Use cases of user accounts: registration, changes, deletion and erasure."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from uuid import UUID

import msgspec
from msgspec import UNSET

from application.administrators import another_administrator
from application.commands import CommandResult, chain, create_stream, execute, load_all, load_existing, new_id, replaced_claim
from application.limits.sign_in_attempts import SignInLimits
from application.passwords import (
    PASSWORD,
    NewPassword,
    Proof,
    changed_password_hash,
    hash_to_resemble,
    new_password_hash,
    password_secret,
    person_of,
    require_proof,
)
from application.ports import Command, EventStore, PasswordHasher, PasswordRequester, RefreshTokens, ReleasedClaim, Secret, UniqueClaim
from domain import invitation, session, user
from domain.access import Actor, Role, require_role
from domain.email_address import changed_address, mailbox
from domain.errors import DomainError, Forbidden, Taken
from domain.events import Event
from domain.session import Reason
from domain.user import Status, User, UserRegistered
from domain.values import email as email_address

MAX_ENDED_TOGETHER = 200  # sessions whose end is appended with the change that ends them


def load_account(log: EventStore, user_id: UUID) -> User:
    return load_existing(log, user_id, user.evolve, what="User", closed=lambda found: found.deleted)


def register(
    *,
    email: str,
    username: str,
    first_name: str,
    last_name: str,
    password: str,
    role: Role = Role.VIEWER,
    network: str = "",
    command: Command,
    log: EventStore,
    passwords: PasswordHasher,
) -> CommandResult:
    """Create an account. `network` is the client's network, for the limits of the password hasher.

    Raises Taken for an e-mail address or user name in use, Invalid, and Unavailable while too many passwords are hashed.
    """
    user_id = new_id(command, "user")
    event = user.register(
        user_id, email=email, username=username, first_name=first_name, last_name=last_name, role=role, by=user_id, at=command.at
    )
    requester = PasswordRequester(network, is_stranger=True)
    password_hash = new_password_hash(password, person=person_of(event), passwords=passwords, requester=requester)
    event = msgspec.structs.replace(event, password_commitment=user.commitment(user_id, password_hash))
    try:
        return create_stream(log, command, [event], claims=name_claims(event), secrets=(password_secret(user_id, password_hash),))
    except Taken as taken:
        named = {"email": "Email", "username": "Username"}[taken.scope]
        raise Taken(f"{named} already used", scope=taken.scope) from None


def name_claims(registered: UserRegistered) -> tuple[UniqueClaim, UniqueClaim]:
    """The claims of a new account's e-mail address and user name."""
    return (
        UniqueClaim(scope="email", value=registered.email, stream=registered.originator_id),
        UniqueClaim(scope="username", value=registered.username, stream=registered.originator_id),
    )


def taken_name(taken: Taken) -> Taken:
    """The refusal of a name for the owner of an e-mail address, who may know whether the address has an account."""
    if taken.scope == "username":
        return Taken("This user name is used already: choose another one", scope="username")
    return Taken("This e-mail address has an account already: sign in, or reset its password", scope="email")


def find(email: str, log: EventStore) -> User | None:
    """The account with this e-mail address. None if there is no claim, or if the account's events do not confirm it."""
    user_id = log.claimed("email", email)
    account = log.load(user_id, user.evolve) if user_id else None
    return account if account and mailbox(account.email) == mailbox(email) else None


def states_of(users: Collection[UUID], log: EventStore) -> dict[UUID, User]:
    """The accounts with these ids, in one query; those that were deleted, too."""
    return load_all(log, users, user.evolve)


def update(
    user_id: UUID,
    *,
    profile: dict[str, str | None],
    role: Role | None = None,
    status: Status | None = None,
    password: NewPassword | None = None,
    proof: Proof | None = None,
    expected: int | None = None,
    command: Command,
    log: EventStore,
    passwords: PasswordHasher,
    tokens: RefreshTokens,
    sign_in_limits: SignInLimits | None = None,
    verifies_email: bool = False,
    network: str = "",
) -> CommandResult:
    """Apply all the changes or none, in one command. A deactivation or a new password also ends the user's sessions.

    With `verifies_email`, the user's own new address takes effect when the link in a mail is opened. `network` is the client's network.
    A new own address needs the `proof`, or that of the new `password`. `sign_in_limits` is required for passwords and own addresses.
    Raises Forbidden, Invalid, Taken, LastAdministrator, and TooMany (attempts at the password, and mails); nothing has changed then.
    """
    _may_update(command.actor, user_id, restricted=role is not None or status is not None, password=password is not None)
    own_email = profile.get("email") if command.actor.id == user_id else None
    if own_email is not None and sign_in_limits is not None:
        account = load_account(log, user_id)
        if proof is not None and password is None and email_address(own_email) != account.email:
            require_proof(account, proof, log, passwords, sign_in_limits)
        count_email_change(account, own_email, network, sign_in_limits)
    requested_email = own_email if verifies_email else None
    if requested_email is not None:
        assert sign_in_limits is not None
        profile = {name: value for name, value in profile.items() if name != "email"}
    password_hash = None
    if password is not None:
        assert sign_in_limits is not None
        password_hash = changed_password_hash(load_account(log, user_id), password, profile, log, passwords, sign_in_limits)

    def decided(account: User) -> list[Event]:
        by, at = command.actor.id, command.at
        parts: tuple[Callable[[User], Sequence[Event]], ...] = (
            lambda it: user.change_profile(it, profile, by=by, at=at),
            lambda it: user.change_role(it, role or it.role, by=by, at=at),
            lambda it: user.change_status(it, status or it.status, by=by, at=at),
            lambda it: _email_change(it, requested_email, command),
            lambda it: [user.change_password(it, password_hash=password_hash, by=by, at=at)] if password_hash else [],
        )
        return chain(account, user.evolve, parts)

    ended: Reason | None = Reason.PASSWORD if password is not None else None
    if status not in {None, Status.ACTIVE}:
        ended = Reason.ACCOUNT
    keep = password.keep if password is not None and ended is Reason.PASSWORD else None
    if status is Status.ACTIVE and load_account(log, user_id).status is not Status.ACTIVE:
        # An interrupted deactivation may have left sessions open. They must not become valid again.
        end_sessions(user_id, Reason.ACCOUNT, command=command, log=log, tokens=tokens)
    secrets = (password_secret(user_id, password_hash),) if password_hash else ()
    also = partial(session_endings, user_id, ended, but=keep, command=command, log=log, tokens=tokens) if ended else tuple
    email = profile.get("email")
    result = _execute_with_email(user_id, email, decided, expected=expected, secrets=secrets, also=also, command=command, log=log)
    if ended is not None:
        end_sessions(user_id, ended, but=keep, command=command, log=log, tokens=tokens)
    return result


def count_email_change(account: User, email: str, network: str, sign_in_limits: SignInLimits) -> None:
    """Count the mail to a user's own new address. Raises Invalid for an invalid address, and TooMany."""
    new = changed_address(email, account.email)
    if new is not UNSET:
        sign_in_limits.mail_to_new_address(new, network)


def _email_change(account: User, email: str | None, command: Command) -> Sequence[Event]:
    if email is None:
        return ()
    return user.request_email_change(account, email=email, request_id=new_id(command, "request"), by=command.actor.id, at=command.at)


def _may_update(actor: Actor, user_id: UUID, *, restricted: bool, password: bool) -> None:
    """Raises Forbidden, alike for another user's account and for one that does not exist."""
    is_admin = actor.is_admin or actor.is_system
    if actor.id != user_id and not is_admin:
        raise Forbidden("Only admins can update other users")
    if restricted and not is_admin:
        raise Forbidden("Only admins can update role and status")
    if password and actor.id != user_id:
        raise Forbidden("You can only change your own password")


def _execute_with_email(
    user_id: UUID,
    new_email: str | None,
    decide: Callable[[User], Sequence[Event]],
    *,
    expected: int | None,
    secrets: Sequence[Secret],
    also: Callable[[], Sequence[Event]],
    command: Command,
    log: EventStore,
) -> CommandResult:
    """Execute; a new e-mail address is claimed and the old one released. Raises Taken."""

    def claims(account: User) -> tuple[tuple[ReleasedClaim, ...], tuple[UniqueClaim, ...]]:
        return replaced_claim("email", user_id, old=account.email, new=new_email)

    try:
        return execute(
            log,
            command,
            lambda: load_account(log, user_id),
            decide,
            expected=expected,
            guards=partial(another_administrator, log=log),
            releases=lambda account: claims(account)[0],
            claims=lambda account: claims(account)[1],
            secrets=secrets,
            also=also,
        )
    except Taken:
        raise Taken("Email already registered", scope="email") from None


def reset_password(
    user_id: UUID, password: str, *, command: Command, log: EventStore, passwords: PasswordHasher, tokens: RefreshTokens
) -> CommandResult:
    """Set a password without the current one, and end all sessions. For administrators, on the command line of the server only.

    Raises Forbidden, NotFound, Invalid.
    """
    _require_admin(command.actor)
    account = load_account(log, user_id)
    requester = PasswordRequester(str(user_id), is_stranger=False)
    like = hash_to_resemble(account, log, passwords)
    password_hash = new_password_hash(password, person=person_of(account), passwords=passwords, requester=requester, like=like)
    result = execute(
        log,
        command,
        lambda: load_account(log, user_id),
        lambda found: user.change_password(found, password_hash=password_hash, by=command.actor.id, at=command.at),
        secrets=(password_secret(user_id, password_hash),),
        also=partial(session_endings, user_id, Reason.PASSWORD, command=command, log=log, tokens=tokens),
    )
    end_sessions(user_id, Reason.PASSWORD, command=command, log=log, tokens=tokens)
    return result


def change_role(user_id: UUID, role: Role, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """Give a user another role. Raises Forbidden, NotFound, LastAdministrator, VersionMismatch."""
    _require_admin(command.actor)
    return execute(
        log,
        command,
        lambda: load_account(log, user_id),
        lambda account: user.change_role(account, role, by=command.actor.id, at=command.at),
        expected=expected,
        guards=partial(another_administrator, log=log),
    )


def delete(user_id: UUID, *, expected: int | None = None, command: Command, log: EventStore, tokens: RefreshTokens) -> CommandResult:
    """Close the account; its history stays readable, and its names become available.

    Raises Forbidden, NotFound, Conflict (the actor's own account), LastAdministrator, VersionMismatch.
    """
    _require_admin(command.actor)
    result = execute(
        log,
        command,
        lambda: load_account(log, user_id),
        lambda account: user.delete(account, by=command.actor.id, at=command.at),
        expected=expected,
        guards=partial(another_administrator, log=log),
        releases=lambda _: (ReleasedClaim(stream=user_id),),
        secrets=(Secret(kind=PASSWORD, owner=user_id, value=None),),
        also=partial(session_endings, user_id, Reason.ACCOUNT, command=command, log=log, tokens=tokens),
    )
    end_sessions(user_id, Reason.ACCOUNT, command=command, log=log, tokens=tokens)
    return result


def erase(user_id: UUID, *, command: Command, log: EventStore, tokens: RefreshTokens) -> CommandResult:
    """Destroy the user's data key: the user's private fields can no longer be read, while the hash chain still verifies.

    An open invitation of the same address is withdrawn first, since it holds the address too.

    Raises Forbidden, NotFound, LastAdministrator.
    """
    _require_admin(command.actor)
    account = load_existing(log, user_id, user.evolve, what="User", closed=lambda found: found.erased)
    _withdraw_invitation(account.email, command=command, log=log)
    result = execute(
        log,
        command,
        lambda: load_existing(log, user_id, user.evolve, what="User", closed=lambda found: found.erased),
        lambda account: user.erase(account, by=command.actor.id, at=command.at),
        guards=partial(another_administrator, log=log),
        releases=lambda _: (ReleasedClaim(stream=user_id),),
        secrets=(Secret(kind=PASSWORD, owner=user_id, value=None), Secret(kind="key", owner=user_id, value=None)),
        also=partial(session_endings, user_id, Reason.ACCOUNT, command=command, log=log, tokens=tokens),
    )
    end_sessions(user_id, Reason.ACCOUNT, command=command, log=log, tokens=tokens)
    return result


def session_endings(
    user_id: UUID, reason: Reason, *, but: UUID | None = None, command: Command, log: EventStore, tokens: RefreshTokens
) -> list[Event]:
    """The events that end the user's sessions except `but`, to be appended together with the change that ends them.

    A crash after the append then leaves no session open. `end_sessions` is still needed afterwards: for the tokens, for sessions that
    started in the meantime, and if there are more than `MAX_ENDED_TOGETHER`.
    """
    open_sessions = [each.session for each in tokens.open_sessions(user_id, at=command.at) if each.session != but]
    found = (log.load(each, session.evolve) for each in open_sessions[:MAX_ENDED_TOGETHER])
    return [event for each in found if each is not None for event in session.revoke(each, reason, by=command.actor.id, at=command.at)]


def _withdraw_invitation(email: str, *, command: Command, log: EventStore) -> None:
    """Withdraw the open invitation of an address, if there is one, and destroy its data key."""
    invitation_id = log.claimed("invitation", email)
    if invitation_id is None:
        return
    execute(
        log,
        _follow_up(command, invitation_id),
        lambda: load_existing(log, invitation_id, invitation.evolve, what="Invitation", closed=lambda _: False),
        lambda found: invitation.withdraw(found, by=command.actor.id, at=command.at),
        releases=lambda found: (ReleasedClaim(stream=found.id),),
        secrets=(Secret(kind="key", owner=invitation_id, value=None),),
    )


def end_sessions(
    user_id: UUID, reason: Reason, *, but: UUID | None = None, command: Command, log: EventStore, tokens: RefreshTokens
) -> None:
    """Revoke the user's sessions except `but`, each with its own event. A session without events is skipped.

    The event comes before the tokens are deleted: after a crash between the two, the session has ended already.
    """
    for each in tokens.open_sessions(user_id, at=command.at):
        if each.session != but:
            _end_session(each.session, reason, command=command, log=log)
    for session_id in tokens.revoke_user(user_id, but=but):
        _end_session(session_id, reason, command=command, log=log)


def _end_session(session_id: UUID, reason: Reason, *, command: Command, log: EventStore) -> None:
    try:
        execute(
            log,
            _follow_up(command, session_id),
            lambda: load_existing(log, session_id, session.evolve, what="Session", closed=lambda _: False),
            lambda found: session.revoke(found, reason, by=command.actor.id, at=command.at),
        )
    except DomainError as error:
        if error.code != "not_found":
            raise


def _follow_up(command: Command, about: UUID) -> Command:
    """A command about the stream `about` that `command` causes: with its own id, and `command` as its cause."""
    return Command(
        id=new_id(command, f"about/{about}"),
        actor=command.actor,
        at=command.at,
        correlation_id=command.correlation_id or command.id,
        causation_id=command.id,
        request_id=command.request_id,
        traceparent=command.traceparent,
    )


def _require_admin(actor: Actor) -> None:
    if not actor.is_system:
        require_role(actor, Role.ADMIN)
