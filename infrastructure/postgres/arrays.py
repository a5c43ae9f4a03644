"""One-dimensional arrays in Postgres' binary format. psycopg's own adapter needs one Python call per element."""

import struct
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

NULL: Final = b"\xff\xff\xff\xff"
EMPTY_HEAD: Final = struct.Struct(">iii")
HEAD: Final = struct.Struct(">iiiii")
LENGTH: Final = struct.Struct(">i")
INT: Final = struct.Struct(">ii")
BOOL, BYTEA, INT4, TEXT, UUID_ = 16, 17, 23, 25, 2950


class Array:
    """An array whose elements have the type `oid`, already encoded."""

    __slots__ = ("data",)

    def __init__(self, oid: int, elements: Sequence[bytes]) -> None:
        head = HEAD.pack(1, int(NULL in elements), oid, len(elements), 1) if elements else EMPTY_HEAD.pack(0, 0, oid)
        self.data = head + b"".join(elements)


def uuids(values: Sequence[UUID | None]) -> Array:
    return Array(UUID_, [NULL if value is None else b"\0\0\0\x10" + value.bytes for value in values])


def ints(values: Sequence[int | None]) -> Array:
    return Array(INT4, [NULL if value is None else INT.pack(4, value) for value in values])


def bools(values: Sequence[bool]) -> Array:
    return Array(BOOL, [b"\0\0\0\1\1" if value else b"\0\0\0\1\0" for value in values])


def texts(values: Sequence[str | None]) -> Array:
    return _framed(TEXT, [None if value is None else value.encode() for value in values])


def byteas(values: Sequence[bytes | None]) -> Array:
    return _framed(BYTEA, values)


def _framed(oid: int, values: Sequence[bytes | None]) -> Array:
    return Array(oid, [NULL if value is None else LENGTH.pack(len(value)) + value for value in values])


class _ArrayDumper(Dumper):
    """Passes the encoded array. The cast in the query determines its type."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: Array) -> bytes:
        return obj.data


def register(connection: psycopg.Connection) -> None:
    """Let `connection` accept Arrays as arguments, which the query must cast (`%s::uuid[]`)."""
    connection.adapters.register_dumper(Array, _ArrayDumper)
