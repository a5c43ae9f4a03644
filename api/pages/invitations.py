"""The page on which an invited person creates the account."""

from typing import Any, Final

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from api.middleware.authentication import OPEN
from api.pages.forms import FIRST_NAME, LAST_NAME, NEW_PASSWORD, USERNAME, FormPage, Values, shown, submitted
from api.pages.links import sent_token
from api.pages.rendering import redirect
from api.pages.sign_in import FORM
from api.registration_modes import require_invitations
from api.request import RequestContext
from api.sessions import anonymous_command
from application import invitations
from domain.invitation import Invitation

PAGE: Final = FormPage(
    path="/account/invitation",
    title="Accept your invitation",
    text=("Choose a user name and a password for your account.",),
    button="Create the account",
    fields=(USERNAME, FIRST_NAME, LAST_NAME, NEW_PASSWORD._replace(label="Password")),
)


async def invitation_of(context: RequestContext, token: str) -> Invitation:
    """Raises InvalidLink."""
    return await context.execute(invitations.of_token, token=token, links=context.services.mail_links, command=anonymous_command(context))


@get("/account/invitation", opt=OPEN, include_in_schema=False)
async def invitation_page(context: NamedDependency[RequestContext], token: FromQuery[str] = "") -> Response[str]:
    invitation = await invitation_of(context, token)
    return shown(context, PAGE, token=token, address=invitation.email, facts={"Role": invitation.role.value})


@post("/account/invitation", opt=OPEN | FORM, include_in_schema=False)
async def accept(context: NamedDependency[RequestContext]) -> Response[Any]:
    require_invitations(context)
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
            sign_in_limits=services.sign_in_limits,
            command=anonymous_command(context),
        )
        return redirect(context.options, "/sign-in?after=accepted")

    invitation = await invitation_of(context, await sent_token(context))
    return await submitted(context, PAGE, perform, address=invitation.email, facts={"Role": invitation.role.value})
