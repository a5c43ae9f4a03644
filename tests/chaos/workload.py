"""Clients that work during faults, and record what was acknowledged to them."""

import random
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import httpx

PICTURES = sorted((Path(__file__).parents[2] / "examples" / "micrographs").rglob("*.jpg"))
PATIENCE = 30.0  # seconds until a client gives a request up
PAUSE = 0.05


class Acknowledged(NamedTuple):
    """A promise: `id` exists from `position` on (0 where the answer named none)."""

    kind: str
    id: UUID
    position: int
    at: float


class Journal:
    """What was promised, and how long nobody was answered."""

    def __init__(self):
        self._lock = threading.Lock()
        self.acknowledged: list[Acknowledged] = []
        self.statuses: Counter[int] = Counter()
        self.unanswered = 0
        self.under_way = 0
        self.unexpected: list[str] = []

    def promise(self, kind, promised, position):
        with self._lock:
            self.acknowledged.append(Acknowledged(kind, UUID(promised), position, time.monotonic()))

    def answered(self, answer):
        with self._lock:
            self.statuses[answer.status_code] += 1
            if answer.status_code >= 500 and answer.status_code != 503:
                self.unexpected.append(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:300]}")

    def lost(self):
        with self._lock:
            self.unanswered += 1

    def begun(self):
        with self._lock:
            self.under_way += 1

    def over(self):
        with self._lock:
            self.under_way -= 1

    def of(self, kind):
        with self._lock:
            return [one.id for one in self.acknowledged if one.kind == kind]


class GaveUp(Exception):
    """No answer within PATIENCE."""


class ImageRejected(Exception):
    """Its file was another one when it was inspected."""


class Technician(threading.Thread):
    """Makes datasets, uploads, runs models; repeats with the same key what was not answered, as a good client does."""

    def __init__(self, url, token, journal, *, seed, stop, timeout=20.0):
        super().__init__(name=f"technician-{seed}", daemon=True)
        self._http = httpx.Client(base_url=url, timeout=timeout, headers={"Authorization": f"Bearer {token}"})
        self._journal, self._stop_asked, self._chance = journal, stop, random.Random(seed)
        self._datasets: list[str] = []
        self._images: list[str] = []
        self.failure: BaseException | None = None

    def run(self):
        try:
            while not self._stop_asked.is_set():
                with suppress(GaveUp):
                    self._work()
        except BaseException as error:
            self.failure = error
        finally:
            self._http.close()

    def _work(self):
        if not self._datasets:
            self._make_dataset()
        action = self._chance.choices(
            [self._make_dataset, self._upload, self._run_image, self._run_dataset, self._rename], weights=[2, 10, 6, 1, 3]
        )
        action[0]()

    def _make_dataset(self):
        made = self._post("/api/datasets/", json={"name": f"set {uuid4().hex[:8]}"})
        self._datasets.append(made.json()["id"])
        self._journal.promise("dataset", made.json()["id"], _position(made))

    def _upload(self):
        picture = self._chance.choice(PICTURES)
        dataset = self._chance.choice(self._datasets)
        made = self._post("/api/images/upload", data={"dataset_id": dataset}, files={"file": (picture.name, picture.read_bytes())})
        self._images.append(made.json()["id"])
        self._journal.promise("image", made.json()["id"], _position(made))

    def _run_image(self):
        if self._images:
            image = self._chance.choice(self._images)
            try:
                made = self._post("/api/classifications/run", json={"image_id": image, "fresh": self._chance.random() < 0.5})
            except ImageRejected:
                self._images.remove(image)
            else:
                self._journal.promise("job", made.json()["id"], _position(made))

    def _run_dataset(self):
        made = self._post(
            "/api/classifications/run", json={"dataset_id": self._chance.choice(self._datasets), "fresh": self._chance.random() < 0.5}
        )
        self._journal.promise("job", made.json()["id"], _position(made))

    def _rename(self):
        dataset = self._chance.choice(self._datasets)
        made = self._until_answered("PATCH", f"/api/datasets/{dataset}", json={"name": f"renamed {uuid4().hex[:8]}"})
        self._journal.promise("renaming", dataset, _position(made))

    def _post(self, path, **arguments):
        return self._until_answered("POST", path, headers={"Idempotency-Key": uuid4().hex}, **arguments)

    def _until_answered(self, method, path, **arguments):
        until = time.monotonic() + PATIENCE
        attempt = 0
        while time.monotonic() < until and not (attempt and self._stop_asked.is_set()):
            attempt += 1
            self._journal.begun()
            try:
                answer = self._http.request(method, path, **arguments)
            except httpx.TransportError:
                self._journal.lost()
                time.sleep(PAUSE)
                continue
            finally:
                self._journal.over()
            self._journal.answered(answer)
            if answer.is_success:
                return answer
            if answer.status_code == 409 and "it was rejected" in answer.text:
                raise ImageRejected
            if answer.status_code not in {409, 429, 503} and answer.status_code < 500:
                raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
            time.sleep(PAUSE)
        raise GaveUp


def _position(answer):
    return int(answer.headers.get("X-Event-Position", 0))
