"""The page on which a person changes the own profile."""

from typing import Any, Final

from litestar import Response, get, post
from litestar.di import NamedDependency

from api.accounts import signed_in_for
from api.middleware.authentication import OPEN
from api.pages.account import require_account
from api.pages.forms import EMAIL, FIRST_NAME, LAST_NAME, Field, FormPage, Link, Values, sent_values, shown, submitted
from api.pages.rendering import redirect
from api.pages.sign_in import FORM
from api.request import RequestContext
from application import accounts
from application.passwords import Proof
from domain.values import canonical

PAGE: Final = FormPage(
    path="/account/profile",
    title="Change your profile",
    button="Save",
    fields=(
        EMAIL._replace(autocomplete="email"),
        FIRST_NAME,
        LAST_NAME,
        Field("institution", "Institution", "organization", maximum=50, is_required=False),
        Field("department", "Department", "off", maximum=50, is_required=False),
        Field("phone", "Phone", "tel", "tel", maximum=20, is_required=False),
    ),
    links=(Link("Back to your account", "/account"),),
    sentences={"forbidden": "You signed in more than 15 minutes ago. To change your e-mail address, sign out and in again first"},
)


@get("/account/profile", opt=OPEN, include_in_schema=False)
async def profile_page(context: NamedDependency[RequestContext]) -> Response[Any]:
    _, account = await require_account(context)
    return shown(context, PAGE, values={field.name: getattr(account, field.name) or "" for field in PAGE.fields})


@post("/account/profile", opt=OPEN | FORM, include_in_schema=False)
async def change_profile(context: NamedDependency[RequestContext]) -> Response[Any]:
    """A field that is not sent stays as it is."""
    sent = await sent_values(context)
    (person, account), services = await require_account(context), context.services

    async def perform(values: Values) -> Response[Any]:
        await person.execute(
            accounts.update,
            account.id,
            profile={field.name: values[field.name] for field in PAGE.fields if field.name in sent},
            proof=Proof(signed_in_for=signed_in_for(person)),
            passwords=services.passwords,
            tokens=services.refresh_tokens,
            sign_in_limits=services.sign_in_limits,
            verifies_email=context.options.verifies_email,
            network=context.network,
        )
        is_confirmed = canonical(values["email"]) == canonical(account.email) or not context.options.verifies_email
        return redirect(context.options, f"/account?after={'profile' if is_confirmed else 'address'}")

    return await submitted(context, PAGE, perform)
