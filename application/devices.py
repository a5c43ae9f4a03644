"""Use cases of devices: register, describe, report, remove."""

from uuid import UUID

from application.commands import CommandResult, create_stream, execute, load_existing, new_id, replaced_claim
from application.ports import Command, EventStore, LastSeen, ReleasedClaim, UniqueClaim
from domain import device
from domain.access import Role, require_role
from domain.device import Device, DeviceRegistered
from domain.errors import NotFound, Taken


def load_device(log: EventStore, device_id: UUID) -> Device:
    return load_existing(log, device_id, device.evolve, what="Device", closed=lambda it: it.removed)


def check_exists(log: EventStore, device_id: UUID) -> None:
    """Raises NotFound if there is no such device. The cost does not depend on the length of its stream."""
    if not log.is_open(device_id, begun_by=DeviceRegistered, closed_by=device.CLOSING):
        raise NotFound("Device not found")


def register(
    *, name: str, hostname: str, location: str | None, firmware_version: str | None, command: Command, log: EventStore
) -> CommandResult:
    """Raises Forbidden, Invalid, and Taken if another device has this host name."""
    require_role(command.actor, Role.ADMIN)
    event = device.register(
        new_id(command, "device"),
        name=name,
        hostname=hostname,
        location=location,
        firmware_version=firmware_version,
        by=command.actor.id,
        at=command.at,
    )
    try:
        return create_stream(
            log, command, [event], claims=(UniqueClaim(scope="hostname", value=event.hostname, stream=event.originator_id),)
        )
    except Taken:
        raise _hostname_taken() from None


def describe(
    device_id: UUID, changes: dict[str, str | None], *, expected: int | None = None, command: Command, log: EventStore
) -> CommandResult:
    require_role(command.actor, Role.ADMIN)

    def claims(found: Device) -> tuple[tuple[ReleasedClaim, ...], tuple[UniqueClaim, ...]]:
        return replaced_claim("hostname", device_id, old=found.hostname, new=changes.get("hostname"))

    try:
        return execute(
            log,
            command,
            lambda: load_device(log, device_id),
            lambda found: device.describe(found, changes, by=command.actor.id, at=command.at),
            expected=expected,
            releases=lambda found: claims(found)[0],
            claims=lambda found: claims(found)[1],
        )
    except Taken:
        raise _hostname_taken() from None


def report(device_id: UUID, *, online: bool, command: Command, log: EventStore, last_seen: LastSeen) -> CommandResult:
    """Report a device as online or offline. Only a change is recorded as an event; `last_seen` keeps the time of the newest report."""
    require_role(command.actor, Role.ADMIN)
    result = execute(
        log,
        command,
        lambda: load_device(log, device_id),
        lambda found: device.report(found, online=online, by=command.actor.id, at=command.at),
    )
    if online:
        last_seen.record(device_id)
    return result


def remove(device_id: UUID, *, expected: int | None = None, command: Command, log: EventStore, last_seen: LastSeen) -> CommandResult:
    require_role(command.actor, Role.ADMIN)
    result = execute(
        log,
        command,
        lambda: load_device(log, device_id),
        lambda found: device.remove(found, by=command.actor.id, at=command.at),
        expected=expected,
        releases=lambda _: (ReleasedClaim(stream=device_id),),
    )
    last_seen.forget(device_id)
    return result


def _hostname_taken() -> Taken:
    return Taken("Another device has this hostname already", scope="hostname")
