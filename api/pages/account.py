"""The page of one's own account: profile, sessions, password."""

from typing import Any, Final
from uuid import UUID

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from api.clock import utc_now
from api.mail_requests import request_mail
from api.middleware.authentication import OPEN
from api.open_sessions import end_all, end_one, sessions_of
from api.pages.forms import CURRENT_PASSWORD, NEW_PASSWORD, FormPage, Link, Values, sent_values, shown, submitted
from api.pages.rendering import redirect, rendered
from api.pages.sign_in import FORM
from api.pages.visits import NotVerified, SignedOut, visitor
from api.registration_modes import require_open_registration
from api.request import RequestContext
from api.sessions import anonymous_command
from application import accounts, registrations
from application.authentication import PENDING
from application.passwords import NewPassword
from domain.errors import Invalid, NotFound
from domain.links import LinkPurpose
from domain.registration import Registration
from domain.user import User
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
    "profile": "Your profile is saved.",
    "address": "Your profile is saved. Open the link in the mail to your new address: until then, the old one counts.",
    "password": "Your password was changed. All other sessions have ended.",
    "session": "The session has ended.",
    "sessions": "All other sessions have ended.",
    "sent": "A mail with a new link is on its way. Earlier links no longer work.",
    "email": "Your new e-mail address is confirmed. Use it from now on to sign in.",
}

NO_SESSION: Final = "No session has ended. Open your account again: it shows the sessions that you can end"


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
    account = await person.read_log(accounts.load_account, user_id=person.actor.id)
    return rendered(
        "account.html",
        context.options,
        account=account,
        pending_email=account.pending_email(utc_now()),
        sessions=await sessions_of(person, person.actor.id),
        keys=await person.read(api_keys.working, owner=person.actor.id, now=utc_now()),
        notice=notice,
    )


async def require_account(context: RequestContext) -> tuple[RequestContext, User]:
    """The request as that of the person who is signed in, and the account. Raises SignedOut, NotVerified."""
    person = await require_visitor(context)
    if person.actor.kind == PENDING:
        raise NotVerified
    return person, await person.read_log(accounts.load_account, user_id=person.actor.id)


async def registration_of(person: RequestContext) -> Registration:
    """The registration of a person whose address is not verified. Raises SignedOut if it has ended."""
    try:
        return await person.read_log(registrations.load_registration, registration_id=person.actor.id)
    except NotFound:
        raise SignedOut from None


@post("/account/verification", opt=OPEN | FORM, include_in_schema=False)
async def send_again(context: NamedDependency[RequestContext]) -> Response[Any]:
    """Send the mail with the link again, to the address that was registered. Raises Forbidden where nobody can register any longer."""
    await sent_values(context)
    require_open_registration(context)
    person = await require_visitor(context)
    if person.actor.kind == PENDING:
        pending = await registration_of(person)
        await request_mail(context, LinkPurpose.VERIFY_EMAIL, registrations.request_verification, pending.email, anonymous_command(context))
    return redirect(context.options, "/account?after=sent")


@post("/account/sessions", opt=OPEN | FORM, include_in_schema=False)
async def end_sessions(context: NamedDependency[RequestContext]) -> Response[Any]:
    """End the session `session`, or, with `end=others`, all others. A session that has ended is not an error. Raises Invalid."""
    sent = await sent_values(context)
    person = await require_visitor(context)
    if "session" not in sent and sent.get("end") == "others":
        await end_all(person, person.actor.id, but=person.identity.session_id)
        return redirect(context.options, "/account?after=sessions")
    try:
        if not is_id(ending := sent.get("session", "")):
            raise Invalid(NO_SESSION)
        await end_one(person, person.actor.id, UUID(ending))
    except NotFound:
        raise Invalid(NO_SESSION) from None
    return redirect(context.options, "/account?after=session")


@get("/account/password", opt=OPEN, include_in_schema=False)
async def password_page(context: NamedDependency[RequestContext]) -> Response[Any]:
    _, account = await require_account(context)
    return shown(context, PASSWORD, address=account.email)


@post("/account/password", opt=OPEN | FORM, include_in_schema=False)
async def change_password(context: NamedDependency[RequestContext]) -> Response[Any]:
    await sent_values(context)
    (person, account), services = await require_account(context), context.services

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
            account.id,
            profile={},
            password=new,
            passwords=services.passwords,
            tokens=services.refresh_tokens,
            sign_in_limits=services.sign_in_limits,
        )
        context.identities.forget(account.id)
        return redirect(context.options, "/account?after=password")

    return await submitted(context, PASSWORD, perform, address=account.email)
