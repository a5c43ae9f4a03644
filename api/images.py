"""Image routes: upload, list, read, change and delete images."""

from asyncio import Semaphore
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import UNSET, UnsetType

from api.middleware.authentication import for_services
from api.request import PageSize, RequestContext, from_row, payload_of, sent_fields
from api.uploads import receive_upload
from application import images
from domain.access import Role, Scope, require_role_or_scope
from domain.values import ImageWarning
from projections import images as read_model

FOR_READERS = for_services(Scope.IMAGES_READ)

PageNumber = Annotated[int, QueryParameter(ge=1)]


class Status(StrEnum):
    """The state of the inspection, the first complete decoding of the file."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded file, and what its inspection found."""

    id: UUID
    filename: str
    analyzed: bool
    dataset_id: UUID
    uploaded_by_id: UUID
    device_id: UUID | None
    filepath: str
    uploaded_at: datetime
    status: Status
    reason: str | None
    detail: str | None
    media_type: str
    size: int
    width: int
    height: int
    bands: int | None
    dtype: str | None
    pages: int | None
    axes: str | None
    pixel_size_um: float | None
    warnings: tuple[ImageWarning, ...]
    sha256: str
    thumbnail: str | None
    path: str | None


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """The new image."""

    id: UUID
    filename: str
    analyzed: bool = False


class DescribeImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change. Null removes the device."""

    filename: str | UnsetType = UNSET
    analyzed: bool | UnsetType = UNSET
    device_id: UUID | None | UnsetType = UNSET


def view(row: read_model.Image) -> Image:
    return from_row(
        row,
        Image,
        uploaded_by_id=row.uploaded_by,
        filepath=f"sha256/{row.sha256}",
        status=Status.PENDING if row.pending else Status.ACCEPTED if row.accepted else Status.REJECTED,
        reason=row.rejected,
        detail=row.rejected_detail,
        thumbnail=f"/api/images/{row.id}/thumbnail" if row.accepted else None,
    )


class Images(Controller):
    path = "/api/images"
    tags = ("images",)

    @post("/upload", opt={"body": "stream"} | for_services(Scope.IMAGES_WRITE), summary="Upload an image")
    async def upload(self, context: NamedDependency[RequestContext], store_slots: NamedDependency[Semaphore]) -> Response[Uploaded]:
        """Store a JPEG, PNG or TIFF file in a dataset. Needs the role analyst and the grant analyst.

        Send the parts of the form in the order `dataset_id`, `device_id`, `path`, `file`: then permissions are checked before the file
        is sent. The file is checked while it arrives, and nothing of a refused file is kept. Its inspection follows: read the image again
        until its status is no longer `pending`.
        """
        command = context.command()
        require_role_or_scope(command.actor, Role.ANALYST, Scope.IMAGES_WRITE)

        def check_permission(dataset: UUID, device: UUID | None) -> None:
            images.may_upload(dataset, device_id=device, command=command, log=context.services.log)

        form = await receive_upload(context, store_slots, check_permission)
        header = form.header
        fields = {name: getattr(form, name) for name in ("dataset_id", "device_id", "filename", "sha256", "size")}
        fields |= {"path": form.path} if form.path else {}
        keyed = context.command(payload=payload_of(fields)) if command.digest else command
        result = await context.execute(
            images.upload, **fields, media_type=header.media_type, width=header.width, height=header.height, command=keyed
        )
        return context.created(Uploaded(id=result.id, filename=form.filename), result)

    @get("/", opt=FOR_READERS, operation_id="imagesListed", summary="List images")
    async def list_images(
        self,
        context: NamedDependency[RequestContext],
        dataset_id: FromQuery[UUID | None] = None,
        device_id: FromQuery[UUID | None] = None,
        uploaded_by: FromQuery[UUID | None] = None,
        analyzed: FromQuery[bool | None] = None,
        created_from: FromQuery[datetime | None] = None,
        created_to: FromQuery[datetime | None] = None,
        q: FromQuery[str | None] = None,
        page: PageNumber = 1,
        page_size: PageSize = 25,
        order_by: FromQuery[str] = "-uploaded_at",
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Image]]:
        """The images of all datasets that you may see, the newest upload first. Filters can be combined."""
        filters = read_model.Filter(
            dataset_id=dataset_id,
            device_id=device_id,
            uploaded_by=uploaded_by,
            analyzed=analyzed,
            created_from=created_from,
            created_to=created_to,
            q=q,
        )
        rows = await context.read(read_model.listed, where=filters, order_by=order_by, page=page, size=page_size, cursor=cursor)
        return context.page(rows, view)

    @get("/{image_id:uuid}", opt=FOR_READERS, operation_id="imagesOne", summary="Read an image")
    async def get_image(self, context: NamedDependency[RequestContext], image_id: FromPath[UUID]) -> Response[Image]:
        """One image, without its pixels."""
        row = await context.read(read_model.get, image_id)
        return context.versioned(view(row), version=row.version)

    @patch("/{image_id:uuid}", opt=for_services(Scope.IMAGES_WRITE), summary="Update an image")
    async def describe(
        self, context: NamedDependency[RequestContext], image_id: FromPath[UUID], data: JSONBody[DescribeImage]
    ) -> Response[Image]:
        """Change the file name, the device or the mark `analyzed`. Needs the role analyst and the grant editor.

        A service may only change what it uploaded.
        """
        result = await context.execute(images.describe, image_id, **sent_fields(data), expected=context.expected_version)
        return context.changed(view(await context.read(read_model.get, image_id, scope=Scope.IMAGES_WRITE)), result)

    @delete("/{image_id:uuid}", status_code=204, summary="Delete an image")
    async def remove(self, context: NamedDependency[RequestContext], image_id: FromPath[UUID]) -> Response[None]:
        """Hide an image with its results. The log keeps them. Needs the role researcher and the grant editor."""
        return context.no_content(await context.execute(images.delete, image_id, expected=context.expected_version))
