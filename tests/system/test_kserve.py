"""Predictions by the Open Inference Protocol in the whole system: they are those of a job, and a public client library gets them."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from api.cli.client.api_client import Client
from tests.system.conftest import PASSWORD, email, made_account

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "kserve.txt"
LABELS = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
PICTURES = [min((ROOT / "examples" / "micrographs" / label).glob("*.jpg")) for label in LABELS]
INSTALL_TIMEOUT_SECONDS = 600
PROGRAM_TIMEOUT_SECONDS = 120


def test_a_prediction_is_the_result_of_a_job(researcher):
    """The same label, verdict and scores for the same file."""
    dataset = researcher.create_dataset("predicted")
    images = {upload(researcher, dataset, path): path for path in PICTURES}
    job = researcher.post("/api/classifications/run", {"dataset_id": dataset, "model_name": "pbc8"})["id"]
    while researcher.get(f"/api/classifications/{job}")["status"] in {"pending", "running"}:
        pass
    results = {images[one["image_id"]]: one for one in researcher.get(f"/api/classification-results/classification/{job}")}
    data = [base64.b64encode(path.read_bytes()).decode() for path in PICTURES]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}
    answer = researcher.post("/api/v2/models/pbc8/infer", {"inputs": [tensor]})
    outputs = {one["name"]: one["data"] for one in answer["outputs"]}
    expected = [results[path] for path in PICTURES]
    assert outputs["label"] == [one["label"] for one in expected]
    assert outputs["verdict"] == [one["verdict"] for one in expected]
    assert outputs["confidence"] == [one["confidence"] for one in expected]
    labels = researcher.get("/api/models/pbc8")["labels"]
    assert outputs["scores"] == [one["scores"][label] for one in expected for label in labels]


def upload(client, dataset, path):
    sent = client.call("POST", "/api/images/upload", data={"dataset_id": dataset}, files={"file": (path.name, path.read_bytes())})
    return sent.json()["id"]


PROGRAM = """
import base64, json, sys
from pathlib import Path
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

address, token, *files = sys.argv[1:]
client = InferenceServerClient(f"{address}/api", concurrency=2)
def signed():
    return {"headers": {"Authorization": f"Bearer {token}"}}  # the library adds to the dictionary that it is given
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("pbc8", **signed()) and client.is_model_ready("pbc8", "1", **signed())
server, model = client.get_server_metadata(**signed()), client.get_model_metadata("pbc8", **signed())

def images(encode, **mode):
    tensor = InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(np.array([encode(Path(name).read_bytes()) for name in files], dtype=np.object_), **mode)
    return [tensor]

def text(array):
    return [one.decode() if isinstance(one, bytes) else one for one in array.tolist()]

raw = client.infer("pbc8", images(bytes, binary_data=True), request_id="raw", **signed())
outputs = [InferRequestedOutput("label", binary_data=False), InferRequestedOutput("scores", binary_data=True)]
mixed = client.infer("pbc8", images(base64.b64encode, binary_data=False), outputs=outputs, **signed())
waiting = [client.async_infer("pbc8", images(bytes, binary_data=True), **signed()) for _ in range(2)]
several = [one.get_result() for one in waiting]
try:
    client.infer("nothing", images(bytes, binary_data=True), **signed())
except InferenceServerException as error:
    refusal = [error.status(), error.message()]
print(json.dumps({
    "server": server, "model": model, "id": raw.get_response()["id"], "refusal": refusal,
    "labels": [text(one.as_numpy("label")) for one in (raw, mixed, *several)],
    "scores": [one.as_numpy("scores").tolist() for one in (raw, mixed, *several)],
    "verdicts": text(raw.as_numpy("verdict")), "confidence": raw.as_numpy("confidence").tolist(),
}))
"""


def run(*argv, cwd, timeout, env=None):
    done = subprocess.run([str(one) for one in argv], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with the client library."""
    folder = tmp_path_factory.mktemp("kserve")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder, timeout=INSTALL_TIMEOUT_SECONDS)
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", LOCK, cwd=folder, timeout=INSTALL_TIMEOUT_SECONDS)
    return python


@pytest.fixture
def token(stack):
    with Client.sign_in(stack.base_url, made_account(stack, "analyst", email("triton")), PASSWORD) as signed_in:
        return signed_in.credentials.access_token


@pytest.mark.long
def test_the_examples_of_the_page_work(python, stack, token, tmp_path):
    page = (ROOT / "docs" / "kserve.md").read_text()
    environment = os.environ | {"URL": stack.base_url, "TOKEN": token}
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    printed = run(python, "-W", "ignore", "-c", program, cwd=ROOT, env=environment, timeout=PROGRAM_TIMEOUT_SECONDS)
    assert [line.split()[1] for line in printed.splitlines()] == ["basophil"] * 4
    (script,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    printed = run("bash", "-c", script, cwd=ROOT, env=environment, timeout=PROGRAM_TIMEOUT_SECONDS)
    assert json.loads(printed)["outputs"][0]["data"] == ["basophil"]


@pytest.mark.long
def test_a_public_client_library_predicts(python, stack, token, tmp_path):
    """NVIDIA's client for Triton, as a user installs it."""
    (tmp_path / "program.py").write_text(PROGRAM)
    address = stack.base_url.removeprefix("http://")
    printed = json.loads(
        run(python, "-W", "ignore", "program.py", address, token, *PICTURES, cwd=tmp_path, timeout=PROGRAM_TIMEOUT_SECONDS)
    )
    assert (printed["server"]["name"], printed["model"]["name"], printed["id"]) == ("bioscope", "pbc8", "raw")
    assert printed["refusal"] == ["404", "Model nothing not found"]
    first, *others = printed["scores"]
    assert all(scores == first for scores in others)
    assert len(first) == len(PICTURES)
    assert printed["labels"] == [[*LABELS]] * 4
    assert printed["confidence"] == [max(scores) for scores in first]
    assert set(printed["verdicts"]) <= {"clear", "needs_review", "out_of_domain"}
