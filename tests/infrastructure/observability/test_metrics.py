"""Metrics of the process and of the whole system, in the format of Prometheus."""

import contextlib
from uuid import uuid4

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from application import datasets
from domain import classification, dataset
from domain.access import Grant
from domain.classification import PlannedImage
from domain.errors import ConcurrencyConflict
from infrastructure.observability.metrics import SystemStatusMetrics, exposition, observe_request, observe_status
from infrastructure.postgres.query_database import PostgresQueryDatabase
from infrastructure.postgres.system.status import system_status
from tests.given import actor, command


def value(name, **labels):
    families = text_string_to_metric_families(exposition("api").decode())
    return sum(one.value for family in families for one in family.samples if one.name == name and labels.items() <= one.labels.items())


def exported(process):
    return {family.name for family in text_string_to_metric_families(exposition(process).decode())}


@pytest.mark.parametrize(
    ("name", "processes"),
    [
        ("bioscope_http_requests", {"api"}),
        ("bioscope_record_discrepancies", {"api"}),
        ("bioscope_log_chain_broken", {"relay"}),
        ("bioscope_pruned_timestamp_seconds", {"projector"}),
        ("bioscope_orphans_left", {"projector"}),
        ("bioscope_inference_images", {"inference"}),
        ("bioscope_external_images", {"inference-bridge"}),
        ("bioscope_appends", {"api", "projector", "inference", "inference-bridge"}),
        ("process_resident_memory_bytes", {"api", "relay", "projector", "inference", "inference-bridge"}),
    ],
)
def test_a_process_exports_only_metrics_that_it_measures(name, processes):
    assert {process for process in ("api", "relay", "projector", "inference", "inference-bridge") if name in exported(process)} == processes


STATUS_METRICS = {
    "bioscope_log_events",
    "bioscope_inference_workers",
    "bioscope_inference_bridges",
    "bioscope_scheduler_leads",
    "bioscope_paused_processes",
}


def test_the_status_of_the_system_is_not_exported_before_it_is_known():
    assert list(SystemStatusMetrics().collect()) == []


@pytest.mark.anyio
async def test_only_the_api_exports_the_status_of_the_system(settings):
    reads = PostgresQueryDatabase(settings.postgres_url)
    await reads.open()
    observe_status(await system_status(reads))
    await reads.close()
    assert exported("api") >= STATUS_METRICS
    assert all(exported(process).isdisjoint(STATUS_METRICS) for process in ("relay", "projector", "inference", "inference-bridge"))


def created(log):
    return datasets.create(name="cells", description=None, command=command(actor()), log=log)


def test_appends_are_counted_by_how_they_ended_and_timed(log):
    names = ("bioscope_append_seconds_count", "bioscope_append_batch_commands_sum", "bioscope_appends_total")
    before = [value(name) for name in names]
    conflicts = value("bioscope_appends_total", outcome="conflict")
    done = created(log)
    state = log.load(done.id, dataset.evolve)
    for _ in range(2):
        with contextlib.suppress(ConcurrencyConflict):
            log.append(command(), *dataset.describe(state, name="other", description=None, by=uuid4(), at=command().at))
    assert [value(name) - was for name, was in zip(names, before, strict=True)] == [3, 3, 3]
    assert value("bioscope_appends_total", outcome="conflict") == conflicts + 1


def test_requests_are_counted_by_route_and_status():
    route = "/api/only/here/{number}"  # counters belong to the process, and so to all tests
    observe_request("GET", route, 404, 0.02)
    assert value("bioscope_http_requests_total", route=route, status="404") == 1
    assert value("bioscope_http_request_seconds_bucket", route=route, le="0.025") == 1


@pytest.mark.anyio
async def test_the_status_of_the_system_is_the_last_known_one(log, settings, owner_url):
    created(log)
    created(log)
    with psycopg.connect(owner_url) as connection:
        connection.execute("update ops.relay set position = 1")
        connection.execute("insert into ops.counters values ('projected_events', 'kafka', 41), ('projected_events', 'store', 1)")
        connection.execute("insert into ops.workers values ('a', now(), 2, 'bulk'), ('b', now() - interval '1 minute', 2, 'bulk')")
        connection.execute("insert into ops.releases values (gen_random_uuid(), 1, now() - interval '30 s', false)")
    reads = PostgresQueryDatabase(settings.postgres_url)
    await reads.open()
    observe_status(await system_status(reads))
    await reads.close()
    assert value("bioscope_log_events") == 2
    assert value("bioscope_relay_lag_events") == 1
    assert 0 < value("bioscope_relay_lag_seconds") < 60
    assert value("bioscope_projection_lag_events", projection="main") == 2
    assert value("bioscope_projected_events_total", source="kafka") == 41
    assert value("bioscope_inference_workers") == 1
    assert 30 <= value("bioscope_task_age_seconds") < 60
    assert value("bioscope_scheduler_leads") == 0


@pytest.mark.anyio
async def test_streams_of_more_than_a_thousand_events_are_counted_but_for_the_plans_of_jobs(log, settings):
    shared, short = created(log), created(log)
    append_in_parts(log, shares(log, shared.id, 1000))
    append_in_parts(log, shares(log, short.id, 999))
    append_in_parts(log, plans(1001))
    reads = PostgresQueryDatabase(settings.postgres_url)
    await reads.open()
    observe_status(await system_status(reads))
    await reads.close()
    assert value("bioscope_long_streams") == 1


def append_in_parts(log, events):
    for start in range(0, len(events), 500):
        log.append(command(), *events[start : start + 500])


def shares(log, stream, count):
    events, state = [], log.load(stream, dataset.evolve)
    for _ in range(count):
        events += dataset.share(state, user=uuid4(), grant=Grant.VIEWER, by=uuid4(), at=command().at)
        state = dataset.evolve(state, events[-1])
    return events


def plans(count):
    """The events of a job whose plan has that many parts."""
    about = {"model_id": uuid4(), "model_name": "pbc8", "model_version": 1, "model_sha256": "ab" * 32, "threshold": 0.5}
    events = classification.request(uuid4(), dataset=uuid4(), image=None, **about, by=uuid4(), at=command().at)
    state = classification.evolve(None, events[0])
    for _ in range(count):
        events += classification.plan(state, [PlannedImage(uuid4(), "cd" * 32)], more=True, by=uuid4(), at=command().at)
        state = classification.evolve(state, events[-1])
    return events
