"""How often people change one thing: each change is an event of its stream, which everybody who loads it reads."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final
from uuid import UUID

import msgspec

from application.ports import Command, RateLimit, RateLimiter
from domain.errors import TooMany
from domain.events import Event

MINUTE: Final = 60


class ChangeLimit(msgspec.Struct, frozen=True, kw_only=True):
    """People's changes to one stream that exists. New streams do not count, nor does what our own processes append."""

    limits: RateLimiter
    per_minute: int

    @contextmanager
    def counted(self, command: Command, events: Sequence[Event]) -> Iterator[None]:
        """Around an append, which does not count if it fails. Raises TooMany before it."""
        streams = _continued(events) if command.actor.kind == "user" else ()
        if not streams:
            yield
            return
        with ExitStack() as given_back:
            given_back.callback(self._take(streams))
            yield
            given_back.pop_all()

    def _take(self, streams: Sequence[UUID]) -> Callable[[], None]:
        try:
            return self.limits.take(*(RateLimit(key=f"change/{stream}", maximum=self.per_minute, seconds=MINUTE) for stream in streams))
        except TooMany as error:
            wait = error.retry_after or 1
            raise TooMany(f"This was changed {self.per_minute} times within a minute; try again in {wait} s", retry_after=wait) from None


def _continued(events: Sequence[Event]) -> Sequence[UUID]:
    """The streams that were there before."""
    begun = {event.originator_id for event in events if event.originator_version == 1}
    return [stream for stream in dict.fromkeys(event.originator_id for event in events) if stream not in begun]
