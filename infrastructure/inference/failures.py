"""Failures of images: the reason and the message for the user when an image cannot be processed."""

from collections.abc import Sequence
from typing import Final

from application.ports import BlobContent, BlobStore
from domain.access import Actor
from domain.errors import CorruptBlob, NotFound
from domain.values import system_actor
from infrastructure.inference.children.child_process import ChildFailed, ChildHung
from infrastructure.inference.predictions import ImageRefusal

ACTOR: Final = Actor(id=system_actor("inference"), kind="system")

IMAGE_MISSING: Final = ImageRefusal("image_missing", "The image's file is missing in the blob store. Upload it again")
IMAGE_CORRUPTED: Final = ImageRefusal("image_corrupted", "The image's file is damaged in the blob store and was not used. Upload it again")
DECODER_BROKE: Final = ImageRefusal("decoder_broke", "The decoder crashed on this image. Save or export it again")
DECODER_HUNG: Final = ImageRefusal("decoder_hung", "The image takes too long to decode. Save or export it again, or make it smaller")
CLASSIFIER_BROKE: Final = ImageRefusal(
    "decoder_broke",
    "The decoder or the model crashed on this image. Save or export the image again. If other images fail too, the model may be at fault:"
    " test it",
)
CLASSIFIER_HUNG: Final = ImageRefusal(
    "decoder_hung",
    "Decoding the image and running the model take too long. Save or export the image again, or make it smaller. If other images fail too,"
    " the model may be at fault: test it",
)


def read_images(blobs: BlobStore, names: Sequence[str]) -> list[bytes | ImageRefusal]:
    """The file of each image in order, or the failure. Blocks. Raises Unavailable."""
    return [_found(one) for one in blobs.read_all(names)]


def _found(one: BlobContent) -> bytes | ImageRefusal:
    match one:
        case NotFound():
            return IMAGE_MISSING
        case CorruptBlob():
            return IMAGE_CORRUPTED
        case _:
            return one


def refusal_for(error: Exception, *, otherwise: ImageRefusal, runs_model: bool = False) -> ImageRefusal:
    """The failure of the image whose call raised `error`; based on `otherwise` if the function itself raised.

    If the call `runs_model`, image or model may be at fault.
    """
    match error:
        case ChildHung():
            return CLASSIFIER_HUNG if runs_model else DECODER_HUNG
        case ChildFailed():
            return ImageRefusal(otherwise.reason, f"{otherwise.detail} ({error.kind})")
        case _:
            return CLASSIFIER_BROKE if runs_model else DECODER_BROKE
