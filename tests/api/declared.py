"""What the OpenAPI document declares, for tests that compare it with what the API does."""

import re
from functools import cache
from itertools import chain

from api.documents import openapi

BEFORE_ROUTES = {405, 414, 415, 421, 431}  # of the common answer 4XX, or of no operation at all


def operations():
    """(path, method, operation), in the order of the document."""
    return [(path, method, body) for path, methods in openapi.document()["paths"].items() for method, body in methods.items()]


def find(reference):
    location = openapi.document()
    for step in reference.removeprefix("#/").split("/"):
        location = location[step]
    return location


def parameters_of(operation):
    return [find(one["$ref"]) if "$ref" in one else one for one in operation["parameters"]]


@cache
def _patterns():
    return [(method, re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + "/?"), operation) for path, method, operation in operations()]


def operation_of(method, path):
    """The operation that answers a request, or None. Fixed paths come before those with a parameter."""
    found = [(pattern, operation) for verb, pattern, operation in _patterns() if verb == method.lower() and pattern.fullmatch(path)]
    return min(found, key=lambda one: one[0].pattern.count("[^/]+"))[1] if found else None


async def refuse_undeclared(response):
    """A hook for an HTTP client: no operation answers with a 4xx status that the document does not declare for it."""
    request, status = response.request, response.status_code
    operation = operation_of("GET" if request.method == "HEAD" else request.method, request.url.path)
    if operation is not None and 400 <= status < 500 and status not in BEFORE_ROUTES:
        assert str(status) in operation["responses"], f"{operation['operationId']} does not declare {status}"


def schemas_in(value):
    """All objects with properties in a part of a document, however deep."""
    match value:
        case {"properties": dict(), "type": "object"}:
            return [value, *chain.from_iterable(map(schemas_in, value.values()))]
        case dict():
            return list(chain.from_iterable(map(schemas_in, value.values())))
        case list():
            return list(chain.from_iterable(map(schemas_in, value)))
        case _:
            return []


def strict(value):
    """A schema that demands all of its properties and no other, wherever it names them."""
    match value:
        case {"properties": dict(properties)} if value.get("type") == "object":
            changed = {key: strict(one) for key, one in properties.items()}
            return value | {"properties": changed, "required": list(properties), "additionalProperties": False}
        case dict():
            return {key: strict(one) for key, one in value.items()}
        case list():
            return [strict(one) for one in value]
        case _:
            return value
