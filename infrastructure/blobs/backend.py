"""The port to backends of the blob store, with their keys and errors."""

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
"""The folders of renditions, the only derived files that the inference process writes."""
UNFINISHED_RENDITIONS: Final = "pictures"
"""The folder for renditions in progress, separate from uploads, since the inference process may only write here."""
TEMPORARY_PREFIX: Final = "upload-"
"""Prefix of temporary files, since a spool may contain other files."""
ABANDONED_AFTER_SECONDS: Final = 3 * 86400.0
"""Age after which a temporary file is removed, long enough even if a clock is wrong by a day."""

SHA256: Final = re.compile("[0-9a-f]{64}")
DERIVED: Final = re.compile("[a-z0-9_-]+(/[a-z0-9_-]+)*")

Clock = Callable[[], float]
"""Returns seconds since 1970."""


class SignedLink(NamedTuple):
    """An address to sign: for `blob` of an image, which is stored under `key`, and for `holder`."""

    blob: SignedBlob
    key: str
    image_id: UUID
    holder: Holder
    internal: bool


class BlobBackend(Protocol):
    """An fsspec file system, with operations that fsspec lacks.

    `files` is the file system, in which keys are below `root`. `unavailable_errors` mean that it is unavailable or full.
    `max_url_seconds` is the maximum lifetime of a signed address.
    """

    files: Any
    root: str
    unavailable_errors: tuple[type[Exception], ...]
    max_url_seconds: int

    def is_present(self) -> bool:
        """Whether the disk or share is mounted. If not, a missing file proves nothing."""

    def temporary_file(self, key: str) -> tuple[int, str]:
        """Open a new file for content of `key`; return its descriptor and path."""

    def keep(self, file: str, key: str, media_type: str) -> None:
        """Store a temporary file under `key`, durably and atomically. It may be moved."""

    def fetch(self, path: str) -> bytes:
        """The content of a file."""

    def size(self, path: str) -> int | None:
        """The size of a file in bytes; None if that would need a request."""

    def map(self, function: Callable[[str], Any], items: Iterable[str]) -> Iterable[Any]:
        """As the built-in `map`, with a suitable number of concurrent calls."""

    def sign(self, link: SignedLink) -> str:
        """A signed address."""


def original_key(sha256: str) -> str:
    """The key of an uploaded file. Raises NotFound if `sha256` is not a digest."""
    if not SHA256.fullmatch(sha256):
        raise NotFound("There is no such file")
    return f"{ORIGINALS}/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def derived_key(name: str) -> str:
    """The key of a derived file. Raises NotFound for an invalid name."""
    if not DERIVED.fullmatch(name):
        raise NotFound("There is no such file")
    return f"derived/{name}"


@contextmanager
def translated_errors(*unavailable: type[Exception], is_missing: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Raise NotFound for a missing file, and Unavailable for other errors of the file system."""
    try:
        yield
    except unavailable as error:
        if isinstance(error, FileNotFoundError) and is_missing():
            raise NotFound("There is no such file") from None
        log.warning("blob store is unavailable", error=f"{type(error).__name__}: {error}")
        raise blob_store_unavailable() from error


def blob_store_unavailable() -> Unavailable:
    """The error for API clients, who may try again."""
    return Unavailable("The blob store is unavailable or full; try again", retry_after=5)


def temporary_file(folder: Path) -> tuple[int, str]:
    """Create a temporary file; return its descriptor and path."""
    return tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=folder)


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files of killed processes. Does nothing without access to the folder."""
    with suppress(PermissionError):
        for file in folder.glob(f"{TEMPORARY_PREFIX}*"):
            with suppress(FileNotFoundError):
                if file.stat().st_mtime < time.time() - ABANDONED_AFTER_SECONDS:
                    file.unlink()
