"""The examples of the OpenAPI document: each request succeeds as it stands, and each answer has the shape of its example."""

import re
from uuid import UUID

import jsonschema
import pytest

from api.documents import examples, openapi
from api.documents.operations import HEADERS
from application import accounts
from application.ports import Command
from domain.access import Role
from domain.session import SessionStarted
from tests.api.conftest import SYSTEM
from tests.api.declared import find, operations, parameters_of, strict
from tests.api.http_calls import PICTURE
from tests.api.worker_events import WorkerEvents, now
from tests.given import NOW
from tests.rigs.links import Links
from tests.twins.predictor import MemoryPredictor

pytestmark = pytest.mark.anyio

IDS = [
    value
    for value in vars(examples).values()
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value)
]
TOKENS = [examples.ACCESS_TOKEN, examples.REFRESH_TOKEN, examples.SIGNED_TOKEN]
DOCUMENTED_HEADERS = {name.lower() for name in HEADERS}
CREATE = {"imagesPreview", "resultsListed"}  # beside every POST: their answers name what later requests are about
LAST = {"sessionsLogout", "classificationsCancel", "modelsRetire"}  # they end what others need
NEEDS_NO_JSON = {"imagesBlob", "modelsPackage", "resultsExport"}
ENDLESS = {"eventsLive"}  # tests/api/test_live_stream.py


class Story:
    """Sends the examples to an application, with the ids and tokens of its answers in place of those of the examples."""

    def __init__(self, api):
        self.api, self.http, self.workers = api, api.anonymous(), WorkerEvents(api)
        self.real = {}

    async def begin(self):
        log = self.api.services.log
        await self.workers.model("pbc8", sha256=self.stored(b"weights"), labels=tuple(examples.SCORES))
        colleague = self.api.account(Role.RESEARCHER)
        self.real[examples.COLLEAGUE] = str(accounts.find(colleague, log).id)
        self.real[examples.EMAIL_OF_COLLEAGUE] = colleague
        self.real[examples.SESSION_OF_COLLEAGUE] = await self.another_session(colleague)
        self.real |= self.tokens()

    def tokens(self):
        """Those of mails that were sent before the story begins."""
        given, links = self.api.services, Links(self.api.services)
        return {
            examples.VERIFICATION_TOKEN: links.of_registration("barbara@example.org", password=examples.PASSWORD),
            examples.RESET_TOKEN: links.of_reset(self.api.account(Role.VIEWER)),
            examples.EMAIL_TOKEN: links.of_email_change(self.api.account(Role.VIEWER), to="other@example.org"),
            examples.INVITATION_TOKEN: links.of_invitation("jean@example.org"),
            examples.BOOTSTRAP_TOKEN: given.bootstrap_tokens.token(),
        }

    def stored(self, data):
        writer = self.api.services.blobs.begin()
        writer.write(data)
        return writer.commit()[0]

    async def request(self, path, method, operation, **query):
        return await self.http.request(method, self.path(path, operation), params=query, **self.body(operation))

    async def tell(self, path, method, operation):
        """Send the example of an operation, and compare the answer with what is declared."""
        response = await self.request(path, method, operation)
        assert response.is_success, (operation["operationId"], response.text)
        self.check(operation, response)
        if method == "post" or operation["operationId"] in CREATE:
            self.learn(operation, response)
        await self.go_on(operation["operationId"])

    def path(self, path, operation):
        given = {one["name"]: self.replaced(one["example"]) for one in parameters_of(operation) if one["in"] == "path"}
        return path.format(**given)

    def body(self, operation):
        for media_type, content in operation.get("requestBody", {"content": {}})["content"].items():
            if media_type in {"application/zip", "application/octet-stream"}:
                return {"content": b"PK", "headers": {"Content-Type": media_type}}
            example = self.replaced(content["example"])
            if media_type == "multipart/form-data":
                return {"data": example, "files": {"file": (examples.FILENAME, PICTURE, "image/jpeg")}}
            return {"json" if media_type == "application/json" else "data": example}
        return {}

    def replaced(self, value):
        match value:
            case str():
                for example, real in self.real.items():
                    value = value.replace(example, real)
                return value
            case dict():
                return {name: self.replaced(one) for name, one in value.items()}
            case _:
                return value

    def check(self, operation, response):
        """The status, headers, media type and body are those of the document."""
        declared = operation["responses"][str(response.status_code)]
        assert DOCUMENTED_HEADERS & set(response.headers) <= {name.lower() for name in declared.get("headers", {})}
        if not response.content:
            assert "content" not in declared
            return
        media_type = response.headers["content-type"].partition(";")[0]
        content = declared["content"].get(media_type) or declared["content"]["image/*"]
        if operation["operationId"] not in NEEDS_NO_JSON:
            validate(response.json(), content["schema"])

    def learn(self, operation, response):
        for content in operation["responses"][str(response.status_code)].get("content", {}).values():
            if "example" in content:
                self._compare(content["example"], response.json())

    def _compare(self, example, real):
        match example:
            case str() if isinstance(real, str):
                for known in (*IDS, *TOKENS):
                    if known in example and (found := re.fullmatch(re.escape(example).replace(re.escape(known), "(.+)"), real)):
                        assert known in TOKENS or self.real.get(known, found[1]) == found[1], f"{known} stands for two things"
                        self.real[known] = found[1]
            case dict() if isinstance(real, dict):
                for name in example.keys() & real.keys():
                    self._compare(example[name], real[name])
            case list():
                for one, other in zip(example, real, strict=False):
                    self._compare(one, other)

    async def go_on(self, done):
        """What users and workers do after an operation, before the next one makes sense."""
        match done:
            case "accountsSetUp":
                command = Command(id=UUID(int=1), actor=SYSTEM, at=NOW)
                accounts.change_role(UUID(self.real[examples.USER]), Role.ADMIN, command=command, log=self.api.services.log)
                credentials = {"email": examples.EMAIL, "password": examples.PASSWORD}  # the earlier session is cached with its role
                tokens = (await self.http.post("/api/auth/login", json=credentials)).json()
                self.http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
            case "sessionsLogin" | "sessionsLoginByForm" | "sessionsRefresh":
                self.http.headers["Authorization"] = f"Bearer {self.real[examples.ACCESS_TOKEN]}"
            case "sessionsListed":
                self.real[examples.SESSION] = await self.another_session(examples.EMAIL)
            case "modelsAdd":
                await self.workers.pass_check(self.real[examples.CHECK], "pbc8")
            case "policiesListed":
                body = {"rules": {"review_below": 0.7}, "reason": "A trial"}
                await self.http.put(f"/api/policies/dataset/{self.real[examples.DATASET]}", json=body)
            case "datasetsTransfer":
                await self.http.post(f"/api/datasets/{self.real[examples.DATASET]}/transfer", json={"user_id": self.real[examples.USER]})
            case "imagesUpload":
                await self.workers.accept(self.real[examples.IMAGE])
            case "classificationsRun":
                job, image = self.real[examples.JOB], self.real[examples.IMAGE]
                other = await self.another_image()
                await self.workers.plan(job, [image, other])
                await self.workers.judge(job, [image], [other], at=now())
                await self.workers.complete(job, succeeded=1, failed=1)

    async def another_session(self, address):
        known = {one.originator_id for one in self.sessions()}
        signed_in = await self.api.anonymous().post("/api/auth/login", json={"email": address, "password": examples.PASSWORD})
        assert signed_in.is_success
        (started,) = [one for one in self.sessions() if one.originator_id not in known]
        return str(started.originator_id)

    def sessions(self):
        log = self.api.services.log
        return [event for one in log.read(0, 10_000) if isinstance(event := log.decode(one), SessionStarted)]

    async def another_image(self):
        form = {"dataset_id": self.real[examples.DATASET]}
        sent = await self.http.post("/api/images/upload", data=form, files={"file": ("other.jpg", PICTURE, "image/jpeg")})
        await self.workers.accept(sent.json()["id"])
        return sent.json()["id"]

    async def another_job(self):
        """In place of the one that has ended."""
        answer = await self.http.post("/api/classifications/run", json={"dataset_id": self.real[examples.DATASET]})
        self.real[examples.JOB] = answer.json()["id"]


def validate(instance, schema):
    components = strict(openapi.document()["components"]["schemas"])
    whole = strict(schema) | {"components": {"schemas": components}}
    jsonschema.Draft202012Validator(whole, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(instance)


def bodies():
    """(where, example, schema) of each body that has a schema in JSON."""
    for _, _, operation in operations():
        requests = operation.get("requestBody", {"content": {}})["content"].items()
        answers = [(status, find(one["$ref"]) if "$ref" in one else one) for status, one in operation["responses"].items()]
        contents = [("request", content) for media_type, content in requests if media_type != "multipart/form-data"]
        contents += [(status, content) for status, answer in answers for content in answer.get("content", {}).values()]
        for where, content in contents:
            if content["schema"].get("format") != "binary":
                yield f"{operation['operationId']} {where}", content.get("example"), content["schema"]


def test_every_body_has_an_example_that_its_schema_allows():
    found = list(bodies())
    assert len(found) > 300
    for where, example, schema in found:
        assert example is not None, f"{where}: add an example of the schema to SCHEMAS in api/documents/examples.py"
        if where.split()[1].startswith("2"):
            validate(example, schema)
        else:
            jsonschema.Draft202012Validator(schema | {"components": openapi.document()["components"]}).validate(example)


async def test_every_request_succeeds_as_it_stands_and_is_answered_as_described(api):
    story = Story(api.with_services(predictor=MemoryPredictor()))
    await story.begin()
    ending = [one for one in operations() if one[1] == "delete" or one[2]["operationId"] in LAST]
    for path, method, operation in operations():
        if (path, method, operation) not in ending and operation["operationId"] not in ENDLESS:
            await story.tell(path, method, operation)
            if method == "get":
                waits = "min_position must be a whole number" in (await story.request(path, method, operation, min_position="x")).text
                declared = any(one["name"] == "min_position" for one in parameters_of(operation))
                assert waits == declared, operation["operationId"]
    await story.another_job()
    ending.sort(key=lambda one: one[2]["operationId"].startswith("sessionsEnd"))  # before accounts are deleted
    for path, method, operation in reversed(ending):
        await story.tell(path, method, operation)
