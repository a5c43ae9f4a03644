"""A small client of the API, for the command line: sign in, upload, run, watch, read."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx
import msgspec

from api.cli.client.http_connection import UnusableEnvironment, open_http
from api.cli.client.image_folder import ImageFile, image_file

UPLOADS_AT_ONCE = 4
POLL_SECONDS = 0.15
TOKEN_FILE = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "bioscope" / "token.json"  # noqa: PTH111 - Path refuses users without a home
ENDED = frozenset({"completed", "failed", "cancelled"})


class Refused(Exception):
    """The server said no; the text is its own sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Credentials(msgspec.Struct, frozen=True):
    url: str
    access_token: str
    refresh_token: str = ""


class Uploaded(msgspec.Struct, frozen=True):
    """`refused` is the reason where the file was not taken."""

    image: ImageFile
    id: str = ""
    refused: str = ""


class Client:
    def __init__(self, credentials: Credentials, *, keep: Callable[[Credentials], None] = lambda _: None) -> None:
        self.credentials, self._keep = credentials, keep
        self._http = open_http(credentials.url)

    @classmethod
    def sign_in(cls, url: str, email: str, password: str, *, keep: Callable[[Credentials], None] = lambda _: None) -> Self:
        """Raises Refused and UnusableEnvironment."""
        with open_http(url) as http:
            answer = _checked(http.post("/api/auth/login", json={"email": email, "password": password})).json()
        credentials = Credentials(url, answer["access_token"], answer.get("refresh_token", ""))
        keep(credentials)
        return cls(credentials, keep=keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request; an ended access token is renewed once. Raises Refused."""
        answer = self._http.request(method, path, headers=self._headers(method), **arguments)
        if answer.status_code == httpx.codes.UNAUTHORIZED and self.credentials.refresh_token:
            self._refresh()
            answer = self._http.request(method, path, headers=self._headers(method), **arguments)
        return _checked(answer)

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, params=query).json()

    def post(self, path: str, body: object) -> Any:
        return self.call("POST", path, json=body).json()

    def create_dataset(self, name: str) -> str:
        return str(self.post("/api/datasets", {"name": name})["id"])

    def upload(self, dataset: str, path: Path) -> Uploaded:
        return self.upload_image(dataset, image_file(path, path.parent))

    def upload_image(self, dataset: str, image: ImageFile) -> Uploaded:
        """A file that the server refuses, or that cannot be read, is reported in the result."""
        fields = {"dataset_id": dataset, "path": image.name}
        try:
            with image.path.open("rb") as file:
                answer = self.call("POST", "/api/images/upload", data=fields, files={"file": (PurePosixPath(image.name).name, file)})
        except Refused as refused:
            return Uploaded(image, refused=str(refused))
        except OSError as error:
            return Uploaded(image, refused=f"cannot be read: {error.strerror}")
        return Uploaded(image, id=str(answer.json()["id"]))

    def upload_all(self, dataset: str, images: Iterable[ImageFile]) -> Iterator[Uploaded]:
        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
            yield from pool.map(lambda image: self.upload_image(dataset, image), images)

    def run(self, dataset: str, model: str | None) -> str:
        body = {"dataset_id": dataset} | ({"model_name": model} if model else {})
        return str(self.post("/api/classifications/run", body)["id"])

    def watch(self, job: str) -> Iterator[dict[str, Any]]:
        """The job's states until it has ended."""
        while True:
            state = self.get(f"/api/classifications/{job}")
            yield state
            if state["status"] in ENDED:
                return
            time.sleep(POLL_SECONDS)

    def results(self, job: str) -> list[dict[str, Any]]:
        """All results of a job, page by page."""
        answer = self.call("GET", f"/api/classification-results/classification/{job}")
        found: list[dict[str, Any]] = answer.json()
        while following := answer.links.get("next", {}).get("url"):
            answer = self.call("GET", str(answer.url.join(following)))
            found += answer.json()
        return found

    def _headers(self, method: str) -> dict[str, str]:
        key = {"Idempotency-Key": str(uuid4())} if method == "POST" else {}
        return {"Authorization": f"Bearer {self.credentials.access_token}"} | key

    def _refresh(self) -> None:
        answer = self._http.post("/api/auth/refresh", headers={"Authorization": f"Bearer {self.credentials.refresh_token}"})
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise Refused(answer.status_code, "your session has ended: sign in again with `bioscope login`")
        said = _checked(answer).json()
        self.credentials = Credentials(self.credentials.url, said["access_token"], said.get("refresh_token", ""))
        self._keep(self.credentials)


def keep_credentials(credentials: Credentials) -> None:
    """In a file that only its owner can read. Raises UnusableEnvironment."""
    try:
        TOKEN_FILE.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _private(TOKEN_FILE) as file:
            file.write(msgspec.json.encode(credentials))
    except OSError as error:
        raise UnusableEnvironment(
            f"the token cannot be kept in {TOKEN_FILE} ({error.strerror}): set XDG_CONFIG_HOME to a folder that you can write to"
        ) from None


def kept_credentials() -> Credentials | None:
    """From `BIOSCOPE_TOKEN` (and `BIOSCOPE_URL`), or from the file that `bioscope login` wrote."""
    if token := os.environ.get("BIOSCOPE_TOKEN"):
        return Credentials(os.environ.get("BIOSCOPE_URL", "http://127.0.0.1:8000"), token)
    try:
        return msgspec.json.decode(TOKEN_FILE.read_bytes(), type=Credentials)
    except (FileNotFoundError, NotADirectoryError, PermissionError, msgspec.DecodeError):
        return None


@contextmanager
def _private(path: Path) -> Iterator[Any]:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    try:
        said = answer.json()
        detail = str(said.get("detail") or said)
    except (json.JSONDecodeError, AttributeError):
        detail = answer.reason_phrase
    raise Refused(answer.status_code, detail)
