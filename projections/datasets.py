"""The read models of datasets and of the grants on them, which other queries join."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec
from msgspec import UNSET

from application.services import QueryDatabase
from domain.access import Actor, Grant, Scope, grant_of_scopes
from domain.dataset import (
    DatasetCreated,
    DatasetDeleted,
    DatasetDescribed,
    DatasetShared,
    DatasetSharedWithTeam,
    DatasetShareWithdrawn,
    DatasetTeamShareWithdrawn,
    DatasetTransferred,
)
from projections.access import ADMINISTRATORS, subject_of
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key
from projections.pagination import MAX_PAGE, Page, only_row, page_of, page_size, parse_cursor


class DatasetRow(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    version: int
    name: str
    description: str | None
    owner_id: UUID
    created_at: datetime
    deleted: bool


def fold(_: UUID, row: DatasetRow | None, positioned: PositionedEvent, __: RowLookup) -> DatasetRow | None:
    event = positioned.event
    if row is not None:
        row = msgspec.structs.replace(row, version=event.originator_version)
    match event, row:
        case DatasetCreated(), _:
            return DatasetRow(
                id=event.originator_id,
                version=event.originator_version,
                name=event.name,
                description=event.description,
                owner_id=event.owner_id,
                created_at=event.at,
                deleted=False,
            )
        case DatasetDescribed(), DatasetRow():
            changes = {name: value for name in ("name", "description") if (value := getattr(event, name)) is not UNSET}
            return msgspec.structs.replace(row, **changes)
        case DatasetTransferred(), DatasetRow():
            return msgspec.structs.replace(row, owner_id=event.owner_id)
        case DatasetDeleted(), DatasetRow():
            return msgspec.structs.replace(row, deleted=True)
        case _:
            return row


KINDS = (
    DatasetCreated,
    DatasetDescribed,
    DatasetShared,
    DatasetShareWithdrawn,
    DatasetSharedWithTeam,
    DatasetTeamShareWithdrawn,
    DatasetTransferred,
    DatasetDeleted,
)
TABLE = Table("datasets", DatasetRow, KINDS, stream_key, fold)


# ---- access ------------------------------------------------------------------------------------------------------------------------
class Access(msgspec.Struct, frozen=True, kw_only=True):
    subject: UUID
    dataset: UUID
    role: Grant


def access_keys(positioned: PositionedEvent) -> Iterable[tuple[UUID, UUID]]:
    match positioned.event:
        case DatasetCreated() as event:
            return {(event.owner_id, event.originator_id), (ADMINISTRATORS, event.originator_id)}
        case DatasetShared() | DatasetShareWithdrawn() as event:
            return ((event.user_id, event.originator_id),)
        case DatasetSharedWithTeam() | DatasetTeamShareWithdrawn() as event:
            return ((event.team_id, event.originator_id),)
        case DatasetTransferred() as event:
            return ((event.previous_owner_id, event.originator_id), (event.owner_id, event.originator_id))
        case _:
            return ()


def access_fold(key: tuple[UUID, UUID], _: Access | None, positioned: PositionedEvent, __: RowLookup) -> Access | None:
    subject, dataset = key
    match positioned.event:
        case DatasetCreated():
            return Access(subject=subject, dataset=dataset, role=Grant.OWNER)
        case DatasetShared() | DatasetSharedWithTeam() as event:
            return Access(subject=subject, dataset=dataset, role=event.grant)
        case DatasetTransferred() as event:
            return Access(subject=subject, dataset=dataset, role=Grant.OWNER if subject == event.owner_id else Grant.EDITOR)
        case _:
            return None


ACCESS = Table(
    "dataset_access",
    Access,
    (DatasetCreated, DatasetShared, DatasetShareWithdrawn, DatasetSharedWithTeam, DatasetTeamShareWithdrawn, DatasetTransferred),
    access_keys,
    access_fold,
    key=("subject", "dataset"),
    loads=False,
)


# ---- queries -----------------------------------------------------------------------------------------------------------------------
class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset as one user sees it; `grant` is the user's own."""

    id: UUID
    version: int
    name: str
    description: str | None
    owner_id: UUID
    owner_username: str | None
    created_at: datetime
    grant: Grant


class ShareKind(StrEnum):
    USER = "user"
    TEAM = "team"


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A grant on a dataset: of an account, or of a team. `name` is the user name or the name of the team."""

    kind: ShareKind
    user_id: UUID | None
    username: str | None
    team_id: UUID | None
    name: str | None
    grant: Grant


VISIBLE = """select d.id, d.version, d.name, d.description, d.owner_id, u.username as owner_username, d.created_at, v.role as grant
  from visible v join datasets d on d.id = v.dataset left join users u on u.id = d.owner_id where v.subject = %(subject)s"""
GET = VISIBLE + " and d.id = %(id)s"
LISTED = (
    VISIBLE
    + """ and (%(at)s::timestamptz is null or (d.created_at, d.id) < (%(at)s::timestamptz, %(after)s::uuid))
  order by d.created_at desc, d.id desc limit %(maximum)s"""
)
SHARES = """select case when t.id is null then 'user' else 'team' end as kind, case when t.id is null then a.subject end as user_id,
    u.username, t.id as team_id, coalesce(t.name, u.username) as name, a.role as grant
  from visible v join dataset_access a on a.dataset = v.dataset left join users u on u.id = a.subject left join teams t on t.id = a.subject
  where v.subject = %(subject)s and v.dataset = %(id)s and a.subject <> %(administrators)s and t.deleted is not true
  order by a.role = 'owner' desc, t.id is not null, a.subject"""


async def get(db: QueryDatabase, actor: Actor, dataset_id: UUID) -> Dataset:
    """A visible dataset. Raises NotFound."""
    parameters = {"subject": subject_of(actor, scope=Scope.DATASETS_READ), "id": dataset_id}
    return _as_shown_to(actor, await only_row(db, GET, parameters, into=Dataset, what="Dataset"))


async def listed(db: QueryDatabase, actor: Actor, *, cursor: str | None = None, size: int = MAX_PAGE) -> Page[Dataset]:
    """A page of visible datasets, newest first."""
    after, maximum = parse_cursor(cursor), page_size(size)
    subject = subject_of(actor, scope=Scope.DATASETS_READ)
    found = await db.rows(LISTED, {"subject": subject, "at": after.value, "after": after.id, "maximum": maximum + 1}, into=Dataset)
    return page_of([_as_shown_to(actor, dataset) for dataset in found], maximum, lambda dataset: dataset.created_at)


def _as_shown_to(actor: Actor, dataset: Dataset) -> Dataset:
    """A service that reaches every dataset is found as an administrator, but its grant follows from its scopes."""
    grant = grant_of_scopes(actor.scopes) if actor.is_service else None
    return dataset if grant is None else msgspec.structs.replace(dataset, grant=grant)


async def grants(db: QueryDatabase, actor: Actor, dataset_id: UUID) -> list[Share]:
    """The grants on a dataset: the owner's, those of other users, those of teams. Empty for a dataset that the actor may not see."""
    return await db.rows(SHARES, {"subject": subject_of(actor), "id": dataset_id, "administrators": ADMINISTRATORS}, into=Share)
