"""The prediction for one image in a child: from the bytes of its file to label, scores and signals."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from application.result_rules import DECIMALS
from domain.classification import PlaneSelection
from domain.errors import DomainError
from domain.values import ImageWarning, printable
from infrastructure.images.reader import ImageReader, open_image
from infrastructure.images.rendering import Plane, render
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children.networks import Network, NetworkFailed, NetworkOutOfMemory
from infrastructure.inference.image_planes import select_picture, select_planes
from infrastructure.inference.packages.input_fitting import InputMismatch, fit, fit_picture, preprocessed
from infrastructure.inference.packages.operators import NamedArray, OperatorFailed
from infrastructure.inference.packages.package_manifest import InputTensor, PackageManifest
from infrastructure.inference.predictions import MAX_SENTENCE_LENGTH, ImageRefusal, ModelPrediction
from infrastructure.inference.preprocessing import prepare_plane
from infrastructure.inference.scoring import Interpretation, NotOfItsKind, interpret, measures, picture_measures

MAX_PICTURE_EDGE: Final = 1024
"""Pixels, of the picture that is measured."""
TOO_MUCH_MEMORY: Final = ImageRefusal("image_too_large", "Decoding the image needs more memory than the limit. Crop or shrink it")
MODEL_TOO_LARGE: Final = ImageRefusal("model_failed", "The model needs more memory than a worker may take. Crop or shrink the image")


class PreparedImage(NamedTuple):
    """`tensor` is what the network is fed with, and `fitted` the same before the preprocessing; None in the older form."""

    tensor: NDArray[Any]
    fitted: NamedArray | None
    measures: dict[str, float]
    warnings: tuple[ImageWarning, ...]


def predict(network: Network, data: bytes, planes: PlaneSelection, limits: ImageLimits) -> ModelPrediction | ImageRefusal:
    """Run the model on one image. A batch is no faster here, and an image's scores must not depend on other images.

    Raises NetworkOutOfMemory.
    """
    try:
        with open_image(data, limits=limits) as image:
            prepared = _prepared(image, network.manifest, planes, limits)
    except InputMismatch as mismatch:
        return ImageRefusal("input_mismatch", _sentence(str(mismatch)))
    except OperatorFailed as error:
        return ImageRefusal("input_mismatch", _sentence(f"The image does not fit the preprocessing of the model: {error}"))
    except DomainError as refused:
        return ImageRefusal(refused.reason or refused.code, refused.detail)
    except MemoryError:
        return TOO_MUCH_MEMORY
    try:
        return _prediction(_interpreted(network, prepared), prepared.warnings)
    except NetworkOutOfMemory:
        raise
    except (NetworkFailed, NotOfItsKind) as error:
        return ImageRefusal("model_failed", _sentence(f"The model failed on this image: {error}"))


def _prepared(image: ImageReader, manifest: PackageManifest, planes: PlaneSelection, limits: ImageLimits) -> PreparedImage:
    how = manifest.legacy_preprocessing
    if how is not None:
        picture = prepare_plane(select_picture(image, planes, use_profile=how.colour_profile == "srgb"), how)
        return PreparedImage(picture.tensor[None], None, measures(picture.tensor, how), picture.warnings)
    assert manifest.input is not None
    selected = select_planes(image, manifest.input, planes, limits=limits)
    fitted = fit(selected.values, manifest.input)
    tensor = preprocessed(fitted, manifest.input)
    return PreparedImage(tensor, fitted, _measures_of(selected.picture, manifest.input, fitted), selected.warnings)


def _measures_of(picture: Plane, tensor: InputTensor, fitted: NamedArray) -> dict[str, float]:
    """Of the picture as people see it, cropped and resized as for the network."""
    height, width = (fitted.values.shape[fitted.axes.index(axis)] for axis in ("y", "x"))
    rgb = np.ascontiguousarray(fit_picture(render(picture, use_profile=False).rgb, tensor, (height, width)))
    if max(height, width) > MAX_PICTURE_EDGE:
        scale = MAX_PICTURE_EDGE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
    return picture_measures(rgb.astype(np.float32) / np.float32(255))


def _interpreted(network: Network, prepared: PreparedImage) -> Interpretation:
    outputs = network.run(prepared.tensor, network.manifest.result_outputs, fitted=prepared.fitted)
    return interpret(outputs, network.manifest, picture=prepared.measures)


def _prediction(found: Interpretation, warnings: tuple[ImageWarning, ...]) -> ModelPrediction:
    return ModelPrediction(
        label=found.label,
        confidence=round(found.confidence, DECIMALS),
        out_of_domain=bool(found.reasons),
        scores=tuple(round(score, DECIMALS) for score in found.scores),
        signals={name: round(value, DECIMALS) for name, value in found.signals.items()},
        warnings=warnings,
        value=found.value,
    )


def _sentence(text: str) -> str:
    return printable(text)[:MAX_SENTENCE_LENGTH]
