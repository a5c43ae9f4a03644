"""Serves blobs by signed address, whole or in part, with headers that keep browsers from executing the content."""

import asyncio
import hashlib
import io
import os
import re
from collections.abc import AsyncIterator
from typing import BinaryIO, NamedTuple

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from api.access_notes import notes_of
from api.clock import utc_now
from api.middleware.authentication import OPEN, mark_recognised
from api.problems import MEDIA_TYPE, Problem, problem
from api.request import RequestContext
from application.history.access_records import AccessKind
from application.ports import BlobStore
from application.signed_downloads import LocalAddress, SignedBlob
from domain.access import Actor
from domain.errors import Forbidden, NotAuthenticated, NotFound
from projections import images as read_model

PIECE_BYTES = 256 * 1024  # per read
FOR_ALL_ORIGINS = {"Cross-Origin-Resource-Policy": "cross-origin"}
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Part(NamedTuple):
    """The bytes from `start` to before `end` of `size`; all of them when `is_whole`."""

    start: int
    end: int
    size: int
    is_whole: bool = True


class OpenedBlob(NamedTuple):
    """An open file, and the first piece of `part`. `part` is None if the requested range is outside the file."""

    file: BinaryIO
    tag: str
    size: int
    part: Part | None
    first: bytes


@get("/api/blobs/{token:str}", opt=OPEN, tags=["images"], summary="Read a file by its signed address")
async def blob(context: NamedDependency[RequestContext], token: FromPath[str]) -> Response[bytes] | Response[Problem] | Stream:
    """The file behind an address from `preview`, `thumbnail` or `download`. It supports `Range` (one), `If-Range` and `If-None-Match`.

    The address stops working when the image is deleted, the share withdrawn or the session ended. Browsers may keep the file in their
    caches until the address expires.
    """
    signed = await _resolve(context, token)
    mark_recognised(context.request.scope)
    headers = context.request.headers
    opened = await asyncio.to_thread(_open_part, context.services.blobs, signed.name, headers.get("range"), headers.get("if-range"))
    caching = {"ETag": opened.tag, "Cache-Control": signed.cache_control(utc_now().timestamp())} | FOR_ALL_ORIGINS
    if matches(opened.tag, ",".join(headers.getall("if-none-match", []))):
        opened.file.close()
        return Response(b"", status_code=304, headers=caching)
    if opened.part is None:
        return _unsatisfiable(context, opened.size)
    part = opened.part
    content_headers = _headers(signed, part) | caching
    status = 200 if part.is_whole else 206
    if len(opened.first) == part.end - part.start:
        opened.file.close()
        return Response(opened.first, status_code=status, headers=content_headers)
    return Stream(_pieces(opened.file, opened.first, part), status_code=status, headers=content_headers)


async def _resolve(context: RequestContext, token: str) -> SignedBlob:
    """The blob of a signed address. Raises Forbidden if the address has expired, NotFound if its holder may not see the image."""
    address = context.services.unseal_address(token)
    notes = notes_of(context.request.scope)
    notes.noun, notes.object_id = "image", address.image_id
    notes.kind = AccessKind.PREVIEW if address.inline else AccessKind.DOWNLOAD
    notes.actor = await _holder(context, address)
    image = await read_model.get(context.services.reads, notes.actor, address.image_id)
    notes.dataset_id = image.dataset_id
    return address.blob(sha256=image.sha256, filename=image.filename, media_type=image.media_type)


async def _holder(context: RequestContext, address: LocalAddress) -> Actor:
    """The actor to whom an address was issued. Raises Forbidden if the session has ended or the key no longer works, Unavailable."""
    identities = context.identities
    try:
        if address.is_service:
            return await asyncio.to_thread(identities.keys.holder, address.holder_id)
        if (identity := identities.cached_in(address.holder_id)) is None:
            identity = await asyncio.to_thread(identities.signed_in, address.holder_id)
    except NotAuthenticated:
        holder = "key" if address.is_service else "session"
        raise Forbidden(f"The {holder} that requested this address has ended; request a new address") from None
    return identity.actor


def matches(tag: str, if_none_match: str) -> bool:
    """Whether an If-None-Match header lists `tag`, by weak comparison (RFC 9110, 13.1.2)."""
    tags = {item.strip().removeprefix("W/") for item in if_none_match.split(",")}
    return tag in tags or "*" in tags


def requested_part(size: int, range_header: str | None) -> Part | None:
    """The part of a file of `size` bytes that a Range header requests (RFC 9110, 14.2).

    Without a header, or with an unsupported one, it is the whole file. None if the range is outside the file.
    """
    match = RANGE.fullmatch((range_header or "").replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return Part(0, size, size)
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            return Part(0, size, size)
    return Part(start, end, size, is_whole=False) if start < end else None


def _open_part(blobs: BlobStore, name: str, range_header: str | None, if_range: str | None) -> OpenedBlob:
    file, tag = _open(blobs, name)
    try:
        size = file.seek(0, os.SEEK_END)
        part = requested_part(size, range_header if if_range in {None, tag} else None)
        file.seek(part.start if part else 0)
        first = file.read(min(PIECE_BYTES, part.end - part.start)) if part else b""
    except BaseException:
        file.close()
        raise
    if part is None:
        file.close()
    return OpenedBlob(file, tag, size, part, first)


def _open(blobs: BlobStore, name: str) -> tuple[BinaryIO, str]:
    """An open file, and the ETag of its content. Raises NotFound."""
    if "/" not in name:
        return blobs.open(name), f'"{name}"'
    data = blobs.get_derived(name)
    if data is None:
        raise NotFound("There is no such file")
    return io.BytesIO(data), f'"{hashlib.sha256(data).hexdigest()}"'


async def _pieces(file: BinaryIO, first: bytes, part: Part) -> AsyncIterator[bytes]:
    try:
        yield first
        remaining = part.end - part.start - len(first)
        while remaining > 0:
            piece = await asyncio.to_thread(file.read, min(PIECE_BYTES, remaining))
            if not piece:
                return
            remaining -= len(piece)
            yield piece
    finally:
        file.close()


def _headers(signed: SignedBlob, part: Part) -> dict[str, str]:
    headers = {
        "Content-Type": signed.served_type,
        "Content-Disposition": signed.disposition,
        "Content-Length": str(part.end - part.start),
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    return headers if part.is_whole else headers | {"Content-Range": f"bytes {part.start}-{part.end - 1}/{part.size}"}


def _unsatisfiable(context: RequestContext, size: int) -> Response[Problem]:
    body = problem(416, f"The file has {size:,} bytes; the requested range is outside it", request_id=context.request_id)
    return Response(
        body,
        status_code=416,
        media_type=MEDIA_TYPE,
        headers={"Content-Range": f"bytes */{size}"} | FOR_ALL_ORIGINS,
    )
