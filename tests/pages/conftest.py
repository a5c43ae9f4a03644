"""A server with the pages, and a browser that shows them."""

import threading
from uuid import uuid4

import pytest

from api.clock import utc_now
from application import accounts, invitations
from application.ports import Command, MailLink
from domain import session, user
from domain.access import Actor, Role
from domain.invitation import UserInvited
from domain.links import LinkPurpose
from domain.registration import RegistrationRequested, VerificationRequested
from domain.session import SessionStarted
from domain.user import EmailChangeRequested, PasswordResetRequested
from domain.values import system_actor
from infrastructure.container import passwords
from infrastructure.security.bootstrap_tokens import KeyedBootstrapTokens
from infrastructure.security.keys import RootKey
from infrastructure.security.mail_links import KeyedMailLinks
from tests.api.live_server import live_server
from tests.rigs.browser import PROGRAM, browser

PASSWORD = "correct horse battery 9"
SYSTEM = Actor(id=system_actor("tests"), kind="system")
PURPOSES = {
    RegistrationRequested: LinkPurpose.VERIFY_EMAIL,
    VerificationRequested: LinkPurpose.VERIFY_EMAIL,
    PasswordResetRequested: LinkPurpose.RESET_PASSWORD,
    EmailChangeRequested: LinkPurpose.CHANGE_EMAIL,
    UserInvited: LinkPurpose.ACCEPT_INVITATION,
}


class Installation:
    """The server at `url`, and what its mails would contain."""

    def __init__(self, served):
        self.served, self.log = served, served.log
        self.url = f"http://127.0.0.1:{served.settings.port}"
        root = RootKey.read(served.settings.root_key_path)
        self._links, self.setup_token = KeyedMailLinks(root), KeyedBootstrapTokens(root).token()

    def events(self, *kinds):
        return [event for one in self.log.read(0, 100_000) if isinstance(event := self.log.decode(one), kinds)]

    def token(self, address):
        """The token of the newest link that was sent to this address."""
        event = self.events(*PURPOSES)[-1]
        return self._links.token(MailLink(PURPOSES[type(event)], event.originator_id, event.request_id), address=address)

    def account(self, address, role=Role.RESEARCHER):
        names = {"email": address, "username": address.partition("@")[0], "first_name": "Ada", "last_name": "Byron"}
        command = Command(id=uuid4(), actor=SYSTEM, at=utc_now())
        return accounts.register(
            **names, password=PASSWORD, role=role, command=command, log=self.log, passwords=passwords(self.served.settings)
        ).id

    def end_sessions(self, member):
        """As another process would."""
        for started in self.events(SessionStarted):
            if started.user_id == member:
                state = self.log.load(started.originator_id, session.evolve)
                command = Command(id=uuid4(), actor=SYSTEM, at=utc_now())
                self.log.append(command, *session.revoke(state, session.Reason.ADMINISTRATOR, by=SYSTEM.id, at=command.at))

    def request_email(self, member, new):
        command = Command(id=uuid4(), actor=Actor(id=member), at=utc_now())
        event = user.request_email_change(self.log.load(member, user.evolve), email=new, request_id=uuid4(), by=member, at=command.at)
        self.log.append(command, *event)

    def invite(self, address, role=Role.RESEARCHER):
        invitations.invite(email=address, role=role, command=Command(id=uuid4(), actor=SYSTEM, at=utc_now()), log=self.log)


@pytest.fixture(scope="module")
def installation(postgres, redis_server, tmp_path_factory, request):
    name = request.module.__name__.rpartition(".")[2]
    with live_server(
        postgres, redis_server, tmp_path_factory.mktemp("pages"), database=name, email_verification="on", logins_per_minute_account=100
    ) as served:
        stop = threading.Event()
        projecting = threading.Thread(target=_follow, args=(served, stop))
        projecting.start()
        try:
            yield Installation(served)
        finally:
            stop.set()
            projecting.join()


def _follow(served, stop):
    while not stop.wait(0.01):
        served.follow()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    if PROGRAM is None:
        pytest.skip("Chromium is not installed")
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(params=[True, False], ids=["with scripts", "without scripts"])
def tab(chromium, request):
    with chromium.page(scripts=request.param) as page:
        yield page
        assert page.messages() == [], "the policy of the page forbids what it does"
