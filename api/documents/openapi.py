"""The OpenAPI document, generated from the routes."""

import json
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from importlib.metadata import version as installed
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Contact, License
from litestar.routes import HTTPRoute

from api.app_context import RESOURCES
from api.documents.operation import METHODS, Operation
from api.documents.operations import SCHEMA_REFERENCE, complete, components, described_schemas
from api.kserve import messages
from api.problems import ProtocolError
from api.routes import ROUTES

TOKEN_PATH: Final = "/api/auth/login-swagger"  # noqa: S105 - a path
DESCRIPTION: Final = """\
Upload micrographs, run models over an image or a whole dataset, follow the results, and prove later what was found.

**Sign in.** `POST /api/auth/login` answers with an access token. Send it as `Authorization: Bearer TOKEN`. It is valid for `expires_in`
seconds. `POST /api/auth/refresh` exchanges the refresh token for a new pair. On this page, use "Authorize".

**Lists** are bare arrays, one page at a time. `Link` and `X-Next-Cursor` lead to the next page.

**Changes** are answered once queries show them, with `X-Event-Position` and the new `ETag`. `If-Match` protects the changes of others. A
repeated POST with the same `Idempotency-Key` is the same command. `Prefer: respond-async` does not wait. `?min_position=` makes a query
wait for a change.

**Errors** are problems (RFC 9457): `code` is stable, `detail` is a sentence for people, `errors` names the fields.

**Events.** The WebSocket `/api/ws` and the stream `GET /api/live` send the events of the datasets that you may see, and
`GET /api/events` returns the whole log.
[/api/asyncapi.json](asyncapi.json) describes the messages of the WebSocket and of Kafka (AsyncAPI 3.0)."""

TAGS: Final = {
    "sessions": "Register, sign in, refresh the tokens, sign out",
    "accounts": "Verify an address, reset a password, accept an invitation, set up the installation",
    "teams": "Groups of accounts that share grants on datasets, and the right to promote models",
    "datasets": "Groups of images, and who may use them",
    "images": "Upload micrographs, look at them, download them",
    "models": "Models that images can be classified with",
    "classifications": "Jobs: run a model over an image or a dataset",
    "results": "What the models found",
    "policies": "Rules by which labels and verdicts follow from scores, without a new run",
    "statistics": "Figures of the results, in groups",
    "inference": 'Predictions by the Open Inference Protocol (KServe v2), which are not recorded. Their errors are `{"error": ...}`',
    "devices": "Microscopes and cameras",
    "events": "The event stream, and the schemas of its events",
    "users": "Accounts and roles",
    "keys": "API keys of programs: personal access tokens, and service accounts",
    "invitations": "Offers of an account with a role, sent by mail",
    "audit": "The history of one thing, and its earlier states",
    "health": "Checks for monitoring",
}
"""In working order."""

PUBLISHED_NAMES: Final = {  # of schemas whose classes were renamed: clients generate code from the published ones
    "DependencyHealth": "Dependency",
    "FeedEvent": "Followed",
    "FeedPage": "Feed",
    "JobStatus": "Phase",
    "NamedBody": "Named",
    "application_history_lists_as_of_Result": "application_past_Result",
}
TITLES: Final = {  # where two schemas would have the same one, which generators take as the name of a class
    "api_images_Status": "ImageStatus",
    "application_past_Result": "PastResult",
    "domain_user_Status": "AccountStatus",
}


@cache
def document(base_path: str = "") -> dict[str, Any]:
    """OpenAPI 3.1 of all routes, which clients find below `base_path`. Takes a second; callers must not change it."""
    schema, found = _described_operations()
    schemas = described_schemas(schema["components"]["schemas"], _docstrings())
    return schema | {
        "servers": [{"url": base_path or "/"}],
        "security": [{"password": []}, {"bearer": []}],
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()],
        "paths": _in_working_order(found),
        "components": {"schemas": schemas, "securitySchemes": _security_schemes(base_path)} | components(),
    }


def operations() -> list[Operation]:
    """All operations, complete. Callers must not change them."""
    return _described_operations()[1]


@cache
def _described_operations() -> tuple[dict[str, Any], list[Operation]]:
    """What Litestar generates, and the operations in it, completed."""
    app = Litestar(
        route_handlers=ROUTES,
        dependencies={name: Provide(_placeholder()) for name in ("context", *RESOURCES)},
        openapi_config=OpenAPIConfig(
            title="BioScopeAI Core",
            version=installed("bioscope"),
            description=DESCRIPTION,
            license=License(name="MIT", identifier="MIT"),
            contact=Contact(name="BioScopeAI"),
            use_handler_docstrings=True,
        ),
        logging_config=None,
    )
    schema = _with_published_names(app.openapi_schema.to_schema())
    schema["components"]["schemas"] |= _protocol_schemas()
    found = list(_operations(app, schema["paths"]))
    for operation in found:
        complete(operation)
    return schema, found


def _placeholder() -> Callable[[], Any]:
    """Stands for a dependency of the routes; Litestar needs a different one for each."""

    async def placeholder() -> None: ...

    return placeholder


def _security_schemes(base_path: str) -> dict[str, Any]:
    return {
        "password": {
            "type": "oauth2",
            "description": "Sign in with the e-mail address of your account as username. Leave the client's fields empty.",
            "flows": {"password": {"tokenUrl": base_path + TOKEN_PATH, "scopes": {}}},
        },
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An access token from `POST /api/auth/login`, or the token of a service (`bioscope tokens create`).",
        },
    }


def _protocol_schemas() -> dict[str, Any]:
    """Of the Open Inference Protocol, what no handler names: requests, which may be partly binary, and errors."""
    structs = (messages.InferenceRequest, ProtocolError)
    _, found = msgspec.json.schema_components(structs, ref_template=f"{SCHEMA_REFERENCE}{{name}}")
    return found


def _with_published_names(schema: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(schema)
    for name, published in PUBLISHED_NAMES.items():
        text = text.replace(f'"#/components/schemas/{name}"', f'"#/components/schemas/{published}"')
    schema = json.loads(text)
    schemas = {PUBLISHED_NAMES.get(name, name): definition for name, definition in schema["components"]["schemas"].items()}
    for name, definition in schemas.items():
        definition["title"] = TITLES.get(name) or PUBLISHED_NAMES.get(definition["title"], definition["title"])
    schema["components"]["schemas"] = dict(sorted(schemas.items()))
    return schema


def _operations(app: Litestar, paths: dict[str, Any]) -> Iterator[Operation]:
    """Everything that the document describes, in the order of the paths, which decides the ids of handlers with several paths."""
    ids: set[str] = set()
    for route in sorted((route for route in app.routes if isinstance(route, HTTPRoute)), key=lambda route: route.path_format):
        for method, (handler, _) in route.route_handler_map.items():
            if (body := paths.get(route.path_format, {}).get(method.lower())) is not None:
                name = handler.operation_id or body["tags"][0] + handler.handler_name.title().replace("_", "")
                yield Operation(_unique(str(name), ids), route.path_format, method, handler, body)


def _unique(name: str, names: set[str]) -> str:
    """`name`, or the first of `name2`, `name3`, ... that is not among `names`, to which it is added."""
    unique, number = name, 1
    while unique in names:
        number += 1
        unique = f"{name}{number}"
    names.add(unique)
    return unique


def _in_working_order(unordered: list[Operation]) -> dict[str, Any]:
    """The paths by tag, then in the order of the controllers and their handlers; of one path, what creates comes before what deletes."""
    first: dict[str, tuple[int, int, int]] = {}
    for operation in unordered:
        first[operation.path] = min(first.get(operation.path, (len(TAGS), 0, 0)), _place(operation))
    paths: dict[str, Any] = {}
    for operation in sorted(unordered, key=lambda one: (first[one.path], one.path, METHODS.index(one.method))):
        paths.setdefault(operation.path, {})[operation.method.lower()] = operation.body
    return paths


def _place(operation: Operation) -> tuple[int, int, int]:
    function = operation.handler.fn
    return list(TAGS).index(operation.tag), _modules().index(function.__module__), function.__code__.co_firstlineno


def _docstrings() -> dict[str, str]:
    """Those of the structs and enumerations beside the routes, under both names that Litestar may give to a schema."""
    found: dict[str, str] = {}
    for module in (*_modules(), messages.__name__, ProtocolError.__module__):
        for name, member in vars(sys.modules[module]).items():
            if isinstance(member, type) and member.__module__ == module and issubclass(member, msgspec.Struct | Enum):
                found |= dict.fromkeys((name, f"{module}_{name}".replace(".", "_")), member.__doc__ or "")
    return found


@cache
def _modules() -> list[str]:
    owners = (route.fn if isinstance(route, HTTPRouteHandler) else route for route in ROUTES)
    return list(dict.fromkeys(owner.__module__ for owner in owners))
