"""Verification of the log in ranges: the result does not depend on the ranges or on the processes."""

from uuid import uuid4

import psycopg
import pytest

from domain import dataset
from infrastructure.audit.log_verification import VerificationLimits, verify_log
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import RootKey
from tests.given import NOW, actor, command
from tests.twins.blobs import MemoryBlobs

WHOLE = VerificationLimits(events_per_range=1000, processes=1)
EDITS = {
    "nothing": "select 1",
    "an event": "update es.events set state = convert_to('{}', 'UTF8') where notification_id = 5",
    "a hash at the end of a range": "update es.events set hash = sha256('x') where notification_id = 4",
    "a hash at the beginning of a range": "update es.events set hash = sha256('x') where notification_id = 5",
    "a missing row": "delete from es.events where notification_id = 6",
    "a missing range": "delete from es.events where notification_id in (5, 6, 7, 8)",
    "a missing end": "delete from es.events where notification_id > 9",
    "a missing end with its head": """with last as (delete from es.events where notification_id > 9)
      update es.head set position = 9, hash = (select hash from es.events where notification_id = 9)""",
    "a row beyond the head": """insert into es.events
      select (jsonb_populate_record(e, '{"notification_id": 13, "originator_version": 9}')).* from es.events e
      where notification_id = 12""",
    "a command of two ranges that is forgotten": "delete from es.commands where position = 6",
    "a command of two ranges that is moved": "update es.commands set position = 5 where position = 6",
    "a command that nobody sent": "insert into es.commands (id, position, recorded_at) values (gen_random_uuid(), 5, now())",
    "a stream": "update es.streams set version = version + 1 where first = 3",
    "a stream too many": "insert into es.streams (first, newest, stream, version) values (2, 2, gen_random_uuid(), 1)",
}


@pytest.fixture
def log(settings):
    """Twelve events of four commands, which append three each: to a stream of their own, and to two others."""
    root = RootKey.read(settings.root_key_path)
    log = RecorderEventStore(PostgresRecorder(settings.postgres_url, root), root)
    for _ in range(4):
        made = [dataset.create(uuid4(), name="cells", description=None, by=actor().id, at=NOW) for _ in range(3)]
        log.append(command(), *made)
    yield log
    log.close()


@pytest.fixture
def owner(owner_url):
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        yield connection


def verdict(settings, log, limits):
    return verify_log(settings, log, blobs=MemoryBlobs(), limits=limits)


@pytest.mark.parametrize("size", [1, 2, 4, 5])
@pytest.mark.parametrize("edit", EDITS)
def test_the_verdict_does_not_depend_on_where_ranges_are_cut(settings, log, owner, edit, size):
    owner.execute(EDITS[edit])
    whole = verdict(settings, log, WHOLE)
    assert verdict(settings, log, VerificationLimits(events_per_range=size, events_per_batch=3, processes=1)) == whole
    assert (whole.problem is None) == (edit == "nothing")


@pytest.mark.parametrize("edit", ["nothing", "an event", "a command of two ranges that is moved"])
def test_several_processes_come_to_the_same_verdict(settings, log, owner, edit):
    owner.execute(EDITS[edit])
    seen = []
    found = verify_log(settings, log, blobs=MemoryBlobs(), progress=seen.append, limits=VerificationLimits(events_per_range=4, processes=2))
    assert found == verdict(settings, log, WHOLE)
    assert seen == ([4, 8, 12] if edit != "an event" else [4])
