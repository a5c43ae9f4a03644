"""The contract of the event store: the Postgres recorder and its in-memory twin."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import msgspec
import psycopg
import pytest

from application import datasets
from application.ports import ReleasedClaim, Secret, StreamPrecondition, UniqueClaim
from domain import classification, dataset
from domain.access import Role
from domain.classification import JobStatus, PlaneSelection
from domain.dataset import DatasetCreated
from domain.errors import ConcurrencyConflict, KeyReused, NotFound, StreamClosed, Taken, UpgradeNeeded, UpgradeUnderWay, VersionMismatch
from domain.user import UserRegistered
from infrastructure.audit.chain_verification import SignedHead, verify
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from tests.contracts.conftest import ROOT
from tests.given import LATER, NOW, actor, command
from tests.older_release import at_version, without
from tests.twins.event_store import MemoryRecorder

RESEARCHER = actor(Role.RESEARCHER)


@pytest.fixture
def postgres_log(app_url):
    log = RecorderEventStore(PostgresRecorder(app_url, ROOT), ROOT)
    yield log
    log.close()


def created(log, name="cells", **keywords):
    return datasets.create(name=name, description=None, command=command(RESEARCHER, **keywords), log=log)


def everything(log):
    position = 0
    while batch := log.read(position, 100):
        yield batch
        position = batch[-1].position


def checked(log, *, heads=()):
    key = ROOT.signing("heads").public_key()
    head = log.read(log.head() - 1, 1)[0]
    return verify(everything(log), heads=heads, keys=(key,), stored_head=(head.position, head.hash))


def test_what_was_appended_is_loaded_again(log):
    done = created(log, "cells")
    loaded = log.load(done.id, dataset.evolve)
    assert (loaded.name, loaded.version, loaded.created_at) == ("cells", 1, NOW)


def test_positions_count_every_event_without_a_gap(log):
    for number in range(1, 6):
        assert created(log).position == number
    assert [one.position for one in log.read(2, 2)] == [3, 4]
    assert log.head() == 5


def test_a_stream_is_open_from_its_first_event_to_one_that_closes_it(log):
    def is_open(stream, begun_by=DatasetCreated):
        return log.is_open(stream, begun_by=begun_by, closed_by=dataset.CLOSING)

    done = created(log)
    assert is_open(done.id)
    assert not is_open(done.id, UserRegistered)
    assert not is_open(uuid4())
    datasets.describe(done.id, name="other", command=command(RESEARCHER), log=log)
    assert is_open(done.id)
    datasets.delete(done.id, command=command(RESEARCHER), log=log)
    assert not is_open(done.id)


@pytest.mark.parametrize("unknown", ["DatasetCreated", "DatasetDescribed"])
def test_whether_a_stream_is_open_waits_for_an_upgrade_where_a_newer_release_began_or_may_have_closed_it(log, unknown):
    """Its newest event may close it by a type that this release does not know."""
    done, pauses = created(log), []
    datasets.describe(done.id, name="other", command=command(RESEARCHER), log=log)
    log.pausing = pauses.append
    with without(unknown), pytest.raises(UpgradeNeeded, match=f"holds {unknown} version 1") as needed:
        log.is_open(done.id, begun_by=DatasetCreated, closed_by=dataset.CLOSING)
    assert pauses == [needed.value]
    assert log.is_open(done.id, begun_by=DatasetCreated, closed_by=dataset.CLOSING)


def test_what_was_loaded_before_is_loaded_with_the_events_of_other_processes(log):
    other, done = RecorderEventStore(log.recorder, ROOT), created(log)
    for number in range(5):
        assert other.load(done.id, dataset.evolve).version == log.load(done.id, dataset.evolve).version == number + 1
        datasets.describe(done.id, name=f"name {number}", command=command(RESEARCHER), log=log)
        assert other.load(done.id, dataset.evolve).name == f"name {number}"
    assert log.load(done.id, dataset.evolve, version=2).name == "name 0"


def test_a_repeated_command_changes_nothing_and_answers_as_before(log):
    once = command(RESEARCHER, digest=b"payload")
    first = datasets.create(name="cells", description=None, command=once, log=log)
    again = datasets.create(name="cells", description=None, command=once, log=log)
    assert (again.id, again.position, again.replayed) == (first.id, first.position, True)
    assert log.head() == 1


def test_a_repeated_command_id_with_another_payload_is_refused(log):
    key = uuid4()
    created(log, id=key, digest=b"one")
    with pytest.raises(KeyReused):
        created(log, id=key, digest=b"two")
    with pytest.raises(KeyReused):
        log.outcome(command(RESEARCHER, id=key, digest=b"two"))


def test_sixteen_writers_on_one_version_have_one_winner(log):
    done = created(log)
    state = log.load(done.id, dataset.evolve)

    def write(number):
        try:
            log.append(command(RESEARCHER), *dataset.describe(state, name=f"name {state.version}.{number}", by=RESEARCHER.id, at=LATER))
        except ConcurrencyConflict:
            return False
        return True

    for _ in range(5):
        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(write, range(16))) == 1
        state = log.load(done.id, dataset.evolve)
    assert state.version == 6


def test_racing_commands_without_if_match_decide_again_until_all_are_taken(log):
    done = created(log)
    with ThreadPoolExecutor(4) as pool:
        said = [pool.submit(datasets.describe, done.id, name=f"name {number}", command=command(RESEARCHER), log=log) for number in range(4)]
    assert sorted(one.result().version for one in said) == [2, 3, 4, 5]


def test_if_match_with_an_old_version_is_refused(log):
    done = created(log)
    datasets.describe(done.id, name="other", expected=1, command=command(RESEARCHER), log=log)
    with pytest.raises(VersionMismatch):
        datasets.describe(done.id, name="third", expected=1, command=command(RESEARCHER), log=log)


def test_a_command_is_whole_or_nothing_over_all_its_streams(log):
    done = created(log)
    fresh = dataset.create(uuid4(), name="new", description=None, by=RESEARCHER.id, at=NOW)
    stale = dataset.describe(log.load(done.id, dataset.evolve), name="moved", by=RESEARCHER.id, at=NOW)
    log.append(command(RESEARCHER), *stale)
    with pytest.raises(ConcurrencyConflict):
        log.append(command(RESEARCHER), fresh, *stale)
    assert log.load(fresh.originator_id, dataset.evolve) is None
    assert log.head() == 2


def test_who_writes_private_things_of_somebody_just_erased_was_too_slow(log):
    done = created(log)
    state = log.load(done.id, dataset.evolve)
    forgotten = Secret(kind="key", owner=done.id, value=None)
    log.append(command(RESEARCHER), dataset.delete(state, by=RESEARCHER.id, at=NOW), secrets=[forgotten])
    log.codec.forget(done.id)
    with pytest.raises(ConcurrencyConflict):
        log.append(command(RESEARCHER), *dataset.describe(state, name="private", by=RESEARCHER.id, at=NOW))


def test_a_guard_refuses_what_is_missing_or_closed(log):
    done = created(log)
    new = [dataset.create(uuid4(), name="new", description=None, by=RESEARCHER.id, at=NOW) for _ in range(3)]
    guard = StreamPrecondition(stream=done.id, closed_by=dataset.CLOSING)
    log.append(command(RESEARCHER), new[0], guards=(guard,))
    with pytest.raises(NotFound):
        log.append(command(RESEARCHER), new[1], guards=(StreamPrecondition(stream=uuid4()),))
    datasets.delete(done.id, command=command(RESEARCHER), log=log)
    with pytest.raises(StreamClosed):
        log.append(command(RESEARCHER), new[2], guards=(guard,))
    assert log.load(new[1].originator_id, dataset.evolve) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ada@Example.org", "ada@example.ORG"), ("Ada@München.example", "ada@xn--mnchen-3ya.example")],
    ids=["case", "letters"],
)
def test_a_name_has_one_holder_until_it_is_given_back(log, one, other):
    first, second = uuid4(), uuid4()

    def make(stream, **more):
        return log.append(command(), dataset.create(stream, name="x", description=None, by=stream, at=NOW), **more)

    make(first, claims=(UniqueClaim(scope="email", value=one, stream=first),))
    with pytest.raises(Taken) as taken:
        make(second, claims=(UniqueClaim(scope="email", value=other, stream=second),))
    assert taken.value.scope == "email"
    assert log.claimed("email", other.upper()) == first
    assert log.load(second, dataset.evolve) is None
    renamed = dataset.describe(log.load(first, dataset.evolve), name="y", by=first, at=NOW)
    release = ReleasedClaim(stream=first, scope="email", value=other)
    log.append(command(), *renamed, releases=(release,), claims=(UniqueClaim(scope="email", value=other, stream=first),))
    assert log.claimed("email", one) == first
    renamed = dataset.describe(log.load(first, dataset.evolve), name="z", by=first, at=NOW)
    log.append(command(), *renamed, releases=(release,))
    make(second, claims=(UniqueClaim(scope="email", value=other, stream=second),))
    assert log.claimed("email", one) == second


def test_a_name_passes_from_one_stream_to_another_in_one_command(log):
    first, second, third = uuid4(), uuid4(), uuid4()

    def take(stream, *, releases):
        created = dataset.create(stream, name="x", description=None, by=stream, at=NOW)
        claims = (UniqueClaim(scope="registration", value="ada@example.org", stream=stream),)
        return log.append(command(), created, claims=claims, releases=releases)

    take(first, releases=())
    take(second, releases=(ReleasedClaim(stream=first, scope="registration", value="ADA@example.org"),))
    assert log.claimed("registration", "ada@example.org") == second
    for not_the_holder in (first, third):
        with pytest.raises(Taken):
            take(third, releases=(ReleasedClaim(stream=not_the_holder),))
    with pytest.raises(Taken):
        take(third, releases=(ReleasedClaim(stream=second, scope="registration", value="bob@example.org"),))
    take(third, releases=(ReleasedClaim(stream=second),))
    assert log.claimed("registration", "ada@example.org") == third


def test_a_secret_can_be_kept_and_forgotten(log):
    owner = uuid4()
    event = dataset.create(owner, name="x", description=None, by=owner, at=NOW)
    log.append(command(), event, secrets=(Secret(kind="password", owner=owner, value=b"hash"),))
    assert log.secret("password", owner) == b"hash"
    gone = dataset.describe(log.load(owner, dataset.evolve), name="y", by=owner, at=NOW)
    log.append(command(), *gone, secrets=(Secret(kind="password", owner=owner, value=None),))
    assert log.secret("password", owner) is None


def test_private_fields_stand_sealed_in_the_log(log):
    done = created(log, "Canary Patient 4711")
    (recorded,) = log.history(done.id)
    assert log.decode(recorded).name == "Canary Patient 4711"
    assert b"Canary" not in recorded.data
    assert b"Canary" not in recorded.meta


def test_the_chain_verifies_and_a_signed_head_shows_a_cut_end(log):
    for _ in range(20):
        created(log)
    assert checked(log).finding is None
    newest = log.read(19, 1)[0]
    head = SignedHead(position=25, hash=newest.hash.hex(), signed_at=NOW).sign(ROOT.signing("heads"))
    assert checked(log, heads=[head]).finding.position == 21


TAMPERS = {
    "edited": "update es.events set state = convert_to('{{}}', 'UTF8') where notification_id = {n}",
    "edited in its meta": "update es.events set meta = meta || ' ' where notification_id = {n}",
    "edited in its time": "update es.events set recorded_at = recorded_at + interval '1 microsecond' where notification_id = {n}",
    "edited in its schema version": "update es.events set schema_version = 2 where notification_id = {n}",
    "deleted": "delete from es.events where notification_id = {n}",
    "reordered": "update es.events set notification_id = case notification_id when {n} then -1 else {n} end"
    " where notification_id in ({n}, {n} + 1); update es.events set notification_id = {n} + 1 where notification_id = -1",
    "inserted": "insert into es.events select {n} + 100000, gen_random_uuid(), 1, topic, schema_version, state, meta, gen_random_uuid(),"
    " recorded_at, hash from es.events where notification_id = {n};"
    " update es.events set notification_id = -notification_id where notification_id > {n};"
    " update es.events set notification_id = case when notification_id = -({n} + 100000) then {n} + 1 else 1 - notification_id end"
    " where notification_id < 0",
    "cut off": "delete from es.events where notification_id >= {n}",
}


@pytest.mark.parametrize("tamper", TAMPERS)
def test_a_tampered_log_is_found_out_at_its_first_bad_position(postgres_log, owner_url, tamper):
    for _ in range(30):
        created(postgres_log)
    with psycopg.connect(owner_url) as connection:
        connection.execute("set session_replication_role = replica")
        for statement in TAMPERS[tamper].format(n=17).split(";"):
            connection.execute(statement)
    head = postgres_log.recorder.rows("select position, hash from es.head")[0]
    finding = verify(everything(postgres_log), heads=[], keys=ROOT.public("heads"), stored_head=head).finding
    assert finding is not None
    assert finding.position == (18 if tamper == "inserted" else 17)


@pytest.mark.parametrize(
    "statement",
    [
        "insert into es.events select * from es.events",
        "update es.events set topic = 'x'",
        "delete from es.events",
        "truncate es.events",
        "update es.head set position = 0",
        "insert into es.commands select * from es.commands",
        "update es.secrets set value = ''",
        "delete from es.claims",
    ],
)
def test_the_role_of_the_processes_cannot_write_the_log(app_url, postgres_log, statement):
    created(postgres_log)
    with psycopg.connect(app_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


@pytest.mark.parametrize("statement", ["update es.events set topic = 'x'", "delete from es.events", "truncate es.events"])
def test_even_the_owner_is_refused_by_the_trigger(owner_url, postgres_log, statement):
    created(postgres_log)
    with psycopg.connect(owner_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        connection.execute(statement)


def test_first_commands_that_come_at_once_share_one_writer(postgres_log):
    def writers():
        return {thread for thread in threading.enumerate() if thread.name == "group-commit"}

    before, together = writers(), threading.Barrier(16)
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: (together.wait(), created(postgres_log, f"n{n}")), range(16)))
    assert len(writers() - before) == 1


def test_a_lost_connection_is_answered_by_the_command_id(postgres_log, owner_url):
    created(postgres_log)
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'bioscope_app'")
    done = created(postgres_log)
    assert postgres_log.load(done.id, dataset.evolve).version == 1


# ---- releases side by side ---------------------------------------------------------------------------------------------------------
class Releases:
    """Which processes run, and which types were written yet: of Postgres, or of its twin."""

    def __init__(self, log, owner):
        self._recorder, self._owner = log.recorder, owner

    def never_wrote(self, *types):
        if self._owner is None:
            self._recorder._written = {one for one in self._recorder._written if one[0] not in types}
        else:
            self._owner.execute("delete from ops.written_types where topic = any(%s)", (list(types),))

    def runs(self, process, **versions):
        if self._owner is None:
            self._recorder.capabilities[process] = versions
        else:
            declared = (uuid4(), process, "host:1", "0.2.0", list(versions), list(versions.values()), "")
            self._owner.execute("select ops.declare_capabilities(%s, %s, %s, %s, %s, %s, %s)", declared)

    def ends(self, process):
        if self._owner is None:
            del self._recorder.capabilities[process]
        else:
            self._owner.execute("delete from ops.capabilities where kind = %s", (process,))


@pytest.fixture
def releases(log, request):
    if isinstance(log.recorder, MemoryRecorder):
        yield Releases(log, None)
        return
    with psycopg.connect(request.getfixturevalue("owner_url"), autocommit=True) as owner:
        yield Releases(log, owner)


def test_a_type_is_first_written_once_every_running_process_understands_it(log, releases):
    releases.never_wrote("DatasetCreated")
    releases.runs("inference", DatasetCreated=1, DatasetShared=1)
    releases.runs("projector", DatasetShared=1)
    with pytest.raises(UpgradeUnderWay, match=r"^projector.* does not understand DatasetCreated version 1 yet") as refused:
        created(log)
    assert refused.value.retry_after > 0
    assert log.head() == 0
    releases.ends("projector")
    assert created(log).position == 1


def test_what_was_written_once_is_written_whoever_does_not_understand_it(log, releases):
    releases.never_wrote("DatasetCreated")
    created(log)
    releases.runs("projector", DatasetShared=1)
    assert created(log).position == 2
    assert log.recorder.begin_to_write("DatasetCreated", 1) is None


def test_a_newer_schema_version_is_written_once_every_running_process_understands_it(log, releases):
    releases.runs("inference", DatasetCreated=1)
    assert log.recorder.begin_to_write("DatasetCreated", 2).startswith("inference")
    releases.ends("inference")
    releases.runs("inference", DatasetCreated=3)
    assert log.recorder.begin_to_write("DatasetCreated", 2) is None


def requested(log, planes):
    about = {"model_id": uuid4(), "model_name": "cells", "model_version": 1, "model_sha256": "ab" * 32, "threshold": 0.5}
    by = actor(Role.RESEARCHER)
    events = classification.request(uuid4(), dataset=uuid4(), image=None, **about, planes=planes, by=by.id, at=NOW)
    return events[0].originator_id, log.append(command(by), *events)


def test_a_job_that_chooses_planes_waits_until_no_worker_would_ignore_the_choice(log, releases):
    """Such a worker would run the model on other planes."""
    releases.never_wrote("ClassificationRequested")
    releases.runs("inference", ClassificationRequested=1)
    requested(log, None)
    with pytest.raises(UpgradeUnderWay, match=r"^inference.* does not understand ClassificationRequested version 2 yet"):
        requested(log, PlaneSelection(z=1))
    releases.ends("inference")
    job, _ = requested(log, PlaneSelection(z=1))
    with at_version("ClassificationRequested", 1), pytest.raises(UpgradeNeeded, match="ClassificationRequested version 2"):
        log.load(job, classification.evolve)
    assert log.load(job, classification.evolve).planes == PlaneSelection(z=1)


def test_a_retry_waits_until_no_scheduler_would_plan_the_whole_dataset_for_it(log, releases):
    releases.never_wrote("ClassificationRequested")
    releases.runs("projector", ClassificationRequested=1)
    earlier, _ = requested(log, None)
    ended = msgspec.structs.replace(log.load(earlier, classification.evolve), phase=JobStatus.CANCELLED, planned=True)
    by = actor(Role.RESEARCHER)
    retry = classification.retry(uuid4(), ended, None, by=by.id, at=NOW)
    with pytest.raises(UpgradeUnderWay, match=r"^projector.* does not understand ClassificationRequested version 2 yet"):
        log.append(command(by), *retry)


def test_a_job_whose_model_chooses_is_readable_by_older_releases(log):
    job, _ = requested(log, None)
    with at_version("ClassificationRequested", 1):
        assert log.load(job, classification.evolve).planes is None
    assert [one.schema_version for one in log.history(job)] == [1]


def test_a_stream_with_an_event_of_a_newer_release_is_not_folded_and_the_process_is_paused(log):
    dataset_id = created(log).id
    met = []
    log.pausing = lambda needed: met.append(needed.detail)
    with without("DatasetCreated"):
        for version in (None, 1):
            with pytest.raises(UpgradeNeeded, match=f"^version 1 of {dataset_id} holds DatasetCreated version 1, "):
                log.load(dataset_id, dataset.evolve, version=version)
        with pytest.raises(UpgradeNeeded, match=r"^position 1 holds DatasetCreated version 1, "):
            log.decode(log.read(0, 1)[0])
    assert len(met) == 3
    assert log.load(dataset_id, dataset.evolve).name == "cells"
