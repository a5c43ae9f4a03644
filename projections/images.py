"""The read model of images, searched by dataset, device, name and time."""

import unicodedata
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET

from application.services import QueryDatabase
from domain.access import Actor, Scope
from domain.classification import ChunkJudged
from domain.errors import Invalid
from domain.events import Event
from domain.image import ImageAccepted, ImageDeleted, ImageDescribed, ImageReinspected, ImageRejected, ImageUploaded, Inspection
from domain.values import ImageWarning
from projections.access import ADMINISTRATORS, subject_of
from projections.engine.projection import PositionedEvent, RowLookup, Table
from projections.pagination import Page, like_pattern, only_row, page_of, page_size, parse_cursor


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image. `width` and `height` in pixels come from the file header until the image is `accepted`. `rejected` is a reason code."""

    id: UUID
    version: int
    dataset_id: UUID
    device_id: UUID | None
    filename: str
    sha256: str
    size: int
    media_type: str
    width: int
    height: int
    bands: int | None
    dtype: str | None
    pages: int | None
    axes: str | None
    pixel_size_um: float | None
    reader: int | None
    warnings: tuple[ImageWarning, ...]
    uploaded_by: UUID
    uploaded_at: datetime
    analyzed: bool
    accepted: bool
    rejected: str | None
    rejected_detail: str | None
    deleted: bool
    position: int
    path: str | None

    @property
    def pending(self) -> bool:
        """Whether the image is not inspected yet."""
        return not self.accepted and self.rejected is None


def keys(positioned: PositionedEvent) -> Iterable[UUID]:
    event = positioned.event
    return dict.fromkeys(result.image_id for result in event.results) if isinstance(event, ChunkJudged) else (event.originator_id,)


def fold(_: UUID, row: Image | None, positioned: PositionedEvent, __: RowLookup) -> Image | None:
    event = positioned.event
    if isinstance(event, ImageUploaded):
        return _uploaded(event, positioned.position)
    if row is None:
        return None
    if isinstance(event, ChunkJudged):
        return row if row.analyzed else msgspec.structs.replace(row, analyzed=True)
    return msgspec.structs.replace(row, version=event.originator_version, **_changes(event))


def _uploaded(event: ImageUploaded, position: int) -> Image:
    return Image(
        id=event.originator_id,
        version=event.originator_version,
        dataset_id=event.dataset_id,
        device_id=event.device_id,
        filename=_nfc(event.filename),
        sha256=event.sha256,
        size=event.size,
        media_type=event.media_type,
        width=event.width,
        height=event.height,
        bands=None,
        dtype=None,
        pages=None,
        axes=None,
        pixel_size_um=None,
        reader=None,
        warnings=(),
        uploaded_by=event.by,
        uploaded_at=event.at,
        analyzed=False,
        accepted=False,
        rejected=None,
        rejected_detail=None,
        deleted=False,
        position=position,
        path=event.path,
    )


def _changes(event: Event) -> dict[str, Any]:
    match event:
        case ImageAccepted() | ImageReinspected():
            return {name: getattr(event, name) for name in FOUND_BY_INSPECTION} | ACCEPTED
        case ImageDescribed():
            changes = {name: value for name in ("device_id", "analyzed") if (value := getattr(event, name)) is not UNSET}
            return changes if event.filename is UNSET else changes | {"filename": _nfc(event.filename)}
        case ImageDeleted():
            return {"deleted": True}
        case ImageRejected():
            return {"rejected": event.reason, "rejected_detail": event.detail}
        case _:
            return {}


def _nfc(text: str) -> str:
    """The Unicode form in which names are searched; stored events may have others."""
    return unicodedata.normalize("NFC", text)


FOUND_BY_INSPECTION = Inspection.__struct_fields__
ACCEPTED = {"accepted": True, "rejected": None, "rejected_detail": None}
KINDS = (ImageUploaded, ImageAccepted, ImageRejected, ImageReinspected, ImageDescribed, ImageDeleted, ChunkJudged)
TABLE = Table("images", Image, KINDS, keys, fold)


# ---- queries -----------------------------------------------------------------------------------------------------------------------
class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Search conditions. `q` is searched in file names and paths, ignoring case and Unicode form. Both time limits are inclusive."""

    dataset_id: UUID | None = None
    device_id: UUID | None = None
    uploaded_by: UUID | None = None
    analyzed: bool | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    q: str | None = None


NO_FILTER = Filter()

GET = """select i.* from images i join visible v on v.dataset = i.dataset_id and v.subject = %(subject)s
  where i.id = %(id)s and not i.deleted"""
FILTERS = """not i.deleted
    and (%(device_id)s::uuid is null or i.device_id = %(device_id)s::uuid)
    and (%(uploaded_by)s::uuid is null or i.uploaded_by = %(uploaded_by)s::uuid)
    and (%(analyzed)s::boolean is null or i.analyzed = %(analyzed)s::boolean)
    and (%(created_from)s::timestamptz is null or i.uploaded_at >= %(created_from)s::timestamptz)
    and (%(created_to)s::timestamptz is null or i.uploaded_at <= %(created_to)s::timestamptz)
    and (%(q)s::text is null or i.filename collate "default" ilike %(q)s::text or i.path ilike %(q)s::text)"""
VISIBLE = "v.subject = %(subject)s and (%(dataset_id)s::uuid is null or v.dataset = %(dataset_id)s::uuid)"
MAX_COUNT = 10_000
COUNTED = f"""select count(*) from visible v cross join lateral (
    select from images i where i.dataset_id = v.dataset and not i.deleted order by i.uploaded_at, i.id limit {MAX_COUNT} + 1
  ) counted where {VISIBLE}"""  # noqa: S608 - constants; with this order an index-only scan suffices
BY_DATASET = """select i.* from (
    select found.id from visible v cross join lateral (
      select i.id, i.{sorted} from images i where i.dataset_id = v.dataset and {filters}
        and (%(after)s::uuid is null or (i.{sorted}, i.id) {beyond} (%(at)s::{kind}, %(after)s::uuid))
      order by i.{sorted} {way}, i.id {way} limit %(maximum)s + %(skip)s
    ) found where {visible} order by found.{sorted} {way}, found.id {way} limit %(maximum)s offset %(skip)s
  ) page join images i on i.id = page.id order by i.{sorted} {way}, i.id {way}"""
ALL_TOGETHER = """select i.* from images i join visible v on v.dataset = i.dataset_id where {visible} and {filters}
    and (%(after)s::uuid is null or (i.{sorted}, i.id) {beyond} (%(at)s::{kind}, %(after)s::uuid))
  order by i.{sorted} {way}, i.id {way} limit %(maximum)s offset %(skip)s"""


WITH_TOTAL = f"select (select coalesce(json_agg(found), '[]') from ({{}}) found) as items, ({COUNTED}) as total"  # noqa: S608 - constants


class Listing(NamedTuple):
    """Queries for one sort order: `by_dataset` merges rows of each dataset, `with_total` also counts; `all_together` is one scan.

    The scan is for readers who see all datasets.
    """

    column: str
    by_dataset: str
    with_total: str
    all_together: str


class Listed(msgspec.Struct, frozen=True):
    items: list[Image]
    total: int


def _listing(column: str, kind: str, *, downwards: bool) -> Listing:
    way, beyond = ("desc", "<") if downwards else ("asc", ">")
    parts = {"sorted": column, "kind": kind, "way": way, "beyond": beyond, "filters": FILTERS, "visible": VISIBLE}
    by_dataset = BY_DATASET.format(**parts)
    return Listing(column, by_dataset, WITH_TOTAL.format(by_dataset), ALL_TOGETHER.format(**parts))


COLUMNS = {"uploaded_at": ("uploaded_at", "timestamptz"), "created_at": ("uploaded_at", "timestamptz"), "filename": ("filename", "text")}
LISTINGS = {sign + name: _listing(column, kind, downwards=bool(sign)) for name, (column, kind) in COLUMNS.items() for sign in ("", "-")}
MAX_PAGES = 100_000


async def get(db: QueryDatabase, actor: Actor, image_id: UUID, *, scope: Scope = Scope.IMAGES_READ) -> Image:
    """A visible image. A key needs `scope`. Raises NotFound."""
    return await only_row(db, GET, {"subject": subject_of(actor, scope=scope), "id": image_id}, into=Image, what="Image")


async def listed(
    db: QueryDatabase,
    actor: Actor,
    *,
    where: Filter = NO_FILTER,
    order_by: str = "-uploaded_at",
    page: int = 1,
    size: int = 25,
    cursor: str | None = None,
) -> Page[Image]:
    """A page of the visible images that match `where`. A `cursor` takes precedence over `page`.

    `order_by` is uploaded_at, created_at (the same) or filename, with "-" for descending order. Raises Invalid for any other value. The
    total is only counted where that is cheap: one dataset, no other condition, at most MAX_COUNT images.
    """
    if order_by not in LISTINGS:
        raise Invalid("Invalid order_by field", errors=[{"loc": ["query", "order_by"], "msg": f"must be one of {', '.join(LISTINGS)}"}])
    listing = LISTINGS[order_by]
    maximum, after = page_size(size), parse_cursor(cursor, of_time=listing.column == "uploaded_at")
    subject = subject_of(actor, scope=Scope.IMAGES_READ)
    skip = (min(max(page, 1), MAX_PAGES) - 1) * maximum if cursor is None else 0
    text = None if where.q is None else like_pattern(where.q)
    of_page = {"at": after.value, "after": after.id, "maximum": maximum + 1, "skip": skip}
    parameters = msgspec.structs.asdict(where) | {"subject": subject, "q": text} | of_page
    if cursor is None and where.dataset_id is not None and where == Filter(dataset_id=where.dataset_id):
        [counted] = await db.rows(listing.with_total, parameters, into=Listed)
        found, total = counted.items, counted.total if counted.total <= MAX_COUNT else None
    else:
        together = subject == ADMINISTRATORS and where.dataset_id is None and listing.column == "uploaded_at"
        found, total = await db.rows(listing.all_together if together else listing.by_dataset, parameters, into=Image), None
    return page_of(found, maximum, lambda image: getattr(image, listing.column), total=total)
