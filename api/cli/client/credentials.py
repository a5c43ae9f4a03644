"""The credentials of the command line's client, kept in a file or in environment variables."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from api.cli.client.http_connection import UnusableEnvironment
from application.key_text import is_key


class Credentials(msgspec.Struct, frozen=True):
    url: str
    access_token: str
    refresh_token: str = ""

    @property
    def is_key(self) -> bool:
        """Whether the token is an API key."""
        return is_key(self.access_token)


def token_file() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - Path refuses users without a home
    return Path(folder) / "bioscope" / "token.json"


def store_credentials(credentials: Credentials) -> None:
    """In a file that only its owner can read. Raises UnusableEnvironment."""
    file_path = token_file()
    try:
        file_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _private_file(file_path) as file:
            file.write(msgspec.json.encode(credentials))
    except OSError as error:
        raise UnusableEnvironment(
            f"the token cannot be kept in {file_path} ({error.strerror}): set XDG_CONFIG_HOME to a folder that you can write to"
        ) from None


def stored_credentials() -> Credentials | None:
    """From `BIOSCOPE_KEY` or `BIOSCOPE_TOKEN` (and `BIOSCOPE_URL`), or from the file that `bioscope login` wrote."""
    if token := os.environ.get("BIOSCOPE_KEY") or os.environ.get("BIOSCOPE_TOKEN"):
        return Credentials(os.environ.get("BIOSCOPE_URL", "http://127.0.0.1:8000"), token)
    try:
        return msgspec.json.decode(token_file().read_bytes(), type=Credentials)
    except (FileNotFoundError, NotADirectoryError, PermissionError, msgspec.DecodeError):
        return None


@contextmanager
def _private_file(path: Path) -> Iterator[Any]:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
