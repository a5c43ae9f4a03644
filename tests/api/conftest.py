"""The web application over real servers, in this process, with a projector in a thread. `api.client(ROLE)` signs a new user in.

Passwords are hashed by the twin, since most tests sign in several users.
"""

import sys
import threading
from itertools import count
from uuid import uuid4

import httpx
import msgspec
import pytest
import structlog

from api.app import create_app
from api.cli.web_options import web_options
from application.accounts import register
from application.ports import Command
from domain.access import Actor, Role
from domain.values import system_actor
from infrastructure.container import passwords, services
from infrastructure.embedded.broker import Broker
from infrastructure.eventstore.event_store import open_event_store
from infrastructure.postgres.wake_ups import PROJECTED, WakeUps
from projections.engine.checkpoints import Checkpoint
from projections.process.composition import projector_over
from tests.api.declared import refuse_undeclared
from tests.given import NOW
from tests.twins.passwords import MemoryPasswords

PASSWORD = "correct horse battery 9"
ORIGIN = "http://web.example.org"
SYSTEM = Actor(id=system_actor("tests"), kind="system")
numbers = count(1)


class ApiWithProjector:
    """An application over `services`; `url` is its address as clients see it."""

    url = "http://127.0.0.1:8000"

    def __init__(self, services, options):
        self.services, self.options = services, options
        self.app = create_app(services, options)

    def with_options(self, **changes):
        """Another application over the same services."""
        return ApiWithProjector(self.services, msgspec.structs.replace(self.options, **changes))

    def with_services(self, **changes):
        """Another application, some of whose services are others."""
        return ApiWithProjector(msgspec.structs.replace(self.services, **changes), self.options)

    def anonymous(self, **headers):
        hooks = {"response": [refuse_undeclared]}
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=self.url, headers=headers, event_hooks=hooks)

    def account(self, role=Role.RESEARCHER):
        """The address of somebody new."""
        name = f"user{next(numbers)}"
        register(
            email=f"{name}@example.org",
            username=name,
            first_name="Ada",
            last_name="Byron",
            password=PASSWORD,
            role=Role(role),
            command=Command(id=uuid4(), actor=SYSTEM, at=NOW),
            log=self.services.log,
            passwords=self.services.passwords,
        )
        return f"{name}@example.org"

    async def client(self, role=Role.RESEARCHER):
        """Somebody new with that role, signed in."""
        return await self.signed_in(self.account(role))

    async def signed_in(self, address):
        http = self.anonymous()
        answer = await http.post("/api/auth/login", json={"email": address, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return http


@pytest.fixture(scope="module", autouse=True)
def _log_of_the_server():
    """Commands send logs to their stderr, which is compared. A server in the same process must not write there."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", lambda **_: None)
        yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def quiet_broker(tmp_path_factory):
    """One for all tests of the API, which only asks whether it is there."""
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker.url


@pytest.fixture
def broker_url(quiet_broker):
    return quiet_broker


@pytest.fixture
def lab_settings(settings):
    return msgspec.structs.replace(
        settings, port=8000, cors_origins=(ORIGIN,), logins_per_minute_account=100, logins_per_minute_address=1000
    )


@pytest.fixture
async def api(lab_settings):
    given = services(lab_settings)
    hasher = MemoryPasswords(service_names=given.passwords.service_names)
    api = ApiWithProjector(msgspec.structs.replace(given, passwords=hasher), web_options(lab_settings))
    stop = threading.Event()
    projecting = threading.Thread(target=project, args=(lab_settings, stop))
    projecting.start()
    try:
        async with api.app.lifespan():
            yield api
    finally:
        stop.set()
        projecting.join()


@pytest.fixture
def api_of_argon2(api, lab_settings):
    """Over the real hasher, as the command line and other processes have it."""
    return api.with_services(passwords=passwords(lab_settings))


def project(settings, stop):
    """Follow the log, as the projector does without Kafka."""
    wakes = WakeUps(settings.postgres_url)
    with open_event_store(settings) as log:
        projector = projector_over(settings.postgres_url, log)
        at = projector.checkpoint()
        while not stop.is_set():
            batch = log.read(at.position, 500)
            if batch:
                at = Checkpoint(batch[-1].position)
                projector.apply(batch, at)
                wakes.send(PROJECTED, str(at.position))
            else:
                stop.wait(0.003)
        projector.close()
    wakes.close()
