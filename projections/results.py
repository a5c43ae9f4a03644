"""The read models of results, and of outdated results, which were computed from other pixels than the newest reader gives."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor
from domain.classification import ChunkJudged, Verdict
from domain.image import ImageReinspected
from domain.values import ImageWarning, result_id
from projections.access import subject_of
from projections.engine.projection import PositionedEvent, RowLookup, Table
from projections.pagination import MAX_PAGE, Page, only_row, page_of, page_size, parse_cursor


class Answer(msgspec.Struct, frozen=True):
    """What a model said of an image."""

    label: str
    confidence: float
    verdict: Verdict


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result for one image of a job. `confidence` and `scores` by label are from 0 to 1. `hidden`: job or image was deleted.

    `value` is the number that a regression gave; null for labels. `position` is that of the event, `sha256` and `device_id` are those of
    the image. `reused` is the earlier result that this one repeats. `original` is what the model said; null while no policy changed it.
    """

    id: UUID
    classification_id: UUID
    image_id: UUID
    dataset_id: UUID
    label: str
    confidence: float
    verdict: Verdict
    model_name: str
    model_version: int
    scores: dict[str, float]
    warnings: tuple[ImageWarning, ...]
    created_at: datetime
    hidden: bool
    position: int
    sha256: str
    value: float | None = None
    device_id: UUID | None = None
    reused: UUID | None = None
    original: Answer | None = None


def keys(positioned: PositionedEvent) -> Iterable[tuple[UUID, int]]:
    """The id of each result with its index in the event."""
    event = positioned.event
    assert isinstance(event, ChunkJudged)
    return {result_id(event.job_id, one.image_id): index for index, one in enumerate(event.results)}.items()


def fold(key: tuple[UUID, int], first: Result | None, positioned: PositionedEvent, lookup: RowLookup) -> Result | None:
    """The first result of an image in a job is never replaced. It is hidden from the start if its job or image was deleted."""
    if first is not None:
        return first
    event = positioned.event
    assert isinstance(event, ChunkJudged)
    result = event.results[key[1]]
    job, image = lookup("classifications", event.job_id), lookup("images", result.image_id)
    return Result(
        id=key[0],
        classification_id=event.job_id,
        image_id=result.image_id,
        dataset_id=event.dataset_id,
        label=result.label,
        confidence=result.confidence,
        verdict=result.verdict,
        model_name=event.model_name,
        model_version=event.model_version,
        scores=dict(zip(event.labels, result.scores, strict=False)),
        warnings=result.warnings,
        created_at=event.at,
        hidden=any(host is not None and host.deleted for host in (job, image)),
        position=positioned.position,
        sha256=result.sha256,
        value=result.value,
        device_id=None if image is None else image.device_id,
        reused=result.reused,
    )


TABLE = Table("results", Result, (ChunkJudged,), keys, fold, loads=False, first_stays=True, fold_version=2)


# ---- outdated results --------------------------------------------------------------------------------------------------------------
class OutdatedRow(msgspec.Struct, frozen=True, kw_only=True):
    """An outdated result: the reader version `reader` gives other pixels than those of the result `id`."""

    id: UUID
    image_id: UUID
    reader: int


def outdated_keys(positioned: PositionedEvent) -> Iterable[UUID]:
    event = positioned.event
    assert isinstance(event, ImageReinspected)
    return dict.fromkeys(event.outdated)


def outdated_fold(key: UUID, _: OutdatedRow | None, positioned: PositionedEvent, __: RowLookup) -> OutdatedRow:
    event = positioned.event
    assert isinstance(event, ImageReinspected)
    return OutdatedRow(id=key, image_id=event.originator_id, reader=event.reader)


OUTDATED = Table("outdated_results", OutdatedRow, (ImageReinspected,), outdated_keys, outdated_fold, loads=False)


# ---- queries -----------------------------------------------------------------------------------------------------------------------
class ReadResult(Result, frozen=True, kw_only=True):
    """A result as queried. The reader version `other_reader` gives other pixels than those of the result; None if none does."""

    other_reader: int | None


OTHER_PIXELS = "other_pixels"
NEWEST = "order by r.created_at desc, r.id desc limit %(maximum)s"
AFTER_CURSOR = "(%(at)s::timestamptz is null or (r.created_at, r.id) < (%(at)s::timestamptz, %(after)s::uuid))"
BY_FILTER = f"""select r.*, o.reader as other_reader from results r
  join visible v on v.dataset = r.dataset_id and v.subject = %(subject)s left join outdated_results o on o.id = r.id
  where not r.hidden and (%(id)s::uuid is null or r.id = %(id)s::uuid)
    and (%(classification_id)s::uuid is null or r.classification_id = %(classification_id)s::uuid)
    and (%(image_id)s::uuid is null or r.image_id = %(image_id)s::uuid) and {AFTER_CURSOR} {NEWEST}"""  # noqa: S608 - constants
NEWEST_OF_ALL = f"""select r.*, o.reader as other_reader from (
    select r.id from visible v cross join lateral (
      select r.created_at, r.id from results r where r.dataset_id = v.dataset and not r.hidden and {AFTER_CURSOR} {NEWEST}
    ) r where v.subject = %(subject)s {NEWEST}
  ) page join results r on r.id = page.id left join outdated_results o on o.id = r.id order by r.created_at desc, r.id desc"""  # noqa: S608 - constants


async def get(db: QueryDatabase, actor: Actor, result_id: UUID) -> Result:
    """A visible result. Raises NotFound."""
    parameters = {"id": result_id, "classification_id": None, "image_id": None, "at": None, "after": None, "maximum": 1}
    return with_warning(
        await only_row(db, BY_FILTER, parameters | {"subject": subject_of(actor)}, into=ReadResult, what="ClassificationResult")
    )


async def listed(
    db: QueryDatabase,
    actor: Actor,
    *,
    classification_id: UUID | None = None,
    image_id: UUID | None = None,
    cursor: str | None = None,
    size: int = MAX_PAGE,
) -> Page[Result]:
    """A page of visible results, newest first."""
    after, maximum = parse_cursor(cursor), page_size(size)
    parameters = {"id": None, "classification_id": classification_id, "image_id": image_id, "subject": subject_of(actor)}
    query = NEWEST_OF_ALL if classification_id is None and image_id is None else BY_FILTER
    found = await db.rows(query, parameters | {"at": after.value, "after": after.id, "maximum": maximum + 1}, into=ReadResult)
    return page_of([with_warning(one) for one in found], maximum, lambda result: result.created_at)


def with_warning(found: ReadResult) -> Result:
    """The result as it is shown: an outdated one has a warning."""
    if found.other_reader is None:
        return found
    detail = f"Reader {found.other_reader} gives other pixels than this result was computed from. Run the model again"
    return msgspec.structs.replace(found, warnings=(*found.warnings, ImageWarning(OTHER_PIXELS, detail)))
