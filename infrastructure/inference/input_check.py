"""Whether an image fits a model version, as far as the request for a job can tell: from metadata, without decoding anything."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from application.ports import Mismatch
from domain.classification import PlaneSelection
from domain.image import Image
from domain.model import Version
from infrastructure.inference.plane_counts import COLOURS, absent_planes, plane_counts, wrong_picture

CHANNELS_OF_A_PICTURE: Final = {1, COLOURS}


class _Bioscope(msgspec.Struct, frozen=True):
    preprocessing: Any = None


class _Config(msgspec.Struct, frozen=True):
    bioscope: _Bioscope = _Bioscope()


class _Record(msgspec.Struct, frozen=True):
    config: _Config = _Config()


_RECORD: Final = msgspec.json.Decoder(_Record)


def check_input(version: Version, image: Image | None, planes: PlaneSelection | None) -> Sequence[Mismatch]:
    """Implements `application.ports.InputCheck`. Models of the older form take a picture of any image.

    Nothing is certain of a version whose manifest this release cannot read: the worker refuses it.
    """
    chosen = planes or PlaneSelection()
    inspection = image.inspection if image else None
    counts = plane_counts(image, inspection) if image and inspection else None
    if counts is not None and (absent := absent_planes(counts, chosen)):
        return absent
    if _is_of_older_form(version):
        return _no_picture(chosen)
    from infrastructure.inference.packages.image_matching import mismatches_of  # noqa: PLC0415 - NumPy and Pillow need 17 MB

    return mismatches_of(version.record, inspection, counts, chosen)


def _is_of_older_form(version: Version) -> bool:
    if not version.package:
        return True
    try:
        return _RECORD.decode(version.record).config.bioscope.preprocessing is not None
    except (msgspec.DecodeError, RecursionError):
        return False


def _no_picture(planes: PlaneSelection) -> Sequence[Mismatch]:
    if planes.c is None or len(planes.c) in CHANNELS_OF_A_PICTURE:
        return []
    found = str(len(planes.c))
    return [Mismatch(field=("planes", "c"), axis="channel", expected="1 or 3", found=found, message=wrong_picture(len(planes.c)))]
