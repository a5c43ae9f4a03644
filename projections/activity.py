"""Every event by what it touches: the live feed, and the way from an image to the chunk that judged it."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from domain.access import Actor, Scope
from domain.classification import ChunkJudged, ClassificationRequested
from domain.dataset import DatasetShared, DatasetShareWithdrawn
from domain.events import Event
from domain.image import ImageUploaded
from domain.registry import NOUN_OF
from domain.session import RefreshReuseDetected, SessionRevoked, SessionStarted
from projections.reading import ADMINISTRATORS, Reads, subject_of
from projections.tables import Happened, Look, Table

WINDOW = 1000  # events that one call looks through


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """`subjects`: the ids of everything that the event touches, its own stream first."""

    position: int
    at: datetime
    type: str
    stream: UUID
    actor: UUID
    dataset: UUID | None
    subjects: tuple[UUID, ...]


def subjects_of(event: Event) -> tuple[UUID, ...]:
    match event:
        case ChunkJudged():
            images = [*(one.image_id for one in event.results), *(one.image_id for one in event.failures)]
            touched = [event.originator_id, event.job_id, event.dataset_id, *images]
        case ClassificationRequested():
            touched = [event.originator_id, event.dataset_id, *([event.image_id] if event.image_id else []), event.model_id]
        case ImageUploaded():
            touched = [event.originator_id, event.dataset_id, *([event.device_id] if event.device_id else [])]
        case DatasetShared() | DatasetShareWithdrawn() | SessionStarted() | SessionRevoked() | RefreshReuseDetected():
            touched = [event.originator_id, event.user_id]
        case _:
            touched = [event.originator_id]
    return tuple(dict.fromkeys(touched))


def job_of(seen: Activity) -> UUID | None:
    """The job that an event is about, where it is about one."""
    if seen.type == ChunkJudged.__name__:
        return seen.subjects[1]
    return seen.stream if NOUN_OF.get(seen.type) == "classification" else None


def _dataset_of(event: Event, look: Look) -> UUID | None:
    named: UUID | None = getattr(event, "dataset_id", None)
    match NOUN_OF[type(event).__name__]:
        case "dataset":
            return event.originator_id
        case "image" if named is None:
            host = look("images", event.originator_id)
        case "classification" if named is None:
            host = look("classifications", event.originator_id)
        case _:
            return named
    return host.dataset_id if host else None


def keys(happened: Happened) -> Iterable[int]:
    return (happened.position,)


def fold(position: int, _: Activity | None, happened: Happened, look: Look) -> Activity:
    event = happened.event
    return Activity(
        position=position,
        at=event.at,
        type=type(event).__name__,
        stream=event.originator_id,
        actor=event.by,
        dataset=_dataset_of(event, look),
        subjects=subjects_of(event),
    )


TABLE = Table("activity", Activity, (Event,), keys, fold, key=("position",), loads=False)


# ---- queries -----------------------------------------------------------------------------------------------------------------------
class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """What the reader may see of the events after a position; `position` is how far was looked, `more` whether there is more to look at."""

    items: list[Activity]
    position: int
    more: bool


class Seen(Activity, frozen=True, kw_only=True):
    allowed: bool


class Position(msgspec.Struct, frozen=True):
    position: int


AFTER = """select a.*, v.dataset is not null or %(subject)s = %(administrators)s or %(reader)s = any(a.subjects) as allowed
  from (select * from activity where position > %(position)s order by position limit %(window)s) a
  left join visible v on v.dataset = a.dataset and v.subject = %(subject)s order by a.position"""
ABOUT = """select a.position from activity a left join visible v on v.dataset = a.dataset and v.subject = %(subject)s
  where a.subjects @> array[%(about)s::uuid] and (v.dataset is not null or %(subject)s = %(administrators)s or %(reader)s = any(a.subjects))
  order by a.position"""


async def after(db: Reads, actor: Actor, *, position: int, limit: int = 100) -> Feed:
    """At most `limit` events that the reader may know of, out of the next WINDOW; go on at the answer's `position`."""
    wanted = {"position": position, "window": WINDOW} | _reader(actor)
    looked_at = await db.rows(AFTER, wanted, into=Seen)
    allowed = [seen for seen in looked_at if seen.allowed]
    reached = allowed[limit - 1].position if len(allowed) > limit else looked_at[-1].position if looked_at else position
    more = len(allowed) > limit or len(looked_at) == WINDOW
    return Feed(items=[*allowed[:limit]], position=reached, more=more)


async def about(db: Reads, actor: Actor, subject_id: UUID) -> list[int]:
    """The positions of all events that touch a thing, as far as the reader may know of them."""
    return [found.position for found in await db.rows(ABOUT, {"about": subject_id} | _reader(actor), into=Position)]


def _reader(actor: Actor) -> dict[str, object]:
    return {"subject": subject_of(actor, scope=Scope.EVENTS_READ), "reader": actor.id, "administrators": ADMINISTRATORS}
