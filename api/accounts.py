"""Account routes."""

from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from api.clock import utc_now
from api.request import RequestContext, from_row, sent_fields
from application import accounts
from application.passwords import NewPassword
from domain.access import Role, require_role
from domain.errors import NotFound
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


def view(row: read_model.User | Account) -> User:
    return from_row(row, User)


class Users(Controller):
    path = "/api/users"
    tags = ("users",)

    @get("/me", summary="Read your own account")
    async def me(self, context: NamedDependency[RequestContext]) -> Response[User]:
        """The account of the access token. It is read from the log, so that it is current even if the read models are behind."""
        require_role(context.actor, Role.VIEWER)
        account = await context.read_log(accounts.load_account, user_id=context.actor.id)
        return context.versioned(view(account), version=account.version)

    @get("/users", operation_id="usersListed", summary="List accounts")
    async def list_users(
        self, context: NamedDependency[RequestContext], page_size: FromQuery[int] = 200, cursor: FromQuery[str | None] = None
    ) -> Response[list[User]]:
        """All accounts, oldest first. For administrators."""
        return context.page(await context.read(read_model.listed, cursor=cursor, size=page_size), view)

    @get("/users/{user_id:uuid}", operation_id="usersOne", summary="Read an account")
    async def get_user(self, context: NamedDependency[RequestContext], user_id: FromPath[UUID]) -> Response[User]:
        """Your own account. Administrators may read any account."""
        row = await context.read(read_model.get, user_id)
        return context.versioned(view(row), version=row.version)

    @patch("/users/{user_id:uuid}", summary="Update an account")
    async def update(self, context: NamedDependency[RequestContext], user_id: FromPath[UUID], data: JSONBody[UpdateUser]) -> Response[User]:
        """Change a profile, password, role or status. Either all changes are made or none.

        A new password ends all other sessions of the account. Any status but `active` ends all sessions. Role and status are for
        administrators.
        """
        services = context.services
        result = await context.execute(
            accounts.update,
            user_id,
            profile=data.profile,
            role=data.role,
            status=data.status,
            password=self._new_password(context, data),
            expected=context.expected_version,
            passwords=services.passwords,
            tokens=services.refresh_tokens,
            sign_in_limits=services.sign_in_limits,
        )
        context.identities.forget(user_id)
        account = await context.read_log(accounts.load_account, user_id=user_id)
        return context.changed(view(account), result)

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
    def _new_password(context: RequestContext, data: UpdateUser) -> NewPassword | None:
        if not data.password:
            return None
        since = context.identity.signed_in_at
        return NewPassword(
            password=data.password,
            current=data.current_password,
            signed_in_for=(utc_now() - since).total_seconds() if since else float("inf"),
            keep=context.identity.session_id,
            network=context.network,
        )
