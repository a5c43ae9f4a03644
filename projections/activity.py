"""The activity read model: all events with the things that they concern. It serves the live feed and the audit trail."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor, Scope
from domain.api_key import KeyIssued
from domain.classification import ChunkJudged, ClassificationRequested
from domain.dataset import DatasetShared, DatasetSharedWithTeam, DatasetShareWithdrawn, DatasetTeamShareWithdrawn, DatasetTransferred
from domain.dead_letter import DeadLetterDiscarded
from domain.errors import Unavailable
from domain.events import Event
from domain.image import ImageUploaded
from domain.invitation import InvitationAccepted
from domain.model import ModelPromoterAdded, ModelPromoterRemoved, ModelPromoterTeamAdded, ModelPromoterTeamRemoved, ModelVersionAdded
from domain.model_check import ModelCheckFailed, ModelCheckPassed, ModelPackageUploaded, ModelTestRequested
from domain.policy import PolicySet, PolicyWithdrawn
from domain.registration import RegistrationCompleted
from domain.registry import NOUN_OF
from domain.session import RefreshReuseDetected, SessionRevoked, SessionStarted
from domain.team import TeamMemberAdded, TeamMemberRemoved
from projections.access import ADMINISTRATORS, NOBODY, subject_of
from projections.engine.projection import PositionedEvent, RowLookup, Table
from projections.pagination import MAX_PAGE


class ScanLimits(NamedTuple):
    """`events_per_scan`: maximum number of events that one call of `after` reads; `min_events_per_dataset`: minimum of each dataset.

    For a reader that is at most `near_head_events` behind the head, a scan of all events is cheaper.
    """

    events_per_scan: int = 1000
    near_head_events: int = 200
    min_events_per_dataset: int = 4


DEFAULT_LIMITS: Final = ScanLimits()


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `subjects` are the ids of everything that it concerns, its own stream first."""

    position: int
    at: datetime
    type: str
    stream: UUID
    actor: UUID
    dataset: UUID | None
    subjects: tuple[UUID, ...]


OF_USER: Final = ("user_id",)
OF_TEAM: Final = ("team_id",)
CONCERNED: Final[Mapping[type[Event], tuple[str, ...]]] = {
    ClassificationRequested: ("dataset_id", "image_id", "model_id"),
    ImageUploaded: ("dataset_id", "device_id"),
    DeadLetterDiscarded: ("discarded_stream",),
    PolicySet: ("target_id",),
    ModelVersionAdded: ("check_id",),
    DatasetShared: OF_USER,
    DatasetShareWithdrawn: OF_USER,
    DatasetSharedWithTeam: OF_TEAM,
    DatasetTeamShareWithdrawn: OF_TEAM,
    DatasetTransferred: ("previous_owner_id", "owner_id"),
    ModelPromoterAdded: OF_USER,
    ModelPromoterRemoved: OF_USER,
    ModelPromoterTeamAdded: OF_TEAM,
    ModelPromoterTeamRemoved: OF_TEAM,
    SessionStarted: OF_USER,
    SessionRevoked: OF_USER,
    RefreshReuseDetected: OF_USER,
    RegistrationCompleted: OF_USER,
    InvitationAccepted: OF_USER,
    TeamMemberAdded: OF_USER,
    TeamMemberRemoved: OF_USER,
    KeyIssued: ("owner_id",),
}
"""The fields that name what an event concerns, besides its own stream. An account comes last."""


def subjects_of(event: Event, lookup: RowLookup) -> tuple[UUID, ...]:
    """An account comes last: it sees events of no dataset that concern it."""
    concerned: list[UUID | None]
    match event:
        case ChunkJudged():
            images = [*(one.image_id for one in event.results), *(one.image_id for one in event.failures)]
            concerned = [event.job_id, event.dataset_id, *images]
        case PolicyWithdrawn():
            policy = lookup("policies", event.originator_id)
            concerned = [policy.target_id] if policy else []
        case ModelPackageUploaded() | ModelTestRequested() | ModelCheckPassed() | ModelCheckFailed():
            check = lookup("model_checks", event.originator_id)
            concerned = [getattr(event, "model_id", None), *([check.requested_by] if check else [])]
        case _:
            concerned = [getattr(event, name) for name in CONCERNED.get(type(event), ())]
    return tuple(dict.fromkeys((event.originator_id, *filter(None, concerned))))


def job_of(row: Activity) -> UUID | None:
    """The job that an event concerns, or None."""
    if row.type == ChunkJudged.__name__:
        return row.subjects[1]
    return row.stream if NOUN_OF.get(row.type) == "classification" else None


def _dataset_of(event: Event, lookup: RowLookup) -> UUID | None:
    named: UUID | None = getattr(event, "dataset_id", None)
    match NOUN_OF[type(event).__name__]:
        case "dataset":
            return event.originator_id
        case "image" if named is None:
            host = lookup("images", event.originator_id)
        case "classification" if named is None:
            host = lookup("classifications", event.originator_id)
        case "policy" if named is None:
            host = lookup("policies", event.originator_id)
        case _:
            return named
    return host.dataset_id if host else None


def keys(positioned: PositionedEvent) -> Iterable[int]:
    return (positioned.position,)


def fold(position: int, _: Activity | None, positioned: PositionedEvent, lookup: RowLookup) -> Activity:
    event = positioned.event
    return Activity(
        position=position,
        at=event.at,
        type=type(event).__name__,
        stream=event.originator_id,
        actor=event.by,
        dataset=_dataset_of(event, lookup),
        subjects=subjects_of(event, lookup),
    )


TABLE = Table("activity", Activity, (Event,), keys, fold, key=("position",), loads=False)


# ---- queries -----------------------------------------------------------------------------------------------------------------------
class ActivityPage(msgspec.Struct, frozen=True, kw_only=True):
    """The visible events after a position. The search reached `position`; `more`: there are later events to search.

    `visited` is the number of rows read.
    """

    items: list[Activity]
    position: int
    more: bool
    visited: int


class ActivityScan(msgspec.Struct, frozen=True, kw_only=True):
    """The next visible events, one more than requested if there are more. `items` is complete up to the position `reached`."""

    items: list[Activity]
    reached: int
    more: bool
    visited: int


class Position(msgspec.Struct, frozen=True):
    position: int


class KeyLife(msgspec.Struct, frozen=True):
    """Whose an API key is, the position at which it was issued, and until when it could cause events."""

    owner: UUID
    first: int
    until: datetime


class FoundChanges(msgspec.Struct, frozen=True):
    """Positions of events. The search ended early, at `searched_to`, or with None where it was to end."""

    positions: Sequence[int]
    searched_to: int | None = None


VISIBLE_AFTER = """with looked as (select * from activity where position > %(position)s order by position limit %(window)s),
  page as (
    select a.* from looked a left join visible v on v.dataset = a.dataset and v.subject = %(subject)s
    where (v.dataset is not null or %(subject)s = %(administrators)s or %(reader)s = any(a.subjects))
      and (%(datasets)s::uuid[] is null or a.dataset = any(%(datasets)s::uuid[]))
    order by a.position limit %(maximum)s
  )
  select coalesce((select json_agg(page order by position) from page), '[]') as items,
    coalesce(max(position), %(position)s) as reached, count(*) >= %(window)s as more, count(*) as visited from looked"""
VISIBLE_AFTER_BY_DATASET = """with asked as (select %(datasets)s::uuid[] as datasets),
  head as (select position from checkpoint where projection = 'main'),
  source as (
    select v.dataset from visible v, asked where v.subject = %(subject)s and (datasets is null or v.dataset = any(datasets))
    union select unnest(datasets) from asked where %(subject)s = %(administrators)s
  ),
  depth as (select least(%(maximum)s, greatest(%(least)s, %(window)s / greatest(count(*), 1))) ::integer as deep from source),
  found as (
    select next.positions from source s cross join lateral (
      select array_agg(position) as positions from (
        select a.position from activity a
        where a.dataset = s.dataset and a.position > %(position)s and a.position <= (select position from head)
        order by a.position limit (select deep from depth)
      ) of_dataset
    ) next
    union all
    select array_agg(position) from (
      select a.position from activity a, asked
      where a.subjects[cardinality(a.subjects)] = %(reader)s
        and (a.dataset is null or a.type = any (array['DatasetShared', 'DatasetShareWithdrawn', 'DatasetTransferred']))
        and a.position > %(position)s and a.position <= (select position from head) and (datasets is null or a.dataset = any(datasets))
      order by a.position limit (select deep from depth)
    ) of_account
  ),
  horizon as (
    select coalesce(min(positions[(select deep from depth)]), (select position from head)) as position,
      count(*) + coalesce(sum(cardinality(positions)), 0) as visited
    from found
  ),
  page as (
    select distinct p.position from found, unnest(positions) p (position) where p.position <= (select position from horizon)
    order by p.position limit %(maximum)s
  )
  select coalesce((select json_agg(a order by a.position) from page join activity a using (position)), '[]') as items,
    horizon.position as reached, horizon.position < head.position as more, visited from horizon, head"""
# Events of datasets and of other things are found with different indexes; "materialized" makes the planner use the second one.
# A discarded event of a dataset has no dataset itself. It names its stream last, as events about accounts do.
IS_VISIBLE = "(v.dataset is not null or %(subject)s = %(administrators)s or %(reader)s = any(a.subjects))"
ABOUT = f"""with is_dataset as (select exists (select from datasets d where d.id = %(about)s::uuid) as yes),
  of_dataset as (
    select a.position from activity a left join visible v on v.dataset = a.dataset and v.subject = %(subject)s
    where (select yes from is_dataset) and a.dataset = %(about)s::uuid and a.subjects @> array[%(about)s::uuid]
      and a.position > %(position)s and {IS_VISIBLE}
    order by a.position limit %(maximum)s
  ),
  given_up as (
    select a.position from activity a left join visible v on v.dataset = a.dataset and v.subject = %(subject)s
    where (select yes from is_dataset) and a.subjects[cardinality(a.subjects)] = %(about)s::uuid and a.dataset is null
      and a.type = '{DeadLetterDiscarded.__name__}' and a.position > %(position)s and {IS_VISIBLE}
  ),
  of_another as materialized (
    select a.position from activity a left join visible v on v.dataset = a.dataset and v.subject = %(subject)s
    where not (select yes from is_dataset) and a.subjects @> array[%(about)s::uuid] and a.position > %(position)s and {IS_VISIBLE}
  )
  select position from (
    select position from of_dataset union all select position from given_up union all select position from of_another
  ) found
  order by position limit %(maximum)s"""  # noqa: S608 - constants
CHANGES: Final = f"""select a.position from activity a left join visible v on v.dataset = a.dataset and v.subject = %(subject)s
  where {IS_VISIBLE} and a.position > %(after)s and a.position <= %(until)s"""  # noqa: S608 - constants
OF_ACTOR: Final = f" and a.actor = %(actor)s::uuid and a.type <> '{ChunkJudged.__name__}'"
ABOUT_OBJECT: Final = " and a.subjects @> array[%(object)s::uuid]"
# A request may outlast its key, and clocks may differ: hence the day.
LIFE_OF_KEY: Final = """select k.owner_id as owner, s.first, least(k.expires_at, k.revoked_at) + interval '1 day' as until
  from api_keys k join es.streams s on s.stream = k.id where k.id = %(key)s::uuid"""
# The read model knows the actors of events, their keys are in the log only. The planner must know the owner, to choose the index of actors.
WITH_KEY: Final = f"""with searched as materialized (
    {CHANGES} and a.actor = %(owner)s::uuid and a.type <> '{ChunkJudged.__name__}' and a.at < %(end)s::timestamptz {{restriction}}
    order by a.position {{order}} limit %(window)s
  ),
  found as (
    select s.position from searched s
    where exists (select from es.event_at(s.position) e where position(%(named)s::bytea in e.meta) > 0)
    order by s.position {{order}} limit %(maximum)s
  )
  select coalesce((select json_agg(position order by position {{order}}) from found), '[]') as positions,
    (select case when count(*) = %(window)s then {{last}}(position) end from searched) as searched_to"""  # noqa: S608 - constants
MAX_SEARCHED: Final = 5000
UPLOADS = f"""select a.position, a.stream from activity a left join visible v on v.dataset = a.dataset and v.subject = %(subject)s
  where a.dataset = %(about)s::uuid and a.type = '{ImageUploaded.__name__}' and a.position > %(position)s and a.position <= %(until)s
    and {IS_VISIBLE}
  order by a.position limit %(maximum)s"""  # noqa: S608 - constants
JUDGEMENTS = f"""with found as materialized (
    select a.position from activity a left join visible v on v.dataset = a.dataset and v.subject = %(subject)s
    where a.subjects @> array[%(about)s::uuid] and a.type = '{ChunkJudged.__name__}'
      and a.position > %(position)s and a.position <= %(until)s and {IS_VISIBLE}
  )
  select position from found order by position limit %(maximum)s"""  # noqa: S608 - constants
INCOMPLETE = """select position, (select count(*) from dead_letters l where l.position <= %(until)s)
    + (select count(*) from parked p where p.position <= %(until)s) as waiting
  from checkpoint where projection = 'main'"""


EVERYTHING: dict[str, object] = {"subject": ADMINISTRATORS, "reader": ADMINISTRATORS, "administrators": ADMINISTRATORS}
"""Parameters of `ABOUT` for an operator, who may see all events."""


class Upload(msgspec.Struct, frozen=True):
    position: int
    stream: UUID


class Completeness(msgspec.Struct, frozen=True):
    position: int
    waiting: int


async def after(
    db: QueryDatabase,
    actor: Actor,
    *,
    position: int,
    limit: int = 100,
    datasets: AbstractSet[UUID] | None = None,
    head: int | None = None,
    limits: ScanLimits = DEFAULT_LIMITS,
) -> ActivityPage:
    """At most `limit` visible events after `position`, of `datasets` if given; continue at the result's `position`. Raises Unavailable.

    `head` is the position of the read models, if the caller knows it. It only selects the query: a scan of all new events for a reader
    near the head, otherwise a search in the visible datasets.
    """
    reader = _reader(actor)
    parameters = {"position": position, "datasets": None if datasets is None else list(datasets), "maximum": limit + 1}
    if sees_all := reader["subject"] == ADMINISTRATORS and datasets is None:
        parameters["window"] = limit + 1
    near = head is not None and head - position <= limits.near_head_events
    query = VISIBLE_AFTER if sees_all or near else VISIBLE_AFTER_BY_DATASET
    defaults = {"window": limits.events_per_scan, "least": limits.min_events_per_dataset}
    [scan] = await db.rows(query, defaults | reader | parameters, into=ActivityScan)
    items, is_cut = scan.items[:limit], len(scan.items) > limit
    reached = items[-1].position if is_cut else max(scan.reached, position)
    return ActivityPage(items=items, position=reached, more=is_cut or scan.more, visited=scan.visited)


async def about(db: QueryDatabase, actor: Actor, subject_id: UUID, *, after: int = 0, maximum: int = MAX_PAGE) -> list[int]:
    """The positions of the first `maximum` visible events after `after` that concern a thing."""
    parameters = {"about": subject_id, "position": after, "maximum": maximum}
    return [found.position for found in await db.rows(ABOUT, parameters | _reader(actor), into=Position)]


async def changes(
    db: QueryDatabase, actor: Actor, *, by: UUID | None, about: UUID | None, after: int, until: int, newest_first: bool, maximum: int
) -> list[int]:
    """The positions of the first `maximum` visible events from `after` to `until`: by an actor, about a thing, or all.

    Results are left out for an actor, since workers find them. Raises Unavailable.
    """
    restricted = f"{CHANGES}{OF_ACTOR if by else ''}{ABOUT_OBJECT if about else ''}"
    query = f"with found as materialized ({restricted}) select position from found" if about else restricted  # noqa: S608 - constants
    query += f" order by position {'desc' if newest_first else 'asc'} limit %(maximum)s"
    parameters = {"actor": by, "object": about, "after": after, "until": until, "maximum": maximum}
    return [found.position for found in await db.rows(query, parameters | _reader(actor), into=Position)]


async def changes_with_key(
    db: QueryDatabase,
    actor: Actor,
    key: UUID,
    *,
    by: UUID | None,
    about: UUID | None,
    after: int,
    until: int,
    newest_first: bool,
    maximum: int,
) -> FoundChanges:
    """As `changes`, of the events that an API key caused. Searches `MAX_SEARCHED` events of its owner at most. Raises Unavailable."""
    lives = await db.rows(LIFE_OF_KEY, {"key": key}, into=KeyLife)
    if not lives or by not in {None, lives[0].owner}:
        return FoundChanges(())
    [life] = lives
    order, last = ("desc", "min") if newest_first else ("asc", "max")
    query = WITH_KEY.format(restriction=ABOUT_OBJECT if about else "", order=order, last=last)
    named = f'"key":"{key}"'.encode()  # as in the metadata of an event
    where = {"owner": life.owner, "end": life.until, "named": named, "object": about}
    bounds = {"after": max(after, life.first), "until": until, "maximum": maximum, "window": MAX_SEARCHED}
    [found] = await db.rows(query, where | bounds | _reader(actor), into=FoundChanges)
    return found if len(found.positions) < maximum else FoundChanges(found.positions)


async def uploads(db: QueryDatabase, actor: Actor, dataset: UUID, *, after: int, until: int, maximum: int) -> list[Upload]:
    """The uploads into a dataset after position `after`, up to `until`. Raises Unavailable if the read models may lack one."""
    parameters = {"about": dataset, "position": after, "until": until, "maximum": maximum}
    await _require_complete(db, until)
    return await db.rows(UPLOADS, parameters | _reader(actor), into=Upload)


async def judgements(db: QueryDatabase, actor: Actor, subject_id: UUID, *, after: int, until: int, maximum: int) -> list[int]:
    """The positions of ChunkJudged events with results of an image or job. Raises Unavailable if the read models may lack one."""
    parameters = {"about": subject_id, "position": after, "until": until, "maximum": maximum}
    await _require_complete(db, until)
    return [found.position for found in await db.rows(JUDGEMENTS, parameters | _reader(actor), into=Position)]


async def _require_complete(db: QueryDatabase, until: int) -> None:
    """Raises Unavailable unless the read models include all events up to position `until`."""
    [found] = await db.rows(INCOMPLETE, {"until": until}, into=Completeness)
    if found.position < until:
        raise Unavailable(f"The read models have only reached position {found.position}; try again", retry_after=2)
    if found.waiting:
        raise Unavailable(
            f"{found.waiting} events up to this position could not be applied: see `bioscope dead-letters list`", retry_after=60
        )


def _reader(actor: Actor) -> dict[str, object]:
    subject = subject_of(actor, scope=Scope.EVENTS_READ)
    return {"subject": subject, "reader": actor.id if actor.datasets is None else NOBODY, "administrators": ADMINISTRATORS}
