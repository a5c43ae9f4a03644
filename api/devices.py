"""Devices over HTTP."""

import asyncio
from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from api.request import NamedBody, RequestContext, sent_fields
from application import devices
from application.commands import CommandResult
from domain.device import Device as State
from projections import devices as reading


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """`last_seen`: its last sign of life."""

    id: UUID
    name: str
    hostname: str
    location: str | None
    firmware_version: str | None
    is_online: bool
    last_seen: datetime | None
    registered_at: datetime


class RegisterDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    hostname: str
    location: str | None = None
    firmware_version: str | None = None


class DescribeDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str | UnsetType = UNSET
    hostname: str | UnsetType = UNSET
    location: str | None | UnsetType = UNSET
    firmware_version: str | None | UnsetType = UNSET


class ReportDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    is_online: bool


def view(row: reading.Device | State, *, last_seen: datetime | None = None) -> Device:
    return Device(
        id=row.id,
        name=row.name,
        hostname=row.hostname,
        location=row.location,
        firmware_version=row.firmware_version,
        is_online=row.online,
        last_seen=last_seen or row.last_seen,
        registered_at=row.registered_at,
    )


async def answer(call: RequestContext, done: CommandResult) -> Response[Device]:
    """As the log knows it, so that body and ETag belong together however far the read models are."""
    state = await asyncio.to_thread(devices.load_device, call.services.log, done.id)
    last_seen = await asyncio.to_thread(call.services.last_seen.of, done.id)
    return call.changed(view(state, last_seen=last_seen), done)


class Devices(Controller):
    path = "/api/devices"
    tags = ("devices",)

    @get("/")
    async def listed(
        self,
        call: NamedDependency[RequestContext],
        is_online: FromQuery[bool | None] = None,
        location: FromQuery[str | None] = None,
        page_size: FromQuery[int] = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Device]]:
        """Oldest first; `location` must be met exactly."""
        page = await call.read(reading.listed, is_online=is_online, location=location, cursor=cursor, size=page_size)
        return call.page(page, view)

    @post("/")
    async def register(self, call: NamedDependency[RequestContext], data: JSONBody[RegisterDevice]) -> Response[NamedBody]:
        """For administrators. No two devices have the same host name."""
        done = await call.do(
            devices.register,
            name=data.name,
            hostname=data.hostname,
            location=data.location,
            firmware_version=data.firmware_version,
        )
        return call.created(NamedBody(done.id, data.name), done)

    @get("/{device_id:uuid}")
    async def one(self, call: NamedDependency[RequestContext], device_id: FromPath[UUID]) -> Response[Device]:
        row = await call.read(reading.get, device_id)
        return call.found(view(row), version=row.version)

    @patch("/{device_id:uuid}")
    async def describe(
        self, call: NamedDependency[RequestContext], device_id: FromPath[UUID], data: JSONBody[DescribeDevice]
    ) -> Response[Device]:
        return await answer(call, await call.do(devices.describe, device_id, sent_fields(data), expected=call.expected))

    @patch("/{device_id:uuid}/status")
    async def report(
        self, call: NamedDependency[RequestContext], device_id: FromPath[UUID], data: JSONBody[ReportDevice]
    ) -> Response[Device]:
        """A sign of life, or that it went offline."""
        return await answer(call, await call.do(devices.report, device_id, online=data.is_online, last_seen=call.services.last_seen))

    @delete("/{device_id:uuid}", status_code=204)
    async def remove(self, call: NamedDependency[RequestContext], device_id: FromPath[UUID]) -> Response[None]:
        """Its images stay."""
        return call.gone(await call.do(devices.remove, device_id, expected=call.expected, last_seen=call.services.last_seen))
