"""Readiness: dependencies are checked concurrently, each with its timeout, and problems are described to operators."""

import asyncio
import re
import socket
import threading
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec
import psycopg
import pytest

from infrastructure.observability.crash_counts import CRASHES_OF_A_LOOP, crashes_file, record_crash
from infrastructure.observability.health import DEFAULT_LIMITS, DependencyChecks, HealthLimits, readiness_of
from infrastructure.observability.metrics import API_METRICS, observe_status
from infrastructure.postgres.advisory_locks import AdvisoryLock
from infrastructure.postgres.query_database import PostgresQueryDatabase
from infrastructure.postgres.system.status import DeclaredProcess, ExternalWait, SystemStatus, system_status
from tests.twins.blobs import MemoryBlobs

pytestmark = pytest.mark.anyio
WELL = SystemStatus(
    head=7,
    published=7,
    projected=7,
    fits=True,
    unpublished_age=0,
    unprojected_age=0,
    dead_letters=0,
    parked=0,
    task_age=0,
    workers=1,
    bridges=1,
    scheduling=True,
    long_streams=0,
    counters=(),
)


PATIENT = HealthLimits(check_seconds=10.0)


def wait(silence, model="vesicles"):
    return ExternalWait(model=model, images=320, silence=silence)


@pytest.fixture
def silence():
    """host:port of something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@asynccontextmanager
async def examination(settings, blobs=None, limits=DEFAULT_LIMITS):
    reads = PostgresQueryDatabase(settings.postgres_url)
    health = DependencyChecks(settings, reads=reads, blobs=blobs or MemoryBlobs(), limits=limits)
    await reads.open()
    yield health
    await health.close()
    await reads.close()


async def examined(settings, limits=PATIENT):
    async with examination(settings, limits=limits) as health:
        async with asyncio.timeout(limits.check_seconds + 10):
            return {one.name: one for one in await health.examine()}


def changed(settings, **changes):
    return msgspec.structs.replace(settings, **changes)


async def test_a_whole_system_is_well(settings, owner_url):
    with psycopg.connect(owner_url, autocommit=True) as scheduler:
        scheduler.execute("select pg_advisory_lock(%s)", (AdvisoryLock.SCHEDULER.value,))
        scheduler.execute("insert into ops.workers values ('a/bulk', now(), 2, 'bulk'), ('a/urgent', now(), 1, 'urgent')")
        found = await examined(settings)
    assert all(one.ok for one in found.values())
    assert list(found) == [
        "postgres",
        "relay",
        "projector",
        "scheduler",
        "inference",
        "inference-bridge",
        "mail",
        "kafka",
        "redis",
        "blobs",
    ]
    assert (found["relay"].lag, found["projector"].lag) == (0, 0)
    assert found["inference"].detail == "1 running"


async def test_a_silent_external_classifier_is_reported_from_the_images_that_wait(settings, owner_url):
    lease = changed(settings, chunk_lease_seconds=30.0)
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("insert into ops.workers values ('a/external', now(), 2, 'external')")
        connection.execute(
            """insert into ops.external_answers (job, image_id, number, model_name, attempts, first_sent_at, sent_at)
              select gen_random_uuid(), gen_random_uuid(), 0, 'vesicles', 1, at, at from (select now() - interval '31 s' as at) x"""
        )
        connection.execute(
            """insert into ops.open_chunks (job, number, dataset_id, model_name, model_version, model_sha256, images, sha256)
              select job, number, gen_random_uuid(), model_name, 1, '', array[image_id], array[''] from ops.external_answers"""
        )
        found = await examined(lease)
        assert (found["inference-bridge"].ok, found["inference"].ok) == (False, False)
        assert re.search(r"\(models: 1, images that wait: 1, longest silence: 3\d s\)", found["inference-bridge"].detail)
        assert found["inference-bridge"].silent_models == ("vesicles",)
        connection.execute("insert into ops.external_models values ('vesicles', now())")
        assert (await examined(lease))["inference-bridge"].ok, "it lives: it answered another image"


@pytest.mark.parametrize("seen", ["- interval '11 s'", "+ interval '1 day'"], ids=["a while ago", "before the clock was set back"])
async def test_a_missing_scheduler_and_missing_workers_are_reported(settings, owner_url, seen):
    with psycopg.connect(owner_url) as connection:
        connection.execute(f"insert into ops.workers values ('a/bulk', now() {seen}, 2, 'bulk')")
    found = await examined(settings)
    assert not found["scheduler"].ok
    assert not found["inference"].ok
    assert "inference process running?" in found["inference"].detail


async def test_a_process_that_ends_again_and_again_is_reported_though_it_answers(settings, owner_url):
    file = crashes_file(settings.data)
    file.parent.mkdir(parents=True)
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("insert into ops.workers values ('a/bulk', now(), 2, 'bulk')")
    for _ in range(CRASHES_OF_A_LOOP - 1):
        record_crash(file, "inference")
    assert (await examined(settings))["inference"].ok
    record_crash(file, "inference")
    found = await examined(settings)
    assert (found["inference"].ok, found["redis"].ok) == (False, True)
    assert found["inference"].detail == "inference ended 3 times within a minute: see inference.log in the logs of the data folder"


@pytest.mark.parametrize(
    ("name", "changes", "ok", "words"),
    [
        ("relay", {"published": 5, "unpublished_age": 2}, True, "2 events behind"),
        ("relay", {"published": 5, "unpublished_age": 40}, False, "the oldest for 40 s"),
        ("relay", {"published": 9}, False, "ops.relay is at position 9, but the log ends at 7"),
        ("projector", {"projected": 3, "unprojected_age": 31}, False, "4 events are not shown"),
        ("projector", {"dead_letters": 2, "parked": 5}, False, "bioscope dead-letters list"),
        ("scheduler", {"scheduling": False}, False, "jobs wait"),
        ("inference", {"workers": 0}, False, "no worker"),
        ("inference-bridge", {"bridges": 0}, True, "no job needs one"),
        ("mail", {"mails_refused": 3}, True, "refused mails: 3"),
        ("mail", {"mail_problem": "mail.example.org is away", "mail_waiting": 61}, False, "mails cannot be sent for 61 s and wait"),
        ("inference-bridge", {"bridges": 0, "external_jobs": 2}, False, "no bridge was seen for 10 s: 2 jobs of external classifiers wait"),
        ("inference-bridge", {"external_waits": (wait(59),)}, True, "1 running; images that wait for an answer: 320"),
        (
            "inference-bridge",
            {"external_waits": (wait(61), wait(0, "others"))},
            False,
            "(models: 1, images that wait: 320, longest silence: 61 s)",
        ),
    ],
)
async def test_problems_that_the_database_shows_are_described(name, changes, ok, words):
    found = {one.name: one for one in readiness_of(msgspec.structs.replace(WELL, **changes))}
    assert found[name].ok == ok
    assert words in found[name].detail
    assert all(one.ok for other, one in found.items() if other != name)


def test_readiness_does_not_name_the_mail_server():
    away = msgspec.structs.replace(WELL, mail_problem="mail.example.org is away", mail_waiting=61)
    assert not any("example.org" in one.detail for one in readiness_of(away))


def test_silent_models_are_named_apart_from_the_detail_that_anybody_reads():
    waits = (wait(90), wait(70, "bones"), wait(1, "others"))
    found = {one.name: one for one in readiness_of(msgspec.structs.replace(WELL, external_waits=waits))}
    bridge = found["inference-bridge"]
    assert bridge.silent_models == ("vesicles", "bones")
    assert "(models: 2, images that wait: 640, longest silence: 90 s)" in bridge.detail
    assert not any(name in one.detail for one in found.values() for name in ("vesicles", "bones"))


STOPPED = {"projected": 3, "unprojected_age": 31}
RUNNING = DeclaredProcess(kind="projector", process="host:7", release="0.2.0", paused="", lacks=())


@pytest.mark.parametrize("running", [{"processes": (RUNNING,), "scheduling": False}, {"scheduling": True}], ids=["declared", "leading"])
def test_a_running_projector_that_applies_nothing_is_not_called_missing(running):
    found = {one.name: one for one in readiness_of(msgspec.structs.replace(WELL, **STOPPED, **running))}
    assert found["projector"].detail == (
        "4 events are not shown yet, the oldest for 31 s: a projector runs, but does not apply them; see its log"
    )


def test_a_projector_of_which_nothing_is_seen_may_be_missing():
    found = {one.name: one for one in readiness_of(msgspec.structs.replace(WELL, **STOPPED, scheduling=False))}
    assert found["projector"].detail == "4 events are not shown yet, the oldest for 31 s. Is a projector process running?"


WAITS = "position 17 holds ImageTagged version 1, which a newer release wrote; upgrade this process"
PROJECTOR = DeclaredProcess(kind="projector", process="host:7", release="0.2.0", paused=WAITS, lacks=("ImageTagged version 1",))
API = DeclaredProcess(kind="api", process="host:8", release="0.2.0", paused="", lacks=("ImageTagged version 1",))


def test_who_pauses_and_who_is_to_be_upgraded_is_named_with_the_reason():
    found = {one.name: one for one in readiness_of(msgspec.structs.replace(WELL, projected=3, processes=(PROJECTOR, API)))}
    assert found["upgrade"].detail == (
        f"projector host:7 (release 0.2.0) is paused: {WAITS};"
        " api host:8 (release 0.2.0) does not understand ImageTagged version 1: upgrade it"
    )
    assert found["projector"].detail == f"4 events are not shown yet: {WAITS}"
    assert not found["upgrade"].ok
    assert not found["projector"].ok


def test_where_another_projector_goes_on_events_are_only_behind():
    going_on = msgspec.structs.replace(PROJECTOR, process="host:9", paused="", lacks=())
    found = {one.name: one for one in readiness_of(msgspec.structs.replace(WELL, projected=3, processes=(PROJECTOR, going_on)))}
    assert found["projector"].ok
    assert not found["upgrade"].ok


async def test_what_processes_declare_is_read_with_how_the_system_stands(settings, owner_url):
    with psycopg.connect(owner_url) as owner:
        owner.execute("insert into ops.written_types (topic, schema_version) values ('ImageTagged', 1)")
        for kind, types, paused in (("api", ["ImageTagged"], ""), ("projector", [], WAITS)):
            declared = (uuid4(), kind, "host:7", "0.2.0", types, [1] * len(types), paused)
            owner.execute("select ops.declare_capabilities(%s, %s, %s, %s, %s, %s, %s)", declared)
        owner.execute("delete from ops.written_types where topic <> 'ImageTagged'")
    reads = PostgresQueryDatabase(settings.postgres_url)
    await reads.open()
    stands = await system_status(reads)
    await reads.close()
    assert stands.processes == (PROJECTOR, msgspec.structs.replace(API, process="host:7", lacks=()))
    observe_status(stands)
    paused = {
        kind: API_METRICS.get_sample_value("bioscope_paused_processes", {"process": kind}) for kind in ("api", "projector", "inference")
    }
    assert paused == {"api": 0, "projector": 1, "inference": 0}


@pytest.mark.parametrize("kind", ["refused", "silent"])
@pytest.mark.parametrize("name", ["postgres", "kafka", "redis"])
async def test_what_is_away_or_silent_is_named_in_time_and_the_others_are_reported_too(settings, silence, tmp_path, name, kind):
    address = silence if kind == "silent" else "127.0.0.1:1"
    urls = {"postgres": f"postgresql://{address}/none", "kafka": address, "redis": f"redis://{address}/0"}
    found = await examined(changed(settings, **{f"{name}_url": urls[name]}), limits=DEFAULT_LIMITS)
    with_it = {"postgres", "relay", "projector", "scheduler", "inference", "inference-bridge", "mail"} if name == "postgres" else {name}
    assert {one.name for one in found.values() if not one.ok} == with_it | {"scheduler", "inference"}


async def test_one_broker_of_three_is_enough(settings):
    found = await examined(changed(settings, kafka_url=f"127.0.0.1:1, {settings.kafka_url},127.0.0.1:2"))
    assert found["kafka"].ok
    assert found["kafka"].detail == "1 of 3 brokers answer"


class Hanging(MemoryBlobs):
    def __init__(self):
        super().__init__()
        self.looks, self.go = 0, threading.Event()

    def exists(self, sha256):
        self.looks += 1
        self.go.wait(10)
        return False


async def test_a_store_that_hangs_is_named_and_gathers_no_threads(settings):
    blobs = Hanging()
    async with examination(settings, blobs) as health:
        for _ in range(2):
            async with asyncio.timeout(DEFAULT_LIMITS.check_seconds + 10):
                found = {one.name: one for one in await health.examine()}
            assert not found["blobs"].ok
            assert f"within {DEFAULT_LIMITS.check_seconds} s" in found["blobs"].detail
            await asyncio.sleep(DEFAULT_LIMITS.cache_seconds)
        assert blobs.looks == 1
        blobs.go.set()
        async with asyncio.timeout(10):
            while not {one.name: one for one in await health.examine()}["blobs"].ok:
                await asyncio.sleep(DEFAULT_LIMITS.cache_seconds)


async def test_many_who_ask_at_once_cost_one_look(settings):
    blobs = Hanging()
    blobs.go.set()
    async with examination(settings, blobs) as health:
        answers = await asyncio.gather(*(health.examine() for _ in range(50)))
    assert blobs.looks == 1
    assert all(answer == answers[0] for answer in answers)


async def test_a_relay_whose_checkpoint_was_moved_beyond_the_log_is_not_well(settings, owner_url):
    with psycopg.connect(owner_url) as connection:
        connection.execute("update ops.relay set position = 1000000")
    relay = (await examined(settings))["relay"]
    assert not relay.ok
    assert "ops.relay is at position 1000000, but the log ends at 0" in relay.detail


def test_what_is_not_published_is_never_counted_as_published():
    assert (WELL.unpublished, msgspec.structs.replace(WELL, published=5).unpublished) == (0, 2)
    assert msgspec.structs.replace(WELL, published=1000).unpublished == WELL.head
