"""Child functions that crash, hang or lie on marked images."""

import os
import time

import msgspec

from infrastructure.images.validation import ImageLimits
from infrastructure.inference.children import child_functions
from infrastructure.inference.models.onnx_validation import ModelRefused
from infrastructure.inference.predictions import BatchPrediction, ImageRefusal, InspectedUpload

DEADLY, STUCK, BUGGY = b"deadly", b"stuck", b"buggy"
LYING = b"lying"


def classify(model: str, record: str, images: list[bytes], limits: ImageLimits) -> BatchPrediction:
    for data in images:
        _break_over(data)
    judged = child_functions.classify(model, record, images, limits)
    if any(data.endswith(LYING) for data in images):
        return msgspec.structs.replace(judged, answers=[])
    return judged


def refuse(model: str, record: str, images: list[bytes], limits: ImageLimits) -> BatchPrediction:
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
