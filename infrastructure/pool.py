"""A pool of child processes for work that may crash, hang or eat memory: a call that does ends alone, and its child is replaced."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, TypeVar

import msgspec
import structlog

from domain.values import printable
from infrastructure import sandbox
from infrastructure.child_environment import ONE_THREAD, PRIVATE_UMASK, python_environment
from infrastructure.memory_shortage import children_go_first
from infrastructure.nursery import BORN, LENGTH, READY, Answer, Call, Done, Raised, Terms, Wanted

log = structlog.get_logger()
T = TypeVar("T")
Lender = Callable[[], Awaitable[bytes]]

BORN_WITHIN: Final = 30.0  # seconds, imports included
MAX_ANSWER_BYTES: Final = 64 * 1024**2
ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


class ChildLost(Exception):
    """The child died while it worked on this call: the call may have killed it."""


class ChildHung(ChildLost):
    """The child took too long over this call, and was killed."""


class WrongAnswer(ChildLost):
    """The child answered what no honest child does, and was killed."""


class NotSandboxed(OSError):
    """A child could not enter its sandbox, and has ended."""


class PoolClosed(Exception):
    """There are no children any more, through no fault of the call."""


class ChildFailed(Exception):
    """The call raised; `kind` is the exception's class, `detail` what it said."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


class Nursery:
    """The process that children are forked from; it imports `modules` once, and they share the memory. It dies with us, they with it.

    The kernel watches the thread that started it: use it from an event loop whose thread lives as long as the process.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._lock, self._closed = asyncio.Lock(), False
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def child(self, terms: Terms) -> "Child":
        """A new one in its sandbox, within milliseconds once the nursery runs.

        Raises OSError when there is no way, NotSandboxed (one of them), PoolClosed after `close`.
        """
        async with self._lock:
            try:
                return await self._born(terms)
            except OSError:
                if self._closed:  # meanwhile
                    raise PoolClosed from None
                raise

    async def _born(self, terms: Terms) -> "Child":
        for attempt in (1, 2):
            if self._closed:
                raise PoolClosed
            if self._process is None or self._process.poll() is not None:
                await self._start()
            ours, theirs = socket.socketpair()
            try:
                pid, handle = await asyncio.to_thread(self._fork, terms, theirs)
                theirs.close()  # while the child's end is open here, its death before the first answer is not noticed
                return await _born_child(pid, handle, ours)
            except BaseException as error:
                ours.close()
                if attempt == 2 or isinstance(error, NotSandboxed) or not isinstance(error, OSError):
                    raise
                self._end()
            finally:
                theirs.close()
        raise AssertionError("unreachable")

    def close(self) -> None:
        """It ends, and all its children; there will be no other."""
        self._closed = True
        self._end()

    async def _start(self) -> None:
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(BORN_WITHIN)
        code = "from infrastructure.nursery import main; main()"
        layers = msgspec.json.encode(await asyncio.to_thread(sandbox.supported)).decode()
        argv = [sys.executable, "-P", "-c", code, str(theirs.fileno()), str(os.getpid()), layers, *self._modules]
        with theirs:
            self._process = self._spawned(argv, theirs.fileno())
        self._control = ours
        if await asyncio.to_thread(ours.recv, len(READY)) != READY:
            raise OSError("the nursery of the inference pool does not start; its last words stand above")

    def _spawned(self, argv: list[str], descriptor: int) -> subprocess.Popen[bytes]:
        """In this very thread: see above."""
        environment = python_environment(os.environ) | ONE_THREAD
        with children_go_first():
            return subprocess.Popen(argv, pass_fds=[descriptor], env=environment, stdin=subprocess.DEVNULL, umask=PRIVATE_UMASK)

    def _fork(self, terms: Terms, theirs: socket.socket) -> tuple[int, int]:
        if (control := self._control) is None:
            raise ConnectionResetError("the nursery was closed")
        socket.send_fds(control, [msgspec.msgpack.encode(terms)], [theirs.fileno()])
        pid, handles, _, _ = socket.recv_fds(control, 32, 1)
        if not handles:
            raise ConnectionResetError("the nursery has ended")
        return int(pid), handles[0]

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


async def _born_child(pid: int, handle: int, link: socket.socket) -> "Child":
    """Raises NotSandboxed, ConnectionResetError."""
    child = Child(pid, handle, *await asyncio.open_connection(sock=link))
    await child.born()
    return child


class Child:
    """One process; one call at a time."""

    def __init__(self, pid: int, handle: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid, self._handle = pid, handle
        self._reader, self._writer = reader, writer

    async def born(self) -> None:
        """Wait until it is in its sandbox. Raises NotSandboxed, ConnectionResetError; the child is gone then."""
        try:
            async with asyncio.timeout(BORN_WITHIN):
                answer = await self._received()
        except (TimeoutError, asyncio.IncompleteReadError, WrongAnswer):
            self.kill()
            raise ConnectionResetError("a child ended before its first call") from None
        except BaseException:
            self.kill()
            raise
        if answer != BORN:
            self.kill()
            raise NotSandboxed(f"a child could not enter its sandbox: {answer.detail if isinstance(answer, Raised) else answer}")

    async def call(self, call: Call, *, lend: Mapping[str, Lender], hang_seconds: float) -> msgspec.Raw:
        """What the function returned, encoded. `hang_seconds`: how long the child may take, without what the lenders take.

        Raises ChildLost, ChildHung, WrongAnswer, ChildFailed, and what a lender raises.
        """
        refused: Exception | None = None
        message: object = call
        seconds, now = hang_seconds, asyncio.get_running_loop().time
        while True:
            started = now()
            answer = await self._exchange(message, seconds, allowed=hang_seconds)
            seconds -= now() - started
            match answer:
                case Wanted(key):
                    try:
                        message = await lend[key]() if key in lend else None
                    except Exception as error:  # told to our caller once the child has given up
                        message, refused = None, error
                case Done(value):
                    return value
                case Raised(kind, detail, spent):
                    if spent:
                        self.kill()
                    raise refused or ChildFailed(kind, printable(detail))

    async def _exchange(self, message: object, seconds: float, *, allowed: float) -> Answer:
        frame = msgspec.msgpack.encode(message)
        try:
            async with asyncio.timeout(seconds):
                self._writer.write(len(frame).to_bytes(LENGTH))
                self._writer.write(frame)
                del frame
                await self._writer.drain()
                return await self._received()
        except BaseException as error:
            self.kill()
            log.warning("child given up", pid=self.pid, reason=f"{type(error).__name__}: {error}")
            match error:
                case TimeoutError():
                    raise ChildHung(f"no answer within {allowed:g} s") from None
                case OSError() | asyncio.IncompleteReadError():
                    raise ChildLost("the process died") from None
            raise

    async def _received(self) -> Answer:
        """Raises WrongAnswer, asyncio.IncompleteReadError."""
        size = int.from_bytes(await self._reader.readexactly(LENGTH))
        if size > MAX_ANSWER_BYTES:
            raise WrongAnswer(f"an answer of {size} bytes; at most {MAX_ANSWER_BYTES} are taken")
        frame = await self._reader.readexactly(size)
        try:
            return ANSWERS.decode(frame)
        except msgspec.MsgspecError as error:
            raise WrongAnswer(f"an answer that cannot be read: {error}") from None

    @property
    def alive(self) -> bool:
        return self._handle >= 0 and not self._reader.at_eof()

    def kill(self) -> None:
        if self._handle < 0:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        os.close(self._handle)
        self._handle = -1
        self._writer.close()


class Pool:
    """`size` children at most, made when first needed; those used last are used next, so that a quiet pool stays small."""

    def __init__(self, nursery: Nursery, *, size: int, nice: int, memory_bytes: int, hang_seconds: float) -> None:
        self.size = size
        self._nursery, self._terms, self._hang_seconds = nursery, Terms(nice, memory_bytes), hang_seconds
        self._closed = False
        self._idle: asyncio.LifoQueue[Child | None] = asyncio.LifoQueue()
        for _ in range(size):
            self._idle.put_nowait(None)

    async def run(
        self,
        function: str,
        *arguments: object,
        into: type[T],
        check: Callable[[T], object] = lambda _: None,
        lend: Mapping[str, Lender] | None = None,
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
            return _believed(child, value, into, check)
        except ChildLost:
            if self._closed:
                raise PoolClosed from None
            raise
        finally:
            if self._closed and child is not None:
                child.kill()
            self._idle.put_nowait(child)

    async def _replaced(self, dead: Child | None) -> Child:
        if dead is not None:
            dead.kill()
        return await self._nursery.child(self._terms)

    def close(self) -> None:
        """End the idle children; those at work end with the nursery, their calls and all later ones as PoolClosed."""
        self._closed = True
        for child in [self._idle.get_nowait() for _ in range(self._idle.qsize())]:
            if child is not None:
                child.kill()
            self._idle.put_nowait(None)


def _believed(child: Child, value: msgspec.Raw, into: type[T], check: Callable[[T], object]) -> T:
    try:
        result = msgspec.msgpack.decode(value, type=into)
        check(result)
    except (msgspec.MsgspecError, ValueError) as error:
        child.kill()
        log.warning("child given up", pid=child.pid, reason=f"wrong answer: {error}")
        raise WrongAnswer(f"the result cannot be true: {error}") from None
    return result
