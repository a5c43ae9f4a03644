"""Lists that would answer another question if they left out a parameter refuse what they do not know."""

from uuid import uuid4

import pytest

from api.documents import openapi
from tests.api.http_calls import assert_refused

pytestmark = pytest.mark.anyio
ROUTES = (
    "/api/audit",
    "/api/audit/{about}/images",
    "/api/audit/{about}/results",
    "/api/audit/{about}/state",
    "/api/audit/{about}/trail",
    "/api/invitations",
    "/api/keys",
    "/api/service-accounts",
    "/api/service-accounts/{service_id}/keys",
    "/api/sessions",
    "/api/teams",
    "/api/users/users/{user_id}/sessions",
)


def documented(route):
    """The query parameters of the document, those that routes share last."""
    document = openapi.document()
    parameters = [
        one if "name" in one else document["components"]["parameters"][one["$ref"].rpartition("/")[2]] for one in _of(document, route)
    ]
    return [one["name"] for one in parameters if one["in"] == "query"]


def _of(document, route):
    return document["paths"][route]["get"]["parameters"]


async def test_an_unknown_parameter_is_named_with_the_known_ones(api):
    admin = await api.client("admin")
    for route in ROUTES:
        path, known = route.format(about=uuid4(), service_id=uuid4(), user_id=uuid4()), documented(route)
        message = f"is unknown: the parameters here are {', '.join(known)}" if known else "is unknown: this route takes no parameters"
        for sent, name in (("bogus=1", ["bogus"]), ("bogus&cursor", ["bogus"]), ("%3Cb%3E=1", [])):
            answer = await admin.get(f"{path}?{sent}")
            assert_refused(answer, 422, "invalid")
            assert answer.json()["errors"] == [{"loc": ["query", *name], "msg": message}], route
            assert answer.json()["detail"] == f"{' '.join(name) or 'A parameter'} {message}"


async def test_a_repeated_parameter_is_refused(api):
    admin = await api.client("admin")
    for route in ROUTES:
        for name in set(documented(route)) - {"as_of"}:
            path = route.format(about=uuid4(), service_id=uuid4(), user_id=uuid4())
            answer = await admin.get(f"{path}?{name}=1&{name}=1")
            assert_refused(answer, 422, "invalid")
            assert answer.json()["errors"] == [{"loc": ["query", name], "msg": "is repeated: send it once"}], route
