"""How many calls a window takes: counted in Redis for all processes together, and in the process itself.

A refusal by Redis holds, for one window at most. What Redis accepts is counted in this process too: a Redis that loses its data or answers
falsely allows no more than one that is away.
"""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock
from typing import Final

import redis
import structlog

from domain.errors import TooMany
from infrastructure.keys import Keys
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import KeyedDigest

log = structlog.get_logger()

CONNECT_WITHIN: Final = 0.25  # seconds
ANSWER_WITHIN: Final = 0.5  # seconds
REST: Final = 2.0  # seconds without a try after Redis did not answer
NAME_BYTES: Final = 20  # the id of the key, and half of the MAC
SHORTER: Final = 0.9  # the window of a call that Redis took: it is counted here a moment later than there, and must be free no later
KEYS_MOST: Final = 100_000  # kept in the process; those that rested longest go first

# The times (microseconds) of the newest calls of a key, newest first. 0: the call is taken, else the microseconds until one is free.
# What cannot be the time of a call counts as none: another type, no number, a time to come (of a forger, or of a clock that was set back).
TAKE: Final = """
local time = redis.call('time')
local now = time[1] * 1000000 + time[2]
local most, window = tonumber(ARGV[1]), ARGV[2] * 1000000
if redis.call('type', KEYS[1])['ok'] ~= 'list' then redis.call('del', KEYS[1]) end
local oldest = tonumber(redis.call('lindex', KEYS[1], most - 1) or 0) or 0
if oldest <= now and oldest + window > now then return oldest + window - now end
redis.call('lpush', KEYS[1], now)
redis.call('ltrim', KEYS[1], 0, most - 1)
redis.call('pexpire', KEYS[1], ARGV[2] * 1000)
return 0
"""


class LocalLimits:
    """The port `Limits` within one process: its in-memory twin, and what counts while Redis is away."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def take(self, key: str, *, most: int, seconds: float) -> None:
        with self._lock:
            calls = self._calls.setdefault(key, deque())
            self._calls.move_to_end(key)
            now = self._clock()
            if len(calls) >= most and calls[-most] + seconds > now:
                raise _too_many(calls[-most] + seconds - now)
            calls.append(now)
            while len(calls) > most:
                calls.popleft()
            if len(self._calls) > KEYS_MOST:
                self._calls.popitem(last=False)


class RedisLimits:
    """The port `Limits`. Blocks for an answer of Redis, half a second at most. Keys stand in Redis as HMACs: they name people."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_connect_timeout=CONNECT_WITHIN, socket_timeout=ANSWER_WITHIN, health_check_interval=30, protocol=2
        )
        self._script = self._redis.register_script(TAKE)
        self._digest = KeyedDigest(keys, Purpose.RATE_LIMITS)
        self._local = LocalLimits()
        self._away_until = 0.0

    def close(self) -> None:
        self._redis.close()

    def take(self, key: str, *, most: int, seconds: int) -> None:
        wait = self._wait(key, most, seconds) if time.monotonic() >= self._away_until else None
        if wait is not None and wait > 0:
            raise _too_many(min(wait, seconds))
        self._local.take(key, most=most, seconds=seconds if wait is None else seconds * SHORTER)

    def _wait(self, key: str, most: int, seconds: int) -> float | None:
        """Seconds until a call is free; 0 when this one was; None when Redis does not say."""
        name = "limit:" + self._digest.of(key.encode(errors="surrogatepass"))[:NAME_BYTES].hex()
        try:
            return float(self._script(keys=[name], args=[most, seconds])) / 1e6
        except (redis.RedisError, OSError) as error:
            self._away_until = time.monotonic() + REST
            log.warning("limits are counted in the process: Redis is away", error=type(error).__name__)
            return None


def _too_many(seconds: float) -> TooMany:
    wait = max(1, math.ceil(round(seconds, 3)))
    return TooMany(f"Too many attempts; try again in {wait} s", retry_after=wait)
