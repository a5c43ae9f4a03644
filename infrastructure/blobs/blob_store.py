"""Blobs in a local folder or on S3: one class over fsspec; what differs is how bytes are put, and how an address is signed."""

import asyncio
import hashlib
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from uuid import UUID

import fsspec
import structlog
from fsspec.asyn import sync

from application import derivatives
from application.filenames import safe_filename
from application.ports import BlobContent, BlobStore
from application.signed_downloads import Holder, LocalAddress, SignedBlob, expiry
from domain.errors import CorruptBlob, ImageTooLarge, NotFound, Unavailable
from infrastructure.blobs.verified_files import VerifiedFiles
from infrastructure.configuration.settings import Settings
from infrastructure.security.keys import Keys
from infrastructure.security.signed_urls import seal

log = structlog.get_logger()

ORIGINALS: Final = "sha256"
"""The folder of uploaded files and models."""
RENDITIONS: Final = tuple(f"derived/{kind}" for kind in derivatives.KINDS)
"""The folders of what inference makes from them; other derived things are none of its business."""
UNFINISHED_RENDITIONS: Final = "pictures"
"""The folder of pictures that are being written, apart from uploads, which inference cannot write to."""

SHA256: Final = re.compile("[0-9a-f]{64}")
DERIVED: Final = re.compile("[a-z0-9_-]+(/[a-z0-9_-]+)*")
ABANDONED_AFTER_SECONDS: Final = (
    3 * 86400.0
)  # seconds after which an upload without an end is swept away, also by a clock that is set a day on
MAX_DERIVED: Final = 64 * 1024**2  # bytes; pictures and signed heads have far fewer
UNFINISHED: Final = "upload-"  # how the names of files for uploads under way begin; a spool may hold other things
NAMES_PER_QUERY: Final = 500
ANSWER_TIMEOUT_SECONDS: Final = 5  # seconds for an answer of S3
MAX_ATTEMPTS: Final = 3
SILENCE_TIMEOUT_SECONDS: Final = 7  # seconds
PUT_TIMEOUT_SECONDS: Final = 10.0  # seconds, all attempts together: the client waits without end for a dead peer to take a body
MIN_BYTES_PER_SECOND: Final = 64 * 1024  # bytes a second, on top of that
MAX_CONCURRENT_READS: Final = 16
FOLDER_MAX_URL_SECONDS: Final = 3600
S3_MAX_URL_SECONDS: Final = 240  # an address works for up to a quarter longer: never for more than 300 s, since S3 cannot revoke it
MAX_SIGNED_URLS: Final = 4096  # addresses on S3 that are kept, to be the same within their window

Clock = Callable[[], float]


class SignedLink(NamedTuple):
    """An address to be signed: of `blob`, which lies under `key` and is of an image, for `holder`."""

    blob: SignedBlob
    key: str
    image_id: UUID
    holder: Holder
    internal: bool


class BlobBackend(NamedTuple):
    """Where blobs are: an fsspec file system, its errors that mean "away", and what fsspec does not do as we need it.

    `temporary(key)` opens a new file for bytes that arrive and will be kept under `key`: its descriptor and path. `is_present`: whether a
    file that is not found is really missing, and not just the disk that it lies on.
    `fetch(path)` gives all bytes; `each` is a `map`, as many at once as is quickest. `size(path)` is in bytes, None where to ask costs a
    request.
    `keep(file, key, media_type)` puts the bytes of a temporary file under `key`, durably, all or nothing; it may move the file away.
    `link` signs an address; `max_url_seconds` is the longest time for which one may be asked.
    """

    files: Any
    root: str
    temporary: Callable[[str], tuple[int, str]]
    is_present: Callable[[], bool]
    away: tuple[type[Exception], ...]
    fetch: Callable[[str], bytes]
    size: Callable[[str], int | None]
    each: Callable[[Callable[[str], Any], Iterable[str]], Iterable[Any]]
    keep: Callable[[str, str, str], None]
    link: Callable[[SignedLink], str]
    max_url_seconds: int


def open_blobs(settings: Settings, keys: Keys, *, clock: Clock = time.time) -> BlobStore:
    """As `blobs_url` says: `s3://bucket`, a folder, or (empty) the folder `blobs` among our data.

    Addresses of files in a folder are signed with `keys`: without that one, `signed_url` raises MissingKey. `clock` gives the seconds
    since 1970 from which the lifetime of an address is counted.
    """
    place = _bucket(settings, clock) if _is_on_s3(settings) else _folder(settings, keys)
    return FileBlobStore(place, maximum=settings.upload_max_bytes, clock=clock)


def originals_folder(settings: Settings) -> Path | None:
    """Where uploaded files and models lie; None on S3."""
    return None if _is_on_s3(settings) else _local_folder(settings) / ORIGINALS


def rendition_folders(settings: Settings) -> list[Path]:
    """All folders that storing a picture writes to: on S3 only the one from which files are sent."""
    if _is_on_s3(settings):
        return [settings.spool_path.absolute() / UNFINISHED_RENDITIONS]
    return [_local_folder(settings) / name for name in (UNFINISHED_RENDITIONS, *RENDITIONS)]


def _is_on_s3(settings: Settings) -> bool:
    return settings.blobs_url.startswith("s3://")


def _local_folder(settings: Settings) -> Path:
    return Path(settings.blobs_url or settings.data / "blobs").absolute()


class FileBlobStore:
    """The port `BlobStore`: content under `sha256/ab/cd/HEX`, derived things under `derived/NAME`. Blocks; may be shared by threads."""

    def __init__(self, place: BlobBackend, *, maximum: int, clock: Clock) -> None:
        self._place, self._files, self._most, self._clock = place, place.files, maximum, clock
        self._compared = VerifiedFiles()

    @property
    def max_url_seconds(self) -> int:
        return self._place.max_url_seconds

    def begin(self) -> "BlobUpload":
        return BlobUpload(self._place, maximum=self._most)

    def read(self, sha256: str) -> bytes:
        path = self._path(_key(sha256))
        with _translate_errors(self._place):
            if (self._place.size(path) or 0) > self._most:
                self.open(sha256).close()  # compared piece by piece: what is not right does not fill the memory
            data = self._place.fetch(path)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _damaged(sha256)
        return data

    def read_all(self, names: Sequence[str]) -> list[BlobContent]:
        return list(self._place.each(self._read_or_error, names))

    def open(self, sha256: str) -> Any:
        with _translate_errors(self._place), ExitStack() as opened:
            file = opened.enter_context(self._files.open(self._path(_key(sha256)), "rb"))
            if not self._compared.has_digest(file, sha256):
                raise _damaged(sha256)
            opened.pop_all()
            return file

    def peek(self, sha256: str, size: int) -> bytes:
        with _translate_errors(self._place), self._files.open(self._path(_key(sha256)), "rb") as file:
            return bytes(file.read(size))

    def exists(self, sha256: str) -> bool:
        with _translate_errors(self._place):
            return self._is_there(self._path(_key(sha256)))

    def put_derived(self, name: str, data: bytes, media_type: str) -> None:
        with _translate_errors(self._place, putting=True):
            descriptor, written = self._place.temporary(_derived(name))
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                self._place.keep(written, _derived(name), media_type)
            finally:
                _remove(written)

    def get_derived(self, name: str) -> bytes | None:
        path = self._path(_derived(name))
        with suppress(NotFound), _translate_errors(self._place):
            if (self._place.size(path) or 0) > MAX_DERIVED:
                log.error("derived file is too large to be one of ours", name=name)
                raise CorruptBlob("The stored picture is damaged: it is larger than any that is made here")
            return self._place.fetch(path)
        return None

    def delete(self, sha256: str, *, put_before: datetime | None = None) -> bool:
        """Between the last look at its age and its end lie milliseconds."""
        with _translate_errors(self._place):
            blob = self._path(_key(sha256))
            there = self._is_there(blob)
            if put_before is not None and there and _written(self._files.info(blob)) >= put_before:
                return False
            self._remove(blob)
            list(self._place.each(self._remove, [self._path(_derived(name)) for name in derivatives.of_all_readers(sha256)]))
            return there

    def orphans(self, known: Callable[[Iterable[str]], set[str]], *, older_than: datetime) -> Iterator[str]:
        with _translate_errors(self._place):
            for shelf in self._listed(ORIGINALS):
                found = self._files.find(shelf, detail=True).items()
                old = (name for path, about in found if SHA256.fullmatch(name := path.rpartition("/")[2]) and _written(about) < older_than)
                while names := list(islice(old, NAMES_PER_QUERY)):
                    used = known(names)
                    yield from (name for name in names if name not in used)

    def signed_url(
        self,
        name: str,
        *,
        image_id: UUID,
        holder: Holder,
        filename: str,
        media_type: str,
        inline: bool,
        seconds: int,
        internal: bool = False,
    ) -> str:
        key = _key(name) if SHA256.fullmatch(name) else _derived(name)
        ends = expiry(seconds, self._clock())
        ends = ends if holder.until is None else min(ends, holder.until)
        blob = SignedBlob(name=name, filename=safe_filename(filename), media_type=media_type, inline=inline, ends=ends)
        with _translate_errors(self._place):
            return self._place.link(SignedLink(blob, key, image_id, holder, internal))

    def _read_or_error(self, sha256: str) -> BlobContent:
        try:
            return self.read(sha256)
        except (NotFound, CorruptBlob) as error:
            return error

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(path)

    def _path(self, key: str) -> str:
        return f"{self._place.root}/{key}"

    def _is_there(self, path: str) -> bool:
        there = bool(self._files.exists(path))
        if not there and not self._place.is_present():
            raise FileNotFoundError(self._place.root)
        return there

    def _listed(self, key: str) -> list[str]:
        try:
            return list(self._files.ls(self._path(key), detail=False))
        except FileNotFoundError:
            return []


class BlobUpload:
    """The port `BlobWriter`: a temporary file until `commit`."""

    def __init__(self, place: BlobBackend, *, maximum: int) -> None:
        self._place, self._most, self._size = place, maximum, 0
        self._hash = hashlib.sha256()
        with _translate_errors(place, putting=True):
            descriptor, self._written = place.temporary(ORIGINALS)
            self.file: IO[bytes] = os.fdopen(descriptor, "w+b")

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._most:
            self.abort()
            raise ImageTooLarge(f"The file has more than {self._most:,} bytes, the most that is taken")
        self._hash.update(chunk)
        with _translate_errors(self._place, putting=True):
            self.file.seek(0, os.SEEK_END)
            self.file.write(chunk)

    def commit(self) -> tuple[str, int]:
        sha256 = self._hash.hexdigest()
        with _translate_errors(self._place, putting=True):
            self.file.flush()
            self.file.close()
            try:
                self._place.keep(self._written, _key(sha256), "application/octet-stream")
            finally:
                self.abort()
        return sha256, self._size

    def abort(self) -> None:
        with suppress(OSError):  # what is left to write finds no room
            self.file.close()
        _remove(self._written)


def _folder(settings: Settings, keys: Keys) -> BlobBackend:
    folder = _local_folder(settings)
    uploads, pictures = folder / "uploads", folder / UNFINISHED_RENDITIONS
    with _translate_errors_of(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for unfinished in (uploads, pictures):
            unfinished.mkdir(exist_ok=True, mode=0o700)
            _sweep(unfinished)
    settled = {str(folder)}

    def keep(file: str, key: str, _: str) -> None:
        shelf, name = os.path.split(f"{folder}/{key}")
        _sync(file)
        if shelf not in settled:
            _make_below(folder, shelf)
        os.replace(file, f"{shelf}/{name}")  # noqa: PTH105 - parsing paths would take longer
        if key.startswith(ORIGINALS):  # what is derived can be made again
            _settle(shelf, settled)

    def link(asked: SignedLink) -> str:
        base = settings.local_url if asked.internal else settings.base_url
        return f"{base.rstrip('/')}/api/blobs/{seal(keys, LocalAddress.of(asked.blob, asked.image_id, asked.holder))}"

    files = fsspec.filesystem("file", skip_instance_cache=True, use_listings_cache=False)

    def temporary(key: str) -> tuple[int, str]:
        return _temporary(pictures if key.startswith(RENDITIONS) else uploads)

    return BlobBackend(files, str(folder), temporary, uploads.is_dir, (OSError,), _read, _size, map, keep, link, FOLDER_MAX_URL_SECONDS)


def _bucket(settings: Settings, clock: Clock) -> BlobBackend:
    import s3fs  # noqa: PLC0415 - slow to import, and a local folder does without it
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # noqa: PLC0415

    def at(endpoint: str) -> Any:
        files = s3fs.S3FileSystem(
            key=settings.blobs_key or None,
            secret=settings.blobs_secret or None,
            endpoint_url=endpoint or None,
            config_kwargs={
                "signature_version": "s3v4",
                "connector_args": {"socket_factory": _with_timeouts},
                "connect_timeout": ANSWER_TIMEOUT_SECONDS,
                "read_timeout": ANSWER_TIMEOUT_SECONDS,
                "retries": {"max_attempts": 0},  # s3fs repeats
                "request_checksum_calculation": "when_required",  # names are digests, and not every server knows the new trailers
                "response_checksum_validation": "when_required",
            }
            | ({"s3": {"addressing_style": "path"}} if endpoint else {}),
            max_concurrency=1,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        files.retries = MAX_ATTEMPTS
        return files

    bucket = settings.blobs_url.removeprefix("s3://").strip("/")
    inside = at(settings.blobs_endpoint)
    outside = at(settings.blobs_public_endpoint) if settings.blobs_public_endpoint else inside
    spool = settings.spool_path
    pictures = spool / UNFINISHED_RENDITIONS
    for unfinished in (spool, pictures):
        with suppress(OSError):  # told to the first upload
            _sweep(unfinished)

    def keep(file: str, key: str, media_type: str) -> None:
        within = PUT_TIMEOUT_SECONDS + os.stat(file).st_size / MIN_BYTES_PER_SECOND  # noqa: PTH116 - parsing paths would take longer

        async def put() -> None:
            async with asyncio.timeout(within):
                await inside._put_file(file, f"{bucket}/{key}", ContentType=media_type)  # noqa: SLF001 - fsspec's own for async callers

        sync(inside.loop, put)

    @lru_cache(maxsize=MAX_SIGNED_URLS)
    def presigned(blob: SignedBlob, key: str, internal: bool) -> str:  # noqa: FBT001
        """Kept, because a signature contains the time at which it was made."""
        shown = {
            "ResponseContentType": blob.served_type,
            "ResponseContentDisposition": blob.disposition,
            "ResponseCacheControl": blob.cache_control(clock()),
        }
        return str((inside if internal else outside).url(f"{bucket}/{key}", expires=blob.ends - int(clock()), **shown))

    def link(asked: SignedLink) -> str:
        return presigned(asked.blob, asked.key, asked.internal)

    def temporary(key: str) -> tuple[int, str]:
        return _spooled(pictures if key.startswith(RENDITIONS) else spool)

    each = ThreadPoolExecutor(MAX_CONCURRENT_READS, thread_name_prefix="blobs").map
    away = (OSError, BotoCoreError)
    return BlobBackend(inside, bucket, temporary, lambda: True, away, inside.cat_file, lambda _: None, each, keep, link, S3_MAX_URL_SECONDS)


def _with_timeouts(address: Any) -> socket.socket:
    """A socket whose peer is given up when it does not acknowledge for a while what was sent to it."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    with suppress(OSError, AttributeError):  # another system than Linux
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_TIMEOUT_SECONDS * 1000)
    return made


@contextmanager
def _translate_errors(place: BlobBackend, *, putting: bool = False) -> Iterator[None]:
    """A driver's errors in our words: what is not there is NotFound (unless it was to be put), all else Unavailable.

    Where the whole place is not there, no single file of it is missing: a disk is not mounted.
    """
    with _translate_errors_of(*place.away, lacking=lambda: not putting and place.is_present()):
        yield


@contextmanager
def _translate_errors_of(*away: type[Exception], lacking: Callable[[], bool] = lambda: False) -> Iterator[None]:
    try:
        yield
    except away as error:
        if isinstance(error, FileNotFoundError) and lacking():
            raise NotFound("There is no such file") from None
        log.warning("blob store is away", error=f"{type(error).__name__}: {error}")
        raise Unavailable("The file store is away or full; try again", retry_after=5) from error


def _key(sha256: str) -> str:
    if not SHA256.fullmatch(sha256):
        raise NotFound("There is no such file")
    return f"{ORIGINALS}/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def _derived(name: str) -> str:
    if not DERIVED.fullmatch(name):
        raise NotFound("There is no such file")
    return f"derived/{name}"


def _written(about: dict[str, Any]) -> datetime:
    return about["LastModified"] if "LastModified" in about else datetime.fromtimestamp(about["mtime"], UTC)


def _make_below(root: Path, folder: str) -> None:
    """Make `folder` and those between it and `root`. Raises FileNotFoundError where `root` is gone: a share that is not mounted."""
    path = str(root)
    for part in Path(folder).relative_to(root).parts:
        path = f"{path}/{part}"
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)  # noqa: PTH102 - parsing paths would take longer


def _settle(folder: str, settled: set[str]) -> None:
    """Write the entries of `folder` to disk, and its own and those above it unless this was done before: folders never go away."""
    _sync(folder)
    while folder not in settled:
        above = str(Path(folder).parent)
        _sync(above)
        settled.add(folder)
        folder = above


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - parsing paths would take longer
        return file.read()


def _size(path: str) -> int:
    return os.stat(path).st_size  # noqa: PTH116 - parsing paths would take longer


def _damaged(sha256: str) -> CorruptBlob:
    log.error("blob differs from its name", sha256=sha256)
    return CorruptBlob("The stored file is damaged: it is not the one that was uploaded", sha256=sha256)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - parsing paths would take longer


def _temporary(folder: Path) -> tuple[int, str]:
    return tempfile.mkstemp(prefix=UNFINISHED, dir=folder)


def _spooled(spool: Path) -> tuple[int, str]:
    """As `_temporary`, in a folder that is made again when somebody removed it: it holds nothing that lasts."""
    try:
        return _temporary(spool)
    except FileNotFoundError:
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _temporary(spool)


def _sweep(folder: Path) -> None:
    """Remove what killed processes had under way. A process that may not look into the folder leaves that to others."""
    with suppress(PermissionError):
        for left in folder.glob(f"{UNFINISHED}*"):
            with suppress(FileNotFoundError):
                if left.stat().st_mtime < time.time() - ABANDONED_AFTER_SECONDS:
                    left.unlink()
