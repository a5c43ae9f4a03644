"""What the pool's children do with images and models: the only place of the worker where pixels are decoded and networks run."""

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
from infrastructure.inference.models.manifest import ModelManifest, manifest_from_json
from infrastructure.inference.models.onnx_validation import ModelRefused, validate_model
from infrastructure.inference.predictions import BatchPrediction, ImageRefusal, InspectedUpload, ModelPrediction
from infrastructure.inference.preprocessing import DEFAULT_LIMITS, digest, prepare_with_warnings
from infrastructure.inference.scoring import interpret

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
    *map(codecs.lookup, ("latin-1", "utf-16-be", "utf-16-le")),
)
"""imagecodecs, NumPy, Pillow and Python load these when they are first named; in the sandbox no file can be opened."""

PROVIDER: Final = "CPUExecutionProvider"
MAX_MODELS: Final = 4  # loaded at once in one child
DECIMALS: Final = 6
TOO_MUCH_MEMORY: Final = ImageRefusal("image_too_large", "Decoding the image takes more memory than one image may have. Crop or shrink it")
NO_NUMBERS: Final = ImageRefusal("model_failed", "The model gave no number for this image")


def classify(model: str, record: str, images: list[bytes], limits: ImageLimits = DEFAULT_LIMITS) -> BatchPrediction:
    """Look at encoded images with the model whose weights have the sha256 `model` (lent by the caller) and whose record is `record`.

    An image that cannot be decoded has an Unseen among the answers.
    """
    started = time.perf_counter()
    known = _record(record)
    network = _network(model)
    return BatchPrediction(
        answers=[_prediction(network, data, known, limits) for data in images],
        preprocessing=digest(known.preprocessing),
        runtime=f"onnxruntime {onnxruntime.__version__}",
        provider=PROVIDER,
        decoder=_decoder(),
        seconds=round(time.perf_counter() - started, DECIMALS),
    )


def examine(data: bytes, limits: ImageLimits) -> InspectedUpload | ImageRefusal:
    """Decode all of an image; Unseen when that cannot be done."""
    try:
        return msgspec.convert(inspect(data, limits=limits), InspectedUpload, from_attributes=True)
    except DomainError as refused:
        return _failure(refused)


def warm(model: str, record: str) -> None:
    """Load the model and go once through all that an image goes through, so that the first real one finds it done."""
    file = io.BytesIO()
    Image.new("RGB", (256, 256), "gray").save(file, "jpeg")
    known = _record(record)
    _prediction(_network(model), file.getvalue(), known, DEFAULT_LIMITS)


def self_test(model: str, record: str, test_input: bytes, test_output: bytes) -> float:
    """Run the model over its own test tensor; the largest difference from what its record promises. Raises ModelRefused."""
    known = _record(record)
    for what, data, promised in (("input", test_input, known.test_input), ("output", test_output, known.test_output)):
        if sha256(data).hexdigest() != promised.sha256:
            raise ModelRefused(f"the test {what} is not the file that the record names")
    tensor, expected = (np.load(io.BytesIO(data), allow_pickle=False) for data in (test_input, test_output))
    got = _run(_network(model), tensor, known)[0]
    if got.shape != expected.shape or got.shape[-1] != len(known.labels):
        raise ModelRefused(f"it gives {got.shape} where {expected.shape} is promised, for {len(known.labels)} labels")
    difference = float(np.abs(got - expected).max())
    if not difference <= known.tolerance:
        raise ModelRefused(f"its test output differs by {difference:.2g} from the promised one; {known.tolerance:.2g} is tolerated")
    return difference


def _prediction(network: Any, data: bytes, record: ModelManifest, limits: ImageLimits) -> ModelPrediction | ImageRefusal:
    """One image at a time: a batch is no faster here, and an image's scores must not depend on its neighbours."""
    try:
        tensor, warnings = prepare_with_warnings(data, record.preprocessing, limits=limits)
    except DomainError as refused:
        return _failure(refused)
    except MemoryError:
        return TOO_MUCH_MEMORY
    outputs = _run(network, tensor[None], record)
    if not all(np.isfinite(output).all() for output in outputs):
        return NO_NUMBERS
    interpretation = interpret(tensor, [output[0] for output in outputs], record)
    return ModelPrediction(
        label=interpretation.label,
        confidence=round(interpretation.confidence, DECIMALS),
        out_of_domain=interpretation.status == "out_of_domain",
        scores=tuple(round(score, DECIMALS) for score in interpretation.probabilities),
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
    data = borrow(model)
    if sha256(data).hexdigest() != model:
        raise ModelRefused("the weights are not those that the version names")
    validate_model(data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one process a core
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(data, options, providers=[PROVIDER])


@lru_cache(MAX_MODELS)
def _record(text: str) -> ModelManifest:
    return manifest_from_json(text)


@cache
def _decoder() -> str:
    """What decides a pixel's value: the libraries that decode."""
    versions = f"imagecodecs {imagecodecs.__version__}, {imagecodecs.jpeg8_version()}, {imagecodecs.png_version()}"
    return f"reader {READER_VERSION}, {versions}, pillow {PIL.__version__}, numpy {np.__version__}"
