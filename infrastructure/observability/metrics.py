"""All metrics. Each process counts its own work; the API also exports the status of the whole system."""

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
APPENDS: Final = Counter("bioscope_appends", "Commands by outcome of their append.", ["outcome"])
REQUEST_SECONDS: Final = Histogram(
    "bioscope_http_request_seconds", "Duration of HTTP requests.", ["method", "route"], buckets=LATENCY_BUCKETS
)
REQUESTS: Final = Counter("bioscope_http_requests", "HTTP requests.", ["method", "route", "status"])
IMAGES: Final = Counter("bioscope_inference_images", "Images processed by workers, by outcome.", ["outcome"])

HEAD: Final = Gauge("bioscope_log_events", "Events in the log.")
RELAY_LAG: Final = Gauge("bioscope_relay_lag_events", "Events that Kafka does not have yet.")
RELAY_AGE: Final = Gauge("bioscope_relay_lag_seconds", "Age of the oldest event that Kafka does not have yet.")
PROJECTION_LAG: Final = Gauge("bioscope_projection_lag_events", "Events that the read models do not show yet.", ["projection"])
PROJECTION_AGE: Final = Gauge("bioscope_projection_lag_seconds", "Age of the oldest event that is not shown yet.", ["projection"])
DEAD_LETTERS: Final = Gauge("bioscope_dead_letters", "Events that could not be applied.")
PARKED: Final = Gauge("bioscope_parked_events", "Events that wait for a dead letter to be resolved.")
TASK_AGE: Final = Gauge("bioscope_task_age_seconds", "Age of the oldest task in progress, since it was dispatched.")
LONG_STREAMS: Final = Gauge("bioscope_long_streams", "Streams with more than 1,000 events, which load slowly; without jobs.")
WORKERS: Final = Gauge("bioscope_inference_workers", "Inference processes seen within 10 s.")
SCHEDULING: Final = Gauge("bioscope_scheduler_leads", "1 while a process leads the scheduler.")
PAUSED: Final = Gauge("bioscope_paused_processes", "Processes that are paused until they are upgraded.", ["process"])

BROKEN_CHAIN: Final = Gauge("bioscope_log_chain_broken", "1 after the relay found a changed log; it signs no more heads.")
DISCREPANCIES: Final = Gauge("bioscope_record_discrepancies", "Claims, password hashes and data keys that differ from the log.")
RECONCILED_AT: Final = Gauge("bioscope_record_reconciled_timestamp_seconds", "Time of the last such comparison.")

ORPHANS_FREED: Final = Counter("bioscope_orphans_freed", "Unused blobs that were deleted.")
ORPHANS_LEFT: Final = Gauge("bioscope_orphans_left", "Blobs that the last sweep kept for events that could not be applied yet.")
ORPHANS_SWEPT_AT: Final = Gauge("bioscope_orphans_swept_timestamp_seconds", "Time of the last complete sweep of blobs.")
PRUNED: Final = Counter("bioscope_pruned_rows", "Obsolete rows beside the log that were removed.", ["table"])
PRUNED_AT: Final = Gauge("bioscope_pruned_timestamp_seconds", "Time of the last complete removal of obsolete rows.")

MAIN: Final = "main"
DECLARED_KINDS: Final = ("api", "projector", "inference")
COUNTER_LABELS: Final = {"projected_events": "source", "rejected_records": "reason"}


class StoredCounters(Collector):
    """Exports the table `ops.counters`, in which all processes count, as it was last read."""

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
    """Count a request. `method` and `route` must have few values, since each pair is kept forever."""
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
    """All metrics in the Prometheus text format."""
    return generate_latest(REGISTRY)
