"""Access to read models: every query joins the datasets that its reader may see."""

from uuid import UUID

from domain.access import ADMINISTRATORS, Actor

__all__ = ["ADMINISTRATORS", "subject_of"]


def subject_of(actor: Actor, *, scope: str = "") -> UUID:
    """The subject whose grants apply to `actor`: its key, if that is limited to datasets.

    Any other service with `scope` sees all datasets, and one without it none.
    """
    if actor.key is not None and actor.datasets is not None and (actor.kind != "service" or not scope or scope in actor.scopes):
        return actor.key
    sees_all = actor.is_admin or actor.is_system or (bool(scope) and scope in actor.scopes)
    return ADMINISTRATORS if sees_all else actor.id
