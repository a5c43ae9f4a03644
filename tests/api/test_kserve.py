"""The Open Inference Protocol: what is sent in JSON or as raw tensors is answered in kind, within limits, and leaves no trace."""

import asyncio
import base64
import json
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.kserve.messages import InferenceRequest, InputTensor
from api.kserve.tensors import decode, images_of
from api.options import PredictionLimits
from api.problems import Malformed
from application.limits.prediction_limit import PredictionLimit
from application.ports import PredictionFailure
from domain.access import Role, Scope
from domain.classification import PlaneSelection, Projection
from domain.errors import Invalid
from domain.model import OutputKind
from tests.api.http_calls import PICTURE, stored
from tests.api.worker_events import LABELS, WorkerEvents
from tests.rigs import hostile_images
from tests.twins.predictor import MemoryPredictor

pytestmark = pytest.mark.anyio
INFER = "/api/v2/models/shapes/infer"
HEADER = "Inference-Header-Content-Length"


@pytest.fixture
def predictor():
    return MemoryPredictor()


@pytest.fixture
async def lab(api, predictor):
    """The API over a predictor in memory, with a model."""
    lab = api.with_services(predictor=predictor)
    await WorkerEvents(lab).model()
    return lab


@pytest.fixture
async def http(lab):
    return await lab.client(Role.ANALYST)


def text(image=PICTURE):
    return base64.b64encode(image).decode()


def body(*images, shape=None, outputs=None, tensor=None, **fields):
    given = {"name": "image", "datatype": "BYTES", "shape": shape or [len(images)], "data": list(map(text, images))}
    return {"inputs": [given | (tensor or {})], **({"outputs": outputs} if outputs is not None else {}), **fields}


def raw_body(*images, outputs=None, size=None, **fields):
    """The body with raw images, and its header."""
    raw = b"".join(struct.pack("<I", len(image)) + image for image in images)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images)], "parameters": {"binary_data_size": size or len(raw)}}
    header = json.dumps({"inputs": [tensor], **({"outputs": outputs} if outputs is not None else {}), **fields}).encode()
    return {"content": header + raw, "headers": {HEADER: str(len(header))}}


def outputs_in(answer):
    """The outputs of an answer in JSON, by name."""
    assert answer.status_code == 200, answer.text
    return {tensor["name"]: tensor for tensor in answer.json()["outputs"]}


def refused(answer, status):
    """The error of a refused request, in the form of the protocol."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    (error,) = answer.json().items()
    assert error[0] == "error"
    return error[1]


# ---- metadata and health -----------------------------------------------------------------------------------------------------------
async def test_the_server_and_the_model_describe_themselves(http):
    server = (await http.get("/api/v2")).json()
    assert (server["name"], server["extensions"]) == ("bioscope", ["binary_tensor_data"])
    for path in ("/api/v2/models/shapes", "/api/v2/models/shapes/versions/1", "/api/v2/models/shapes/versions/production"):
        model = (await http.get(path)).json()
        assert (model["name"], model["versions"], model["platform"]) == ("shapes", ["1"], "onnxruntime_onnx")
        assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        assert {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in model["outputs"]} == {
            "label": ("BYTES", [-1]),
            "confidence": ("FP32", [-1]),
            "verdict": ("BYTES", [-1]),
            "scores": ("FP32", [-1, len(LABELS)]),
            "warnings": ("BYTES", [-1]),
        }
        assert (await http.get(f"{path}/ready")).json() == {"name": "shapes", "ready": True}


async def test_health_needs_no_token_and_says_whether_there_are_processes(lab):
    everyone = lab.anonymous()
    assert (await everyone.get("/api/v2/health/live")).json() == {"live": True}
    assert (await everyone.get("/api/v2/health/ready")).json() == {"ready": True}
    without = lab.with_services(predictor=MemoryPredictor(is_enabled=False))
    answer = await without.anonymous().get("/api/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False})
    http = await without.client(Role.ANALYST)
    assert (await http.get("/api/v2/models/shapes/ready")).status_code == 503
    assert "BIOSCOPE_KSERVE_PROCESSES" in refused(await http.post(INFER, json=body(PICTURE)), 503)


async def test_a_regression_has_a_value(lab, http):
    await WorkerEvents(lab).model("size", labels=("area",), kind=OutputKind.REGRESSION)
    (value,) = [tensor for tensor in (await http.get("/api/v2/models/size")).json()["outputs"] if tensor["name"] == "value"]
    assert (value["datatype"], value["shape"]) == ("FP64", [-1])


# ---- predictions -------------------------------------------------------------------------------------------------------------------
async def test_images_in_json_are_answered_in_json(http, predictor):
    answer = await http.post(INFER, json=body(PICTURE, PICTURE, id="mine"))
    outputs = outputs_in(answer)
    assert {name: answer.json()[name] for name in ("model_name", "model_version", "id")} == {
        "model_name": "shapes",
        "model_version": "1",
        "id": "mine",
    }
    assert outputs["label"] == {"name": "label", "datatype": "BYTES", "shape": [2], "parameters": {}, "data": [LABELS[0]] * 2}
    assert outputs["verdict"]["data"] == ["clear"] * 2
    assert outputs["warnings"]["data"] == ["[]"] * 2
    assert outputs["scores"]["shape"] == [2, 2]
    assert outputs["scores"]["data"] == pytest.approx([0.9, 0.1, 0.9, 0.1])
    ((images, version, planes, threshold),) = predictor.calls
    assert (images, version.number, planes, threshold) == ([PICTURE, PICTURE], 1, PlaneSelection(), None)


@pytest.mark.parametrize("nested", [[[text()], [text()]], [text(), text()]])
async def test_a_column_of_images_is_a_list_of_images(http, predictor, nested):
    outputs_in(await http.post(INFER, json=body(PICTURE, PICTURE, shape=[2, 1], tensor={"data": nested})))
    assert predictor.calls[0][0] == [PICTURE, PICTURE]


async def test_raw_images_are_answered_in_json_unless_raw_outputs_are_requested(http, predictor):
    outputs = outputs_in(await http.post(INFER, **raw_body(PICTURE, b"\x89PNG" + hostile_images.png()[4:])))
    assert outputs["label"]["data"] == [LABELS[0]] * 2
    assert predictor.calls[0][0] == [PICTURE, hostile_images.png()]


async def test_raw_outputs_follow_the_json(http):
    for request in (
        raw_body(PICTURE, PICTURE, parameters={"binary_data_output": True}),
        {"json": body(PICTURE, PICTURE, parameters={"binary_data_output": True})},
    ):
        answer = await http.post(INFER, **request)
        assert answer.headers["content-type"] == "application/octet-stream"
        length = int(answer.headers[HEADER])
        outputs, raw = json.loads(answer.content[:length])["outputs"], answer.content[length:]
        parts = {}
        for tensor in outputs:
            assert "data" not in tensor
            size = tensor["parameters"]["binary_data_size"]
            parts[tensor["name"]], raw = raw[:size], raw[size:]
        assert raw == b""
        assert struct.unpack("<4f", parts["scores"]) == pytest.approx((0.9, 0.1, 0.9, 0.1))
        assert parts["label"] == (struct.pack("<I", len(LABELS[0])) + LABELS[0].encode()) * 2


async def test_only_the_requested_outputs_are_answered_each_in_its_form(http):
    outputs = [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "label"}]
    answer = await http.post(INFER, json=body(PICTURE, outputs=outputs))
    length = int(answer.headers[HEADER])
    scores, label = json.loads(answer.content[:length])["outputs"]
    assert (scores["name"], scores["parameters"]) == ("scores", {"binary_data_size": 8})
    assert label == {"name": "label", "datatype": "BYTES", "shape": [1], "parameters": {}, "data": [LABELS[0]]}
    assert len(answer.content) == length + 8


async def test_parameters_choose_planes_and_threshold(http, predictor):
    parameters = {"z": "max", "c": "2,0", "t": 1, "threshold": 0.95}
    outputs = outputs_in(await http.post(INFER, json=body(PICTURE, parameters=parameters | {"c": 1})))
    assert outputs["verdict"]["data"] == ["needs_review"]
    assert predictor.calls[0][2:] == (PlaneSelection(z=Projection.MAX, c=(1,), t=1), 0.95)
    refusal = refused(await http.post(INFER, json=body(PICTURE, parameters=parameters)), 422)
    assert "1 or 3" in refusal or "channels" in refusal


async def test_a_version_is_chosen_by_number_or_alias_and_by_those_who_may_run_it(lab, http):
    await WorkerEvents(lab).model("shapes", sha256="cd" * 32, alias="candidate")
    researcher = await lab.client(Role.RESEARCHER)
    for chosen, number in (("1", "1"), ("production", "1"), ("2", "2"), ("candidate", "2")):
        path = f"/api/v2/models/shapes/versions/{chosen}/infer"
        answer = await researcher.post(path, json=body(PICTURE))
        assert (answer.status_code, answer.json()["model_version"]) == (200, number)
        answer = await http.post(path, json=body(PICTURE))
        assert answer.status_code == (200 if number == "1" else 403)
    assert "candidate" in refused(await researcher.post("/api/v2/models/shapes/versions/9/infer", json=body(PICTURE)), 404)


async def test_who_may_predict(lab):
    viewer = await lab.client(Role.VIEWER)
    assert "analyst" in refused(await viewer.post(INFER, json=body(PICTURE)), 403)
    assert refused(await lab.anonymous().post(INFER, json=body(PICTURE)), 401)
    for scope, status in ((Scope.MODELS_RUN, 200), (Scope.IMAGES_READ, 403), (Scope.EVENTS_READ, 403)):
        assert (await service(lab, scope).post(INFER, json=body(PICTURE))).status_code == status


def service(lab, scope):
    tokens = lab.services.access_tokens
    token = tokens.issue_service(name="robot", scopes=frozenset({scope}), seconds=600, at=datetime.now(UTC))
    return lab.anonymous(Authorization=f"Bearer {token}")


async def test_a_service_that_may_predict_may_do_nothing_else(lab):
    """It runs what is in production, and reads nothing that is stored."""
    await WorkerEvents(lab).model("shapes", sha256="cd" * 32, alias="candidate")
    robot = service(lab, Scope.MODELS_RUN)
    refused(await robot.post("/api/v2/models/shapes/versions/candidate/infer", json=body(PICTURE)), 403)
    for path in ("/api/datasets", "/api/images", "/api/models", "/api/classifications", "/api/events", "/api/live", "/api/users/me"):
        assert (await robot.get(path)).status_code == 403


async def test_retired_and_external_models_are_refused_with_a_reason(lab, http):
    admin = await lab.client(Role.ADMIN)
    assert (await admin.post("/api/models/shapes/retire", json={"reason": "Old"})).is_success
    await WorkerEvents(lab).model("strangers", kind=OutputKind.EXTERNAL)
    for name, word in (("shapes", "retired"), ("strangers", "external")):
        for answer in (
            await http.get(f"/api/v2/models/{name}"),
            await http.get(f"/api/v2/models/{name}/ready"),
            await http.post(f"/api/v2/models/{name}/infer", json=body(PICTURE)),
        ):
            assert word in refused(answer, 409)
    assert "Model none not found" in refused(await http.post("/api/v2/models/none/infer", json=body(PICTURE)), 404)


async def test_an_external_version_beside_others_is_not_listed(lab, http):
    await WorkerEvents(lab).model("mixed", sha256="cd" * 32, kind=OutputKind.EXTERNAL)
    await WorkerEvents(lab).model("mixed", alias="production")
    assert (await http.get("/api/v2/models/mixed")).json()["versions"] == ["2"]
    assert "mixed@1 is external" in refused(await http.get("/api/v2/models/mixed/versions/1"), 409)


async def test_nothing_is_recorded(lab, lab_settings, http):
    before = lab.services.log.head(), stored(lab_settings)
    outputs_in(await http.post(INFER, json=body(PICTURE)))
    outputs_in(await http.post(INFER, **raw_body(PICTURE)))
    refused(await http.post(INFER, json=body(b"no image")), 415)
    assert (lab.services.log.head(), stored(lab_settings)) == before


# ---- refusals ----------------------------------------------------------------------------------------------------------------------
GOOD = body(PICTURE)
TENSOR = GOOD["inputs"][0]
WRONG = {
    "no input": (GOOD | {"inputs": []}, 422, "one input"),
    "two inputs": (GOOD | {"inputs": [TENSOR, TENSOR]}, 422, "one input"),
    "another name": (body(PICTURE, tensor={"name": "picture"}), 422, "'image'"),
    "another datatype": (body(PICTURE, tensor={"datatype": "UINT8"}), 422, "BYTES"),
    "another shape": (body(PICTURE, shape=[1, 3]), 422, "[images, 1]"),
    "no image": (body(PICTURE, shape=[0]), 422, "shape"),
    "a negative number": (body(PICTURE, shape=[-1]), 422, "shape"),
    "fewer images than stated": (body(PICTURE, shape=[2]), 422, "2 images"),
    "too many images": (body(*[PICTURE] * 17), 422, "at most 16"),
    "no base64": (body(PICTURE, tensor={"data": ["???"]}), 422, "base64"),
    "numbers": (body(PICTURE, tensor={"data": [1]}), 422, "inputs"),
    "no data": (body(PICTURE, tensor={"data": None}), 422, "data"),
    "data twice": (body(PICTURE, tensor={"parameters": {"binary_data_size": 3}}), 422, "one of them"),
    "an unknown field": (GOOD | {"batch": 1}, 422, "the field batch, which is not known"),
    "a sentence as a field": (GOOD | {"my secret": 1}, 422, "a field that is not known"),
    "a value of a wrong type": (GOOD | {"inputs": 1}, 422, "inputs must be a list"),
    "an input without a name": (GOOD | {"inputs": [{}]}, 422, "inputs[0].name is missing"),
    "an unknown parameter": (body(PICTURE, parameters={"y": 1}), 422, "'y'"),
    "an unknown parameter of the input": (body(PICTURE, tensor={"parameters": {"x": 1}}), 422, "content_type"),
    "a focal plane in words": (body(PICTURE, parameters={"z": "first"}), 422, "max or mean"),
    "a plane that is true": (body(PICTURE, parameters={"t": True}), 422, "t must"),
    "a negative plane": (body(PICTURE, parameters={"t": -1}), 422, "planes.t"),
    "channels in words": (body(PICTURE, parameters={"c": "red"}), 422, "commas"),
    "the same channel twice": (body(PICTURE, parameters={"c": "1,1"}), 422, "different"),
    "a threshold above one": (body(PICTURE, parameters={"threshold": 1.1}), 422, "from 0 to 1"),
    "a threshold in words": (body(PICTURE, parameters={"threshold": "0.5"}), 422, "from 0 to 1"),
    "a form in words": (body(PICTURE, parameters={"binary_data_output": "yes"}), 422, "true or false"),
    "an unknown output": (body(PICTURE, outputs=[{"name": "logits"}]), 422, "Outputs: label"),
    "an output twice": (body(PICTURE, outputs=[{"name": "label"}, {"name": "label"}]), 422, "twice"),
    "an output in another form": (body(PICTURE, outputs=[{"name": "label", "parameters": {"classification": 3}}]), 422, "binary_data"),
    "an empty file": (body(b""), 422, "Image 0"),
    "a text": (body(PICTURE, b"no image"), 415, "Image 1"),
    "half an image": (body(PICTURE, PICTURE[: len(PICTURE) // 2]), 422, "Image 1"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_wrong_is_refused_and_named(http, predictor, what):
    sent, status, word = WRONG[what]
    assert word in refused(await http.post(INFER, json=sent), status)
    assert predictor.calls == []


@pytest.mark.parametrize("sent", [b"{", b"\xff", b"", b"\x00"])
async def test_what_is_no_json_is_malformed(http, sent):
    refused(await http.post(INFER, content=sent), 400)


async def test_a_body_of_many_small_values_is_not_read(http):
    sent = b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"data":[' + b"[]," * 1_000_000 + b"[]]}]}"
    assert "too many values" in refused(await http.post(INFER, content=sent), 400)


@pytest.mark.parametrize("length", ["0", "-1", "x", "99999999", "1e3", "٣", "9" * 30])
async def test_a_wrong_length_of_the_json_is_malformed(http, length):
    request = raw_body(PICTURE)
    refused(await http.post(INFER, content=request["content"], headers={HEADER: length.encode()}), 400)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (raw_body(PICTURE, size=5), "binary_data_size"),
        ({**raw_body(PICTURE), "content": raw_body(PICTURE)["content"][:-1]}, "binary_data_size"),
    ],
)
async def test_raw_images_of_another_size_are_refused(http, given, word):
    assert word in refused(await http.post(INFER, **given), 422)


def test_a_raw_image_that_ends_too_early_is_refused():
    for raw in (b"\x01", b"\x05\x00\x00\x00abc", struct.pack("<I", 2**32 - 1) + b"x"):
        tensor = InputTensor(name="image", datatype="BYTES", shape=[1], parameters={"binary_data_size": len(raw)})
        with pytest.raises(Invalid, match="cut off"):
            images_of(InferenceRequest(inputs=[tensor]), raw, maximum=3)


@given(st.lists(st.binary(), min_size=1, max_size=5))
def test_raw_images_come_out_as_they_went_in(images):
    request = raw_body(*images)
    length = int(request["headers"][HEADER])
    decoded = decode(request["content"], length)
    assert images_of(decoded, request["content"][length:], maximum=5) == images


@given(st.binary(max_size=200), st.integers(0, 250))
def test_no_bytes_break_the_decoder(sent, length):
    for json_bytes in (None, length):
        try:
            found = images_of(decode(sent, json_bytes), sent[json_bytes or 0 :], maximum=3)
        except (Malformed, Invalid) as refused:
            found = refused.detail
        assert isinstance(found, list | str)


async def test_an_image_that_the_model_cannot_take_refuses_the_request(lab, http):
    class Mismatching(MemoryPredictor):
        def _answer(self, image, version, threshold):
            return PredictionFailure("input_mismatch", "The model takes 3 channels, and the image has 1")

    other = lab.with_services(predictor=Mismatching())
    client = other.anonymous(Authorization=http.headers["Authorization"])
    assert refused(await client.post(INFER, json=body(PICTURE)), 422).startswith("Image 0: The model takes 3 channels")
    broken = lab.with_services(predictor=MemoryPredictor(lacks=["ab" * 32]))
    client = broken.anonymous(Authorization=http.headers["Authorization"])
    assert "file is missing" in refused(await client.post(INFER, json=body(PICTURE)), 503)


# ---- limits ------------------------------------------------------------------------------------------------------------------------
class Waiting(MemoryPredictor):
    """Answers once it may."""

    def __init__(self):
        super().__init__()
        self.may_answer, self.waiting = asyncio.Event(), 0

    async def predict(self, images, version, *, planes, threshold):
        self.waiting += 1
        await self.may_answer.wait()
        return await super().predict(images, version, planes=planes, threshold=threshold)


async def test_few_requests_are_in_progress_and_further_ones_may_try_again(lab):
    limits = PredictionLimits(max_requests=3, max_requests_per_account=2)
    predictor = Waiting()
    busy = lab.with_options(predictions=limits).with_services(predictor=predictor)
    ada, bob = await busy.client(Role.ANALYST), await busy.client(Role.ANALYST)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one.post(INFER, json=body(PICTURE))) for one in (ada, ada, bob)]
        while predictor.waiting < 3:
            await asyncio.sleep(0.01)
        for client, status in ((ada, 429), (bob, 503)):
            answer = await client.post(INFER, json=body(PICTURE))
            assert "try again" in refused(answer, status)
            assert int(answer.headers["retry-after"]) >= 1
        predictor.may_answer.set()
    assert [task.result().status_code for task in running] == [200] * 3
    assert (await bob.post(INFER, json=body(PICTURE))).status_code == 200


async def in_pieces(body):
    """A body whose length the client does not announce."""
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


LARGE = json.dumps(body(PICTURE)).encode().ljust(100_000)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_large_requests_at_once_hold_no_more_bytes_together_than_they_may(lab, announced):
    limits = PredictionLimits(max_body_bytes=320_000, max_body_bytes_per_account=220_000)
    predictor = Waiting()
    busy = lab.with_options(predictions=limits).with_services(predictor=predictor)
    ada, bob = await busy.client(Role.ANALYST), await busy.client(Role.ANALYST)

    def send(client):
        return client.post(INFER, content=LARGE if announced else in_pieces(LARGE))

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(send(client)) for client in (ada, ada, ada, ada, bob)]
        while sum(task.done() for task in running) + predictor.waiting < len(running):
            await asyncio.sleep(0.01)
        assert predictor.waiting == 3
        answer = await send(bob)
        assert "try again" in refused(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        small = group.create_task(bob.post(INFER, json=body(PICTURE)))
        while predictor.waiting < 4:
            await asyncio.sleep(0.01)
        predictor.may_answer.set()
    assert sorted(task.result().status_code for task in running) == [200, 200, 200, 429, 429]
    assert small.result().status_code == 200
    assert "220,000 bytes together" in next(task.result().text for task in running if task.result().status_code == 429)
    assert [(await send(client)).status_code for client in (ada, bob)] == [200, 200]


async def test_a_request_that_is_larger_than_all_may_be_is_served_alone(lab):
    alone = lab.with_options(predictions=PredictionLimits(max_body_bytes=10, max_body_bytes_per_account=10))
    client = await alone.client(Role.ANALYST)
    assert (await client.post(INFER, json=body(PICTURE))).status_code == 200


async def test_too_many_requests_within_a_minute_are_refused(lab, http):
    limit = PredictionLimit(limits=lab.services.prediction_limit.limits, per_minute=2)
    limited = lab.with_services(prediction_limit=limit)
    client = limited.anonymous(Authorization=http.headers["Authorization"])
    assert [(await client.post(INFER, json=body(PICTURE))).status_code for _ in range(2)] == [200, 200]
    answer = await client.post(INFER, json=body(PICTURE))
    assert "2 requests for predictions within a minute" in refused(answer, 429)
    assert 0 < int(answer.headers["retry-after"]) <= 60


async def test_large_bodies_and_large_images_are_refused(lab):
    small = lab.with_options(upload_max_bytes=1000)
    client = await small.client(Role.ANALYST)
    assert "1,000 bytes" in refused(await client.post(INFER, json=body(PICTURE[:3] + bytes(2000))), 413)
    refused(await client.post(INFER, json=body(bytes(2 * 1024**2))), 413)


async def test_a_body_that_does_not_arrive_in_time_is_refused(lab):
    slow = lab.with_options(predictions=PredictionLimits(body_seconds=0.2))
    client = await slow.client(Role.ANALYST)

    async def pieces():
        yield b"{"
        await asyncio.sleep(5)
        yield b"}"

    refused(await client.post(INFER, content=pieces()), 408)


async def test_every_error_below_the_protocol_has_its_form_and_no_other(lab, http):
    assert refused(await http.get("/api/v2/nowhere"), 404)
    assert refused(await http.delete("/api/v2"), 405)
    assert refused(await http.post(INFER, content=b"{}", headers={"Content-Encoding": "gzip"}), 415)
    assert refused(await http.get("/api/v2", headers={"Host": "evil.example"}), 421)
    for path in ("/api/v22", "/api/models/none"):
        assert (await http.get(path)).headers["content-type"] == "application/problem+json"
