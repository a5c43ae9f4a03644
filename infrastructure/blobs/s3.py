"""The blob store backend on S3."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from fsspec.asyn import sync as run_in_loop

from application.signed_downloads import SignedBlob
from infrastructure.blobs.backend import RENDITIONS, UNFINISHED_RENDITIONS, Clock, SignedLink, remove_abandoned, temporary_file
from infrastructure.configuration.settings import Settings

MAX_URL_SECONDS: Final = 240
"""An address works for up to a quarter longer, so for at most 300 s, since S3 cannot revoke it."""


class S3Limits(NamedTuple):
    """`put_seconds` limits all attempts together, plus one second for each `min_bytes_per_second` of the file.

    The client itself has no time limit for sending a body to a dead peer.
    """

    answer_seconds: int = 5
    attempts: int = 3
    unacknowledged_seconds: int = 7
    put_seconds: float = 10.0
    min_bytes_per_second: int = 64 * 1024
    concurrent_reads: int = 16
    signed_addresses: int = 4096


DEFAULT_LIMITS: Final = S3Limits()


def is_on_s3(settings: Settings) -> bool:
    return settings.blobs_url.startswith("s3://")


class S3Backend:
    """Implements `BlobBackend`. Its addresses are those of the object store."""

    max_url_seconds = MAX_URL_SECONDS

    def __init__(self, settings: Settings, clock: Clock, limits: S3Limits = DEFAULT_LIMITS) -> None:
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # noqa: PLC0415 - slow to import

        self._clock, self._limits = clock, limits
        self.unavailable_errors: tuple[type[Exception], ...] = (OSError, BotoCoreError)
        self.root = settings.blobs_url.removeprefix("s3://").strip("/")
        self.files: Any = _file_system(settings, settings.blobs_endpoint, limits)
        public = settings.blobs_public_endpoint
        self._public_files = _file_system(settings, public, limits) if public else self.files
        self._spool = settings.spool_path
        self._renditions = self._spool / UNFINISHED_RENDITIONS
        for unfinished in (self._spool, self._renditions):
            with suppress(OSError):  # the first upload reports it
                remove_abandoned(unfinished)
        self._threads = ThreadPoolExecutor(limits.concurrent_reads, thread_name_prefix="blobs")
        self._presigned = lru_cache(maxsize=limits.signed_addresses)(self._presign)

    def is_present(self) -> bool:
        return True

    def temporary_file(self, key: str) -> tuple[int, str]:
        """Create the spool again if it was removed; its content is temporary."""
        spool = self._renditions if key.startswith(RENDITIONS) else self._spool
        try:
            return temporary_file(spool)
        except FileNotFoundError:
            spool.mkdir(mode=0o700, parents=True, exist_ok=True)
            return temporary_file(spool)

    def keep(self, file: str, key: str, media_type: str) -> None:
        size = os.stat(file).st_size  # noqa: PTH116 - faster without Path
        within = self._limits.put_seconds + size / self._limits.min_bytes_per_second

        async def put() -> None:
            async with asyncio.timeout(within):
                await self.files._put_file(file, f"{self.root}/{key}", ContentType=media_type)  # noqa: SLF001 - for async callers

        run_in_loop(self.files.loop, put)

    def fetch(self, path: str) -> bytes:
        data: bytes = self.files.cat_file(path)
        return data

    def size(self, path: str) -> None:  # noqa: ARG002
        return None

    def map(self, function: Callable[[str], Any], items: Iterable[str]) -> Iterable[Any]:
        return self._threads.map(function, items)

    def sign(self, link: SignedLink) -> str:
        return self._presigned(link.blob, link.key, link.internal)

    def _presign(self, blob: SignedBlob, key: str, internal: bool) -> str:  # noqa: FBT001
        """Sign an address. Cached, because signatures contain their time, and an address must stay the same within its window."""
        headers = {
            "ResponseContentType": blob.served_type,
            "ResponseContentDisposition": blob.disposition,
            "ResponseCacheControl": blob.cache_control(self._clock()),
        }
        files = self.files if internal else self._public_files
        return str(files.url(f"{self.root}/{key}", expires=blob.ends - int(self._clock()), **headers))


def spool_of_renditions(settings: Settings) -> Path:
    """The folder in which renditions are collected before they are sent."""
    return settings.spool_path.absolute() / UNFINISHED_RENDITIONS


def _file_system(settings: Settings, endpoint: str, limits: S3Limits) -> Any:
    import s3fs  # noqa: PLC0415 - slow to import, and not needed for a local folder

    def with_timeout(address: Any) -> socket.socket:
        """A socket that is closed if its peer does not acknowledge sent data in time."""
        family, kind, protocol, _, _ = address
        created = socket.socket(family, kind, protocol)
        with suppress(OSError, AttributeError):  # not on Linux
            created.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limits.unacknowledged_seconds * 1000)
        return created

    files = s3fs.S3FileSystem(
        key=settings.blobs_key or None,
        secret=settings.blobs_secret or None,
        endpoint_url=endpoint or None,
        config_kwargs={
            "signature_version": "s3v4",
            "connector_args": {"socket_factory": with_timeout},
            "connect_timeout": limits.answer_seconds,
            "read_timeout": limits.answer_seconds,
            "retries": {"max_attempts": 0},  # s3fs repeats
            "request_checksum_calculation": "when_required",  # names are digests, and some servers do not support checksum trailers
            "response_checksum_validation": "when_required",
        }
        | ({"s3": {"addressing_style": "path"}} if endpoint else {}),
        max_concurrency=1,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    files.retries = limits.attempts
    return files
