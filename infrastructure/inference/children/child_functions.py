"""The functions that children run. Only here does the worker decode pixels and run networks."""

import codecs
import io
import time
from functools import cache
from hashlib import sha256
from typing import Final

import imagecodecs
import msgspec
import numpy as np
import PIL
from PIL import Image

from application.result_rules import DECIMALS
from domain.classification import PlaneSelection
from domain.errors import DomainError
from infrastructure.images.inspection import inspect
from infrastructure.images.reader_version import READER_VERSION
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.fork_server import borrow
from infrastructure.inference.children.loaded_models import LoadedModels
from infrastructure.inference.children.model_check import check_package
from infrastructure.inference.children.networks import RUNTIME, Network, NetworkOutOfMemory, available_providers
from infrastructure.inference.children.prediction import MODEL_TOO_LARGE, predict
from infrastructure.inference.image_planes import EVERYTHING
from infrastructure.inference.model_reference import DEFAULT_PROVIDER, ModelReference
from infrastructure.inference.models.refusals import ModelRefused
from infrastructure.inference.package_answers import CheckedPackage, RefusedPackage
from infrastructure.inference.packages.input_fitting import noise_image, preprocessed
from infrastructure.inference.predictions import BatchPrediction, ImageRefusal, InspectedUpload, ModelPrediction
from infrastructure.inference.preprocessing import DEFAULT_LIMITS

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

MODELS: Final = LoadedModels(borrow)


def classify(
    model: ModelReference, images: list[bytes], limits: ImageLimits = DEFAULT_LIMITS, planes: PlaneSelection = EVERYTHING
) -> BatchPrediction:
    """Classify encoded images. The caller provides the file of the model.

    The answer for an image that cannot be decoded, does not fit the model, or breaks it is an ImageRefusal. Raises ModelRefused,
    ProviderMissing.
    """
    started = time.perf_counter()
    with MODELS.network(model) as network:
        return BatchPrediction(
            answers=[_prediction(model, network, data, planes, limits) for data in images],
            preprocessing=network.manifest.preprocessing_digest,
            runtime=RUNTIME,
            provider=model.provider,
            decoder=_decoder(),
            seconds=round(time.perf_counter() - started, DECIMALS),
        )


def examine(data: bytes, limits: ImageLimits) -> InspectedUpload | ImageRefusal:
    """Decode an image completely; an ImageRefusal if that fails."""
    try:
        return msgspec.convert(inspect(data, limits=limits), InspectedUpload, from_attributes=True)
    except DomainError as refused:
        return ImageRefusal(refused.reason or refused.code, refused.detail)


def warm(model: ModelReference) -> None:
    """Load the model and run it once, so that the first real image is fast."""
    file = io.BytesIO()
    Image.new("RGB", (256, 256), "gray").save(file, "jpeg")
    with MODELS.network(model) as network:
        _prediction(model, network, file.getvalue(), EVERYTHING, DEFAULT_LIMITS)  # which decodes, but may not fit the model
        tensor = network.manifest.input
        assert tensor is not None
        network.run(preprocessed(noise_image(tensor), tensor), [network.manifest.scored_output])


def check_model(package: str, provider: str = DEFAULT_PROVIDER) -> CheckedPackage | RefusedPackage:
    """Check a package. `package` is the sha256 of its archive, whose bytes the caller provides.

    Raises ModelRefused for other bytes than `package` names, ProviderMissing.
    """
    MODELS.clear()
    archive = borrow(package)
    if sha256(archive).hexdigest() != package:
        raise ModelRefused("the package does not match its sha256")
    return check_package(archive, provider=provider)


def providers() -> list[str]:
    """The execution providers of this onnxruntime."""
    return available_providers()


def _prediction(
    model: ModelReference, network: Network, data: bytes, planes: PlaneSelection, limits: ImageLimits
) -> ModelPrediction | ImageRefusal:
    """A second time without the other models if memory is short."""
    for _ in range(2):
        try:
            return predict(network, data, planes, limits)
        except NetworkOutOfMemory:
            if not MODELS.drop_others(model):
                break
    return MODEL_TOO_LARGE


@cache
def _decoder() -> str:
    """The versions of the libraries that determine pixel values."""
    versions = f"imagecodecs {imagecodecs.__version__}, {imagecodecs.jpeg8_version()}, {imagecodecs.png_version()}"
    return f"reader {READER_VERSION}, {versions}, pillow {PIL.__version__}, numpy {np.__version__}"
