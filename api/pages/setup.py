"""The page on which the first administrator of a new installation creates an account."""

import asyncio
from typing import Any, Final

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from api.middleware.authentication import OPEN
from api.pages.forms import EMAIL, FIRST_NAME, LAST_NAME, NEW_PASSWORD, USERNAME, FormPage, Values, shown, submitted
from api.pages.rendering import redirect
from api.pages.sign_in import FORM
from api.request import RequestContext
from api.sessions import anonymous_command
from application import bootstrap
from domain.errors import InvalidLink

PAGE: Final = FormPage(
    path="/setup",
    title="Set up this installation",
    text=("Create the account of the first administrator. It can do everything, and invites other people.",),
    button="Create the account",
    fields=(EMAIL, USERNAME, FIRST_NAME, LAST_NAME, NEW_PASSWORD._replace(label="Password")),
)


async def require_needed(context: RequestContext, token: str) -> None:
    """Raises InvalidLink for another token than that of this installation, and once there is or was an administrator."""
    if not context.services.bootstrap_tokens.is_genuine(token) or not await context.read_log(bootstrap.is_needed):
        raise InvalidLink


@get("/setup", opt=OPEN, include_in_schema=False)
async def setup_page(context: NamedDependency[RequestContext], token: FromQuery[str] = "") -> Response[str]:
    await require_needed(context, token)
    return shown(context, PAGE, token=token)


@post("/setup", opt=OPEN | FORM, include_in_schema=False)
async def set_up(context: NamedDependency[RequestContext]) -> Response[Any]:
    services = context.services

    async def perform(values: Values) -> Response[Any]:
        await asyncio.to_thread(services.sign_in_limits.registration, context.network)
        await context.execute(
            bootstrap.create_first_administrator,
            token=values["token"],
            email=values["email"],
            username=values["username"],
            first_name=values["first_name"],
            last_name=values["last_name"],
            password=values["password"],
            network=context.network,
            bootstrap_tokens=services.bootstrap_tokens,
            passwords=services.passwords,
            command=anonymous_command(context),
        )
        return redirect(context.options, "/sign-in?after=setup")

    return await submitted(context, PAGE, perform)
