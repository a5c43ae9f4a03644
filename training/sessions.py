"""Runs ONNX files as the product does: one thread, on the CPU."""

import time
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

INPUT = "image"


def opened(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(path: Path, tensors: NDArray[np.float32], outputs: list[str], *, batch: int = 64) -> list[NDArray[np.float32]]:
    """The named outputs of all tensors (N, ...)."""
    session = opened(path)
    parts = [session.run(outputs, {INPUT: tensors[start : start + batch]}) for start in range(0, len(tensors), batch)]
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


def images_per_second(path: Path, tensors: NDArray[np.float32], *, repeats: int = 40) -> float:
    """Speed of the network alone on one core, from the tenth percentile of CPU time over `repeats` batches."""
    session = opened(path)
    durations = []
    for _ in range(repeats):
        started = time.process_time()
        session.run(None, {INPUT: tensors})
        durations.append(time.process_time() - started)
    return float(len(tensors) / np.percentile(durations, 10))
