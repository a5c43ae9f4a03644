"""Pages to request the reset of a forgotten password, and to set the new one."""

from typing import Any, Final

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from api.mail_requests import request_mail
from api.middleware.authentication import OPEN
from api.pages.forms import EMAIL, NEW_PASSWORD, FormPage, Link, Values, shown, submitted
from api.pages.links import address_of, sent_token
from api.pages.rendering import redirect, rendered
from api.pages.sign_in import FORM, sign_in_again
from api.request import RequestContext
from api.sessions import anonymous_command
from application import password_resets
from domain.links import LinkPurpose

REQUEST: Final = FormPage(
    path="/forgot-password",
    title="Forgot your password?",
    text=("Enter the e-mail address of your account. We send a link with which you set a new password.",),
    button="Send the link",
    fields=(EMAIL._replace(autocomplete="email"),),
    links=(Link("Back to sign in", "/sign-in"),),
)
RESET: Final = FormPage(
    path="/account/reset",
    title="Set a new password",
    text=("All sessions of your account end, also those of other people who know the old password.",),
    button="Change the password",
    fields=(NEW_PASSWORD,),
)
REQUESTED: Final = (
    "If an account has this address, a mail with a link is on its way.",
    "The link works once, within 30 minutes. If no mail arrives, look in the spam folder.",
)


@get("/forgot-password", opt=OPEN, include_in_schema=False)
async def forgot_password_page(context: NamedDependency[RequestContext], sent: FromQuery[bool] = False) -> Response[str]:  # noqa: FBT002
    if sent:
        return rendered("message.html", context.options, title="Check your mail", text=REQUESTED, link=REQUEST.links[0])
    return shown(context, REQUEST)


@post("/forgot-password", opt=OPEN | FORM, include_in_schema=False)
async def forgot_password(context: NamedDependency[RequestContext]) -> Response[Any]:
    """The answer is the same for known and unknown addresses."""

    async def perform(values: Values) -> Response[Any]:
        await request_mail(context, LinkPurpose.RESET_PASSWORD, password_resets.request, values["email"], anonymous_command(context))
        return redirect(context.options, "/forgot-password?sent=true")

    return await submitted(context, REQUEST, perform)


@get("/account/reset", opt=OPEN, include_in_schema=False)
async def reset_page(context: NamedDependency[RequestContext], token: FromQuery[str] = "") -> Response[str]:
    address = await address_of(context, token, LinkPurpose.RESET_PASSWORD)
    return shown(context, RESET, token=token, address=address)


@post("/account/reset", opt=OPEN | FORM, include_in_schema=False)
async def reset(context: NamedDependency[RequestContext]) -> Response[Any]:
    services = context.services

    async def perform(values: Values) -> Response[Any]:
        done = await context.execute(
            password_resets.reset,
            token=values["token"],
            password=values["password"],
            network=context.network,
            links=services.mail_links,
            passwords=services.passwords,
            tokens=services.refresh_tokens,
            command=anonymous_command(context),
        )
        return sign_in_again(context, after="reset", ended=done.id)

    address = await address_of(context, await sent_token(context), LinkPurpose.RESET_PASSWORD)
    return await submitted(context, RESET, perform, address=address)
