"""The read model of user accounts."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from application.services import QueryDatabase
from domain.access import Actor, Role, require_role
from domain.errors import NotFound
from domain.events import ERASED
from domain.user import (
    EmailChanged,
    EmailChangeRequested,
    PasswordChanged,
    PasswordRehashed,
    PasswordReset,
    PasswordResetRequested,
    Status,
    UserDeleted,
    UserErased,
    UserProfileChanged,
    UserRegistered,
    UserRoleChanged,
    UserStatusChanged,
)
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key
from projections.pagination import MAX_PAGE, Page, like_pattern, only_row, page_of, page_size, parse_cursor

PRIVATE = ("email", "username", "first_name", "last_name", "institution", "department", "phone")


class User(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    version: int
    email: str
    username: str
    first_name: str
    last_name: str
    role: Role
    status: Status
    institution: str | None
    department: str | None
    phone: str | None
    registered_at: datetime
    deleted: bool
    erased: bool


class Username(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    username: str


def fold(_: UUID, row: User | None, positioned: PositionedEvent, __: RowLookup) -> User | None:
    event = positioned.event
    if row is not None:
        row = msgspec.structs.replace(row, version=event.originator_version)
    match event, row:
        case UserRegistered(), _:
            return _registered(event)
        case UserProfileChanged(), User():
            changes = {name: value for name in PRIVATE if (value := getattr(event, name, UNSET)) is not UNSET}
            return msgspec.structs.replace(row, **changes)
        case EmailChanged(), User():
            return msgspec.structs.replace(row, email=event.email)
        case UserRoleChanged(), User():
            return msgspec.structs.replace(row, role=event.role)
        case UserStatusChanged(), User():
            return msgspec.structs.replace(row, status=event.status)
        case UserDeleted(), User():
            return msgspec.structs.replace(row, deleted=True)
        case UserErased(), User():
            return _erased(row)
        case _:
            return row


def _registered(event: UserRegistered) -> User:
    return User(
        id=event.originator_id,
        version=event.originator_version,
        email=event.email,
        username=event.username,
        first_name=event.first_name,
        last_name=event.last_name,
        role=event.role,
        status=event.status,
        institution=None,
        department=None,
        phone=None,
        registered_at=event.at,
        deleted=False,
        erased=False,
    )


def _erased(row: User) -> User:
    texts: dict[str, Any] = {name: ERASED for name in PRIVATE if getattr(row, name) is not None}
    return msgspec.structs.replace(row, deleted=True, erased=True, **texts)


KINDS = (
    UserRegistered,
    UserProfileChanged,
    UserRoleChanged,
    UserStatusChanged,
    PasswordChanged,
    PasswordRehashed,
    PasswordResetRequested,
    PasswordReset,
    EmailChangeRequested,
    EmailChanged,
    UserDeleted,
    UserErased,
)
TABLE = Table("users", User, KINDS, stream_key, fold)

GET = "select * from users where id = %(id)s and not deleted"
LISTED = """select * from users where not deleted
    and (%(role)s::text is null or role = %(role)s::text)
    and (%(status)s::text is null or status = %(status)s::text)
    and (%(q)s::text is null
      or email ilike %(q)s::text or username ilike %(q)s::text or first_name || ' ' || last_name ilike %(q)s::text)
    and (%(at)s::timestamptz is null or (registered_at, id) > (%(at)s::timestamptz, %(after)s::uuid))
  order by registered_at, id limit %(maximum)s"""
LISTED_DELETED = LISTED.replace("where not deleted", "where deleted")
USERNAMES = "select id, username from users where id = any(%(ids)s)"


async def get(db: QueryDatabase, actor: Actor, user_id: UUID) -> User:
    """The actor's own account, or any account for an administrator. Raises NotFound."""
    if actor.id != user_id and not actor.is_admin and not actor.is_system:
        raise NotFound("User not found")
    return await only_row(db, GET, {"id": user_id}, into=User, what="User")


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Search conditions. `q` is searched in e-mail addresses, user names and names, ignoring case and Unicode form.

    `deleted` accounts are listed instead of all others.
    """

    role: Role | None = None
    status: Status | None = None
    q: str | None = None
    deleted: bool = False


NO_FILTER = Filter()


async def listed(
    db: QueryDatabase, actor: Actor, *, where: Filter = NO_FILTER, cursor: str | None = None, size: int = MAX_PAGE
) -> Page[User]:
    """A page of accounts, oldest first. Raises Forbidden unless `actor` is an administrator."""
    require_role(actor, Role.ADMIN)
    after, maximum = parse_cursor(cursor), page_size(size)
    parameters = {"role": where.role, "status": where.status, "q": None if where.q is None else like_pattern(where.q)}
    query = LISTED_DELETED if where.deleted else LISTED
    found = await db.rows(query, parameters | {"at": after.value, "after": after.id, "maximum": maximum + 1}, into=User)
    return page_of(found, maximum, lambda user: user.registered_at)


async def usernames(db: QueryDatabase, actor: Actor, ids: Collection[UUID]) -> dict[UUID, str]:
    """The user names of the accounts among `ids`, deleted ones included. Shown beside what everyone may see, such as models.

    A service gets no names of people. Raises Forbidden unless `actor` is a service or a user.
    """
    if actor.is_service:
        return {}
    require_role(actor, Role.VIEWER)
    found = await db.rows(USERNAMES, {"ids": list(ids)}, into=Username) if ids else []
    return {one.id: one.username for one in found}
