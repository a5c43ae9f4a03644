"""The page of one's own account: profile, sessions, password."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from api.middleware.authentication import OPEN
from api.pages.forms import CURRENT_PASSWORD, NEW_PASSWORD, FormPage, Link, Values, sent_values, shown, submitted
from api.pages.rendering import redirect, rendered
from api.pages.sign_in import FORM
from api.pages.visits import SignedOut, visitor
from api.request import RequestContext
from api.sessions import anonymous_command
from application import accounts, registrations, sessions
from application.authentication import PENDING
from application.passwords import NewPassword
from domain import registration
from domain.errors import NotFound
from domain.registration import Registration
from domain.values import is_id
from projections import api_keys

PASSWORD: Final = FormPage(
    path="/account/password",
    title="Change your password",
    text=("All other sessions of your account end.",),
    button="Change the password",
    fields=(CURRENT_PASSWORD._replace(name="current_password", label="Current password"), NEW_PASSWORD),
    links=(Link("Back to your account", "/account"),),
    sentences={"forbidden": "The current password is wrong"},
)
NOTICES: Final = {
    "password": "Your password was changed. All other sessions have ended.",
    "session": "The session has ended.",
    "sessions": "All other sessions have ended.",
    "sent": "A mail with a new link is on its way. Earlier links no longer work.",
    "email": "Your new e-mail address is confirmed. Use it from now on to sign in.",
}


async def require_visitor(context: RequestContext) -> RequestContext:
    """Raises SignedOut."""
    if (person := await visitor(context)) is None:
        raise SignedOut
    return person


@get("/account", opt=OPEN, include_in_schema=False)
async def account_page(context: NamedDependency[RequestContext], after: FromQuery[str] = "") -> Response[Any]:
    """`after` is a word for what led here; an unknown one is ignored."""
    person = await require_visitor(context)
    notice = NOTICES.get(after, "")
    if person.actor.kind == PENDING:
        return rendered("pending.html", context.options, registration=await registration_of(person), notice=notice)
    return rendered(
        "account.html",
        context.options,
        account=await person.read_log(accounts.load_account, user_id=person.actor.id),
        sessions=await own_sessions(person),
        keys=await person.read(api_keys.active_count),
        notice=notice,
    )


async def address_of(person: RequestContext) -> str:
    return (await person.read_log(accounts.load_account, user_id=person.actor.id)).email


async def registration_of(person: RequestContext) -> Registration:
    """The registration of a person whose address is not verified. Raises SignedOut if it has ended."""
    found = await asyncio.to_thread(person.services.log.load, person.actor.id, registration.evolve)
    if found is None or not found.is_open:
        raise SignedOut
    return found


async def own_sessions(person: RequestContext) -> Sequence[sessions.OpenSession]:
    return await person.read_log(
        sessions.listed, person.actor.id, current=person.identity.session_id, tokens=person.services.refresh_tokens
    )


@post("/account/verification", opt=OPEN | FORM, include_in_schema=False)
async def send_again(context: NamedDependency[RequestContext]) -> Response[Any]:
    """Send the mail with the link again, to the address that was registered."""
    await sent_values(context)
    person = await require_visitor(context)
    if person.actor.kind == PENDING:
        pending = await registration_of(person)
        await asyncio.to_thread(context.services.sign_in_limits.mail, pending.email, context.network)
        await context.execute(registrations.request_verification, email=pending.email, command=anonymous_command(context))
    return redirect(context.options, "/account?after=sent")


@post("/account/sessions", opt=OPEN | FORM, include_in_schema=False)
async def end_sessions(context: NamedDependency[RequestContext]) -> Response[Any]:
    """End the session whose id was sent, or all others if none was. A session that has ended is not an error."""
    sent = await sent_values(context)
    person = await require_visitor(context)
    ending, tokens = sent.get("session", ""), context.services.refresh_tokens
    if not ending:
        await person.execute(sessions.end_others, keep=person.identity.session_id, tokens=tokens)
    elif is_id(ending):
        with suppress(NotFound):
            await person.execute(sessions.end, UUID(ending), tokens=tokens)
    context.identities.forget(person.actor.id)
    return redirect(context.options, f"/account?after={'session' if ending else 'sessions'}")


@get("/account/password", opt=OPEN, include_in_schema=False)
async def password_page(context: NamedDependency[RequestContext]) -> Response[Any]:
    person = await require_visitor(context)
    if person.actor.kind == PENDING:
        return redirect(context.options, "/account")
    return shown(context, PASSWORD, address=await address_of(person))


@post("/account/password", opt=OPEN | FORM, include_in_schema=False)
async def change_password(context: NamedDependency[RequestContext]) -> Response[Any]:
    await sent_values(context)
    person, services = await require_visitor(context), context.services
    if person.actor.kind == PENDING:
        return redirect(context.options, "/account")

    async def perform(values: Values) -> Response[Any]:
        new = NewPassword(
            password=values["password"],
            current=values["current_password"],
            signed_in_for=float("inf"),
            keep=person.identity.session_id,
            network=context.network,
        )
        await person.execute(
            accounts.update,
            person.actor.id,
            profile={},
            password=new,
            passwords=services.passwords,
            tokens=services.refresh_tokens,
            sign_in_limits=services.sign_in_limits,
        )
        context.identities.forget(person.actor.id)
        return redirect(context.options, "/account?after=password")

    return await submitted(context, PASSWORD, perform, address=await address_of(person))
