"""The whole system, started once: every process and server as `bioscope up` starts them."""

from itertools import count
from uuid import uuid4

import msgspec
import pytest

from api.cli.client.api_client import Client
from api.cli.stack import prepare
from application.accounts import register
from application.ports import Command
from domain.access import Actor, Role
from domain.values import system_actor
from infrastructure.configuration.settings import Settings
from infrastructure.container import passwords
from infrastructure.embedded.supervisor import SupervisedStack
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.keys import RootKey
from tests.given import NOW

ORIGIN = "http://web.example.org"
PASSWORD = "correct horse battery 9"
SYSTEM = Actor(id=system_actor("tests"), kind="system")
numbers = count(1)


def email(name):
    return f"{name}-{next(numbers)}@example.org"


def stack_settings(data):
    return Settings(data=data, port=0, cors_origins=(ORIGIN,), inference_processes=2)


def event_log(settings):
    root = RootKey.read(settings.root_key_path)
    return RecorderEventStore(PostgresRecorder(settings.postgres_url, root), root)


def made_account(settings, role, address):
    """A new account with that role."""
    name = address.partition("@")[0]
    log = event_log(settings)
    try:
        register(
            email=address,
            username=name,
            first_name="Ada",
            last_name="Byron",
            password=PASSWORD,
            role=Role(role),
            command=Command(id=uuid4(), actor=SYSTEM, at=NOW),
            log=log,
            passwords=passwords(settings),
        )
    finally:
        log.close()
    return address


@pytest.fixture(scope="session")
def system(tmp_path_factory):
    """The supervisor; its settings change when the broker dies."""
    started = SupervisedStack(stack_settings(tmp_path_factory.mktemp("system")), prepare=prepare)
    with started:
        yield started


@pytest.fixture(scope="session")
def stack(system):
    """The settings of the running system."""
    return system.settings


@pytest.fixture(scope="session")
def admin(stack):
    address = made_account(stack, "admin", email("admin"))
    with Client.sign_in(stack.base_url, address, PASSWORD) as client:
        yield client


@pytest.fixture(scope="session")
def researcher(stack):
    address = made_account(stack, "researcher", email("researcher"))
    with Client.sign_in(stack.base_url, address, PASSWORD) as client:
        yield client


@pytest.fixture(scope="session")
def own_stack(tmp_path_factory):
    """Start a system of a test's own: `with own_stack() as (stack, settings)`."""

    def start(**changes):
        return SupervisedStack(msgspec.structs.replace(stack_settings(tmp_path_factory.mktemp("own")), **changes), prepare=prepare)

    return start
