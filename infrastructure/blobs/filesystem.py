"""The blob store backend in a local folder."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import fsspec

from application.signed_downloads import LocalAddress
from infrastructure.atomic_files import sync
from infrastructure.blobs.backend import (
    ORIGINALS,
    RENDITIONS,
    UNFINISHED_RENDITIONS,
    SignedLink,
    remove_abandoned,
    temporary_file,
    translated_errors,
)
from infrastructure.configuration.settings import Settings
from infrastructure.security.keys import Keys
from infrastructure.security.signed_urls import seal

MAX_URL_SECONDS: Final = 3600


def blobs_folder(settings: Settings) -> Path:
    return Path(settings.blobs_url or settings.data / "blobs").absolute()


class FolderBackend:
    """Implements `BlobBackend`. Its addresses are those of the API, which sends the files."""

    unavailable_errors: tuple[type[Exception], ...] = (OSError,)
    max_url_seconds = MAX_URL_SECONDS

    def __init__(self, settings: Settings, keys: Keys) -> None:
        """Create the folders. Raises Unavailable."""
        self._settings, self._keys = settings, keys
        self._folder = blobs_folder(settings)
        self._uploads, self._renditions = self._folder / "uploads", self._folder / UNFINISHED_RENDITIONS
        with translated_errors(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for unfinished in (self._uploads, self._renditions):
                unfinished.mkdir(exist_ok=True, mode=0o700)
                remove_abandoned(unfinished)
        self._synced = {str(self._folder)}
        self.root = str(self._folder)
        self.files: Any = fsspec.filesystem("file", skip_instance_cache=True, use_listings_cache=False)

    def is_present(self) -> bool:
        return self._uploads.is_dir()

    def temporary_file(self, key: str) -> tuple[int, str]:
        return temporary_file(self._renditions if key.startswith(RENDITIONS) else self._uploads)

    def keep(self, file: str, key: str, media_type: str) -> None:  # noqa: ARG002 - the address contains it
        folder, name = os.path.split(f"{self.root}/{key}")
        sync(file)
        if folder not in self._synced:
            self._make_folder(folder)
        os.replace(file, f"{folder}/{name}")  # noqa: PTH105 - faster without Path
        if key.startswith(ORIGINALS):  # derived files can be made again
            self._sync_folders(folder)

    def fetch(self, path: str) -> bytes:
        with open(path, "rb") as file:  # noqa: PTH123 - faster without Path
            return file.read()

    def size(self, path: str) -> int:
        return os.stat(path).st_size  # noqa: PTH116 - faster without Path

    def map(self, function: Callable[[str], Any], items: Iterable[str]) -> Iterable[Any]:
        return map(function, items)

    def sign(self, link: SignedLink) -> str:
        base = self._settings.local_url if link.internal else self._settings.base_url
        return f"{base.rstrip('/')}/api/blobs/{seal(self._keys, LocalAddress.of(link.blob, link.image_id, link.holder))}"

    def _make_folder(self, folder: str) -> None:
        """Create `folder` and its parents. Raises FileNotFoundError if the root is missing, such as an unmounted share."""
        path = self.root
        for part in Path(folder).relative_to(self._folder).parts:
            path = f"{path}/{part}"
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)  # noqa: PTH102 - faster without Path

    def _sync_folders(self, folder: str) -> None:
        """Flush the directory entries of `folder` to disk, and once those of its parents."""
        sync(folder)
        while folder not in self._synced:
            above = str(Path(folder).parent)
            sync(above)
            self._synced.add(folder)
            folder = above
