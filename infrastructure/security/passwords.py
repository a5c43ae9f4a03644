"""Password hashes with argon2id (RFC 9106). Few run at a time, since each needs memory and a core."""

import base64
import hmac
import os
import unicodedata
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock
from typing import Final

from argon2 import Parameters, PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION, Type, hash_secret

from application.ports import PasswordRequester
from domain.errors import Unavailable
from domain.values import invalid

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


class Argon2Passwords:
    """Implements `PasswordHasher`. Blocks for the hash and the queue before it. Thread-safe."""

    def __init__(self, strength: str) -> None:
        self._parameters = STRENGTHS[strength]
        self._hasher = PasswordHasher.from_parameters(self._parameters)
        self._dummy_hash = _dummy_hash_of(self._parameters)
        self._queue = BoundedQueue()

    def hash(self, password: str, *, requester: PasswordRequester, like: bytes | None = None) -> bytes:
        """Raises Invalid for more than 1 KiB, and Unavailable."""
        password_bytes = _bytes(password)
        if password_bytes is None:
            raise invalid("password", f"must have at most {MAX_PASSWORD_BYTES} bytes")
        with self._queue.slot(requester):
            return self._hasher.hash(password_bytes).encode() if like is None else _hashed_like(like, password_bytes)

    def matching(self, password: str, candidates: Sequence[bytes], *, requester: PasswordRequester) -> int | None:
        """Raises Unavailable."""
        password_bytes = _bytes(password)
        pattern = candidates[0] if candidates else self._dummy_hash
        with self._queue.slot(requester):
            computed = _hashed_like(pattern, password_bytes or b"")
        matches = [hmac.compare_digest(computed, candidate) for candidate in candidates]
        return matches.index(True) if password_bytes is not None and any(matches) else None

    def verify(self, password: str, known: bytes | None, *, requester: PasswordRequester) -> bool:
        """Takes the same time with or without a hash, whether it matches or not. Raises Unavailable."""
        password_bytes = _bytes(password)
        real = known is not None and password_bytes is not None
        with self._queue.slot(requester):
            return self._fits(known if real and known else self._dummy_hash, password_bytes or b"") and real

    def _fits(self, known: bytes, password_bytes: bytes) -> bool:
        try:
            return self._hasher.verify(known, password_bytes)
        except (VerificationError, InvalidHashError):
            return False

    def outdated(self, known: bytes) -> bool:
        try:
            stored = extract_parameters(known.decode())
        except (InvalidHashError, ValueError):
            return True
        weaker = stored.memory_cost < self._parameters.memory_cost or stored.time_cost < self._parameters.time_cost
        return weaker or stored.type is not self._parameters.type or stored.version < self._parameters.version


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


def _hashed_like(known: bytes, password_bytes: bytes) -> bytes:
    """The hash of the password with the salt and the parameters of `known`."""
    text = known.decode()
    cost, salt = extract_parameters(text), text.split("$")[4]
    computed = hash_secret(
        secret=password_bytes,
        salt=base64.b64decode(salt + "=" * (-len(salt) % 4)),
        time_cost=cost.time_cost,
        memory_cost=cost.memory_cost,
        parallelism=cost.parallelism,
        hash_len=cost.hash_len,
        type=cost.type,
        version=cost.version,
    )
    return bytes(computed)


def _busy() -> Unavailable:
    return Unavailable("Too many sign-ins at the moment; try again in a few seconds", retry_after=5)


def _bytes(password: str) -> bytes | None:
    """The bytes to hash, in NFKC so that all keyboards give the same ones. None if there are too many."""
    if len(password.encode(errors="surrogatepass")) > MAX_PASSWORD_BYTES:
        return None
    return unicodedata.normalize("NFKC", password).encode(errors="surrogatepass")


def _dummy_hash_of(cost: Parameters) -> bytes:
    """A hash with these parameters that no known password matches, made from random bytes."""
    salt, digest = (base64.b64encode(os.urandom(size)).decode().rstrip("=") for size in (cost.salt_len, cost.hash_len))
    return f"$argon2id$v={cost.version}$m={cost.memory_cost},t={cost.time_cost},p={cost.parallelism}${salt}${digest}".encode()
