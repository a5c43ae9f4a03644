"""The AsyncAPI document describes what Kafka and the WebSocket carry, and follows the specification."""

import lzma
from pathlib import Path
from uuid import UUID

import jsonschema
import msgspec
import pytest

from api.documents import asyncapi
from api.live import messages
from domain.classification import JobStatus
from projections.classifications import Progress
from tests.application.test_event_schemas import references
from tests.given import NOW

SPECIFICATION = Path(__file__).parents[1] / "data" / "asyncapi-3.0.0.json.xz"
COUNTS = {"images": 3, "chunks": 1, "judged": 0, "succeeded": 0, "failed": 0, "rate": 1.5, "remaining_seconds": 2.0}
JOB = Progress(id=UUID(int=1), status=JobStatus.RUNNING, planned=True, reason=None, **COUNTS)
EVENT = {"position": 7, "at": NOW, "event": "ChunkJudged", "stream": UUID(int=2), "actor": UUID(int=3), "subjects": (UUID(int=4),)}
SENT = {
    "LiveAuth": [messages.Auth(token="x")],
    "LiveSubscribe": [messages.Subscribe(), messages.Subscribe(after=7, datasets=frozenset({UUID(int=1)}))],
    "LivePing": [messages.Ping()],
    "LivePong": [messages.Pong()],
    "LiveAuthenticated": [messages.Authenticated(user=UUID(int=1), expires_at=NOW)],
    "LiveEvent": [messages.EventMessage(**EVENT, dataset=UUID(int=5), job=JOB), messages.EventMessage(**EVENT, dataset=None)],
    "LiveCaughtUp": [messages.CaughtUp(position=7)],
    "LiveServerPing": [messages.ServerPing(), messages.ServerPing(position=7)],
    "LiveServerPong": [messages.ServerPong()],
}


@pytest.fixture(scope="module")
def document():
    return msgspec.json.decode(msgspec.json.encode(asyncapi.document()))


def checker(document, name):
    payload = document["components"]["messages"][name]["payload"]
    return jsonschema.Draft202012Validator(payload | {"components": document["components"]}, format_checker=jsonschema.FormatChecker())


def test_it_is_valid_asyncapi(document):
    specification = msgspec.json.decode(lzma.decompress(SPECIFICATION.read_bytes()))
    validator = jsonschema.Draft7Validator(specification)
    validator.validate(document)
    assert not validator.is_valid(document | {"channels": {"live": {"servers": "all"}}})


def test_every_reference_leads_somewhere(document):
    found = references(document)
    assert len(found) > 100
    for reference in found:
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_each_channel_names_its_server(document):
    assert document["servers"].keys() == {"kafka", "websocket"}
    assert document["channels"]["events"]["servers"] == [{"$ref": "#/servers/kafka"}]
    assert document["channels"]["live"]["servers"] == [{"$ref": "#/servers/websocket"}]
    assert document["channels"]["live"]["address"] == "/api/ws"


def test_every_message_of_the_socket_is_described(document):
    assert set(document["channels"]["live"]["messages"]) == set(SENT)
    structs = {*messages.ClientMessage.__subclasses__(), *messages.ServerMessage.__subclasses__()}
    assert {type(one) for sent in SENT.values() for one in sent} == structs
    operations = document["operations"]
    exchanged = [one["$ref"].split("/")[-1] for name in ("receiveLive", "sendLive") for one in operations[name]["messages"]]
    assert exchanged == list(SENT)


@pytest.mark.parametrize("name", SENT)
def test_what_the_socket_carries_fits_its_schema(document, name):
    check = checker(document, name)
    for message in SENT[name]:
        check.validate(msgspec.json.decode(msgspec.json.encode(message)))
    assert not check.is_valid({"type": "nothing"})


@pytest.mark.parametrize("name", SENT)
def test_an_example_is_such_a_message(document, name):
    (example,) = document["components"]["messages"][name]["examples"]
    checker(document, name).validate(example["payload"])
    assert msgspec.convert(example["payload"], type(SENT[name][0]), strict=False)


def test_every_property_has_a_description(document):
    schemas = {name: schema for name, schema in document["components"]["schemas"].items() if name.startswith("live.")}
    described = [(name, key, one) for name, schema in schemas.items() for key, one in schema.get("properties", {}).items()]
    assert len(described) > 25
    for name, key, one in described:
        assert len(one.get("description", "")) > 5, (name, key)
