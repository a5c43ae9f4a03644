"""Who may do what: roles of users, grants on datasets, and the one table of minimum rights."""

from enum import StrEnum
from uuid import UUID

import msgspec

from domain.errors import Forbidden, NotFound


class Role(StrEnum):
    VIEWER = "viewer"
    ANALYST = "analyst"
    RESEARCHER = "researcher"
    ADMIN = "admin"

    @property
    def level(self) -> int:
        return list(Role).index(self)


class Grant(StrEnum):
    """What somebody may do with one dataset; each includes those before it."""

    VIEWER = "viewer"
    ANALYST = "analyst"
    EDITOR = "editor"
    OWNER = "owner"

    @property
    def level(self) -> int:
        return list(Grant).index(self)


class Scope(StrEnum):
    """What a service may do; nothing else."""

    IMAGES_READ = "images:read"
    EVENTS_READ = "events:read"


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts: a user with a role, a service with scopes, or a part of the system itself.

    `name` is recorded in clear beside every event: it names a part of the system, never a person.
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
    """Raises Forbidden unless `actor` is a user of at least that role."""
    if actor.is_system:
        return
    if actor.role is None or actor.role.level < minimum.level:
        raise Forbidden(f"Insufficient permissions: this needs the role {minimum.value} or higher")


def require_grant(actor: Actor, grants: dict[UUID, Grant], minimum: Grant, *, what: str) -> None:
    """Raises NotFound to whom the dataset is foreign, Forbidden to whom may see it but has too little a grant."""
    if actor.is_admin or actor.is_system:
        return
    grant = grants.get(actor.id)
    if grant is None:
        raise NotFound(f"{what} not found")
    if grant.level < minimum.level:
        raise Forbidden(f"You need to be {minimum.value} of this dataset; you are {grant.value}")
