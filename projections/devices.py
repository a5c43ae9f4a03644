"""The read model of devices."""

from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import UNSET

from application.services import QueryDatabase
from domain.access import Actor, Role, require_role
from domain.device import FIELDS, DeviceCameOnline, DeviceDescribed, DeviceRegistered, DeviceRemoved, DeviceWentOffline
from domain.events import Event
from projections.engine.projection import PositionedEvent, RowLookup, Table, stream_key
from projections.pagination import MAX_PAGE, Page, only_row, page_of, page_size, parse_cursor


class Device(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    version: int
    name: str
    hostname: str
    location: str | None
    firmware_version: str | None
    registered_at: datetime
    online: bool
    last_seen: datetime | None  # in the table, from the log; queries add later status reports
    removed: bool


def fold(_: UUID, row: Device | None, positioned: PositionedEvent, __: RowLookup) -> Device | None:
    event = positioned.event
    if isinstance(event, DeviceRegistered):
        return _registered(event)
    return None if row is None else msgspec.structs.replace(_changed(row, event), version=event.originator_version)


def _registered(event: DeviceRegistered) -> Device:
    return Device(
        id=event.originator_id,
        version=event.originator_version,
        name=event.name,
        hostname=event.hostname,
        location=event.location,
        firmware_version=event.firmware_version,
        registered_at=event.at,
        online=False,
        last_seen=None,
        removed=False,
    )


def _changed(row: Device, event: Event) -> Device:
    match event:
        case DeviceDescribed():
            changes = {name: value for name in FIELDS if (value := getattr(event, name)) is not UNSET}
            return msgspec.structs.replace(row, **changes)
        case DeviceCameOnline():
            return msgspec.structs.replace(row, online=True, last_seen=event.at)
        case DeviceWentOffline():
            return msgspec.structs.replace(row, online=False)
        case DeviceRemoved():
            return msgspec.structs.replace(row, removed=True)
        case _:
            return row


KINDS = (DeviceRegistered, DeviceDescribed, DeviceCameOnline, DeviceWentOffline, DeviceRemoved)
TABLE = Table("devices", Device, KINDS, stream_key, fold)

# Status reports are not events, so a rebuilt table does not contain them; queries read them from ops.devices_seen.
COLUMNS = ", ".join(field.name for field in msgspec.structs.fields(Device) if field.name != "last_seen")
LAST_SEEN = f"""select {COLUMNS}, coalesce((select s.seen_at from ops.devices_seen s where s.device = devices.id), last_seen) as last_seen
  from devices"""  # noqa: S608 - constants
GET = f"{LAST_SEEN} where id = %(id)s and not removed"
LISTED = f"""{LAST_SEEN} where not removed
    and (%(is_online)s::boolean is null or online = %(is_online)s::boolean)
    and (%(location)s::text is null or location = %(location)s::text)
    and (%(at)s::timestamptz is null or (registered_at, id) > (%(at)s::timestamptz, %(after)s::uuid))
  order by registered_at, id limit %(maximum)s"""


async def get(db: QueryDatabase, actor: Actor, device_id: UUID) -> Device:
    """A device. Raises NotFound, and Forbidden below the role analyst."""
    require_role(actor, Role.ANALYST)
    return await only_row(db, GET, {"id": device_id}, into=Device, what="Device")


async def listed(
    db: QueryDatabase,
    actor: Actor,
    *,
    is_online: bool | None = None,
    location: str | None = None,
    cursor: str | None = None,
    size: int = MAX_PAGE,
) -> Page[Device]:
    """A page of devices, oldest first; `location` is compared exactly. Raises Forbidden below the role analyst."""
    require_role(actor, Role.ANALYST)
    after, maximum = parse_cursor(cursor), page_size(size)
    parameters = {"is_online": is_online, "location": location, "at": after.value, "after": after.id, "maximum": maximum + 1}
    return page_of(await db.rows(LISTED, parameters, into=Device), maximum, lambda device: device.registered_at)
