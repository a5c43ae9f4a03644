"""Writes a trained network as a model folder: ONNX in one file, test tensors, rdf.yaml."""

import hashlib
import logging
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from infrastructure.inference.preprocessing import Preprocessing
from training.sessions import INPUT, run

OPSET = 18
TOLERANCE = 1e-4


class Description(NamedTuple):
    """The descriptive fields of rdf.yaml. `cite` has items {text, doi}."""

    model: str
    title: str
    version: str
    text: str
    licence: str
    cite: list[dict[str, str]]
    training_data: str
    tags: list[str]


def write_onnx(network: nn.Module, path: Path, *, size: int, outputs: list[str]) -> None:
    """Write ONNX with opset 18, a batch axis of any length, and the weights inside the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            network.eval().to(memory_format=torch.contiguous_format),
            (torch.zeros(2, 3, size, size),),
            path,
            input_names=[INPUT],
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )


def write_test_tensors(folder: Path, tensors: NDArray[np.float32], outputs: list[str]) -> None:
    found = run(folder / "model.onnx", tensors, outputs)
    np.save(folder / "test_input.npy", tensors)
    for name, values in zip(outputs, found, strict=True):
        np.save(folder / _tensor_file(name), values)


def write_record(
    folder: Path, about: Description, labels: list[str], how: Preprocessing, outputs: dict[str, int], serving: dict[str, Any]
) -> None:
    """rdf.yaml over the files of the folder. `outputs`: name to width; `serving`: what config.bioscope holds beside preprocessing."""
    weights = folder / "model.onnx"
    rdf = {
        "format_version": "0.5.4",
        "type": "model",
        "name": about.title,
        "description": about.text,
        "version": about.version,
        "timestamp": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "authors": [{"name": "BioScopeAI contributors"}],
        "cite": about.cite,
        "license": about.licence,
        "tags": about.tags,
        "inputs": [_input(folder, how)],
        "outputs": [_output(folder, name, labels if name == "logits" else [name] * width) for name, width in outputs.items()],
        "weights": {"onnx": {"source": weights.name, "sha256": sha256(weights), "opset_version": OPSET}},
        "config": {
            "bioscope": {
                "model": about.model,
                "size_bytes": weights.stat().st_size,
                "training_data": about.training_data,
                "tolerance": TOLERANCE,
                "preprocessing": _plain(how),
                **serving,
            }
        },
    }
    (folder / "rdf.yaml").write_text(yaml.dump(rdf, Dumper=_Quoting, sort_keys=False, allow_unicode=True, width=120))
    (folder / "labels.txt").write_text("\n".join(labels) + "\n")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(how: Preprocessing) -> dict[str, Any]:
    return {name: list(value) if isinstance(value := getattr(how, name), tuple) else value for name in how.__struct_fields__}


def _input(folder: Path, how: Preprocessing) -> dict[str, Any]:
    return {
        "id": INPUT,
        "description": "RGB picture, cropped, scaled and normalised as config.bioscope.preprocessing says",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": ["red", "green", "blue"]},
            {"type": "space", "id": "y", "size": how.size},
            {"type": "space", "id": "x", "size": how.size},
        ],
        "data": {"type": "float32"},
        "test_tensor": {"source": "test_input.npy", "sha256": sha256(folder / "test_input.npy")},
    }


def _output(folder: Path, name: str, channels: list[str]) -> dict[str, Any]:
    file = folder / _tensor_file(name)
    return {
        "id": name,
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": channels}],
        "data": {"type": "float32"},
        "test_tensor": {"source": file.name, "sha256": sha256(file)},
    }


def _tensor_file(output: str) -> str:
    return "test_output.npy" if output == "logits" else f"test_{output}.npy"


class _Quoting(yaml.SafeDumper):
    """Quotes digests, because YAML reads a digest without letters as a number."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if digest else None)


_Quoting.add_representer(str, _text)
