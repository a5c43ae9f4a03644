"""The rights of keys: every scope with every route. A key may use the routes of its scopes and no others."""

import pytest

from domain.access import Role, Scope
from tests.api.http_calls import PICTURE
from tests.api.test_access import routes_of

pytestmark = pytest.mark.anyio

TABLE = """
images:read    GET    /api/images
images:read    GET    /api/images/{image_id}
images:read    GET    /api/images/{image_id}/download
images:read    GET    /api/images/{image_id}/preview
images:read    GET    /api/images/{image_id}/thumbnail
images:write   PATCH  /api/images/{image_id}
images:write   POST   /api/images/upload
datasets:read  GET    /api/datasets
datasets:read  GET    /api/datasets/{dataset_id}
jobs:run       GET    /api/classifications
jobs:run       GET    /api/classifications/{job_id}
jobs:run       GET    /api/classifications/{job_id}/failures
jobs:run       GET    /api/models
jobs:run       GET    /api/models/{name_or_id}
jobs:run       POST   /api/classifications/run
jobs:run       POST   /api/classifications/{job_id}/cancel
jobs:run       POST   /api/classifications/{job_id}/retry
results:read   GET    /api/classification-results
results:read   GET    /api/classification-results/classification/{job_id}
results:read   GET    /api/classification-results/export
results:read   GET    /api/classification-results/image/{image_id}
results:read   GET    /api/classification-results/today/statistics
results:read   GET    /api/classification-results/{result_id}
results:read   GET    /api/classification-results/{result_id}/policy
results:read   GET    /api/statistics/results
events:read    GET    /api/events
events:read    GET    /api/events/heads
events:read    GET    /api/events/schemas
events:read    GET    /api/events/schemas/{kind}
models:run     GET    /api/v2
models:run     GET    /api/v2/models/{name}
models:run     GET    /api/v2/models/{name}/ready
models:run     GET    /api/v2/models/{name}/versions/{version}
models:run     GET    /api/v2/models/{name}/versions/{version}/ready
models:run     POST   /api/v2/models/{name}/infer
models:run     POST   /api/v2/models/{name}/versions/{version}/infer
"""
"""`/metrics` and live events are tested below and in tests/api/test_keys.py."""

ABSENT = "9d8f2f36-6a0b-4d55-8b6e-2e9a4b7c1d04"
SENT_AS_FORM = "POST /api/images/upload"
ENDLESS = {"GET /api/live", "WS /api/ws"}


def declared():
    """{route: scope}"""
    rows = (line.split() for line in TABLE.strip().splitlines())
    return {f"{method} {path}": Scope(scope) for scope, method, path in rows}


def filled(path):
    return "/".join("1" if part == "{number}" else ABSENT if part.startswith("{") else part for part in path.split("/"))


def needs_sign_in(app, route):
    method, path = route.split()
    return next(
        not handler.opt.get("exclude_from_auth")
        for one in app._router.routes
        if one.path_format == path
        for handler in (one.route_handler_map[method][0],)
    )


async def keys_of(api, admin, owner, *, with_others):
    """{scope, is alone: client with a key that has only this scope}, and `with_others` also one that has all scopes but this one."""
    clients = {}
    for scope in Scope:
        for scopes in ([scope], [other for other in Scope if other is not scope])[: 1 + with_others]:
            issued = await admin.post(owner, json={"name": "key", "scopes": scopes})
            assert issued.status_code == 201, issued.text
            clients[scope, len(scopes) == 1] = api.anonymous(Authorization=f"Bearer {issued.json()['key']}")
    return clients


@pytest.mark.parametrize("kind", ["service", "user"])
async def test_every_scope_allows_its_routes_and_no_others(api, kind, capsys):
    admin, table = await api.client(Role.ADMIN), declared()
    owner = "/api/keys"
    if kind == "service":
        owner = f"/api/service-accounts/{(await admin.post('/api/service-accounts', json={'name': 'robot'})).json()['id']}/keys"
    clients = await keys_of(api, admin, owner, with_others=kind == "service")
    routes = [route for route in sorted(set(routes_of(api.app)) - ENDLESS) if needs_sign_in(api.app, route)]
    assert set(table) <= set(routes)
    cells = 0
    for route in routes:
        method, path = route.split()
        body = {"files": {"file": ("a.jpg", PICTURE)}, "data": {"dataset_id": ABSENT}} if route == SENT_AS_FORM else {}
        for (scope, is_alone), client in clients.items():
            if not is_alone and route not in table:
                continue  # no scope opens it, as the keys with one scope show
            answer = await client.request(method, filled(path), **body)
            allowed = (table.get(route) is scope) is is_alone if route in table else False
            refused = answer.status_code == 403 and any(words in answer.text for words in ("lacks the scope", "no key may do this"))
            assert refused is not allowed, (route, scope, is_alone, answer.status_code, answer.text)
            assert answer.status_code != 401, route
            cells += 1
    with capsys.disabled():
        print(f"\n{kind} keys: {len(routes)} routes x {len(clients)} keys, {cells} cells executed")
    assert cells >= 700


def test_every_scope_has_a_route():
    assert set(declared().values()) | {Scope.METRICS_READ} == set(Scope)
