"""Every text, number and date of every operation, found in the OpenAPI document: a hostile value is refused by name, and not echoed."""

import json
from importlib import import_module
from itertools import product
from pkgutil import iter_modules
from urllib.parse import quote, urlencode

import pytest
from jsonschema import Draft202012Validator

from api import pages
from api.pages.forms import Field as Input
from api.pages.forms import FormPage
from tests.api.conftest import PASSWORD
from tests.api.declared import find, operations, parameters_of
from tests.api.http_calls import PICTURE
from tests.api.test_examples import ENDLESS, LAST, Story
from tests.api.test_pages_for_people import signed_in
from tests.rigs import hostile_values
from tests.rigs.hostile_values import MARK, MEGABYTE, Field
from tests.rigs.html import Parsed
from tests.rigs.links import Links
from tests.twins.predictor import MemoryPredictor

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TOKEN = Input("token", "", "")
TOO_LARGE = {413, 414}
NAMELESS = {401, 403, 404}  # a path names nothing, and a credential is not said to be wrong in a certain way
COMPARED = {"token", "refresh_token", "current_password"}  # with what is stored; they are neither stored nor shown
SIGN_IN = {"sessionsLogin", "sessionsLoginByForm"}
HEADERS = {
    "Accept": 200,
    "Authorization": 401,
    "Cookie": 200,
    "Idempotency-Key": 422,
    "If-Match": 422,
    "Origin": 200,
    "Prefer": 200,
    "traceparent": 200,
    "User-Agent": 200,
    "X-Forwarded-For": 200,
    "X-Request-Id": 200,
}
"""What a hostile value gives at the worst; most headers are then as if they were not sent."""


def resolved(schema):
    match schema:
        case {"$ref": str(reference)}:
            return resolved(find(reference))
        case dict():
            return {key: resolved(one) for key, one in schema.items()}
        case list():
            return [resolved(one) for one in schema]
        case _:
            return schema


class Attack(Story):
    """Before an example is sent, each of its values is replaced by hostile ones. `wrong` are the answers that should be others."""

    def __init__(self, api):
        super().__init__(api)
        self.sent, self.fields, self.wrong = 0, set(), []

    async def tell(self, path, method, operation):
        for place, field, kind, value, request in self.requests(path, method, operation):
            answer = await self.http.request(method, **request)
            self.sent += 1
            self.fields.add((operation["operationId"], place, field.path))
            if problem := self.judged(operation["operationId"], place, field, value, answer):
                self.wrong.append(f"{operation['operationId']}: {kind} in {place} {field.path} is {problem}: {answer.text[:200]}")
        await super().tell(path, method, operation)

    def requests(self, path, method, operation):
        """(place, field, kind of value, value, request) of each hostile request."""
        url, parameters = self.path(path, operation), parameters_of(operation)
        real = {one["name"]: self.replaced(one["example"]) for one in parameters if one["in"] == "path"}
        for parameter in parameters:
            field = Field((parameter["name"],), resolved(parameter["schema"]))
            for kind, value in field.values().items():
                text = quote(str(value).encode(errors="surrogatepass"))
                if parameter["in"] == "query" and len(text) < MEGABYTE:
                    yield "query", field, kind, value, {"url": f"{url}?{parameter['name']}={text}"} | self.body(operation)
                elif parameter["in"] == "path" and len(text) < MEGABYTE:
                    yield "path", field, kind, value, {"url": path.format(**real | {parameter["name"]: text})} | self.body(operation)
        for media_type, content in operation.get("requestBody", {"content": {}})["content"].items():
            if "example" in content:
                example = self.replaced(content["example"])
                for field in hostile_values.fields(resolved(content["schema"]), example):
                    if field.path == ("file",):
                        continue  # an image; tests/images has hostile ones
                    for kind, value in field.values().items():
                        yield "body", field, kind, value, {"url": url} | sent(media_type, example, field, value)

    def judged(self, operation, place, field, value, answer):
        """What is wrong with an answer, or nothing."""
        if answer.status_code >= 500:
            return "a failure"
        if MARK in answer.text or MARK in str(answer.headers):
            return "echoed"
        is_compared = operation in SIGN_IN or field.name in COMPARED
        if is_compared or answer.status_code in TOO_LARGE:
            return ""
        if answer.is_success:
            return "" if is_allowed(field, value) else "accepted"
        if place == "path" and answer.status_code in NAMELESS:
            return ""
        return "" if any(str(part) in answer.text.lower() for part in field.path if part) else "not named"


def is_allowed(field, value):
    """Whether the document allows an extreme number or date."""
    if isinstance(value, str):
        return hostile_values.is_date(value)
    return Draft202012Validator(field.schema).is_valid(value)


def sent(media_type, example, field, value):
    """The body with a hostile value, as bytes: clients would refuse it."""
    body = hostile_values.replaced(example, field.path, value)
    if media_type == "multipart/form-data":
        parts = {name: (None, str(one).encode(errors="surrogatepass")) for name, one in body.items() if name != "file"}
        return {"files": {"file": ("cell.jpg", PICTURE, "image/jpeg")} | parts}
    if media_type == "application/x-www-form-urlencoded":
        return {"content": urlencode({name: str(one).encode(errors="surrogatepass") for name, one in body.items()}), "headers": FORM}
    return {"content": json.dumps(body), "headers": JSON}


async def test_a_hostile_value_is_refused_by_name_and_not_echoed(api, capsys):
    attack = Attack(api.with_services(predictor=MemoryPredictor()))
    await attack.begin()
    everything = [one for one in operations() if one[2]["operationId"] not in ENDLESS]
    ending = [one for one in everything if one[1] == "delete" or one[2]["operationId"] in LAST]
    for operation in everything:
        if operation not in ending:
            await attack.tell(*operation)
    await attack.another_job()
    ending.sort(key=lambda one: one[2]["operationId"].startswith("sessionsEnd"))
    for operation in reversed(ending):
        await attack.tell(*operation)
    assert not attack.wrong, "\n".join([f"{len(attack.wrong)} of {attack.sent}:", *attack.wrong])
    assert len(attack.fields) > 300
    with capsys.disabled():
        print(f" {attack.sent} hostile values in {len(attack.fields)} fields", end=" ")


@pytest.mark.parametrize("name", HEADERS)
async def test_a_hostile_header_is_refused_or_ignored(api, name):
    http = await api.client()
    for value in (
        b"",
        b"\xff\xfe",
        MARK.encode() + b"\xed\xa0\x80",
        MARK.encode() + b"\0",
        MARK.encode() + b"\r\nX-Injected: 1",
        b"9" * 5000,
    ):
        for method, body in (("GET", {}), ("POST", {"json": {"name": "cells"}})):
            answer = await http.request(method, "/api/datasets", headers=[(name.encode(), value)], **body)
            assert answer.status_code in {200, 201, HEADERS[name]}, (value, answer.text)
            assert MARK not in answer.text
            assert MARK not in str(answer.headers)
            assert "x-injected" not in answer.headers


def form_pages():
    modules = (import_module(f"api.pages.{one.name}") for one in iter_modules(pages.__path__))
    return {page.path: page for module in modules for page in vars(module).values() if isinstance(page, FormPage)}


async def test_a_hostile_value_in_a_form_of_a_page_is_refused_by_name(api):
    api = api.with_options(equal_answer_seconds=0)
    http, links, found = await signed_in(api), Links(api.services), 0
    tokens = {
        "/account/invitation": links.of_invitation("jean@example.org"),
        "/account/reset": links.of_reset(api.account()),
        "/account/verify": links.of_registration("barbara@example.org", password=PASSWORD),
    }
    for page in form_pages().values():
        fields = {field.name: "Ada" for field in page.fields} | {"token": tokens.get(page.path, "")}
        for field, (kind, value) in product((*page.fields, TOKEN), hostile_values.TEXTS.items()):
            content = urlencode({name: one.encode(errors="surrogatepass") for name, one in (fields | {field.name: value}).items()})
            answer = await http.post(page.path, content=content, headers=FORM)
            found += 1
            assert 300 <= answer.status_code < 500, (page.path, field.name, kind, answer.status_code)
            if field is TOKEN or answer.status_code in {303, 413} or page.path == "/setup":
                continue  # a link that is none; a page for those who are not signed in; too large; there are accounts
            if kind == "a lone surrogate":
                assert answer.status_code == 400  # not UTF-8, which no browser sends
                continue
            assert f"{field.label} must" in Parsed(answer.text).text, (page.path, field.name, kind, answer.text)
            assert not set(answer.text) & set("\0\r\ud800"), (page.path, field.name, kind)
            assert field.kind != "password" or MARK not in answer.text, (page.path, field.name, kind)
    assert found > 100
