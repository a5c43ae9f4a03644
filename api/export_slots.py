"""The limit of exports in progress of one account. Each holds a page of results in memory for as long as its client reads."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast
from uuid import UUID

from litestar.response import Stream
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from domain.errors import TooMany

RETRY_AFTER_SECONDS: Final = 5


class ExportSlots:
    """Slots of this process, to be used on one event loop."""

    def __init__(self, per_account: int) -> None:
        self._per_account = per_account
        self._held: Counter[UUID] = Counter()

    @contextmanager
    def held(self, account_id: UUID) -> Iterator[None]:
        """Hold a slot during the block. Raises TooMany before it."""
        if self._held[account_id] >= self._per_account:
            detail = f"An account may have {self._per_account} exports in progress; try again when one has ended"
            raise TooMany(detail, retry_after=RETRY_AFTER_SECONDS)
        self._held[account_id] += 1
        try:
            yield
        finally:
            self._held[account_id] -= 1
            self._held += Counter()  # removes zero counts


class ExportStream(Stream):
    """A response that holds a slot from its first byte until it has ended or its client is disconnected."""

    def __init__(self, content: AsyncIterator[bytes | str], slots: ExportSlots, account_id: UUID, **about: Any) -> None:
        super().__init__(content, **about)
        self._slots, self._account_id = slots, account_id

    def to_asgi_response(self, *given: Any, **named: Any) -> ASGIResponse:
        response = super().to_asgi_response(*given, **named)

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            with self._slots.held(self._account_id):
                await response(scope, receive, send)

        return cast("ASGIResponse", respond)
