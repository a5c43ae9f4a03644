"""Queries of the trail of access, which is written beside the log. They are for administrators and operators, who may see all of it."""

from collections.abc import Sequence
from datetime import datetime
from itertools import product
from typing import Final
from uuid import UUID

import msgspec

from application.history.access_records import LOOKING_KINDS, AccessKind, AccessOutcome, ShownAccess
from application.services import QueryDatabase
from domain.access import Actor, Role, require_role
from projections.pagination import MAX_PAGE

BRANCH: Final = "(select l.position from ops.access_log l{where} order by l.position {order} limit %(maximum)s)"
LISTED: Final = """with page as (select position from ({branches}) found order by position {order} limit %(maximum)s)
  select l.position, l.at, l.kind, l.outcome, l.actor_id, l.actor_kind, l.key_id, l.noun, l.object_id, l.dataset_id, l.route, l.request_id,
    l.count, a.address
  from page p join ops.access_log l on l.position = p.position left join ops.access_addresses a on a.position = p.position
  order by p.position {order}"""
ACTOR: Final = ("l.actor_id = %(actor)s::uuid", "l.key_id = %(actor)s::uuid")
OBJECT: Final = ("l.object_id = %(object)s::uuid", "l.dataset_id = %(object)s::uuid")
"""Each condition has an index in the order of positions, so that a branch of the query reads no more rows than it returns."""
CONDITIONS: Final = {
    "key": "l.key_id = %(key)s::uuid",
    "kind": "l.kind = %(kind)s",
    "outcome": "l.outcome = %(outcome)s",
    "since": "l.recorded_at >= %(since)s",
    "until": "l.recorded_at < %(until)s",
}
LOOKED_AT: Final = """select l.actor_id, l.actor_kind, l.key_id, l.kind, sum(l.count)::bigint as times,
  min(l.at) as first, max(l.at) as last
  from ops.access_log l
  where (l.object_id = %(object)s::uuid or l.dataset_id = %(object)s::uuid) and l.outcome = 'allowed' and l.kind = any(%(kinds)s)
  group by l.actor_id, l.actor_kind, l.key_id, l.kind order by last desc, l.actor_id limit %(maximum)s"""


class AccessFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of accesses shows: of an actor, with a key, of an object or dataset, of a kind, with an outcome, and of a time.

    `until` itself is not included.
    """

    actor: UUID | None = None
    object: UUID | None = None
    key: UUID | None = None
    kind: AccessKind | None = None
    outcome: AccessOutcome | None = None
    since: datetime | None = None
    until: datetime | None = None


class LookTotals(msgspec.Struct, frozen=True, kw_only=True):
    """How often somebody looked at a thing in one way, and when first and last."""

    actor_id: UUID | None
    actor_kind: str
    key_id: UUID | None
    kind: AccessKind
    times: int
    first: datetime
    last: datetime


async def listed(
    db: QueryDatabase, actor: Actor, where: AccessFilter, *, beyond: int | None, newest_first: bool, maximum: int
) -> list[ShownAccess]:
    """The first `maximum` records beyond the position `beyond`, in the order of positions. Raises Forbidden, Unavailable."""
    require_role(actor, Role.ADMIN)
    given = {name: value for name, value in msgspec.structs.asdict(where).items() if value is not None}
    common = [condition for name, condition in CONDITIONS.items() if name in given]
    if beyond is not None:
        common.append("l.position < %(beyond)s" if newest_first else "l.position > %(beyond)s")
    order = "desc" if newest_first else "asc"
    alternatives = product(ACTOR if where.actor else ("",), OBJECT if where.object else ("",))
    branches = [BRANCH.format(where=_restriction([*filter(None, chosen), *common]), order=order) for chosen in alternatives]
    query = LISTED.format(branches=" union ".join(branches), order=order)
    return await db.rows(query, given | {"beyond": beyond, "maximum": maximum}, into=ShownAccess)


def _restriction(conditions: Sequence[str]) -> str:
    return f" where {' and '.join(conditions)}" if conditions else ""


async def looks(db: QueryDatabase, actor: Actor, object_id: UUID, *, maximum: int = MAX_PAGE) -> list[LookTotals]:
    """Who looked at an image, a dataset or anything in it, the newest first. Raises Forbidden, Unavailable."""
    require_role(actor, Role.ADMIN)
    parameters = {"object": object_id, "kinds": [kind.value for kind in LOOKING_KINDS], "maximum": maximum}
    return await db.rows(LOOKED_AT, parameters, into=LookTotals)
