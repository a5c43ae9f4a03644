"""What the link of a mail is about, to show it before the person decides. Nothing is recorded, and the link still works afterwards."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple

from application.mail_links import read_link
from application.ports import EventStore, Evolve, MailLinks
from domain import registration, user
from domain.links import LinkPurpose, OpenLink, require_open


class _Subject(NamedTuple):
    """How to load what the links of one purpose are about: its address, and its open link."""

    evolve: Evolve[Any]
    address: Callable[[Any], str | None]
    link: Callable[[Any], OpenLink | None]


SUBJECTS: Final = {
    LinkPurpose.VERIFY_EMAIL: _Subject(registration.evolve, lambda it: it.email if it.is_open else None, lambda it: it.link),
    LinkPurpose.RESET_PASSWORD: _Subject(user.evolve, lambda it: it.email if it.may_sign_in else None, lambda it: it.reset_link),
    LinkPurpose.CHANGE_EMAIL: _Subject(user.evolve, lambda it: it.new_email if it.may_sign_in else None, lambda it: it.email_link),
}


def address_of(token: str, purpose: LinkPurpose, *, at: datetime, log: EventStore, links: MailLinks) -> str:
    """The e-mail address that the link was sent to. Raises InvalidLink if it does not work, as the use case of the link would."""
    subject = SUBJECTS[purpose]
    link, state = read_link(token, purpose, subject.evolve, subject.address, links=links, log=log)
    require_open(subject.link(state), link.request_id, at=at)
    address = subject.address(state)
    assert address is not None
    return address
