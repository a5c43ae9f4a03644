"""A mail, and the port through which it leaves."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """A mail to one address: number `number`, from 1, of the mails that the event `event_id` causes.

    `at` is the time of the event. `html` says the same as `text`.
    """

    event_id: UUID
    number: int
    to: str
    at: datetime
    subject: str
    text: str
    html: str

    @property
    def id(self) -> str:
        """The same whenever the mail is made again, so that a repetition can be recognised."""
        return f"{self.event_id}.{self.number}"


class MailRefused(Exception):
    """The server refuses this mail for good, or its address cannot be used. The message names no address."""


class MailDeferred(Exception):
    """The server does not accept this mail for now, but may accept others. The message names no address."""


class MailServerUnavailable(Exception):
    """No mail can be sent for now: the server does not answer, or refuses this installation. The message names no address."""


class MailTransport(Protocol):
    """Hands mails over for delivery."""

    def send(self, mail: Mail) -> None:
        """Return when the mail is handed over. Blocks for seconds. Raises MailRefused, MailDeferred, MailServerUnavailable."""
