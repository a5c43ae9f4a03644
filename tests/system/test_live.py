"""Live status of the whole system: a job is followed to its end without polling."""

import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.sync.client import connect

from api.options import LiveLimits

PICTURES = sorted((Path(__file__).parents[2] / "examples" / "micrographs").rglob("*.jpg"))[:20]


@pytest.fixture
def watch(stack, researcher):
    with connect(f"ws://{urlsplit(stack.base_url).netloc}/api/ws", compression=None) as socket:
        socket.send(json.dumps({"type": "auth", "token": researcher.credentials.access_token}))
        assert told(socket)["type"] == "authenticated"
        yield socket


def told(socket, within=20):
    return json.loads(socket.recv(timeout=within))


def test_a_job_is_heard_of_from_its_request_to_its_end(researcher, watch):
    dataset = researcher.create_dataset("live")
    images = {
        researcher.call("POST", "/api/images/upload", data={"dataset_id": dataset}, files={"file": (path.name, path.read_bytes())}).json()[
            "id"
        ]
        for path in PICTURES
    }
    watch.send(json.dumps({"type": "subscribe", "datasets": [dataset]}))
    while told(watch)["type"] != "caught_up":
        pass
    job = researcher.post("/api/classifications/run", {"dataset_id": dataset})["id"]
    heard = []
    while not heard or heard[-1]["event"] != "ClassificationCompleted":  # `job` may say so earlier: it is how far the job is by now
        message = told(watch)
        if message["type"] == "event" and message.get("job", {}).get("id") == job:
            heard.append(message)
    assert heard[0]["event"] == "ClassificationRequested"
    assert {"ClassificationPlanned", "ChunkJudged", "ClassificationCompleted"} <= {one["event"] for one in heard}
    assert [one["position"] for one in heard] == sorted({one["position"] for one in heard})
    assert heard[-1]["job"]["succeeded"] == len(PICTURES)
    assert images <= {subject for one in heard if one["event"] == "ChunkJudged" for subject in one["subjects"]}


def test_a_stream_goes_on_where_it_was_cut(stack, researcher):
    """Ten times during twenty changes, with the id of the last message."""
    dataset = researcher.create_dataset("streamed")
    heard, last = [], "0"
    with httpx.Client(base_url=stack.base_url, timeout=20) as http:
        for number in range(20):
            researcher.call("PATCH", f"/api/datasets/{dataset}", json={"description": f"number {number}"})
            headers = {"Authorization": f"Bearer {researcher.credentials.access_token}", "Last-Event-ID": last}
            if number % 2:
                with http.stream("GET", "/api/live", headers=headers, params={"datasets": dataset}) as response:
                    for line in response.iter_lines():
                        last = line.removeprefix("id: ") if line.startswith("id: ") else last
                        if line.startswith("data: ") and (message := json.loads(line.removeprefix("data: ")))["type"] == "event":
                            heard.append((message["position"], message["event"]))
                        if line.startswith("data: ") and len(heard) == number + 2:
                            break
    assert [event for _, event in heard] == ["DatasetCreated", *["DatasetDescribed"] * 20]
    assert [position for position, _ in heard] == sorted({position for position, _ in heard})


def test_what_happens_is_heard_of_at_once(researcher, watch):
    dataset = researcher.create_dataset("quick")
    watch.send(json.dumps({"type": "subscribe", "datasets": [dataset]}))
    while told(watch)["type"] != "caught_up":
        pass
    waits = []
    for number in range(10):
        researcher.call("PATCH", f"/api/datasets/{dataset}", json={"description": f"number {number}"})
        began = time.monotonic()
        while told(watch)["type"] != "event":
            pass
        waits.append(time.monotonic() - began)
    assert sorted(waits)[5] < LiveLimits().poll_interval_seconds, waits
