"""The processes of predictions: they start with the first one, a dead one is replaced, and they end with the API, however it ends."""

import asyncio
import base64
import os
import signal
from pathlib import Path

import httpx
import pytest

from domain.access import Role
from infrastructure.blobs.store import open_blobs
from infrastructure.inference.models.bundled import register_bundled
from infrastructure.security.key_ring import NO_KEYS
from tests.api.live_server import live_server
from tests.process_tree import command_line, descendants
from tests.rigs.waiting import wait_until

pytestmark = pytest.mark.anyio
INFER = "/api/v2/models/pbc8/infer"
CELL = min((Path(__file__).parents[2] / "examples" / "micrographs" / "basophil").glob("*.jpg")).read_bytes()


@pytest.fixture
def served(request, postgres, redis_server, tmp_path):
    database = f"test_{request.node.name}"[:60]
    with live_server(postgres, redis_server, tmp_path, database=database) as served:
        register_bundled(open_blobs(served.settings, NO_KEYS), served.log)
        served.follow()
        yield served


def client(served):
    token, _ = served.token(served.user(Role.ANALYST))
    served.follow()
    return httpx.AsyncClient(base_url=served.settings.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


def body(*images):
    data = [base64.b64encode(image).decode() for image in images]
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}], "outputs": [{"name": "label"}]}


def predictors(served):
    """The processes below the API that decode images and run models."""
    return [pid for pid in descendants(served.process.pid) if "fork_server" in command_line(pid)]


async def test_they_start_with_the_first_prediction_and_end_with_the_api(served):
    async with client(served) as http:
        assert (await http.get("/api/v2/models/pbc8")).status_code == 200
        assert predictors(served) == []
        answers = await asyncio.gather(*(http.post(INFER, json=body(CELL)) for _ in range(4)))
        assert [answer.json()["outputs"][0]["data"] for answer in answers] == [["basophil"]] * 4
    started = predictors(served)
    assert len(started) == 2, "a fork server and its child"
    served.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(served.process.wait, 20) == 0
    wait_until(lambda: not any(map(is_running, started)), within=10)


async def test_they_end_when_the_api_is_killed(served):
    async with client(served) as http:
        assert (await http.post(INFER, json=body(CELL))).status_code == 200
    started = predictors(served)
    served.process.kill()
    wait_until(lambda: not any(map(is_running, started)), within=10)


async def test_a_dead_child_is_replaced(served):
    async with client(served) as http:
        assert (await http.post(INFER, json=body(CELL))).status_code == 200
        _, child = predictors(served)
        os.kill(child, signal.SIGKILL)
        assert (await http.post(INFER, json=body(CELL))).status_code == 200
        assert child not in predictors(served)


def is_running(pid):
    """A zombie whose parent has not looked yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
