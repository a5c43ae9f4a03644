"""Rate limits: calls per window, counted in Redis for all processes, and in each process.

A refusal by Redis is final, for one window at most. A call that Redis accepts is also counted in this process. So a Redis that loses its
data or gives false answers allows no more calls than one that is unavailable.
"""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any, Final, NamedTuple

import msgspec
import redis
import structlog
from redis.commands.core import Script

from application.ports import RateLimit
from domain.errors import TooMany
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import KeyedDigest
from infrastructure.security.keys import Keys

log = structlog.get_logger()

NAME_BYTES: Final = 20  # the key id and the first 16 bytes of the MAC
LOCAL_DELAY_SECONDS: Final = 1.0
"""A local window is shorter than in Redis by this, or by a tenth. The call is counted later here, but must not be freed later."""
MAX_KEYS: Final = 100_000  # kept in the process; the least recently used are dropped

# A list for each key holds the times (microseconds) of its last calls, newest first. A positive result is the number of microseconds until
# a call is allowed; nothing was counted. Otherwise the call was counted, and the result is its negated time. Invalid entries are ignored:
# another type, no number, a time in the future (forged, or written before the clock was set back).
TAKE_SCRIPT: Final = """
local time = redis.call('time')
local now = time[1] * 1000000 + time[2]
local longest = 0
for i, key in ipairs(KEYS) do
  local most, window = tonumber(ARGV[2 * i - 1]), ARGV[2 * i] * 1000000
  if redis.call('type', key)['ok'] ~= 'list' then redis.call('del', key) end
  local oldest = tonumber(redis.call('lindex', key, most - 1) or 0) or 0
  if oldest <= now and oldest + window > now then longest = math.max(longest, oldest + window - now) end
end
if longest > 0 then return longest end
for i, key in ipairs(KEYS) do
  redis.call('lpush', key, now)
  redis.call('ltrim', key, 0, ARGV[2 * i - 1] - 1)
  redis.call('pexpire', key, ARGV[2 * i] * 1000)
end
return -now
"""
GIVE_BACK_SCRIPT: Final = "for _, key in ipairs(KEYS) do redis.call('lrem', key, 1, ARGV[1]) end return 0"


class LocalRateLimiter:
    """Implements `RateLimiter` within one process, also while Redis is unavailable. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def take(self, *limits: RateLimit) -> Callable[[], None]:
        with self._lock:
            now = self._clock()
            if (wait := max(self._wait(limit, now) for limit in limits)) > 0:
                raise _too_many(wait)
            for limit in limits:
                self._count(limit, now)
        return partial(self._give_back, [limit.key for limit in limits], now)

    def _wait(self, limit: RateLimit, now: float) -> float:
        """Seconds until a call is allowed."""
        calls = self._calls.get(limit.key, ())
        return calls[-limit.maximum] + limit.seconds - now if len(calls) >= limit.maximum else 0.0

    def _count(self, limit: RateLimit, now: float) -> None:
        calls = self._calls.setdefault(limit.key, deque())
        self._calls.move_to_end(limit.key)
        calls.append(now)
        while len(calls) > limit.maximum:
            calls.popleft()
        if len(self._calls) > MAX_KEYS:
            self._calls.popitem(last=False)

    def _give_back(self, keys: Sequence[str], time: float) -> None:
        with self._lock:
            for key in keys:
                calls = self._calls.get(key, deque())
                if time in calls:
                    calls.remove(time)
                if not calls:
                    self._calls.pop(key, None)


class RedisTimeouts(NamedTuple):
    """Timeouts of Redis. After one, Redis is not called for `retry_seconds`."""

    connect_seconds: float = 0.25
    answer_seconds: float = 0.5
    retry_seconds: float = 2.0


DEFAULT_TIMEOUTS: Final = RedisTimeouts()


class RedisRateLimiter:
    """Implements `RateLimiter`. Blocks for at most half a second. Redis receives HMACs of keys, since keys contain personal data."""

    def __init__(
        self, url: str, keys: Keys, *, timeouts: RedisTimeouts = DEFAULT_TIMEOUTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeouts, self._clock = timeouts, clock
        self._redis = redis.Redis.from_url(
            url,
            socket_connect_timeout=timeouts.connect_seconds,
            socket_timeout=timeouts.answer_seconds,
            health_check_interval=30,
            protocol=2,
        )
        self._take_script = self._redis.register_script(TAKE_SCRIPT)
        self._give_back_script = self._redis.register_script(GIVE_BACK_SCRIPT)
        self._digest = KeyedDigest(keys, Purpose.RATE_LIMITS)
        self._local = LocalRateLimiter(clock=clock)
        self._retry_at = 0.0

    def close(self) -> None:
        self._redis.close()

    def take(self, *limits: RateLimit) -> Callable[[], None]:
        names = [self._name(limit.key) for limit in limits]
        answer = self._run_script(self._take_script, names, [part for limit in limits for part in (limit.maximum, limit.seconds)])
        if answer is not None and answer > 0:
            raise _too_many(min(answer / 1e6, max(limit.seconds for limit in limits)))
        try:
            local = self._local.take(*(limits if answer is None else map(_shortened, limits)))
        except TooMany:
            self._give_back(names, answer, lambda: None)
            raise
        return partial(self._give_back, names, answer, local)

    def _give_back(self, names: Sequence[str], answer: int | None, local: Callable[[], None]) -> None:
        local()
        if answer is not None:
            self._run_script(self._give_back_script, names, [-answer])

    def _name(self, key: str) -> str:
        return "limit:" + self._digest.of(key.encode(errors="surrogatepass"))[:NAME_BYTES].hex()

    def _run_script(self, script: Script, names: Sequence[str], arguments: Sequence[Any]) -> int | None:
        """The result of the script; None while Redis is unavailable."""
        if self._clock() < self._retry_at:
            return None
        try:
            answer = script(keys=names, args=arguments)
        except (redis.RedisError, OSError) as error:
            self._retry_at = self._clock() + self._timeouts.retry_seconds
            log.warning("Redis is unavailable, rate limits are counted in this process", error=type(error).__name__)
            return None
        return answer if isinstance(answer, int) else None


def _shortened(limit: RateLimit) -> RateLimit:
    return msgspec.structs.replace(limit, seconds=limit.seconds - min(LOCAL_DELAY_SECONDS, limit.seconds / 10))


def _too_many(seconds: float) -> TooMany:
    wait = max(1, math.ceil(round(seconds, 3)))
    return TooMany(f"Too many attempts; try again in {wait} s", retry_after=wait)
