"""The read model of model checks: uploaded packages and tests of versions, with their answers."""

from datetime import datetime
from uuid import UUID

import msgspec

from application.services import QueryDatabase
from domain.access import Actor
from domain.errors import NotFound
from domain.events import Event
from domain.model_check import CheckReport, ModelCheckFailed, ModelCheckPassed, ModelPackageUploaded, ModelTestRequested
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key

MAX_LISTED = 100


class ModelCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A check: `status` is pending, passed or failed. `sha256` names the package, `size` is in bytes.

    `filename` and `size` are None for a test of a known version. `model_id`, `model_name` and `number` are those of the version: from the
    start for a test, and once it passed for an upload. A failure has a `code` and a `detail`; `file` and `field` say where.
    """

    id: UUID
    version: int
    status: str
    requested_by: UUID
    requested_at: datetime
    filename: str | None
    sha256: str
    size: int | None
    model_id: UUID | None
    model_name: str | None
    number: int | None
    answered_at: datetime | None
    report: CheckReport | None
    code: str | None
    detail: str | None
    file: str | None
    field: str | None


class Count(msgspec.Struct, frozen=True):
    count: int


def fold(_: UUID, row: ModelCheck | None, positioned: PositionedEvent, __: RowLookup) -> ModelCheck | None:
    match positioned.event:
        case ModelPackageUploaded() as event:
            return msgspec.structs.replace(_requested(event, event.sha256), filename=event.filename, size=event.size)
        case ModelTestRequested() as event:
            return msgspec.structs.replace(
                _requested(event, event.sha256), model_id=event.model_id, model_name=event.model_name, number=event.number
            )
        case ModelCheckPassed() as event if row is not None:
            return msgspec.structs.replace(
                row,
                version=event.originator_version,
                status="passed",
                model_id=event.model_id,
                model_name=event.model_name,
                number=event.number,
                answered_at=event.at,
                report=event.report,
            )
        case ModelCheckFailed() as event if row is not None:
            return msgspec.structs.replace(
                row,
                version=event.originator_version,
                status="failed",
                answered_at=event.at,
                code=event.code,
                detail=event.detail,
                file=event.file or None,
                field=event.field or None,
            )
        case _:
            return row


def _requested(event: Event, sha256: str) -> ModelCheck:
    return ModelCheck(
        id=event.originator_id,
        version=event.originator_version,
        status="pending",
        requested_by=event.by,
        requested_at=event.at,
        filename=None,
        sha256=sha256,
        size=None,
        model_id=None,
        model_name=None,
        number=None,
        answered_at=None,
        report=None,
        code=None,
        detail=None,
        file=None,
        field=None,
    )


TABLE = Table(
    "model_checks",
    ModelCheck,
    (ModelPackageUploaded, ModelTestRequested, ModelCheckPassed, ModelCheckFailed),
    stream_key,
    fold,
    fold_version=2,
)

LISTED = """select * from model_checks where %(all)s or requested_by = %(by)s
  order by requested_at desc, id limit %(maximum)s"""
PENDING = "select count(*) as count from model_checks where requested_by = %(by)s and status = 'pending'"
GET = "select * from model_checks where id = %(id)s and (%(all)s or requested_by = %(by)s)"


async def listed(db: QueryDatabase, actor: Actor) -> list[ModelCheck]:
    """The newest checks, at most 100. Administrators see those of everyone, others their own."""
    return await db.rows(LISTED, _visible_to(actor) | {"maximum": MAX_LISTED}, into=ModelCheck)


async def pending(db: QueryDatabase, actor: Actor) -> int:
    """How many checks of the actor have no answer yet."""
    (found,) = await db.rows(PENDING, {"by": actor.id}, into=Count)
    return found.count


async def get(db: QueryDatabase, actor: Actor, check_id: UUID) -> ModelCheck:
    """Raises NotFound."""
    found = await db.rows(GET, _visible_to(actor) | {"id": check_id}, into=ModelCheck)
    if not found:
        raise NotFound("Check not found")
    return found[0]


def _visible_to(actor: Actor) -> dict[str, object]:
    return {"by": actor.id, "all": actor.is_admin}
