"""A device: a microscope or camera that takes images."""

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from domain.events import Event, PrivateText, State, fields_set, new_stream, next_event
from domain.values import new_optional_text, new_text, optional_text, text, unique_text

FIELDS = ("name", "hostname", "location", "firmware_version")


class DeviceRegistered(Event, frozen=True, kw_only=True):
    schema_version: ClassVar[int] = 2  # version 1 had no private texts

    name: PrivateText
    hostname: PrivateText
    location: PrivateText | None
    firmware_version: str | None


class DeviceDescribed(Event, frozen=True, kw_only=True):
    """Omitted fields did not change; null clears a field."""

    schema_version: ClassVar[int] = 2  # version 1 had no private texts

    name: PrivateText | UnsetType = UNSET
    hostname: PrivateText | UnsetType = UNSET
    location: PrivateText | None | UnsetType = UNSET
    firmware_version: str | None | UnsetType = UNSET


class DeviceCameOnline(Event, frozen=True, kw_only=True):
    """The device was offline before. Earlier releases recorded each status report as such an event."""


class DeviceWentOffline(Event, frozen=True, kw_only=True):
    pass


class DeviceRemoved(Event, frozen=True, kw_only=True):
    """The device is removed; its images stay."""


CLOSING = (DeviceRemoved,)


class Device(State, frozen=True, kw_only=True):
    name: str
    hostname: str
    location: str | None
    firmware_version: str | None
    registered_at: datetime
    online: bool = False
    last_seen: datetime | None = None  # when it last came online; later status reports are not in the log
    removed: bool = False


def register(
    device: UUID, *, name: str, hostname: str, location: str | None, firmware_version: str | None, by: UUID, at: datetime
) -> DeviceRegistered:
    return DeviceRegistered(
        **new_stream(device, by=by, at=at),
        name=text(name, name="name", maximum=255),
        hostname=unique_text(hostname, name="hostname", maximum=255),
        location=optional_text(location, name="location", maximum=255),
        firmware_version=optional_text(firmware_version, name="firmware_version", maximum=50),
    )


def describe(device: Device, changes: Mapping[str, str | None], *, by: UUID, at: datetime) -> list[DeviceDescribed]:
    """Set the fields that `changes` names. Raises Invalid for a value that breaks its rule."""
    name = new_text(changes, "name", device.name, maximum=255)
    hostname = new_text(changes, "hostname", device.hostname, maximum=255, rule=unique_text)
    location = new_optional_text(changes, "location", device.location, maximum=255)
    firmware_version = new_optional_text(changes, "firmware_version", device.firmware_version, maximum=50)
    if all(value is UNSET for value in (name, hostname, location, firmware_version)):
        return []
    meta = next_event(device, by=by, at=at)
    return [DeviceDescribed(**meta, name=name, hostname=hostname, location=location, firmware_version=firmware_version)]


def report(device: Device, *, online: bool, by: UUID, at: datetime) -> list[Event]:
    """Record that the device is online or offline now. No event where that is known already."""
    if online == device.online:
        return []
    kind = DeviceCameOnline if online else DeviceWentOffline
    return [kind(**next_event(device, by=by, at=at))]


def remove(device: Device, *, by: UUID, at: datetime) -> DeviceRemoved:
    return DeviceRemoved(**next_event(device, by=by, at=at))


def evolve(device: Device | None, event: Event) -> Device | None:
    match event:
        case DeviceRegistered():
            return Device(
                id=event.originator_id,
                version=event.originator_version,
                name=event.name,
                hostname=event.hostname,
                location=event.location,
                firmware_version=event.firmware_version,
                registered_at=event.at,
            )
        case _ if device is None:
            return None
        case DeviceDescribed():
            return msgspec.structs.replace(device, version=event.originator_version, **fields_set(event, *FIELDS))
        case DeviceCameOnline():
            return msgspec.structs.replace(device, version=event.originator_version, online=True, last_seen=event.at)
        case DeviceWentOffline():
            return msgspec.structs.replace(device, version=event.originator_version, online=False)
        case DeviceRemoved():
            return msgspec.structs.replace(device, version=event.originator_version, removed=True)
        case _:
            return msgspec.structs.replace(device, version=event.originator_version)
