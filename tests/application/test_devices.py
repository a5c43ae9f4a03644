"""Devices: registered, described, reported, removed."""

import pytest

from application import devices
from application.devices import load_device
from domain.access import Role
from domain.device import DeviceCameOnline, DeviceRegistered, DeviceWentOffline
from domain.errors import Forbidden, NotFound, Taken
from tests.given import actor, command
from tests.twins.last_seen import MemoryLastSeen

ADMIN = actor(Role.ADMIN)
AXIO = {"name": "Axio 7", "hostname": "axio-7", "location": "Room 2", "firmware_version": None}


@pytest.fixture
def axio(log):
    return devices.register(**AXIO, command=command(ADMIN), log=log).id


@pytest.fixture
def last_seen():
    return MemoryLastSeen()


def types(log, stream):
    return [one.type for one in log.history(stream)]


def test_only_administrators_register_devices(log):
    with pytest.raises(Forbidden):
        devices.register(**AXIO, command=command(), log=log)


def test_a_hostname_belongs_to_one_device(log, axio):
    with pytest.raises(Taken) as refused:
        devices.register(**AXIO | {"hostname": "AXIO-7"}, command=command(ADMIN), log=log)
    assert refused.value.scope == "hostname"


def test_a_device_is_described_field_by_field_and_its_old_hostname_is_free(log, axio):
    devices.describe(axio, {"hostname": "axio-8", "location": None}, command=command(ADMIN), log=log)
    state = load_device(log, axio)
    assert (state.name, state.hostname, state.location) == ("Axio 7", "axio-8", None)
    assert devices.describe(axio, {"hostname": "axio-8"}, command=command(ADMIN), log=log).position == 0
    assert devices.register(**AXIO, command=command(ADMIN), log=log)


def test_a_hostname_of_another_device_is_refused(log, axio):
    other = devices.register(**AXIO | {"hostname": "other"}, command=command(ADMIN), log=log).id
    with pytest.raises(Taken):
        devices.describe(other, {"hostname": "axio-7"}, command=command(ADMIN), log=log)


def test_only_changes_of_the_state_are_recorded_and_each_report_is_remembered(log, axio, last_seen):
    for online in (True, True, False):
        devices.report(axio, online=online, command=command(ADMIN), log=log, last_seen=last_seen)
    assert types(log, axio) == [kind.__name__ for kind in (DeviceRegistered, DeviceCameOnline, DeviceWentOffline)]
    assert last_seen.of(axio) is not None


def test_a_removed_device_is_not_found_and_forgotten(log, axio, last_seen):
    devices.report(axio, online=True, command=command(ADMIN), log=log, last_seen=last_seen)
    devices.check_exists(log, axio)
    devices.remove(axio, command=command(ADMIN), log=log, last_seen=last_seen)
    for use in (load_device, devices.check_exists):
        with pytest.raises(NotFound):
            use(log, axio)
    assert last_seen.of(axio) is None
    assert devices.register(**AXIO, command=command(ADMIN), log=log)
