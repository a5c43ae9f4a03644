"""Two releases on one log under load: readers are upgraded first, and new types are written once all understand them."""

import threading
import time
from contextlib import ExitStack

import httpx
import psycopg
import pytest

from api.cli.client.api_client import Client, RequestRefused
from api.cli.stack import prepare
from infrastructure.container import verify_log
from infrastructure.embedded.supervisor import PROCESSES, SupervisedStack
from infrastructure.eventstore.event_store import open_event_store
from projections.process.dead_letters import list_dead_letters
from projections.process.rebuilds import rebuild
from tests.chaos.workload import PICTURES
from tests.system.conftest import PASSWORD, email, made_account, stack_settings
from tests.system.releases import Processes, declared, older_release, previous_tag, until

NEW = "ImageDescribed"  # the older release does not know it
OF_ACCOUNTS = ("PasswordResetRequested", "PasswordReset", "UserInvited", "ServiceAccountCreated", "KeyIssued", "TeamCreated")
KINDS = ("api", "projector", "inference")


class Technician(threading.Thread):
    """Uploads through one API, and remembers what was acknowledged."""

    def __init__(self, url, address):
        super().__init__(daemon=True)
        self._client = Client.sign_in(url, address, PASSWORD)
        self._ended = threading.Event()
        self.dataset = self._client.create_dataset("cells")
        self.uploaded, self.failures = [], []

    def run(self):
        while not self._ended.wait(0.05):
            answer = self._client.upload(self.dataset, PICTURES[len(self.uploaded) % len(PICTURES)])
            (self.failures if answer.refused else self.uploaded).append(answer.refused or answer.id)

    def end(self):
        self._ended.set()
        if self.is_alive():
            self.join(20)
        self._client.__exit__(None, None, None)


def ready(url):
    found = httpx.get(f"{url}/health/ready", timeout=5).json()
    return {one["name"]: one["detail"] for one in found["dependencies"] if not one["ok"]}


def described(client, image, filename):
    return client.call("PATCH", f"/api/images/{image}", json={"filename": filename}).json()


@pytest.mark.long
def test_two_releases_share_a_log_and_what_only_one_knows_waits_for_the_other(tmp_path, capsys):
    old = older_release(tmp_path / "older", without=[NEW])
    (relay,) = (process for process in PROCESSES if process.name == "relay")
    with ExitStack() as stack:
        settings = stack.enter_context(SupervisedStack(stack_settings(tmp_path / "data"), processes=(relay,), prepare=prepare))
        processes = stack.enter_context(Processes(settings, tmp_path))
        with psycopg.connect(settings.postgres_owner_url, autocommit=True) as owner:
            owner.execute("delete from ops.written_types where topic = %s", (NEW,))
        old_api = {kind: processes.start(f"older {kind}", kind, folder=old) for kind in KINDS}["api"]
        until(lambda: declared(settings.postgres_owner_url) == dict.fromkeys(KINDS, 1))
        until(lambda: httpx.get(f"{old_api.base_url}/health/live").is_success)
        address = made_account(settings, "admin", email("admin"))
        technician = Technician(old_api.base_url, address)
        stack.callback(technician.end)
        technician.start()
        told = []

        new_api = processes.start("newer api", "api")
        until(lambda: httpx.get(f"{new_api.base_url}/health/live").is_success)
        newer, older = (stack.enter_context(Client.sign_in(api.base_url, address, PASSWORD)) for api in (new_api, old_api))
        until(lambda: len(technician.uploaded) > 3)
        image = technician.uploaded[0]
        with pytest.raises(RequestRefused) as refused:
            described(newer, image, "renamed.png")
        assert refused.value.status == 503
        assert f"does not understand {NEW} version 1 yet" in str(refused.value)
        told.append(f"refused while older processes run: {refused.value}")
        job = older.run(technician.dataset, None)
        assert list(older.watch(job))[-1]["status"] == "completed"
        assert list_dead_letters(settings) == []

        with psycopg.connect(settings.postgres_owner_url, autocommit=True) as owner:  # as a release that does not ask would write it
            owner.execute("insert into ops.written_types (topic, schema_version) values (%s, 1)", (NEW,))
        described(newer, image, "renamed.png")
        paused = until(lambda: ready(old_api.base_url).get("upgrade"))
        assert f"holds {NEW} version 1, which a newer release wrote; upgrade this process" in paused
        told.append(f"readiness: {paused}")
        before = len(technician.uploaded)
        until(lambda: len(technician.uploaded) > before + 3)
        with pytest.raises(RequestRefused) as refused:
            older.call("DELETE", f"/api/images/{image}")
        assert refused.value.status == 503
        assert "upgrade this process" in str(refused.value)
        entry = older.get(f"/api/audit/{image}/trail")[-1]
        assert entry["type"] == NEW
        assert entry["data"]["filename"].startswith("sealed:")
        followed = older.get("/api/events/", after=entry["position"] - 1, limit=1)["events"][0]
        assert (followed["type"], followed["data"]["filename"]) == (NEW, entry["data"]["filename"])
        assert list_dead_letters(settings) == []

        stopped = time.monotonic()
        for kind in ("projector", "inference"):
            processes.start(f"newer {kind}", kind)
            processes.end(f"older {kind}")
        until(lambda: newer.get(f"/api/images/{image}")["filename"] == "renamed.png")
        told.append(f"the newer projector has passed it {time.monotonic() - stopped:.1f} s after the older one was told to end")
        technician.end()
        assert technician.failures == []
        processes.end("older api")
        job = newer.run(technician.dataset, None)
        assert list(newer.watch(job))[-1]["succeeded"] == len(technician.uploaded)
        until(lambda: not ready(new_api.base_url).keys() & {"upgrade", "projector", "inference"})
        assert rebuild(settings, check=True).differing == ()
        assert list_dead_letters(settings) == []
        with open_event_store(settings) as log:
            assert verify_log(settings, log).problem is None
        told.append(f"{len(technician.uploaded)} uploads acknowledged, none lost")
    with capsys.disabled():
        print("", *told, sep="\n")


def refusal(client, method, path, **given):
    """Status and message."""
    with pytest.raises(RequestRefused) as refused:
        client.call(method, path, **given)
    return refused.value.status, str(refused.value)


def is_signed_in(client):
    token = client.credentials.access_token
    return httpx.get(f"{client.credentials.url}/api/users/me", headers={"Authorization": f"Bearer {token}"}).is_success


@pytest.mark.long
def test_while_the_api_is_upgraded_last_accounts_can_do_what_both_releases_understand(tmp_path):
    old = older_release(tmp_path / "older", tag=previous_tag(), without=OF_ACCOUNTS, versions={"SessionRevoked": 1})
    (relay,) = (process for process in PROCESSES if process.name == "relay")
    with ExitStack() as stack:
        settings = stack.enter_context(SupervisedStack(stack_settings(tmp_path / "data"), processes=(relay,), prepare=prepare))
        processes = stack.enter_context(Processes(settings, tmp_path))
        with psycopg.connect(settings.postgres_owner_url, autocommit=True) as owner:
            types = owner.execute("select topic from ops.written_types where topic = any(%s) or schema_version > 1", ([*OF_ACCOUNTS],))
            assert "SessionRevoked" not in {topic for (topic,) in types.fetchall()}
        processes.start("newer projector", "projector")
        processes.start("older inference", "inference", folder=old)
        apis = [processes.start("older api", "api", folder=old), processes.start("newer api", "api")]
        until(lambda: declared(settings.postgres_owner_url) == {"api": 2, "projector": 1, "inference": 1})
        until(lambda: all(httpx.get(f"{api.base_url}/health/live").is_success for api in apis))
        address, ada = made_account(settings, "admin", email("admin")), made_account(settings, "researcher", email("ada"))
        older, newer = (stack.enter_context(Client.sign_in(api.base_url, address, PASSWORD)) for api in apis)
        theirs = [stack.enter_context(Client.sign_in(api.base_url, ada, PASSWORD)) for api in apis]
        account = theirs[0].get("/api/users/me")["id"]

        dataset = older.create_dataset("cells")
        for client in (older, newer):
            assert not client.upload(dataset, PICTURES[0]).refused
            assert list(client.watch(client.run(dataset, None)))[-1]["status"] == "completed"
        sessions = f"/api/users/users/{account}/sessions"
        for method, path, body, type_name in (
            ("DELETE", sessions, None, "SessionRevoked version 2"),
            ("POST", "/api/invitations", {"email": "eve@example.org", "role": "viewer"}, "UserInvited"),
            ("POST", "/api/service-accounts", {"name": "microscope"}, "ServiceAccountCreated"),
            ("POST", "/api/keys", {"name": "script", "scopes": ["images:read"]}, "KeyIssued"),
            ("POST", "/api/teams", {"name": "haematology"}, "TeamCreated"),
            ("POST", "/api/auth/forgot-password", {"email": ada}, "PasswordResetRequested"),
            ("POST", "/api/auth/forgot-password", {"email": "nobody@example.org"}, "PasswordResetRequested"),
        ):
            status, message = refusal(newer, method, path, **({"json": body} if body else {}))
            assert status == 503
            assert f"does not understand {type_name}" in message
        newer.call("PATCH", f"/api/users/users/{account}", json={"status": "suspended"})
        for client in theirs:
            until(lambda client=client: not is_signed_in(client))
        newer.call("PATCH", f"/api/users/users/{account}", json={"status": "active"})

        processes.start("newer inference", "inference")
        for name in ("older inference", "older api"):
            processes.end(name)
        ada_again = stack.enter_context(Client.sign_in(apis[1].base_url, ada, PASSWORD))
        until(lambda: not ready(apis[1].base_url).keys() & {"upgrade", "projector", "inference"})
        newer.call("DELETE", sessions)
        until(lambda: not is_signed_in(ada_again))
        newer.call("POST", "/api/invitations", json={"email": "eve@example.org", "role": "viewer"})
        newer.call("POST", "/api/auth/forgot-password", json={"email": ada})

        again = processes.start("older api again", "api", folder=old)
        until(lambda: httpx.get(f"{again.base_url}/health/live").is_success)
        answer = httpx.post(f"{again.base_url}/api/auth/login", json={"email": ada, "password": PASSWORD})
        assert (answer.status_code, "upgrade this process" in answer.text) == (503, True), answer.text
        assert stack.enter_context(Client.sign_in(again.base_url, address, PASSWORD)).get("/api/datasets/")[0]["name"] == "cells"
        assert rebuild(settings, check=True).differing == ()
        assert list_dead_letters(settings) == []
        with open_event_store(settings) as log:
            assert verify_log(settings, log).problem is None
