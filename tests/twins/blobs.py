"""The in-memory twin of the blob store."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from urllib.parse import quote
from uuid import UUID

from application import derivatives
from application.ports import BlobContent
from application.signed_downloads import Holder
from domain.errors import CorruptBlob, ImageTooLarge, NotFound


class MemoryBlobs:
    """Behaves like `FsspecBlobStore`, within one process. Its addresses lead nowhere."""

    max_url_seconds = 3600

    def __init__(self, *, maximum: int = 64 * 1024**2, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.kept: dict[str, bytes] = {}
        self._derived: dict[str, bytes] = {}
        self._put: dict[str, datetime] = {}
        self._maximum, self._clock = maximum, clock

    def begin(self, *, max_bytes: int | None = None) -> "MemoryUpload":
        return MemoryUpload(self, maximum=self._maximum if max_bytes is None else max_bytes)

    def keep(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.kept[sha256], self._put[sha256] = data, self._clock()
        return sha256

    def read(self, sha256: str) -> bytes:
        if sha256 not in self.kept:
            raise NotFound("There is no such file")
        data = self.kept[sha256]
        if hashlib.sha256(data).hexdigest() != sha256:
            raise CorruptBlob("The stored file is damaged: it is not the one that was uploaded", sha256=sha256)
        return data

    def read_all(self, names: Sequence[str]) -> list[BlobContent]:
        return [self._read_or_error(name) for name in names]

    def open(self, sha256: str) -> io.BytesIO:
        return io.BytesIO(self.read(sha256))

    def open_locally(self, sha256: str) -> io.BytesIO:
        return self.open(sha256)

    def peek(self, sha256: str, size: int) -> bytes:
        if sha256 not in self.kept:
            raise NotFound("There is no such file")
        return self.kept[sha256][:size]

    def exists(self, sha256: str) -> bool:
        return sha256 in self.kept

    def put_derived(self, name: str, data: bytes, media_type: str) -> None:
        self._derived[name] = data

    def get_derived(self, name: str) -> bytes | None:
        return self._derived.get(name)

    def delete(self, sha256: str, *, put_before: datetime | None = None) -> bool:
        there = sha256 in self.kept
        if put_before is not None and there and self._put[sha256] >= put_before:
            return False
        self.kept.pop(sha256, None)
        for name in derivatives.of_all_readers(sha256):
            self._derived.pop(name, None)
        return there

    def orphans(self, known: Callable[[Iterable[str]], set[str]], *, older_than: datetime) -> Iterator[str]:
        old = [name for name in self.kept if self._put[name] < older_than]
        used = known(old)
        yield from (name for name in old if name not in used)

    def _read_or_error(self, sha256: str) -> BlobContent:
        try:
            return self.read(sha256)
        except (NotFound, CorruptBlob) as error:
            return error

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
        return f"memory://{'inside' if internal else 'outside'}/{image_id}/{name}?{quote(filename)}&{quote(media_type)}&{inline}&{seconds}"


class MemoryUpload:
    def __init__(self, blobs: MemoryBlobs, *, maximum: int) -> None:
        self.file = io.BytesIO()
        self._blobs, self._most = blobs, maximum

    def write(self, chunk: bytes) -> None:
        self.file.seek(0, io.SEEK_END)
        if self.file.tell() + len(chunk) > self._most:
            self.abort()
            raise ImageTooLarge(f"The file has more than {self._most:,} bytes, which is the maximum")
        self.file.write(chunk)

    def commit(self) -> tuple[str, int]:
        data = self.file.getvalue()
        self.file.close()
        return self._blobs.keep(data), len(data)

    def abort(self) -> None:
        self.file.close()
