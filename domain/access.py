"""Authorization: roles of users, grants on datasets, scopes of services, and the checks of minimum rights."""

from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from domain.errors import Forbidden, NotFound
from domain.values import system_actor

ADMINISTRATORS: Final = system_actor("administrators")
"""The subject that has access to every dataset, for administrators."""


class Role(StrEnum):
    VIEWER = "viewer"
    ANALYST = "analyst"
    RESEARCHER = "researcher"
    ADMIN = "admin"

    @property
    def level(self) -> int:
        return list(Role).index(self)


class Grant(StrEnum):
    """A user's right on one dataset. Each grant includes those before it."""

    VIEWER = "viewer"
    ANALYST = "analyst"
    EDITOR = "editor"
    OWNER = "owner"

    @property
    def level(self) -> int:
        return list(Grant).index(self)


class Scope(StrEnum):
    """A right of a service. A service has no right beyond its scopes."""

    IMAGES_READ = "images:read"
    EVENTS_READ = "events:read"


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """The author of a command: a user with a role, a service with scopes, or a component of the system.

    `name` is stored in clear with every event. It names a component or a service, never a person.
    """

    id: UUID
    kind: str = "user"
    role: Role | None = None
    scopes: frozenset[str] = frozenset()
    name: str = ""

    @property
    def is_admin(self) -> bool:
        return self.kind == "user" and self.role is Role.ADMIN

    @property
    def is_system(self) -> bool:
        return self.kind == "system"


def require_role(actor: Actor, minimum: Role) -> None:
    """Raises Forbidden unless `actor` is the system, or a user with at least the role `minimum`."""
    if actor.is_system:
        return
    if actor.role is None or actor.role.level < minimum.level:
        raise Forbidden(f"Insufficient permissions: this needs the role {minimum.value} or higher")


def require_grant(actor: Actor, grants: dict[UUID, Grant], minimum: Grant, *, what: str) -> None:
    """Raises NotFound where `actor` has no grant on the dataset, Forbidden where the grant is lower than `minimum`.

    `what` names the thing in the message. Administrators and the system pass.
    """
    if actor.is_admin or actor.is_system:
        return
    grant = grants.get(actor.id)
    if grant is None:
        raise NotFound(f"{what} not found")
    if grant.level < minimum.level:
        raise Forbidden(f"This needs the {minimum.value} grant on the dataset; you have {grant.value}")
