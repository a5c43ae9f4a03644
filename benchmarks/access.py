"""The trail of access: what it costs a request, and how fast a batch is appended."""

import time
from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

from api.access_notes import NOTES, Notes
from api.middleware.access_recording import AccessRecorder
from application.limits.access_budget import AccessBudget, BudgetLimits
from benchmarks.measure import Row, database
from domain.access import Actor, Role
from infrastructure.audit.access_log import AccessLog, TrailLimits
from infrastructure.embedded.postgres.server import DATABASE

REQUESTS: Final = 20_000
UNLIMITED: Final = AccessBudget(BudgetLimits(refusals=10**9, all_refusals=10**9, accesses=10**9, all_accesses=10**9))
QUEUED: Final = TrailLimits(queued=10**9, stop_seconds=600.0)
ANNA: Final = Actor(id=uuid4(), role=Role.RESEARCHER)


def rows() -> Iterator[Row]:
    with database() as server:
        trail = AccessLog(server.url(user="postgres", database=DATABASE), limits=QUEUED, budget=UNLIMITED)
        recorder = AccessRecorder(trail, ())
        ordinary = milliseconds(recorder, [_scope("/api/images/{image_id}", 200) for _ in range(REQUESTS)])
        recorded = milliseconds(recorder, [_scope("/api/images/{image_id}/download", 200) for _ in range(REQUESTS)])
        began = time.perf_counter()
        trail.start()
        trail.stop()
        appended = REQUESTS / (time.perf_counter() - began)
        trail.close()
        flooded = AccessRecorder(AccessLog("", limits=QUEUED), ())
        refused = milliseconds(flooded, [_scope("/api/images/{image_id}", 404) for _ in range(REQUESTS)])
    yield Row(name="trail of access: a request that is not recorded", value=ordinary, unit="ms", goal=0.1, at_least=False)
    yield Row(name="trail of access: a recorded request", value=recorded, unit="ms", goal=0.1, at_least=False)
    yield Row(name="trail of access: a refused request in a flood", value=refused, unit="ms", goal=0.1, at_least=False)
    yield Row(name="trail of access: records appended", value=appended, unit="records/s", goal=5000)


def milliseconds(recorder: AccessRecorder, requests: list[tuple[dict[str, Any], int]]) -> float:
    """The mean processor time for one of the requests."""
    began = time.thread_time()
    for scope, status in requests:
        recorder.record(scope, status)
    return (time.thread_time() - began) * 1000 / len(requests)


def _scope(route: str, status: int) -> tuple[dict[str, Any], int]:
    scope = {
        "method": "GET",
        "path_template": route,
        "path_params": {"image_id": uuid4()},
        "query_string": b"",
        "client": ("192.0.2.7", 50_000),
        "headers": [(b"host", b"bioscope.example.org"), (b"authorization", b"Bearer token"), (b"user-agent", b"browser")],
        "state": {"request_id": uuid4().hex, NOTES: Notes(actor=ANNA)},
    }
    return scope, status
