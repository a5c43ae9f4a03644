"""What a page shows of a link before its form is sent: the address, as long as the link works."""

from datetime import timedelta
from uuid import uuid4

import pytest

from application.opened_links import SUBJECTS, address_of
from application.ports import MailLink
from domain import registration, user
from domain.errors import InvalidLink
from domain.links import LIFETIMES, LinkPurpose
from domain.user import Status
from infrastructure.security.mail_links import KeyedMailLinks
from tests.application.conftest import ROOT
from tests.given import NOW, command

LINKS = KeyedMailLinks(ROOT)
NAMES = {"username": "ada", "first_name": "Ada", "last_name": "Byron"}
SECOND = timedelta(seconds=1)


def requested(log, purpose):
    """A subject with an open link: its id, the id of the request, and the address."""
    subject, request = uuid4(), uuid4()
    if purpose is LinkPurpose.VERIFY_EMAIL:
        log.append(command(), registration.request(subject, email="ada@example.org", **NAMES, request_id=request, at=NOW))
        return subject, request, "ada@example.org"
    registered = user.register(subject, email="ada@example.org", **NAMES, by=subject, at=NOW)
    log.append(command(), registered)
    account = user.evolve(None, registered)
    if purpose is LinkPurpose.RESET_PASSWORD:
        log.append(command(), *user.request_password_reset(account, request_id=request, by=subject, at=NOW))
        return subject, request, "ada@example.org"
    log.append(command(), *user.request_email_change(account, email="new@example.org", request_id=request, by=subject, at=NOW))
    return subject, request, "new@example.org"


def shown(log, token, purpose, *, at=NOW):
    return address_of(token, purpose, at=at, log=log, links=LINKS)


@pytest.mark.parametrize("purpose", SUBJECTS)
def test_an_open_link_shows_its_address_until_it_expires(log, purpose):
    subject, request, address = requested(log, purpose)
    token, head = LINKS.token(MailLink(purpose, subject, request), address=address), log.head()
    ends = NOW + LIFETIMES[purpose]
    assert shown(log, token, purpose) == shown(log, token, purpose, at=ends - SECOND) == address
    with pytest.raises(InvalidLink):
        shown(log, token, purpose, at=ends)
    assert log.head() == head


@pytest.mark.parametrize("purpose", SUBJECTS)
def test_no_other_token_shows_anything(log, purpose):
    subject, request, address = requested(log, purpose)
    tokens = [
        LINKS.token(MailLink(purpose, subject, request), address="other@example.org"),
        LINKS.token(MailLink(purpose, subject, uuid4()), address=address),
        LINKS.token(MailLink(purpose, uuid4(), request), address=address),
        *(LINKS.token(MailLink(other, subject, request), address=address) for other in LinkPurpose if other is not purpose),
        "",
        "bsl_",
    ]
    for token in tokens:
        with pytest.raises(InvalidLink):
            shown(log, token, purpose)


@pytest.mark.parametrize("purpose", [LinkPurpose.RESET_PASSWORD, LinkPurpose.CHANGE_EMAIL])
def test_a_link_of_a_suspended_account_shows_nothing(log, purpose):
    subject, request, address = requested(log, purpose)
    account = log.load(subject, user.evolve)
    log.append(command(), *user.change_status(account, Status.SUSPENDED, by=uuid4(), at=NOW))
    with pytest.raises(InvalidLink):
        shown(log, LINKS.token(MailLink(purpose, subject, request), address=address), purpose)


def test_a_link_of_a_verified_registration_shows_nothing(log):
    subject, request, address = requested(log, LinkPurpose.VERIFY_EMAIL)
    pending = log.load(subject, registration.evolve)
    log.append(command(), registration.complete(pending, request_id=request, user=uuid4(), at=NOW))
    with pytest.raises(InvalidLink):
        shown(log, LINKS.token(MailLink(LinkPurpose.VERIFY_EMAIL, subject, request), address=address), LinkPurpose.VERIFY_EMAIL)
