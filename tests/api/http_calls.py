"""Calls of the HTTP API, with checks of their answers."""

from datetime import UTC, datetime

from tests.rigs import hostile_images

PICTURE = hostile_images.jpeg()


async def dataset(http, name="cells"):
    answer = await http.post("/api/datasets", json={"name": name})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def upload(http, dataset, data=PICTURE, filename="cell.jpg", *, headers=None, **fields):
    return await http.post(
        "/api/images/upload", data={"dataset_id": dataset, **fields}, files={"file": (filename, data, "image/jpeg")}, headers=headers
    )


async def image_in(http, dataset, data=PICTURE, filename="cell.jpg", **fields):
    answer = await upload(http, dataset, data, filename, **fields)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def share(owner, dataset, other, grant="viewer"):
    answer = await owner.put(f"/api/datasets/{dataset}/shares/{await id_of(other)}", json={"grant": grant})
    assert answer.status_code == 204, answer.text


def session_of(api, http):
    """The id of the session that somebody signed in to."""
    return api.services.access_tokens.verify(http.headers["Authorization"].split()[1], at=datetime.now(UTC)).session_id


async def id_of(http):
    return (await http.get("/api/users/me")).json()["id"]


async def run(http, **query):
    answer = await http.post("/api/classifications/run", json=query)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def events_of(api, kind):
    """How many events of a type stand in the log."""
    return sum(one.type == kind for one in api.services.log.read(0, 100_000))


def assert_refused(answer, status, code=None):
    """The answer is a problem with a sentence, of that status and code."""
    body = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert isinstance(body["detail"], str)
    assert len(body["detail"]) > 5
    assert code is None or body["code"] == code


def stored(settings):
    """The files that the blob store has, those under way included."""
    return [path for path in (settings.data / "blobs").rglob("*") if path.is_file()]
