"""Requests mails through use cases, and gives the tokens of their links, as a mail would contain them."""

from uuid import uuid4

from api.clock import utc_now
from application import accounts, email_changes, invitations, password_resets, registrations
from application.ports import Command, MailLink
from domain import invitation, registration, user
from domain.access import Actor, Role
from domain.links import LinkPurpose
from domain.values import system_actor

SYSTEM = Actor(id=system_actor("tests"), kind="system")
ANONYMOUS = Actor(id=system_actor("anybody"), kind="anonymous")


class Links:
    """Over any `services` with a log, password hasher and links; `clock` is that of the commands."""

    def __init__(self, services, clock=utc_now):
        self.log, self.links, self.passwords = services.log, services.mail_links, services.passwords
        self.sign_in_limits, self.clock = services.sign_in_limits, clock

    def command(self, by=ANONYMOUS):
        return Command(id=uuid4(), actor=by, at=self.clock())

    def of_registration(self, email, *, password, username="somebody"):
        names = {"username": username, "first_name": "Some", "last_name": "Body", "network": "192.0.2.1"}
        ports = {"command": self.command(), "log": self.log, "passwords": self.passwords}
        return self.of_stream(registrations.request(email=email, password=password, **names, **ports).id)

    def of_reset(self, email):
        password_resets.request(email=email, command=self.command(), log=self.log)
        return self.of_stream(accounts.find(email, self.log).id)

    def of_email_change(self, email, *, to):
        account = accounts.find(email, self.log)
        by = self.command(Actor(id=account.id, role=account.role))
        email_changes.request(account.id, email=to, network="192.0.2.1", command=by, log=self.log, sign_in_limits=self.sign_in_limits)
        return self.of_stream(account.id, LinkPurpose.CHANGE_EMAIL)

    def of_invitation(self, email, role=Role.VIEWER):
        return self.of_stream(invitations.invite(email=email, role=role, command=self.command(SYSTEM), log=self.log).id)

    def of_stream(self, stream, purpose=LinkPurpose.RESET_PASSWORD):
        """The token of the newest link of a stream."""
        for evolve in (registration.evolve, invitation.evolve):
            if (found := self.log.load(stream, evolve)) is not None:
                return self._token(found.link, stream, found.email)
        account = self.log.load(stream, user.evolve)
        if purpose is LinkPurpose.CHANGE_EMAIL:
            return self._token(account.email_link, stream, account.new_email)
        return self._token(account.reset_link, stream, account.email)

    def _token(self, link, stream, address):
        return self.links.token(MailLink(link.purpose, stream, link.request_id), address=address)
