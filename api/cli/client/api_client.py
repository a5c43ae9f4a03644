"""A small client of the API, for the command line: sign in, upload, run, watch, read."""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path, PurePosixPath
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import quote
from uuid import uuid4

import httpx
import msgspec

from api.cli.client.credentials import Credentials
from api.cli.client.http_connection import open_http
from api.cli.client.image_folder import ImageFile, image_file

MAX_CONCURRENT_UPLOADS = 4
POLL_INTERVAL_SECONDS = 0.15
MAX_POLL_INTERVAL_SECONDS = 2.0
MAX_OUTAGE_SECONDS = 300.0
VISIBLE_TIMEOUT_SECONDS = 30.0
PAGE_SIZE = 200
UPLOAD_PIECE_BYTES = 256 * 1024
OUTAGES = frozenset({httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT})
DIGEST_TAG = re.compile('"([0-9a-f]{64})"')
IN_WORDS_OF_COMMANDS = {"Classification not found": "Job not found", "ClassificationResult not found": "Result not found"}
ENDED = frozenset({"completed", "failed", "cancelled"})


class RequestRefused(Exception):
    """The server refused a request; the text is the server's."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class DamagedDownload(Exception):
    """The bytes that arrived are not those of the file."""


class NotVisible(Exception):
    """The server has accepted something, and its queries do not show it within the timeout."""

    noun = "it"

    def __init__(self, name: str, url: str) -> None:
        super().__init__(
            f"{self.noun} {name} was created, but the server does not show it yet, because its read models are behind the log:"
            f" see {url.rstrip('/')}/health/ready"
        )


class JobNotVisible(NotVisible):
    noun = "job"


class CheckNotVisible(NotVisible):
    noun = "check"


class UploadedFile:
    """The content of a file as a request sends it, piece by piece, from its start each time. `sent` is called with the bytes of each."""

    def __init__(self, file: BinaryIO, sent: Callable[[int], object]) -> None:
        self._file, self._sent = file, sent

    @property
    def size(self) -> int:
        return self._file.seek(0, os.SEEK_END)

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while piece := self._file.read(UPLOAD_PIECE_BYTES):
            yield piece
            self._sent(len(piece))


class UploadResult(msgspec.Struct, frozen=True):
    """`refused` is the reason where the file was not accepted."""

    image: ImageFile
    id: str = ""
    refused: str = ""


class Client:
    """`watch` waits at most `visible_timeout_seconds` until queries show a new job, and `max_outage_seconds` while the server is away."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        store: Callable[[Credentials], None] = lambda _: None,
        visible_timeout_seconds: float = VISIBLE_TIMEOUT_SECONDS,
        max_outage_seconds: float = MAX_OUTAGE_SECONDS,
    ) -> None:
        self.credentials, self._store = credentials, store
        self._visible_timeout_seconds, self._max_outage_seconds = visible_timeout_seconds, max_outage_seconds
        self._http = open_http(credentials.url)

    @classmethod
    def sign_in(cls, url: str, email: str, password: str, *, store: Callable[[Credentials], None] = lambda _: None) -> Self:
        """Raises RequestRefused and UnusableEnvironment."""
        with open_http(url) as http:
            answer = _checked(http.post("/api/auth/login", json={"email": email, "password": password})).json()
        credentials = Credentials(url, answer["access_token"], answer.get("refresh_token", ""))
        store(credentials)
        return cls(credentials, store=store)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def call(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **arguments: Any) -> httpx.Response:
        """Send a request; refresh an expired access token once. Raises RequestRefused."""
        answer = self._http.request(method, path, headers={**self._headers(method), **(headers or {})}, **arguments)
        if answer.status_code == httpx.codes.UNAUTHORIZED and self.credentials.refresh_token:
            self._refresh()
            answer = self._http.request(method, path, headers={**self._headers(method), **(headers or {})}, **arguments)
        return _checked(answer)

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, params=_given(query)).json()

    def post(self, path: str, body: object) -> Any:
        return self.call("POST", path, json=body).json()

    def download(self, path: str, **query: object) -> Iterator[bytes]:
        """A file, piece by piece, compared with its sha256 where the ETag is one. Raises RequestRefused, DamagedDownload."""
        digest = sha256()
        with self._http.stream("GET", path, params=_given(query), headers=self._headers("GET")) as answer:
            if not answer.is_success:
                answer.read()
            for piece in _checked(answer).iter_bytes():
                digest.update(piece)
                yield piece
            expected = DIGEST_TAG.fullmatch(answer.headers.get("etag", ""))
        if expected and digest.hexdigest() != expected[1]:
            raise DamagedDownload("the file did not arrive as it is stored: try again")

    def renew(self) -> None:
        """Refresh an expired access token, before a request that is not repeated. Keys are not refreshed. Raises RequestRefused."""
        if self.credentials.refresh_token:
            self.get("/api/users/me")

    def create_dataset(self, name: str) -> str:
        return str(self.post("/api/datasets", {"name": name})["id"])

    def upload(self, dataset: str, path: Path) -> UploadResult:
        return self.upload_image(dataset, image_file(path, path.parent))

    def upload_image(self, dataset: str, image: ImageFile) -> UploadResult:
        """A file that the server refuses, or that cannot be read, is reported in the result."""
        fields = {"dataset_id": dataset, "path": image.name}
        try:
            with image.path.open("rb") as file:
                answer = self.call("POST", "/api/images/upload", data=fields, files={"file": (PurePosixPath(image.name).name, file)})
        except RequestRefused as refused:
            return UploadResult(image, refused=str(refused))
        except OSError as error:
            return UploadResult(image, refused=f"cannot be read: {error.strerror}")
        return UploadResult(image, id=str(answer.json()["id"]))

    def upload_all(self, dataset: str, images: Iterable[ImageFile]) -> Iterator[UploadResult]:
        with ThreadPoolExecutor(MAX_CONCURRENT_UPLOADS) as pool:
            yield from pool.map(lambda image: self.upload_image(dataset, image), images)

    def run(self, dataset: str, model: str | None = None, *, choices: Mapping[str, Any] = MappingProxyType({})) -> str:
        """Start a job over a dataset, with further fields of the request; its id. Raises RequestRefused."""
        named = {} if model is None else {"model_name": model}
        return str(self.start_job({"dataset_id": dataset, **named, **choices})["id"])

    def start_job(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The new job. Raises RequestRefused."""
        job: dict[str, Any] = self.post("/api/classifications/run", request)
        return job

    def require_choices(self, choices: Mapping[str, Any]) -> None:
        """Let the server judge the choices of a job, as `run` takes them, before there is a dataset. Raises RequestRefused."""
        try:
            self.run(str(uuid4()), choices=choices)
        except RequestRefused as refused:
            if refused.status != httpx.codes.NOT_FOUND:
                raise

    def add_model(self, filename: str, file: BinaryIO, *, sent: Callable[[int], object] = lambda _: None) -> str:
        """Upload a model package, a zip archive; return the id of its check. Raises RequestRefused."""
        self.renew()
        content = UploadedFile(file, sent)
        headers = {"Content-Type": "application/zip", "Content-Length": str(content.size)}
        answer = self.call("POST", "/api/models", params={"filename": filename}, content=content, headers=headers)
        return str(answer.json()["id"])

    def test_model(self, name: str, number: int) -> str:
        """Ask for another check of a version; return its id. Raises RequestRefused."""
        return str(self.call("POST", f"/api/models/{quote(name, safe='')}/versions/{number}/checks").json()["id"])

    def checked(self, check: str) -> dict[str, Any]:
        """The check once it has its answer. Raises RequestRefused and CheckNotVisible."""
        path = f"/api/model-checks/{check}"
        state = self._first(path, CheckNotVisible(check, self.credentials.url))
        while state["status"] == "pending":
            time.sleep(POLL_INTERVAL_SECONDS)
            state = self.get(path)
        return state

    def watch(self, job: str, *, on_outage: Callable[[], object] = lambda: None) -> Iterator[dict[str, Any]]:
        """The job's states until it has ended. `on_outage` is called when the server does not answer any more.

        Raises RequestRefused and JobNotVisible, and httpx.TransportError if the server stays away.
        """
        started = time.monotonic()
        state = self._first_state(job)
        yield state
        while state["status"] not in ENDED:
            time.sleep(_poll_interval(time.monotonic() - started))
            state = self._after_outage(lambda: self._state(job), on_outage)
            yield state

    def results(self, job: str) -> list[dict[str, Any]]:
        return self.all(f"/api/classification-results/classification/{job}")

    def failures(self, job: str) -> list[dict[str, Any]]:
        """The images that the job covers and has no result for."""
        return self.all(f"/api/classifications/{job}/failures")

    def model_version(self, model: str, number: int) -> dict[str, Any]:
        """A version of the model with this id; empty if the server does not show it."""
        versions = self.get(f"/api/models/{model}")["versions"]
        return next((version for version in versions if version["number"] == number), {})

    def images(self, dataset: str) -> list[dict[str, Any]]:
        return self.all("/api/images/", dataset_id=dataset)

    def all(self, path: str, *, maximum: int | None = None, **query: object) -> list[dict[str, Any]]:
        """All items of a list, or the first `maximum`, page by page. Parameters that are None are left out."""
        size = PAGE_SIZE if maximum is None else min(maximum, PAGE_SIZE)
        answer = self.call("GET", path, params={**_given(query), "page_size": size})
        items: list[dict[str, Any]] = answer.json()
        while (maximum is None or len(items) < maximum) and (next_page := answer.links.get("next", {}).get("url")):
            answer = self.call("GET", str(answer.url.join(next_page)))
            items += answer.json()
        return items[:maximum]

    def _state(self, job: str) -> dict[str, Any]:
        state: dict[str, Any] = self.get(f"/api/classifications/{job}")
        return state

    def _first_state(self, job: str) -> dict[str, Any]:
        return self._first(f"/api/classifications/{job}", JobNotVisible(job, self.credentials.url))

    def _first(self, path: str, not_visible: NotVisible) -> dict[str, Any]:
        """What was created, once queries show it. Raises `not_visible` after the timeout."""
        deadline = time.monotonic() + self._visible_timeout_seconds
        while True:
            try:
                state: dict[str, Any] = self.get(path)
            except RequestRefused as refused:
                if refused.status != httpx.codes.NOT_FOUND:
                    raise
            else:
                return state
            if time.monotonic() >= deadline:
                raise not_visible
            time.sleep(POLL_INTERVAL_SECONDS)

    def _after_outage(self, read: Callable[[], dict[str, Any]], on_outage: Callable[[], object]) -> dict[str, Any]:
        """What `read` gives as soon as the server answers. Raises its error after the maximum."""
        away_since: float | None = None
        while True:
            try:
                return read()
            except (httpx.TransportError, RequestRefused) as error:
                if isinstance(error, RequestRefused) and error.status not in OUTAGES:
                    raise
                if away_since is None:
                    away_since = time.monotonic()
                    on_outage()
                if time.monotonic() - away_since >= self._max_outage_seconds:
                    raise
            time.sleep(min(MAX_POLL_INTERVAL_SECONDS, self._max_outage_seconds / 4))

    def _headers(self, method: str) -> dict[str, str]:
        key = {"Idempotency-Key": str(uuid4())} if method == "POST" else {}
        return {"Authorization": f"Bearer {self.credentials.access_token}"} | key

    def _refresh(self) -> None:
        answer = self._http.post("/api/auth/refresh", headers={"Authorization": f"Bearer {self.credentials.refresh_token}"})
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise RequestRefused(answer.status_code, "your session has ended: sign in again with `bioscope login`")
        tokens = _checked(answer).json()
        self.credentials = Credentials(self.credentials.url, tokens["access_token"], tokens.get("refresh_token", ""))
        self._store(self.credentials)


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _poll_interval(seconds: float) -> float:
    """The interval between two requests for a job's state; it grows with the time for which the job has been watched."""
    return min(max(POLL_INTERVAL_SECONDS, seconds / 50), MAX_POLL_INTERVAL_SECONDS)


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
        detail = str(problem.get("detail") or problem)
        detail = IN_WORDS_OF_COMMANDS.get(detail, detail)
    except (json.JSONDecodeError, AttributeError):
        detail = answer.reason_phrase
    raise RequestRefused(answer.status_code, detail)
