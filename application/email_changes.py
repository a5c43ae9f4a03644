"""Use cases of a new e-mail address, which takes effect when its owner opens the link that was sent to it."""

from uuid import UUID

from application.accounts import count_email_change, load_account
from application.commands import CommandResult, execute, new_id, replaced_claim
from application.limits.sign_in_attempts import SignInLimits
from application.mail_links import read_link
from application.ports import Command, EventStore, MailLinks
from domain import user
from domain.errors import Forbidden, InvalidLink, NotFound, Taken
from domain.links import LinkPurpose


def request(
    user_id: UUID, *, email: str, network: str, expected: int | None = None, command: Command, log: EventStore, sign_in_limits: SignInLimits
) -> CommandResult:
    """Send a mail to a user's new address. Whether another account has it is not checked before the link is opened.

    Raises Forbidden (another user's account), NotFound, Invalid, TooMany, VersionMismatch.
    """
    if command.actor.id != user_id:
        raise Forbidden("Only the owner of an account confirms a new e-mail address")
    count_email_change(load_account(log, user_id), email, network, sign_in_limits)
    return execute(
        log,
        command,
        lambda: load_account(log, user_id),
        lambda found: user.request_email_change(
            found, email=email, request_id=new_id(command, "request"), by=command.actor.id, at=command.at
        ),
        expected=expected,
    )


def confirm(*, token: str, command: Command, log: EventStore, links: MailLinks) -> CommandResult:
    """Use the new address from now on. The old one becomes available in the same command; the id is that of the account.

    Raises InvalidLink, and Taken if the address has got another account.
    """
    link, _ = read_link(token, LinkPurpose.CHANGE_EMAIL, user.evolve, lambda it: it.new_email, links=links, log=log)
    try:
        return execute(
            log,
            command,
            lambda: load_account(log, link.stream),
            lambda found: user.change_email(found, request_id=link.request_id, at=command.at),
            releases=lambda found: replaced_claim("email", found.id, old=found.email, new=found.new_email)[0],
            claims=lambda found: replaced_claim("email", found.id, old=found.email, new=found.new_email)[1],
        )
    except NotFound:
        raise InvalidLink from None
    except Taken:
        raise Taken("Another account has this e-mail address: choose another address", scope="email") from None
