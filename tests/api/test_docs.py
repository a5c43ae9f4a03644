"""The API descriptions are complete, correct, and load nothing from elsewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from litestar.routes import HTTPRoute

from api.documents import descriptions, examples, openapi
from api.documents.operations import complete, described_schemas
from api.pages.routes import PAGES
from domain.access import Role
from tests.api.conftest import PASSWORD
from tests.api.declared import operations, parameters_of, schemas_in
from tests.api.http_calls import id_of
from tests.application.test_event_schemas import references

pytestmark = pytest.mark.anyio
PUBLISHED = Path(__file__).parent / "published"
SHOWN = ("/docs", "/api/docs", "/redoc", "/api/redoc")


async def test_every_route_is_described(api):
    described = {(path, method.upper()) for path, method, _ in operations()}
    hidden = {"/metrics", "/api/openapi.json", "/api/asyncapi.json", *SHOWN, "/api/docs/assets/{name}"}
    hidden |= {path for page in PAGES for path in page.paths}
    routes = [route for route in api.app._router.routes if isinstance(route, HTTPRoute) and route.path_format not in hidden]
    served = {(route.path_format, method) for route in routes for method in route.route_handler_map if method != "OPTIONS"}
    assert described == served
    assert len(served) > 40


def test_what_holds_for_all_operations_is_declared_for_each():
    names = [body["operationId"] for _, _, body in operations()]
    assert len(set(names)) == len(names)
    for path, method, body in operations():
        error = "ProtocolError" if body["tags"] == ["inference"] else "Problem"
        assert body["responses"]["default"] == {"$ref": f"#/components/responses/{error}"}, path
        assert ("400" in body["responses"]) == (method != "get")
        shared = {one["$ref"].split("/")[-1] for one in body["parameters"] if "$ref" in one}
        is_command = (
            method == "post"
            and body["tags"] not in (["sessions"], ["accounts"], ["inference"])
            and body["operationId"] != "policiesPreview"
        )
        assert ("IdempotencyKey" in shared) == is_command
        assert body.get("security") in (None, [])


def test_an_operation_declares_if_match_where_its_handler_reads_it():
    handlers = {one.id: one for one in openapi.operations()}
    assert len(handlers) == len(operations())
    for _, _, body in operations():
        reads = "expected_version" in handlers[body["operationId"]].handler.fn.__code__.co_names
        declared = {"$ref": "#/components/parameters/IfMatch"} in body["parameters"]
        assert reads == declared == ("412" in body["responses"]), body["operationId"]


def test_each_summary_names_what_it_is_about():
    summaries = {body["operationId"].rstrip("234"): body["summary"] for _, _, body in operations()}
    assert len(set(summaries.values())) == len(summaries)
    for summary in summaries.values():
        assert len(summary.split()) > 1, summary
        assert re.fullmatch(r"[A-Z][a-z]+( [a-z0-9-]+)+", summary)


def test_everything_has_a_description():
    document = openapi.document()
    schemas = document["components"]["schemas"]
    places = {f"operation {body['operationId']}": body for _, _, body in operations()}
    places |= {f"{body['operationId']} {one['name']}": one for _, _, body in operations() for one in parameters_of(body)}
    places |= {f"schema {name}": schema for name, schema in schemas.items()}
    places |= {f"{one['description']}.{name}": inner for one in schemas_in(document) for name, inner in one["properties"].items()}
    places |= {f"tag {tag['name']}": tag for tag in document["tags"]}
    places |= document["components"]["securitySchemes"]
    assert len(places) > 400
    missing = [place for place, described in places.items() if len(described.get("description", "")) < 4]
    assert missing == []


PROPERTY = {"properties": {"colour": {"type": "string"}}}


@pytest.mark.parametrize(
    ("schema", "docstrings", "advice"),
    [
        ({}, {}, "describe the schema Stain in api/documents/descriptions.py, SCHEMAS"),
        ({}, {"Stain": ""}, "describe the schema Stain in api/documents/descriptions.py, SCHEMAS"),
        (PROPERTY, {"Stain": "A dye."}, "describe the property colour of the schema Stain in api/documents/descriptions.py, PROPERTIES"),
    ],
    ids=["schema", "empty docstring", "property"],
)
def test_an_error_says_where_a_schema_is_described(schema, docstrings, advice):
    with pytest.raises(LookupError, match=f"^{re.escape(advice)}$"):
        described_schemas({"Stain": schema}, docstrings)


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        (
            {"parameters": [{"name": "stain", "in": "query"}]},
            "describe the parameter stain of datasetsCreate in api/documents/descriptions.py, PARAMETERS",
        ),
        (
            {"parameters": [{"name": "cursor", "in": "path"}]},
            "add an example of the parameter cursor of datasetsCreate in api/documents/examples.py, PARAMETERS",
        ),
        (
            {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Stain"}}}}},
            "add an example of the body of datasetsCreate in api/documents/examples.py, SCHEMAS",
        ),
    ],
    ids=["parameter", "parameter in the path", "body"],
)
def test_an_error_says_where_an_operation_is_described(body, advice):
    known = next(one for one in openapi.operations() if one.id == "datasetsCreate")
    with pytest.raises(LookupError, match=f"^{re.escape(advice)}$"):
        complete(known._replace(body={"tags": known.body["tags"], **body}))


def test_every_description_is_used():
    schemas = openapi.document()["components"]["schemas"]
    names = {one["name"] for _, _, body in operations() for one in parameters_of(body)}
    by_id = {body["operationId"]: {one["name"] for one in parameters_of(body)} for _, _, body in operations()}
    assert set(descriptions.PARAMETERS) | set(examples.PARAMETERS) <= names
    for others in (descriptions.OTHER_PARAMETERS, examples.OTHER_PARAMETERS):
        assert all(set(texts) <= by_id[operation] for operation, texts in others.items())
    assert set(descriptions.SCHEMAS) <= set(schemas)
    assert {name: set(texts) for name, texts in descriptions.PROPERTIES.items()} == {
        name: set(schema["properties"]) for name, schema in schemas.items() if "properties" in schema and name != "Problem"
    }


def test_operations_are_in_working_order():
    ids = [body["operationId"] for _, _, body in operations()]
    work = ["sessionsRegister", "sessionsLogin", "datasetsCreate", "imagesUpload", "imagesListed", "modelsListed", "classificationsRun"]
    work += ["classificationsOne", "resultsListed", "usersListed", "auditTrail", "healthLive"]
    assert sorted(work, key=ids.index) == work
    tags = [body["tags"][0] for _, _, body in operations()]
    assert list(dict.fromkeys(tags)) == [tag["name"] for tag in openapi.document()["tags"]]
    assert all(ids.index(f"{noun}Create") < ids.index(f"{noun}Remove") for noun in ("datasets",))


def test_files_are_binary_and_nothing_else_has_a_body_of_its_own():
    paths = openapi.document()["paths"]
    form = paths["/api/images/upload"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["file"]["format"] == "binary"
    answers = paths["/api/blobs/{token}"]["get"]["responses"]
    assert [answers[status]["content"]["image/*"]["schema"]["format"] for status in ("200", "206")] == ["binary", "binary"]
    package = paths["/api/models/{name}/versions/{number}/package"]["get"]["responses"]["200"]
    assert package["content"] == {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
    without = [body["operationId"] for _, _, body in operations() if "204" in body["responses"]]
    assert len(without) >= 21
    assert all("content" not in body["responses"]["204"] for _, _, body in operations() if "204" in body["responses"])


def test_a_body_is_required_where_it_is():
    bodies = {body["operationId"]: body["requestBody"]["required"] for _, _, body in operations() if "requestBody" in body}
    assert {name for name, required in bodies.items() if not required} == {"sessionsRefresh", "sessionsLogout"}
    assert len(bodies) > 10


async def test_a_length_in_a_description_is_the_one_that_is_enforced(api):
    http = await api.client(Role.ADMIN)
    routes = {
        "CreateDataset": ("POST", "/api/datasets"),
        "RegisterDevice": ("POST", "/api/devices"),
        "UpdateUser": ("PATCH", f"/api/users/users/{await id_of(http)}"),
    }
    lengths = [
        (schema, name, int(found[1]))
        for schema in routes
        for name, text in descriptions.PROPERTIES[schema].items()
        if name not in {"email", "password"} and (found := re.search(r"(\d+) characters", text))
    ]
    assert len(lengths) > 10
    for schema, name, most in lengths:
        for length in (most, most + 1):
            others = {"name": "scope", "hostname": f"{name}-{length}"} if schema == "RegisterDevice" else {}
            others |= {"name": "cells"} if schema == "CreateDataset" else {}
            answer = await http.request(*routes[schema], json=others | {name: "x" * length})
            assert answer.is_success == (length == most), (schema, name, answer.text)


async def test_the_page_can_sign_in_with_the_password_flow(api):
    """As Swagger UI does: a form, with empty credentials of a client."""
    address = api.account()
    document = (await api.anonymous().get("/api/openapi.json")).json()
    flow = document["components"]["securitySchemes"]["password"]["flows"]["password"]
    form = {"grant_type": "password", "username": address, "password": PASSWORD, "scope": ""}
    answer = await api.anonymous(Authorization="Basic Og==").post(flow["tokenUrl"], data=form)
    assert answer.status_code == 200
    assert answer.json()["token_type"] == "bearer"
    bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert (await api.anonymous(**bearer).get("/api/users/me")).json()["email"] == address
    refused = await api.anonymous().post(flow["tokenUrl"], data=form | {"password": "wrong"})
    assert refused.status_code == 401


async def test_below_a_path_of_a_proxy_the_documents_and_their_pages_name_that_path(api):
    """The proxy removes the path before it passes a request on."""
    api = api.with_options(base_url="https://lab.example.org/bioscope")
    http = api.anonymous(host="lab.example.org")
    document = (await http.get("/api/openapi.json")).json()
    assert document["servers"] == [{"url": "/bioscope"}]
    assert document["components"]["securitySchemes"]["password"]["flows"]["password"]["tokenUrl"] == "/bioscope/api/auth/login-swagger"
    websocket = (await http.get("/api/asyncapi.json")).json()["servers"]["websocket"]
    assert (websocket["protocol"], websocket["pathname"], websocket["variables"]["host"]["default"]) == (
        "wss",
        "/bioscope",
        "lab.example.org",
    )
    for address in {address for where in SHOWN for address in addresses_in((await http.get(where)).text)}:
        assert address.startswith("/bioscope/")
        found = await http.get(address.removeprefix("/bioscope"))
        assert found.status_code == 200, address
        assert not re.search(rb"(?<!/bioscope)/api/(?:openapi\.json|docs/assets/)", found.content), address


async def test_who_may_ask_is_told_as_it_is(api):
    http = api.anonymous()
    for path, method, body in operations():
        if "{" not in path and body.get("security") is None:
            assert (await http.request(method, path)).status_code == 401, path
    opened = {path for path, _, body in operations() if body.get("security") == []}
    assert {"/api/auth/login", "/health", "/api/health"} <= opened


def test_published_operation_ids_and_schema_names_stay():
    """Clients generate code from them. New ones are added to these files; none is removed or renamed."""
    described = {
        "operations": {f"{body['operationId']} {method.upper()} {path}" for path, method, body in operations()},
        "schemas": set(openapi.document()["components"]["schemas"]),
    }
    for kind, names in described.items():
        published = (PUBLISHED / f"{kind}.txt").read_text().splitlines()
        assert published == sorted(set(published)), f"{kind}.txt is not sorted"
        assert names - set(published) == set(), f"add these to {kind}.txt"
        assert set(published) - names == set(), f"these are in {kind}.txt: clients use them"


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
    addresses = addresses_in(page.text)
    assert len(addresses) >= 4
    for address in addresses:
        assert address.startswith("/api/docs/assets/")
        found = await http.get(address)
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["content-type"].split(";")[0] in {"text/javascript", "text/css", "image/svg+xml"}
        assert b"//cdn." not in found.content


def addresses_in(page):
    return re.findall(r'(?:src|href)="([^"]+)"', page)


@pytest.mark.parametrize("name", ["nothing.js", "..%2f..%2fplugins.py", "%2e%2e/docs.py", "templates/redoc/js/redoc.standalone.js", ""])
async def test_there_are_no_other_assets(api, name):
    assert (await api.anonymous().get(f"/api/docs/assets/{name}")).status_code == 404


@pytest.mark.parametrize(("kind", "version"), [("openapi", "3.1.0"), ("asyncapi", "3.0.0")])
async def test_a_document_is_printed_without_any_server(kind, version):
    code = f"import sys; sys.argv = ['bioscope', '{kind}', 'export']; from api.cli import main; main(standalone_mode=False)"
    code += "; assert 'flask' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[kind] == version
