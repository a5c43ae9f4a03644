"""The marker segments of a valid JPEG before its first scan."""

import struct
from collections.abc import Iterator
from typing import Final

APP0, APP2, APP13, APP14, SCAN = 0xE0, 0xE2, 0xED, 0xEE, 0xDA
SHORTEST_BODIES: Final = {(APP0, b"JFIF"): 14, (APP2, b"ICC_PROFILE\0"): 14, (APP14, b"Adobe"): 12}
FILL: Final = 0xFF


def with_usable_segments(data: bytes) -> bytes:
    """The JPEG without Photoshop segments, and without JFIF, profile and Adobe segments that are too short.

    libjpeg ignores such segments; Pillow may fail on them.
    """
    kept, done = [], 0
    for start, end in _segments(data):
        if _is_useless(data[start:end]):
            kept.append(data[done:start])
            done = end
    return b"".join([*kept, data[done:]]) if kept else data


def _is_useless(segment: bytes) -> bool:
    marker, body = segment[1], segment[4:]
    too_short = any(marker == kind and body.startswith(name) and len(body) < minimum for (kind, name), minimum in SHORTEST_BODIES.items())
    return too_short or marker == APP13


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Start and end offset of each segment, including the marker."""
    at = 2
    while data[at + 1] != SCAN:
        if data[at + 1] == FILL:
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield at, at + 2 + length
        at += 2 + length
