"""The marker segments of a JPEG before its first scan, to be taken out or put in (ITU-T T.81, annex B)."""

import struct
from collections.abc import Callable

START, END, SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
TABLES = frozenset({0xC4, 0xDB})
"""Huffman codes and quantisation."""
APPLICATION = frozenset(range(0xE0, 0xF0))
JFIF, ADOBE = 0xE0, 0xEE


def segments(jpeg: bytes) -> tuple[list[bytes], bytes]:
    """The segments with their markers, and the rest of the file from the first scan on."""
    found, at = [], 2
    while jpeg[at + 1] != SCAN:
        (length,) = struct.unpack_from(">H", jpeg, at + 2)
        found.append(jpeg[at : at + 2 + length])
        at += 2 + length
    return found, jpeg[at:]


def without(jpeg: bytes, markers: frozenset[int]) -> bytes:
    found, rest = segments(jpeg)
    return b"".join((START, *(segment for segment in found if segment[1] not in markers), rest))


def only(jpeg: bytes, markers: frozenset[int]) -> bytes:
    """A stream of these segments alone."""
    return b"".join((START, *(segment for segment in segments(jpeg)[0] if segment[1] in markers), END))


def changed(jpeg: bytes, marker: int, change: Callable[[bytes], bytes]) -> bytes:
    """With each segment of `marker` changed, which keeps its length."""
    found, rest = segments(jpeg)
    return b"".join((START, *(change(segment) if segment[1] == marker else segment for segment in found), rest))


def inserted(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """With a segment more: the first one, but for that of JFIF."""
    segment = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    found, rest = segments(jpeg)
    first = 1 if found[0][1] == JFIF else 0
    return b"".join((START, *found[:first], segment, *found[first:], rest))
