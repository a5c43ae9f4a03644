"""The digest of a model version."""

from hashlib import sha256
from typing import Any

import msgspec

from infrastructure.inference.preprocessing import CODE_VERSION


def version_digest(weights: str, document: Any) -> str:
    """SHA-256 in hexadecimal of what determines the results of a version: the sha256 of its weights, its manifest as JSON values, and the
    code of the preprocessing."""
    determining = {"weights": weights, "manifest": document, "code": CODE_VERSION}
    return sha256(msgspec.json.encode(determining, order="sorted")).hexdigest()
