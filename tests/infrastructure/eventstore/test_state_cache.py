"""The state cache: a load reads only new events, and equals a load of the whole stream."""

import os
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application import datasets, devices, images
from application.ports import Secret
from domain import dataset, device
from domain.access import Role
from domain.errors import NotFound
from domain.events import ERASED
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.state_cache import CachedState, StateCache
from infrastructure.security.keys import KeyRing, RootKey
from tests.given import NOW, actor, command, state_after
from tests.twins.event_store import MemoryRecorder
from tests.twins.last_seen import MemoryLastSeen

ROOT = RootKey(os.urandom(32))
ADMIN = actor(Role.ADMIN)
SCOPE = {"name": "Axio", "hostname": "scope", "location": None, "firmware_version": None}


class CountingRecorder(MemoryRecorder):
    """Counts the events that loads read."""

    read = 0

    def select_stream(self, *args, **kwargs):
        found = super().select_stream(*args, **kwargs)
        self.read += len(found)
        return found


@pytest.fixture
def log():
    return RecorderEventStore(CountingRecorder(ROOT), ROOT)


def a_device(log):
    return devices.register(**SCOPE, command=command(ADMIN), log=log).id


def a_dataset(log, name="cells"):
    return datasets.create(name=name, description=None, command=command(ADMIN), log=log).id


def reported(log, scope, *, online):
    log.append(command(ADMIN), *device.report(log.load(scope, device.evolve), online=online, by=ADMIN.id, at=NOW))


def renamed(log, stream, name):
    datasets.describe(stream, name=name, command=command(ADMIN), log=log)


def whole(log, stream, evolve):
    """The state that all events of the stream add up to."""
    return state_after(evolve, map(log.decode, log.history(stream)))


def test_a_stream_is_read_once_and_then_only_from_its_newest_known_event_on(log):
    scope = a_device(log)
    for number in range(100):
        reported(log, scope, online=number % 2 == 0)
    log.load(scope, device.evolve)
    expected = whole(log, scope, device.evolve)
    log.recorder.read = 0
    assert log.load(scope, device.evolve) == expected
    assert log.recorder.read == 1
    reported(log, scope, online=True)
    log.recorder.read = 0
    assert log.load(scope, device.evolve).version == 102
    assert log.recorder.read == 2


def test_whether_a_device_exists_is_known_without_loading_it(log):
    scope, cells = a_device(log), a_dataset(log)
    for number in range(1000):
        reported(log, scope, online=number % 2 == 0)
    another_process = RecorderEventStore(log.recorder, ROOT)
    images.may_upload(cells, command=command(ADMIN), log=another_process)
    log.recorder.read = 0
    images.may_upload(cells, device_id=scope, command=command(ADMIN), log=another_process)
    assert log.recorder.read == 1, "of the dataset"
    devices.remove(scope, command=command(ADMIN), log=log, last_seen=MemoryLastSeen())
    for gone in (scope, uuid4(), cells):
        with pytest.raises(NotFound, match="Device not found"):
            images.may_upload(cells, device_id=gone, command=command(ADMIN), log=another_process)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 2), st.integers(0, 1)),
            st.tuples(st.just("load"), st.integers(0, 2), st.integers(0, 1)),
            st.tuples(st.just("erase"), st.integers(0, 1), st.just(0)),
        ),
        max_size=30,
    ),
    st.integers(1, 3),
)
def test_whatever_other_processes_append_and_erase_a_load_is_what_the_whole_stream_says(steps, max_states):
    recorder = MemoryRecorder(ROOT)
    processes = [RecorderEventStore(recorder, ROOT) for _ in range(3)]
    for process in processes:
        process._states = StateCache(max_states=max_states)
    streams, erased = [a_dataset(processes[0], f"dataset {number}") for number in range(2)], set()
    for number, (step, which, of) in enumerate(steps):
        if step == "erase":
            _erase(processes[of], streams[which])
            erased.add(which)
            for process in processes:
                process.codec.forget(streams[which])  # as after the time for which keys are kept
        elif step == "write" and of not in erased:
            renamed(processes[which], streams[of], f"name {number}")
        else:
            loaded = processes[which].load(streams[of], dataset.evolve)
            assert loaded == whole(processes[which], streams[of], dataset.evolve)
            assert (loaded.name == ERASED) == (of in erased)


def _erase(log, stream):
    shared = dataset.share(log.load(stream, dataset.evolve), user=uuid4(), grant="viewer", by=ADMIN.id, at=NOW)
    log.append(command(ADMIN), *shared, secrets=[Secret(kind="key", owner=stream, value=None)])


def test_a_process_without_keys_keeps_states_too():
    recorder = CountingRecorder(ROOT)
    cells, inference = a_dataset(RecorderEventStore(recorder, ROOT)), RecorderEventStore(recorder, KeyRing({}))
    before = inference.load(cells, dataset.evolve)
    recorder.read = 0
    assert inference.load(cells, dataset.evolve) == before
    assert recorder.read == 1


def test_what_was_folded_from_another_log_is_not_used():
    """A database that was restored from an older copy, and goes on differently."""
    first, second, stream = MemoryRecorder(ROOT), MemoryRecorder(ROOT), uuid4()
    for recorder, name in ((first, "first"), (second, "second")):
        event = dataset.create(stream, name=name, description=None, by=ADMIN.id, at=NOW)
        RecorderEventStore(recorder, ROOT).append(command(ADMIN), event)
    log = RecorderEventStore(first, ROOT)
    assert log.load(stream, dataset.evolve).name == "first"
    log.recorder = second
    log.codec.forget(stream)
    log.codec._keys._fetch = lambda owners: second.select_secrets("key", owners)
    assert log.load(stream, dataset.evolve).name == "second"
    log.recorder = MemoryRecorder(ROOT)
    assert log.load(stream, dataset.evolve) is None


def test_a_stream_is_kept_for_each_of_the_ways_to_fold_it(log):
    cells = a_dataset(log)
    assert log.load(cells, dataset.evolve).name == "cells"
    assert log.load(cells, lambda _, event: dataset.evolve(None, event)).name == "cells"
    assert log.load(cells, device.evolve) is None
    assert log.load(cells, dataset.evolve).name == "cells"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 300)), max_size=60))
def test_states_are_bounded_in_number_and_size_and_those_used_last_stay(kept):
    states = StateCache(max_states=5, max_bytes=1000)
    for version, (number, size) in enumerate(kept):
        folded = CachedState("x" * size, version, uuid4())
        states.put((number, dataset.evolve), folded)
        assert states.get((number, dataset.evolve)) == folded
        assert len(states) <= 5
        assert states.size <= 1000
    for number in range(21):
        states.drop((number, dataset.evolve))
    assert (len(states), states.size) == (0, 0)


def test_a_state_of_many_bytes_or_of_many_people_is_not_kept():
    states = StateCache(max_bytes=1000)
    states.put((1, dataset.evolve), CachedState("x" * 1000, 1, uuid4()))
    states.put((2, dataset.evolve), CachedState("x", 1, uuid4(), owners=frozenset(uuid4() for _ in range(17))))
    assert len(states) == 0
