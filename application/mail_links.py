"""The stream that the link of a mail is about, after its token was checked."""

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from application.ports import EventStore, Evolve, MailLinks, S
from domain.errors import InvalidLink
from domain.links import LinkPurpose


class OpenedLink(NamedTuple):
    """What a genuine token names: the stream and the request. Whether the request is still open, the domain decides."""

    stream: UUID
    request_id: UUID


def read_link(
    token: str, purpose: LinkPurpose, evolve: Evolve[S], address_of: Callable[[S], str | None], *, links: MailLinks, log: EventStore
) -> tuple[OpenedLink, S]:
    """The link and the state of its stream. `address_of` gives the address that the link was sent to.

    Raises InvalidLink for a token of another form or purpose, and for one that this installation did not issue for the present address.
    """
    link = links.read(token)
    state = log.load(link.stream, evolve) if link.purpose is purpose else None
    address = None if state is None else address_of(state)
    if state is None or address is None or not links.is_genuine(token, address=address):
        raise InvalidLink
    return OpenedLink(link.stream, link.request_id), state
