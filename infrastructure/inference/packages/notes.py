"""What is worth a second look in a package that is in order."""

from typing import Final

from infrastructure.inference.packages.operators import (
    Binarize,
    FixedZeroMeanUnitVariance,
    ScaleLinear,
    ScaleRange,
    ZeroMeanUnitVariance,
)
from infrastructure.inference.packages.package_manifest import PackageManifest

SCALING: Final = (Binarize, FixedZeroMeanUnitVariance, ScaleLinear, ScaleRange, ZeroMeanUnitVariance)
NOT_SCALED: Final = (
    "The network gets numbers as images store them, such as 0 to 255: neither `input.values` nor the preprocessing scales them."
    " If it was trained on other numbers, its results are wrong"
)


def notes_on(manifest: PackageManifest) -> tuple[str, ...]:
    """As sentences."""
    return (NOT_SCALED,) if _gets_stored_numbers(manifest) else ()


def _gets_stored_numbers(manifest: PackageManifest) -> bool:
    """Of a network that takes fractions, which is mostly trained on numbers of 0 to 1."""
    tensor = manifest.input
    if tensor is None or manifest.legacy_preprocessing is not None or not tensor.dtype.startswith("float"):
        return False
    return tensor.rules.values == "stored" and not any(isinstance(step, SCALING) for step in tensor.preprocessing)
