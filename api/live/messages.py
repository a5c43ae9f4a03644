"""Messages and close codes of live connections: WebSockets and event streams."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from projections import activity, classifications

MALFORMED, UNAUTHENTICATED, FORBIDDEN, TOO_SLOW, TOO_MANY, INTERNAL_ERROR = 4400, 4401, 4403, 4408, 4429, 1011
RESTARTING: Final = 1012
MAX_DATASETS: Final = 100
MAX_POSITION: Final = 2**53  # the largest integer that every JSON reader represents exactly


class ClientMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """A message from the client."""


class Auth(ClientMessage, frozen=True, kw_only=True, tag="auth"):
    token: str


class Subscribe(ClientMessage, frozen=True, kw_only=True, tag="subscribe"):
    """Subscribe to events after position `after`, by default from now on, and only of `datasets`, if named."""

    after: Annotated[int, Meta(ge=0, le=MAX_POSITION)] | None = None
    datasets: Annotated[frozenset[UUID], Meta(max_length=MAX_DATASETS)] | None = None


class Ping(ClientMessage, frozen=True, kw_only=True, tag="ping"):
    pass


class Pong(ClientMessage, frozen=True, kw_only=True, tag="pong"):
    pass


class ServerMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """A message from the server."""


class Authenticated(ServerMessage, frozen=True, kw_only=True, tag="authenticated"):
    """A newer token sent before `expires_at` keeps the connection open."""

    user: UUID
    expires_at: datetime


class EventMessage(ServerMessage, frozen=True, kw_only=True, tag="event"):
    """`subjects` are the ids of everything that the event affects. `job` is the progress of its job, if the event belongs to one."""

    position: int
    at: datetime
    event: str
    stream: UUID
    actor: UUID
    dataset: UUID | None
    subjects: tuple[UUID, ...]
    job: classifications.Progress | None = None


class CaughtUp(ServerMessage, frozen=True, kw_only=True, tag="caught_up"):
    """All events so far were sent; resume after `position`."""

    position: int


class ServerPing(ServerMessage, frozen=True, kw_only=True, tag="ping"):
    """The client answers with a pong or any other message. It can resume after `position`."""

    position: int | None = None


class ServerPong(ServerMessage, frozen=True, kw_only=True, tag="pong"):
    pass


class Closed(ServerMessage, frozen=True, kw_only=True, tag="closed"):
    """The last message of an event stream. A WebSocket ends with the same code and reason."""

    code: int
    reason: str


IncomingMessage = Auth | Subscribe | Ping | Pong
DECODER: Final[msgspec.json.Decoder[IncomingMessage]] = msgspec.json.Decoder(IncomingMessage)


class CloseConnection(Exception):
    """Ends a connection, with the code and reason that the client gets."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class ClientDisconnected(Exception):
    """The client closed the connection."""


def decode(message: Any, *, maximum: int) -> IncomingMessage:
    """The message in an ASGI event, of at most `maximum` bytes. Raises CloseConnection."""
    text = message.get("text")
    if not isinstance(text, str) or len(text.encode(errors="replace")) > maximum:
        raise CloseConnection(MALFORMED, f"messages must be text of at most {maximum} bytes")
    try:
        return DECODER.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        raise CloseConnection(MALFORMED, "the message is not known") from None


def event_message(item: activity.Activity, job: classifications.Progress | None) -> EventMessage:
    return EventMessage(
        position=item.position,
        at=item.at,
        event=item.type,
        stream=item.stream,
        actor=item.actor,
        dataset=item.dataset,
        subjects=item.subjects,
        job=job,
    )
