"""A microscope or camera that images come from."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from domain.events import Event, PrivateText, State, new_stream, next_event
from domain.values import optional_text, text

FIELDS = ("name", "hostname", "location", "firmware_version")


class DeviceRegistered(Event, frozen=True, kw_only=True):
    schema_version: ClassVar[int] = 2  # since then its texts are private

    name: PrivateText
    hostname: PrivateText
    location: PrivateText | None
    firmware_version: str | None


class DeviceDescribed(Event, frozen=True, kw_only=True):
    """Fields left out did not change; null means cleared."""

    schema_version: ClassVar[int] = 2  # since then its texts are private

    name: PrivateText | UnsetType = UNSET
    hostname: PrivateText | UnsetType = UNSET
    location: PrivateText | None | UnsetType = UNSET
    firmware_version: str | None | UnsetType = UNSET


class DeviceCameOnline(Event, frozen=True, kw_only=True):
    """It was offline before. In the logs of earlier releases each sign of life is one."""


class DeviceWentOffline(Event, frozen=True, kw_only=True):
    pass


class DeviceRemoved(Event, frozen=True, kw_only=True):
    """Its images stay."""


CLOSING = (DeviceRemoved,)


class Device(State, frozen=True, kw_only=True):
    name: str
    hostname: str
    location: str | None
    firmware_version: str | None
    registered_at: datetime
    online: bool = False
    last_seen: datetime | None = None  # when it last came online; signs of life since then are not in the log
    removed: bool = False


def register(
    device: UUID, *, name: str, hostname: str, location: str | None, firmware_version: str | None, by: UUID, at: datetime
) -> DeviceRegistered:
    return DeviceRegistered(
        **new_stream(device, by=by, at=at),
        name=text(name, name="name", maximum=255),
        hostname=text(hostname, name="hostname", maximum=255),
        location=optional_text(location, name="location", maximum=255),
        firmware_version=optional_text(firmware_version, name="firmware_version", maximum=50),
    )


def describe(device: Device, changes: dict[str, str | None], *, by: UUID, at: datetime) -> list[DeviceDescribed]:
    """`changes` names the fields to set. Raises Invalid when one breaks its rule."""
    kept = {name: _value(name, value) for name, value in changes.items()}
    said = {name: value for name, value in kept.items() if getattr(device, name) != value}
    return [DeviceDescribed(**next_event(device, by=by, at=at), **said)] if said else []  # type: ignore[arg-type]


def _value(name: str, value: str | None) -> str | None:
    match name:
        case "name" | "hostname":
            return text(value or "", name=name, maximum=255)
        case "firmware_version":
            return optional_text(value, name=name, maximum=50)
        case _:
            return optional_text(value, name=name, maximum=255)


def report(device: Device, *, online: bool, by: UUID, at: datetime) -> list[Event]:
    """Changes only: a sign of life of a device that is online already is no event."""
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
            said = {name: value for name in FIELDS if (value := getattr(event, name)) is not UNSET}
            return msgspec.structs.replace(device, version=event.originator_version, **said)
        case DeviceCameOnline():
            return msgspec.structs.replace(device, version=event.originator_version, online=True, last_seen=event.at)
        case DeviceWentOffline():
            return msgspec.structs.replace(device, version=event.originator_version, online=False)
        case DeviceRemoved():
            return msgspec.structs.replace(device, version=event.originator_version, removed=True)
        case _:
            return msgspec.structs.replace(device, version=event.originator_version)
