"""Access to read models: every query joins the datasets that its reader may see."""

from collections.abc import Collection
from typing import Final
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import ADMINISTRATORS, Actor, Scope
from domain.values import system_actor

__all__ = ["ADMINISTRATORS", "NOBODY", "VisibleDatasets", "subject_of", "visible"]

NOBODY: Final = system_actor("nobody")
"""A subject without grants."""
VISIBLE: Final = """select coalesce(array_agg(v.dataset), '{}') as datasets from visible v
  where v.subject = %(subject)s and v.dataset = any(%(datasets)s)"""


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


class VisibleDatasets(msgspec.Struct, frozen=True):
    datasets: frozenset[UUID]

    @property
    def visited(self) -> int:
        return len(self.datasets)


async def visible(db: QueryDatabase, actor: Actor, datasets: Collection[UUID]) -> VisibleDatasets:
    """Those of the datasets whose events the actor may see. Raises Unavailable."""
    parameters = {"subject": subject_of(actor, scope=Scope.EVENTS_READ), "datasets": list(datasets)}
    [found] = await db.rows(VISIBLE, parameters, into=VisibleDatasets)
    return found
