"""A load generator with limits of requests, connections and time, for an API on loopback only."""

import asyncio
import random
import time
from collections import Counter
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec

CONNECTIONS_MOST = 500  # fewer than the server keeps of one address
REQUESTS_MOST = 400_000
ANSWER_WITHIN = 20.0
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Answered(NamedTuple):
    status: int
    seconds: float
    says_when: bool  # it carries Retry-After


class Heard(msgspec.Struct):
    """What became of all that was sent. `held_back`: what no connection was free for, and was never sent."""

    offered: float
    seconds: float
    answered: list[Answered]
    broken: Counter[str]
    held_back: int = 0

    @property
    def statuses(self):
        return Counter(one.status for one in self.answered)

    @property
    def accepted(self):
        return [one.seconds for one in self.answered if 200 <= one.status < 300]

    @property
    def per_second(self):
        return len(self.accepted) / self.seconds

    def at(self, share):
        """Seconds within which that share of the accepted was answered."""
        found = sorted(self.accepted)
        return found[min(len(found) - 1, int(share * len(found)))] if found else None


class Line:
    """A kept-alive connection."""

    def __init__(self, host, port):
        self._host, self._port, self._streams = host, port, None

    async def ask(self, request):
        """One request and its answer. Raises OSError, IncompleteReadError, TimeoutError; then it connects anew the next time."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                if self._streams is not None and self._streams[0].at_eof():
                    self.close()  # it rested for longer than the server lets one
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._host, self._port)
                reader, writer = self._streams
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
        except BaseException:
            self.close()
            raise
        if b"connection: close" in lines:
            self.close()
        says_when = any(line.startswith(b"retry-after:") for line in lines)
        return Answered(int(head[9:12]), time.perf_counter() - began, says_when)

    def close(self):
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


class Load:
    """Half commands, half queries, of one member; against `url` on loopback. Use `sustained` or `offered`."""

    def __init__(self, url, token, *, seed=1):
        parts = urlsplit(url)
        assert parts.hostname in LOOPBACK, f"{url}: load goes to this machine alone"
        self.place = parts.hostname, parts.port
        self._chance = random.Random(seed)
        self._head = f"Host: {parts.hostname}:{parts.port}\r\nAuthorization: Bearer {token}\r\n"
        self.dataset = ""

    async def sustained(self, *, lines, seconds):
        """What it can take: each of `lines` connections asks again as soon as it was answered."""
        heard, until = self._heard(0.0), time.monotonic() + seconds
        await asyncio.gather(*(self._again_and_again(Line(*self.place), heard, until) for _ in range(lines)))
        heard.seconds = seconds
        heard.offered = len(heard.answered) / seconds
        return heard

    async def offered(self, *, rate, seconds):
        """`rate` requests a second, whether earlier ones were answered or not."""
        assert rate * seconds <= REQUESTS_MOST, "that is more than this generator will ever send"
        heard, idle, made, under_way = self._heard(rate), [], 0, set()
        began = time.monotonic()
        sent = 0
        while (passed := time.monotonic() - began) < seconds:
            while sent < int(rate * passed):
                sent += 1
                if idle:
                    line = idle.pop()
                elif made < CONNECTIONS_MOST:
                    line, made = Line(*self.place), made + 1
                else:
                    heard.held_back += 1
                    continue
                task = asyncio.ensure_future(self._once(line, heard))
                under_way.add(task)
                task.add_done_callback(lambda done, line=line: (under_way.discard(done), idle.append(line)))
            await asyncio.sleep(0.002)
        if under_way:
            await asyncio.wait(under_way, timeout=ANSWER_WITHIN)
        heard.seconds = time.monotonic() - began
        for line in idle:
            line.close()
        return heard

    def command(self):
        body = msgspec.json.encode({"name": f"load {uuid4().hex[:8]}"})
        head = f"POST /api/datasets HTTP/1.1\r\n{self._head}Content-Type: application/json\r\nIdempotency-Key: {uuid4().hex}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def query(self):
        path = self._chance.choice(("/api/datasets?page_size=20", "/api/users/me", "/api/classifications?page_size=20"))
        return f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode()

    async def _again_and_again(self, line, heard, until):
        while time.monotonic() < until:
            await self._once(line, heard)
        line.close()

    async def _once(self, line, heard):
        try:
            heard.answered.append(await line.ask(self.command() if self._chance.random() < 0.5 else self.query()))
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            heard.broken[type(error).__name__] += 1

    @staticmethod
    def _heard(rate):
        return Heard(rate, 0.0, [], Counter())
