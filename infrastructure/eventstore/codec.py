"""Encoding and decoding of events: JSON, upcasters, and private fields encrypted with their subject's data key."""

import base64
import os
import typing
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from typing import Any, Protocol
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag

from domain.errors import UpgradeNeeded
from domain.events import ERASED, SEALED_PREFIX, SEALED_PREFIXES, SEALED_V1_PREFIX, WITHHELD, Event, private_fields
from domain.registry import EVENTS, is_known
from infrastructure.security.keys import DataKey, DataKeys

COLUMNS = ("originator_id", "originator_version")
ID_BYTES, IDS_PER_READ = 16, 256
_random_ids: deque[bytes] = deque()
os.register_at_fork(after_in_child=_random_ids.clear)  # parent and child must not use the same ids

DECODERS: dict[str, msgspec.json.Decoder[Event]] = {name: msgspec.json.Decoder(kind) for name, kind in EVENTS.items()}
SEALED_MARK = b'"sealed:'
"""The start of every sealed value in JSON."""

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTERS: dict[tuple[str, int], Upcaster] = {
    ("DeviceRegistered", 1): lambda content: content,
    ("DeviceDescribed", 1): lambda content: content,
    ("ClassificationRequested", 1): lambda content: content,
    ("SessionRevoked", 1): lambda content: content,
}
"""Pure functions that convert data of (type, schema version) to the next version."""

PRIVATE_SINCE = {"DeviceRegistered": 2, "DeviceDescribed": 2}
"""The first schema version in which a type's private fields are sealed, if it is not 1. Earlier versions have clear text."""


class Undecodable(Exception):
    """The stored bytes are damaged: they do not match their type. Events of a newer release raise UpgradeNeeded instead."""


class KeyDestroyed(Exception):
    """An event has private fields of an erased subject."""


class SerializedEvent(Protocol):
    """An event as bytes: an EncodedEvent before the append, a RecordedEvent after it."""

    @property
    def stream(self) -> UUID: ...
    @property
    def version(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def schema_version(self) -> int: ...
    @property
    def event_id(self) -> UUID: ...
    @property
    def data(self) -> bytes: ...


class EncodedEvent(msgspec.Struct, frozen=True):
    """An event to append. `new_keys` are wrapped data keys that must be stored with it, by subject."""

    stream: UUID
    version: int
    type: str
    schema_version: int
    event_id: UUID
    data: bytes
    new_keys: tuple[tuple[UUID, bytes], ...] = ()


class Codec:
    """Encodes and decodes events with data keys. `history` reads the stored events of a stream."""

    def __init__(self, keys: DataKeys, history: Callable[[UUID], Iterable[SerializedEvent]]) -> None:
        self._keys, self._history = keys, history

    def encode(self, event: Event) -> EncodedEvent:
        """Encode an event and encrypt its private fields. Raises KeyDestroyed if a subject was erased."""
        kind = type(event)
        if EVENTS.get(kind.__name__) is not kind:
            raise Undecodable(f"{kind.__name__} is not a registered event")
        event_id = _new_event_id()
        content = msgspec.to_builtins(event)
        for column in COLUMNS:
            del content[column]
        new_keys = self._seal(event, event_id, content)
        return EncodedEvent(
            stream=event.originator_id,
            version=event.originator_version,
            type=kind.__name__,
            schema_version=event.written_version,
            event_id=event_id,
            data=msgspec.json.encode(content),
            new_keys=new_keys,
        )

    def decode(self, stored: SerializedEvent) -> Event:
        """Decode an event in its newest schema version. Private fields of erased subjects become `[erased]`.

        In a process without data keys, all private fields become `[sealed]`. Raises Undecodable, UpgradeNeeded.
        """
        return _decoded(stored, self._open)

    def readable(self, subjects: Iterable[UUID]) -> frozenset[UUID]:
        """The subjects whose keys `decode` would find now."""
        if self._keys.withheld:
            return frozenset()
        distinct = frozenset(subjects)
        self._keys.prefetch(distinct)
        return frozenset(subject for subject in distinct if self._keys.get(subject) is not None)

    def prefetch(self, stored: Iterable[SerializedEvent]) -> None:
        """Load the keys that these events need in one query."""
        self._keys.prefetch({subject for one in stored if (subject := subject_of(one)) is not None})

    def forget(self, subject: UUID) -> None:
        self._keys.forget(subject)

    def check_key(self, subject: UUID, wrapped: bytes) -> None:
        """Raises WrongRootKey if `wrapped` is not a key of `subject` in this installation, MissingKey."""
        self._keys.unwrap(subject, wrapped)

    def _seal(self, event: Event, event_id: UUID, content: dict[str, Any]) -> tuple[tuple[UUID, bytes], ...]:
        keys: dict[UUID, DataKey] = {}
        new: list[tuple[UUID, bytes]] = []
        for field, owner in private_fields(type(event)).items():
            if content.get(field) is None:
                continue
            subject: UUID = getattr(event, owner)
            if subject not in keys:
                keys[subject], wrapped = self._key_for(subject, event)
                new += [(subject, wrapped)] if wrapped is not None else []
            sealed = keys[subject].seal(msgspec.json.encode(content[field]), _associated_data(event_id, field))
            content[field] = SEALED_PREFIX + base64.b64encode(sealed).decode()
        return tuple(new)

    def _key_for(self, subject: UUID, event: Event) -> tuple[DataKey, bytes | None]:
        """The subject's key, and its wrapped form if it is new. Raises KeyDestroyed.

        A stream's key is created in the same append as its first sealed value. So if a stream has sealed values but no key, the key was
        destroyed, and no other is created. Of two appends that would create the key of one stream, only one succeeds, since both append
        the same version.
        """
        own = subject == event.originator_id
        if own and event.originator_version == 1:
            return self._keys.create(subject)
        if (key := self._keys.look_up(subject)) is not None:
            return key, None
        if own and not any(map(is_sealed_by_its_stream, self._history(subject))):
            return self._keys.create(subject)
        raise KeyDestroyed(f"the data key of {subject} was destroyed: its private fields can no longer be written")

    def _open(self, kind: type[Event], event_id: UUID, content: dict[str, Any]) -> None:
        for field, owner in private_fields(kind).items():
            sealed = content.get(field)
            if isinstance(sealed, str) and sealed.startswith(SEALED_PREFIXES):
                content[field] = self._open_value(UUID(str(content[owner])), sealed, _associated_data(event_id, field), kind, field)

    def _open_value(self, subject: UUID, sealed: str, associated_data: bytes, kind: type[Event], field: str) -> Any:
        key = None if self._keys.withheld else self._keys.get(subject)
        if key is None:
            placeholder = WITHHELD if self._keys.withheld else ERASED
            return {} if field in _private_dicts(kind) else placeholder
        try:
            return msgspec.json.decode(_decrypted(key, sealed, associated_data))
        except InvalidTag:
            raise ValueError(f"{field} does not open with its subject's key") from None


def without_opening(stored: SerializedEvent) -> Event:
    """The event with its private fields as stored, without a key. Raises Undecodable, UpgradeNeeded."""
    return _decoded(stored, lambda *_: None)


def is_sealed_by_its_stream(stored: SerializedEvent) -> bool:
    """Whether a value is sealed with the key of the event's own stream. True for unknown types, which may have one."""
    return stored.type not in EVENTS or "originator_id" in _owners_of_sealed(stored)


def subject_of(stored: SerializedEvent) -> UUID | None:
    """The subject whose key seals private fields of the event; None if it has none."""
    owners = _owners_of_sealed(stored)
    if not owners:
        return None
    if owners == {"originator_id"}:
        return stored.stream
    try:
        return UUID(msgspec.json.decode(stored.data)[owners.pop()])
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return None


def _decoded(stored: SerializedEvent, open_private: Callable[[type[Event], UUID, dict[str, Any]], None]) -> Event:
    if not is_known(stored.type, stored.schema_version):
        raise UpgradeNeeded(f"version {stored.version} of {stored.stream}", stored.type, stored.schema_version)
    kind = EVENTS[stored.type]
    if stored.schema_version == kind.schema_version and SEALED_MARK not in stored.data and (event := _decoded_at_once(stored, kind)):
        return event
    try:
        content = msgspec.json.decode(stored.data)
        for version in range(stored.schema_version, kind.schema_version):
            content = UPCASTERS[stored.type, version](content)
        content |= {"originator_id": stored.stream, "originator_version": stored.version}
        if stored.schema_version >= PRIVATE_SINCE.get(stored.type, 1):
            open_private(kind, stored.event_id, content)
        return msgspec.convert(content, kind)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise Undecodable(f"{stored.type} version {stored.schema_version} at {stored.stream}/{stored.version}: {error}") from error


def _decoded_at_once(stored: SerializedEvent, kind: type[Event]) -> Event | None:
    """Decode an event without sealed values and upcasters directly from JSON, in a third of the time. None if that fails.

    The columns are added at the end, because the last one of two members with the same name counts.
    """
    if not stored.data.endswith(b"}"):
        return None
    columns = b',"originator_id":"%b","originator_version":%d}' % (str(stored.stream).encode(), stored.version)
    try:
        return DECODERS[kind.__name__].decode(stored.data[:-1] + columns)
    except msgspec.MsgspecError:
        return None


def _new_event_id() -> UUID:
    """A random UUID (version 4). Random bytes are read in bulk, because each system call gives up the interpreter lock."""
    while True:
        with suppress(IndexError):
            return UUID(bytes=_random_ids.pop(), version=4)
        many = os.urandom(IDS_PER_READ * ID_BYTES)
        _random_ids.extend(many[start : start + ID_BYTES] for start in range(0, len(many), ID_BYTES))


def _decrypted(key: DataKey, sealed: str, associated_data: bytes) -> bytes:
    """Raises InvalidTag."""
    if sealed.startswith(SEALED_V1_PREFIX):
        return key.open_first_form(base64.b64decode(sealed[len(SEALED_V1_PREFIX) :]), associated_data)
    return key.open(base64.b64decode(sealed[len(SEALED_PREFIX) :]), associated_data)


def _associated_data(event_id: UUID, field: str) -> bytes:
    return event_id.bytes + field.encode()


def _owners_of_sealed(stored: SerializedEvent) -> set[str]:
    """The fields that identify the subjects of sealed values. Found without decoding, since text cannot contain unescaped quotes."""
    if SEALED_MARK not in stored.data:
        return set()
    kind = EVENTS.get(stored.type)
    if kind is None or stored.schema_version < PRIVATE_SINCE.get(stored.type, 1):
        return set()
    return {owner for piece, owner in _sealed_pieces(kind).items() if piece in stored.data}


@cache
def _sealed_pieces(kind: type[Event]) -> dict[bytes, str]:
    private = private_fields(kind).items()
    return {f'"{field}":"{form}'.encode(): owner for field, owner in private for form in SEALED_PREFIXES}


@cache
def _private_dicts(kind: type[Event]) -> frozenset[str]:
    hints = typing.get_type_hints(kind)
    return frozenset(name for name in private_fields(kind) if typing.get_origin(hints[name]) is dict)
