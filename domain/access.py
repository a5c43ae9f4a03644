"""Authorization: roles of users, grants on datasets, scopes of services, and the checks of minimum rights."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType
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
    """A right of a key. A service has no right beyond the scopes of its key, and a key of a user narrows the rights of that user."""

    IMAGES_READ = "images:read"
    IMAGES_WRITE = "images:write"
    DATASETS_READ = "datasets:read"
    JOBS_RUN = "jobs:run"
    RESULTS_READ = "results:read"
    EVENTS_READ = "events:read"
    METRICS_READ = "metrics:read"
    MODELS_RUN = "models:run"


NEEDED_ROLES: Final[Mapping[Scope, Role]] = MappingProxyType(
    {
        Scope.IMAGES_READ: Role.VIEWER,
        Scope.IMAGES_WRITE: Role.ANALYST,
        Scope.DATASETS_READ: Role.VIEWER,
        Scope.JOBS_RUN: Role.ANALYST,
        Scope.RESULTS_READ: Role.VIEWER,
        Scope.EVENTS_READ: Role.VIEWER,
        Scope.METRICS_READ: Role.ADMIN,
        Scope.MODELS_RUN: Role.ANALYST,
    }
)
"""The lowest role that may use each scope."""

READING: Final = frozenset({Scope.IMAGES_READ, Scope.DATASETS_READ, Scope.RESULTS_READ, Scope.EVENTS_READ})
"""The scopes that read what belongs to datasets."""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """The author of a command: a user with a role, a service with scopes, a pending registration, or a component of the system.

    `name` is stored in clear with every event. It names a component or a service, never a person. `key` is the API key with which a
    service or user acts; it narrows a user's rights to `scopes`. `datasets` are those that the key reaches; None for all of its owner's.
    """

    id: UUID
    kind: str = "user"
    role: Role | None = None
    scopes: frozenset[str] = frozenset()
    name: str = ""
    key: UUID | None = None
    datasets: frozenset[UUID] | None = None

    @property
    def is_admin(self) -> bool:
        """Whether the actor may do everything. A key that is limited to datasets makes nobody an administrator."""
        return self.kind == "user" and self.role is Role.ADMIN and self.datasets is None

    @property
    def is_system(self) -> bool:
        return self.kind == "system"

    @property
    def is_service(self) -> bool:
        return self.kind == "service"

    @property
    def uses_key(self) -> bool:
        """Whether scopes limit what the actor may do: that of a service, and of a user who acts with an API key."""
        return self.is_service or self.key is not None


def has_role(actor: Actor, minimum: Role) -> bool:
    """Whether `actor` is the system, or a user with at least the role `minimum`."""
    return actor.is_system or (actor.role is not None and actor.role.level >= minimum.level)


def require_role(actor: Actor, minimum: Role) -> None:
    """Raises Forbidden unless `actor` is the system, or a user with at least the role `minimum`."""
    if not has_role(actor, minimum):
        raise Forbidden(f"Insufficient permissions: this needs the role {minimum.value} or higher")


def require_scope(actor: Actor, scope: Scope | None) -> None:
    """Raises Forbidden unless the key of `actor` has `scope`. None: no key has the right."""
    if scope is None:
        raise Forbidden("Insufficient permissions: no key may do this; sign in as a user")
    if scope not in actor.scopes:
        raise Forbidden(f"Insufficient permissions: the key lacks the scope {scope.value}; use a key that has it")


def require_role_or_scope(actor: Actor, minimum: Role, scope: Scope) -> None:
    """Raises Forbidden unless `actor` is a service with `scope`, or passes `require_role`; with a key, a user needs both."""
    if actor.uses_key:
        require_scope(actor, scope)
    if not actor.is_service:
        require_role(actor, minimum)


def require_person(actor: Actor) -> None:
    """Raises Forbidden for a service, and for a user who acts with a key: keys give no right over accounts and keys."""
    if actor.uses_key:
        require_scope(actor, None)


def grant_of_scopes(scopes: Collection[str]) -> Grant | None:
    """What a service with these scopes may do with each dataset that its key reaches; None for scopes that concern no dataset."""
    if Scope.IMAGES_WRITE in scopes:
        return Grant.EDITOR
    if Scope.JOBS_RUN in scopes:
        return Grant.ANALYST
    return Grant.VIEWER if READING & set(scopes) else None


def require_grant(grant: Grant | None, minimum: Grant, *, dataset_id: UUID) -> None:
    """Raises NotFound without a grant on the dataset, Forbidden where the grant is lower than `minimum`."""
    if grant is None:
        raise NotFound("Dataset not found", noun="dataset", object_id=dataset_id)
    if grant.level < minimum.level:
        raise Forbidden(f"This needs the {minimum.value} grant on the dataset; you have {grant.value}")
