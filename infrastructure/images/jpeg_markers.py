"""The marker segments of a JPEG whose structure holds, up to its first scan."""

import struct
from collections.abc import Iterator
from typing import Final

APP0, APP14, SCAN = 0xE0, 0xEE, 0xDA
SHORTEST_BODIES: Final = {(APP0, b"JFIF"): 14, (APP14, b"Adobe"): 12}
FILL: Final = 0xFF


def without_broken_markers(data: bytes) -> bytes:
    """Without JFIF and Adobe segments that are too short to say anything: libjpeg passes over them, Pillow fails."""
    kept, done = [], 0
    for start, end in _segments(data):
        if _is_too_short(data[start:end]):
            kept.append(data[done:start])
            done = end
    return b"".join([*kept, data[done:]]) if kept else data


def _is_too_short(segment: bytes) -> bool:
    marker, body = segment[1], segment[4:]
    return any(marker == kind and body.startswith(name) and len(body) < least for (kind, name), least in SHORTEST_BODIES.items())


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each, the marker included."""
    at = 2
    while data[at + 1] != SCAN:
        if data[at + 1] == FILL:
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield at, at + 2 + length
        at += 2 + length
