"""The event stream, described for its consumers: JSON Schemas and an AsyncAPI document, generated from the closed registry."""

from functools import cache
from importlib.metadata import version as installed
from typing import Any, Final

import msgspec

from application.history.earlier_schemas import EARLIER
from application.history.event_meanings import EVERY_EVENT, FIELDS, MEANINGS
from application.jobs.topics import EVENTS as TOPIC
from domain.errors import NotFound
from domain.events import ERASED, SEALED_PREFIX, SEALED_V1_PREFIX, Event, private_fields
from domain.registry import EVENTS, NOUN_OF
from domain.values import named

COLUMNS: Final = ("originator_id", "originator_version")  # sent beside the data, not in it
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
CIPHERTEXT: Final = {"type": "string", "pattern": f"^({SEALED_V1_PREFIX}|{SEALED_PREFIX})[A-Za-z0-9+/]+={{0,2}}$"}
OWNERS: Final = {
    "originator_id": "the event's own stream",
    "owner_id": "the account named by `owner_id`",
    "user_id": "the account or registration named by `user_id`",
}

SHA256_HEX: Final = {"pattern": "^[0-9a-f]{64}$"}
HEADERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "ce_specversion": ("CloudEvents' version", {"const": "1.0"}),
    "ce_id": ("the event's id", {"format": "uuid"}),
    "ce_source": ("the installation that the event comes from", {"format": "uri-reference"}),
    "ce_type": ("its type", {}),
    "ce_subject": ("the stream: the id of the thing that it happened to", {"format": "uuid"}),
    "ce_time": ("when it was recorded (UTC)", {"format": "date-time"}),
    "ce_position": ("its place in the log: 1, 2, 3, ... without a gap", {"pattern": "^[1-9][0-9]*$"}),
    "ce_streamversion": ("its place in its stream: 1, 2, 3, ... without a gap", {"pattern": "^[1-9][0-9]*$"}),
    "ce_schemaversion": ("the version of the payload's schema", {"pattern": "^[1-9][0-9]*$"}),
    "ce_correlationid": ("what belongs together: the command that began it all", {"format": "uuid"}),
    "ce_causationid": ("what led to it: a command, or an event", {"format": "uuid"}),
    "ce_meta": ("who did it and in which request, as it is stored (JSON)", {}),
    "ce_previoushash": ("the hash of the event before it in the log, in hexadecimal", SHA256_HEX),
    "ce_hash": ("the hash of the event, in hexadecimal: it covers all that is stored of it, and the hash before it", SHA256_HEX),
    "ce_mac": ("what tells the installation itself that its relay wrote the record", {}),
    "traceparent": ("W3C trace context of the request, where there was one", {}),
    "content-type": ("of the payload", {"const": "application/json"}),
}
OPTIONAL: Final = {"ce_correlationid", "ce_causationid", "traceparent"}

DESCRIPTION: Final = f"""\
Everything that happens, in the order in which it happened. The topic `{TOPIC}` carries the whole log: `ce_position` counts 1, 2, 3, ...
without a gap, so a consumer that keeps its own position sees at once what it has seen already and what it is missing, and reads that
from `GET /api/events?after=POSITION`. Delivery is at least once.

Private fields (names, addresses, file names, paths, descriptions, hosts, places) travel sealed: text that begins with
`{SEALED_V1_PREFIX}` or `{SEALED_PREFIX}`,
ciphertext whose key never leaves the installation and is destroyed when the person asks. New optional fields may come at any time: ignore
what you do not know. A changed meaning is a new schema version."""


def schema(kind: str, version: int | None = None, *, sealed: bool = True) -> dict[str, Any]:
    """The JSON Schema of a payload, in the newest version unless one is named. Raises NotFound.

    It describes the payload in Kafka or, with `sealed=False`, in the HTTP feed for readers of private fields.
    """
    newest = _registered(kind).schema_version
    number = newest if version is None else version
    if number != newest and (kind, number) not in EARLIER:
        raise NotFound(f"There is no version {number} of {kind}")
    described = EARLIER[kind, number] if number != newest else _event_schema(EVENTS[kind], "#/$defs/{name}", sealed=sealed)
    form = "sealed" if sealed else "clear"
    return {"$schema": DIALECT, "$id": f"urn:bioscope:event:{kind}:{number}:{form}"} | described


def versions(kind: str) -> list[int]:
    """The schema versions that a stored event of this type may have. Raises NotFound."""
    return list(range(1, _registered(kind).schema_version + 1))


@cache
def document() -> dict[str, Any]:
    """The AsyncAPI 3.0 document. It is cached: callers must not change it."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:bioscope:events",
        "info": {
            "title": "BioScopeAI Core: events",
            "version": installed("bioscope"),
            "description": DESCRIPTION,
            "license": {"name": "MIT"},
            "tags": [{"name": noun} for noun in sorted(set(NOUN_OF.values()))],
        },
        "defaultContentType": "application/json",
        "channels": {"events": _channel()},
        "operations": {
            "publish": {
                "action": "send",
                "channel": {"$ref": "#/channels/events"},
                "summary": "Every event, in order, at least once",
                "messages": [{"$ref": f"#/channels/events/messages/{kind}"} for kind in EVENTS],
            }
        },
        "components": {
            "messages": {kind: _message(kind) for kind in EVENTS},
            "messageTraits": {"event": {"contentType": "application/json", "headers": _headers(), "bindings": _key()}},
            "schemas": _schemas(),
        },
    }


def _channel() -> dict[str, Any]:
    return {
        "address": TOPIC,
        "description": "The log. One partition, so that its order is the log's.",
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in EVENTS},
        "bindings": {"kafka": {"topic": TOPIC, "partitions": 1, "bindingVersion": "0.5.0"}},
    }


def _message(kind: str) -> dict[str, Any]:
    return {
        "name": kind,
        "title": kind,
        "summary": MEANINGS[kind],
        "tags": [{"name": NOUN_OF[kind]}],
        "traits": [{"$ref": "#/components/messageTraits/event"}],
        "payload": _payload(kind),
    }


def _payload(kind: str) -> dict[str, Any]:
    """The schema of a payload in any of its versions, which the header `ce_schemaversion` names."""
    newest = {"$ref": f"#/components/schemas/{kind}"}
    earlier = [{"$ref": f"#/components/schemas/{kind}.{version}"} for version in versions(kind)[:-1]]
    return {"oneOf": [newest, *earlier]} if earlier else newest


def _headers() -> dict[str, Any]:
    properties = {name: {"type": "string", "description": meaning} | more for name, (meaning, more) in HEADERS.items()}
    return {"type": "object", "properties": properties, "required": [name for name in HEADERS if name not in OPTIONAL]}


def _key() -> dict[str, Any]:
    key = {"type": "string", "format": "uuid", "description": "the stream"}
    return {"kafka": {"key": key, "bindingVersion": "0.5.0"}}


def _schemas() -> dict[str, Any]:
    """The schemas of all payloads and of the types that they use."""
    schemas: dict[str, Any] = {f"{kind}.{version}": earlier for (kind, version), earlier in EARLIER.items()}
    for kind in EVENTS.values():
        described = _event_schema(kind, "#/components/schemas/{name}", sealed=True)
        schemas |= described.pop("$defs", {})
        schemas[kind.__name__] = described
    return dict(sorted(schemas.items()))


def _event_schema(kind: type[Event], ref_template: str, *, sealed: bool) -> dict[str, Any]:
    """The schema of an event type without the columns, with private fields marked, and the types that it uses under `$defs`."""
    _, components = msgspec.json.schema_components([kind], ref_template=ref_template)
    found = msgspec.json.decode(msgspec.json.encode(components))  # converts defaults to JSON values
    own: dict[str, Any] = found.pop(kind.__name__)
    own["properties"] = {
        name: _field_schema(kind, name, described, sealed=sealed) for name, described in own["properties"].items() if name not in COLUMNS
    }
    own["required"] = [name for name in own["required"] if name not in COLUMNS]
    own["description"] = MEANINGS[kind.__name__]
    return own | ({"$defs": {name: _part_schema(name, part) for name, part in found.items()}} if found else {})


def _part_schema(name: str, described: dict[str, Any]) -> dict[str, Any]:
    """Of a struct or an enumeration in the fields of an event."""
    if "properties" not in described:
        return described
    fields = {field: schema | {"description": FIELDS[name][field]} for field, schema in described["properties"].items()}
    return described | {"properties": fields}


def _field_schema(kind: type[Event], name: str, described: dict[str, Any], *, sealed: bool) -> dict[str, Any]:
    if name in EVERY_EVENT:
        return described | {"description": EVERY_EVENT[name]} | ({"format": "date-time"} if name == "at" else {})
    meaning = FIELDS[kind.__name__][name]
    owner = private_fields(kind).get(name)
    if owner is None:
        return described | {"description": meaning}
    if not sealed:
        return described | {"description": f"{meaning} Private: `{ERASED}` or missing after the key of {OWNERS[owner]} was destroyed."}
    private = {"description": f"{meaning} Private: AES-256-GCM with the key of {OWNERS[owner]}."}
    return ({"anyOf": [CIPHERTEXT, {"type": "null"}]} if {"type": "null"} in described.get("anyOf", ()) else CIPHERTEXT) | private


def _registered(kind: str) -> type[Event]:
    if kind not in EVENTS:
        raise NotFound(f"There is no {named('event type', kind)}")
    return EVENTS[kind]
