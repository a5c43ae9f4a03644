"""Model packages: their upload, and their checks by a worker."""

import asyncio
from asyncio import Semaphore
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec
from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from api.check_slots import CheckSlots
from api.request import RequestContext, from_row, payload_of
from api.uploads import receive_package
from application import model_checks
from application.commands import CommandResult
from application.filenames import clean_filename
from domain.errors import NotFound
from domain.model_check import CheckReport
from domain.values import invalid
from projections import model_checks as read_model

DEFAULT_FILENAME = "package.zip"


class CheckStatus(StrEnum):
    """The state of a check. It has one answer, which never changes."""

    PENDING = "pending"
    PASSED = "passed"
    FAILED = "failed"


class ModelCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A check of a model package: of one that was uploaded, or of a version again."""

    id: UUID
    status: CheckStatus
    requested_by_id: UUID
    requested_at: datetime
    sha256: str
    filename: str | None = None
    size: int | None = None
    model_id: UUID | None = None
    model_name: str | None = None
    number: int | None = None
    answered_at: datetime | None = None
    report: CheckReport | None = None
    code: str | None = None
    detail: str | None = None
    file: str | None = None
    field: str | None = None


def view(row: read_model.ModelCheck) -> ModelCheck:
    return from_row(row, ModelCheck, requested_by_id=row.requested_by)


class PackageUpload(Controller):
    """The upload of a package, which is part of the controller of models: one path belongs to one controller."""

    @post("/", status_code=202, opt={"body": "stream"}, operation_id="modelsAdd", summary="Add a model version")
    async def add(
        self,
        context: NamedDependency[RequestContext],
        store_slots: NamedDependency[Semaphore],
        check_slots: NamedDependency[CheckSlots],
        filename: FromQuery[str] = DEFAULT_FILENAME,
    ) -> Response[ModelCheck]:
        """Upload a model package, a zip archive, as the body. Needs the role researcher.

        A worker checks it in a sandbox. Read the check at `Location` until it has passed or failed: if it passed, `model_name` and `number`
        are those of the version, which is the candidate of its model from then on. docs/models/format.md describes packages.
        """
        command = context.command()
        model_checks.may_upload(command)
        name = clean_filename(filename)
        if not name:
            raise invalid("filename", "has no character that can be stored: rename the file")
        async with check_slots.taken(context, command):
            package = await receive_package(context, store_slots)
            fields = {"filename": name, "sha256": package.sha256, "size": package.size}
            keyed = context.command(payload=payload_of(fields)) if command.digest else command
            return await _accepted(context, await context.execute(model_checks.upload, **fields, command=keyed))


class ModelChecks(Controller):
    path = "/api"
    tags = ("models",)

    @post(
        "/models/{name:str}/versions/{number:int}/checks", status_code=202, operation_id="modelsTest", summary="Test a model version again"
    )
    async def test(
        self,
        context: NamedDependency[RequestContext],
        check_slots: NamedDependency[CheckSlots],
        name: FromPath[str],
        number: FromPath[int],
    ) -> Response[ModelCheck]:
        """Check the package of a version again, for instance on a new machine. Needs the role researcher.

        The version stays as it is. Its newest check in each environment is shown with it.
        """
        command = context.command(payload=await context.request.body())
        async with check_slots.taken(context, command):
            return await _accepted(context, await context.execute(model_checks.request_test, name=name, number=number, command=command))

    @get("/model-checks", operation_id="modelsChecks", summary="List checks of model packages")
    async def list_checks(self, context: NamedDependency[RequestContext]) -> list[ModelCheck]:
        """Your newest 100 checks; those of everyone for administrators."""
        return [view(row) for row in await context.read(read_model.listed)]

    @get("/model-checks/{check_id:uuid}", operation_id="modelsCheck", summary="Read a check of a model package")
    async def get_check(self, context: NamedDependency[RequestContext], check_id: FromPath[UUID]) -> Response[ModelCheck]:
        """One check, and its answer once there is one."""
        row = await context.read(read_model.get, check_id)
        return context.versioned(view(row), version=row.version)


async def _accepted(context: RequestContext, result: CommandResult) -> Response[ModelCheck]:
    """The check as queries show it; only what the log knows of it if they do not show it yet."""
    try:
        check = view(await context.read(read_model.get, result.id))
    except NotFound:
        check = await asyncio.to_thread(_pending, context, result.id)
    return context.accepted(check, result, location=f"/api/model-checks/{result.id}")


def _pending(context: RequestContext, check_id: UUID) -> ModelCheck:
    asked = model_checks.requested(check_id, log=context.services.log)
    model_id, number = asked.retested or (None, None)
    return ModelCheck(
        id=asked.id,
        status=CheckStatus.PENDING,
        requested_by_id=asked.requested_by,
        requested_at=asked.requested_at,
        sha256=asked.sha256,
        model_id=model_id,
        number=number,
    )
