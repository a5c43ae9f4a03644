"""Routes for signed addresses of an image's renditions and file."""

import asyncio
from functools import partial
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from api.clock import utc_now
from api.middleware.authentication import for_services
from api.request import RequestContext
from api.wait_slots import WaitSlots
from application import derivatives
from application.ports import BlobStore
from application.signed_downloads import blob_of
from domain.access import Scope
from domain.errors import NotFound
from projections import images as read_model
from projections.images import Image

PNG: Final = "image/png"
JPEG: Final = "image/jpeg"
BROWSER_TYPES: Final = frozenset({JPEG, PNG})
INK_BANDS: Final = 4  # of a CMYK JPEG, which browsers show in different colours
BROWSER_DTYPES: Final = frozenset({None, "uint8"})  # None until the image has been inspected
MAX_DRAWN_BYTES: Final = 16 * 1024**2  # largest file that is its own preview when a smaller rendition exists
PNG_DEPTH_OFFSET: Final = 24  # of the byte with the number of bits per sample
RETRY_AFTER_SECONDS: Final = 2

Seconds = Annotated[int, QueryParameter(ge=60, le=604_800)]


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A signed address of a file.

    It works until it expires, or until the image is deleted, the share withdrawn or the session ended (not on S3). Repeated requests of a
    session get the same address for a while, so that browsers can cache the file.
    """

    url: str
    expires_in: int
    filename: str


class Previews(Controller):
    path = "/api/images"
    tags = ("images",)
    opt = for_services(Scope.IMAGES_READ)

    @get("/{image_id:uuid}/preview", summary="Get a preview address")
    async def preview(
        self,
        context: NamedDependency[RequestContext],
        wait_slots: NamedDependency[WaitSlots],
        image_id: FromPath[UUID],
        expires_in: Seconds = 3600,
    ) -> Address:
        """The address of a picture that browsers display: the uploaded file, or a JPEG made from it (at most 2048 pixels an edge).

        If the picture depends on the inspection, the answer waits for it up to 2 seconds. Then it is 404 with `Retry-After`.
        """
        row = await context.read(read_model.get, image_id)
        name = await asyncio.to_thread(_preview_name, context.services.blobs, row)
        if name is None and row.pending:
            row = await _inspected(context, wait_slots, image_id)
            name = await asyncio.to_thread(_preview_name, context.services.blobs, row)
        if name is None:
            raise _no_picture(row)
        return await _address(context, row, name, expires_in)

    @get("/{image_id:uuid}/thumbnail", summary="Get a thumbnail address")
    async def thumbnail(
        self,
        context: NamedDependency[RequestContext],
        wait_slots: NamedDependency[WaitSlots],
        image_id: FromPath[UUID],
        expires_in: Seconds = 3600,
    ) -> Address:
        """The address of a JPEG of at most 256 pixels an edge.

        The answer waits for the inspection up to 2 seconds. Then it is 404 with `Retry-After`.
        """
        row = await _inspected(context, wait_slots, image_id)
        if not row.accepted:
            raise _no_picture(row)
        return await _address(context, row, derivatives.thumbnail_of(row.sha256, _reader(row)), expires_in)

    @get("/{image_id:uuid}/download", summary="Get a download address")
    async def download(self, context: NamedDependency[RequestContext], image_id: FromPath[UUID], expires_in: Seconds = 300) -> Address:
        """The address of the file exactly as it was uploaded. A service gets an address inside the installation."""
        row = await context.read(read_model.get, image_id)
        return await _address(context, row, row.sha256, expires_in, inline=False, internal=context.actor.kind == "service")


async def _inspected(context: RequestContext, wait_slots: WaitSlots, image_id: UUID) -> Image:
    """The image after its inspection, or still pending if the wait ended first. Raises NotFound."""
    return await wait_slots.read_until(_is_inspected, partial(context.read, read_model.get, image_id), context.request.receive)


def _is_inspected(row: Image) -> bool:
    return not row.pending


def _preview_name(blobs: BlobStore, row: Image) -> str | None:
    """The name of a blob that a browser can draw, or None if there is none (yet). Blocks. Raises NotFound, Unavailable."""
    if row.pending:
        return row.sha256 if _is_drawn_by_browsers(blobs, row) else None
    if row.accepted and not (_is_drawn_by_browsers(blobs, row) and row.size <= MAX_DRAWN_BYTES):
        for name in (derivatives.preview_of(row.sha256, _reader(row)), derivatives.thumbnail_of(row.sha256, _reader(row))):
            if blobs.get_derived(name) is not None:
                return name
    return row.sha256 if row.media_type in BROWSER_TYPES else None


def _reader(row: Image) -> int:
    """The reader version that made the renditions of an accepted image."""
    assert row.reader is not None
    return row.reader


def _is_drawn_by_browsers(blobs: BlobStore, row: Image) -> bool:
    """Whether browsers draw the file itself, with all its values. Before the inspection, the header of a PNG decides."""
    if row.media_type == PNG and row.pending:
        return blobs.peek(row.sha256, PNG_DEPTH_OFFSET + 1)[PNG_DEPTH_OFFSET:] <= b"\x08"
    has_inks = row.media_type == JPEG and row.bands == INK_BANDS
    return row.media_type in BROWSER_TYPES and row.dtype in BROWSER_DTYPES and not has_inks


def _no_picture(row: Image) -> NotFound:
    if row.pending:
        return NotFound(
            f"The image is still being inspected; try again in {RETRY_AFTER_SECONDS} seconds",
            reason="inspection_pending",
            retry_after=RETRY_AFTER_SECONDS,
        )
    if row.rejected is not None:
        return NotFound(f"No preview is available because the image was rejected: {row.rejected_detail}", reason=row.rejected)
    return NotFound("No preview is available for this image; download the file instead")


async def _address(
    context: RequestContext, row: Image, name: str, expires_in: int, *, inline: bool = True, internal: bool = False
) -> Address:
    blobs, holder = context.services.blobs, context.identity.holder
    granted = min(expires_in, blobs.max_url_seconds)
    if holder.until is not None:
        granted = min(granted, holder.until - int(utc_now().timestamp()))
    folder = derivatives.split(name)[0]
    blob = blob_of(sha256=row.sha256, filename=row.filename, media_type=row.media_type, folder=folder, inline=inline, ends=0)
    url = await asyncio.to_thread(
        blobs.signed_url,
        blob.name,
        image_id=row.id,
        holder=holder,
        filename=blob.filename,
        media_type=blob.media_type,
        inline=inline,
        seconds=granted,
        internal=internal,
    )
    return Address(url=url, expires_in=granted, filename=row.filename)
