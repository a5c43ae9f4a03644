"""The API descriptions are complete, correct, and load nothing from elsewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from litestar.routes import HTTPRoute

from api.documents import openapi
from tests.application.test_event_schemas import references

pytestmark = pytest.mark.anyio
PUBLISHED = Path(__file__).parent / "published"
SHOWN = ("/docs", "/api/docs", "/redoc", "/api/redoc")


def operations():
    return [(path, method, body) for path, methods in openapi.document()["paths"].items() for method, body in methods.items()]


async def test_every_route_is_described(api):
    described = {(path, method.upper()) for path, method, _ in operations()}
    hidden = {"/metrics", "/api/openapi.json", "/api/asyncapi.json", *SHOWN, "/api/docs/assets/{name}"}
    routes = [route for route in api.app._app.routes if isinstance(route, HTTPRoute) and route.path_format not in hidden]
    served = {(route.path_format, method) for route in routes for method in route.route_handler_map if method != "OPTIONS"}
    assert described == served
    assert len(served) > 40


async def test_what_holds_for_all_routes_is_told_of_each():
    names = [body["operationId"] for _, _, body in operations()]
    assert len(set(names)) == len(names)
    for path, method, body in operations():
        assert body["responses"]["default"] == {"$ref": "#/components/responses/Problem"}, path
        assert "400" not in body["responses"]
        shared = {one["$ref"].split("/")[-1] for one in body["parameters"] if "$ref" in one}
        assert ("IdempotencyKey" in shared) == (method == "post" and body["tags"] != ["sessions"])
        assert ("IfMatch" in shared) == (method in {"put", "patch", "delete"})
        assert body.get("security") in (None, [])


async def test_who_may_ask_is_told_as_it_is(api):
    http = api.anonymous()
    for path, method, body in operations():
        if "{" not in path and body.get("security") is None:
            assert (await http.request(method, path)).status_code == 401, path
    opened = {path for path, _, body in operations() if body.get("security") == []}
    assert {"/api/auth/login", "/health", "/api/health"} <= opened


def test_published_operation_ids_and_schema_names_stay():
    """Clients generate code from them. New ones are added to these files; none is removed or renamed."""
    published = [(PUBLISHED / f"{kind}.txt").read_text().splitlines() for kind in ("operations", "schemas")]
    described = sorted(f"{body['operationId']} {method.upper()} {path}" for path, method, body in operations())
    assert [described, sorted(openapi.document()["components"]["schemas"])] == published


async def test_every_reference_leads_somewhere():
    document = openapi.document()
    found = references(document)
    assert found
    for reference in found:
        location = document
        for step in reference.removeprefix("#/").split("/"):
            location = location[step]
        assert location


async def test_both_documents_are_served(api):
    http = api.anonymous()
    assert (await http.get("/api/openapi.json")).json() == msgspec.json.decode(msgspec.json.encode(openapi.document()))
    assert (await http.get("/api/asyncapi.json")).json()["asyncapi"] == "3.0.0"


@pytest.mark.parametrize("where", SHOWN)
async def test_a_page_loads_everything_from_here_and_runs_nothing_of_its_own(api, where):
    http = api.anonymous()
    page = await http.get(where)
    policy = page.headers["content-security-policy"]
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"<script>|<script [^>]*>[^<]|<style|style=|\son\w+=", page.text)
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) >= 4
    for address in addresses:
        assert address.startswith("/api/docs/assets/")
        found = await http.get(address)
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["content-type"].split(";")[0] in {"text/javascript", "text/css", "image/svg+xml"}
        assert b"//cdn." not in found.content


@pytest.mark.parametrize("name", ["nothing.js", "..%2f..%2fplugins.py", "%2e%2e/docs.py", "templates/redoc/js/redoc.standalone.js", ""])
async def test_there_are_no_other_assets(api, name):
    assert (await api.anonymous().get(f"/api/docs/assets/{name}")).status_code == 404


async def test_where_they_are_off_they_are_not_there(api):
    api = api.with_options(docs=False)
    for where in (*SHOWN, "/api/openapi.json", "/api/asyncapi.json", "/api/docs/assets/plain.css"):
        assert (await api.anonymous().get(where)).status_code == 404


@pytest.mark.parametrize(("kind", "version"), [("openapi", "3.1.0"), ("asyncapi", "3.0.0")])
async def test_a_document_is_printed_without_any_server(kind, version):
    code = f"import sys; sys.argv = ['bioscope', '{kind}', 'export']; from api.cli import main; main(standalone_mode=False)"
    code += "; assert 'flask' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[kind] == version
