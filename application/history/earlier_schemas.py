"""JSON Schemas of earlier payload versions, by type and version. The log contains such events forever.

A change that raises a `schema_version` adds the old schema here. These versions have no private fields, so both forms are equal.
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
