"""The blob store, in a local folder or on S3."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final
from uuid import UUID

import structlog

from application import derivatives
from application.filenames import safe_filename
from application.ports import BlobContent, BlobStore
from application.signed_downloads import Holder, SignedBlob, expiry
from domain.errors import CorruptBlob, ImageTooLarge, NotFound
from infrastructure.blobs.backend import (
    ORIGINALS,
    RENDITIONS,
    SHA256,
    UNFINISHED_RENDITIONS,
    BlobBackend,
    Clock,
    SignedLink,
    derived_key,
    original_key,
    translated_errors,
)
from infrastructure.blobs.filesystem import FolderBackend, blobs_folder
from infrastructure.blobs.s3 import DEFAULT_LIMITS, S3Backend, S3Limits, is_on_s3, spool_of_renditions
from infrastructure.blobs.verified_files import VerifiedFiles
from infrastructure.configuration.settings import Settings
from infrastructure.security.keys import Keys

log = structlog.get_logger()

MAX_DERIVED_BYTES: Final = 64 * 1024**2
"""Far more than renditions and signed heads need."""
NAMES_PER_QUERY: Final = 500
COPIED_BYTES: Final = 1024**2


def open_blobs(settings: Settings, keys: Keys, *, clock: Clock = time.time, s3_limits: S3Limits = DEFAULT_LIMITS) -> BlobStore:
    """The store at `blobs_url`: `s3://bucket`, a folder, or (empty) the folder `blobs` in the data folder.

    Addresses of files in a folder are signed with `keys`; without the key, `signed_url` raises MissingKey. `clock` determines the
    lifetime of addresses.
    """
    backend: BlobBackend = S3Backend(settings, clock, s3_limits) if is_on_s3(settings) else FolderBackend(settings, keys)
    return FsspecBlobStore(backend, max_bytes=settings.upload_max_bytes, clock=clock)


def originals_folder(settings: Settings) -> Path | None:
    """The folder of uploaded files and models; None on S3."""
    return None if is_on_s3(settings) else blobs_folder(settings) / ORIGINALS


def rendition_folders(settings: Settings) -> list[Path]:
    """All folders in which a stored rendition is written; on S3 only the spool."""
    if is_on_s3(settings):
        return [spool_of_renditions(settings)]
    return [blobs_folder(settings) / name for name in (UNFINISHED_RENDITIONS, *RENDITIONS)]


class FsspecBlobStore:
    """Implements `BlobStore`: content under `sha256/ab/cd/HEX`, derived files under `derived/NAME`. Thread-safe."""

    def __init__(self, backend: BlobBackend, *, max_bytes: int, clock: Clock) -> None:
        self._backend, self._files, self._max_bytes, self._clock = backend, backend.files, max_bytes, clock
        self._verified = VerifiedFiles()

    @property
    def max_url_seconds(self) -> int:
        return self._backend.max_url_seconds

    def begin(self, *, max_bytes: int | None = None) -> "BlobUpload":
        return BlobUpload(self._backend, max_bytes=self._max_bytes if max_bytes is None else max_bytes)

    def read(self, sha256: str) -> bytes:
        path = self._path(original_key(sha256))
        with _translated_errors(self._backend):
            if (self._backend.size(path) or 0) > self._max_bytes:
                self.open(sha256).close()  # verified in pieces, so that a wrong file does not fill the memory
            data = self._backend.fetch(path)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _damaged(sha256)
        return data

    def read_all(self, names: Sequence[str]) -> list[BlobContent]:
        return list(self._backend.map(self._read_or_error, names))

    def open(self, sha256: str) -> Any:
        with _translated_errors(self._backend), ExitStack() as opened:
            file = opened.enter_context(self._files.open(self._path(original_key(sha256)), "rb"))
            if not self._verified.has_digest(file, sha256):
                raise _damaged(sha256)
            opened.pop_all()
            return file

    def open_locally(self, sha256: str) -> Any:
        with _translated_errors(self._backend), ExitStack() as opened:
            file = opened.enter_context(self._files.open(self._path(original_key(sha256)), "rb"))
            local = file if _is_local(file) else opened.enter_context(self._copied(file))
            if not self._verified.has_digest(local, sha256):
                raise _damaged(sha256)
            if local is not file:
                file.close()
            opened.pop_all()
            return local

    def peek(self, sha256: str, size: int) -> bytes:
        with _translated_errors(self._backend), self._files.open(self._path(original_key(sha256)), "rb") as file:
            return bytes(file.read(size))

    def exists(self, sha256: str) -> bool:
        with _translated_errors(self._backend):
            return self._exists(self._path(original_key(sha256)))

    def put_derived(self, name: str, data: bytes, media_type: str) -> None:
        with _translated_errors(self._backend, putting=True):
            descriptor, temporary = self._backend.temporary_file(derived_key(name))
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                self._backend.keep(temporary, derived_key(name), media_type)
            finally:
                _remove(temporary)

    def get_derived(self, name: str) -> bytes | None:
        path = self._path(derived_key(name))
        with suppress(NotFound), _translated_errors(self._backend):
            if (self._backend.size(path) or 0) > MAX_DERIVED_BYTES:
                log.error("derived file is too large", name=name)
                raise CorruptBlob("The stored picture is damaged: it is too large")
            return self._backend.fetch(path)
        return None

    def delete(self, sha256: str, *, put_before: datetime | None = None) -> bool:
        """Delete a blob. Its age is checked some milliseconds before it is removed."""
        with _translated_errors(self._backend):
            blob = self._path(original_key(sha256))
            exists = self._exists(blob)
            if put_before is not None and exists and _written_at(self._files.info(blob)) >= put_before:
                return False
            self._remove(blob)
            list(self._backend.map(self._remove, [self._path(derived_key(name)) for name in derivatives.of_all_readers(sha256)]))
            return exists

    def orphans(self, known: Callable[[Iterable[str]], set[str]], *, older_than: datetime) -> Iterator[str]:
        with _translated_errors(self._backend):
            for folder in self._listed(ORIGINALS):
                found = self._files.find(folder, detail=True).items()
                old = (name for path, info in found if SHA256.fullmatch(name := path.rpartition("/")[2]) and _written_at(info) < older_than)
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
        key = original_key(name) if SHA256.fullmatch(name) else derived_key(name)
        ends = expiry(seconds, self._clock())
        ends = ends if holder.until is None else min(ends, holder.until)
        blob = SignedBlob(name=name, filename=safe_filename(filename), media_type=media_type, inline=inline, ends=ends)
        with _translated_errors(self._backend):
            return self._backend.sign(SignedLink(blob, key, image_id, holder, internal))

    def _copied(self, file: Any) -> IO[bytes]:
        """The content in a file without a name. It lies where renditions are written, since the inference process may write there."""
        descriptor, path = self._backend.temporary_file(RENDITIONS[0])
        _remove(path)
        copy = os.fdopen(descriptor, "w+b")
        try:
            shutil.copyfileobj(file, copy, COPIED_BYTES)
        except BaseException:
            copy.close()
            raise
        copy.seek(0)
        return copy

    def _read_or_error(self, sha256: str) -> BlobContent:
        try:
            return self.read(sha256)
        except (NotFound, CorruptBlob) as error:
            return error

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(path)

    def _path(self, key: str) -> str:
        return f"{self._backend.root}/{key}"

    def _exists(self, path: str) -> bool:
        exists = bool(self._files.exists(path))
        if not exists and not self._backend.is_present():
            raise FileNotFoundError(self._backend.root)
        return exists

    def _listed(self, key: str) -> list[str]:
        try:
            return list(self._files.ls(self._path(key), detail=False))
        except FileNotFoundError:
            return []


class BlobUpload:
    """Implements `BlobWriter` with a temporary file."""

    def __init__(self, backend: BlobBackend, *, max_bytes: int) -> None:
        self._backend, self._max_bytes, self._size = backend, max_bytes, 0
        self._hash = hashlib.sha256()
        with _translated_errors(backend, putting=True):
            descriptor, self._temporary = backend.temporary_file(ORIGINALS)
            self.file: IO[bytes] = os.fdopen(descriptor, "w+b")

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._max_bytes:
            self.abort()
            raise ImageTooLarge(f"The file has more than {self._max_bytes:,} bytes, which is the maximum")
        self._hash.update(chunk)
        with _translated_errors(self._backend, putting=True):
            self.file.seek(0, os.SEEK_END)
            self.file.write(chunk)

    def commit(self) -> tuple[str, int]:
        sha256 = self._hash.hexdigest()
        with _translated_errors(self._backend, putting=True):
            self.file.flush()
            self.file.close()
            try:
                self._backend.keep(self._temporary, original_key(sha256), "application/octet-stream")
            finally:
                self.abort()
        return sha256, self._size

    def abort(self) -> None:
        with suppress(OSError):  # the buffer cannot be flushed to a full disk
            self.file.close()
        _remove(self._temporary)


def _is_local(file: Any) -> bool:
    with suppress(OSError):
        return bool(file.fileno() >= 0)
    return False


@contextmanager
def _translated_errors(backend: BlobBackend, *, putting: bool = False) -> Iterator[None]:
    """Raise NotFound for a missing file, unless one is being stored, and Unavailable for other errors of the driver.

    If the whole backend is missing, such as an unmounted disk, a missing file is Unavailable too.
    """
    with translated_errors(*backend.unavailable_errors, is_missing=lambda: not putting and backend.is_present()):
        yield


def _written_at(info: dict[str, Any]) -> datetime:
    return info["LastModified"] if "LastModified" in info else datetime.fromtimestamp(info["mtime"], UTC)


def _damaged(sha256: str) -> CorruptBlob:
    log.error("blob does not match its name", sha256=sha256)
    return CorruptBlob("The stored file is damaged: it is not the one that was uploaded", sha256=sha256)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - faster without Path
