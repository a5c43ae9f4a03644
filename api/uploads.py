"""Reads an upload while it streams in, and stores it piece by piece. Each piece of an image passes upload validation first."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
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
from api.options import UploadLimits, WebOptions
from api.problems import BodyTooLarge, Malformed, UnsupportedMediaType
from api.request import RequestContext
from application.filenames import safe_filename
from application.ports import BlobWriter
from application.services import ImageHeader, Services
from domain.errors import ImageTooLarge, Unavailable
from domain.values import invalid, relative_path

T = TypeVar("T")
CheckPermission = Callable[[UUID, UUID | None], None]

FIELDS = ("dataset_id", "device_id", "path")
MAX_PARTS = 64
MAX_PART_HEADERS = 8
MAX_FIELD_BYTES = 4096
MAX_BOUNDARY_CHARACTERS = 200
MAX_BYTES_BESIDE_FILE = 64 * 1024  # parts and headers of the form except the file
MAX_LENGTH_DIGITS = 18
ZIP = frozenset({"application/zip", "application/x-zip-compressed", "application/octet-stream"})


class UploadForm(msgspec.Struct, frozen=True, kw_only=True):
    """A form whose file is stored. `filename` is the stored name; `path` is the path below the uploaded folder, if the client sent one;
    `sha256` (hex) and `size` (bytes) are those of the stored file."""

    dataset_id: UUID
    device_id: UUID | None
    filename: str
    path: str | None
    sha256: str
    size: int
    header: ImageHeader


async def receive_upload(context: RequestContext, store_slots: asyncio.Semaphore, check_permission: CheckPermission) -> UploadForm:
    """Read the form of a request and store its file. After an error, nothing of the file remains.

    `check_permission(dataset, device)` is called in a thread: before the first byte of the file if the form has named the dataset by
    then, otherwise before the file is stored. Raises what it raises, what upload validation and the blob store raise, Invalid, Malformed,
    BodyTooLarge, UnsupportedMediaType, and Unavailable if the blob store is slow.
    """
    request, options = context.request, context.options
    announced = _announced_length(request)
    parser = _parser(request, announced)
    reader = _FormReader(context.services, options, store_slots, check_permission)
    try:
        async for chunk in _chunks(request, announced, maximum=options.upload_max_bytes):
            for event in _events(parser, chunk):
                await reader.handle(event)
        if not parser.closed:
            list(_events(parser, b""))
        return await reader.form()
    finally:
        reader.file.abort()


class StoredPackage(msgspec.Struct, frozen=True):
    """A model package that is stored: its sha256 (hex), and its size in bytes."""

    sha256: str
    size: int


async def receive_package(context: RequestContext, store_slots: asyncio.Semaphore) -> StoredPackage:
    """Store the body of a request, a model package. After an error, nothing of it remains.

    Raises UnsupportedMediaType, BodyTooLarge, Malformed, and Unavailable if the blob store is slow or unavailable.
    """
    request, options = context.request, context.options
    maximum = options.model_max_bytes
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in ZIP:
        raise UnsupportedMediaType("Send the model package as application/zip")
    too_large = BodyTooLarge(f"The package is larger than the maximum of {maximum:,} bytes")
    if _announced_length(request) > maximum:
        raise too_large
    with ExitStack() as opened:
        writer = await _in_thread(_begin_package, context.services, maximum, opened)
        size, pending = 0, bytearray()
        async for chunk in _pieces(request):
            size += len(chunk)
            if size > maximum:
                raise too_large
            pending += chunk
            if len(pending) >= options.uploads.piece_bytes:
                await _in_thread(writer.write, bytes(pending))
                pending = bytearray()
        if size == 0:
            raise Malformed("The file is empty: send the zip archive of the model package")
        async with _store_slot(store_slots, options.uploads):
            await _in_thread(writer.write, bytes(pending))
            return StoredPackage(*await _in_thread(writer.commit))


def _begin_package(services: Services, maximum: int, opened: ExitStack) -> BlobWriter:
    """The writer is aborted with `opened`, also if the request is cancelled meanwhile."""
    writer = services.blobs.begin(max_bytes=maximum)
    opened.callback(writer.abort)
    return writer


class _FormReader:
    """The parts of the form that have arrived."""

    def __init__(self, services: Services, options: WebOptions, store_slots: asyncio.Semaphore, check_permission: CheckPermission) -> None:
        self.file = _FileWriter(services, options.upload_max_bytes)
        self._limits, self._store_slots, self._check_permission = options.uploads, store_slots, check_permission
        self._checked: tuple[UUID, UUID | None] | None = None
        self._fields: dict[str, str] = {}
        self._filename: str | None = None
        self._part_name = ""
        self._buffer = bytearray()  # of the current part

    async def handle(self, event: MultipartSegment | bytes | None) -> None:
        """Handle the start of a part, a piece of its content, or its end (None)."""
        if isinstance(event, MultipartSegment):
            await self._begin_part(event)
        elif event is None:
            self._end_part()
        else:
            self._buffer += event
            await self._flush()

    async def form(self) -> UploadForm:
        """The complete form. Raises Invalid if a part is missing."""
        dataset, device = target = self._target()
        if self._filename is None:
            raise invalid("file", "is missing: send the image as the part named file")
        path = self._fields.get("path", "").strip() or None
        filename = safe_filename(path) if path else self._filename
        check = None if target == self._checked else lambda: self._check_permission(dataset, device)
        header, sha256, size = await self._store(check)
        return UploadForm(dataset_id=dataset, device_id=device, filename=filename, path=path, sha256=sha256, size=size, header=header)

    async def _store(self, check: Callable[[], None] | None) -> tuple[ImageHeader, str, int]:
        async with _store_slot(self._store_slots, self._limits):
            return await _in_thread(self.file.finish, check)

    async def _begin_part(self, part: MultipartSegment) -> None:
        self._part_name = part.name or ""
        if self._part_name == "file":
            await self._begin_file(dict(part.headerlist)["Content-Disposition"])
        elif self._part_name not in FIELDS:
            raise invalid("form", f"has an unknown part; the known parts are file, {', '.join(FIELDS)}")
        elif self._part_name in self._fields:
            raise invalid(self._part_name, "occurs twice")

    async def _begin_file(self, content_disposition: str) -> None:
        if self._filename is not None:
            raise invalid("file", "occurs twice: send one image per request")
        self._filename = filename_of(content_disposition)
        if self._filename is None:
            raise invalid("file", "has no file name. Filename is missing")
        if "dataset_id" in self._fields:
            self._checked = self._target()
            await _in_thread(self._check_permission, *self._checked)

    async def _flush(self) -> None:
        if self._part_name != "file":
            if len(self._buffer) > MAX_FIELD_BYTES:
                raise BodyTooLarge(f"The field {self._part_name} is longer than {MAX_FIELD_BYTES} bytes")
        elif len(self._buffer) >= self._limits.piece_bytes:
            self.file.pending = self._buffer
            self._buffer = bytearray()
            await _in_thread(self.file.write_pending)

    def _end_part(self) -> None:
        content, self._buffer = self._buffer, bytearray()
        if self._part_name == "file":
            self.file.pending = content
            return
        try:
            value = content.decode()
        except UnicodeDecodeError:
            raise invalid(self._part_name, "is not UTF-8") from None
        self._fields[self._part_name] = relative_path(value) if self._part_name == "path" and value.strip() else value

    def _target(self) -> tuple[UUID, UUID | None]:
        dataset, device = self._fields.get("dataset_id"), self._fields.get("device_id")
        if not dataset:
            raise invalid("dataset_id", "is missing: name the dataset of the image")
        return _uuid("dataset_id", dataset), _uuid("device_id", device) if device else None


class _FileWriter:
    """Validates and stores the file. `write_pending` and `finish` block. `abort` removes everything, unless `finish` has returned."""

    def __init__(self, services: Services, max_bytes: int) -> None:
        self._blobs, self._validator, self._max_bytes = services.blobs, services.upload_validator(), max_bytes
        self._writer: BlobWriter | None = None
        self._size = 0
        self.pending = bytearray()

    def write_pending(self) -> BlobWriter:
        writer = self._writer = self._writer or self._blobs.begin()
        chunk = bytes(self.pending)
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise _too_large(self._max_bytes)
        if chunk:
            self._validator.feed(chunk)
            writer.write(chunk)
        self.pending = bytearray()
        return writer

    def finish(self, check: Callable[[], None] | None) -> tuple[ImageHeader, str, int]:
        """Store the file, after `check`. Returns the image's header, and the sha256 (hex) and size (bytes) of the file."""
        writer = self.write_pending()
        header = self._validator.finish(writer.file)
        if check is not None:
            check()
        return header, *writer.commit()

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()


def _parser(request: Request[Any, Any, Any], announced: int) -> PushMultipartParser:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not 1 <= len(boundary) <= MAX_BOUNDARY_CHARACTERS:
        raise UnsupportedMediaType(f"Send the image as multipart/form-data, with a boundary of 1 to {MAX_BOUNDARY_CHARACTERS} characters")
    try:
        return PushMultipartParser(
            boundary,
            content_length=announced,
            max_header_count=MAX_PART_HEADERS,
            max_segment_count=MAX_PARTS,
            header_charset="latin-1",  # keeps the bytes of file names: `filename_of` finds their encoding
        )
    except MultipartError:
        raise Malformed("The multipart boundary is invalid") from None


async def _chunks(request: Request[Any, Any, Any], announced: int, *, maximum: int) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises ImageTooLarge as soon as it is certain that the file has more than `maximum` bytes."""
    if announced > maximum + MAX_BYTES_BESIDE_FILE:
        raise _too_large(maximum)
    size = 0
    async for chunk in _pieces(request):
        size += len(chunk)
        yield chunk
        if size > maximum + MAX_BYTES_BESIDE_FILE:
            raise _too_large(maximum)


async def _pieces(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises Malformed if the client goes away."""
    more = True
    while more:
        message = await request.receive()
        if message["type"] != "http.request":
            raise Malformed("The upload ended before its last byte")
        more = message.get("more_body", False)
        if chunk := message.get("body", b""):
            yield chunk


@asynccontextmanager
async def _store_slot(slots: asyncio.Semaphore, limits: UploadLimits) -> AsyncIterator[None]:
    """Raises Unavailable if no slot becomes free: a slow blob store must not occupy the threads of other requests."""
    try:
        async with asyncio.timeout(limits.store_timeout_seconds):
            await slots.acquire()
    except TimeoutError:
        raise Unavailable("The blob store is slow; try again", retry_after=5) from None
    try:
        yield
    finally:
        slots.release()


def _events(parser: PushMultipartParser, chunk: bytes) -> Iterator[MultipartSegment | bytes | None]:
    try:
        yield from parser.parse(chunk)
    except ParserLimitReached:
        raise BodyTooLarge(f"The form is larger than {MAX_PARTS} parts with {MAX_PART_HEADERS} short headers each") from None
    except MultipartError:
        raise Malformed("The form is malformed or truncated; send it again") from None


def _announced_length(request: Request[Any, Any, Any]) -> int:
    """The length in bytes that the client announced; -1 if it announced none."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() and text.isascii() and len(text) <= MAX_LENGTH_DIGITS else -1


async def _in_thread(step: Callable[..., T], *arguments: object) -> T:
    """Run `step` in a thread. Wait for its end even if cancelled, so that `abort` can clean up after it."""
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
    return ImageTooLarge(f"The file is larger than the maximum of {maximum:,} bytes. Scale it down or crop it", reason="too_many_bytes")
