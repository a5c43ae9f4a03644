"""An event that the read models could not apply, and that somebody gave up. The event itself stays in the log, as every event does."""

from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

import msgspec

from domain.errors import Invalid
from domain.events import Event, PrivateText, State, new_stream
from domain.values import NAMESPACE, text

MAX_REASON: Final = 500  # characters


class DeadLetterDiscarded(Event, frozen=True, kw_only=True):
    """The event at `position`, of the stream `discarded_stream` and the named type, is never applied. `error` says what went wrong with it,
    `reason` why it was given up."""

    position: int
    discarded_stream: UUID
    type: str
    error: str
    reason: PrivateText


class DeadLetter(State, frozen=True, kw_only=True):
    position: int
    discarded_by: UUID
    discarded_at: datetime


def stream_of(position: int) -> UUID:
    """Each position has one stream, so that an event can be discarded once."""
    return uuid5(NAMESPACE, f"dead-letter/{position}")


def discard(*, position: int, stream: UUID, type_name: str, error: str, reason: str, by: UUID, at: datetime) -> DeadLetterDiscarded:
    """Raises Invalid for a reason that is empty, too long, or not text."""
    if type_name == DeadLetterDiscarded.__name__:
        raise Invalid("The record of a discarded event cannot be discarded itself; mend the cause and use `dead-letters retry`")
    return DeadLetterDiscarded(
        **new_stream(stream_of(position), by=by, at=at),
        position=position,
        discarded_stream=stream,
        type=type_name,
        error=error,
        reason=text(reason, name="reason", maximum=MAX_REASON),
    )


def evolve(letter: DeadLetter | None, event: Event) -> DeadLetter | None:
    match event:
        case DeadLetterDiscarded():
            return DeadLetter(
                id=event.originator_id,
                version=event.originator_version,
                position=event.position,
                discarded_by=event.by,
                discarded_at=event.at,
            )
        case _ if letter is None:
            return None
        case _:
            return msgspec.structs.replace(letter, version=event.originator_version)
