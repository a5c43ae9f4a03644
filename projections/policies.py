"""The read model of policies: the rules in force for a job, a dataset or a model."""

from datetime import datetime
from uuid import UUID

import msgspec

from domain.policy import PolicyRules, PolicyScope, PolicySet, PolicyWithdrawn
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`rules` is null for a policy that was withdrawn. `position` is that of the last change.

    `applied_at` is when all results followed the last change; null while they are being changed.
    """

    id: UUID
    version: int
    scope: PolicyScope
    target_id: UUID
    dataset_id: UUID | None
    rules: PolicyRules | None
    set_by: UUID
    set_at: datetime
    position: int
    applied_at: datetime | None = None


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
        applied_at=None,
    )


TABLE = Table("policies", Policy, (PolicySet, PolicyWithdrawn), stream_key, fold)
