"""Jobs over a dataset beside a bare loop of the same preprocessing and network with one process per core; and what models cost."""

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import onnxruntime
import yaml

from benchmarks.large_model import large_package
from benchmarks.measure import Row, folder, measure_alternately, percentile, rate
from benchmarks.stack import PICTURES, BenchmarkSystem, system, with_images
from infrastructure.configuration.settings import Settings
from infrastructure.inference.children.process_pool import ForkServer, ProcessPool
from infrastructure.inference.model_reference import ModelReference
from infrastructure.inference.models.bundled import models, register_bundled
from infrastructure.inference.models.manifest import load_manifest, manifest_as_json
from infrastructure.inference.predictions import BatchPrediction
from infrastructure.inference.preprocessing import prepare

IMAGES = 2400
KINDS = {"fp32": ("pbc8", 0.70), "int8": ("pbc8-int8", 0.60)}
EACH = 40  # images per task of the bare loop
POLL_SECONDS = 0.05
MODELS = 4
GOAL_IN_TURN = 0.65
CHILD_FUNCTIONS = "infrastructure.inference.children.child_functions"


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

    yield from _models_in_turn()
    yield from asyncio.run(_in_a_child())


def _models_in_turn() -> Iterator[Row]:
    """Jobs of four models at once, whose chunks each child gets in turn, beside a bare loop that changes between them as often."""
    with folder() as home, system() as bench:
        places = [renamed(home / "models" / f"turn-{number}", f"turn-{number}") for number in range(MODELS)]
        register_bundled(bench.blobs, bench.log, folder=places[0].parent)
        dataset = with_images(bench, IMAGES // MODELS)
        names = [place.name for place in places]
        sides = measure_alternately({"system": lambda: jobs(bench, dataset, names), "bare": lambda: bare(*places)}, rounds=3)
        seconds = addition_seconds(bench)
    yield Row(
        name="inference fp32: four models in turn beside a bare loop",
        value=100 * sides["system"] / sides["bare"],
        unit="%",
        goal=100 * GOAL_IN_TURN,
    )
    yield Row(name="add a model of 50 MB: from its upload to the recorded answer", value=seconds, unit="s", goal=5, at_least=False)


async def _in_a_child() -> list[Row]:
    """In one sandboxed child: another model that it has loaded already."""
    fork_server = ForkServer(CHILD_FUNCTIONS)
    pool = ProcessPool(fork_server, size=1, nice=0, memory_bytes=Settings().inference_memory_bytes, hang_seconds=60.0)
    try:
        return [Row(name="switch to a loaded model, with one image", value=await _switch_ms(pool), unit="ms", goal=50, at_least=False)]
    finally:
        pool.close()
        fork_server.close()


async def _switch_ms(pool: ProcessPool) -> float:
    """The median over 50 calls, each of another model than the one before it."""
    place = models() / "pbc8"
    record, text = load_manifest(place), manifest_as_json(place)
    weights = (place / record.weights.file).read_bytes()
    references = [ModelReference(file=record.sha256, weights=record.sha256, record=text + " " * number) for number in range(MODELS)]
    picture = PICTURES[0].read_bytes()

    async def lend() -> bytes:
        return weights

    async def call(reference: ModelReference) -> float:
        began = time.perf_counter()
        await pool.run(f"{CHILD_FUNCTIONS}:classify", reference, [picture], into=BatchPrediction, lend={record.sha256: lend})
        return 1000 * (time.perf_counter() - began)

    for reference in references:
        await call(reference)
    return percentile([await call(references[number % MODELS]) for number in range(50)], 0.5)


def addition_seconds(bench: BenchmarkSystem) -> float:
    archive = large_package(50)
    began = time.perf_counter()
    headers = {"Idempotency-Key": uuid4().hex, "Content-Type": "application/zip"}
    answer = bench.http.post("/api/models", params={"filename": "large.zip"}, content=archive, headers=headers).raise_for_status()
    while (check := bench.http.get(f"/api/model-checks/{answer.json()['id']}").json())["status"] == "pending":
        time.sleep(0.05)
    assert check["status"] == "passed", check
    return time.perf_counter() - began


def jobs(bench: BenchmarkSystem, dataset: str, names: list[str]) -> float:
    """Images per second of jobs that run side by side. All of them together are polled as often as a single job is."""

    def ended(name: str) -> float:
        return job(bench, dataset, name, images=IMAGES // len(names), poll_seconds=len(names) * POLL_SECONDS)

    with ThreadPoolExecutor(len(names)) as threads:
        return rate(IMAGES, lambda: list(threads.map(ended, names)))


def job(bench: BenchmarkSystem, dataset: str, model: str, *, images: int = IMAGES, poll_seconds: float = POLL_SECONDS) -> float:
    """Images per second, from the request until the job is shown as completed."""
    began = time.perf_counter()
    made = bench.post("/api/classifications/run", {"dataset_id": dataset, "model_name": model, "fresh": True}).json()["id"]
    while (state := bench.http.get(f"/api/classifications/{made}").json())["status"] in {"pending", "running"}:
        time.sleep(poll_seconds)
    seconds = time.perf_counter() - began
    assert state["status"] == "completed", state
    assert state["succeeded"] == images, state
    return images / seconds


def bare(*places: Path) -> float:
    """Images per second; the model changes with each task of the loop."""
    files = [str(PICTURES[number % len(PICTURES)]) for number in range(IMAGES)]
    parts = [files[start : start + EACH] for start in range(0, len(files), EACH)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        names = [str(places[number % len(places)]) for number in range(len(parts))]
        list(pool.map(classify, 4 * [str(place) for place in places], 4 * len(places) * [files[:2]]))
        began = time.perf_counter()
        list(pool.map(classify, names, parts))
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


def renamed(place: Path, name: str) -> Path:
    """The shipped model under another name."""
    shutil.copytree(models() / "pbc8", place)
    described = yaml.safe_load((place / "rdf.yaml").read_text())
    described["config"]["bioscope"]["model"] = name
    (place / "rdf.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
    return place


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
