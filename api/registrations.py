"""Routes for people without a session: verify an address, reset a password, accept an invitation, set up the installation.

No answer says whether an e-mail address has an account, unless the link of a mail to this address was sent along.
"""

import asyncio
from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta, Struct

from api.mail_requests import MailRequested, request_mail
from api.middleware.authentication import OPEN
from api.registration_modes import require_invitations, require_open_registration
from api.request import RequestContext
from api.sessions import EmailAddress, Password, anonymous_command
from application import bootstrap, email_changes, invitations, password_resets, registrations
from domain.links import LinkPurpose

Token = Annotated[str, Meta(max_length=200)]


class ForgotPassword(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for a mail to choose a new password."""

    email: EmailAddress


class RequestVerification(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request to send the mail of a registration again."""

    email: EmailAddress


class Verify(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The proof that an e-mail address is one's own."""

    token: Token
    password: Password
    username: str | None = None


class ResetPassword(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new password, with the token of a mail."""

    token: Token
    password: Password


class ConfirmEmail(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The proof that a new e-mail address is one's own."""

    token: Token


class AcceptInvitation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person who accepts an invitation."""

    token: Token
    username: str
    first_name: str
    last_name: str
    password: Password


class SetUp(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first administrator."""

    token: Token
    email: EmailAddress
    username: str
    first_name: str
    last_name: str
    password: Password


class AccountId(Struct, frozen=True):
    """The account that the request was about."""

    id: UUID


class Registrations(Controller):
    path = "/api/auth"
    tags = ("accounts",)
    opt = OPEN

    @post("/verification", status_code=202, summary="Send the verification mail again")
    async def request_verification(
        self, context: NamedDependency[RequestContext], data: JSONBody[RequestVerification]
    ) -> Response[MailRequested]:
        """Send another mail with a link for the newest registration of an address. Earlier links stop working.

        The answer is the same whether or not there is a registration. Nothing is sent where nobody can register.
        """
        await request_mail(
            context,
            LinkPurpose.VERIFY_EMAIL,
            registrations.request_verification,
            data.email,
            anonymous_command(context),
            sends=context.options.registration == "open",
        )
        return Response(MailRequested(), status_code=202)

    @post("/verify", status_code=201, summary="Verify a registration")
    async def verify(self, context: NamedDependency[RequestContext], data: JSONBody[Verify]) -> Response[AccountId]:
        """Create the account of a registration, with the token of the mail and the password that was chosen at registration.

        409 with the code `taken`: if the user name is in use, send another `username`; if the address has an account, sign in. 429 after
        ten such names in an hour.
        """
        require_open_registration(context)
        services = context.services
        result = await context.execute(
            registrations.verify,
            token=data.token,
            password=data.password,
            username=data.username,
            network=context.network,
            links=services.mail_links,
            passwords=services.passwords,
            tokens=services.refresh_tokens,
            sign_in_limits=services.sign_in_limits,
            command=anonymous_command(context),
        )
        return context.created(AccountId(result.id), result)

    @post("/forgot-password", status_code=202, summary="Request a password reset")
    async def forgot_password(self, context: NamedDependency[RequestContext], data: JSONBody[ForgotPassword]) -> Response[MailRequested]:
        """Send a mail with a link to choose a new password. The answer is the same whether or not the address has an account."""
        await request_mail(context, LinkPurpose.RESET_PASSWORD, password_resets.request, data.email, anonymous_command(context))
        return Response(MailRequested(), status_code=202)

    @post("/reset-password", status_code=200, summary="Reset a password")
    async def reset_password(self, context: NamedDependency[RequestContext], data: JSONBody[ResetPassword]) -> Response[AccountId]:
        """Set a new password with the token of a mail, which works once, for 30 minutes. All sessions of the account end."""
        services = context.services
        result = await context.execute(
            password_resets.reset,
            token=data.token,
            password=data.password,
            network=context.network,
            links=services.mail_links,
            passwords=services.passwords,
            tokens=services.refresh_tokens,
            command=anonymous_command(context),
        )
        context.identities.forget(result.id)
        return context.changed(AccountId(result.id), result)

    @post("/confirm-email", status_code=200, summary="Confirm a new e-mail address")
    async def confirm_email(self, context: NamedDependency[RequestContext], data: JSONBody[ConfirmEmail]) -> Response[AccountId]:
        """Use a new address from now on, with the token of the mail that was sent to it."""
        links, command = context.services.mail_links, anonymous_command(context)
        result = await context.execute(email_changes.confirm, token=data.token, links=links, command=command)
        return context.changed(AccountId(result.id), result)

    @post("/accept-invitation", status_code=201, summary="Accept an invitation")
    async def accept_invitation(self, context: NamedDependency[RequestContext], data: JSONBody[AcceptInvitation]) -> Response[AccountId]:
        """Create the account that an invitation offers, with the token of the mail. The account has the address and role of the invitation.

        409 with the code `taken`: if the user name is in use, send another one. 429 after ten such names in an hour.
        """
        require_invitations(context)
        services = context.services
        result = await context.execute(
            invitations.accept,
            token=data.token,
            username=data.username,
            first_name=data.first_name,
            last_name=data.last_name,
            password=data.password,
            network=context.network,
            links=services.mail_links,
            passwords=services.passwords,
            sign_in_limits=services.sign_in_limits,
            command=anonymous_command(context),
        )
        return context.created(AccountId(result.id), result)

    @post("/bootstrap", status_code=201, summary="Create the first administrator")
    async def set_up(self, context: NamedDependency[RequestContext], data: JSONBody[SetUp]) -> Response[AccountId]:
        """Create the account of the first administrator, with the token that the server printed at its start.

        The token works until there is an administrator.
        """
        services = context.services
        await asyncio.to_thread(services.sign_in_limits.registration, context.network)
        result = await context.execute(
            bootstrap.create_first_administrator,
            token=data.token,
            email=data.email,
            username=data.username,
            first_name=data.first_name,
            last_name=data.last_name,
            password=data.password,
            network=context.network,
            bootstrap_tokens=services.bootstrap_tokens,
            passwords=services.passwords,
            command=anonymous_command(context),
        )
        return context.created(AccountId(result.id), result)
