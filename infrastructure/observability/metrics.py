"""All metrics. Each process exports those that it measures; the API also exports the status of the whole system."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from infrastructure.postgres.system.status import SystemStatus

disable_created_metrics()  # type: ignore[no-untyped-call]

APPEND_METRICS: Final = CollectorRegistry()
API_METRICS: Final = CollectorRegistry()
RELAY_METRICS: Final = CollectorRegistry()
PROJECTOR_METRICS: Final = CollectorRegistry()
INFERENCE_METRICS: Final = CollectorRegistry()
BRIDGE_METRICS: Final = CollectorRegistry()
MEASURED: Final[Mapping[str, Sequence[CollectorRegistry]]] = {
    "api": (APPEND_METRICS, API_METRICS),
    "relay": (RELAY_METRICS,),
    "projector": (APPEND_METRICS, PROJECTOR_METRICS),
    "inference": (APPEND_METRICS, INFERENCE_METRICS),
    "inference-bridge": (APPEND_METRICS, BRIDGE_METRICS),
}
"""The metrics that each process measures, beside those of Python and the operating system."""

LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds

APPEND_COMMANDS: Final = Histogram(
    "bioscope_append_batch_commands",
    "Commands in one transaction of the event store.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    registry=APPEND_METRICS,
)
APPEND_SECONDS: Final = Histogram(
    "bioscope_append_seconds", "Duration of one transaction of the event store.", buckets=LATENCY_BUCKETS, registry=APPEND_METRICS
)
APPENDS: Final = Counter("bioscope_appends", "Commands by outcome of their append.", ["outcome"], registry=APPEND_METRICS)
REQUEST_SECONDS: Final = Histogram(
    "bioscope_http_request_seconds", "Duration of HTTP requests.", ["method", "route"], buckets=LATENCY_BUCKETS, registry=API_METRICS
)
REQUESTS: Final = Counter("bioscope_http_requests", "HTTP requests.", ["method", "route", "status"], registry=API_METRICS)
ACCESS_RECORDS: Final = Counter("bioscope_access_records", "Records appended to the trail of access.", registry=API_METRICS)
LOST_ACCESS_RECORDS: Final = Counter(
    "bioscope_access_records_lost",
    "Records of the trail of access that were lost, since the database was unavailable for too long.",
    registry=API_METRICS,
)
IMAGES: Final = Counter("bioscope_inference_images", "Images processed by workers, by outcome.", ["outcome"], registry=INFERENCE_METRICS)
MODEL_CHECKS: Final = Counter(
    "bioscope_inference_model_checks", "Model packages checked by workers, by outcome.", ["outcome"], registry=INFERENCE_METRICS
)
EXTERNAL_IMAGES: Final = Counter(
    "bioscope_external_images", "Images sent to external classifiers, and their outcomes.", ["outcome"], registry=BRIDGE_METRICS
)
EXTERNAL_ANSWERS: Final = Counter(
    "bioscope_external_answers", "Answers of external classifiers, by what became of them.", ["outcome"], registry=BRIDGE_METRICS
)

BROKEN_CHAIN: Final = Gauge(
    "bioscope_log_chain_broken", "1 after the relay found a changed log; it signs no more heads.", registry=RELAY_METRICS
)
BROKEN_ACCESS_CHAIN: Final = Gauge(
    "bioscope_access_chain_broken",
    "1 after the relay found a changed trail of access; it signs no more heads of it.",
    registry=RELAY_METRICS,
)
DISCREPANCIES: Final = Gauge(
    "bioscope_record_discrepancies", "Claims, password hashes and data keys that differ from the log.", registry=API_METRICS
)
MAILS: Final = Counter("bioscope_mails", "Mails by outcome: sent, deferred or refused.", ["outcome"], registry=API_METRICS)
RECONCILED_AT: Final = Gauge("bioscope_record_reconciled_timestamp_seconds", "Time of the last such comparison.", registry=API_METRICS)

ORPHANS_FREED: Final = Counter("bioscope_orphans_freed", "Unused blobs that were deleted.", registry=PROJECTOR_METRICS)
ORPHANS_LEFT: Final = Gauge(
    "bioscope_orphans_left", "Blobs that the last sweep kept for events that could not be applied yet.", registry=PROJECTOR_METRICS
)
ORPHANS_SWEPT_AT: Final = Gauge(
    "bioscope_orphans_swept_timestamp_seconds", "Time of the last complete sweep of blobs.", registry=PROJECTOR_METRICS
)
PRUNED: Final = Counter("bioscope_pruned_rows", "Obsolete rows beside the log that were removed.", ["table"], registry=PROJECTOR_METRICS)
PRUNED_AT: Final = Gauge(
    "bioscope_pruned_timestamp_seconds", "Time of the last complete removal of obsolete rows.", registry=PROJECTOR_METRICS
)

MAIN: Final = "main"
DECLARED_KINDS: Final = ("api", "projector", "inference", "inference-bridge")
COUNTER_LABELS: Final = {"projected_events": "source", "rejected_records": "reason"}


class SystemStatusMetrics(Collector):
    """Exports the status of the system as it was last read, with the counters of all processes. Exports nothing before that."""

    def __init__(self) -> None:
        self.status: SystemStatus | None = None

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        if self.status is not None:
            yield from _gauges(self.status)
            yield from _stored_counters(self.status)


SYSTEM_STATUS: Final = SystemStatusMetrics()
API_METRICS.register(SYSTEM_STATUS)


def _gauges(status: SystemStatus) -> Iterator[GaugeMetricFamily]:
    yield GaugeMetricFamily("bioscope_log_events", "Events in the log.", status.head)
    yield GaugeMetricFamily("bioscope_relay_lag_events", "Events that Kafka does not have yet.", status.unpublished)
    yield GaugeMetricFamily("bioscope_relay_lag_seconds", "Age of the oldest event that Kafka does not have yet.", status.unpublished_age)
    projection_lag = max(0, status.head - status.projected)
    yield _labelled("bioscope_projection_lag_events", "Events that the read models do not show yet.", "projection", {MAIN: projection_lag})
    projection_age = {MAIN: status.unprojected_age}
    yield _labelled("bioscope_projection_lag_seconds", "Age of the oldest event that is not shown yet.", "projection", projection_age)
    yield GaugeMetricFamily("bioscope_dead_letters", "Events that could not be applied.", status.dead_letters)
    yield GaugeMetricFamily("bioscope_parked_events", "Events that wait for a dead letter to be resolved.", status.parked)
    yield GaugeMetricFamily("bioscope_task_age_seconds", "Age of the oldest task in progress, since it was dispatched.", status.task_age)
    long_streams = "Streams with more than 1,000 events, which load slowly; without jobs."
    yield GaugeMetricFamily("bioscope_long_streams", long_streams, status.long_streams)
    yield GaugeMetricFamily("bioscope_inference_workers", "Inference processes seen within 10 s.", status.workers)
    yield GaugeMetricFamily("bioscope_inference_bridges", "Processes that reach external classifiers, seen within 10 s.", status.bridges)
    yield GaugeMetricFamily("bioscope_external_jobs", "Open jobs of external classifiers.", status.external_jobs)
    waiting = {one.model: one.images for one in status.external_waits}
    yield _labelled(
        "bioscope_external_waiting_images", "Images that were sent to an external classifier and have no answer.", "model", waiting
    )
    silence = {one.model: one.silence for one in status.external_waits}
    yield _labelled("bioscope_external_silence_seconds", "Time without an answer while images wait for one.", "model", silence)
    yield GaugeMetricFamily("bioscope_mail_waiting_seconds", "Time since when no mail can be sent; 0 if all is well.", status.mail_waiting)
    yield GaugeMetricFamily("bioscope_mail_refused", "Mails of the last 90 days that were refused for good.", status.mails_refused)
    yield GaugeMetricFamily("bioscope_scheduler_leads", "1 while a process leads the scheduler.", float(status.scheduling))
    paused = {kind: sum(bool(one.paused) for one in status.processes if one.kind == kind) for kind in DECLARED_KINDS}
    yield _labelled("bioscope_paused_processes", "Processes that are paused until they are upgraded.", "process", paused)


def _labelled(name: str, documentation: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _stored_counters(status: SystemStatus) -> Iterator[CounterMetricFamily]:
    """The table `ops.counters`, in which all processes count."""
    families: dict[str, CounterMetricFamily] = {}
    for counter in status.counters:
        label = COUNTER_LABELS.get(counter.name, "label")
        family = families.setdefault(
            counter.name, CounterMetricFamily(f"bioscope_{counter.name}", "Counted by all processes.", labels=[label])
        )
        family.add_metric([counter.label], counter.value)
    yield from families.values()


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request. `method` and `route` must have few values, since each pair is kept forever."""
    durations, requests = _of_requests(method, route, status)
    durations.observe(seconds)
    requests.inc()


@cache
def _of_requests(method: str, route: str, status: int) -> tuple[Histogram, Counter]:
    return REQUEST_SECONDS.labels(method, route), REQUESTS.labels(method, route, str(status))


def observe_status(status: SystemStatus) -> None:
    SYSTEM_STATUS.status = status


def exposition(process: str) -> bytes:
    """The metrics that this process measures, in the Prometheus text format."""
    return b"".join(generate_latest(registry) for registry in (REGISTRY, *MEASURED[process]))
