"""A form with one file in it, read while it streams in: the file goes through the gate into the blob store, a piece at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from litestar import Request
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from api.filenames import filename_of
from api.middleware.body_limits import Malformed
from api.problems import BodyTooLarge, UnsupportedMediaType
from application.filenames import safe_filename
from application.ports import BlobWriter
from application.services import ImageHeader, Services
from domain.errors import ImageTooLarge, Unavailable
from domain.values import invalid, relative_path

T = TypeVar("T")
Permit = Callable[[UUID, UUID | None], None]

FIELDS = ("dataset_id", "device_id", "path")
MAX_PARTS = 64
MAX_PART_HEADERS = 8
MAX_FIELD_BYTES = 4096  # bytes
MAX_BOUNDARY_CHARACTERS = 200  # characters
MAX_BYTES_BESIDE_FILE = 64 * 1024  # bytes that a form may have beside its file
PIECE_BYTES = 512 * 1024  # bytes that are checked and written at once
STORE_TIMEOUT_SECONDS = 5.0  # seconds for a place among those that store


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """`filename` as it is kept; `path` below the uploaded folder, where the client sent one; `sha256` in hex and `size` in bytes name what
    was stored."""

    dataset_id: UUID
    device_id: UUID | None
    filename: str
    path: str | None
    sha256: str
    size: int
    sniffed: ImageHeader


async def receive_upload(request: Request[Any, Any, Any], services: Services, permit: Permit) -> Form:
    """The form that `request` brings, its file stored. Whatever goes wrong, nothing of it is left.

    `permit(dataset, device)` is asked in a thread: before the first byte of the file where the form has named the dataset by then,
    otherwise before the file is kept. Raises what it raises, what the gate and the blob store raise, Invalid, Malformed,
    BodyTooLarge, UnsupportedMediaType, and Unavailable when the store is slow.
    """
    announced = _announced(request)
    parser = _parser(request, announced)
    reading = _Reading(services, permit, request.app.state.storing)
    try:
        async for chunk in _chunks(request, announced, maximum=services.options.upload_max_bytes):
            for event in _events(parser, chunk):
                await reading.take(event)
        if not parser.closed:
            list(_events(parser, b""))
        return await reading.form()
    finally:
        reading.file.abort()


class _Reading:
    """What of the form has come so far."""

    def __init__(self, services: Services, permit: Permit, storing: asyncio.Semaphore) -> None:
        self.file = _Incoming(services)
        self._permit, self._storing = permit, storing
        self._permitted: tuple[UUID, UUID | None] | None = None
        self._fields: dict[str, str] = {}
        self._filename: str | None = None
        self._name = ""  # of the part under way
        self._held = bytearray()  # of the field under way, or of the file

    async def take(self, event: MultipartSegment | bytes | None) -> None:
        if isinstance(event, MultipartSegment):
            await self._begin(event)
        elif event is None:
            self._end()
        else:
            self._held += event
            await self._relieve()

    async def form(self) -> Form:
        """Raises Invalid when something is missing."""
        dataset, device = named = self._named()
        if self._filename is None:
            raise invalid("file", "is missing: send one image as the part named file")
        path = self._fields.get("path", "").strip() or None
        filename = safe_filename(path) if path else self._filename
        permit = None if named == self._permitted else lambda: self._permit(dataset, device)
        sniffed, sha256, size = await self._stored(permit)
        return Form(dataset_id=dataset, device_id=device, filename=filename, path=path, sha256=sha256, size=size, sniffed=sniffed)

    async def _stored(self, permit: Callable[[], None] | None) -> tuple[ImageHeader, str, int]:
        """Raises Unavailable where the store keeps so many waiting that the threads of all others would be held too."""
        try:
            async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
                await self._storing.acquire()
        except TimeoutError:
            raise Unavailable("The file store is slow; try again", retry_after=5) from None
        try:
            return await _in_thread(self.file.finish, permit)
        finally:
            self._storing.release()

    async def _begin(self, part: MultipartSegment) -> None:
        self._name = part.name or ""
        if self._name == "file":
            await self._begin_file(dict(part.headerlist)["Content-Disposition"])
        elif self._name not in FIELDS:
            raise invalid("form", f"has a part that is not known here; known are file, {', '.join(FIELDS)}")
        elif self._name in self._fields:
            raise invalid(self._name, "was given twice")

    async def _begin_file(self, content_disposition: str) -> None:
        if self._filename is not None:
            raise invalid("file", "was given twice: send one image a request")
        self._filename = filename_of(content_disposition)
        if self._filename is None:
            raise invalid("file", "comes without a name. Filename is missing")
        if "dataset_id" in self._fields:
            self._permitted = self._named()
            await _in_thread(self._permit, *self._permitted)

    async def _relieve(self) -> None:
        if self._name != "file":
            if len(self._held) > MAX_FIELD_BYTES:
                raise BodyTooLarge(f"The field {self._name} is longer than {MAX_FIELD_BYTES} bytes")
        elif len(self._held) >= PIECE_BYTES:
            self.file.hold(self._held)
            self._held = bytearray()
            await _in_thread(self.file.take)

    def _end(self) -> None:
        held, self._held = self._held, bytearray()
        if self._name == "file":
            self.file.hold(held)
            return
        try:
            value = held.decode()
        except UnicodeDecodeError:
            raise invalid(self._name, "is not UTF-8") from None
        self._fields[self._name] = relative_path(value) if self._name == "path" and value.strip() else value

    def _named(self) -> tuple[UUID, UUID | None]:
        dataset, device = self._fields.get("dataset_id"), self._fields.get("device_id")
        if not dataset:
            raise invalid("dataset_id", "is missing: name the dataset that the image belongs to")
        return _uuid("dataset_id", dataset), _uuid("device_id", device) if device else None


class _Incoming:
    """The file. `take` and `finish` block; `abort` leaves nothing behind, unless `finish` came to its end."""

    def __init__(self, services: Services) -> None:
        self._blobs, self._gate, self._most = services.blobs, services.gate(), services.options.upload_max_bytes
        self._writer: BlobWriter | None = None
        self._held = bytearray()
        self._size = 0

    def hold(self, piece: bytearray) -> None:
        """What is taken next."""
        self._held = piece

    def take(self) -> BlobWriter:
        writer = self._writer = self._writer or self._blobs.begin()
        chunk = bytes(self._held)
        self._size += len(chunk)
        if self._size > self._most:
            raise _too_large(self._most)
        if chunk:
            self._gate.feed(chunk)
            writer.write(chunk)
        self._held = bytearray()
        return writer

    def finish(self, permit: Callable[[], None] | None) -> tuple[ImageHeader, str, int]:
        """What it is, and (sha256 in hex, bytes) of what is stored now."""
        writer = self.take()
        sniffed = self._gate.finish(writer.file)
        if permit is not None:
            permit()
        return sniffed, *writer.commit()

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()


def _parser(request: Request[Any, Any, Any], announced: int) -> PushMultipartParser:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not 1 <= len(boundary) <= MAX_BOUNDARY_CHARACTERS:
        raise UnsupportedMediaType("Send the image as multipart/form-data, with a boundary")
    try:
        return PushMultipartParser(
            boundary,
            content_length=announced,
            max_header_count=MAX_PART_HEADERS,
            max_segment_count=MAX_PARTS,
            header_charset="latin-1",  # keeps the bytes of file names: `filename_of` finds their encoding
        )
    except MultipartError:
        raise Malformed("The boundary of the form is none that can be used") from None


async def _chunks(request: Request[Any, Any, Any], announced: int, *, maximum: int) -> AsyncIterator[bytes]:
    """The body as it comes. Raises ImageTooLarge as soon as it is known that the file has more than `most` bytes."""
    size, more = 0, True
    while more:
        if max(size, announced) > maximum + MAX_BYTES_BESIDE_FILE:
            raise _too_large(maximum)
        message = await request.receive()
        if message["type"] != "http.request":
            raise Malformed("The upload was broken off")
        more = message.get("more_body", False)
        if chunk := message.get("body", b""):
            size += len(chunk)
            yield chunk


def _events(parser: PushMultipartParser, chunk: bytes) -> Iterator[MultipartSegment | bytes | None]:
    try:
        yield from parser.parse(chunk)
    except ParserLimitReached:
        raise BodyTooLarge(f"The form has too much beside its file: at most {MAX_PARTS} parts, with short headers") from None
    except MultipartError:
        raise Malformed("The form is damaged, or ends too early; send it again") from None


def _announced(request: Request[Any, Any, Any]) -> int:
    """The length that the client claims, in bytes; -1 where it does not."""
    said = request.headers.get("content-length", "")
    return int(said) if said.isdecimal() and said.isascii() and len(said) < 19 else -1


async def _in_thread(step: Callable[..., T], *arguments: object) -> T:
    """Not left before the step has ended, even when the request is: so that what it leaves behind can be cleared."""
    running = asyncio.get_running_loop().run_in_executor(None, step, *arguments)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _uuid(name: str, value: str) -> UUID:
    try:
        return msgspec.convert(value, UUID)
    except msgspec.ValidationError:
        raise invalid(name, "must be a UUID") from None


def _too_large(maximum: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"The file has more than {maximum:,} bytes, the most that is taken. Scale it down or crop it", reason="too_many_bytes"
    )
