"""A version of a model as children get it: a reference to its file, and its manifest."""

from typing import Final

import msgspec

from domain.model import Version

DEFAULT_PROVIDER: Final = "CPUExecutionProvider"


class ModelReference(msgspec.Struct, frozen=True, kw_only=True):
    """`file` is the sha256 of the package or of the weights themselves, which the caller provides; `weights` is that of the weights.

    `record` is the manifest as JSON text. `provider` is the execution provider of onnxruntime that computes.
    """

    file: str
    weights: str
    record: str
    provider: str = DEFAULT_PROVIDER

    @property
    def is_packaged(self) -> bool:
        return self.file != self.weights


def reference_to(version: Version, *, provider: str = DEFAULT_PROVIDER) -> ModelReference:
    return ModelReference(file=version.file, weights=version.sha256, record=version.record, provider=provider)
