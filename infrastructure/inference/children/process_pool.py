"""A pool of child processes for work that may crash, hang or eat memory: a call that does ends alone, and its child is replaced."""

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
    NotSandboxed,
    PoolClosed,
    Provider,
    started_child,
)
from infrastructure.inference.children.fork_server import READY, Call, ChildLimits
from infrastructure.inference.children.memory_shortage import children_go_first

log = structlog.get_logger()
T = TypeVar("T")


class ForkServer:
    """The process that children are forked from; it imports `modules` once, and they share the memory. It dies with us, they with it.

    The kernel watches the thread that started it: use it from an event loop whose thread lives as long as the process.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._lock, self._closed = asyncio.Lock(), False
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def child(self, terms: ChildLimits) -> "ChildProcess":
        """A new one in its sandbox, within milliseconds once the fork server runs.

        Raises OSError when there is no way, NotSandboxed (one of them), PoolClosed after `close`.
        """
        async with self._lock:
            try:
                return await self._born(terms)
            except OSError:
                if self._closed:  # meanwhile
                    raise PoolClosed from None
                raise

    async def _born(self, terms: ChildLimits) -> "ChildProcess":
        for attempt in (1, 2):
            if self._closed:
                raise PoolClosed
            if self._process is None or self._process.poll() is not None:
                await self._start()
            own_end, child_end = socket.socketpair()
            try:
                pid, handle = await asyncio.to_thread(self._fork, terms, child_end)
                child_end.close()  # while it is open here, the child's death before its first answer is not noticed
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
        """It ends, and all its children; there will be no other."""
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
            raise OSError("the fork server of the inference pool does not start; its last words stand above")

    def _spawned(self, argv: list[str], descriptor: int) -> subprocess.Popen[bytes]:
        """In this very thread: see above."""
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
    """`size` children at most, made when first needed; those used last are used next, so that a quiet pool stays small."""

    def __init__(self, fork_server: ForkServer, *, size: int, nice: int, memory_bytes: int, hang_seconds: float) -> None:
        self.size = size
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
        lend: Mapping[str, Provider] | None = None,
    ) -> T:
        """Call `function` (`module:name`) in a child and return its result, decoded as `into`; waits for a free child.

        A file or a model may have taken the child over: `check` raises ValueError for a result that cannot be true. Within the call the
        function may `borrow` what `lend` names. Raises ChildLost, ChildHung, WrongAnswer (all three: the child is gone and the others
        go on), ChildFailed (the function raised), PoolClosed, NotSandboxed, and what a lender raises.
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
            if self._closed and child is not None:
                child.kill()
            self._idle.put_nowait(child)

    async def _replaced(self, dead: ChildProcess | None) -> ChildProcess:
        if dead is not None:
            dead.kill()
        return await self._fork_server.child(self._terms)

    def close(self) -> None:
        """End the idle children; those at work end with the fork server, their calls and all later ones as PoolClosed."""
        self._closed = True
        for child in [self._idle.get_nowait() for _ in range(self._idle.qsize())]:
            if child is not None:
                child.kill()
            self._idle.put_nowait(None)


def _validated(child: ChildProcess, value: msgspec.Raw, into: type[T], check: Callable[[T], object]) -> T:
    try:
        result = msgspec.msgpack.decode(value, type=into)
        check(result)
    except (msgspec.MsgspecError, ValueError) as error:
        child.kill()
        log.warning("child given up", pid=child.pid, reason=f"wrong answer: {error}")
        raise InvalidAnswer(f"the result cannot be true: {error}") from None
    return result
