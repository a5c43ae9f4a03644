"""Mails over a real SMTP server, from the request to the link that a person opens."""

import re

import msgspec
import pytest

from domain.access import Role
from tests.api.conftest import PASSWORD
from tests.rigs.smtp_server import SmtpRig
from tests.rigs.waiting import wait_until_async

pytestmark = pytest.mark.anyio

PUBLIC = "https://lab.example.org/bioscope"
OTHER = "another horse battery 9"
NAMES = {"username": "grace", "first_name": "Grace", "last_name": "Hopper"}


@pytest.fixture
def smtp():
    with SmtpRig() as rig:
        yield rig


@pytest.fixture
def lab_settings(lab_settings, smtp):
    return msgspec.structs.replace(
        lab_settings,
        smtp_url=smtp.url,
        mail_from="bioscope@lab.example.org",
        public_url=PUBLIC,
        registration="open",
        email_verification="on",
    )


class Mailbox:
    """What the server received, one mail after the other."""

    def __init__(self, smtp):
        self._smtp, self._read = smtp, 0

    async def next(self):
        """The subject, the recipient and the text of the next mail."""
        await wait_until_async(lambda: len(self._smtp.received) > self._read)
        message = self._smtp.received[self._read]
        self._read += 1
        return str(message["Subject"]), str(message["To"]), message.get_body(["plain"]).get_content()

    async def token(self, subject, to, path):
        """The token of the link in the next mail, which must be this one."""
        found_subject, found_to, text = await self.next()
        assert (found_subject, found_to) == (subject, to)
        (link,) = re.findall(r"https?://\S+", text)
        address, token = link.split("?token=")
        assert address == PUBLIC + path
        return token


@pytest.fixture
def mailbox(smtp):
    return Mailbox(smtp)


async def post(api, path, **body):
    answer = await api.anonymous().post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


async def test_the_links_of_mails_work(api, mailbox):
    await post(api, "/api/auth/register", email="grace@example.org", password=PASSWORD, **NAMES)
    token = await mailbox.token("Verify your e-mail address", "grace@example.org", "/account/verify")
    await post(api, "/api/auth/verify", token=token, password=PASSWORD)

    await post(api, "/api/auth/forgot-password", email="grace@example.org")
    token = await mailbox.token("Choose a new password", "grace@example.org", "/account/reset")
    await post(api, "/api/auth/reset-password", token=token, password=OTHER)
    assert (await mailbox.next())[:2] == ("Your password was changed", "grace@example.org")
    await post(api, "/api/auth/login", email="grace@example.org", password=OTHER)


async def test_the_owner_of_an_address_learns_that_somebody_registers_with_it(api, mailbox):
    address = api.account()
    await post(api, "/api/auth/register", email=address, password=OTHER, **NAMES)
    subject, to, text = await mailbox.next()
    assert (subject, to) == ("You have an account already", address)
    assert f"{PUBLIC}/forgot-password" in text
    assert "grace" not in text.casefold()


async def test_an_invited_person_gets_an_account_with_the_link(api, mailbox):
    admin = await api.client(Role.ADMIN)
    answer = await admin.post("/api/invitations", json={"email": "grace@example.org", "role": "analyst"})
    assert answer.status_code == 201, answer.text
    token = await mailbox.token("You are invited to BioScopeAI", "grace@example.org", "/account/invitation")
    await post(api, "/api/auth/accept-invitation", token=token, password=PASSWORD, **NAMES)
    await post(api, "/api/auth/login", email="grace@example.org", password=PASSWORD)


async def test_a_new_address_is_confirmed_by_its_owner_and_both_addresses_learn_of_it(api, mailbox):
    address = api.account()
    http = await api.signed_in(address)
    me = (await http.get("/api/users/me")).json()
    await http.patch(f"/api/users/users/{me['id']}", json={"email": "new@example.org"})
    token = await mailbox.token("Confirm your new e-mail address", "new@example.org", "/account/email")
    await post(api, "/api/auth/confirm-email", token=token)
    notices = [await mailbox.next(), await mailbox.next()]
    assert [notice[:2] for notice in notices] == [("Your e-mail address was changed", one) for one in (address, "new@example.org")]
    await post(api, "/api/auth/login", email="new@example.org", password=PASSWORD)
