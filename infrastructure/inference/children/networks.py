"""Networks of models in a child: loaded from bytes that were validated, and run on one image at a time."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from domain.values import printable
from infrastructure.inference.model_reference import DEFAULT_PROVIDER
from infrastructure.inference.models.refusals import shown
from infrastructure.inference.packages.consistency import NetworkNames
from infrastructure.inference.packages.operators import NamedArray, OperatorFailed, apply
from infrastructure.inference.packages.package_manifest import OutputTensor, PackageManifest

RUNTIME: Final = f"onnxruntime {onnxruntime.__version__}"
OUT_OF_MEMORY: Final = ("bad_alloc", "Failed to allocate memory", "bad allocation")
"""What the runtime says when it gets no memory."""
NUMBER_KINDS: Final = "biuf"
MAX_SHOWN_CHARACTERS: Final = 300


class ProviderMissing(Exception):
    """The runtime cannot compute with the chosen provider."""


class NetworkFailed(Exception):
    """A network cannot be loaded, or gave something else than its manifest says. The message is a sentence about "it"."""


class NetworkOutOfMemory(NetworkFailed):
    """Loading or running the network needs more memory than its process may take."""


class Network:
    """A loaded network with the manifest of its version. Its numbers do not depend on other images."""

    def __init__(self, weights: bytes, manifest: PackageManifest, names: NetworkNames, *, provider: str = DEFAULT_PROVIDER) -> None:
        """`weights` is an ONNX file that was validated. Raises NetworkFailed, ProviderMissing."""
        self.manifest, self._names = manifest, names
        self.weights_bytes = len(weights)
        self._session = _session(weights, provider)

    def run(self, tensor: NDArray[Any], ids: Iterable[str], *, fitted: NamedArray | None = None) -> dict[str, NDArray[Any]]:
        """The outputs `ids` of the manifest for one input, after its postprocessing.

        `fitted` is the input before the preprocessing, to which operators may refer. Raises NetworkFailed.
        """
        outputs = [self.manifest.output(one) for one in dict.fromkeys(ids)]
        wanted = [self._names.outputs[output.id] for output in outputs]
        try:
            arrays = self._session.run(wanted, {self._names.input: tensor})
        except Exception as error:  # the exceptions of the runtime have no other common class
            raise _failure("fails", error) from None
        references = {self.manifest.input.id: fitted} if self.manifest.input is not None and fitted is not None else {}
        return {output.id: _postprocessed(array, output, references) for output, array in zip(outputs, arrays, strict=True)}


def available_providers() -> list[str]:
    """The providers of this onnxruntime."""
    providers: list[str] = onnxruntime.get_available_providers()
    return providers


def _session(weights: bytes, provider: str) -> Any:
    if provider not in available_providers():
        raise ProviderMissing(f"this onnxruntime has no {provider}; it has {', '.join(available_providers())}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one process per core
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = onnxruntime.InferenceSession(weights, options, providers=[provider])
    except Exception as error:  # the exceptions of the runtime have no other common class
        raise _failure("cannot be loaded", error) from None
    if (used := session.get_providers()[0]) != provider:
        raise ProviderMissing(f"onnxruntime cannot start {provider} here, and would use {used} instead")
    return session


def _postprocessed(array: Any, output: OutputTensor, references: dict[str, NamedArray]) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in NUMBER_KINDS:
        raise NetworkFailed(f"its output `{shown(output.id)}` holds no numbers")
    if array.ndim != len(output.axes):
        raise NetworkFailed(f"its output `{shown(output.id)}` has {array.ndim} dimensions; the manifest has {len(output.axes)} axes")
    try:
        return apply(output.postprocessing, NamedArray(array, tuple(axis.id for axis in output.axes)), references).values
    except OperatorFailed as error:
        raise NetworkFailed(f"its output `{shown(output.id)}` has another shape than the manifest says: {error}") from None


def _failure(what: str, error: Exception) -> NetworkFailed:
    said = printable(str(error))
    if isinstance(error, MemoryError) or any(mark in said for mark in OUT_OF_MEMORY):
        return NetworkOutOfMemory(f"it {what}: it needs more memory than a worker may take")
    return NetworkFailed(f"it {what}: {said[:MAX_SHOWN_CHARACTERS]}")
