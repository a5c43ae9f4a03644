"""Every text, number and date of every operation, found in the OpenAPI document: hostile values are refused, and nothing is echoed."""

import json
from urllib.parse import quote

import pytest

from api.documents import openapi
from tests.api.declared import find, operations, parameters_of
from tests.api.test_examples import ENDLESS, LAST, Story
from tests.rigs import hostile_values
from tests.rigs.hostile_values import MARK, Field
from tests.twins.predictor import MemoryPredictor

pytestmark = pytest.mark.anyio

CREDENTIALS = {"sessionsLogin", "sessionsRefresh"}
JSON = {"Content-Type": "application/json"}


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


class HostileStory(Story):
    """Before an example is sent, everything in it is replaced by hostile values, one at a time."""

    def __init__(self, api):
        super().__init__(api)
        self.sent, self.wrong = 0, []

    async def tell(self, path, method, operation):
        if operation["operationId"] not in ENDLESS:
            for where, request in self.hostile(path, method, operation):
                await self.attack(operation, where, request)
        try:
            await super().tell(path, method, operation)
        except AssertionError as error:
            self.wrong.append((operation["operationId"], "", "", "the example failed", str(error)[:300]))

    def hostile(self, path, method, operation):
        url = self.path(path, operation)
        body = self.body(operation)
        for parameter in parameters_of(operation):
            field = Field((parameter["name"],), resolved(parameter["schema"]))
            for kind, value in field.values().items():
                if kind == "1 MB":
                    continue
                text = quote(str(value).encode(errors="surrogatepass"))
                where = (parameter["in"], field, kind, value)
                if parameter["in"] == "query":
                    yield where, {"method": method, "url": f"{url}?{quote(parameter['name'])}={text}", **body}
                elif parameter["in"] == "path":
                    real = {one["name"]: self.replaced(one["example"]) for one in parameters_of(operation) if one["in"] == "path"}
                    yield where, {"method": method, "url": path.format(**real | {parameter["name"]: text}), **body}
        content = operation.get("requestBody", {"content": {}})["content"].get("application/json")
        if content is not None:
            example = self.replaced(content["example"])
            for field in hostile_values.fields(resolved(content["schema"]), example):
                for kind, value in field.values().items():
                    text = json.dumps(hostile_values.replaced(example, field.path, value))
                    yield ("body", field, kind, value), {"method": method, "url": url, "content": text, "headers": JSON}

    async def attack(self, operation, where, request):
        place, field, kind, value = where
        answer = await self.http.request(**request)
        self.sent += 1
        name = operation["operationId"]
        if answer.status_code >= 500:
            self.wrong.append((name, place, field.path, kind, answer.status_code, answer.text[:300]))
        elif answer.is_success:
            self.wrong.append((name, place, field.path, kind, "accepted", answer.status_code))
        elif MARK in answer.text or MARK in str(answer.headers):
            self.wrong.append((name, place, field.path, kind, "echoed", answer.text[:300]))
        elif field.name not in answer.text and answer.status_code not in {413, 414} | ({401, 404} if place == "path" or name in CREDENTIALS else set()):
            self.wrong.append((name, place, field.path, kind, "not named", answer.status_code, answer.text[:300]))


async def test_every_hostile_value_is_refused_by_name(api):
    story = HostileStory(api.with_services(predictor=MemoryPredictor()))
    await story.begin()
    ending = [one for one in operations() if one[1] == "delete" or one[2]["operationId"] in LAST]
    try:
        for path, method, operation in operations():
            if (path, method, operation) not in ending and operation["operationId"] not in ENDLESS:
                await story.tell(path, method, operation)
        await story.another_job()
        ending.sort(key=lambda one: one[2]["operationId"].startswith("sessionsEnd"))
        for path, method, operation in reversed(ending):
            await story.tell(path, method, operation)
    finally:
        print(story.sent)
        with open("/tmp/fuzz/wrong.json", "w") as f:
            json.dump(story.wrong, f, default=str, indent=0)
