"""Forged records, as an attacker who can read and write the topic would send them. Only the record key is unknown to the attacker."""

import random
from typing import Any
from uuid import UUID

import msgspec

from application.history.hash_chain import link
from application.ports import ChainedEvent
from infrastructure.kafka.cloud_events import RecordKey, _parsed, headers
from infrastructure.security.keys import RootKey

OTHER_KEY = RecordKey(RootKey(b"another installation's root key!"))


def carried(record: Any) -> dict[str, bytes]:
    return dict(record.headers)


def following_event(record: Any, *, type: str, data: bytes, event_id: UUID, stream: UUID | None = None) -> tuple[list[Any], bytes]:  # noqa: A002
    """Headers and value of an event behind that of `record`: every hash is right, the source copied, the MAC that of `record`."""
    linked = _parsed(carried(record), record.value)
    claimed = linked.event.hash
    event = msgspec.structs.replace(
        linked.event,
        position=linked.event.position + 1,
        stream=stream or linked.event.stream,
        version=linked.event.version + 1,
        type=type,
        data=data,
        event_id=event_id,
    )
    event = msgspec.structs.replace(event, hash=link(claimed, event))
    copied = {name: carried(record)[name] for name in ("ce_source", "ce_mac")}
    made = headers(ChainedEvent(event, claimed), OTHER_KEY)
    return [(name, copied.get(name, value)) for name, value in made], data


def altered(record: Any, **changes: bytes) -> list[Any]:
    return [(name, changes.get(name, value)) for name, value in record.headers]


def forgeries(record: Any, chance: random.Random) -> list[tuple[list[Any], bytes]]:
    """One of each kind."""
    linked = _parsed(carried(record), record.value)
    anything = UUID(int=chance.getrandbits(128))
    return [
        following_event(record, type=linked.event.type, data=record.value, event_id=anything),
        following_event(record, type=linked.event.type, data=record.value, event_id=anything, stream=anything),
        (altered(record, ce_position=b"%d" % (linked.event.position + 1)), record.value),
        (list(record.headers), record.value[:-1] + b" "),
        (headers(linked._replace(event=msgspec.structs.replace(linked.event, event_id=anything)), OTHER_KEY), record.value),
        ([], chance.randbytes(100)),
        ([(name, chance.randbytes(9)) for name, _ in record.headers], b"{}"),
        (altered(record, ce_position=b"9" * 5000), b"{}"),
        ([("ce_source", carried(record)["ce_source"])], b"\0" * 100_000),
    ]
