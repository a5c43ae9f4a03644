"""Whether an image fits a model version, as far as the request for a job can tell: from metadata, without decoding anything."""

from collections.abc import Sequence
from typing import Any

import msgspec

from application.ports import Mismatch
from domain.classification import PlaneSelection
from domain.image import Image
from domain.model import Version

FIRST_PLANE_ONLY = "takes the first plane of each image, so that none can be chosen. Leave planes out"


class _Bioscope(msgspec.Struct, frozen=True):
    preprocessing: Any = None


class _Config(msgspec.Struct, frozen=True):
    bioscope: _Bioscope = _Bioscope()


class _Record(msgspec.Struct, frozen=True):
    config: _Config = _Config()


def check_input(version: Version, image: Image | None, planes: PlaneSelection | None) -> Sequence[Mismatch]:
    """Implements `application.ports.InputCheck`. Models of the older form take a picture of every image, and no choice of planes.

    Nothing is certain of a version whose manifest this release cannot read. The worker refuses it.
    """
    if _is_of_older_form(version):
        return [_not_selectable()] if planes is not None and planes != PlaneSelection() else []
    from infrastructure.inference.packages.image_matching import mismatches_of  # noqa: PLC0415 - NumPy and Pillow need 17 MB

    return mismatches_of(version.record, image, planes or PlaneSelection())


def _is_of_older_form(version: Version) -> bool:
    if not version.package:
        return True
    try:
        return msgspec.json.decode(version.record, type=_Record).config.bioscope.preprocessing is not None
    except msgspec.DecodeError:
        return False


def _not_selectable() -> Mismatch:
    return Mismatch(
        field=("planes",), axis="planes", expected="no choice of planes", found="a choice", message=f"The model {FIRST_PLANE_ONLY}"
    )
