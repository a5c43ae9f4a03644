"""JSON Schemas of payloads in versions that the registry no longer holds, by type and version: the log has such events for ever.

Whoever raises a `schema_version` keeps the old schema here. In these versions nothing was private, so both forms are the same.
"""

from typing import Any, Final

TEXT: Final = {"type": "string"}
OPTIONAL_TEXT: Final = {"anyOf": [TEXT, {"type": "null"}]}
COMMON: Final = {
    "at": {"type": "string", "format": "date-time", "description": "when it happened (UTC)"},
    "by": {"type": "string", "format": "uuid", "description": "who did it"},
}
DEVICE: Final = COMMON | {"name": TEXT, "hostname": TEXT, "location": OPTIONAL_TEXT, "firmware_version": OPTIONAL_TEXT}

EARLIER: Final[dict[tuple[str, int], dict[str, Any]]] = {
    ("DeviceRegistered", 1): {
        "title": "DeviceRegistered",
        "description": "A microscope or camera is known.",
        "type": "object",
        "properties": DEVICE,
        "required": list(DEVICE),
    },
    ("DeviceDescribed", 1): {
        "title": "DeviceDescribed",
        "description": "What is said of a device changed. Fields left out did not change; null means cleared.",
        "type": "object",
        "properties": DEVICE,
        "required": list(COMMON),
    },
}
