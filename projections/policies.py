"""The read model of policies: the rules in force for a job, a dataset or a model."""

from datetime import datetime
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor
from domain.policy import PolicyRules, PolicyScope, PolicySet, PolicyWithdrawn, policy_id
from projections.access import subject_of
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key
from projections.pagination import MAX_PAGE, Page, only_row, page_of, page_size, parse_cursor


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`rules` is null for a policy that was withdrawn. `position` is that of the last change."""

    id: UUID
    version: int
    scope: PolicyScope
    target_id: UUID
    dataset_id: UUID | None
    rules: PolicyRules | None
    set_by: UUID
    set_at: datetime
    position: int


def fold(_: UUID, row: Policy | None, positioned: PositionedEvent, __: RowLookup) -> Policy | None:
    event = positioned.event
    if isinstance(event, PolicySet):
        return Policy(
            id=event.originator_id,
            version=event.originator_version,
            scope=event.scope,
            target_id=event.target_id,
            dataset_id=event.dataset_id,
            rules=event.rules,
            set_by=event.by,
            set_at=event.at,
            position=positioned.position,
        )
    if row is None:
        return None
    return msgspec.structs.replace(
        row,
        version=event.originator_version,
        rules=None,
        set_by=event.by,
        set_at=event.at,
        position=positioned.position,
    )


TABLE = Table("policies", Policy, (PolicySet, PolicyWithdrawn), stream_key, fold)


# ---- queries -----------------------------------------------------------------------------------------------------------------------
class ReadPolicy(Policy, frozen=True, kw_only=True):
    """A policy as queried. `applied_at` is when all results followed the last change; null while some follow the earlier rules."""

    applied_at: datetime | None


VISIBLE = """select p.*, a.applied_at from policies p
  left join policy_applications a on a.id = p.id and a.position = p.position
  left join classifications c on c.id = p.target_id
  left join visible v on v.dataset = p.dataset_id and v.subject = %(subject)s
  where (p.dataset_id is null or v.dataset is not null) and c.deleted is not true"""
GET = VISIBLE + " and p.id = %(id)s"
LISTED = (
    VISIBLE
    + """ and (%(withdrawn)s or p.rules is not null)
    and (%(scope)s::text is null or p.scope = %(scope)s::text)
    and (%(dataset_id)s::uuid is null or p.dataset_id = %(dataset_id)s::uuid)
    and (%(at)s::timestamptz is null or (p.set_at, p.id) < (%(at)s::timestamptz, %(after)s::uuid))
  order by p.set_at desc, p.id desc limit %(maximum)s"""
)


async def get(db: QueryDatabase, actor: Actor, scope: PolicyScope, target: UUID) -> ReadPolicy:
    """A visible policy, also one that was withdrawn. Raises NotFound."""
    return await only_row(db, GET, {"subject": subject_of(actor), "id": policy_id(scope, target)}, into=ReadPolicy, what="Policy")


async def listed(
    db: QueryDatabase,
    actor: Actor,
    *,
    scope: PolicyScope | None = None,
    dataset_id: UUID | None = None,
    withdrawn: bool = False,
    cursor: str | None = None,
    size: int = MAX_PAGE,
) -> Page[ReadPolicy]:
    """A page of visible policies, the newest change first. Those of models are visible to every account."""
    after, maximum = parse_cursor(cursor), page_size(size)
    where = {"scope": scope.value if scope else None, "dataset_id": dataset_id, "withdrawn": withdrawn, "subject": subject_of(actor)}
    found = await db.rows(LISTED, where | {"at": after.value, "after": after.id, "maximum": maximum + 1}, into=ReadPolicy)
    return page_of(found, maximum, lambda policy: policy.set_at)
