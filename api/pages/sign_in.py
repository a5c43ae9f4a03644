"""Pages to sign in and out."""

from typing import Any, Final
from uuid import UUID

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from api.middleware.authentication import OPEN
from api.options import WebOptions
from api.pages.forms import CURRENT_PASSWORD, EMAIL, FormPage, Link, Values, sent_values, shown, submitted
from api.pages.rendering import redirect
from api.pages.visits import expired_cookie, session_cookie, visitor
from api.request import RequestContext
from api.sessions import anonymous_command, start_session
from application import sessions

FORM: Final = {"body": "form"}
FOR_OTHER_ACCOUNTS: Final = {"accepted", "email", "registered", "setup"}
PAGE: Final = FormPage(
    path="/sign-in",
    title="Sign in",
    button="Sign in",
    fields=(EMAIL, CURRENT_PASSWORD),
    links=(Link("Forgot your password?", "/forgot-password"),),
    sentences={"not_authenticated": "The e-mail address or the password is wrong, or the account may not sign in"},
)
REGISTER: Final = Link("Create an account", "/register")
NOTICES: Final = {
    "signed-out": "You are signed out.",
    "ended": "Your session has ended. Sign in again.",
    "verified": "Your e-mail address is verified, and your account is ready. Sign in with your address and password.",
    "reset": "Your password was changed, and all sessions were ended. Sign in with the new password.",
    "accepted": "Your account is ready. Sign in with your address and password.",
    "registered": "Your account is ready. Sign in with your address and password.",
    "setup": "You are the first administrator. Sign in with your address and password.",
    "email": "Your new e-mail address is confirmed. Use it from now on to sign in.",
}


def page_for(options: WebOptions) -> FormPage:
    """The page, with a way to a new account where everybody may create one."""
    return PAGE._replace(links=(*PAGE.links, REGISTER)) if options.registration == "open" else PAGE


def sign_in_again(context: RequestContext, *, after: str, ended: UUID) -> Response[Any]:
    """Continue at the page for signing in, after something that ended the sessions of the account or registration `ended`."""
    context.identities.forget(ended)
    return redirect(context.options, f"/sign-in?after={after}", cookies=[expired_cookie(context.options)])


@get("/sign-in", opt=OPEN, include_in_schema=False)
async def sign_in_page(context: NamedDependency[RequestContext], after: FromQuery[str] = "") -> Response[Any]:
    """`after` is a word for what led here; an unknown one is ignored.

    After something that concerns an account of its own, the form is shown also in a browser in which another person is signed in.
    """
    if after not in FOR_OTHER_ACCOUNTS and await visitor(context) is not None:
        return redirect(context.options, "/account")
    return shown(context, page_for(context.options), notice=NOTICES.get(after, ""))


@post("/sign-in", opt=OPEN | FORM, include_in_schema=False)
async def sign_in(context: NamedDependency[RequestContext]) -> Response[Any]:
    async def perform(values: Values) -> Response[Any]:
        signed_in = await start_session(context, values["email"], values["password"])
        return redirect(context.options, "/account", cookies=[session_cookie(context, signed_in.session_id)])

    return await submitted(context, page_for(context.options), perform)


@post("/sign-out", opt=OPEN | FORM, include_in_schema=False)
async def sign_out(context: NamedDependency[RequestContext]) -> Response[Any]:
    await sent_values(context)
    person = await visitor(context)
    if person is not None and (session_id := person.identity.session_id) is not None:
        await context.execute(sessions.sign_out, session_id, tokens=context.services.refresh_tokens, command=anonymous_command(context))
        context.identities.forget(person.actor.id)
    return redirect(context.options, "/sign-in?after=signed-out", cookies=[expired_cookie(context.options)])
