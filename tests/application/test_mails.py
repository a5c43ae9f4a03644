"""Which mails an event causes, to whom, with which links; and that nothing that a stranger chose reaches them."""

import re
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application import accounts
from application.mail import contents
from application.mail.contents import Pages
from application.mail.mails import MAILED, MailWriter, written
from application.ports import MailLink, Secret, UniqueClaim
from domain import invitation, registration, user
from domain.access import Role
from domain.links import LinkPurpose
from domain.registry import EVENTS
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.key_ring import RootKey
from infrastructure.security.mail_links import KeyedMailLinks
from tests.application.conftest import ROOT
from tests.given import NOW, actor, command

ADMIN = actor(Role.ADMIN)
LINKS = KeyedMailLinks(RootKey(b"k" * 32))
SITE = "https://lab.example.org/bioscope"
NAMES = {"first_name": "Ada", "last_name": "Byron"}


@pytest.fixture
def writer(log):
    return MailWriter(log=log, links=LINKS, base_url=SITE)


class Recorded:
    """Appends events; `mails` are those of the last one, `later` after its time."""

    def __init__(self, log, writer):
        self.log, self._writer = log, writer

    def append(self, *events, by=ADMIN, **also):
        self.log.append(command(by), *events, **also)

    def mails(self, *, later=timedelta(0)):
        (event,) = self.log.at([self.log.head()])
        return self._writer.mails(event, at=NOW + later)

    def account(self, email="ada@example.org", username="ada"):
        account = uuid4()
        events = [user.register(account, email=email, username=username, **NAMES, by=ADMIN.id, at=NOW)]
        self.append(*events, claims=[UniqueClaim(scope="email", value=email, stream=account)])
        return account

    def state(self, account):
        return self.log.load(account, user.evolve)

    def registration(self, email="ada@example.org", username="ada", request_id=None):
        stream = uuid4()
        wanted = {"email": email, "username": username, **NAMES}
        self.append(registration.request(stream, **wanted, request_id=request_id or uuid4(), at=NOW))
        return stream


@pytest.fixture
def recorded(log, writer):
    return Recorded(log, writer)


def link_of(mail):
    """The only address in a mail; the text and the HTML have the same."""
    (in_text,) = set(re.findall(r"https?://\S+", mail.text))
    assert set(map(unescape, re.findall(r'href="([^"]+)"', mail.html))) == {in_text}
    return in_text


def token_of(mail, path):
    address, token = link_of(mail).split("?token=")
    assert address == f"{SITE}{path}"
    return token


def leads_to(mail, path, purpose, stream, request_id, address):
    token = token_of(mail, path)
    return LINKS.read(token) == MailLink(purpose, stream, request_id) and LINKS.is_genuine(token, address=address)


def test_a_registration_is_verified_at_the_public_address(recorded):
    request = uuid4()
    stream = recorded.registration(request_id=request)
    (mail,) = recorded.mails()
    assert (mail.to, mail.at, mail.number) == ("ada@example.org", NOW, 1)
    assert 'the user name "ada" was requested at lab.example.org' in mail.text
    assert leads_to(mail, "/account/verify", LinkPurpose.VERIFY_EMAIL, stream, request, "ada@example.org")


def test_only_the_newest_link_of_a_registration_is_sent(recorded, writer):
    stream, request = recorded.registration(), uuid4()
    first = recorded.log.head()
    wanted = recorded.log.load(stream, registration.evolve)
    recorded.append(*registration.request_verification(wanted, request_id=request, at=NOW))
    (mail,) = recorded.mails()
    assert leads_to(mail, "/account/verify", LinkPurpose.VERIFY_EMAIL, stream, request, "ada@example.org")
    (event,) = recorded.log.at([first])
    assert writer.mails(event, at=NOW) == []


def test_the_owner_of_an_account_learns_of_a_registration_and_gets_no_link_that_creates_one(recorded):
    recorded.account()
    recorded.registration(username="somebody")
    (mail,) = recorded.mails()
    assert (mail.subject, link_of(mail)) == ("You have an account already", f"{SITE}/forgot-password")
    assert "somebody" not in mail.text + mail.html


@pytest.mark.parametrize(("later", "count"), [(timedelta(minutes=29, seconds=59), 1), (timedelta(minutes=30), 0), (timedelta(days=3), 0)])
def test_a_link_that_has_expired_is_not_sent(recorded, later, count):
    recorded.registration()
    assert len(recorded.mails(later=later)) == count


def discarded(one):
    return registration.discard(one, by=one.id, at=NOW + registration.LIFETIME)


def completed(one):
    return [registration.complete(one, request_id=one.link.request_id, user=uuid4(), at=NOW)]


@pytest.mark.parametrize("ends", [discarded, completed])
def test_a_registration_that_has_ended_causes_no_mail(recorded, writer, ends):
    stream = recorded.registration()
    first = recorded.log.head()
    recorded.append(*ends(recorded.log.load(stream, registration.evolve)))
    (event,) = recorded.log.at([first])
    assert writer.mails(event, at=NOW) == []


def test_an_invitation_is_sent_and_sent_again_with_a_new_link(recorded, writer):
    stream, first, second = uuid4(), uuid4(), uuid4()
    recorded.append(invitation.invite(stream, email="ada@example.org", role=Role.ANALYST, request_id=first, by=ADMIN.id, at=NOW))
    (mail,) = recorded.mails(later=timedelta(days=6))
    assert "with the role analyst" in mail.text
    assert leads_to(mail, "/account/invitation", LinkPurpose.ACCEPT_INVITATION, stream, first, "ada@example.org")
    position, offer = recorded.log.head(), recorded.log.load(stream, invitation.evolve)
    recorded.append(invitation.repeat(offer, request_id=second, by=ADMIN.id, at=NOW))
    (again,) = recorded.mails()
    assert leads_to(again, "/account/invitation", LinkPurpose.ACCEPT_INVITATION, stream, second, "ada@example.org")
    recorded.append(*invitation.withdraw(recorded.log.load(stream, invitation.evolve), by=ADMIN.id, at=NOW))
    assert [writer.mails(event, at=NOW) for event in recorded.log.at([position, position + 1])] == [[], []]


def test_a_password_reset_leads_to_the_page_of_the_account(recorded):
    account, request = recorded.account(), uuid4()
    recorded.append(*user.request_password_reset(recorded.state(account), request_id=request, by=account, at=NOW))
    (mail,) = recorded.mails()
    assert mail.to == "ada@example.org"
    assert leads_to(mail, "/account/reset", LinkPurpose.RESET_PASSWORD, account, request, "ada@example.org")


def test_a_suspended_account_gets_no_link(recorded, writer):
    account = recorded.account()
    recorded.append(*user.request_password_reset(recorded.state(account), request_id=uuid4(), by=account, at=NOW))
    position = recorded.log.head()
    recorded.append(*user.change_status(recorded.state(account), user.Status.SUSPENDED, by=ADMIN.id, at=NOW))
    (event,) = recorded.log.at([position])
    assert writer.mails(event, at=NOW) == []


def test_a_new_address_is_confirmed_at_that_address_and_both_learn_of_the_change(recorded):
    account, request = recorded.account(), uuid4()
    recorded.append(*user.request_email_change(recorded.state(account), email="new@example.org", request_id=request, by=account, at=NOW))
    (mail,) = recorded.mails()
    assert mail.to == "new@example.org"
    assert leads_to(mail, "/account/email", LinkPurpose.CHANGE_EMAIL, account, request, "new@example.org")
    recorded.append(user.change_email(recorded.state(account), request_id=request, at=NOW))
    old, new = recorded.mails()
    assert [(one.to, one.number) for one in (old, new)] == [("ada@example.org", 1), ("new@example.org", 2)]
    assert "new@example.org" not in old.text + old.html, "a reader of the old mailbox need not see the new address"


def test_a_profile_with_another_address_is_announced_at_both_and_any_other_change_at_none(recorded):
    account = recorded.account()
    recorded.append(*user.change_profile(recorded.state(account), {"first_name": "Augusta"}, by=account, at=NOW))
    assert recorded.mails() == []
    recorded.append(*user.change_profile(recorded.state(account), {"email": "new@example.org"}, by=account, at=NOW))
    assert [mail.to for mail in recorded.mails()] == ["ada@example.org", "new@example.org"]


@pytest.mark.parametrize(("by_owner", "sentence"), [(True, "was changed."), (False, "was changed by an administrator.")])
def test_the_owner_learns_that_the_password_was_changed(recorded, by_owner, sentence):
    account = recorded.account()
    by = account if by_owner else ADMIN.id
    recorded.append(
        user.change_password(recorded.state(account), password_hash=b"hash", by=by, at=NOW),
        secrets=[Secret(kind="password", owner=account, value=b"hash")],
    )
    (mail,) = recorded.mails(later=timedelta(days=30))
    assert mail.to == "ada@example.org"
    assert sentence in mail.text


def test_nothing_is_sent_to_a_deleted_or_an_erased_account(recorded, writer):
    for ends in (accounts.delete, accounts.erase):
        account = recorded.account(f"{ends.__name__}@example.org", ends.__name__)
        recorded.append(user.change_password(recorded.state(account), password_hash=b"hash", by=account, at=NOW))
        position = recorded.log.head()
        ends(account, command=command(ADMIN), log=recorded.log, tokens=NoTokens())
        (event,) = recorded.log.at([position])
        assert writer.mails(event, at=NOW) == [], ends.__name__


def test_a_registration_whose_key_was_destroyed_causes_no_mail(recorded):
    stream = recorded.registration()
    recorded.append(
        *registration.request_verification(recorded.log.load(stream, registration.evolve), request_id=uuid4(), at=NOW),
        secrets=[Secret(kind="key", owner=stream, value=None)],
    )
    another_process = RecorderEventStore(recorded.log.recorder, ROOT)
    assert Recorded(another_process, MailWriter(log=another_process, links=LINKS, base_url=SITE)).mails() == []


def test_no_other_event_causes_a_mail(recorded):
    recorded.account()
    assert recorded.mails() == []
    assert {kind.__name__ for kind in MAILED} <= set(EVENTS)


def test_a_mail_is_the_same_whenever_it_is_made(recorded):
    recorded.registration()
    assert recorded.mails() == recorded.mails(later=timedelta(minutes=10))


# ---- what a stranger chose ---------------------------------------------------------------------------------------------------------
PAGES = Pages(SITE)


class Elements(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_data(self, text):
        self.text += text


def mail_with(username):
    content = contents.verification(PAGES, username=username, token="bsl_T0ken")
    return written(content, PAGES, event_id=uuid4(), to="ada@example.org", at=NOW)


@given(st.text(max_size=60) | st.from_regex(r"https?://[a-z.]{3,20}/ (buy|click) <b>now</b>.{0,9}", fullmatch=True))
def test_a_user_name_brings_neither_markup_nor_lines_nor_addresses(username):
    plain, mail = mail_with("ada"), mail_with(username)
    shown = contents.shown_name(username)
    assert re.fullmatch(r"[\w -]{0,32}(\.\.\.)?", shown)
    assert mail.subject == plain.subject
    assert mail.text == plain.text.replace('"ada"', f'"{shown}"')
    assert Elements(mail.html).tags == Elements(plain.html).tags
    assert Elements(mail.html).attributes == Elements(plain.html).attributes


def test_html_loads_nothing_and_runs_nothing():
    elements = Elements(mail_with("ada").html)
    assert set(elements.tags) == {"html", "head", "meta", "title", "body", "p", "a"}
    assert {(tag, name) for tag, name, _ in elements.attributes} <= {
        ("html", "lang"),
        ("meta", "charset"),
        ("body", "style"),
        ("p", "style"),
        ("a", "href"),
    }


@given(st.sampled_from(['"><script>', "&amp;", "<img src=x>", "'\""]), st.text(max_size=20))
def test_every_text_is_escaped(markup, rest):
    content = contents.Content(markup + rest, (markup + rest,), contents.Action(markup, "https://lab.example.org/?a=1&b=" + markup))
    elements = Elements(contents.html(content, PAGES))
    assert set(elements.tags) == {"html", "head", "meta", "title", "body", "p", "a"}
    assert markup in elements.text
    assert ("a", "href", "https://lab.example.org/?a=1&b=" + markup) in elements.attributes


class NoTokens:
    def open_sessions(self, user_id, *, at):
        return []

    def revoke_user(self, user, *, but=None):
        return []
