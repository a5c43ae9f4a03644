"""The codec: payloads survive, private fields are encrypted, and unreadable after erasure."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.device import DeviceCameOnline, DeviceDescribed
from domain.errors import UpgradeNeeded
from domain.events import ERASED
from domain.registry import EVENTS
from infrastructure.eventstore.codec import SEALED_PREFIX, Codec, EncodedEvent, KeyDestroyed, Undecodable, private_fields
from infrastructure.security.keys import DataKeys, RootKey, WrongRootKey
from tests.given import NOW
from tests.strategies import TEXT, events

PRIVATE = [kind for kind in EVENTS.values() if private_fields(kind)]


class Keys(dict):
    """Wrapped keys, as the store would hold them."""

    def fetch(self, subjects):
        return {subject: self[subject] for subject in subjects if subject in self}


def codec_with(stored, root=b"r" * 32, history=()):
    return Codec(DataKeys(RootKey(root), stored.fetch), lambda _: history)


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
    if SEALED_PREFIX.encode() not in encoded.data:
        return
    moved = msgspec.structs.replace(encoded, event_id=data.draw(st.uuids()))
    with pytest.raises(Undecodable):
        codec.decode(moved)


@pytest.mark.parametrize(("kind", "version"), [("os.system", 1), ("UserDeleted", 2)])
def test_an_unknown_type_or_version_needs_an_upgrade_and_is_no_damage(kind, version):
    with pytest.raises(UpgradeNeeded, match=rf"^version 3 of .* holds {kind} version {version}, which a newer release wrote"):
        codec_with(Keys()).decode(EncodedEvent(_id(1), 3, kind, version, _id(2), b"no JSON"))


def test_an_unknown_field_is_ignored():
    deleted = EncodedEvent(
        _id(1), 2, "DatasetDeleted", 1, _id(2), b'{"at":"2026-01-01T00:00:00Z","by":"%s","later":1}' % str(_id(3)).encode()
    )
    assert codec_with(Keys()).decode(deleted).by == _id(3)


@given(st.binary(max_size=60), st.sampled_from(sorted(EVENTS)))
def test_garbage_is_undecodable_and_nothing_worse(data, kind):
    with pytest.raises(Undecodable):
        codec_with(Keys()).decode(EncodedEvent(_id(1), 1, kind, 1, _id(2), data))


@given(events(*[kind for kind in PRIVATE if kind.__name__ == "UserProfileChanged"]))
def test_nothing_private_is_written_about_an_erased_subject(event):
    if event.originator_version == 1 or not any(isinstance(getattr(event, name), str) for name in private_fields(type(event))):
        return
    _, before, _ = with_keys(event)
    with pytest.raises(KeyDestroyed):
        codec_with(Keys(), history=[before]).encode(event)


OLD_TEXT = st.one_of(st.just(SEALED_PREFIX + "AAAA"), st.just(f'"name":"{SEALED_PREFIX}AAAA'), TEXT)


@given(OLD_TEXT, OLD_TEXT, st.none() | OLD_TEXT)
def test_what_was_stored_in_clear_reads_as_it_was_whatever_it_looks_like(name, hostname, location):
    """Devices' texts were not private in schema version 1."""
    told = {"at": NOW, "by": _id(3), "name": name, "hostname": hostname, "location": location, "firmware_version": None}
    stored = EncodedEvent(_id(1), 1, "DeviceRegistered", 1, _id(2), msgspec.json.encode(told))
    read = codec_with(Keys()).decode(stored)
    assert (read.name, read.hostname, read.location) == (name, hostname, location)
    key = codec_with(Keys(), history=[stored]).encode(described(read, name="other")).new_keys
    assert [owner for owner, _ in key] == [_id(1)], "it never had a key"


@given(st.dictionaries(st.sampled_from(["name", "hostname", "location"]), TEXT, min_size=1), st.none() | OLD_TEXT)
def test_a_stream_that_holds_a_sealed_value_gets_no_other_key(private, firmware):
    state = DeviceCameOnline(originator_id=_id(1), originator_version=1, at=NOW, by=_id(3))
    clear = codec_with(Keys()).encode(described(state, firmware_version=firmware))
    sealed = codec_with(Keys(), history=[clear]).encode(described(state, **private))
    assert clear.new_keys == ()
    assert len(sealed.new_keys) == 1
    with pytest.raises(KeyDestroyed):
        codec_with(Keys(), history=[clear, sealed]).encode(described(state, **private))


def test_an_event_that_a_newer_release_wrote_may_hold_a_sealed_value():
    state = DeviceCameOnline(originator_id=_id(1), originator_version=1, at=NOW, by=_id(3))
    with pytest.raises(KeyDestroyed):
        codec_with(Keys(), history=[EncodedEvent(_id(1), 1, "DeviceMoved", 1, _id(2), b"{}")]).encode(described(state, name="x"))


def described(before, **fields):
    return DeviceDescribed(originator_id=before.originator_id, originator_version=2, at=NOW, by=_id(3), **fields)


def test_another_root_key_says_so():
    stored = Keys({_id(1): DataKeys(RootKey(b"a" * 32), lambda _: {}).create(_id(1))[1]})
    with pytest.raises(WrongRootKey):
        DataKeys(RootKey(b"b" * 32), stored.fetch).get(_id(1))


def _id(number):
    from uuid import UUID

    return UUID(int=number)


@given(events(), events())
def test_the_columns_say_of_which_stream_an_event_is_whatever_its_data_says(event, other):
    codec, stored, _ = with_keys(event)
    named = b',"originator_id":"%b","originator_version":%d}' % (str(other.originator_id).encode(), other.originator_version)
    assert codec.decode(msgspec.structs.replace(stored, data=stored.data[:-1] + named)) == event


@given(events(), st.sampled_from([b"", b"]", b'"', b"{", b"0", b"}}"]))
def test_an_event_whose_last_byte_is_damaged_is_undecodable(event, end):
    codec, stored, _ = with_keys(event)
    with pytest.raises(Undecodable):
        codec.decode(msgspec.structs.replace(stored, data=stored.data[:-1] + end))


@given(events())
def test_spaces_around_an_event_do_not_matter(event):
    codec, stored, _ = with_keys(event)
    assert codec.decode(msgspec.structs.replace(stored, data=b" " + stored.data[:-1] + b" } ")) == event
