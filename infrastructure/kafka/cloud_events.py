"""An event as it travels: CloudEvents 1.0 in Kafka's binary mode. The payload is the bytes as stored, never upcast."""

from datetime import UTC
from typing import Any, Final
from uuid import UUID

import msgspec

from application.ports import Recorded
from infrastructure.keys import Keys
from infrastructure.security.key_ring import Purpose

SPEC: Final = b"1.0"
JSON: Final = b"application/json"

Headers = list[tuple[str, bytes]]


class Said(msgspec.Struct):
    """What travels of an event's meta."""

    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""


_meta = msgspec.json.Decoder(Said)


def source_of(keys: Keys) -> bytes:
    """The name of the installation that the keys are of. It stays the same when other keys change. Raises MissingKey."""
    return UUID(bytes=keys.all(Purpose.EVENT_SOURCE)[-1].secret[:16]).urn.encode()


def headers(event: Recorded, *, source: bytes) -> Headers:
    assert event.recorded_at is not None
    said = _meta.decode(event.meta)
    told: Headers = [
        ("ce_specversion", SPEC),
        ("ce_id", str(event.event_id).encode()),
        ("ce_source", source),
        ("ce_type", event.type.encode()),
        ("ce_subject", str(event.stream).encode()),
        ("ce_time", event.recorded_at.astimezone(UTC).isoformat().replace("+00:00", "Z").encode()),
        ("ce_position", b"%d" % event.position),
        ("ce_streamversion", b"%d" % event.version),
        ("ce_schemaversion", b"%d" % event.schema_version),
        ("ce_correlationid", said.correlation_id.encode()),
        ("ce_causationid", said.causation_id.encode()),
        ("traceparent", said.traceparent.encode()),
        ("content-type", JSON),
    ]
    return [(name, value) for name, value in told if value]


def recorded(record: Any, *, source: bytes | None = None) -> Recorded:
    """The event of a record, without its meta and hash, which the store has. Raises ValueError for one that is not `source`'s relay's."""
    said = dict(record.headers)
    if source is not None and said.get("ce_source") != source:
        raise ValueError(f"it comes from {said.get('ce_source', b'somewhere else').decode(errors='replace')}, not from {source.decode()}")
    try:
        return Recorded(
            position=int(said["ce_position"]),
            stream=UUID(said["ce_subject"].decode()),
            version=int(said["ce_streamversion"]),
            type=said["ce_type"].decode(),
            schema_version=int(said["ce_schemaversion"]),
            event_id=UUID(said["ce_id"].decode()),
            data=record.value or b"",
        )
    except KeyError as missing:
        raise ValueError(f"the header {missing} is missing") from None
