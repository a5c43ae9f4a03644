"""Backends of the blob store: their protocol, their keys and their errors."""

import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

import structlog

from application import derivatives
from application.signed_downloads import Holder, SignedBlob
from domain.errors import NotFound, Unavailable

log = structlog.get_logger()

ORIGINALS: Final = "sha256"
"""The folder of uploaded files and models."""
RENDITIONS: Final = tuple(f"derived/{kind}" for kind in derivatives.KINDS)
"""The folders of renditions, which inference makes. It has nothing to do with other derived files."""
UNFINISHED_RENDITIONS: Final = "pictures"
"""The folder of renditions that are being written. Uploads are elsewhere, where inference cannot write."""
TEMPORARY_PREFIX: Final = "upload-"
"""The beginning of the names of temporary files: a spool may hold other things."""
ABANDONED_AFTER_SECONDS: Final = 3 * 86400.0
"""The age at which a temporary file is removed, even if a clock is wrong by a day."""

SHA256: Final = re.compile("[0-9a-f]{64}")
DERIVED: Final = re.compile("[a-z0-9_-]+(/[a-z0-9_-]+)*")

Clock = Callable[[], float]
"""Seconds since 1970."""


class SignedLink(NamedTuple):
    """An address to be signed: of `blob`, which is stored under `key` and belongs to an image, for `holder`."""

    blob: SignedBlob
    key: str
    image_id: UUID
    holder: Holder
    internal: bool


class BlobBackend(Protocol):
    """An fsspec file system, and what fsspec does not do as the store needs it.

    `files` is the file system, and keys lie below `root` in it. `unavailable_errors` are the errors that say that it is away or full.
    `max_url_seconds` is the longest lifetime of a signed address.
    """

    files: Any
    root: str
    unavailable_errors: tuple[type[Exception], ...]
    max_url_seconds: int

    def is_present(self) -> bool:
        """Whether the disk or share is mounted: if not, a file that is not found may exist."""

    def temporary_file(self, key: str) -> tuple[int, str]:
        """Open a new file for bytes that will be kept under `key`: its descriptor and path."""

    def keep(self, file: str, key: str, media_type: str) -> None:
        """Put the bytes of a temporary file under `key`, durably, all or nothing. It may move the file away."""

    def fetch(self, path: str) -> bytes:
        """All bytes of a file."""

    def size(self, path: str) -> int | None:
        """The bytes of a file; None where asking costs a request."""

    def map(self, function: Callable[[str], Any], items: Iterable[str]) -> Iterable[Any]:
        """As the built-in `map`, as many at once as is quickest."""

    def sign(self, link: SignedLink) -> str:
        """A signed address."""


def original_key(sha256: str) -> str:
    """Raises NotFound for what is no digest."""
    if not SHA256.fullmatch(sha256):
        raise NotFound("There is no such file")
    return f"{ORIGINALS}/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def derived_key(name: str) -> str:
    """Raises NotFound for what is no name of a derived file."""
    if not DERIVED.fullmatch(name):
        raise NotFound("There is no such file")
    return f"derived/{name}"


@contextmanager
def translated_errors(*unavailable: type[Exception], is_missing: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Raise NotFound for a file that is missing, and Unavailable for the other errors of a file system."""
    try:
        yield
    except unavailable as error:
        if isinstance(error, FileNotFoundError) and is_missing():
            raise NotFound("There is no such file") from None
        log.warning("blob store is away", error=f"{type(error).__name__}: {error}")
        raise blob_store_unavailable() from error


def blob_store_unavailable() -> Unavailable:
    """For callers of the API, who may try again."""
    return Unavailable("The file store is away or full; try again", retry_after=5)


def temporary_file(folder: Path) -> tuple[int, str]:
    """The descriptor and the path of a new file."""
    return tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=folder)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of killed processes. A process without access to the folder leaves that to others."""
    with suppress(PermissionError):
        for file in folder.glob(f"{TEMPORARY_PREFIX}*"):
            with suppress(FileNotFoundError):
                if file.stat().st_mtime < time.time() - ABANDONED_AFTER_SECONDS:
                    file.unlink()
