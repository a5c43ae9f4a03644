"""Measures the time until the system works again: a command is acknowledged and visible, and a run has its result."""

import threading
import time
from contextlib import suppress
from typing import NamedTuple
from uuid import uuid4

import httpx

from tests.chaos.workload import PAUSE

GIVEN_UP_AFTER = 120.0  # seconds
ANSWER_WITHIN = 3.0
OPEN = {"pending", "running"}


class Recovery(NamedTuple):
    """Seconds from the fault on; None: not within GIVEN_UP_AFTER."""

    acknowledged: float | None
    visible: float | None
    result: float | None


class Probe:
    """Asks as clients do, through the link that they use; what is acknowledged to it stands in the journal too."""

    def __init__(self, url, token, journal, image):
        self._url, self._headers = url, {"Authorization": f"Bearer {token}", "Prefer": "respond-async"}
        self._journal, self._image = journal, image

    def recovery(self, since):
        """All measured from `since` (monotonic), at the same time. Requests are begun after it."""
        times = {}
        threads = [threading.Thread(target=self._noted, args=(watch, since, times), daemon=True) for watch in (self._shown, self._judged)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Recovery(times.get("acknowledged"), times.get("visible"), times.get("result"))

    def _noted(self, watch, since, times):
        try:
            watch(since, times)
        except Exception as error:
            self._journal.unexpected.append(f"a probe met {type(error).__name__}: {error}")

    def _shown(self, since, times):
        with self._client() as http:
            made = self._until(since, lambda: self._promised(http, "dataset", "/api/datasets/", {"name": f"probe {uuid4().hex[:8]}"}))
            times["acknowledged"] = _seconds(since, made)
            if made:
                path = f"/api/datasets/?page_size=1&min_position={made[1]}"
                times["visible"] = _seconds(since, self._until(since, lambda: self._answer(http, "GET", path) is not None))

    def _judged(self, since, times):
        with self._client() as http:
            made = self._until(
                since, lambda: self._promised(http, "job", "/api/classifications/run", {"image_id": self._image, "fresh": True})
            )
            if made:
                times["result"] = _seconds(since, self._until(since, lambda: self._ended(http, made[0])))

    def _promised(self, http, kind, path, body):
        answer = self._answer(http, "POST", path, json=body, headers={"Idempotency-Key": uuid4().hex})
        if answer is None:
            return None
        position = int(answer.headers["X-Event-Position"])
        self._journal.promise(kind, answer.json()["id"], position)
        return answer.json()["id"], position

    def _ended(self, http, job):
        answer = self._answer(http, "GET", f"/api/classifications/{job}")
        if answer is None or answer.json()["status"] in OPEN:
            return None
        assert answer.json()["status"] == "completed", answer.json()
        return True

    def _answer(self, http, method, path, **arguments):
        with suppress(httpx.TransportError):
            answer = http.request(method, path, **arguments)
            self._journal.answered(answer)
            assert answer.is_success or answer.status_code in {404, 409, 429, 503} or answer.status_code >= 500, answer.text
            return answer if answer.is_success else None
        return None

    def _until(self, since, asked):
        while time.monotonic() - since < GIVEN_UP_AFTER:
            if found := asked():
                return found
            time.sleep(PAUSE / 2)
        return None

    def _client(self):
        return httpx.Client(base_url=self._url, timeout=ANSWER_WITHIN, headers=self._headers)


def _seconds(since, reached):
    return round(time.monotonic() - since, 3) if reached else None
