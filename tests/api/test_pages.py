"""The pages in docs/ about the API agree with the API."""

import re
from pathlib import Path

from api.live import messages
from api.problems import STATUS

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_every_code_is_documented_with_its_status():
    assert re.findall(r"^\| (\d{3}) \| `(\w+)` \| .{5,} \|$", PAGE, re.MULTILINE) == [
        (str(status), code) for code, status in STATUS.items()
    ]


def test_every_reason_to_close_is_documented():
    body = {int(code) for code in re.findall(r"^\| (4\d{3}) \|", PAGE, re.MULTILINE)}
    assert body == {messages.MALFORMED, messages.UNAUTHENTICATED, messages.FORBIDDEN, messages.TOO_SLOW, messages.TOO_MANY}


def test_every_message_is_documented():
    for message in (messages.Authenticated, messages.EventMessage, messages.CaughtUp, messages.ServerPing):
        (row,) = re.findall(rf'^- `{{"type":"{message.__struct_config__.tag}".*$', PAGE, re.MULTILINE)
        assert all(f'"{name}"' in row for name in message.__struct_fields__)


def test_every_route_that_is_named_exists():
    from api.documents import openapi

    paths = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in (*openapi.document()["paths"], "/api/ws")]
    named = set(re.findall(r"(/api/(?!v2)[a-z/-]*[a-z](?:/(?:ID|\$\w+)(?:/[a-z]+)?)?)", PAGE)) - {"/api/auth"}
    named |= set(re.findall(r"(/api/v2[\w/]*)", PAGE))
    named -= {"/api/openapi", "/api/asyncapi"}  # the documents: tests/api/test_docs.py asks for them
    assert len(named) > 12
    for route in named:
        assert any(path.fullmatch(route) for path in paths), route
