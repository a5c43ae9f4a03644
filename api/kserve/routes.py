"""Routes of the Open Inference Protocol (KServe v2): predictions for images that the client sends. Nothing is recorded."""

import asyncio
import io
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version as installed
from typing import Any, Final

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from api.kserve.messages import (
    BYTES,
    INPUT,
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
    choices_of,
    outputs_of,
)
from api.kserve.slots import PredictionSlot, PredictionSlots
from api.kserve.tensors import EncodedResponse, decode, encode, images_of, selected_outputs
from api.middleware.authentication import OPEN, for_services
from api.middleware.body_limits import declared_length, read_body
from api.problems import Malformed, TooSlow
from api.request import RequestContext
from application import predictions
from application.ports import Prediction, PredictionFailure
from application.services import Services
from domain.access import Scope
from domain.errors import DamagedImage, ImageTooLarge, InputMismatch, Invalid, Unavailable, UnsupportedImage
from domain.model import PRODUCTION

SERVER_NAME: Final = "bioscope"
PLATFORM: Final = "onnxruntime_onnx"
HEADER: Final = "Inference-Header-Content-Length"
MAX_HEADER_DIGITS: Final = 9
MAX_BYTES_BESIDE_IMAGES: Final = 1024**2  # of a request
NOT_ENABLED: Final = "This installation answers no predictions (BIOSCOPE_KSERVE_PROCESSES is 0). Upload the images and start a job instead"
MODEL: Final = "/models/{name:str}"
VERSION: Final = f"{MODEL}/versions/{{version:str}}"


class Inference(Controller):
    path = "/api/v2"
    tags = ("inference",)
    opt = for_services(Scope.MODELS_RUN)

    @get("/", operation_id="inferenceServer", summary="Describe the inference server")
    async def describe_server(self, context: NamedDependency[RequestContext]) -> ServerMetadata:  # noqa: ARG002 - it requires an authenticated actor
        """Name, version, and the extensions of the protocol that the server has."""
        return ServerMetadata(name=SERVER_NAME, version=installed("bioscope"), extensions=["binary_tensor_data"])

    @get("/health/live", opt=OPEN, operation_id="inferenceLive", summary="Check the inference server")
    async def live(self) -> ServerLive:
        """Answer if the process runs. Nothing else is checked."""
        return ServerLive(live=True)

    @get("/health/ready", opt=OPEN, operation_id="inferenceReady", summary="Check whether predictions are answered")
    async def ready(self, context: NamedDependency[RequestContext]) -> Response[ServerReady]:
        """503 if this installation has no processes for predictions. They start with the first prediction."""
        is_ready = context.services.predictor.is_enabled
        return Response(ServerReady(ready=is_ready), status_code=200 if is_ready else 503)

    @get([MODEL, VERSION], summary="Describe the tensors of a model")
    async def model(
        self, context: NamedDependency[RequestContext], name: FromPath[str], version: FromPath[str] = PRODUCTION
    ) -> ModelMetadata:
        """The input and the outputs of a version, by default the one in production. `version` is a number or an alias.

        Models that are retired, or for which another program answers, are refused (409).
        """
        found, chosen = await context.read_log(predictions.usable_version, name, version)
        return ModelMetadata(
            name=found.name,
            versions=[str(one.number) for one in found.versions if not one.is_external],
            platform=PLATFORM,
            inputs=[TensorMetadata(name=INPUT, datatype=BYTES, shape=[-1])],
            outputs=list(outputs_of(chosen).values()),
        )

    @get([f"{MODEL}/ready", f"{VERSION}/ready"], summary="Check a model")
    async def model_ready(
        self, context: NamedDependency[RequestContext], name: FromPath[str], version: FromPath[str] = PRODUCTION
    ) -> Response[ModelReady]:
        """503 if this installation has no processes for predictions."""
        found, _ = await context.read_log(predictions.usable_version, name, version)
        is_ready = context.services.predictor.is_enabled
        return Response(ModelReady(name=found.name, ready=is_ready), status_code=200 if is_ready else 503)

    @post(
        [f"{MODEL}/infer", f"{VERSION}/infer"],
        status_code=200,
        opt={"body": "stream"},
        summary="Predict images",
    )
    async def infer(
        self,
        context: NamedDependency[RequestContext],
        prediction_slots: NamedDependency[PredictionSlots],
        name: FromPath[str],
        version: FromPath[str] = PRODUCTION,
    ) -> Response[InferenceResponse]:
        """Run a version of a model over images in the request, as a job would, and answer at once. Nothing is stored or recorded.

        The input `image` has the datatype BYTES and the shape [images] or [images, 1]. Each element is the file of an image: in JSON as
        base64, or with the binary data extension as raw bytes. If one image is refused, the whole request is.

        Needs the role analyst, and for a version that is not in production the role researcher.
        """
        predictions.may_predict(context.actor)
        if not context.services.predictor.is_enabled:
            raise Unavailable(NOT_ENABLED)
        with prediction_slots.held(context.actor.id) as slot:
            await asyncio.to_thread(context.services.prediction_limit.count, context.actor.id)
            request, images = await _received(context, prediction_slots, slot)
            return _response(await _answer(context, prediction_slots, name, version, request, images))


async def _received(context: RequestContext, slots: PredictionSlots, slot: PredictionSlot) -> tuple[InferenceRequest, list[bytes]]:
    """The request, and the files of its images. Raises BodyTooLarge, TooSlow, TooMany, Unavailable, Malformed, Invalid."""
    maximum = context.options.upload_max_bytes * 4 // 3 + MAX_BYTES_BESIDE_IMAGES  # of one image as base64
    reserve = partial(slots.reserve, slot)
    reserve(min(maximum, declared_length(context.request.scope)))
    try:
        async with asyncio.timeout(slots.limits.body_seconds):
            body = await read_body(context.request.receive, maximum=maximum, reserve=reserve)
    except TimeoutError:
        raise TooSlow(f"The body did not arrive within {slots.limits.body_seconds:g} seconds; send fewer images") from None
    return await asyncio.to_thread(_decoded, body, _json_bytes(context), slots.limits.max_images)


def _decoded(body: bytes, json_bytes: int | None, maximum: int) -> tuple[InferenceRequest, list[bytes]]:
    request = decode(body, json_bytes)
    return request, images_of(request, b"" if json_bytes is None else body[json_bytes:], maximum=maximum)


def _json_bytes(context: RequestContext) -> int | None:
    """The length of the JSON, if the client sends raw tensors after it. Raises Malformed."""
    text = context.request.headers.get(HEADER)
    if text is None:
        return None
    if not (text.isdecimal() and text.isascii() and len(text) <= MAX_HEADER_DIGITS):
        raise Malformed(f"{HEADER} must be a number of bytes")
    return int(text)


async def _answer(
    context: RequestContext, slots: PredictionSlots, name: str, wanted: str, request: InferenceRequest, images: list[bytes]
) -> EncodedResponse:
    services, choices = context.services, choices_of(request.parameters)
    version = await context.read_log(
        predictions.version_to_run, name, wanted, choices.planes, actor=context.actor, input_check=services.input_check
    )
    outputs, binary = selected_outputs(request.outputs, outputs_of(version), is_binary=choices.is_binary)
    await asyncio.to_thread(_check, images, services, context.options.upload_max_bytes)
    with slots.idle:
        answers = await services.predictor.predict(images, version, planes=choices.planes, threshold=choices.threshold)
    about: dict[str, Any] = {} if request.id is None else {"id": request.id}
    response = InferenceResponse(model_name=name, model_version=str(version.number), outputs=[], **about)
    return encode(response, _predicted(answers), outputs, binary)


def _check(images: Sequence[bytes], services: Services, max_bytes: int) -> None:
    """Validate each image as an upload. Raises UnsupportedImage, DamagedImage, ImageTooLarge."""
    for number, image in enumerate(images):
        if len(image) > max_bytes:
            raise ImageTooLarge(f"Image {number}: the file is larger than the maximum of {max_bytes:,} bytes")
        validator = services.upload_validator()
        try:
            validator.feed(image)
            validator.finish(io.BytesIO(image))
        except (UnsupportedImage, DamagedImage, ImageTooLarge) as error:
            raise type(error)(f"Image {number}: {error.detail}", reason=error.reason) from None


def _predicted(answers: Sequence[Prediction | PredictionFailure]) -> list[Prediction]:
    """Raises Unavailable, InputMismatch, Invalid for the first failure."""
    for number, answer in enumerate(answers):
        if isinstance(answer, PredictionFailure):
            if answer.is_ours:
                raise Unavailable(answer.detail)
            kind = InputMismatch if answer.reason == InputMismatch.code else Invalid
            raise kind(f"Image {number}: {answer.detail}")
    return [answer for answer in answers if isinstance(answer, Prediction)]


def _response(encoded: EncodedResponse) -> Response[Any]:
    if encoded.json_bytes is None:
        return Response(encoded.body, media_type="application/json")
    return Response(encoded.body, media_type="application/octet-stream", headers={HEADER: str(encoded.json_bytes)})
