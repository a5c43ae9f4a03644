"""Events as Kafka records: CloudEvents 1.0 in binary mode. The payload is the stored data, never upcast.

Any client with write access to the topic could send records. So each record has a MAC over the hash of its row, which covers every
stored column and the previous hash. Only relay and projector hold the key.
"""

import hmac
import struct
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from application.history.hash_chain import link
from application.ports import AppendRejected, ChainedEvent, RecordedEvent
from infrastructure.security.key_ring import Keys, Purpose

SPEC: Final = b"1.0"
JSON: Final = b"application/json"
MAX_DATA_BYTES: Final = 256 * 1024  # as in the table es.events
MAX_META_BYTES: Final = 64 * 1024

Headers = list[tuple[str, bytes]]


class EventContext(msgspec.Struct):
    """The part of an event's metadata that has its own headers."""

    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""


_context = msgspec.json.Decoder(EventContext)


class RecordKey:
    """The name of an installation and the keys of its records, shared by relay and projector. Raises MissingKey.

    The name does not change when other keys change.
    """

    def __init__(self, keys: Keys) -> None:
        self.source = UUID(bytes=keys.all(Purpose.EVENT_SOURCE)[-1].secret[:16]).urn.encode()
        self._macs = [(key.id.hex(), hmac.new(key.secret, digestmod="sha256")) for key in keys.all(Purpose.RELAY_RECORDS)]

    def mac(self, digest: bytes) -> bytes:
        """The MAC of a row's hash: key id, colon, HMAC-SHA256, in hexadecimal."""
        return _mac(*self._macs[0], digest)

    def verifies(self, mac: bytes, digest: bytes) -> bool:
        return any(hmac.compare_digest(_mac(key_id, keyed, digest), mac) for key_id, keyed in self._macs)


def _mac(key_id: str, keyed: hmac.HMAC, digest: bytes) -> bytes:
    mac = keyed.copy()  # cheaper than creating one from the key
    mac.update(digest)
    return f"{key_id}:{mac.hexdigest()}".encode()


def headers(chained: ChainedEvent, key: RecordKey) -> Headers:
    event, previous_hash = chained
    assert event.recorded_at is not None
    context = _context.decode(event.meta)
    present: Headers = [
        ("ce_specversion", SPEC),
        ("ce_id", str(event.event_id).encode()),
        ("ce_source", key.source),
        ("ce_type", event.type.encode()),
        ("ce_subject", str(event.stream).encode()),
        ("ce_time", event.recorded_at.astimezone(UTC).isoformat().replace("+00:00", "Z").encode()),
        ("ce_position", b"%d" % event.position),
        ("ce_streamversion", b"%d" % event.version),
        ("ce_schemaversion", b"%d" % event.schema_version),
        ("ce_correlationid", context.correlation_id.encode()),
        ("ce_causationid", context.causation_id.encode()),
        ("ce_meta", event.meta),
        ("ce_previoushash", previous_hash.hex().encode()),
        ("ce_hash", event.hash.hex().encode()),
        ("ce_mac", key.mac(event.hash)),
        ("traceparent", context.traceparent.encode()),
        ("content-type", JSON),
    ]
    return [(name, value) for name, value in present if value]


def authenticated(record: Any, key: RecordKey) -> ChainedEvent:
    """The event in a record of this installation's relay. Raises AppendRejected for any other record."""
    try:
        fields = dict(record.headers)
        source = fields.get("ce_source", b"")
        if source != key.source:
            raise AppendRejected("foreign", f"it comes from {source[:100]!r}")
        chained = _parsed(fields, record.value)
        digest = link(chained.previous_hash, chained.event)
    except (KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise AppendRejected("malformed", f"{type(error).__name__}: {error}"[:200]) from None
    if digest != chained.event.hash:
        raise AppendRejected("altered", "its hash does not match its content")
    if not key.verifies(fields.get("ce_mac", b""), digest):
        raise AppendRejected("forged", "it was not written by this installation's relay")
    return chained


def _parsed(fields: dict[str, bytes], value: bytes | None) -> ChainedEvent:
    """The event and the previous hash that a record claims to contain."""
    data, meta = value or b"", fields["ce_meta"]
    if len(data) > MAX_DATA_BYTES or len(meta) > MAX_META_BYTES:
        raise ValueError(f"{len(data)} bytes of data and {len(meta)} of metadata are more than any event has")
    event = RecordedEvent(
        position=int(fields["ce_position"]),
        stream=UUID(fields["ce_subject"].decode()),
        version=int(fields["ce_streamversion"]),
        type=fields["ce_type"].decode(),
        schema_version=int(fields["ce_schemaversion"]),
        event_id=UUID(fields["ce_id"].decode()),
        data=data,
        meta=meta,
        recorded_at=datetime.fromisoformat(fields["ce_time"].decode()),
        hash=bytes.fromhex(fields["ce_hash"].decode()),
    )
    return ChainedEvent(event, bytes.fromhex(fields["ce_previoushash"].decode()))
