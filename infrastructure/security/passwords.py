"""Password hashes with argon2id (RFC 9106). Few run at a time, since each needs memory and a core."""

import base64
import binascii
import hmac
import os
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock
from typing import Final, NamedTuple

from argon2 import Parameters, extract_parameters
from argon2.exceptions import HashingError, InvalidHashError
from argon2.low_level import ARGON2_VERSION, Type, hash_secret_raw

from application.ports import PasswordRequester
from domain.errors import Unavailable
from domain.password import normalised
from domain.values import invalid
from infrastructure.security.common_passwords import is_common

STRENGTHS: Final = {
    "production": Parameters(Type.ID, ARGON2_VERSION, salt_len=16, hash_len=32, time_cost=3, memory_cost=64 * 1024, parallelism=1),
    "embedded": Parameters(Type.ID, ARGON2_VERSION, salt_len=16, hash_len=32, time_cost=2, memory_cost=19456, parallelism=1),
}
MAX_CONCURRENT_HASHES: Final = 2
MAX_QUEUED: Final = 32
QUEUE_SLOTS_FOR_USERS: Final = 8  # reserved places that strangers cannot take
MAX_QUEUED_PER_REQUESTER: Final = 16  # per account, or per network for strangers; a whole institute may share one network
QUEUE_TIMEOUT_SECONDS: Final = 5.0
MAX_PASSWORD_BYTES: Final = 1024
MIN_SALT_BYTES: Final = 8  # argon2 refuses less
MIN_DIGEST_BYTES: Final = 16


class StoredHash(NamedTuple):
    """The parts of an encoded hash. Two hashes with the same parameters and salt are compared at the cost of one."""

    parameters: Parameters
    salt: bytes
    digest: bytes

    def digest_of(self, password_bytes: bytes) -> bytes:
        """The digest of another password with these parameters and this salt. Raises Unavailable if there is not enough memory."""
        cost = self.parameters
        try:
            return hash_secret_raw(
                password_bytes,
                self.salt,
                time_cost=cost.time_cost,
                memory_cost=cost.memory_cost,
                parallelism=cost.parallelism,
                hash_len=cost.hash_len,
                type=cost.type,
                version=cost.version,
            )
        except HashingError:
            raise _busy() from None


class Argon2Passwords:
    """Implements `PasswordHasher`. Blocks for the hash and the queue before it. Thread-safe."""

    def __init__(self, strength: str, *, service_names: Collection[str] = ()) -> None:
        self.service_names = service_names
        self._parameters = STRENGTHS[strength]
        self._dummy = StoredHash(self._parameters, os.urandom(self._parameters.salt_len), os.urandom(self._parameters.hash_len))
        self._queue = BoundedQueue()

    def is_common(self, password: str) -> bool:
        return is_common(password)

    def hash(self, password: str, *, requester: PasswordRequester, like: bytes | None = None) -> bytes:
        """Raises Invalid for more than 1 KiB, and Unavailable."""
        password_bytes = _bytes(password)
        if password_bytes is None:
            raise invalid("password", f"must have at most {MAX_PASSWORD_BYTES} bytes")
        stored = _stored(like) if like is not None else None
        form = stored or StoredHash(self._parameters, os.urandom(self._parameters.salt_len), b"")
        with self._queue.slot(requester):
            return _encoded(form._replace(digest=form.digest_of(password_bytes)))

    def verify(self, password: str, known: bytes | None, *, requester: PasswordRequester) -> bool:
        """Takes the same time with or without a hash, whether it matches or not. Raises Unavailable."""
        return self.matching(password, () if known is None else (known,), requester=requester) is not None

    def matching(self, password: str, candidates: Sequence[bytes], *, requester: PasswordRequester) -> int | None:
        """Takes the same time for any number of candidates, none included, whether one matches or not. Raises Unavailable."""
        password_bytes = _bytes(password)
        stored = [_stored(candidate) for candidate in candidates] if password_bytes is not None else []
        form = next((each for each in stored if each is not None), self._dummy)
        with self._queue.slot(requester):
            digest = form.digest_of(password_bytes or b"")
        equal = [each is not None and each[:2] == form[:2] and hmac.compare_digest(each.digest, digest) for each in stored]
        return equal.index(True) if True in equal else None

    def outdated(self, known: bytes) -> bool:
        stored = _stored(known)
        if stored is None:
            return True
        found, current = stored.parameters, self._parameters
        weaker = found.memory_cost < current.memory_cost or found.time_cost < current.time_cost
        return weaker or found.type is not current.type or found.version < current.version


class BoundedQueue:
    """A semaphore with a short queue. Known users go first; requests beyond the queue are refused."""

    def __init__(self, max_queued: int = MAX_QUEUED, timeout_seconds: float = QUEUE_TIMEOUT_SECONDS) -> None:
        self._max_queued, self._timeout_seconds = max_queued, timeout_seconds
        self._running = 0
        self._users, self._unknown_requesters = deque[Event](), deque[Event]()
        self._waiting = Counter[str]()
        self._lock = Lock()

    @contextmanager
    def slot(self, requester: PasswordRequester) -> Iterator[None]:
        """Wait for a slot. Raises Unavailable if the queue is full, or after the timeout."""
        self._enter(requester)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, requester: PasswordRequester) -> None:
        with self._lock:
            if self._running < MAX_CONCURRENT_HASHES:
                self._running += 1
                return
            slot_granted = self._enqueue(requester)
        slot_granted.wait(self._timeout_seconds)
        with self._lock:
            self._waiting -= Counter([requester.name])  # drops requesters with none
            if not slot_granted.is_set():
                (self._unknown_requesters if requester.is_stranger else self._users).remove(slot_granted)
                raise _busy()

    def _enqueue(self, requester: PasswordRequester) -> Event:
        maximum = self._max_queued - (QUEUE_SLOTS_FOR_USERS if requester.is_stranger else 0)
        if len(self._users) + len(self._unknown_requesters) >= maximum or self._waiting[requester.name] >= MAX_QUEUED_PER_REQUESTER:
            raise _busy()
        self._waiting[requester.name] += 1
        slot_granted = Event()
        (self._unknown_requesters if requester.is_stranger else self._users).append(slot_granted)
        return slot_granted

    def _leave(self) -> None:
        """Pass the slot on to the next in the queue."""
        with self._lock:
            if queue := self._users or self._unknown_requesters:
                queue.popleft().set()
            else:
                self._running -= 1


def _busy() -> Unavailable:
    return Unavailable("Too many sign-ins at the moment; try again in a few seconds", retry_after=5)


def _bytes(password: str) -> bytes | None:
    """The bytes to hash, in NFKC so that all keyboards give the same ones. None if there are too many."""
    if len(password.encode(errors="surrogatepass")) > MAX_PASSWORD_BYTES:
        return None
    return normalised(password).encode(errors="surrogatepass")


def _stored(encoded: bytes) -> StoredHash | None:
    """The parts of a hash in the PHC string format of argon2. None for anything else."""
    try:
        parameters = extract_parameters(encoded.decode())
        salt, digest = (base64.b64decode(part + b"=" * (-len(part) % 4), validate=True) for part in encoded.split(b"$")[-2:])
    except (InvalidHashError, ValueError, binascii.Error):
        return None
    is_in_range = len(salt) >= MIN_SALT_BYTES and len(digest) >= MIN_DIGEST_BYTES and parameters.time_cost > 0 < parameters.parallelism
    return StoredHash(parameters, salt, digest) if is_in_range else None


def _encoded(stored: StoredHash) -> bytes:
    cost, salt, digest = stored.parameters, *(base64.b64encode(part).decode().rstrip("=") for part in stored[1:])
    form = f"v={cost.version}$m={cost.memory_cost},t={cost.time_cost},p={cost.parallelism}"
    return f"$argon2{cost.type.name.lower()}${form}${salt}${digest}".encode()
