"""The schemas of events as consumers get them."""

import re
from uuid import UUID

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.history import event_schemas
from application.history.event_meanings import FIELDS, MEANINGS
from application.history.hash_chain import START
from application.ports import ChainedEvent, RecordedEvent
from domain.errors import NotFound
from domain.events import private_fields
from domain.registry import EVENTS
from infrastructure.eventstore.codec import UPCASTERS
from infrastructure.kafka.cloud_events import RecordKey, headers
from infrastructure.security.keys import RootKey
from scripts import event_types
from tests.given import NOW
from tests.golden.make import golden
from tests.golden.test_golden import FILES, NAMES
from tests.infrastructure.eventstore.test_codec import with_keys
from tests.strategies import events

TOLD = msgspec.json.encode({"correlation_id": UUID(int=1), "causation_id": UUID(int=2), "traceparent": f"00-{1:032x}-{1:016x}-01"})
CHECKERS = {
    (kind, sealed): jsonschema.Draft202012Validator(
        event_schemas.schema(kind, sealed=sealed), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    for kind in EVENTS
    for sealed in (True, False)
}


def clear(event):
    told = msgspec.json.decode(msgspec.json.encode(event))
    return {name: value for name, value in told.items() if name not in event_schemas.COLUMNS}


@given(events())
def test_events_on_kafka_fit_their_schemas(event):
    _, encoded, _ = with_keys(event)
    assert list(CHECKERS[encoded.type, True].iter_errors(msgspec.json.decode(encoded.data))) == []


@given(events())
def test_events_in_clear_fit_their_schemas(event):
    assert list(CHECKERS[type(event).__name__, False].iter_errors(clear(event))) == []


@given(events(*[kind for kind in EVENTS.values() if private_fields(kind)]))
def test_nothing_private_in_clear_fits_what_travels(event):
    told = clear(event)
    if any(told.get(name) is not None for name in private_fields(type(event))):
        assert not CHECKERS[type(event).__name__, True].is_valid(told)


@pytest.mark.parametrize("kind", EVENTS)
def test_a_schema_is_one_itself_and_asks_for_what_every_event_has(kind):
    for sealed in (True, False):
        schema = event_schemas.schema(kind, sealed=sealed)
        jsonschema.Draft202012Validator.check_schema(schema)
        assert {"at", "by"} <= set(schema["required"])
        assert not CHECKERS[kind, sealed].is_valid({})


@pytest.mark.parametrize("kind", EVENTS)
def test_every_version_that_the_log_may_hold_has_a_schema(kind):
    assert event_schemas.versions(kind) == [*(version for known, version in UPCASTERS if known == kind), EVENTS[kind].schema_version]
    assert all(event_schemas.schema(kind, version) for version in event_schemas.versions(kind))


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_whatever_was_ever_stored_fits_the_schema_of_its_version(path):
    known = golden(path)
    schema = event_schemas.schema(known.type, known.schema_version)
    jsonschema.validate(known.data, schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    assert schema["$id"] == f"urn:bioscope:event:{known.type}:{known.schema_version}:sealed"
    assert not jsonschema.Draft202012Validator(schema).is_valid({})


def test_a_message_may_have_any_version_of_its_payload():
    document = event_schemas.document()
    for kind, event in EVENTS.items():
        payload = document["components"]["messages"][kind]["payload"]
        assert len(payload.get("oneOf", [payload])) == event.schema_version


@given(events(), st.sampled_from([b"{}", TOLD]))
def test_the_relay_writes_the_documented_headers(event, meta):
    _, encoded, _ = with_keys(event)
    kind, data = encoded.type, encoded.data
    stored = RecordedEvent(
        position=7,
        stream=encoded.stream,
        version=3,
        type=kind,
        schema_version=encoded.schema_version,
        event_id=encoded.event_id,
        data=data,
        meta=meta,
        recorded_at=NOW,
        hash=bytes(32),
    )
    written = {name: value.decode() for name, value in headers(ChainedEvent(stored, START), RecordKey(RootKey(bytes(32))))}
    told = event_schemas.document()["components"]["messageTraits"]["event"]["headers"]
    jsonschema.Draft202012Validator(told, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(written)
    assert set(written) <= set(told["properties"])
    assert set(written) == set(told["properties"]) or meta == b"{}"


def test_there_is_no_schema_of_what_is_not_registered():
    for kind, version in (("Nothing", None), ("ChunkJudged", 0), ("ChunkJudged", 99)):
        with pytest.raises(NotFound):
            event_schemas.schema(kind, version)


def test_every_type_is_told_with_its_meaning_and_no_other():
    assert set(MEANINGS) == set(EVENTS)
    document = event_schemas.document()
    channel = document["channels"]["events"]
    assert channel["address"] == "bioscope.events"
    assert set(channel["messages"]) == set(document["components"]["messages"]) == set(EVENTS)
    assert len(document["operations"]["publish"]["messages"]) == len(EVENTS)


def test_every_reference_of_the_document_leads_somewhere():
    document = event_schemas.document()
    found = references(document)
    assert found
    for reference in found:
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place


def references(value):
    match value:
        case dict():
            found = [value["$ref"]] if "$ref" in value else []
            return found + [one for inner in value.values() for one in references(inner)]
        case list():
            return [one for inner in value for one in references(inner)]
        case _:
            return []


def test_the_document_is_json():
    assert msgspec.json.decode(msgspec.json.encode(event_schemas.document())) == event_schemas.document()


def test_the_documents_are_what_make_events_writes():
    text = event_types.OVERVIEW.read_text()
    assert event_types.overview_page(text) == text, "run `make events`"
    assert event_types.REFERENCE.read_text() == event_types.reference_page(), "run `make events`"
    assert all(f"`{name}`" in text for name in event_schemas.HEADERS)


def test_every_field_of_an_event_has_a_meaning_and_no_other():
    described = {kind: set(event_types.field_names(event)) for kind, event in EVENTS.items()}
    described |= {part.__name__: set(part.__struct_fields__) for part in event_types.parts_of_events()}
    assert {kind: set(fields) for kind, fields in FIELDS.items()} == {kind: fields for kind, fields in described.items() if fields}


@pytest.mark.parametrize("meaning", [*MEANINGS.values(), *(meaning for fields in FIELDS.values() for meaning in fields.values())])
def test_a_meaning_is_a_sentence(meaning):
    assert re.fullmatch(r"[A-Z].{10,}\.", meaning)


@pytest.mark.parametrize("kind", EVENTS)
def test_every_property_of_a_schema_is_described(kind):
    for sealed in (True, False):
        schema = event_schemas.schema(kind, sealed=sealed)
        described = [schema, *(part for part in schema.get("$defs", {}).values() if "properties" in part)]
        assert all(field.get("description") for one in described for field in one["properties"].values())
