"""A pool of child processes for calls that may crash, hang or use too much memory. Only that call fails; its child is replaced."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
import structlog

from infrastructure import sandbox
from infrastructure.child_environment import ONE_THREAD, PRIVATE_UMASK, python_environment
from infrastructure.inference.children.child_process import (
    START_TIMEOUT_SECONDS,
    ChildLost,
    ChildProcess,
    InvalidAnswer,
    Lent,
    NotSandboxed,
    PoolClosed,
    started_child,
)
from infrastructure.inference.children.fork_server import READY, Call, ChildLimits
from infrastructure.inference.children.memory_shortage import children_go_first

log = structlog.get_logger()
T = TypeVar("T")


class ForkServer:
    """The process that forks the children. It imports `modules` once, and the children share that memory.

    It dies with this process, and the children die with it. The kernel watches the thread that started it, so it must be used on an event
    loop whose thread lives as long as the process.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._lock, self._closed = asyncio.Lock(), False
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def child(self, terms: ChildLimits) -> "ChildProcess":
        """A new child in its sandbox, within milliseconds once the fork server runs.

        Raises OSError if that is impossible, including NotSandboxed, and PoolClosed after `close`.
        """
        async with self._lock:
            try:
                return await self._fork_with_retry(terms)
            except OSError:
                if self._closed:
                    raise PoolClosed from None
                raise

    async def _fork_with_retry(self, terms: ChildLimits) -> "ChildProcess":
        for attempt in (1, 2):
            if self._closed:
                raise PoolClosed
            if self._process is None or self._process.poll() is not None:
                await self._start()
            own_end, child_end = socket.socketpair()
            try:
                pid, handle = await asyncio.to_thread(self._fork, terms, child_end)
                child_end.close()  # else the death of the child before its first answer is not noticed
                return await started_child(pid, handle, own_end)
            except BaseException as error:
                own_end.close()
                if attempt == 2 or isinstance(error, NotSandboxed) or not isinstance(error, OSError):
                    raise
                self._end()
            finally:
                child_end.close()
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the fork server and all its children. It cannot be used any more."""
        self._closed = True
        self._end()

    async def _start(self) -> None:
        self._end()
        own_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own_end.settimeout(START_TIMEOUT_SECONDS)
        code = "from infrastructure.inference.children.fork_server import main; main()"
        layers = msgspec.json.encode(await asyncio.to_thread(sandbox.supported)).decode()
        argv = [sys.executable, "-P", "-c", code, str(child_end.fileno()), str(os.getpid()), layers, *self._modules]
        with child_end:
            self._process = self._spawned(argv, child_end.fileno())
        self._control = own_end
        if await asyncio.to_thread(own_end.recv, len(READY)) != READY:
            raise OSError("the fork server of the inference pool does not start; the log above contains its error")

    def _spawned(self, argv: list[str], descriptor: int) -> subprocess.Popen[bytes]:
        """Start the process on this thread, since it dies with the thread that started it."""
        environment = python_environment(os.environ) | ONE_THREAD
        with children_go_first():
            return subprocess.Popen(argv, pass_fds=[descriptor], env=environment, stdin=subprocess.DEVNULL, umask=PRIVATE_UMASK)

    def _fork(self, terms: ChildLimits, child_end: socket.socket) -> tuple[int, int]:
        if (control := self._control) is None:
            raise ConnectionResetError("the fork server was closed")
        socket.send_fds(control, [msgspec.msgpack.encode(terms)], [child_end.fileno()])
        pid, handles, _, _ = socket.recv_fds(control, 32, 1)
        if not handles:
            raise ConnectionResetError("the fork server has ended")
        return int(pid), handles[0]

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class ProcessPool:
    """At most `size` children, started when needed. The last used child is used first, so that an idle pool stays small.

    With `single_use`, each call has a child of its own, which can neither keep anything of an earlier call nor spoil a later one.
    """

    def __init__(
        self, fork_server: ForkServer, *, size: int, nice: int, memory_bytes: int, hang_seconds: float, single_use: bool = False
    ) -> None:
        self.size, self._single_use = size, single_use
        self._fork_server, self._terms, self._hang_seconds = fork_server, ChildLimits(nice, memory_bytes), hang_seconds
        self._closed = False
        self._idle: asyncio.LifoQueue[ChildProcess | None] = asyncio.LifoQueue()
        for _ in range(size):
            self._idle.put_nowait(None)

    async def run(
        self,
        function: str,
        *arguments: object,
        into: type[T],
        check: Callable[[T], object] = lambda _: None,
        lend: Mapping[str, Lent] | None = None,
    ) -> T:
        """Call `function` (`module:name`) in a free child; return its result, decoded as `into`.

        A file or a model may have compromised the child, so `check` raises ValueError for an implausible result. The function may
        `borrow` the bytes and files in `lend`. Raises ChildLost, ChildHung or InvalidAnswer (the child was
        killed; others are not affected), ChildFailed (the function raised), PoolClosed, NotSandboxed, and what a provider raises.
        """
        call = Call(function, msgspec.Raw(msgspec.msgpack.encode(arguments)))
        child = await self._idle.get()
        try:
            if self._closed:
                raise PoolClosed
            if child is None or not child.alive:
                child = await self._replaced(child)
            value = await child.call(call, lend=lend or {}, hang_seconds=self._hang_seconds)
            return _validated(child, value, into, check)
        except ChildLost:
            if self._closed:
                raise PoolClosed from None
            raise
        finally:
            if (self._closed or self._single_use) and child is not None:
                child.kill()
            self._idle.put_nowait(child)

    async def _replaced(self, dead: ChildProcess | None) -> ChildProcess:
        if dead is not None:
            dead.kill()
        return await self._fork_server.child(self._terms)

    def close(self) -> None:
        """End the idle children. Busy ones end with the fork server; their calls and all later ones raise PoolClosed."""
        self._closed = True
        for child in [self._idle.get_nowait() for _ in range(self._idle.qsize())]:
            if child is not None:
                child.kill()
            self._idle.put_nowait(None)


def _validated(child: ChildProcess, value: msgspec.Raw, into: type[T], check: Callable[[T], object]) -> T:
    try:
        result = msgspec.msgpack.decode(value, type=into)
        check(result)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        child.kill()
        log.warning("child killed", pid=child.pid, reason=f"invalid answer: {error}")
        raise InvalidAnswer(f"the result is not plausible: {error}") from None
    return result
