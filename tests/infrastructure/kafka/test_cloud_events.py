"""Records of the events topic: what the relay writes is read back, and nothing else is accepted."""

from datetime import UTC
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.history.hash_chain import chained
from application.ports import AppendRejected, ChainedEvent, RecordedEvent
from infrastructure.kafka.cloud_events import MAX_DATA_BYTES, RecordKey, authenticated, headers
from infrastructure.security.keys import RootKey

KEY, OTHER_KEY = RecordKey(RootKey(bytes(32))), RecordKey(RootKey(b"x" * 32))
NOT_COVERED = {"ce_specversion", "ce_correlationid", "ce_causationid", "traceparent", "content-type"}  # copies of ce_meta, or constants


class Record(NamedTuple):
    headers: Any
    value: Any


EVENTS = st.builds(
    RecordedEvent,
    position=st.integers(1, 2**62),
    stream=st.uuids(),
    version=st.integers(1, 2**31 - 1),
    type=st.from_regex(r"[A-Z][A-Za-z]{1,30}", fullmatch=True),
    schema_version=st.integers(1, 100),
    event_id=st.uuids(),
    data=st.binary(max_size=300),
    meta=st.just(b'{"correlation_id":"00000000-0000-0000-0000-000000000001"}'),
    recorded_at=st.datetimes(timezones=st.just(UTC)),
)
LINKED = st.builds(lambda event, previous: ChainedEvent(chained(previous, event), previous), EVENTS, st.binary(min_size=32, max_size=32))


def record_of(linked, key=KEY):
    return Record(headers(linked, key), linked.event.data)


@given(LINKED)
def test_what_the_relay_writes_is_read_back_whole(linked):
    assert authenticated(record_of(linked), KEY) == linked


@given(LINKED, st.data())
def test_a_record_in_which_anything_was_changed_is_rejected(linked, data):
    record = record_of(linked)
    names = [*sorted({name for name, _ in record.headers} - NOT_COVERED), "value"]
    changed = data.draw(st.sampled_from(names))
    was = dict(record.headers).get(changed, record.value)
    becomes = data.draw(st.one_of(st.binary(max_size=80), st.just(was[:-1]), st.just(was + b"0")).filter(lambda new: new != was))
    forged = Record([(name, becomes if name == changed else value) for name, value in record.headers], record.value)
    forged = forged._replace(value=becomes) if changed == "value" else forged
    try:
        read = authenticated(forged, KEY)
    except AppendRejected:
        return
    assert read == linked, "another spelling of the same value, such as 07 for 7"


@given(LINKED)
def test_a_record_of_another_installation_is_rejected_also_under_our_name(linked):
    with pytest.raises(AppendRejected) as foreign:
        authenticated(record_of(linked, OTHER_KEY), KEY)
    assert foreign.value.reason == "foreign"
    renamed = [(name, KEY.source if name == "ce_source" else value) for name, value in headers(linked, OTHER_KEY)]
    with pytest.raises(AppendRejected) as forged:
        authenticated(Record(renamed, linked.event.data), KEY)
    assert forged.value.reason == "forged"


NAMES = ("ce_id", "ce_type", "ce_subject", "ce_time", "ce_position", "ce_streamversion", "ce_schemaversion", "ce_meta", "ce_hash", "ce_mac")
ANYTHING = st.one_of(st.none(), st.binary(max_size=40), st.just(b"9" * 5000), st.just(b"1"), st.just(b"2026-01-01T00:00:00"))


@given(st.one_of(st.none(), st.lists(st.tuples(st.sampled_from(NAMES), ANYTHING))), st.one_of(st.none(), st.binary(max_size=50)))
def test_garbage_is_rejected_and_breaks_nothing(carried, value):
    with pytest.raises(AppendRejected):
        authenticated(Record(carried, value), KEY)
    with pytest.raises(AppendRejected):
        authenticated(Record([("ce_source", KEY.source), *(carried or [])], value), KEY)


@given(LINKED)
def test_more_data_than_an_event_has_is_rejected_before_it_is_hashed(linked):
    with pytest.raises(AppendRejected, match="more than any event has"):
        authenticated(record_of(linked)._replace(value=bytes(MAX_DATA_BYTES + 1)), KEY)
