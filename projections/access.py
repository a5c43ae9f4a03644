"""Access to read models: every query joins the datasets that its reader may see."""

from uuid import UUID

from domain.access import ADMINISTRATORS, Actor

__all__ = ["ADMINISTRATORS", "subject_of"]


def subject_of(actor: Actor, *, scope: str = "") -> UUID:
    """The subject whose grants apply to `actor`. A service with `scope` sees all datasets, one without it none."""
    sees_all = actor.is_admin or actor.is_system or (bool(scope) and scope in actor.scopes)
    return ADMINISTRATORS if sees_all else actor.id
