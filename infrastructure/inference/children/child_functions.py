"""The functions that children run. Only here does the worker decode pixels and run networks."""

import codecs
import io
import time
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any, Final

import imagecodecs
import msgspec
import numpy as np
import onnxruntime
import PIL
from numpy.typing import NDArray
from PIL import Image

from domain.errors import DomainError
from infrastructure.images.inspection import inspect
from infrastructure.images.reader import READER_VERSION
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.fork_server import borrow
from infrastructure.inference.children.model_check import check_model
from infrastructure.inference.models.manifest import ModelManifest, manifest_from_json
from infrastructure.inference.models.onnx_validation import ModelRefused, validate_model
from infrastructure.inference.packages.manifest_reader import parse_record
from infrastructure.inference.packages.package_manifest import PackageManifest
from infrastructure.inference.predictions import BatchPrediction, ImageRefusal, InspectedUpload, ModelPrediction
from infrastructure.inference.preprocessing import DEFAULT_LIMITS, digest, prepare_with_warnings
from infrastructure.inference.scoring import interpret, measures

__all__ = ["check_model", "classify", "examine", "self_test", "warm"]

Image.init()
LOADED_BEFORE_THE_FORK: Final = (
    imagecodecs.bitorder_decode,
    imagecodecs.jpeg8_decode,
    imagecodecs.lzw_decode,
    imagecodecs.packbits_decode,
    imagecodecs.packints_decode,
    imagecodecs.png_decode,
    imagecodecs.zstd_decode,
    np.ma,
    np.random,
    *map(codecs.lookup, ("cp437", "latin-1", "utf-8-sig", "utf-16-be", "utf-16-le")),
)
"""Modules that imagecodecs, NumPy and Python load at first use. They are loaded early, since the sandbox forbids opening files."""

PROVIDER: Final = "CPUExecutionProvider"
MAX_MODELS: Final = 4  # loaded at once in one child
DECIMALS: Final = 6
TOO_MUCH_MEMORY: Final = ImageRefusal("image_too_large", "Decoding the image needs more memory than the limit. Crop or shrink it")
NO_NUMBERS: Final = ImageRefusal("model_failed", "The model returned no valid numbers for this image")


def classify(model: str, record: str, images: list[bytes], limits: ImageLimits = DEFAULT_LIMITS) -> BatchPrediction:
    """Classify encoded images. `model` is the sha256 of the weights, which the caller provides; `record` is the manifest as JSON text.

    The answer for an image that cannot be decoded is an ImageRefusal.
    """
    started = time.perf_counter()
    known = _record(record)
    network = _network(model)
    return BatchPrediction(
        answers=[_prediction(network, data, known, _manifest(record), limits) for data in images],
        preprocessing=digest(known.preprocessing),
        runtime=f"onnxruntime {onnxruntime.__version__}",
        provider=PROVIDER,
        decoder=_decoder(),
        seconds=round(time.perf_counter() - started, DECIMALS),
    )


def examine(data: bytes, limits: ImageLimits) -> InspectedUpload | ImageRefusal:
    """Decode an image completely; an ImageRefusal if that fails."""
    try:
        return msgspec.convert(inspect(data, limits=limits), InspectedUpload, from_attributes=True)
    except DomainError as refused:
        return _failure(refused)


def warm(model: str, record: str) -> None:
    """Load the model and run it once on an empty picture, so that the first real image is fast."""
    file = io.BytesIO()
    Image.new("RGB", (256, 256), "gray").save(file, "jpeg")
    known = _record(record)
    _prediction(_network(model), file.getvalue(), known, _manifest(record), DEFAULT_LIMITS)


def self_test(model: str, record: str, test_input: bytes, test_output: bytes) -> float:
    """Run the model on its test tensors (.npy files); return the maximum difference from the expected output. Raises ModelRefused."""
    known = _record(record)
    for what, data, recorded in (("input", test_input, known.test_input), ("output", test_output, known.test_output)):
        if sha256(data).hexdigest() != recorded.sha256:
            raise ModelRefused(f"the test {what} does not match its sha256 in the manifest")
    tensor, expected = (np.load(io.BytesIO(data), allow_pickle=False) for data in (test_input, test_output))
    got = _run(_network(model), tensor, known)[0]
    if got.shape != expected.shape or got.shape[-1] != len(known.labels):
        raise ModelRefused(f"its output has shape {got.shape} instead of {expected.shape}, for {len(known.labels)} labels")
    difference = float(np.abs(got - expected).max())
    if not difference <= known.tolerance:
        raise ModelRefused(f"its test output differs by {difference:.2g} from the expected one; the tolerance is {known.tolerance:.2g}")
    return difference


def _prediction(
    network: Any, data: bytes, record: ModelManifest, manifest: PackageManifest, limits: ImageLimits
) -> ModelPrediction | ImageRefusal:
    """Run the model on one image. A batch is no faster here, and an image's scores must not depend on other images."""
    try:
        tensor, warnings = prepare_with_warnings(data, record.preprocessing, limits=limits)
    except DomainError as refused:
        return _failure(refused)
    except MemoryError:
        return TOO_MUCH_MEMORY
    outputs = _run(network, tensor[None], record)
    if not all(np.isfinite(output).all() for output in outputs):
        return NO_NUMBERS
    interpretation = interpret(
        outputs[0][0],
        manifest,
        picture=measures(tensor, record.preprocessing),
        distance=float(outputs[1].reshape(-1)[0]) if len(outputs) > 1 else None,
    )
    return ModelPrediction(
        label=interpretation.label,
        confidence=round(interpretation.confidence, DECIMALS),
        out_of_domain=bool(interpretation.reasons),
        scores=tuple(round(score, DECIMALS) for score in interpretation.scores),
        signals={name: round(value, DECIMALS) for name, value in interpretation.signals.items()},
        warnings=warnings,
    )


def _failure(refused: DomainError) -> ImageRefusal:
    return ImageRefusal(refused.reason or refused.code, refused.detail)


def _run(network: Any, batch: NDArray[Any], record: ModelManifest) -> list[NDArray[Any]]:
    outputs: list[NDArray[Any]] = network.run(list(record.output_names), {record.input_name: batch})
    return outputs


@lru_cache(MAX_MODELS)
def _network(model: str) -> Any:
    data = bytes(borrow(model))
    if sha256(data).hexdigest() != model:
        raise ModelRefused("the weights do not match the sha256 of the version")
    validate_model(data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one process per core
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(data, options, providers=[PROVIDER])


@lru_cache(MAX_MODELS)
def _record(text: str) -> ModelManifest:
    return manifest_from_json(text)


@lru_cache(MAX_MODELS)
def _manifest(text: str) -> PackageManifest:
    return parse_record(text)


@cache
def _decoder() -> str:
    """The versions of the libraries that determine pixel values."""
    versions = f"imagecodecs {imagecodecs.__version__}, {imagecodecs.jpeg8_version()}, {imagecodecs.png_version()}"
    return f"reader {READER_VERSION}, {versions}, pillow {PIL.__version__}, numpy {np.__version__}"
