"""Data keys of devices, whose first events earlier releases stored in clear: Postgres and the in-memory twin."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application import devices
from application.ports import Secret
from domain import device
from domain.access import Role
from domain.device import DeviceDescribed
from domain.errors import ConcurrencyConflict
from domain.events import ERASED, SEALED_PREFIX
from infrastructure.eventstore.codec import EncodedEvent
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.group_commit import Append
from tests.contracts.conftest import ROOT
from tests.given import NOW, actor, command
from tests.twins.event_store import MemoryRecorder

ADMIN = actor(Role.ADMIN)
PRIVATE = {"name": "Axio of Dr. Canary", "hostname": "canary-pc", "location": "Canary ward"}


def registered_long_ago(log, **fields):
    """A device as the first schema version stored it: in clear, without a key."""
    told = {"at": NOW, "by": ADMIN.id, "name": "Axio 7", "hostname": "scope-1", "location": "Room 1", "firmware_version": None} | fields
    event = EncodedEvent(uuid4(), 1, "DeviceRegistered", 1, uuid4(), msgspec.json.encode(told))
    assert log.recorder.insert([event], Append(command=command(ADMIN))).outcome == "appended"
    return event.stream


def described(log, stream, **changes):
    return devices.describe(stream, changes, command=command(ADMIN), log=log)


def loaded(log, stream):
    return log.load(stream, device.evolve)


def destroy_key(log, stream):
    """As an erasure would: together with an event of the stream."""
    online = device.report(loaded(log, stream), online=True, by=ADMIN.id, at=NOW)
    log.append(command(ADMIN), *online, secrets=[Secret(kind="key", owner=stream, value=None)])
    log.codec.forget(stream)


def test_nothing_private_of_a_device_is_stored_in_clear(log):
    made = devices.register(**PRIVATE, firmware_version="1.2", command=command(ADMIN), log=log)
    described(log, made.id, hostname="canary-2", location=None, firmware_version="1.3")
    described(log, made.id, name="Canary 3")
    stored = log.history(made.id)
    assert len(stored) == 3
    assert all(b"anary" not in one.data + one.meta for one in stored)
    assert [one.schema_version for one in stored] == [2, 2, 2]
    found = loaded(log, made.id)
    assert (found.name, found.hostname, found.location, found.firmware_version) == ("Canary 3", "canary-2", None, "1.3")


def test_a_device_of_an_older_release_gets_its_key_with_the_first_private_change(log):
    stream = registered_long_ago(log)
    before = log.history(stream)[0]
    described(log, stream, firmware_version="2.0")
    assert log.secret("key", stream) is None, "nothing private was written"
    described(log, stream, **PRIVATE)
    assert log.secret("key", stream) is not None
    described(log, stream, name="Canary 2")
    assert log.history(stream)[0] == before, "what was stored in clear stays as it is"
    assert all(b"anary" not in one.data for one in log.history(stream))
    found = loaded(log, stream)
    assert (found.name, found.hostname, found.location) == ("Canary 2", "canary-pc", "Canary ward")


def test_a_text_in_clear_that_looks_sealed_is_read_and_changed_like_any_other(log):
    stream = registered_long_ago(log, name=SEALED_PREFIX + "AAAA", location=SEALED_PREFIX, firmware_version=SEALED_PREFIX)
    assert loaded(log, stream).name == SEALED_PREFIX + "AAAA"
    described(log, stream, location="Room 2", firmware_version=SEALED_PREFIX + "BBBB")
    described(log, stream, name="Axio 8")
    assert (loaded(log, stream).name, loaded(log, stream).location) == ("Axio 8", "Room 2")


def test_of_changes_at_the_same_moment_all_are_read_with_one_key(log):
    for _ in range(5):
        stream, together = registered_long_ago(log), threading.Barrier(4)

        def change(number, stream=stream, together=together):
            together.wait(10)
            return described(log, stream, name=f"Axio {number}").version

        with ThreadPoolExecutor(4) as threads:
            assert sorted(threads.map(change, range(4))) == [2, 3, 4, 5]
        said = [log.decode(one).name for one in log.history(stream)]
        assert sorted(said) == ["Axio 0", "Axio 1", "Axio 2", "Axio 3", "Axio 7"]


def test_whoever_read_a_device_before_it_had_a_key_reads_what_is_sealed_later(log):
    """A projector, in a process of its own, that keeps keys in memory."""
    reader, stream = RecorderEventStore(log.recorder, ROOT), registered_long_ago(log, name=SEALED_PREFIX, firmware_version=SEALED_PREFIX)
    described(log, stream, firmware_version=SEALED_PREFIX + "x")
    reader.codec.prefetch(log.history(stream))
    assert loaded(reader, stream).name == SEALED_PREFIX
    described(log, stream, **PRIVATE)
    assert loaded(reader, stream).name == PRIVATE["name"]
    assert loaded(log, stream).name == PRIVATE["name"]


def test_a_key_that_was_destroyed_is_never_made_again(log):
    for stream in (registered_long_ago(log), devices.register(**PRIVATE, firmware_version=None, command=command(ADMIN), log=log).id):
        described(log, stream, name="Canary 2")
        destroy_key(log, stream)
        for used in (log, RecorderEventStore(log.recorder, ROOT)):
            with pytest.raises(ConcurrencyConflict):
                described(used, stream, name="Canary 3")
            assert loaded(used, stream).name == ERASED
        assert log.secret("key", stream) is None
        described(log, stream, firmware_version="3.0")


def test_whoever_decided_before_a_key_was_made_and_destroyed_makes_no_other(log):
    stream = registered_long_ago(log)
    late = device.describe(loaded(log, stream), {"name": "Canary 9"}, by=ADMIN.id, at=NOW)
    encoded = [log.codec.encode(event) for event in late]
    assert encoded[0].new_keys, "it saw no key"
    described(log, stream, name="Canary 2")
    destroy_key(log, stream)
    assert log.recorder.insert(encoded, Append(command=command(ADMIN))).outcome == "conflict"
    assert log.secret("key", stream) is None


STEPS = st.sampled_from(["name", "hostname", "location", "firmware_version", "destroy"])


@given(st.lists(STEPS, max_size=12))
def test_in_any_order_of_changes_a_stream_has_one_key_and_loses_it_for_ever(steps):
    log = RecorderEventStore(MemoryRecorder(ROOT), ROOT)
    stream, keys = registered_long_ago(log), []
    for number, step in enumerate(steps):
        had = log.secret("key", stream)
        if step == "destroy":
            destroy_key(log, stream)
        elif step == "firmware_version" or had or not keys:
            described(log, stream, **{step: f"text {number}"})
        else:
            with pytest.raises(ConcurrencyConflict):
                described(log, stream, **{step: f"text {number}"})
        keys += [key for key in [log.secret("key", stream)] if key is not None and key not in keys]
        assert len(keys) <= 1


def test_two_events_that_would_each_make_the_key_are_refused(log):
    stream = registered_long_ago(log)
    events = [_described(stream, version) for version in (2, 3)]
    with pytest.raises(ValueError, match="must be in one event"):
        log.append(command(ADMIN), *events)
    assert len(log.history(stream)) == 1
    log.append(command(ADMIN), events[0])
    log.append(command(ADMIN), events[1])
    assert loaded(log, stream).version == 3


def _described(stream: UUID, version: int) -> DeviceDescribed:
    return DeviceDescribed(originator_id=stream, originator_version=version, at=NOW, by=ADMIN.id, name=f"Axio {version}")
