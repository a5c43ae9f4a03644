"""A dead letter that an operator discarded: the read models could not apply the event. The event itself stays in the log."""

from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

import msgspec

from domain.errors import Invalid
from domain.events import Event, PrivateText, State, new_stream
from domain.values import NAMESPACE, multiline_text

MAX_REASON: Final = 500  # characters


class DeadLetterDiscarded(Event, frozen=True, kw_only=True):
    """The event at `position`, of type `type` in the stream `discarded_stream`, is never applied.

    `error` is the message of the failed attempt, `reason` the operator's reason for discarding it.
    """

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
    """The stream that records the discarding of the event at `position`: one per position, so an event is discarded once."""
    return uuid5(NAMESPACE, f"dead-letter/{position}")


def discard(*, position: int, stream: UUID, type_name: str, error: str, reason: str, by: UUID, at: datetime) -> DeadLetterDiscarded:
    """Discard the event at `position` for good.

    Raises Invalid for an empty reason, one of more than `MAX_REASON` characters or with control characters, and for the event of a
    discarding itself.
    """
    if type_name == DeadLetterDiscarded.__name__:
        raise Invalid("The event that records a discarding cannot be discarded; remove the cause and run `bioscope dead-letters retry`")
    return DeadLetterDiscarded(
        **new_stream(stream_of(position), by=by, at=at),
        position=position,
        discarded_stream=stream,
        type=type_name,
        error=error,
        reason=multiline_text(reason, name="reason", maximum=MAX_REASON),
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
