"""All metrics. Each process counts its own work; the API adds the status of the whole system."""

from functools import cache
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from infrastructure.postgres.system.status import SystemStatus

disable_created_metrics()  # type: ignore[no-untyped-call]

LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds

APPEND_COMMANDS: Final = Histogram(
    "bioscope_append_batch_commands", "Commands in one transaction of the event store.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
APPEND_SECONDS: Final = Histogram("bioscope_append_seconds", "Duration of one transaction of the event store.", buckets=LATENCY_BUCKETS)
APPENDS: Final = Counter("bioscope_appends", "Commands by how their append ended.", ["outcome"])
REQUEST_SECONDS: Final = Histogram(
    "bioscope_http_request_seconds", "Duration of HTTP requests.", ["method", "route"], buckets=LATENCY_BUCKETS
)
REQUESTS: Final = Counter("bioscope_http_requests", "HTTP requests.", ["method", "route", "status"])
IMAGES: Final = Counter("bioscope_inference_images", "Images that a worker answered for.", ["outcome"])

HEAD: Final = Gauge("bioscope_log_events", "Events in the log.")
RELAY_LAG: Final = Gauge("bioscope_relay_lag_events", "Events that Kafka does not have yet.")
RELAY_AGE: Final = Gauge("bioscope_relay_lag_seconds", "Age of the oldest event that Kafka does not have yet.")
PROJECTION_LAG: Final = Gauge("bioscope_projection_lag_events", "Events that the read models do not show yet.", ["projection"])
PROJECTION_AGE: Final = Gauge("bioscope_projection_lag_seconds", "Age of the oldest event that is not shown yet.", ["projection"])
DEAD_LETTERS: Final = Gauge("bioscope_dead_letters", "Events that could not be applied.")
PARKED: Final = Gauge("bioscope_parked_events", "Events that wait behind dead letters.")
TASK_AGE: Final = Gauge("bioscope_task_age_seconds", "Since the oldest unanswered task was given out.")
LONG_STREAMS: Final = Gauge("bioscope_long_streams", "Streams of more than 1,000 events, which take long to load; jobs are left out.")
WORKERS: Final = Gauge("bioscope_inference_workers", "Inference processes seen within 10 s.")
SCHEDULING: Final = Gauge("bioscope_scheduler_leads", "1 while some process schedules.")
PAUSED: Final = Gauge("bioscope_paused_processes", "Processes that pause until they are upgraded.", ["process"])

BROKEN_CHAIN: Final = Gauge("bioscope_log_chain_broken", "1 once the relay found that the log is not what was written; it signs no more.")
DISCREPANCIES: Final = Gauge("bioscope_record_discrepancies", "Claims, password hashes and data keys that are a table differs from the log.")
RECONCILED_AT: Final = Gauge("bioscope_record_reconciled_timestamp_seconds", "When they were last compared.")

ORPHANS_FREED: Final = Counter("bioscope_orphans_freed", "Stored files that nothing referred to any more, and that were freed.")
ORPHANS_LEFT: Final = Gauge("bioscope_orphans_left", "Stored files that the last sweep left for events that could not be applied.")
ORPHANS_SWEPT_AT: Final = Gauge("bioscope_orphans_swept_timestamp_seconds", "When stored files were last swept, to the end.")
PRUNED: Final = Counter("bioscope_pruned_rows", "Rows beside the log that were removed, since nobody needs them any more.", ["table"])
PRUNED_AT: Final = Gauge("bioscope_pruned_timestamp_seconds", "When such rows were last removed, to the end.")

MAIN: Final = "main"
DECLARED_KINDS: Final = ("api", "projector", "inference")
COUNTER_LABELS: Final = {"projected_events": "source", "rejected_records": "reason"}


class StoredCounters(Collector):
    """What all processes together have counted in the table `ops.counters`, as it was last read."""

    def __init__(self) -> None:
        self.status: SystemStatus | None = None

    def collect(self) -> list[CounterMetricFamily]:
        families: dict[str, CounterMetricFamily] = {}
        for counter in self.status.counters if self.status else ():
            label = COUNTER_LABELS.get(counter.name, "label")
            family = families.setdefault(
                counter.name, CounterMetricFamily(f"bioscope_{counter.name}", "Counted by all processes.", labels=[label])
            )
            family.add_metric([counter.label], counter.value)
        return list(families.values())


STORED_COUNTERS: Final = StoredCounters()
REGISTRY.register(STORED_COUNTERS)


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """`method` and `route` must have few values: each pair is kept for ever."""
    durations, requests = _of_requests(method, route, status)
    durations.observe(seconds)
    requests.inc()


@cache
def _of_requests(method: str, route: str, status: int) -> tuple[Histogram, Counter]:
    return REQUEST_SECONDS.labels(method, route), REQUESTS.labels(method, route, str(status))


def observe_status(status: SystemStatus) -> None:
    HEAD.set(status.head)
    RELAY_LAG.set(status.unpublished)
    RELAY_AGE.set(status.unpublished_age)
    PROJECTION_LAG.labels(MAIN).set(max(0, status.head - status.projected))
    PROJECTION_AGE.labels(MAIN).set(status.unprojected_age)
    DEAD_LETTERS.set(status.dead_letters)
    PARKED.set(status.parked)
    TASK_AGE.set(status.task_age)
    LONG_STREAMS.set(status.long_streams)
    WORKERS.set(status.workers)
    SCHEDULING.set(status.scheduling)
    for kind in DECLARED_KINDS:
        PAUSED.labels(kind).set(sum(bool(process.paused) for process in status.processes if process.kind == kind))
    STORED_COUNTERS.status = status


def exposition() -> bytes:
    """Prometheus' text form of all of them."""
    return generate_latest(REGISTRY)
