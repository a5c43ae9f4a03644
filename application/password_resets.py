"""Use cases of password resets: a mail with a link, and the new password that is set with it."""

from functools import partial
from uuid import UUID

from application import accounts
from application.accounts import load_account
from application.commands import CommandResult, execute, new_id
from application.mail_links import read_link
from application.passwords import hash_to_resemble, new_password_hash, password_secret, person_of
from application.ports import Command, EventStore, MailLinks, PasswordHasher, PasswordRequester, RefreshTokens
from domain import session, user, values
from domain.access import Role, require_role
from domain.errors import Conflict, InvalidLink, NotFound
from domain.links import LinkPurpose, require_open
from domain.user import PasswordResetRequested, User


def request(*, email: str, command: Command, log: EventStore) -> None:
    """Send a mail with a link to the owner of the account. For an unknown address, or an account that may not sign in, nothing happens.

    Raises UpgradeUnderWay, for any address, and Invalid if `email` is no address.
    """
    log.require_writable(PasswordResetRequested)
    account = accounts.find(values.email(email), log)
    if account is not None:
        _request(account.id, command, log)


def request_for(user_id: UUID, *, command: Command, log: EventStore) -> CommandResult:
    """Send the mail to a user, as an administrator. Raises Forbidden, NotFound, and Conflict for an account that may not sign in."""
    require_role(command.actor, Role.ADMIN)
    if not load_account(log, user_id).may_sign_in:
        raise Conflict("The account is not active: activate it first")
    return _request(user_id, command, log)


def _request(user_id: UUID, command: Command, log: EventStore) -> CommandResult:
    return execute(
        log,
        command,
        lambda: load_account(log, user_id),
        lambda found: user.request_password_reset(found, request_id=new_id(command, "request"), by=command.actor.id, at=command.at),
    )


def reset(
    *,
    token: str,
    password: str,
    network: str,
    command: Command,
    log: EventStore,
    links: MailLinks,
    passwords: PasswordHasher,
    tokens: RefreshTokens,
) -> CommandResult:
    """Set a new password with the link of a mail, which works once. All sessions of the account end; the id is that of the account.

    Raises InvalidLink, Invalid, and Unavailable while too many passwords are hashed.
    """
    link, account = read_link(token, LinkPurpose.RESET_PASSWORD, user.evolve, _address, links=links, log=log)
    require_open(account.reset_link, link.request_id, at=command.at)  # before the hash is computed
    requester = PasswordRequester(network, is_stranger=False)
    like = hash_to_resemble(account, log, passwords)
    password_hash = new_password_hash(password, person=person_of(account), passwords=passwords, requester=requester, like=like)
    try:
        result = execute(
            log,
            command,
            lambda: load_account(log, link.stream),
            lambda found: user.reset_password(found, request_id=link.request_id, password_hash=password_hash, at=command.at),
            secrets=(password_secret(link.stream, password_hash),),
            also=partial(accounts.session_endings, link.stream, session.Reason.RESET, command=command, log=log, tokens=tokens),
        )
    except NotFound:
        raise InvalidLink from None
    accounts.end_sessions(link.stream, session.Reason.RESET, command=command, log=log, tokens=tokens)
    return result


def _address(account: User) -> str | None:
    """The address that a link was sent to. None for an account whose links do not work."""
    return account.email if account.may_sign_in else None
