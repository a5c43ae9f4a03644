"""A child process of the pool, as its parent sees it: one call at a time, with a limit of time."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec
import structlog

from domain.values import printable
from infrastructure.inference.children.fork_server import CHILD_READY, LENGTH, Answer, Borrow, Call, Raised, Returned

log = structlog.get_logger()
Provider = Callable[[], Awaitable[bytes]]

START_TIMEOUT_SECONDS: Final = 30.0  # imports included
MAX_ANSWER_BYTES: Final = 64 * 1024**2
ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


class ChildLost(Exception):
    """The child died while it worked on this call: the call may have killed it."""


class ChildHung(ChildLost):
    """The child took too long over this call, and was killed."""


class InvalidAnswer(ChildLost):
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


async def started_child(pid: int, handle: int, link: socket.socket) -> "ChildProcess":
    """Raises NotSandboxed, ConnectionResetError."""
    child = ChildProcess(pid, handle, *await asyncio.open_connection(sock=link))
    await child.started()
    return child


class ChildProcess:
    """One process; one call at a time."""

    def __init__(self, pid: int, handle: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid, self._handle = pid, handle
        self._reader, self._writer = reader, writer

    async def started(self) -> None:
        """Wait until it is in its sandbox. Raises NotSandboxed, ConnectionResetError; the child is gone then."""
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                answer = await self._received()
        except (TimeoutError, asyncio.IncompleteReadError, InvalidAnswer):
            self.kill()
            raise ConnectionResetError("a child ended before its first call") from None
        except BaseException:
            self.kill()
            raise
        if answer != CHILD_READY:
            self.kill()
            raise NotSandboxed(f"a child could not enter its sandbox: {answer.detail if isinstance(answer, Raised) else answer}")

    async def call(self, call: Call, *, lend: Mapping[str, Provider], hang_seconds: float) -> msgspec.Raw:
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
                case Borrow(key):
                    try:
                        message = await lend[key]() if key in lend else None
                    except Exception as error:  # told to our caller once the child has given up
                        message, refused = None, error
                case Returned(value):
                    return value
                case Raised(kind, detail, is_exhausted):
                    if is_exhausted:
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
            raise InvalidAnswer(f"an answer of {size} bytes; at most {MAX_ANSWER_BYTES} are taken")
        frame = await self._reader.readexactly(size)
        try:
            return ANSWERS.decode(frame)
        except msgspec.MsgspecError as error:
            raise InvalidAnswer(f"an answer that cannot be read: {error}") from None

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
