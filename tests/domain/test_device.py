"""Devices: registered, described, reported, removed."""

from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from domain import device
from domain.errors import Invalid
from tests.given import LATER, NOW, state_after

ME = uuid4()


def reported(*signs):
    """The types of the events of a device that is registered and then reports."""
    events = [device.register(uuid4(), name="Axio", hostname="scope", location=None, firmware_version=None, by=ME, at=NOW)]
    for online in signs:
        events += device.report(state_after(device.evolve, events), online=online, by=ME, at=LATER)
    return [type(event).__name__ for event in events[1:]]


@given(st.lists(st.booleans()))
def test_of_the_signs_of_life_of_a_device_only_changes_are_events(signs):
    changes = [now for before, now in zip([False, *signs], signs, strict=False) if before != now]
    assert reported(*signs) == ["DeviceCameOnline" if online else "DeviceWentOffline" for online in changes]


def a_device(**changes):
    about = {"name": "Axio", "hostname": "scope", "location": "Room 1", "firmware_version": "1.0"}
    return device.evolve(None, device.register(uuid4(), **about | changes, by=ME, at=NOW))


def test_a_registered_device_is_offline_and_was_never_seen():
    registered = a_device()
    assert (registered.version, registered.online, registered.last_seen, registered.removed) == (1, False, None, False)


@pytest.mark.parametrize(
    "wrong", [{"name": " "}, {"hostname": ""}, {"hostname": "x" * 256}, {"firmware_version": "x" * 51}, {"location": "x" * 256}]
)
def test_a_text_that_breaks_its_rule_is_refused(wrong):
    with pytest.raises(Invalid):
        a_device(**wrong)
    with pytest.raises(Invalid):
        device.describe(a_device(), wrong, by=ME, at=LATER)


def test_a_description_records_only_what_changes():
    before = a_device()
    (described,) = device.describe(before, {"name": "Axio", "location": None, "firmware_version": "2.0"}, by=ME, at=LATER)
    assert (described.originator_version, described.location, described.firmware_version) == (2, None, "2.0")
    assert (described.name, described.hostname) == (UNSET, UNSET)
    after = device.evolve(before, described)
    assert (after.name, after.hostname, after.location, after.firmware_version) == ("Axio", "scope", None, "2.0")
    assert device.describe(after, {"location": None, "firmware_version": "2.0"}, by=ME, at=LATER) == []


def test_a_device_was_last_seen_when_it_last_came_online():
    online = device.evolve(a_device(), *device.report(a_device(), online=True, by=ME, at=LATER))
    assert (online.online, online.last_seen) == (True, LATER)
    offline = device.evolve(online, *device.report(online, online=False, by=ME, at=LATER + timedelta(hours=1)))
    assert (offline.online, offline.last_seen) == (False, LATER)


def test_a_removed_device_keeps_its_description():
    before = a_device()
    removed = device.evolve(before, device.remove(before, by=ME, at=LATER))
    assert (removed.removed, removed.version, removed.name) == (True, 2, before.name)
