"""Account routes."""

from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from api.clock import utc_now
from api.mail_requests import MailRequested
from api.middleware.authentication import FOR_PENDING
from api.request import PageSize, RequestContext, from_row, sent_fields
from application import accounts, password_resets, registrations
from application.authentication import PENDING
from application.passwords import NewPassword, Proof
from domain.access import Role, require_role
from domain.errors import NotAuthenticated, NotFound
from domain.registration import Registration
from domain.user import Status
from domain.user import User as Account
from projections import users as read_model

CLEARED_BY_NULL = frozenset({"institution", "department", "phone"})
PROFILE = CLEARED_BY_NULL | {"email", "first_name", "last_name"}


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account."""

    id: UUID
    email: str
    username: str
    first_name: str
    last_name: str
    role: Role
    status: Status
    institution: str | None
    department: str | None
    phone: str | None
    pending_email: str | None


class UpdateUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change. Null clears institution, department and phone; in other fields it changes nothing."""

    email: str | None | UnsetType = UNSET
    first_name: str | None | UnsetType = UNSET
    last_name: str | None | UnsetType = UNSET
    institution: str | None | UnsetType = UNSET
    department: str | None | UnsetType = UNSET
    phone: str | None | UnsetType = UNSET
    password: str | None = None
    current_password: str | None = None
    role: Role | None = None
    status: Status | None = None

    @property
    def profile(self) -> dict[str, str | None]:
        sent = {name: value for name, value in sent_fields(self).items() if name in PROFILE}
        return {name: value for name, value in sent.items() if value is not None or name in CLEARED_BY_NULL}


def view(row: read_model.User) -> User:
    return from_row(row, User, pending_email=None)


def own_view(account: Account) -> User:
    """The view of an account that was read from the log, with the new address that is not confirmed yet."""
    return from_row(account, User, pending_email=account.pending_email(utc_now()))


def signed_in_for(context: RequestContext) -> float:
    """Seconds since the sign-in; infinite without one."""
    since = context.identity.signed_in_at
    return (utc_now() - since).total_seconds() if since else float("inf")


def view_of_registration(pending: Registration) -> User:
    """A registration as the account that it becomes once its address is verified."""
    unknown = dict.fromkeys(("institution", "department", "phone", "pending_email"))
    return from_row(pending, User, status=Status.PENDING, **unknown)


class Users(Controller):
    path = "/api/users"
    tags = ("users",)

    @get("/me", summary="Read your own account", opt=FOR_PENDING)
    async def me(self, context: NamedDependency[RequestContext]) -> Response[User]:
        """The account of the access token. It is read from the log, so that it is current even if the read models are behind.

        Before the address is verified, it is the registration, with the status `pending`. No other route may be called then.
        """
        if context.actor.kind == PENDING:
            return await self._my_registration(context)
        require_role(context.actor, Role.VIEWER)
        account = await context.read_log(accounts.load_account, user_id=context.actor.id)
        return context.versioned(own_view(account), version=account.version)

    @get("/users", operation_id="usersListed", summary="List accounts")
    async def list_users(
        self,
        context: NamedDependency[RequestContext],
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
        q: FromQuery[str | None] = None,
        role: FromQuery[Role | None] = None,
        status: FromQuery[Status | None] = None,
    ) -> Response[list[User]]:
        """All accounts, or those with this text, role and status, oldest first. For administrators."""
        where = read_model.Filter(role=role, status=status, q=q)
        return context.page(await context.read(read_model.listed, where=where, cursor=cursor, size=page_size), view)

    @get("/users/{user_id:uuid}", operation_id="usersOne", summary="Read an account")
    async def get_user(self, context: NamedDependency[RequestContext], user_id: FromPath[UUID]) -> Response[User]:
        """Your own account. Administrators may read any account."""
        row = await context.read(read_model.get, user_id)
        return context.versioned(view(row), version=row.version)

    @patch("/users/{user_id:uuid}", summary="Update an account")
    async def update(self, context: NamedDependency[RequestContext], user_id: FromPath[UUID], data: JSONBody[UpdateUser]) -> Response[User]:
        """Change a profile, password, role or status. Either all changes are made or none.

        A new password ends all other sessions of the account. Any status but `active` ends all sessions. Role and status are for
        administrators. Your own new password or e-mail address needs `current_password` if you signed in more than 15 minutes ago.
        Where addresses are verified, your own new e-mail address takes effect when you open the link that is sent to it; `pending_email`
        shows it until then.
        """
        services = context.services
        result = await context.execute(
            accounts.update,
            user_id,
            profile=data.profile,
            role=data.role,
            status=data.status,
            password=self._new_password(context, data),
            proof=Proof(current=data.current_password, signed_in_for=signed_in_for(context), network=context.network),
            expected=context.expected_version,
            passwords=services.passwords,
            tokens=services.refresh_tokens,
            sign_in_limits=services.sign_in_limits,
            verifies_email=context.options.verifies_email,
            network=context.network,
        )
        context.identities.forget(user_id)
        account = await context.read_log(accounts.load_account, user_id=user_id)
        return context.changed(own_view(account), result)

    @post("/users/{user_id:uuid}/password-reset", status_code=202, summary="Send a password reset")
    async def send_password_reset(self, context: NamedDependency[RequestContext], user_id: FromPath[UUID]) -> Response[MailRequested]:
        """Send the user a mail with a link to choose a new password. For administrators."""
        await context.execute(password_resets.request_for, user_id)
        return Response(MailRequested("A mail is on its way to the user. Its link works for 30 minutes"), status_code=202)

    @delete("/users/{user_id:uuid}", status_code=204, summary="Delete an account")
    async def remove(self, context: NamedDependency[RequestContext], user_id: FromPath[UUID]) -> Response[None]:
        """Close an account. For administrators.

        Its events stay in the log. Its e-mail address and user name can be used again. An account that does not exist is not an error.
        """
        try:
            result = await context.execute(
                accounts.delete, user_id, expected=context.expected_version, tokens=context.services.refresh_tokens
            )
        except NotFound:
            return Response(None, status_code=204)
        context.identities.forget(user_id)
        return context.no_content(result)

    @staticmethod
    async def _my_registration(context: RequestContext) -> Response[User]:
        try:
            pending = await context.read_log(registrations.load_registration, registration_id=context.actor.id)
        except NotFound:  # it was verified or discarded, which ended the session
            raise NotAuthenticated("Invalid token") from None
        return context.versioned(view_of_registration(pending), version=pending.version)

    @staticmethod
    def _new_password(context: RequestContext, data: UpdateUser) -> NewPassword | None:
        if data.password is None:
            return None
        return NewPassword(
            password=data.password,
            current=data.current_password,
            signed_in_for=signed_in_for(context),
            keep=context.identity.session_id,
            network=context.network,
        )
