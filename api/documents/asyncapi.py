"""The AsyncAPI document: the events on Kafka, and the messages of the live WebSocket."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from api.live import messages
from application.history import event_schemas

Json = dict[str, Any]

DEFAULT_URL: Final = "http://127.0.0.1:8000"
PATH: Final = "/api/ws"
SCHEMAS: Final = "#/components/schemas/"
WEBSOCKET_DESCRIPTION: Final = """\
The events of the datasets that you may see, as they happen. Each message is a JSON text with a `type`.

Send `auth` within 5 seconds, then `subscribe`. Store the last `position`, and resume after it with `subscribe` on the next connection: no
event is lost or repeated.

The server closes the connection with 4400 (unknown message), 4401 (token missing, invalid or expired), 4403 (origin or scope not allowed),
4408 (the client did not read or sent nothing for too long) or 4429 (too many messages or connections)."""

JOB: Final = {
    "id": "7c6d5e4f-1a2b-4c3d-8e9f-0a1b2c3d4e07",
    "status": "running",
    "planned": True,
    "images": 640,
    "chunks": 10,
    "judged": 3,
    "succeeded": 190,
    "failed": 2,
    "reason": None,
    "rate": 18.5,
    "remaining_seconds": 24.2,
}
EVENT_EXAMPLE: Final = {
    "type": "event",
    "position": 21,
    "at": "2026-03-02T09:31:00.500000Z",
    "event": "ChunkJudged",
    "stream": "4d5e6f7a-8b9c-5d0e-8f1a-2b3c4d5e6f08",
    "actor": "6e7f8a9b-0c1d-5e2f-8a3b-4c5d6e7f8a09",
    "dataset": "0b9bb4ae-1c4f-4e3e-9a54-5f0c0a3d7c03",
    "subjects": ["7c6d5e4f-1a2b-4c3d-8e9f-0a1b2c3d4e07", "9d8f2f36-6a0b-4d55-8b6e-2e9a4b7c1d04"],
    "job": JOB,
}


class Message:
    """A message of the WebSocket: its name in the document, its struct, its meaning, and an example."""

    def __init__(self, name: str, struct: type[msgspec.Struct], summary: str, example: Mapping[str, Any]) -> None:
        self.name, self.struct, self.summary, self.example = name, struct, summary, example


FROM_CLIENT: Final = (
    Message(
        "LiveAuth",
        messages.Auth,
        "Authenticate, or stay connected with a newer token",
        {"type": "auth", "token": "eyJhbGciOiJSUzI1NiJ9..."},
    ),
    Message(
        "LiveSubscribe",
        messages.Subscribe,
        "Receive events from now on, or after a position",
        {"type": "subscribe", "after": 20, "datasets": [EVENT_EXAMPLE["dataset"]]},
    ),
    Message("LivePing", messages.Ping, "Ask for a pong", {"type": "ping"}),
    Message("LivePong", messages.Pong, "Answer a ping", {"type": "pong"}),
)
FROM_SERVER: Final = (
    Message(
        "LiveAuthenticated",
        messages.Authenticated,
        "The token is valid",
        {"type": "authenticated", "user": "5f0c1c0e-7d0c-4c57-9a59-7f2f7f1f6a01", "expires_at": "2026-03-02T10:30:00Z"},
    ),
    Message("LiveEvent", messages.EventMessage, "An event happened", EVENT_EXAMPLE),
    Message("LiveCaughtUp", messages.CaughtUp, "All events so far were sent", {"type": "caught_up", "position": 21}),
    Message("LiveServerPing", messages.ServerPing, "Answer with any message", {"type": "ping", "position": 21}),
    Message("LiveServerPong", messages.ServerPong, "The answer to a ping", {"type": "pong"}),
)

PROPERTIES: Final[Mapping[str, Mapping[str, str]]] = {
    "Auth": {"token": "An access token, or a service's token with the scope `events:read`"},
    "Authenticated": {
        "user": "Id of the account or service",
        "expires_at": "When the connection ends (UTC), unless a newer token is sent before",
    },
    "CaughtUp": {"position": "Position of the last event. Resume after it"},
    "EventMessage": {
        "position": "Position of the event in the log",
        "at": "When it happened (UTC)",
        "event": "Event type. Its data is not sent: read the resource",
        "stream": "Id of the stream that the event belongs to",
        "actor": "Id of the account, service or process that caused it",
        "dataset": "Id of the dataset that it belongs to",
        "subjects": "Ids of everything that the event touches",
        "job": "Progress of the job, if the event is about one",
    },
    "Ping": {},
    "Pong": {},
    "Progress": {
        "id": "Id of the classification",
        "status": "Status of the job",
        "planned": "Whether `images` is final",
        "images": "How many images the job covers",
        "chunks": "How many chunks they form",
        "judged": "How many chunks are done",
        "succeeded": "How many images have a result",
        "failed": "How many images have a failure",
        "reason": "Why the job failed",
        "rate": "Images per second: of the last minute while the job runs, of its whole time afterwards; null before it runs",
        "remaining_seconds": "How long the job still takes at this rate; null while that is not known, and once it has ended",
    },
    "ServerPing": {"position": "Position of the last event, if there was one. Resume after it"},
    "ServerPong": {},
    "Subscribe": {
        "after": "Send events after this position. Without it, send events from now on",
        "datasets": "Send only events of these datasets",
    },
}
"""By struct, except `type`."""


@cache
def document(base_url: str = DEFAULT_URL) -> Json:
    """AsyncAPI 3.0 of a server at `base_url`. Callers must not change it."""
    events = event_schemas.document()
    channel = events["channels"]["events"] | {"servers": [{"$ref": "#/servers/kafka"}]}
    live_messages = {message.name: _message(message) for message in (*FROM_CLIENT, *FROM_SERVER)}
    components = events["components"]
    return events | {
        "servers": {"kafka": _kafka(), "websocket": _websocket(base_url)},
        "channels": {"events": channel, "live": _live_channel()},
        "operations": events["operations"] | _live_operations(),
        "components": components | {"messages": components["messages"] | live_messages, "schemas": components["schemas"] | _live_schemas()},
    }


def _kafka() -> Json:
    return {
        "host": "{host}",
        "protocol": "kafka",
        "description": "The broker that the relay publishes to",
        "variables": {"host": {"default": "localhost:9092", "description": "Host and port of a broker, as in `BIOSCOPE_KAFKA_URL`"}},
    }


def _websocket(base_url: str) -> Json:
    address = urlsplit(base_url)
    return {
        "host": "{host}",
        "protocol": "wss" if address.scheme == "https" else "ws",
        "description": "The API. Authentication is the first message",
        "variables": {"host": {"default": address.netloc, "description": "Host and port of the API"}},
    } | ({"pathname": address.path} if address.path else {})


def _live_channel() -> Json:
    return {
        "address": PATH,
        "title": "Live events",
        "description": WEBSOCKET_DESCRIPTION,
        "servers": [{"$ref": "#/servers/websocket"}],
        "messages": {message.name: {"$ref": f"#/components/messages/{message.name}"} for message in (*FROM_CLIENT, *FROM_SERVER)},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def _live_operations() -> Json:
    """As the server sees them."""
    return {
        "receiveLive": _operation("receive", "Messages from a client", FROM_CLIENT),
        "sendLive": _operation("send", "Messages to a client", FROM_SERVER),
    }


def _operation(action: str, summary: str, exchanged: tuple[Message, ...]) -> Json:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/live"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/live/messages/{message.name}"} for message in exchanged],
    }


def _message(message: Message) -> Json:
    return {
        "name": message.struct.__struct_config__.tag,
        "title": message.name,
        "summary": message.summary,
        "contentType": "application/json",
        "payload": {"$ref": f"{SCHEMAS}{_schema_name(message.struct.__name__)}"},
        "examples": [{"payload": message.example}],
    }


def _live_schemas() -> Json:
    structs = [message.struct for message in (*FROM_CLIENT, *FROM_SERVER)]
    _, found = msgspec.json.schema_components(structs, ref_template=SCHEMAS + _schema_name("{name}"))
    return {_schema_name(name): _described(name, schema) for name, schema in sorted(found.items())}


def _schema_name(name: str) -> str:
    """Apart from the schemas of events."""
    return f"live.{name}"


def _described(name: str, schema: Json) -> Json:
    if "properties" not in schema:
        return schema
    texts = {"type": "Kind of the message", **PROPERTIES[name]}
    return schema | {"properties": {key: value | {"description": texts[key]} for key, value in schema["properties"].items()}}
