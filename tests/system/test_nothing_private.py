"""Private words, entered wherever possible, and then searched in every table, topic, Redis key, log, blob and dump."""

import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
import redis
from aiokafka import AIOKafkaConsumer

from api.cli.client.api_client import Client
from infrastructure.configuration.settings import Settings
from infrastructure.container import blobs
from infrastructure.embedded.postgres.binaries import installed
from infrastructure.kafka.topics import all_topics
from tests.chaos.invariants import settle
from tests.chaos.workload import PICTURES
from tests.system.conftest import PASSWORD, made_account

pytestmark = [pytest.mark.anyio, pytest.mark.long]

TOPICS = tuple(all_topics(Settings()))


@pytest.fixture(scope="module")
def planted(stack, admin):
    """What was entered, and by whom: a person's own words, those about a patient, and those about a device."""
    mark = f"canary{uuid4().hex[:12]}"
    address = f"{mark}@example.org"
    made_account(stack, "researcher", address)
    with Client.sign_in(stack.base_url, address, PASSWORD) as client:
        me = client.get("/api/users/me")
        names = {"first_name": f"{mark}-first", "last_name": f"{mark}-last", "institution": f"{mark}-hospital", "phone": mark[:20]}
        client.call("PATCH", f"/api/users/users/{me['id']}", json=names)
        client.call("POST", "/api/auth/forgot-password", json={"email": address})
        dataset = client.post("/api/datasets/", {"name": f"patient {mark}", "description": f"{mark} was here"})["id"]
        with PICTURES[0].open("rb") as file:
            fields = {"dataset_id": dataset, "path": f"patient {mark}/{mark}.jpg"}
            form = {"data": fields, "files": {"file": (f"{mark}.jpg", file, "image/jpeg")}}
            uploaded = client.call("POST", "/api/images/upload", **form).json()["id"]
        client.call("PATCH", f"/api/images/{uploaded}", json={"filename": f"{mark}-renamed.jpg"})
        job = client.post("/api/classifications/run", {"image_id": uploaded})["id"]
        list(client.watch(job))
        key = client.post("/api/keys", {"name": f"{mark} script", "scopes": ["images:read"]})["key"]
    assert httpx.get(f"{stack.base_url}/api/images/{uploaded}", headers={"Authorization": f"Bearer {key}"}).is_success
    refused = httpx.post(f"{stack.base_url}/api/auth/login", json={"email": address, "password": f"not that of {mark}"})
    assert refused.status_code == 401
    assert admin.get("/api/users/users", q=mark)
    team = admin.post("/api/teams", {"name": f"{mark} group"})["id"]
    admin.call("PATCH", f"/api/teams/{team}", json={"name": f"{mark} team"})
    admin.call("PUT", f"/api/teams/{team}/members/{me['id']}")
    service = admin.post("/api/service-accounts", {"name": "microscope", "description": f"{mark} microscope"})["id"]
    device = admin.post("/api/devices/", {"name": f"{mark} scope", "hostname": f"{mark}-pc", "location": f"{mark} ward"})["id"]
    admin.call("PATCH", f"/api/devices/{device}", json={"name": f"{mark} scope 2", "hostname": f"{mark}-pc-2", "location": f"{mark} room"})
    assert [found["id"] for found in admin.get("/api/devices/", location=f"{mark} room")] == [device]
    invited = admin.post("/api/invitations/", {"email": f"invited.{mark}@example.org", "role": "viewer"})["id"]
    moved = admin.call("PUT", "/api/models/bccd3/aliases/reviewed", json={"version": 1, "reason": f"{mark} was classified well"})
    assert moved.is_success
    assert mark in admin.get("/api/models/bccd3/history")[-1]["reason"]
    return {
        "mark": mark,
        "user": UUID(me["id"]),
        "dataset": dataset,
        "image": uploaded,
        "invitation": invited,
        "team": team,
        "service": service,
    }


def rows_with(settings, schema, mark):
    """The tables of a schema in which some row holds the words, in text or bytes."""
    found = []
    with psycopg.connect(settings.postgres_owner_url, autocommit=True) as connection:
        tables = connection.execute("select table_name from information_schema.tables where table_schema = %s", (schema,)).fetchall()
        for (table,) in tables:
            with connection.cursor().copy(f"copy (select t.* from {schema}.{table} t) to stdout (format binary)") as copied:
                if mark.encode() in b"".join(bytes(part) for part in copied):
                    found.append(table)
    return found


def test_the_log_and_all_beside_it_hold_no_private_word(stack, planted):
    assert rows_with(stack, "es", planted["mark"]) == []
    assert rows_with(stack, "ops", planted["mark"]) == []
    assert settle(stack) is not None
    assert {"users", "invitations", "devices", "teams"} <= set(rows_with(stack, "read", planted["mark"])), (
        "the words were not planted at all"
    )


async def test_no_topic_carries_a_private_word(stack, planted):
    seen = 0
    async with AIOKafkaConsumer(*TOPICS, bootstrap_servers=stack.kafka_url, auto_offset_reset="earliest") as consumer:
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 2:
            for records in (await consumer.getmany(timeout_ms=300)).values():
                quiet_since = time.monotonic()
                for record in records:
                    seen += 1
                    said = repr((record.key, record.value, record.headers))
                    assert planted["mark"] not in said, record.topic
    assert seen > 5


def test_redis_holds_no_private_word(stack, planted):
    with redis.Redis.from_url(stack.redis_url) as client:
        keys = list(client.scan_iter())
        assert keys
        for key in keys:
            assert planted["mark"].encode() not in key
            assert planted["mark"].encode() not in client.dump(key)


def test_no_log_and_no_blob_holds_a_private_word(stack, planted):
    logs = [*(stack.data / "logs").iterdir()]
    assert len(logs) >= 6
    files = [path for path in [*logs, *(stack.data / "blobs").rglob("*")] if path.is_file()]
    assert [path.name for path in files if planted["mark"].encode() in path.read_bytes()] == []
    assert blobs(stack)


def test_after_an_erasure_no_dump_holds_the_person_and_the_chain_still_verifies(stack, admin, planted):
    bioscope(stack, "users", "erase", f"{planted['mark']}@example.org", "--yes")
    admin.call("DELETE", f"/api/datasets/{planted['dataset']}")
    admin.call("DELETE", f"/api/invitations/{planted['invitation']}")
    admin.call("DELETE", f"/api/teams/{planted['team']}")
    admin.call("DELETE", f"/api/service-accounts/{planted['service']}")
    assert settle(stack) is not None
    read = ("users", "invitations", "api_keys", "service_accounts", "registrations", "sessions")
    tables = ("--schema=es", "--schema=ops", *(f"--table=read.{table}" for table in read))
    dump = subprocess.run(
        [installed(None) / "bin" / "pg_dump", *tables, stack.postgres_owner_url],
        capture_output=True,
        check=True,
    )
    assert [line[:300] for line in dump.stdout.splitlines() if planted["mark"].encode() in line] == []
    bioscope(stack, "audit", "verify")
    bioscope(stack, "rebuild", "--check")


def bioscope(stack, *arguments):
    """Run a command on the system; it has to end well."""
    command = [Path(sys.executable).with_name("bioscope"), *arguments, "--data", stack.data]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr + said.stdout
