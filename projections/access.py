"""Access to read models: every query joins the datasets that its reader may see."""

from typing import Final
from uuid import UUID

from domain.access import ADMINISTRATORS, Actor, Scope
from domain.values import system_actor

__all__ = ["ADMINISTRATORS", "NOBODY", "subject_of"]

NOBODY: Final = system_actor("nobody")
"""A subject without grants."""


def subject_of(actor: Actor, *, scope: Scope | None = None) -> UUID:
    """The subject whose grants apply to `actor`: its key, if that is limited to datasets.

    Any other service with `scope` sees all datasets. A key without it sees none.
    """
    if actor.uses_key and scope is not None and scope not in actor.scopes:
        return NOBODY
    if actor.datasets is not None and actor.key is not None:
        return actor.key
    sees_all = actor.is_admin or actor.is_system or (actor.is_service and scope is not None)
    return ADMINISTRATORS if sees_all else actor.id
