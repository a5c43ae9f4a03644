"""JSON Schemas of earlier payload versions, by type and version. The log contains such events forever.

A change that raises a `schema_version` adds the old schema here. These versions have no private fields, so both forms are equal.
"""

from typing import Any, Final

from application.history.event_meanings import EVERY_EVENT, FIELDS, MEANINGS

TEXT: Final = {"type": "string"}
OPTIONAL_TEXT: Final = {"anyOf": [TEXT, {"type": "null"}]}
COMMON: Final[dict[str, dict[str, Any]]] = {
    "at": {"type": "string", "format": "date-time", "description": EVERY_EVENT["at"]},
    "by": {"type": "string", "format": "uuid", "description": EVERY_EVENT["by"]},
}
DEVICE: Final[dict[str, dict[str, Any]]] = {"name": TEXT, "hostname": TEXT, "location": OPTIONAL_TEXT, "firmware_version": OPTIONAL_TEXT}


def _properties(kind: str) -> dict[str, Any]:
    return COMMON | {name: schema | {"description": FIELDS[kind][name]} for name, schema in DEVICE.items()}


EARLIER: Final[dict[tuple[str, int], dict[str, Any]]] = {
    ("DeviceRegistered", 1): {
        "title": "DeviceRegistered",
        "description": MEANINGS["DeviceRegistered"],
        "type": "object",
        "properties": _properties("DeviceRegistered"),
        "required": [*COMMON, *DEVICE],
    },
    ("DeviceDescribed", 1): {
        "title": "DeviceDescribed",
        "description": MEANINGS["DeviceDescribed"],
        "type": "object",
        "properties": _properties("DeviceDescribed"),
        "required": list(COMMON),
    },
}
