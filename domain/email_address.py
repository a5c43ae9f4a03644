"""E-mail addresses: the rule for new ones, and the form in which all spellings of one mailbox are equal."""

import re
from typing import Final

from msgspec import UNSET, UnsetType

from domain.values import canonical, email, invalid

LOCAL_PART: Final = re.compile(r"(?!.{65})[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*", re.ASCII)
"""The part before the @, without quotes and comments (RFC 5322, dot-atom)."""
LABEL: Final = re.compile(r"\w(?:[\w-]{0,61}\w)?", re.ASCII)
"""A part of a domain between dots, as DNS has it. Underscores occur in private networks."""


def new_address(value: str) -> str:
    """An address that is new here, as it is stored. Raises Invalid as `values.email` does, and for one that can get no mail.

    A domain with letters beyond ASCII may have them or the form of DNS, but no characters that are omitted in the form of DNS.
    """
    address = email(value)
    local, _, domain = address.rpartition("@")
    try:
        labels = in_dns(domain).split(".")
    except UnicodeError:
        labels = []
    has_domain = len(labels) > 1 and all(map(LABEL.fullmatch, labels)) and not labels[-1].isdigit()
    if not (has_domain and LOCAL_PART.fullmatch(local) and canonical(domain) in {in_dns(domain).lower(), in_letters(domain)}):
        raise invalid("email", "must be one address like name@example.org, which can get mail")
    return address


def changed_address(value: str, present: str) -> str | UnsetType:
    """As `new_address`, or UNSET for the present one, which may be older than the rule."""
    return UNSET if email(value) == present else new_address(value)


def mailed(address: str) -> str:
    """The address as a mail server gets it. Raises UnicodeError if its domain cannot be written in the form of DNS."""
    local, at, domain = address.strip().rpartition("@")
    return f"{local}{at}{in_dns(domain)}"


def mailbox(address: str) -> str:
    """The form that is compared to find equal addresses: the same for all addresses whose mail goes to one mailbox. Never raises."""
    local, at, domain = address.strip().rpartition("@")
    try:
        return canonical(f"{local}{at}{in_letters(domain)}")
    except UnicodeError:
        return canonical(address)


def spellings(address: str) -> tuple[str, ...]:
    """The forms under which earlier releases may have stored an address of this mailbox, the given one first, and `mailbox`."""
    try:
        sent = canonical(mailed(address))
    except UnicodeError:
        sent = canonical(address)
    return tuple(dict.fromkeys((canonical(address), mailbox(address), sent)))


def in_dns(domain: str) -> str:
    """A domain in ASCII (IDNA 2003). Raises UnicodeError."""
    return domain.encode("idna").decode()


def in_letters(domain: str) -> str:
    """A domain with its own letters, in lower case, as far as its form in DNS can be read. Raises UnicodeError."""
    plain = in_dns(domain).lower()
    try:
        return canonical(plain.encode().decode("idna"))
    except UnicodeError:
        return plain
