"""Functions for child processes: run a model with and without the validation before the runtime."""

from hashlib import sha256

import msgspec
import numpy as np
import onnxruntime

from infrastructure.inference.children.loaded_models import LoadedModels
from infrastructure.inference.model_reference import ModelReference
from infrastructure.inference.packages.input_fitting import noise_image, preprocessed
from tests.infrastructure.inference.packages.making import manifest


def run(model: bytes) -> list[list[float]]:
    """As serving loads it: through the gate. Its scores."""
    name = sha256(model).hexdigest()
    loaded = LoadedModels(lambda _: memoryview(model))
    with loaded.network(ModelReference(file=name, weights=name, record=msgspec.json.encode(manifest()).decode())) as network:
        image = preprocessed(noise_image(network.manifest.input), network.manifest.input)
        return network.run(image, ["scores"])["scores"].tolist()


def run_unchecked(model: bytes) -> list[list[float]]:
    """As if the gate had let it through."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return _outputs(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]))


def _outputs(network: onnxruntime.InferenceSession) -> list[list[float]]:
    return [np.asarray(output).reshape(-1)[:64].astype(float).tolist() for output in network.run(None, {})]
