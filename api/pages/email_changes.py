"""The page that confirms a new e-mail address."""

from typing import Any, Final

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from api.middleware.authentication import OPEN
from api.pages.forms import FormPage, Values, shown, submitted
from api.pages.links import address_of, sent_token
from api.pages.rendering import redirect
from api.pages.sign_in import FORM
from api.pages.visits import visitor
from api.request import RequestContext
from api.sessions import anonymous_command
from application import email_changes
from domain.links import LinkPurpose

PAGE: Final = FormPage(
    path="/account/email",
    title="Confirm your new e-mail address",
    text=("From then on you sign in with the new address. The old one no longer belongs to your account.",),
    button="Confirm the address",
)


@get("/account/email", opt=OPEN, include_in_schema=False)
async def confirm_page(context: NamedDependency[RequestContext], token: FromQuery[str] = "") -> Response[str]:
    return shown(context, PAGE, token=token, address=await address_of(context, token, LinkPurpose.CHANGE_EMAIL))


@post("/account/email", opt=OPEN | FORM, include_in_schema=False)
async def confirm(context: NamedDependency[RequestContext]) -> Response[Any]:
    async def perform(values: Values) -> Response[Any]:
        command = anonymous_command(context)
        changed = await context.execute(email_changes.confirm, token=values["token"], links=context.services.mail_links, command=command)
        person = await visitor(context)
        page = "/account" if person is not None and person.actor.id == changed.id else "/sign-in"
        return redirect(context.options, f"{page}?after=email")

    address = await address_of(context, await sent_token(context), LinkPurpose.CHANGE_EMAIL)
    return await submitted(context, PAGE, perform, address=address)
