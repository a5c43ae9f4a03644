"""Mails as messages (RFC 5322)."""

from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from typing import Final
from urllib.parse import urlsplit

from application.mail.mail import Mail, MailRefused
from domain.email_address import mailed

NAME: Final = "BioScopeAI"
UNUSABLE: Final = "the address cannot be used in a mail"


def sender_of(mail_from: str, base_url: str) -> Address:
    """The sender: `mail_from`, as an address or as NAME <ADDRESS>; without it, an address at the host of the installation.

    Raises ValueError.
    """
    if not mail_from:
        return Address(NAME, username="bioscope", domain=urlsplit(base_url).hostname or "localhost")
    name, address = parseaddr(mail_from)
    return Address(name or NAME, addr_spec=address)


def message_of(mail: Mail, sender: Address) -> EmailMessage:
    """The message of a mail, the same whenever it is made again. Raises MailRefused for an address that cannot be used."""
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = recipient_of(mail)
    message["Subject"] = mail.subject
    message["Date"] = mail.at
    message["Message-ID"] = f"<{mail.id}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    message.set_boundary(f"=_{mail.id}")
    return message


def recipient_of(mail: Mail) -> Address:
    """The only recipient; a domain with letters beyond ASCII in the form of DNS. Raises MailRefused for an address that cannot be used."""
    try:
        plain = mailed(mail.to)
        address = Address(addr_spec=plain)
    except (ValueError, IndexError, HeaderParseError):  # of the standard library's parsers
        raise MailRefused(UNUSABLE) from None
    if address.addr_spec != plain or not plain.isprintable():
        raise MailRefused(UNUSABLE)
    return address
