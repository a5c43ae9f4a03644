"""Access to read models: every query joins the datasets that its reader may see."""

from uuid import UUID

from domain.access import ADMINISTRATORS, Actor, Scope

__all__ = ["ADMINISTRATORS", "subject_of"]


def subject_of(actor: Actor, *, scope: Scope | None = None) -> UUID:
    """The subject whose grants apply to `actor`.

    A key that is limited to datasets is a subject of its own. Another service with `scope` sees all datasets, one without it none.
    """
    if actor.datasets is not None:
        assert actor.key is not None
        return actor.key
    sees_all = actor.is_admin or actor.is_system or (actor.is_service and scope is not None and scope in actor.scopes)
    return ADMINISTRATORS if sees_all else actor.id
