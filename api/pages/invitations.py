"""The page on which an invited person creates the account."""

from collections.abc import Mapping
from typing import Any, Final

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from api.middleware.authentication import OPEN
from api.pages.forms import FIRST_NAME, LAST_NAME, NEW_PASSWORD, USERNAME, FormPage, Values, sent_values, shown, submitted
from api.pages.rendering import redirect
from api.pages.sign_in import FORM
from api.request import RequestContext
from api.sessions import anonymous_command
from application import invitations

PAGE: Final = FormPage(
    path="/account/invitation",
    title="Accept your invitation",
    text=("Choose a user name and a password for your account.",),
    button="Create the account",
    fields=(USERNAME, FIRST_NAME, LAST_NAME, NEW_PASSWORD._replace(label="Password")),
)


async def facts_of(context: RequestContext, token: str) -> Mapping[str, str]:
    """What the invitation offers. Raises InvalidLink."""
    invitation = await context.execute(
        invitations.of_token, token=token, links=context.services.mail_links, command=anonymous_command(context)
    )
    return {"E-mail address": invitation.email, "Role": invitation.role.value}


@get("/account/invitation", opt=OPEN, include_in_schema=False)
async def invitation_page(context: NamedDependency[RequestContext], token: FromQuery[str] = "") -> Response[str]:
    return shown(context, PAGE, token=token, facts=await facts_of(context, token))


@post("/account/invitation", opt=OPEN | FORM, include_in_schema=False)
async def accept(context: NamedDependency[RequestContext]) -> Response[Any]:
    services = context.services

    async def perform(values: Values) -> Response[Any]:
        await context.execute(
            invitations.accept,
            token=values["token"],
            username=values["username"],
            first_name=values["first_name"],
            last_name=values["last_name"],
            password=values["password"],
            network=context.network,
            links=services.mail_links,
            passwords=services.passwords,
            command=anonymous_command(context),
        )
        return redirect(context.options, "/sign-in?after=accepted")

    facts = await facts_of(context, (await sent_values(context)).get("token", ""))
    return await submitted(context, PAGE, perform, facts=facts)
