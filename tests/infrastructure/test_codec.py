"""Bytes and back: whole, sealed where private, unreadable after erasure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.events import ERASED
from domain.registry import EVENTS
from infrastructure.codec import SEALED, Codec, Encoded, KeyDestroyed, Undecodable, private_fields
from infrastructure.keys import DataKeys, RootKey, WrongRootKey
from tests.strategies import events

PRIVATE = [kind for kind in EVENTS.values() if private_fields(kind)]


class Keys(dict):
    """Wrapped keys, as the store would hold them."""

    def fetch(self, subjects):
        return {subject: self[subject] for subject in subjects if subject in self}


def codec_with(stored, root=b"r" * 32):
    return Codec(DataKeys(RootKey(root), stored.fetch))


def subjects_of(event):
    return {getattr(event, owner) for owner in private_fields(type(event)).values()}


def with_keys(event):
    stored = Keys()
    codec = codec_with(stored)
    for subject in subjects_of(event):
        stored[subject] = DataKeys(RootKey(b"r" * 32), stored.fetch).create(subject)[1]
    encoded = codec.encode(event)
    stored.update(encoded.new_keys)
    return codec, encoded, stored


@given(events())
def test_every_event_comes_back_as_it_was(event):
    _, encoded, stored = with_keys(event)
    assert codec_with(stored).decode(encoded) == event


@given(events(*PRIVATE))
def test_after_erasure_private_fields_read_erased_and_the_rest_stays(event):
    _, encoded, _ = with_keys(event)
    after = codec_with(Keys()).decode(encoded)
    for name in event.__struct_fields__:
        value = getattr(event, name)
        sealed = name in private_fields(type(event)) and isinstance(value, str)
        assert getattr(after, name) == (ERASED if sealed else value)


@given(events(*PRIVATE), st.data())
def test_a_sealed_field_opens_only_in_its_own_event(event, data):
    codec, encoded, _ = with_keys(event)
    if SEALED.encode() not in encoded.data:
        return
    moved = Encoded(encoded.stream, encoded.version, encoded.type, 1, data.draw(st.uuids()), encoded.data)
    with pytest.raises(Undecodable):
        codec.decode(moved)


def test_an_unknown_type_is_refused_and_an_unknown_field_is_not():
    event = next(iter(EVENTS.values()))
    assert event.__name__ == "UserRegistered"
    with pytest.raises(Undecodable):
        codec_with(Keys()).decode(Encoded(_id(1), 1, "os.system", 1, _id(2), b"{}"))
    deleted = Encoded(_id(1), 2, "DatasetDeleted", 1, _id(2), b'{"at":"2026-01-01T00:00:00Z","by":"%s","later":1}' % str(_id(3)).encode())
    assert codec_with(Keys()).decode(deleted).by == _id(3)


@given(st.binary(max_size=60), st.sampled_from(sorted(EVENTS)))
def test_garbage_is_undecodable_and_nothing_worse(data, kind):
    with pytest.raises(Undecodable):
        codec_with(Keys()).decode(Encoded(_id(1), 1, kind, 1, _id(2), data))


@given(events(*[kind for kind in PRIVATE if kind.__name__ == "UserProfileChanged"]))
def test_nothing_private_is_written_about_an_erased_subject(event):
    if event.originator_version == 1 or not any(isinstance(getattr(event, name), str) for name in private_fields(type(event))):
        return
    with pytest.raises(KeyDestroyed):
        codec_with(Keys()).encode(event)


def test_another_root_key_says_so():
    stored = Keys({_id(1): DataKeys(RootKey(b"a" * 32), lambda _: {}).create(_id(1))[1]})
    with pytest.raises(WrongRootKey):
        DataKeys(RootKey(b"b" * 32), stored.fetch).get(_id(1))


def _id(number):
    from uuid import UUID

    return UUID(int=number)
