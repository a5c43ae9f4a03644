"""The limit of unanswered model checks of one account, which counts requests in progress too."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from api.request import RequestContext
from application import model_checks
from application.ports import Command
from projections import model_checks as read_model


class CheckSlots:
    """Requests for checks in progress by account, in this process. To be used on one event loop."""

    def __init__(self) -> None:
        self._in_progress: Counter[UUID] = Counter()

    @asynccontextmanager
    async def taken(self, context: RequestContext, command: Command) -> AsyncIterator[None]:
        """Hold a slot during the block. A repeated command needs none. Raises TooMany before the block."""
        account = context.actor.id
        others = self._in_progress[account]
        self._in_progress[account] += 1
        try:
            if not await context.read_log(model_checks.is_repeated, command):
                model_checks.require_free_slot(others + await context.read(read_model.pending))
            yield
        finally:
            self._in_progress[account] -= 1
            if not self._in_progress[account]:
                del self._in_progress[account]
