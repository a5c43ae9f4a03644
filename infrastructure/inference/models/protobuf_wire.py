"""A reader of the Protocol Buffers wire format, field by field, without a schema and without copying."""

from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

MAX_VARINT_BYTES: Final = 10
MAX_TAG: Final = 2**32 - 1
UINT64: Final = 2**64 - 1


class MalformedMessage(ValueError):
    """The bytes are not a valid message."""


class Wire(IntEnum):
    """The wire type of a value. Groups (3 and 4) are obsolete and count as malformed."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


class Field(NamedTuple):
    """One field. `number` is the value of a varint, else 0; `content` are the bytes of other wire types."""

    key: int
    wire: Wire
    number: int
    content: memoryview


FIXED_BYTES: Final = {Wire.FIXED64: 8, Wire.FIXED32: 4}
EMPTY: Final = memoryview(b"")


def read_fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message, in stored order. Raises MalformedMessage."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        wire = _wire(tag)
        if wire is Wire.VARINT:
            number, at = _read_varint(message, at)
            yield Field(tag >> 3, wire, number, EMPTY)
            continue
        size, at = _read_varint(message, at) if wire is Wire.BYTES else (FIXED_BYTES[wire], at)
        if size > len(message) - at:
            raise MalformedMessage("a field is longer than its message")
        yield Field(tag >> 3, wire, 0, message[at : at + size])
        at += size


def read_varints(packed: memoryview) -> Iterator[int]:
    """The varints of a packed field. Raises MalformedMessage."""
    at = 0
    while at < len(packed):
        number, at = _read_varint(packed, at)
        yield number


def _wire(tag: int) -> Wire:
    if not 0 < tag >> 3 <= MAX_TAG >> 3:
        raise MalformedMessage("a field has no number")
    try:
        return Wire(tag & 7)
    except ValueError:
        raise MalformedMessage("a field is of no known kind") from None


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number, truncated to 64 bits, and the offset after it."""
    number = 0
    for index, byte in enumerate(message[at : at + MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number & UINT64, at + index + 1
    raise MalformedMessage("a number does not end")
