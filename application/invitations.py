"""Use cases of invitations: an administrator's offer of an account with a role, sent to an e-mail address."""

from typing import Final
from uuid import UUID

import msgspec

from application import accounts, registrations
from application.commands import CommandResult, create_stream, execute, load_existing, new_id
from application.limits.sign_in_attempts import SignInLimits
from application.mail_links import OpenedLink, read_link
from application.passwords import hash_to_resemble, new_password_hash, password_secret, person_of
from application.ports import Command, EventStore, MailLinks, PasswordHasher, PasswordRequester, ReleasedClaim, Secret, UniqueClaim
from domain import invitation, user
from domain.access import Role, require_role
from domain.errors import ConcurrencyConflict, InvalidLink, NotFound, Taken
from domain.invitation import Invitation
from domain.links import LinkPurpose
from domain.values import email as email_address

SCOPE: Final = "invitation"
MAX_ATTEMPTS: Final = 8


def load_invitation(log: EventStore, invitation_id: UUID) -> Invitation:
    return load_existing(log, invitation_id, invitation.evolve, what="Invitation", closed=lambda _: False)


def invite(*, email: str, role: Role, command: Command, log: EventStore) -> CommandResult:
    """Invite a person by mail. Raises Forbidden, Invalid, and Taken if the address has an account or an open invitation."""
    require_role(command.actor, Role.ADMIN)
    invitation_id = new_id(command, "invitation")
    invited = invitation.invite(
        invitation_id, email=email, role=role, request_id=new_id(command, "request"), by=command.actor.id, at=command.at
    )
    if accounts.find(invited.email, log) is not None:
        raise Taken("This e-mail address has an account already", scope="email")
    try:
        return create_stream(log, command, [invited], claims=(UniqueClaim(scope=SCOPE, value=invited.email, stream=invitation_id),))
    except Taken:
        raise Taken("This person is invited already: send the invitation again, or withdraw it", scope=SCOPE) from None


def repeat(invitation_id: UUID, *, command: Command, log: EventStore) -> CommandResult:
    """Send an invitation again; its link replaces the earlier ones. Raises Forbidden, NotFound, and Conflict for a closed one."""
    require_role(command.actor, Role.ADMIN)
    return execute(
        log,
        command,
        lambda: load_invitation(log, invitation_id),
        lambda found: invitation.repeat(found, request_id=new_id(command, "request"), by=command.actor.id, at=command.at),
    )


def repeat_to(email: str, *, command: Command, log: EventStore) -> CommandResult:
    """Send the open invitation of an e-mail address again. Raises Forbidden, Invalid, and NotFound if there is none."""
    require_role(command.actor, Role.ADMIN)
    return repeat(open_invitation(email, log), command=command, log=log)


def open_invitation(email: str, log: EventStore) -> UUID:
    """The id of the open invitation of an e-mail address. Raises Invalid, and NotFound if there is none."""
    invitation_id = log.claimed(SCOPE, email_address(email))
    if invitation_id is None:
        raise NotFound("This e-mail address has no open invitation")
    return invitation_id


def withdraw(invitation_id: UUID, *, expected: int | None = None, command: Command, log: EventStore) -> CommandResult:
    """End an invitation, and destroy its private data. Raises Forbidden, NotFound, VersionMismatch, and Conflict for an accepted one."""
    require_role(command.actor, Role.ADMIN)
    return execute(
        log,
        command,
        lambda: load_invitation(log, invitation_id),
        lambda found: invitation.withdraw(found, by=command.actor.id, at=command.at),
        expected=expected,
        releases=lambda found: (ReleasedClaim(stream=found.id),),
        secrets=(_destroyed(invitation_id),),
    )


def of_token(token: str, *, command: Command, log: EventStore, links: MailLinks) -> Invitation:
    """The open invitation of a link, to show whom it is for. Raises InvalidLink."""
    link, found = _opened(token, links=links, log=log)
    invitation.accept(found, request_id=link.request_id, user=new_id(command, "user"), at=command.at)
    return found


def _opened(token: str, *, links: MailLinks, log: EventStore) -> tuple[OpenedLink, Invitation]:
    """The link, and its invitation. Raises InvalidLink, also if the sender is an administrator no longer: the offer was theirs to make."""
    link, found = read_link(token, LinkPurpose.ACCEPT_INVITATION, invitation.evolve, lambda it: it.email, links=links, log=log)
    sender = log.load(found.sent_by, user.evolve)
    if sender is not None and not sender.is_active_admin:
        raise InvalidLink
    return link, found


def accept(
    *,
    token: str,
    username: str,
    first_name: str,
    last_name: str,
    password: str,
    network: str,
    command: Command,
    log: EventStore,
    links: MailLinks,
    passwords: PasswordHasher,
    sign_in_limits: SignInLimits,
) -> CommandResult:
    """Create the account that an invitation offers, with its address and role; the id is that of the account.

    Raises InvalidLink, Invalid, Taken, TooMany after too many user names that were taken, and Unavailable while too many passwords are
    hashed.
    """
    link, found = _opened(token, links=links, log=log)
    user_id = new_id(command, "user")
    invitation.accept(found, request_id=link.request_id, user=user_id, at=command.at)  # before the hash is computed
    names = {"username": username, "first_name": first_name, "last_name": last_name}
    registered = user.register(user_id, email=found.email, **names, role=found.role, is_verified=True, by=user_id, at=command.at)
    with sign_in_limits.user_name(found.id, network):
        pending = registrations.find(found.email, log)
        password_hash = new_password_hash(
            password,
            person=person_of(registered),
            passwords=passwords,
            requester=PasswordRequester(network, is_stranger=True),
            like=hash_to_resemble(pending, log, passwords) if pending else None,
        )
        registered = msgspec.structs.replace(registered, password_commitment=user.commitment(user_id, password_hash))
        for _ in range(MAX_ATTEMPTS):
            accepted = invitation.accept(found, request_id=link.request_id, user=user_id, at=command.at)
            try:
                return create_stream(
                    log,
                    command,
                    [registered, accepted],
                    claims=accounts.name_claims(registered),
                    releases=(ReleasedClaim(stream=found.id),),
                    secrets=(password_secret(user_id, password_hash), _destroyed(found.id)),
                )
            except Taken as taken:
                raise accounts.taken_name(taken) from None
            except ConcurrencyConflict:  # it was sent again, withdrawn, or accepted by another request
                found = load_invitation(log, found.id)
    raise InvalidLink


def _destroyed(invitation_id: UUID) -> Secret:
    return Secret(kind="key", owner=invitation_id, value=None)
