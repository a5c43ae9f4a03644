"""A client library that a common generator makes from the OpenAPI document signs in, uploads, runs a model and pages."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from api.documents import openapi
from tests.system.conftest import PASSWORD, email, made_account

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "sdk.txt"
MICROGRAPHS = ROOT / "examples" / "micrographs"
PACKAGE = "bio_scope_ai_core_client"
INSTALL_TIMEOUT_SECONDS = 600
PROGRAM_TIMEOUT_SECONDS = 120

PROGRAM = f'''
"""Everything below is generated from the document, except this program."""

import json, sys, time
from io import BytesIO
from pathlib import Path
from {PACKAGE} import AuthenticatedClient, Client
from {PACKAGE}.api.classifications import classifications_one, classifications_run
from {PACKAGE}.api.datasets import datasets_create
from {PACKAGE}.api.images import images_one, images_upload
from {PACKAGE}.api.results import results_listed
from {PACKAGE}.api.sessions import sessions_login
from {PACKAGE}.models import CreateDataset, ImagesUploadBody, Login, RunClassification
from {PACKAGE}.types import File

url, address, password, *files = sys.argv[1:]
tokens = sessions_login.sync(client=Client(url), body=Login(email=address, password=password))
client = AuthenticatedClient(url, token=tokens.access_token, raise_on_unexpected_status=True)
dataset = datasets_create.sync(client=client, body=CreateDataset(name="cells"))

uploaded = []
for name in files:
    body = ImagesUploadBody(dataset_id=dataset.id, file=File(payload=BytesIO(Path(name).read_bytes()), file_name=Path(name).name))
    uploaded.append(images_upload.sync(client=client, body=body).id)

job = classifications_run.sync(client=client, body=RunClassification(dataset_id=dataset.id, model_name="pbc8"))
while (state := classifications_one.sync(job.id, client=client)).status in ("pending", "running"):
    time.sleep(0.2)

results, cursor = [], {{}}
while True:
    page = results_listed.sync_detailed(client=client, classification_id=job.id, page_size=1, **cursor)
    results.append([(str(one.image_id), one.label) for one in page.parsed])
    if "X-Next-Cursor" not in page.headers:
        break
    cursor = {{"cursor": page.headers["X-Next-Cursor"]}}

absent = images_one.sync(dataset.id, client=client)
print(json.dumps({{
    "uploaded": [str(one) for one in uploaded], "status": state.status, "pages": results,
    "absent": [type(absent).__name__, absent.code, absent.status],
}}))
'''


def run(*argv, cwd, timeout):
    done = subprocess.run([str(one) for one in argv], cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """The interpreter that has the generator, the folder of the generated package, and what the generator printed."""
    folder = tmp_path_factory.mktemp("sdk")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder, timeout=INSTALL_TIMEOUT_SECONDS)
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", LOCK, cwd=folder, timeout=INSTALL_TIMEOUT_SECONDS)
    (folder / "openapi.json").write_bytes(msgspec.json.encode(openapi.document()))
    generator = python.with_name("openapi-python-client")
    printed = run(
        generator,
        "generate",
        "--path",
        "openapi.json",
        "--meta",
        "none",
        "--output-path",
        PACKAGE,
        cwd=folder,
        timeout=INSTALL_TIMEOUT_SECONDS,
    )
    return python, folder, printed


def test_the_generator_leaves_out_no_operation(generated):
    _, folder, printed = generated
    for methods in openapi.document()["paths"].values():
        for operation in methods.values():
            modules = (folder / PACKAGE / "api" / operation["tags"][0]).glob("*.py")
            names = {module.stem.replace("_", "") for module in modules}
            assert operation["operationId"].lower() in names, printed


def test_it_uploads_runs_and_pages(generated, stack):
    python, folder, _ = generated
    (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
    files = [min((MICROGRAPHS / label).glob("*.jpg")) for label in ("neutrophil", "lymphocyte")]
    account = made_account(stack, "researcher", email("sdk"))
    told = run(python, "-W", "ignore", "program.py", stack.base_url, account, PASSWORD, *files, cwd=folder, timeout=PROGRAM_TIMEOUT_SECONDS)
    done = json.loads(told)
    assert done["status"] == "completed"
    assert [len(page) for page in done["pages"]] == [1, 1]
    labels = dict(result for page in done["pages"] for result in page)
    assert [labels[image] for image in done["uploaded"]] == ["neutrophil", "lymphocyte"]
    assert done["absent"] == ["Problem", "not_found", 404]
