"""Child functions that crash, hang or lie on marked images."""

import os
import time

import msgspec

from domain.classification import PlaneSelection
from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children import child_functions
from infrastructure.inference.model_reference import ModelReference
from infrastructure.inference.models.refusals import ModelRefused
from infrastructure.inference.predictions import BatchPrediction, ImageRefusal, InspectedUpload

DEADLY, STUCK, BUGGY = b"deadly", b"stuck", b"buggy"
LYING = b"lying"


def classify(model: ModelReference, images: list[bytes], limits: ImageLimits, planes: PlaneSelection) -> BatchPrediction:
    for data in images:
        _break_over(data)
    judged = child_functions.classify(model, images, limits, planes)
    if any(data.endswith(LYING) for data in images):
        return msgspec.structs.replace(judged, answers=[])
    return judged


def refuse(model: ModelReference, images: list[bytes], limits: ImageLimits, planes: PlaneSelection) -> BatchPrediction:
    raise ModelRefused("it keeps weights in other files")


def examine(data: bytes, limits: ImageLimits) -> InspectedUpload | ImageRefusal:
    _break_over(data)
    return child_functions.examine(data, limits)


def _break_over(data: bytes) -> None:
    if data.endswith(DEADLY):
        os.abort()
    if data.endswith(STUCK):
        time.sleep(1000)
    if data.endswith(BUGGY):
        raise RuntimeError("a bug")
