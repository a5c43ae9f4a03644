"""Device routes."""

import asyncio
from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from api.request import NamedBody, PageSize, RequestContext, from_row, sent_fields
from application import devices
from application.commands import CommandResult
from domain.device import Device as State
from projections import devices as read_model


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A microscope or camera."""

    id: UUID
    name: str
    hostname: str
    location: str | None
    firmware_version: str | None
    is_online: bool
    last_seen: datetime | None
    registered_at: datetime


class RegisterDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new device."""

    name: str
    hostname: str
    location: str | None = None
    firmware_version: str | None = None


class DescribeDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change. Null clears location and firmware version."""

    name: str | UnsetType = UNSET
    hostname: str | UnsetType = UNSET
    location: str | None | UnsetType = UNSET
    firmware_version: str | None | UnsetType = UNSET


class ReportDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The present state of a device."""

    is_online: bool


def view(row: read_model.Device | State, *, last_seen: datetime | None = None) -> Device:
    return from_row(row, Device, is_online=row.online, last_seen=last_seen or row.last_seen)


async def changed(context: RequestContext, result: CommandResult) -> Response[Device]:
    """Respond with the device as the log has it, so that body and ETag agree even if the read models are behind."""
    state = await context.read_log(devices.load_device, device_id=result.id)
    last_seen = await asyncio.to_thread(context.services.last_seen.of, result.id)
    return context.changed(view(state, last_seen=last_seen), result)


class Devices(Controller):
    path = "/api/devices"
    tags = ("devices",)

    @get("/", operation_id="devicesListed", summary="List devices")
    async def list_devices(
        self,
        context: NamedDependency[RequestContext],
        is_online: FromQuery[bool | None] = None,
        location: FromQuery[str | None] = None,
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Device]]:
        """All devices, oldest first. Needs the role analyst."""
        page = await context.read(read_model.listed, is_online=is_online, location=location, cursor=cursor, size=page_size)
        return context.page(page, view)

    @post("/", summary="Register a device")
    async def register(self, context: NamedDependency[RequestContext], data: JSONBody[RegisterDevice]) -> Response[NamedBody]:
        """Add a microscope or camera. No two devices have the same host name. For administrators."""
        result = await context.execute(
            devices.register,
            name=data.name,
            hostname=data.hostname,
            location=data.location,
            firmware_version=data.firmware_version,
        )
        return context.created(NamedBody(result.id, data.name), result)

    @get("/{device_id:uuid}", operation_id="devicesOne", summary="Read a device")
    async def get_device(self, context: NamedDependency[RequestContext], device_id: FromPath[UUID]) -> Response[Device]:
        """One device. Needs the role analyst."""
        row = await context.read(read_model.get, device_id)
        return context.versioned(view(row), version=row.version)

    @patch("/{device_id:uuid}", summary="Update a device")
    async def describe(
        self, context: NamedDependency[RequestContext], device_id: FromPath[UUID], data: JSONBody[DescribeDevice]
    ) -> Response[Device]:
        """Change what is known of a device. For administrators."""
        return await changed(
            context, await context.execute(devices.describe, device_id, sent_fields(data), expected=context.expected_version)
        )

    @patch("/{device_id:uuid}/status", summary="Report the status of a device")
    async def report(
        self, context: NamedDependency[RequestContext], device_id: FromPath[UUID], data: JSONBody[ReportDevice]
    ) -> Response[Device]:
        """Report that a device is online, which also updates `last_seen`, or that it went offline. For administrators."""
        return await changed(
            context, await context.execute(devices.report, device_id, online=data.is_online, last_seen=context.services.last_seen)
        )

    @delete("/{device_id:uuid}", status_code=204, summary="Delete a device")
    async def remove(self, context: NamedDependency[RequestContext], device_id: FromPath[UUID]) -> Response[None]:
        """Remove a device. Its images stay. For administrators."""
        return context.no_content(
            await context.execute(devices.remove, device_id, expected=context.expected_version, last_seen=context.services.last_seen)
        )
