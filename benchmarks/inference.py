"""A job over a dataset, compared with a bare loop of the same preprocessing and network with one process per core."""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import yaml

from benchmarks.measure import Row, folder, measure_alternately
from benchmarks.stack import PICTURES, BenchmarkSystem, system, with_images
from infrastructure.inference.models.bundled import models, register_bundled
from infrastructure.inference.models.manifest import load_manifest
from infrastructure.inference.preprocessing import prepare

IMAGES = 2400
KINDS = {"fp32": ("pbc8", 0.70), "int8": ("pbc8-int8", 0.60)}
EACH = 40  # images per task of the bare loop


def rows() -> Iterator[Row]:
    with folder() as home, system() as bench:
        light = as_int8(home / "models" / "pbc8-int8")
        register_bundled(bench.blobs, bench.log, folder=light.parent)
        places = {"fp32": models() / "pbc8", "int8": light}
        dataset = with_images(bench, IMAGES)
        for kind, (name, goal) in KINDS.items():
            sides = measure_alternately(
                {"system": lambda name=name: job(bench, dataset, name), "bare": lambda kind=kind: bare(places[kind])},  # type: ignore[misc]
                rounds=3,
            )
            yield Row(
                name=f"inference {kind}: a job beside a bare loop", value=100 * sides["system"] / sides["bare"], unit="%", goal=100 * goal
            )
            yield Row(name=f"inference {kind}", value=sides["system"], unit="images/s", goal=goal * sides["bare"], limit=sides["bare"])


def job(bench: BenchmarkSystem, dataset: str, model: str) -> float:
    """Images per second, from the request until the job is shown as completed."""
    began = time.perf_counter()
    made = bench.post("/api/classifications/run", {"dataset_id": dataset, "model_name": model}).json()["id"]
    while (state := bench.http.get(f"/api/classifications/{made}").json())["status"] in {"pending", "running"}:
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    assert state["status"] == "completed", state
    assert state["succeeded"] == IMAGES, state
    return IMAGES / seconds


def bare(place: Path) -> float:
    files = [str(PICTURES[number % len(PICTURES)]) for number in range(IMAGES)]
    parts = [files[start : start + EACH] for start in range(0, len(files), EACH)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(classify, [str(place)] * 4, [files[:2]] * 4))
        began = time.perf_counter()
        list(pool.map(classify, [str(place)] * len(parts), parts))
        return IMAGES / (time.perf_counter() - began)


def classify(place: str, files: list[str]) -> int:
    session, record = network(place)
    for path in files:
        data = Path(path).read_bytes()
        sha256(data).hexdigest()
        session.run(list(record.output_names), {record.input_name: prepare(data, record.preprocessing)[None]})
    return len(files)


@cache
def network(place: str) -> tuple[Any, Any]:
    record = load_manifest(Path(place))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    weights = (Path(place) / record.weights.file).read_bytes()
    return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"]), record


def as_int8(place: Path) -> Path:
    """Write the shipped model with its int8 weights as a separate model."""
    shutil.copytree(models() / "pbc8", place)
    described = yaml.safe_load((place / "rdf.yaml").read_text())
    ours = described["config"]["bioscope"]
    light = ours.pop("int8")
    described["weights"]["onnx"] |= {"source": light["file"], "sha256": light["sha256"]}
    ours |= {"model": "pbc8-int8", "size_bytes": (place / light["file"]).stat().st_size}
    session = onnxruntime.InferenceSession((place / light["file"]).read_bytes(), providers=["CPUExecutionProvider"])
    given = np.load(place / described["inputs"][0]["test_tensor"]["source"])
    for output, found in zip(described["outputs"], session.run(None, {session.get_inputs()[0].name: given}), strict=True):
        test = output["test_tensor"]
        np.save(place / test["source"], found)
        test["sha256"] = sha256((place / test["source"]).read_bytes()).hexdigest()
    (place / "rdf.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
    return place
