"""The read models of results, and of outdated results, which were computed from other pixels than the newest reader gives."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor, Scope
from domain.classification import ChunkJudged, Verdict
from domain.derivation import Answer, derive
from domain.errors import NotFound
from domain.image import ImageReinspected
from domain.model import OutputKind
from domain.policy import policies_of
from domain.values import ImageWarning, model_id, result_id
from projections.access import subject_of
from projections.engine.projection import PositionedEvent, RowLookup, Table
from projections.pagination import MAX_PAGE, Page, page_of, page_size, parse_cursor
from projections.result_labels import WITH_SEVERAL_LABELS, LabelThreshold, labels_of


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result for one image of a job. `confidence` and `scores` by label are from 0 to 1. `hidden`: job or image was deleted, or is
    not shown since a dead letter was discarded.

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

    @property
    def answer(self) -> Answer:
        """What is in force."""
        return Answer(self.label, self.confidence, self.verdict)

    @property
    def said(self) -> Answer:
        """What the model said."""
        return self.original or self.answer


def keys(positioned: PositionedEvent) -> Iterable[tuple[UUID, int]]:
    """The id of each result with its index in the event."""
    event = positioned.event
    assert isinstance(event, ChunkJudged)
    return {result_id(event.job_id, one.image_id): index for index, one in enumerate(event.results)}.items()


def fold(key: tuple[UUID, int], first: Result | None, positioned: PositionedEvent, lookup: RowLookup) -> Result | None:
    """The first result of an image in a job is never replaced. It is hidden from the start if its job or image was deleted or discarded."""
    if first is not None:
        return first
    event = positioned.event
    assert isinstance(event, ChunkJudged)
    result = event.results[key[1]]
    job, image = lookup("classifications", event.job_id), lookup("images", result.image_id)
    said = Answer(result.label, result.confidence, result.verdict)
    scores = dict(zip(event.labels, result.scores, strict=False))
    answer = _answer_in_force(said, scores, result.value, event, lookup)
    return Result(
        id=key[0],
        classification_id=event.job_id,
        image_id=result.image_id,
        dataset_id=event.dataset_id,
        label=answer.label,
        confidence=answer.confidence,
        verdict=answer.verdict,
        model_name=event.model_name,
        model_version=event.model_version,
        scores=scores,
        warnings=result.warnings,
        created_at=event.at,
        hidden=any(host is None or host.deleted for host in (job, image)),
        position=positioned.position,
        sha256=result.sha256,
        value=result.value,
        device_id=None if image is None else image.device_id,
        reused=result.reused,
        original=None if answer == said else said,
    )


def reads(positioned: PositionedEvent) -> Iterable[tuple[str, UUID]]:
    """The policies that the results can have, and their model, which names the kind of its answers."""
    event = positioned.event
    assert isinstance(event, ChunkJudged)
    model = model_id(event.model_name)
    return [*(("policies", one) for one in policies_of(event.job_id, event.dataset_id, model)), ("models", model)]


def _answer_in_force(said: Answer, scores: dict[str, float], value: float | None, event: ChunkJudged, lookup: RowLookup) -> Answer:
    model = model_id(event.model_name)
    for one in policies_of(event.job_id, event.dataset_id, model):
        policy = lookup("policies", one)
        if policy is not None and policy.rules is not None:
            kind = _kind(lookup("models", model), event.model_version)
            return derive(said, kind=kind, scores=scores, value=value, rules=policy.rules)
    return said


def _kind(model: Any, number: int) -> OutputKind:
    versions = model.versions if model is not None else ()
    return next((version.kind for version in versions if version.number == number), OutputKind.LOGITS)


TABLE = Table("results", Result, (ChunkJudged,), keys, fold, loads=False, first_stays=True, fold_version=2, reads=reads)


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
    """A result as queried. `filename` and `path` are those of the image; `top_k` is the number of scores that the job shows, None for all.

    `result_version` counts the results of the model for the image, from 1; deleting a job changes no number. `is_newest`: no later one is
    left. The reader version `other_reader` gives other pixels than those of the result; None if none does. `labels` are all that apply,
    the highest score first. `all_scores` are those of the model, of which `scores` are the ones that the job shows.
    """

    filename: str
    path: str | None
    result_version: int
    is_newest: bool
    top_k: int | None
    other_reader: int | None
    labels: tuple[str, ...] = ()
    all_scores: dict[str, float] = {}


class Read(msgspec.Struct, frozen=True):
    """Results as queried, and those versions of their models whose labels can apply together."""

    results: list[ReadResult]
    versions: list[LabelThreshold]


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Search conditions. The limits of the confidence are inclusive; `created_from` is inclusive, `created_before` exclusive."""

    dataset_id: UUID | None = None
    classification_id: UUID | None = None
    image_id: UUID | None = None
    label: str | None = None
    verdict: Verdict | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    model_name: str | None = None
    model_version: int | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None


class Versions(StrEnum):
    """Which results of an image and a model are listed."""

    NEWEST = "newest"
    ALL = "all"


NO_FILTER = Filter()
OTHER_PIXELS = "other_pixels"

NEWEST_FIRST = "order by r.created_at desc, r.id desc limit {maximum}"
NEWEST = NEWEST_FIRST.format(maximum="%(maximum)s")
AFTER_CURSOR = "(%(at)s::timestamptz is null or (r.created_at, r.id) < (%(at)s::timestamptz, %(after)s::uuid))"
IS_NEWEST = """not exists (select from results later where later.image_id = r.image_id and later.model_name = r.model_name
    and later.position > r.position and not later.hidden)"""
RESULT_VERSION = """(select count(*) from results earlier where earlier.image_id = r.image_id and earlier.model_name = r.model_name
    and earlier.position <= r.position)"""
VISIBLE = "v.subject = %(subject)s and (%(dataset_id)s::uuid is null or v.dataset = %(dataset_id)s::uuid)"
MATCHES = f"""not r.hidden and {AFTER_CURSOR}
    and (%(label)s::text is null or r.label = %(label)s::text)
    and (%(verdict)s::text is null or r.verdict = %(verdict)s::text)
    and (%(min_confidence)s::float8 is null or r.confidence >= %(min_confidence)s::float8)
    and (%(max_confidence)s::float8 is null or r.confidence <= %(max_confidence)s::float8)
    and (%(model_name)s::text is null or r.model_name = %(model_name)s::text)
    and (%(model_version)s::integer is null or r.model_version = %(model_version)s::integer)
    and (%(created_from)s::timestamptz is null or r.created_at >= %(created_from)s::timestamptz)
    and (%(created_before)s::timestamptz is null or r.created_at < %(created_before)s::timestamptz)"""


def _page(found: str) -> str:
    """The query of the whole rows whose ids `found` gives, and of their models, as a `Read`."""
    return f"""with page as (select r.*, coalesce(i.filename, '') as filename, i.path, c.top_k, o.reader as other_reader,
    {IS_NEWEST} as is_newest, {RESULT_VERSION} as result_version
  from ({found}) found join results r on r.id = found.id left join images i on i.id = r.image_id
    left join classifications c on c.id = r.classification_id left join outdated_results o on o.id = r.id
  order by r.created_at desc, r.id desc)
  select (select coalesce(json_agg(page), '[]') from page) as results,
    (select coalesce(json_agg(version), '[]') from ({WITH_SEVERAL_LABELS}) version) as versions"""  # noqa: S608 - constants


def _of_each_dataset(matches: str, *, visible: str = VISIBLE, maximum: str = "%(maximum)s") -> str:
    """The query of the newest ids in all visible datasets. Each dataset is read from its newest result, as far as needed."""
    newest = NEWEST_FIRST.format(maximum=maximum)
    return f"""select r.created_at, r.id from visible v cross join lateral (
      select r.created_at, r.id from results r where r.dataset_id = v.dataset and {matches} {newest}
    ) r where {visible} {newest}"""  # noqa: S608 - constants


NEWEST_OF_ALL = _page(_of_each_dataset(f"not r.hidden and {AFTER_CURSOR}", visible="v.subject = %(subject)s"))
ALL_VERSIONS = _page(_of_each_dataset(MATCHES))
NEWEST_VERSIONS = _page(_of_each_dataset(f"{MATCHES} and {IS_NEWEST}"))
RECENT = _of_each_dataset(MATCHES, maximum="2 * %(maximum)s")
NEWEST_VERSIONS_OF_RECENT = _page(f"select r.id from ({RECENT}) recent join results r on r.id = recent.id where {IS_NEWEST} {NEWEST}")  # noqa: S608 - constants
OF_JOB_OR_IMAGE = _page(f"""select r.id from results r join visible v on v.dataset = r.dataset_id and {VISIBLE}
  where (%(id)s::uuid is null or r.id = %(id)s::uuid)
    and (%(classification_id)s::uuid is null or r.classification_id = %(classification_id)s::uuid)
    and (%(image_id)s::uuid is null or r.image_id = %(image_id)s::uuid)
    and {MATCHES} and (%(all_versions)s or {IS_NEWEST}) {NEWEST}""")  # noqa: S608 - constants


async def get(db: QueryDatabase, actor: Actor, result_id: UUID) -> ReadResult:
    """A visible result. Raises NotFound."""
    conditions = msgspec.structs.asdict(NO_FILTER) | {"id": result_id, "all_versions": True}
    parameters = conditions | {"subject": subject_of(actor, scope=Scope.RESULTS_READ), "at": None, "after": None, "maximum": 1}
    found = await _completed(db, await _read(db, OF_JOB_OR_IMAGE, parameters))
    if not found:
        raise NotFound("ClassificationResult not found")
    return found[0]


async def newest(db: QueryDatabase, actor: Actor, *, maximum: int) -> list[ReadResult]:
    """The newest visible results, of all versions."""
    parameters = {"subject": subject_of(actor, scope=Scope.RESULTS_READ), "at": None, "after": None, "maximum": maximum}
    return await _completed(db, await _read(db, NEWEST_OF_ALL, parameters))


async def listed(
    db: QueryDatabase,
    actor: Actor,
    *,
    where: Filter = NO_FILTER,
    versions: Versions | None = None,
    cursor: str | None = None,
    size: int = MAX_PAGE,
) -> Page[ReadResult]:
    """A page of the visible results that match `where`, newest first.

    By default the results of a job are all listed, and otherwise the newest one of each image and model.
    """
    all_versions = versions is Versions.ALL or (versions is None and where.classification_id is not None)
    after, maximum = parse_cursor(cursor), page_size(size)
    conditions = msgspec.structs.asdict(where) | {"id": None, "all_versions": all_versions}
    parameters = conditions | {
        "subject": subject_of(actor, scope=Scope.RESULTS_READ),
        "at": after.value,
        "after": after.id,
        "maximum": maximum + 1,
    }
    for query in _queries(where, all_versions=all_versions):
        found = await _read(db, query, parameters)
        if len(found.results) > maximum:
            break
    return page_of(await _completed(db, found), maximum, lambda result: result.created_at)


def _queries(where: Filter, *, all_versions: bool) -> tuple[str, ...]:
    """Queries of the same page: one that does not fill it leaves it to the next.

    Most recent results are the newest versions. So twice a page of them is enough, and is compared in place of a page of each dataset.
    """
    if where.classification_id is not None or where.image_id is not None:
        return (OF_JOB_OR_IMAGE,)
    return (ALL_VERSIONS,) if all_versions else (NEWEST_VERSIONS_OF_RECENT, NEWEST_VERSIONS)


async def _read(db: QueryDatabase, query: str, parameters: Mapping[str, object]) -> Read:
    [found] = await db.rows(query, parameters, into=Read)
    return found


async def _completed(db: QueryDatabase, found: Read) -> list[ReadResult]:
    """Results with all labels that apply, and with the highest scores only if their job shows no more; outdated ones have a warning."""
    labels = await labels_of(db, found.results, found.versions)
    return [_shown(*one) for one in zip(found.results, labels, strict=True)]


def _shown(found: ReadResult, labels: tuple[str, ...]) -> ReadResult:
    highest = sorted(found.scores.items(), key=lambda scored: -scored[1])[: found.top_k]
    scores = found.scores if found.top_k is None else dict(highest)
    complete = msgspec.structs.replace(found, scores=scores, all_scores=found.scores, labels=labels)
    if found.other_reader is None:
        return complete
    detail = f"Reader {found.other_reader} gives other pixels than this result was computed from. Run the model again"
    return msgspec.structs.replace(complete, warnings=(*found.warnings, ImageWarning(OTHER_PIXELS, detail)))
