"""Pages to create an account, and to verify its e-mail address."""

import asyncio
from typing import Any, Final

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from api.mail_requests import count_mail_to_new_address, in_equal_time
from api.middleware.authentication import OPEN
from api.pages.forms import CURRENT_PASSWORD, EMAIL, FIRST_NAME, LAST_NAME, NEW_PASSWORD, USERNAME, FormPage, Link, Values, shown, submitted
from api.pages.links import address_of, sent_token
from api.pages.rendering import redirect, rendered
from api.pages.sign_in import FORM, sign_in_again
from api.registration_modes import require_open_registration
from api.request import RequestContext
from api.sessions import anonymous_command
from application import accounts, registrations
from domain.links import LinkPurpose

REGISTER: Final = FormPage(
    path="/register",
    title="Create an account",
    button="Create the account",
    fields=(EMAIL, USERNAME, FIRST_NAME, LAST_NAME, NEW_PASSWORD._replace(label="Password")),
    links=(Link("You have an account? Sign in", "/sign-in"),),
)
VERIFY: Final = FormPage(
    path="/account/verify",
    title="Verify your e-mail address",
    text=("Enter the password that you chose when you created the account.",),
    button="Verify the address",
    fields=(
        CURRENT_PASSWORD,
        USERNAME._replace(
            label="Another user name", is_required=False, hint="Only if the one that you chose is taken. Otherwise leave it empty."
        ),
    ),
)
REQUESTED: Final = (
    "A mail with a link is on its way to your address. Open the link to verify it.",
    "The link works once, within 30 minutes. If it is too late, sign in and send the mail again.",
)


@get("/register", opt=OPEN, include_in_schema=False)
async def register_page(context: NamedDependency[RequestContext], sent: FromQuery[bool] = False) -> Response[str]:  # noqa: FBT002
    require_open_registration(context)
    if sent:
        return rendered("message.html", context.options, title="Check your mail", text=REQUESTED, link=Link("Sign in", "/sign-in"))
    return shown(context, REGISTER)


@post("/register", opt=OPEN | FORM, include_in_schema=False)
async def register(context: NamedDependency[RequestContext]) -> Response[Any]:
    require_open_registration(context)

    async def perform(values: Values) -> Response[Any]:
        verifies = context.options.verifies_email
        if verifies:
            await count_mail_to_new_address(context, values["email"])
        else:
            await asyncio.to_thread(context.services.sign_in_limits.registration, context.network)
        work = context.execute(
            registrations.request if verifies else accounts.register,
            email=values["email"],
            username=values["username"],
            first_name=values["first_name"],
            last_name=values["last_name"],
            password=values["password"],
            network=context.network,
            passwords=context.services.passwords,
            command=anonymous_command(context),
        )
        await (in_equal_time(context, work) if verifies else work)
        return redirect(context.options, "/register?sent=true" if verifies else "/sign-in?after=registered")

    return await submitted(context, REGISTER, perform)


@get("/account/verify", opt=OPEN, include_in_schema=False)
async def verify_page(context: NamedDependency[RequestContext], token: FromQuery[str] = "") -> Response[str]:
    address = await address_of(context, token, LinkPurpose.VERIFY_EMAIL)
    return shown(context, VERIFY, token=token, address=address)


@post("/account/verify", opt=OPEN | FORM, include_in_schema=False)
async def verify(context: NamedDependency[RequestContext]) -> Response[Any]:
    require_open_registration(context)
    services = context.services

    async def perform(values: Values) -> Response[Any]:
        await context.execute(
            registrations.verify,
            token=values["token"],
            password=values["password"],
            username=values["username"] or None,
            network=context.network,
            links=services.mail_links,
            passwords=services.passwords,
            tokens=services.refresh_tokens,
            sign_in_limits=services.sign_in_limits,
            command=anonymous_command(context),
        )
        return sign_in_again(context, after="verified", ended=services.mail_links.read(values["token"]).stream)

    address = await address_of(context, await sent_token(context), LinkPurpose.VERIFY_EMAIL)
    return await submitted(context, VERIFY, perform, address=address)
