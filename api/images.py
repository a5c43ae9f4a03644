"""Images over HTTP: uploaded in one request, found, described."""

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
from api.request import PageSize, RequestContext, parts_of, sent_fields
from api.uploads import receive_upload
from application import images
from domain.access import Role, Scope, require_role
from domain.values import ImageWarning
from projections import images as reading

FOR_READERS = for_services(Scope.IMAGES_READ)

PageNumber = Annotated[int, QueryParameter(ge=1)]


class Status(StrEnum):
    """What became of the first full decode."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """`width`, `height` in pixels: as the header claims, until the status is accepted. `pixel_size_um` is a pixel's edge in micrometres.
    `warnings` say what of the file was not used, assumed or converted. `reason` and `detail` say why an image was rejected.
    `thumbnail` is where to ask for the thumbnail's address, once there is one.
    `path` is the file's place in the folder that was uploaded, null where the upload named none."""

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
    id: UUID
    filename: str
    analyzed: bool = False


class DescribeImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    filename: str | UnsetType = UNSET
    analyzed: bool | UnsetType = UNSET
    device_id: UUID | None | UnsetType = UNSET


def view(row: reading.Image) -> Image:
    return Image(
        id=row.id,
        filename=row.filename,
        analyzed=row.analyzed,
        dataset_id=row.dataset_id,
        uploaded_by_id=row.uploaded_by,
        device_id=row.device_id,
        filepath=f"sha256/{row.sha256}",
        uploaded_at=row.uploaded_at,
        status=Status.PENDING if row.pending else Status.ACCEPTED if row.accepted else Status.REJECTED,
        reason=row.rejected,
        detail=row.rejected_detail,
        media_type=row.media_type,
        size=row.size,
        width=row.width,
        height=row.height,
        bands=row.bands,
        dtype=row.dtype,
        pages=row.pages,
        axes=row.axes,
        pixel_size_um=row.pixel_size_um,
        warnings=row.warnings,
        sha256=row.sha256,
        thumbnail=f"/api/images/{row.id}/thumbnail" if row.accepted else None,
        path=row.path,
    )


class Images(Controller):
    path = "/api/images"
    tags = ("images",)

    @post("/upload", opt={"body": "stream"})
    async def upload(self, call: NamedDependency[RequestContext]) -> Response[Uploaded]:
        """A form with the parts `dataset_id`, `device_id`, `path` (these two may be left out) and `file`, best in this order.

        `path` is the file's path below the folder that is uploaded, such as `A1/img.tif`; its last part becomes the file name.
        """
        asked = call.command()
        require_role(asked.actor, Role.ANALYST)

        def permit(dataset: UUID, device: UUID | None) -> None:
            images.may_upload(dataset, device_id=device, command=asked, log=call.services.log)

        form = await receive_upload(call.request, call.services, permit)
        found = form.sniffed
        about = {name: getattr(form, name) for name in ("dataset_id", "device_id", "filename", "sha256", "size")}
        about |= {"path": form.path} if form.path else {}
        command = call.command(payload=parts_of(about)) if asked.digest else asked
        done = await call.carry_out(command, images.upload, **about, media_type=found.media_type, width=found.width, height=found.height)
        return call.created(Uploaded(id=done.id, filename=form.filename), done)

    @get("/")
    async def listed(
        self,
        call: NamedDependency[RequestContext],
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
        """`q` is searched in file names and paths, in any case and Unicode form.

        The times bound the upload's, both inclusive. A cursor wins over `page`.
        """
        where = reading.Filter(
            dataset_id=dataset_id,
            device_id=device_id,
            uploaded_by=uploaded_by,
            analyzed=analyzed,
            created_from=created_from,
            created_to=created_to,
            q=q,
        )
        found = await call.read(reading.listed, where=where, order_by=order_by, page=page, size=page_size, cursor=cursor)
        return call.page(found, view)

    @get("/{image_id:uuid}", opt=FOR_READERS)
    async def one(self, call: NamedDependency[RequestContext], image_id: FromPath[UUID]) -> Response[Image]:
        row = await call.read(reading.get, image_id)
        return call.found(view(row), version=row.version)

    @patch("/{image_id:uuid}")
    async def describe(
        self, call: NamedDependency[RequestContext], image_id: FromPath[UUID], data: JSONBody[DescribeImage]
    ) -> Response[Image]:
        done = await call.do(images.describe, image_id, **sent_fields(data), expected=call.expected)
        return call.changed(view(await call.read(reading.get, image_id)), done)

    @delete("/{image_id:uuid}", status_code=204)
    async def remove(self, call: NamedDependency[RequestContext], image_id: FromPath[UUID]) -> Response[None]:
        """Its results are hidden with it; the record keeps them."""
        return call.gone(await call.do(images.delete, image_id, expected=call.expected))
