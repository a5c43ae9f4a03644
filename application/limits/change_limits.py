"""The rate limit for changes to one stream by users. Each change is an event that every load of the stream reads."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final
from uuid import UUID

import msgspec

from application.ports import Command, RateLimit, RateLimiter
from domain.errors import TooMany
from domain.events import Event

MINUTE_SECONDS: Final = 60


class ChangeLimit(msgspec.Struct, frozen=True, kw_only=True):
    """At most `per_minute` changes by users to one existing stream. New streams and changes by the system do not count."""

    limits: RateLimiter
    per_minute: int

    @contextmanager
    def counted(self, command: Command, events: Sequence[Event]) -> Iterator[None]:
        """Count the append in the block; a failed one is refunded. Raises TooMany before the block."""
        streams = _existing_streams(events) if command.actor.kind in {"user", "service"} else ()
        if not streams:
            yield
            return
        with ExitStack() as refund:
            refund.callback(self._take(streams))
            yield
            refund.pop_all()

    def _take(self, streams: Sequence[UUID]) -> Callable[[], None]:
        try:
            return self.limits.take(
                *(RateLimit(key=f"change/{stream}", maximum=self.per_minute, seconds=MINUTE_SECONDS) for stream in streams)
            )
        except TooMany as error:
            wait = error.retry_after or 1
            raise TooMany(f"This was changed {self.per_minute} times within a minute; try again in {wait} s", retry_after=wait) from None


def _existing_streams(events: Sequence[Event]) -> Sequence[UUID]:
    """The streams of the events, without the new ones."""
    new_streams = {event.originator_id for event in events if event.originator_version == 1}
    return [stream for stream in dict.fromkeys(event.originator_id for event in events) if stream not in new_streams]
