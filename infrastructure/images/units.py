"""Conversion of lengths in image files to micrometres."""

import math
from typing import Final

MICROMETRES: Final = {
    "pm": 1e-6,
    "å": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "µm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "in": 25_400.0,
    "inch": 25_400.0,
    "m": 1e6,
}
"""Micrometres per unit, by lower-case name."""
SAME_SIGNS: Final = str.maketrans({"μ": "µ", "\u212b": "å"})
ESCAPED_MICRO: Final = "\\u00B5"
LONGEST: Final = 1e9


def length_in_um(number: str, unit: str) -> float | None:
    """A length in micrometres; None for an unknown unit, and for a number that is not positive and finite."""
    size = positive(number)
    factor = MICROMETRES.get(unit.strip().replace(ESCAPED_MICRO, "µ").translate(SAME_SIGNS).lower())
    return None if size is None or factor is None else positive(str(size * factor))


def positive(number: str) -> float | None:
    try:
        size = float(number)
    except ValueError:
        return None
    return size if math.isfinite(size) and 0 < size < LONGEST else None
