"""JSON Schemas of earlier payload versions, by type and version. The log contains such events forever.

A change that raises a `schema_version` adds the old schema here. These versions have no private fields, so both forms are equal.
"""

from typing import Any, Final

from application.history.event_meanings import EVERY_EVENT, FIELDS, MEANINGS

TEXT: Final = {"type": "string"}
UUID_TEXT: Final = {"type": "string", "format": "uuid"}
OPTIONAL_TEXT: Final = {"anyOf": [TEXT, {"type": "null"}]}
COMMON: Final[dict[str, dict[str, Any]]] = {
    "at": {"type": "string", "format": "date-time", "description": EVERY_EVENT["at"]},
    "by": {"type": "string", "format": "uuid", "description": EVERY_EVENT["by"]},
}
REQUESTED: Final[dict[str, dict[str, Any]]] = {
    "dataset_id": UUID_TEXT,
    "image_id": {"anyOf": [UUID_TEXT, {"type": "null"}]},
    "model_id": UUID_TEXT,
    "model_name": TEXT,
    "model_version": {"type": "integer"},
    "model_sha256": TEXT,
    "threshold": {"type": "number"},
}
DEVICE: Final[dict[str, dict[str, Any]]] = {"name": TEXT, "hostname": TEXT, "location": OPTIONAL_TEXT, "firmware_version": OPTIONAL_TEXT}


def _properties(kind: str, fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return COMMON | {name: schema | {"description": FIELDS[kind][name]} for name, schema in fields.items()}


EARLIER: Final[dict[tuple[str, int], dict[str, Any]]] = {
    ("DeviceRegistered", 1): {
        "title": "DeviceRegistered",
        "description": MEANINGS["DeviceRegistered"],
        "type": "object",
        "properties": _properties("DeviceRegistered", DEVICE),
        "required": [*COMMON, *DEVICE],
    },
    ("DeviceDescribed", 1): {
        "title": "DeviceDescribed",
        "description": MEANINGS["DeviceDescribed"],
        "type": "object",
        "properties": _properties("DeviceDescribed", DEVICE),
        "required": list(COMMON),
    },
    ("ClassificationRequested", 1): {
        "title": "ClassificationRequested",
        "description": MEANINGS["ClassificationRequested"],
        "type": "object",
        "properties": _properties("ClassificationRequested", REQUESTED),
        "required": [*COMMON, *REQUESTED],
    },
}
