"""Who may see what: every query is joined with the datasets that its reader may see."""

from typing import Final
from uuid import UUID

from domain.access import Actor
from domain.values import system_actor

ADMINISTRATORS: Final = system_actor("administrators")
"""The subject under which administrators see every dataset."""


def subject_of(actor: Actor, *, scope: str = "") -> UUID:
    """The subject whose grants apply to a reader. A service reads everything that its scope names, and nothing else."""
    sees_all = actor.is_admin or actor.is_system or (bool(scope) and scope in actor.scopes)
    return ADMINISTRATORS if sees_all else actor.id
