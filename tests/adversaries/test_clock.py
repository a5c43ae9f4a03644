"""Processes whose clocks are a day wrong in either direction: work goes on, the log stays consistent, and access rules hold."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import psycopg
import pytest

from api.cli.client.api_client import Client, RequestRefused
from api.cli.stack import prepare
from domain.classification import ChunkJudged
from infrastructure.audit.log_verification import verify_log
from infrastructure.blobs.store import open_blobs
from infrastructure.configuration.settings import Settings
from infrastructure.embedded.child import python
from infrastructure.embedded.supervisor import PROCESSES, SupervisedStack
from infrastructure.eventstore.event_store import open_event_store
from infrastructure.inference.models.bundled import micrographs
from infrastructure.security.key_ring import NO_KEYS
from projections.process.rebuilds import rebuild
from tests.rigs.waiting import wait_until
from tests.system.conftest import PASSWORD, email, made_account, stack_settings

pytestmark = pytest.mark.long

PICTURES = sorted(micrographs().glob("*/*.jpg"))
NEW_PASSWORD = "another horse battery 9"
A_DAY = timedelta(days=1)
SOON = timedelta(minutes=5)
UNSIGNED = "select coalesce((select max(position) from ops.heads), 0) < position from es.head"
LEASE_SECONDS = 3.0


def set_clock(folder, name, days):
    """In one step: nobody reads half of it."""
    part = folder / f"clock-{name}.part"
    part.write_text(str(days * 86400))
    part.replace(folder / f"clock-{name}")


class Installation:
    """Every process of a running system by a clock of its own, which can be set while it runs."""

    def __init__(self, stack):
        self._stack, self.settings = stack, stack.settings
        self.person = made_account(self.settings, "researcher", email("punctual"))

    def set(self, **days):
        """Of the processes that are not named the clocks are right."""
        for name in (process.name for process in PROCESSES):
            set_clock(self.settings.data, name, days.get(name, 0))

    def client(self):
        return Client.sign_in(self.settings.base_url, self.person, PASSWORD)

    def events(self):
        with open_event_store(self.settings) as log:
            return log.read(0, 100_000)

    def verified(self):
        with open_event_store(self.settings) as log:
            return verify_log(self.settings, log)

    def sign_now(self):
        """A relay that leads signs the head when it is told to end; it is started again."""
        with psycopg.connect(self.settings.postgres_url, autocommit=True) as reads:
            while reads.execute(UNSIGNED).fetchone()[0]:
                led = self._times_led()
                os.kill(self._stack.pid("relay"), signal.SIGTERM)
                wait_until(lambda: self._times_led() > led, within=20)  # noqa: B023 - called at once

    def _times_led(self):
        return (self.settings.data / "logs" / "relay.log").read_text().count('"leading"')

    def forget_heads(self):
        """As whoever owns the database could."""
        with psycopg.connect(self.settings.postgres_owner_url, autocommit=True) as owner:
            return owner.execute("with gone as (delete from ops.heads returning position) select count(*) from gone").fetchone()[0]

    def kill(self, name):
        os.kill(self._stack.pid(name), signal.SIGKILL)


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """Leases of work are short: a job that nobody works on any more is given out again soon."""
    settings = msgspec.structs.replace(stack_settings(tmp_path_factory.mktemp("clock")), chunk_lease_seconds=LEASE_SECONDS)
    processes = [msgspec.structs.replace(one, argv=python("tests.adversaries.shifted_clock", one.name)) for one in PROCESSES]
    stack = SupervisedStack(settings, processes=processes, prepare=prepare)
    with stack:
        yield Installation(stack)


def uploaded(client, dataset, count=3):
    files = [("file", (path.name, path.read_bytes())) for path in PICTURES[:count]]
    return [client.call("POST", "/api/images/upload", data={"dataset_id": dataset}, files=[one]).json()["id"] for one in files]


def refused(client, *request, **given):
    with pytest.raises(RequestRefused) as refusal:
        client.call(*request, **given)
    return refusal.value.status


def token_of(client):
    return {"Authorization": f"Bearer {client.credentials.access_token}"}


# ---- work and record -----------------------------------------------------------------------------------------------------------------
AHEAD_AND_BEHIND = {
    "api a day ahead": {"api": 1},
    "api a day behind": {"api": -1},
    "relay a day ahead, projector behind": {"relay": 1, "projector": -1},
    "relay a day behind, projector ahead": {"relay": -1, "projector": 1},
    "inference a day ahead, the rest behind": {"api": -1, "relay": -1, "projector": -1, "inference": 1},
}


@pytest.mark.parametrize("days", AHEAD_AND_BEHIND.values(), ids=AHEAD_AND_BEHIND)
def test_work_is_done_and_the_record_is_in_order(installation, days):
    installation.set(**days)
    with installation.client() as client:
        dataset = client.create_dataset("cells")
        images = uploaded(client, dataset)
        job = client.run(dataset, "pbc8")
        *_, last = client.watch(job)
        assert (last["status"], last["succeeded"]) == ("completed", len(images))
        assert httpx.get(client.get(f"/api/images/{images[0]}/download")["url"]).content == PICTURES[0].read_bytes()
    events = installation.events()
    assert [one.position for one in events] == list(range(1, len(events) + 1))
    assert [one.recorded_at for one in events] == sorted(one.recorded_at for one in events)
    assert abs(events[-1].recorded_at - datetime.now(UTC)) < SOON, "the database says when"
    assert {event.number for event in decoded(installation, ChunkJudged) if str(event.job_id) == job} == {0}
    assert rebuild(installation.settings, check=True).differing == ()


def decoded(installation, kind):
    with open_event_store(installation.settings) as log:
        return [log.decode(one) for one in log.read(0, 100_000) if one.type == kind.__name__]


def test_heads_that_were_signed_by_wrong_clocks_verify_and_are_found_off_the_database_too(installation):
    """The first one is of tomorrow."""
    for days in (1, -1, 0):
        installation.set(relay=days)
        with installation.client() as client:
            client.create_dataset("to be signed")
        installation.sign_now()
    assert installation.verified().finding is None
    signed = installation.forget_heads()
    assert signed >= 3
    found = installation.verified()
    assert (found.finding, found.heads) == (None, signed)


def test_the_clock_jumps_between_two_commands(installation):
    """Whoever is signed in goes on: the client gets a new token by itself."""
    installation.set()
    positions = []
    with installation.client() as client:
        for days in (0, 1, 0, -1, 1, -1, 0):
            installation.set(api=days)
            answer = client.call("POST", "/api/datasets", json={"name": f"made {days} days off"})
            positions.append(int(answer.headers["x-event-position"]))
    assert positions == sorted(set(positions))
    by_position = {one.position: one for one in installation.events()}
    assert {by_position[position].type for position in positions} == {"DatasetCreated"}


def test_a_repeat_under_the_same_key_is_a_repeat_whatever_the_clock_says(installation):
    installation.set()
    with installation.client() as client:
        key, ids = {"Idempotency-Key": uuid4().hex}, set()
        for days in (0, 1, -1):
            installation.set(api=days)
            with suppress(RequestRefused):
                client.get("/api/users/me")  # gets a token that this clock takes
            made = httpx.post(f"{installation.settings.base_url}/api/datasets", json={"name": "once"}, headers=token_of(client) | key)
            assert made.status_code == 201
            ids.add(made.json()["id"])
    assert len(ids) == 1


def test_work_of_a_worker_that_was_killed_is_given_out_again_in_seconds(installation):
    """Leases are the database's times: no clock of a process makes them last a day."""
    installation.set(projector=1, inference=-1)
    with installation.client() as client:
        dataset = client.create_dataset("cells")
        images = uploaded(client, dataset, 12)
        job = client.run(dataset, "pbc8")
        installation.kill("inference")
        installation.set(projector=-1, inference=1)
        began = time.monotonic()
        *_, last = client.watch(job)
    assert (last["status"], last["succeeded"]) == ("completed", len(images))
    assert time.monotonic() - began < 20 * LEASE_SECONDS, "a day of a wrong clock is no part of it"


# ---- doors -------------------------------------------------------------------------------------------------------------------------------
def test_a_token_is_taken_in_its_minutes_by_the_clock_of_the_api_that_checks_it_and_never_after(installation):
    """One that was issued a day ahead is none yet, and has ended a day and its lifetime later."""
    installation.set(api=1)
    with installation.client() as client:
        headers, lifetime = token_of(client), (installation.settings.access_ttl + 60) / 86400
        me = f"{installation.settings.base_url}/api/users/me"
        answers = {}
        for days in (1, 0, -1, 1 + lifetime, 2):
            installation.set(api=days)
            answers[days] = httpx.get(me, headers=headers).status_code
    assert answers == {1: 200, 0: 401, -1: 401, 1 + lifetime: 401, 2: 401}


def test_a_refresh_token_that_comes_again_after_the_clock_was_set_back_ends_its_session(installation):
    installation.set(api=1)
    with installation.client() as client:
        used = client.credentials.refresh_token
        child = refreshed(installation, used).json()
        installation.set(api=0)
        assert refreshed(installation, used).status_code == 401
        assert refreshed(installation, child["refresh_token"]).status_code == 401


def refreshed(installation, token):
    return httpx.post(f"{installation.settings.base_url}/api/auth/refresh", headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize(("then", "now"), [(1, 0), (0, -1), (0, 1)])
def test_a_sign_in_of_another_day_is_not_recent(installation, then, now):
    """Shortly after a sign-in one may set a new password without the old one."""
    installation.set(api=then)
    with installation.client() as client:
        me = client.get("/api/users/me")["id"]
        installation.set(api=now)
        assert refused(client, "PATCH", f"/api/users/users/{me}", json={"password": NEW_PASSWORD}) == 403


def test_an_address_ends_by_the_clock_of_the_api(installation):
    installation.set()
    with installation.client() as client:
        (image,) = uploaded(client, client.create_dataset("addressed"), 1)
        url = client.get(f"/api/images/{image}/download")["url"]
        assert httpx.get(url).status_code == 200
        installation.set(api=1)
        assert httpx.get(url).status_code == 403
        installation.set()
        assert httpx.get(url).status_code == 200


# ---- files -------------------------------------------------------------------------------------------------------------------------------
SWEEPING = """
import tests.adversaries.shifted_clock
import sys
from datetime import UTC, datetime
from pathlib import Path
from application.blob_gc import BlobReferences, sweep_orphans
from infrastructure.blobs.store import open_blobs
from infrastructure.security.key_ring import NO_KEYS
from infrastructure.configuration.settings import Settings
blobs = open_blobs(Settings(data=Path(sys.argv[2])), NO_KEYS)
print(sweep_orphans(blobs, lambda names: BlobReferences(set(), set()), now=datetime.now(UTC)).freed)
"""


def swept(folder, days):
    """How many files a sweeper with such a clock took away that nobody refers to."""
    set_clock(folder, "sweeper", days)
    environment = os.environ | {"TZ": "UTC"}
    argv = [sys.executable, "-c", SWEEPING, "sweeper", str(folder)]
    return int(subprocess.run(argv, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True).stdout)


@pytest.mark.parametrize("days", [1, -1])
def test_a_sweeper_with_a_wrong_clock_takes_nothing_that_was_just_uploaded(tmp_path, days):
    """Neither files whose event is still to be written, nor uploads under way."""
    blobs = open_blobs(Settings(data=tmp_path), NO_KEYS)
    ready, under_way = blobs.begin(), blobs.begin()
    for upload in (ready, under_way):
        upload.write(uuid4().bytes)
    sha256, _ = ready.commit()
    assert swept(tmp_path, days) == 0
    assert blobs.exists(sha256)
    assert blobs.exists(under_way.commit()[0])


def test_what_nobody_refers_to_is_taken_away_in_the_end_by_any_clock(tmp_path):
    blobs = open_blobs(Settings(data=tmp_path), NO_KEYS)
    upload = blobs.begin()
    upload.write(b"forgotten")
    sha256, _ = upload.commit()
    (path,) = (Path(tmp_path) / "blobs").rglob(sha256)
    old = time.time() - (5 * A_DAY).total_seconds()
    os.utime(path, (old, old))
    assert swept(tmp_path, -1) == 1
    assert not blobs.exists(sha256)
