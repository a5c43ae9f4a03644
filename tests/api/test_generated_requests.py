"""Requests that Schemathesis generates from the OpenAPI document, as every role: no failure, and no answer that the document lacks.

`make fuzz` sends more of them, with three seeds: CASES=10000 SEED=1.
"""

import os
from contextlib import suppress
from itertools import count, cycle, islice

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.documents import openapi
from domain.access import Role, Scope
from tests.api.conftest import PASSWORD
from tests.api.test_access import World, bearer
from tests.api.test_examples import ENDLESS
from tests.twins.predictor import MemoryPredictor

pytestmark = pytest.mark.anyio

CASES, SEED = int(os.environ.get("CASES", "500")), os.environ.get("SEED")
CALLERS = ("anonymous", "pending", *Role, "service key", "personal key")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
HELD = {"wait": 0, "min_position": 0}  # the answer would wait for events that never come, or refuse a position beyond the log
numbers = count(1)


def generated(operation, number):
    """Cases of an operation: three of four with what its schema allows, and others. Each is repeated if there are only a few."""
    found = []
    for mode, share in ((GenerationMode.POSITIVE, -(-number * 3 // 4)), (GenerationMode.NEGATIVE, number // 4)):
        if share:
            found += _examples(operation.as_strategy(generation_mode=mode), share)
    return list(islice(cycle(found), number))


def _examples(strategy, number):
    found = []

    @hypothesis_settings(
        max_examples=number,
        derandomize=SEED is None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(case):
        found.append(case)

    with suppress(Unsatisfiable):  # nothing about some operations can be wrong
        (collect if SEED is None else seed(int(SEED))(collect))()
    return found


class Callers:
    """Somebody of each kind. One whose session or key has ended is replaced."""

    def __init__(self, api):
        self.api, self.world = api, World(api)
        self._headers = {}

    async def headers(self, kind):
        if kind not in self._headers:
            self._headers[kind] = await self._new(kind)
        return self._headers[kind]

    def replace(self, kind):
        del self._headers[kind]

    async def _new(self, kind):
        match kind:
            case "pending":
                return await self._pending()
            case "service key":
                admin = self.world.person(Role.ADMIN)
                return await self._key(admin, f"/api/service-accounts/{await self._service(admin)}/keys", set(Scope))
            case "personal key":
                return await self._key(self.world.person(Role.ADMIN), "/api/keys", set(Scope) - {Scope.METRICS_READ})
            case _:
                return self.world.person(kind).headers

    async def _pending(self):
        name = f"pending{next(numbers)}"
        http = self.api.with_options(verifies_email=True).anonymous()
        names = {"email": f"{name}@example.org", "username": name, "first_name": "A", "last_name": "B"}
        assert (await http.post("/api/auth/register", json=names | {"password": PASSWORD})).is_success
        answer = await http.post("/api/auth/login", json={"email": names["email"], "password": PASSWORD})
        assert answer.is_success, answer.text
        return bearer(answer.json()["access_token"])

    async def _service(self, admin):
        http = self.api.anonymous(**admin.headers)
        made = await http.post("/api/service-accounts", json={"name": f"robot{next(numbers)}"})
        assert made.is_success, made.text
        return made.json()["id"]

    async def _key(self, admin, path, scopes):
        http = self.api.anonymous(**admin.headers)
        issued = await http.post(path, json={"name": f"key {next(numbers)}", "scopes": sorted(scopes)})
        assert issued.is_success, issued.text
        return bearer(issued.json()["key"])


async def answer_to(case, headers, http):
    held = {name: HELD[name] for name in HELD if name in (case.query or {})}
    case.query.update(held)
    ready = requests.Request(**case.as_transport_kwargs(base_url=str(http.base_url), headers=headers)).prepare()
    body = ready.body.encode() if isinstance(ready.body, str) else ready.body
    sent = [(name, value.encode() if isinstance(value, str) else value) for name, value in ready.headers.items()]
    return await http.request(ready.method, ready.url, headers=sent, content=body)


def filled(case, things, number):
    """Every other case is about things that there are."""
    known = {name: str(value) for name, value in things.items()}
    if number % 2:
        for name in known.keys() & set(case.path_parameters or {}):
            case.path_parameters[name] = known[name]
        for name in known.keys() & set(case.body if isinstance(case.body, dict) else {}):
            case.body[name] = known[name]
    return case


@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")  # threads of the application use it meanwhile
async def test_generated_requests_are_answered_as_documented(api, capsys):
    api = api.with_services(predictor=MemoryPredictor()).with_options(equal_answer_seconds=0)
    callers, http, wrong, sent, statuses = Callers(api), api.anonymous(), [], 0, {}
    schema = schemathesis.openapi.from_dict(openapi.document())
    found = [one.ok() for one in schema.get_all_operations()]
    tried = [one for one in found if one.definition.raw["operationId"] not in ENDLESS]
    things = {}
    for place, operation in enumerate(tried):
        if operation.method != "get" or not things:
            things = callers.world.things(callers.world.person(Role.ADMIN), "own")
        for number, case in enumerate(generated(operation, -(-CASES // len(tried)))):
            caller = CALLERS[(place + number) % len(CALLERS)]
            filled(case, things, number)
            try:
                answer = await answer_to(case, await callers.headers(caller), http)
                if answer.status_code == 401 and caller != "anonymous":
                    callers.replace(caller)
                    answer = await answer_to(case, await callers.headers(caller), http)
                case.validate_response(answer, checks=CHECKS)
            except (AssertionError, FailureGroup) as error:
                wrong.append(f"{caller}: {case.as_curl_command()}\n{error}")
            sent += 1
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
    with capsys.disabled():
        print(f" {sent} requests: {statuses}", end=" ")
    assert not wrong, "\n\n".join([f"{len(wrong)} of {sent}:", *wrong])
