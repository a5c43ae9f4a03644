"""The mails that an event causes."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from msgspec import UNSET

from application.mail import contents
from application.mail.contents import Content, Pages
from application.mail.mail import Mail
from application.ports import EventStore, MailLink, MailLinks, RecordedEvent
from domain import invitation, registration, user
from domain.events import ERASED, WITHHELD, Event
from domain.invitation import InvitationRepeated, UserInvited
from domain.links import LinkPurpose, OpenLink
from domain.registration import RegistrationRequested, VerificationRequested
from domain.user import (
    EmailChanged,
    EmailChangeRequested,
    PasswordChanged,
    PasswordReset,
    PasswordResetRequested,
    User,
    UserProfileChanged,
)

MAILED: Final[tuple[type[Event], ...]] = (
    RegistrationRequested,
    VerificationRequested,
    UserInvited,
    InvitationRepeated,
    PasswordResetRequested,
    EmailChangeRequested,
    PasswordChanged,
    PasswordReset,
    EmailChanged,
    UserProfileChanged,
)
"""The events that may cause a mail."""


class _Addressed(NamedTuple):
    to: str
    content: Content


class MailWriter:
    """Writes the mails of events. The links lead to `base_url`, the public URL of the installation."""

    def __init__(self, *, log: EventStore, links: MailLinks, base_url: str) -> None:
        self._log, self._links, self._pages = log, links, Pages(base_url)

    def mails(self, recorded: RecordedEvent, *, at: datetime) -> Sequence[Mail]:
        """The mails of one event that are still worth sending `at` this time; always in the same order, with the same ids.

        A link that no longer works is not sent: it expired, was used, or a later one replaced it. Nothing is sent to an address that was
        erased. Raises UpgradeNeeded, Unavailable.
        """
        event = self._log.decode(recorded)
        return [
            written(one.content, self._pages, event_id=recorded.event_id, number=number, to=one.to, at=event.at)
            for number, one in enumerate(self._addressed(event, at), 1)
            if one.to not in {ERASED, WITHHELD}
        ]

    def _addressed(self, event: Event, at: datetime) -> Iterator[_Addressed]:
        match event:
            case RegistrationRequested() | VerificationRequested():
                yield from self._verification(event.originator_id, event.request_id, at)
            case UserInvited() | InvitationRepeated():
                yield from self._invitation(event.originator_id, event.request_id, at)
            case _:
                account = self._log.load(event.originator_id, user.evolve)
                if account is not None and not account.deleted:
                    yield from self._of_account(account, event, at)

    def _verification(self, stream: UUID, request: UUID, at: datetime) -> Iterator[_Addressed]:
        wanted = self._log.load(stream, registration.evolve)
        if wanted is None or not wanted.is_open or not _works(wanted.link, request, at):
            return
        if self._log.claimed("email", wanted.email) is not None:
            yield _Addressed(wanted.email, contents.existing_account(self._pages))
            return
        token = self._token(LinkPurpose.VERIFY_EMAIL, stream, request, address=wanted.email)
        yield _Addressed(wanted.email, contents.verification(self._pages, username=wanted.username, token=token))

    def _invitation(self, stream: UUID, request: UUID, at: datetime) -> Iterator[_Addressed]:
        offer = self._log.load(stream, invitation.evolve)
        if offer is None or not offer.is_open or not _works(offer.link, request, at):
            return
        token = self._token(LinkPurpose.ACCEPT_INVITATION, stream, request, address=offer.email)
        yield _Addressed(offer.email, contents.invitation(self._pages, role=offer.role, token=token))

    def _of_account(self, account: User, event: Event, at: datetime) -> Iterator[_Addressed]:
        pages, name = self._pages, account.username
        match event:
            case PasswordResetRequested() if account.may_sign_in and _works(account.reset_link, event.request_id, at):
                token = self._token(LinkPurpose.RESET_PASSWORD, account.id, event.request_id, address=account.email)
                yield _Addressed(account.email, contents.password_reset(pages, username=name, token=token))
            case EmailChangeRequested() if account.may_sign_in and _works(account.email_link, event.request_id, at):
                token = self._token(LinkPurpose.CHANGE_EMAIL, account.id, event.request_id, address=event.email)
                yield _Addressed(event.email, contents.email_change(pages, username=name, token=token))
            case PasswordChanged() | PasswordReset():
                by_owner = event.by == account.id
                yield _Addressed(self._before(event).email, contents.password_changed(pages, username=name, by_owner=by_owner))
            case EmailChanged() | UserProfileChanged() if event.email is not UNSET:
                yield _Addressed(self._before(event).email, contents.email_changed_from(pages, username=name))
                yield _Addressed(str(event.email), contents.email_changed_to(pages, username=name))

    def _before(self, event: Event) -> User:
        """The account before the event, which is not its first one."""
        account = self._log.load(event.originator_id, user.evolve, version=event.originator_version - 1)
        assert account is not None
        return account

    def _token(self, purpose: LinkPurpose, stream: UUID, request: UUID, *, address: str) -> str:
        return self._links.token(MailLink(purpose, stream, request), address=address)


def written(content: Content, pages: Pages, *, event_id: UUID, to: str, at: datetime, number: int = 1) -> Mail:
    text, html = contents.plain_text(content, pages), contents.html(content, pages)
    return Mail(event_id=event_id, number=number, to=to, at=at, subject=content.subject, text=text, html=html)


def _works(link: OpenLink | None, request: UUID, at: datetime) -> bool:
    """Whether the link of this request is the newest of its purpose, unused, and not expired."""
    return link is not None and link.request_id == request and at < link.expires_at
