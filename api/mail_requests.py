"""Requests for a mail, whose answers do not say whether the address is known here."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Final, TypeVar

from msgspec import Struct

from api.request import RequestContext

T = TypeVar("T")
MAIL_REQUESTED: Final = "If the address is known here, a mail is on its way to it. Its link works for 30 minutes"


class MailRequested(Struct, frozen=True):
    """The answer to every request for a mail."""

    detail: str = MAIL_REQUESTED


async def count_mail(context: RequestContext, email: str) -> None:
    """Count a request for a mail, by the client's network and by the address. Raises TooMany."""
    await asyncio.to_thread(context.services.sign_in_limits.mail, email, context.network)


async def in_equal_time(context: RequestContext, work: Awaitable[T]) -> T:
    """The result of `work`, not before the time has passed that it takes for a known address.

    An unknown address appends nothing, which would show in the time of the answer.
    """
    until = time.monotonic() + context.options.equal_answer_seconds
    try:
        return await work
    finally:
        await asyncio.sleep(max(0.0, until - time.monotonic()))
