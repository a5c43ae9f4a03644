"""A child process of the pool, as its parent sees it: one call at a time, with a time limit."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, BinaryIO, Final

import msgspec
import structlog

from domain.errors import Unavailable
from domain.values import printable
from infrastructure.inference.children.fork_server import CHILD_READY, LENGTH, Answer, Borrow, Call, Raised, Returned

log = structlog.get_logger()
Provider = Callable[[], Awaitable[bytes | BinaryIO]]
Lent = Provider | BinaryIO
"""What a call may borrow. A file is sent piece by piece, so that this process never holds the whole of it. A provider is asked once in a
call; the file that it opened is closed at the end of the call."""

START_TIMEOUT_SECONDS: Final = 30.0  # imports included
MAX_ANSWER_BYTES: Final = 64 * 1024**2
PIECE_BYTES: Final = 1024**2
MAX_BORROWS: Final = 8  # in one call
BYTES_OF_LENGTH_32: Final = b"\xc6"  # the first byte of bytes in msgpack, before four bytes of their length
ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


class ChildLost(Exception):
    """The child died during this call, which may have caused it."""


class ChildHung(ChildLost):
    """The child exceeded the time limit of the call and was killed."""


class InvalidAnswer(ChildLost):
    """The child gave an invalid answer and was killed."""


class NotSandboxed(OSError):
    """A child could not enter its sandbox and has ended."""


class PoolClosed(Exception):
    """The pool was closed during or before the call."""


class ChildFailed(Exception):
    """The called function raised an exception: its class `kind` and message `detail`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


async def started_child(pid: int, handle: int, link: socket.socket) -> "ChildProcess":
    """A child that is ready for calls. Raises NotSandboxed, ConnectionResetError."""
    child = ChildProcess(pid, handle, *await asyncio.open_connection(sock=link))
    await child.started()
    return child


class ChildProcess:
    """One child process, which runs one call at a time."""

    def __init__(self, pid: int, handle: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid, self._handle = pid, handle
        self._reader, self._writer = reader, writer

    async def started(self) -> None:
        """Wait until the child is in its sandbox. Raises NotSandboxed or ConnectionResetError, after which the child has ended."""
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

    async def call(self, call: Call, *, lend: Mapping[str, Lent], hang_seconds: float) -> msgspec.Raw:
        """Run a call; return the encoded result. `hang_seconds` limits the time of the child, without that of the providers in `lend`.

        Raises ChildLost, ChildHung, InvalidAnswer, ChildFailed, and what a provider raises.
        """
        with ExitStack() as opened:
            return await self._called(call, lend, hang_seconds, opened)

    async def _called(self, call: Call, lend: Mapping[str, Lent], hang_seconds: float, opened: ExitStack) -> msgspec.Raw:
        refused: Exception | None = None
        message: object = call
        borrows, provided = 0, dict[str, bytes | BinaryIO | None]()
        seconds, now = hang_seconds, asyncio.get_running_loop().time
        while True:
            started = now()
            answer = await self._exchange(message, seconds, allowed=hang_seconds)
            seconds -= now() - started
            match answer:
                case Borrow(key):
                    borrows += 1
                    if borrows > MAX_BORROWS:
                        self.kill()
                        raise InvalidAnswer(f"more than {MAX_BORROWS} requests for files in one call")
                    try:
                        if key not in provided and refused is None:
                            provided[key] = await _provided(lend.get(key), opened)
                    except Exception as error:  # raised once the child has ended the call
                        refused = error
                    message = provided.get(key)
                case Returned(value):
                    if refused is not None:
                        raise refused
                    return value
                case Raised(kind, detail, is_exhausted):
                    if is_exhausted:
                        self.kill()
                    raise refused or ChildFailed(kind, printable(detail))

    async def _exchange(self, message: object, seconds: float, *, allowed: float) -> Answer:
        """Send a message, or a file as bytes, and receive the answer. Raises Unavailable for a file that cannot be read."""
        frame = None if _is_file(message) else msgspec.msgpack.encode(message)
        try:
            async with asyncio.timeout(seconds):
                if frame is None:
                    await self._send_file(message)
                else:
                    self._writer.write(len(frame).to_bytes(LENGTH))
                    self._writer.write(frame)
                del frame
                await self._writer.drain()
                return await self._received()
        except BaseException as error:
            self.kill()
            log.warning("child killed", pid=self.pid, reason=f"{type(error).__name__}: {error}")
            match error:
                case TimeoutError():
                    raise ChildHung(f"no answer within {allowed:g} s") from None
                case OSError() | asyncio.IncompleteReadError():
                    raise ChildLost("the process died") from None
            raise

    async def _send_file(self, file: Any) -> None:
        """As bytes in msgpack, which the child receives as one frame."""
        size = await asyncio.to_thread(_rewound, file)
        head = BYTES_OF_LENGTH_32 + size.to_bytes(4)
        self._writer.write((len(head) + size).to_bytes(LENGTH) + head)
        for start in range(0, size, PIECE_BYTES):
            self._writer.write(await asyncio.to_thread(_piece, file, min(PIECE_BYTES, size - start)))
            await self._writer.drain()

    async def _received(self) -> Answer:
        """The next answer. Raises InvalidAnswer, asyncio.IncompleteReadError."""
        size = int.from_bytes(await self._reader.readexactly(LENGTH))
        if size > MAX_ANSWER_BYTES:
            raise InvalidAnswer(f"an answer of {size} bytes; at most {MAX_ANSWER_BYTES} are allowed")
        frame = await self._reader.readexactly(size)
        try:
            return ANSWERS.decode(frame)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidAnswer(f"an answer that cannot be decoded: {error}") from None

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


async def _provided(lent: Lent | None, opened: ExitStack) -> bytes | BinaryIO | None:
    if lent is None or not callable(lent):
        return lent
    provided = await lent()
    return provided if isinstance(provided, bytes) else opened.enter_context(provided)


def _is_file(message: object) -> bool:
    return hasattr(message, "read")


def _rewound(file: BinaryIO) -> int:
    """The size of a file, which is read from its start next."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size


def _piece(file: BinaryIO, size: int) -> bytes:
    try:
        piece = file.read(size)
    except OSError as error:
        raise Unavailable(f"A file that a child needs cannot be read ({error.strerror}); try again") from None
    if len(piece) != size:
        raise Unavailable("A file that a child needs became shorter; try again")
    return piece
