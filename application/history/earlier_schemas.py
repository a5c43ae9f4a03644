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
ID: Final = {"type": "string", "format": "uuid"}
OPTIONAL_ID: Final = {"anyOf": [ID, {"type": "null"}]}
JOB: Final[dict[str, dict[str, Any]]] = {
    "dataset_id": ID,
    "image_id": OPTIONAL_ID,
    "model_id": ID,
    "model_name": TEXT,
    "model_version": {"type": "integer"},
    "model_sha256": TEXT,
    "threshold": {"type": "number"},
}
SESSION: Final[dict[str, dict[str, Any]]] = {
    "user_id": ID,
    "reason": {"enum": ["logout", "refresh_token_reused", "password_changed", "account_closed"]},
}
PLANE: Final = {"type": "integer"}
PLANES: Final[dict[str, Any]] = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "z": {"anyOf": [PLANE, {"enum": ["max", "mean"]}, {"type": "null"}]},
                "c": {"anyOf": [{"type": "array", "items": PLANE}, {"type": "null"}]},
                "t": {"anyOf": [PLANE, {"type": "null"}]},
            },
        },
        {"type": "null"},
    ]
}


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
        "properties": _properties("ClassificationRequested", JOB | {"planes": PLANES}),
        "required": [*COMMON, *JOB],
    },
    ("SessionRevoked", 1): {
        "title": "SessionRevoked",
        "description": MEANINGS["SessionRevoked"],
        "type": "object",
        "properties": _properties("SessionRevoked", SESSION),
        "required": [*COMMON, *SESSION],
    },
}
