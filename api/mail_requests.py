"""Requests for a mail, whose answers do not say whether the address is known here."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from msgspec import Struct

from api.request import RequestContext
from application.ports import Command
from domain.email_address import new_address
from domain.links import LinkPurpose
from domain.values import email as email_address

T = TypeVar("T")
MAIL_REQUESTED: Final = "If the address is known here, a mail is on its way to it. Its link works for 30 minutes"


class MailRequested(Struct, frozen=True):
    """The answer to every request for a mail."""

    detail: str = MAIL_REQUESTED


async def count_mail_to_new_address(context: RequestContext, email: str) -> None:
    """Count a request for a mail to an address that the client has not proved yet. Raises Invalid, TooMany."""
    await asyncio.to_thread(context.services.sign_in_limits.mail_to_new_address, new_address(email), context.network)


async def request_mail(
    context: RequestContext, purpose: LinkPurpose, use_case: Callable[..., None], email: str, command: Command, *, sends: bool = True
) -> None:
    """Count a request for a mail, and run `use_case`, which sends it if the address is known. Raises Invalid, TooMany.

    Nothing is sent if strangers have requested too many mails to the address, or if not `sends`. Neither the answer nor its time shows it.
    """
    address, limits, log = email_address(email), context.services.sign_in_limits, context.services.log
    await asyncio.to_thread(limits.mail, address, context.network)

    async def send() -> None:
        if sends and await asyncio.to_thread(limits.may_send, purpose, address, context.network, lambda: log.claimed("email", address)):
            await context.execute(use_case, email=address, command=command)

    await in_equal_time(context, send())


async def in_equal_time(context: RequestContext, work: Awaitable[T]) -> T:
    """The result of `work`, not before the time has passed that it takes for a known address.

    An unknown address appends nothing, which would show in the time of the answer.
    """
    until = time.monotonic() + context.options.equal_answer_seconds
    try:
        return await work
    finally:
        await asyncio.sleep(max(0.0, until - time.monotonic()))
