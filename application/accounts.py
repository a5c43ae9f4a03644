"""Accounts: who there is, and what they may do."""

from uuid import UUID

from application.changes import Done, change, existing, new_id, start
from application.ports import Claim, Command, Log, Passwords, RefreshTokens, Release, Secret
from domain import session, user
from domain.access import Actor, Role, require_role
from domain.errors import DomainError, Forbidden, Taken
from domain.user import Status, User
from domain.values import PASSWORD_LEAST, PASSWORD_MOST, canonical, invalid

COMMON_PASSWORDS = frozenset(
    {"passwordpassword", "123456789012345", "qwertyuiopasdfgh", "adminadminadmin", "letmeinletmeinletmein", "correcthorsebatterystaple"}
)
PASSWORD = "password"  # noqa: S105 - the kind of a secret
RECENT = 900  # seconds after a sign-in within which a password may be changed without the old one


def password_rule(password: str, *, email: str, username: str) -> str:
    """15 to 128 characters, none of the well-known ones, not the person's own names. Raises Invalid."""
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST:
        raise invalid("password", f"must have {PASSWORD_LEAST} to {PASSWORD_MOST} characters, has {len(password)}")
    plain = canonical(password)
    known = COMMON_PASSWORDS | {canonical(email), canonical(username), "bioscopebioscope"}
    if plain in known or len(set(plain)) < 4:
        raise invalid("password", "is too easily guessed: choose one that is neither common nor your own name")
    return password


def loaded(log: Log, user_id: UUID) -> User:
    return existing(log, user_id, user.evolve, what="User", closed=lambda found: found.deleted)


def register(
    *,
    email: str,
    username: str,
    first_name: str,
    last_name: str,
    password: str,
    role: Role = Role.VIEWER,
    command: Command,
    log: Log,
    passwords: Passwords,
) -> Done:
    """A new account. Raises Taken when the e-mail or the user name is another's."""
    user_id = new_id(command, "user")
    event = user.register(
        user_id, email=email, username=username, first_name=first_name, last_name=last_name, role=role, by=user_id, at=command.at
    )
    password_rule(password, email=event.email, username=event.username)
    claims = (Claim(scope="email", value=event.email, stream=user_id), Claim(scope="username", value=event.username, stream=user_id))
    secret = Secret(kind=PASSWORD, owner=user_id, value=passwords.hash(password))
    try:
        return start(log, command, [event], claims=claims, secrets=(secret,))
    except Taken as taken:
        named = {"email": "Email", "username": "Username"}[str(taken.more["scope"])]
        raise Taken(f"{named} already used", **taken.more) from None


def find(email: str, log: Log) -> User | None:
    user_id = log.claimed("email", email)
    return log.load(user_id, user.evolve) if user_id else None


def change_profile(user_id: UUID, changes: dict[str, str | None], *, expected: int | None = None, command: Command, log: Log) -> Done:
    """One's own, or anybody's for an administrator."""
    actor = command.actor
    if actor.id != user_id and not actor.is_admin:
        raise Forbidden("Only admins can update other users")
    wanted = changes.get("email")

    def moved(account: User) -> bool:
        return wanted is not None and canonical(wanted) != canonical(account.email)

    try:
        return change(
            log,
            command,
            lambda: loaded(log, user_id),
            lambda account: user.change_profile(account, changes, by=actor.id, at=command.at),
            expected=expected,
            releases=lambda account: (Release(stream=user_id, scope="email", value=account.email),) if moved(account) else (),
            claims=lambda account: (Claim(scope="email", value=wanted, stream=user_id),) if moved(account) and wanted else (),
        )
    except Taken:
        raise Taken("Email already registered", scope="email") from None


def change_role(user_id: UUID, role: Role, *, expected: int | None = None, command: Command, log: Log) -> Done:
    _require_admin(command.actor)
    return change(
        log,
        command,
        lambda: loaded(log, user_id),
        lambda account: user.change_role(account, role, by=command.actor.id, at=command.at),
        expected=expected,
    )


def change_status(user_id: UUID, status: Status, *, expected: int | None = None, command: Command, log: Log, tokens: RefreshTokens) -> Done:
    """Any status but active ends the user's sessions."""
    _require_admin(command.actor)
    done = change(
        log,
        command,
        lambda: loaded(log, user_id),
        lambda account: user.change_status(account, status, by=command.actor.id, at=command.at),
        expected=expected,
    )
    if status is not Status.ACTIVE:
        end_sessions(user_id, session.Reason.ACCOUNT, command=command, log=log, tokens=tokens)
    return done


def change_password(
    user_id: UUID,
    *,
    password: str,
    current: str | None,
    signed_in_for: float,
    keep: UUID | None,
    expected: int | None = None,
    command: Command,
    log: Log,
    passwords: Passwords,
    tokens: RefreshTokens,
) -> Done:
    """One's own only. Asks for the current password unless the sign-in is `RECENT`; ends all other sessions."""
    if command.actor.id != user_id:
        raise Forbidden("You can only change your own password")
    account = loaded(log, user_id)
    if current is None and signed_in_for > RECENT:
        raise Forbidden("Give your current password too, or log in again and change it within 15 minutes")
    if current is not None and not passwords.verify(current, log.secret(PASSWORD, user_id)):
        raise Forbidden("The current password is wrong")
    password_rule(password, email=account.email, username=account.username)
    done = change(
        log,
        command,
        lambda: loaded(log, user_id),
        lambda found: user.change_password(found, by=command.actor.id, at=command.at),
        expected=expected,
        secrets=(Secret(kind=PASSWORD, owner=user_id, value=passwords.hash(password)),),
    )
    end_sessions(user_id, session.Reason.PASSWORD, but=keep, command=command, log=log, tokens=tokens)
    return done


def delete(user_id: UUID, *, command: Command, log: Log, tokens: RefreshTokens) -> Done:
    """Close the account; its traces stay readable. The names are free again."""
    _require_admin(command.actor)
    done = change(
        log,
        command,
        lambda: loaded(log, user_id),
        lambda account: user.delete(account, by=command.actor.id, at=command.at),
        releases=lambda _: (Release(stream=user_id),),
        secrets=(Secret(kind=PASSWORD, owner=user_id, value=None),),
    )
    end_sessions(user_id, session.Reason.ACCOUNT, command=command, log=log, tokens=tokens)
    return done


def erase(user_id: UUID, *, command: Command, log: Log, tokens: RefreshTokens) -> Done:
    """Destroy the person's key: nothing private about them can be read any more, while the chain still verifies."""
    _require_admin(command.actor)
    end_sessions(user_id, session.Reason.ACCOUNT, command=command, log=log, tokens=tokens)
    return change(
        log,
        command,
        lambda: existing(log, user_id, user.evolve, what="User", closed=lambda found: found.erased),
        lambda account: user.erase(account, by=command.actor.id, at=command.at),
        releases=lambda _: (Release(stream=user_id),),
        secrets=(Secret(kind=PASSWORD, owner=user_id, value=None), Secret(kind="key", owner=user_id, value=None)),
    )


def end_sessions(
    user_id: UUID, reason: session.Reason, *, but: UUID | None = None, command: Command, log: Log, tokens: RefreshTokens
) -> None:
    """Each session ends with an event of its own; one that ended meanwhile is no error."""
    for session_id in tokens.revoke_user(user_id, but=but):
        follow_up = _follow_up(command, session_id)
        try:
            change(
                log,
                follow_up,
                lambda session_id=session_id: existing(log, session_id, session.evolve, what="Session", closed=lambda _: False),  # type: ignore[misc]
                lambda found: session.revoke(found, reason, by=command.actor.id, at=command.at),
            )
        except DomainError as error:
            if error.code != "not_found":
                raise


def _follow_up(command: Command, about: UUID) -> Command:
    """The command that another one causes: an id of its own, the cause named."""
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
