import pytest

from application.limits.sign_in_attempts import SignInLimits
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.security.keys import RootKey
from infrastructure.security.rate_limits import LocalRateLimiter
from tests.twins.event_store import MemoryRecorder
from tests.twins.known_addresses import MemoryKnownAddresses
from tests.twins.passwords import MemoryPasswords
from tests.twins.refresh_tokens import MemoryRefreshTokens

ROOT = RootKey(bytes(32))


@pytest.fixture
def log():
    return RecorderEventStore(MemoryRecorder(ROOT), ROOT)


@pytest.fixture
def passwords():
    return MemoryPasswords()


@pytest.fixture
def tokens():
    return MemoryRefreshTokens()


@pytest.fixture
def sign_in_limits():
    return SignInLimits(limits=LocalRateLimiter(), known_addresses=MemoryKnownAddresses())
