from types import SimpleNamespace

import pytest

from application.limits.sign_in_attempts import SignInLimits
from domain.registry import EVENTS
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.keys import RootKey
from infrastructure.security.mail_links import KeyedMailLinks
from infrastructure.security.rate_limits import LocalRateLimiter
from tests.given import NOW
from tests.older_release import without
from tests.rigs.links import Links
from tests.twins.event_store import MemoryRecorder
from tests.twins.known_addresses import MemoryKnownAddresses
from tests.twins.passwords import MemoryPasswords
from tests.twins.refresh_tokens import MemoryRefreshTokens

ROOT = RootKey(bytes(32))


@pytest.fixture
def log():
    return RecorderEventStore(MemoryRecorder(ROOT), ROOT)


@pytest.fixture
def log_of_two_releases():
    """A log that an older process follows, too, which does not understand the types."""

    def log_of_two_releases(*types):
        names = [kind.__name__ for kind in types]
        with without(*names):
            recorder = MemoryRecorder(ROOT)
        recorder.capabilities["older"] = {name: kind.schema_version for name, kind in EVENTS.items() if name not in names}
        return RecorderEventStore(recorder, ROOT)

    return log_of_two_releases


@pytest.fixture
def passwords():
    return MemoryPasswords()


@pytest.fixture
def tokens():
    return MemoryRefreshTokens()


@pytest.fixture
def links(log, passwords, sign_in_limits):
    """The links of mails."""
    ports = SimpleNamespace(log=log, passwords=passwords, sign_in_limits=sign_in_limits, mail_links=KeyedMailLinks(ROOT))
    return Links(ports, clock=lambda: NOW)


@pytest.fixture
def sign_in_limits():
    return SignInLimits(limits=LocalRateLimiter(), known_addresses=MemoryKnownAddresses())
