"""The fork server: a process that has imported the libraries and forks the children. The parent only uses the message types."""

import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from inspect import signature
from io import BufferedRWPair, FileIO
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from infrastructure import sandbox
from infrastructure.inference.children.memory_shortage import CHILD_SCORE, OWN_SCORE
from infrastructure.inference.children.memory_use import limit_memory
from infrastructure.process_lifecycle import die_with_parent

LENGTH: Final = 8  # bytes of the length before each frame
READY: Final = b"ready"
MAX_MESSAGE: Final = 1024
MAX_KIND_LENGTH: Final = 64
MAX_DETAIL_LENGTH: Final = 1000
MAX_KEY_LENGTH: Final = 128


class ChildLimits(msgspec.Struct, frozen=True):
    """Limits of a child: its niceness, and the memory in bytes beyond its initial size."""

    nice: int
    memory: int


class Call(msgspec.Struct, frozen=True):
    """A call of `function` (`module:name`). `arguments` is an encoded list that matches its type hints."""

    function: str
    arguments: msgspec.Raw


class Returned(msgspec.Struct, frozen=True, tag=True):
    value: msgspec.Raw


class Raised(msgspec.Struct, frozen=True, tag=True):
    """The call raised an exception. A child that `is_exhausted` ends too."""

    kind: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z", max_length=MAX_KIND_LENGTH)]
    detail: Annotated[str, Meta(max_length=MAX_DETAIL_LENGTH)]
    is_exhausted: bool


class Borrow(msgspec.Struct, frozen=True, tag=True):
    """A request for the bytes that the parent provides under `key`. The next frame contains them, or nil."""

    key: Annotated[str, Meta(max_length=MAX_KEY_LENGTH)]


Answer = Returned | Raised | Borrow
CHILD_READY: Final = Returned(msgspec.Raw(msgspec.msgpack.encode(None)))
"""The first answer of a child: it is in its sandbox."""


class NotLent(Exception):
    """The parent does not provide these bytes."""


def borrow(key: str) -> memoryview:
    """The bytes that the caller provides under `key`, not copied. For functions in a child. Raises NotLent."""
    assert _parent is not None
    send(_parent, Borrow(key))
    frame = receive(_parent)
    lent = msgspec.msgpack.decode(frame, type=memoryview | None) if frame is not None else None
    if lent is None:
        raise NotLent(key)
    return lent


def send(stream: Any, message: object) -> None:
    frame = msgspec.msgpack.encode(message)
    stream.write(len(frame).to_bytes(LENGTH))
    stream.write(frame)
    stream.flush()


def receive(stream: Any) -> bytearray | None:
    """The next frame; None if the other side has closed the connection. A large one takes its own memory only, and not twice as much."""
    head = stream.read(LENGTH)
    if len(head) < LENGTH:
        return None
    frame = bytearray(int.from_bytes(head))
    return frame if stream.readinto(frame) == len(frame) else None


def main() -> None:
    """`python -c "...main()" DESCRIPTOR PARENT LAYERS MODULE...`: import the modules, report ready, and fork a child per request.

    LAYERS are the sandbox layers that each child enters, as JSON.
    """
    descriptor, parent, layers, *modules = sys.argv[1:]
    die_with_parent(int(parent))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # handled by the parent, which finishes its work and then closes this process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for module in modules:
        import_module(module)
    entered = msgspec.json.decode(layers, type=sandbox.Layers)
    sandbox.enter_empty_directory()
    gc.collect()
    gc.freeze()  # so that a collection in a child does not copy shared memory
    with socket.socket(fileno=int(descriptor)) as control:
        control.send(READY)
        while _fork_one(control, entered):
            pass


def _fork_one(control: socket.socket, layers: sandbox.Layers) -> bool:
    """Receive limits and a connection, fork a child, and send its handle. False if the parent has closed the connection."""
    message, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 1)
    if not message:
        return False
    (connection,) = descriptors
    own_pid = os.getpid()  # read before the fork, since an orphaned child has another parent
    pid = os.fork()
    if pid == 0:
        control.close()
        _run_child(connection, msgspec.msgpack.decode(message, type=ChildLimits), layers, fork_server=own_pid)
    os.close(connection)
    handle = os.pidfd_open(pid)
    socket.send_fds(control, [str(pid).encode()], [handle])
    os.close(handle)
    return True


# ---- in the child ------------------------------------------------------------------------------------------------------------------
_parent: Any = None


def _run_child(connection: int, terms: ChildLimits, layers: sandbox.Layers, *, fork_server: int) -> None:
    global _parent
    try:
        die_with_parent(fork_server)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.nice(terms.nice)
        with suppress(OSError):  # inherited below a confined process
            Path(OWN_SCORE).write_text(CHILD_SCORE)
        limit_memory(terms.memory)
        _parent = BufferedRWPair(FileIO(connection, "rb", closefd=False), FileIO(connection, "wb", closefd=False))
        if _is_sandboxed(layers):
            send(_parent, CHILD_READY)
            while (frame := receive(_parent)) is not None and _run_call(frame):
                pass
    finally:
        os._exit(0)  # skips the exit handlers of the libraries


def _is_sandboxed(layers: sandbox.Layers) -> bool:
    """Enter the sandbox. A child that cannot reports that to its parent and does not continue."""
    _close_output()
    try:
        sandbox.enter(layers)
    except (OSError, ValueError) as error:
        send(_parent, Raised("NotSandboxed", str(error)[:MAX_DETAIL_LENGTH], is_exhausted=True))
        receive(_parent)  # wait until the parent has received the handle and closed the connection
        return False
    return True


def _close_output() -> None:
    """Close standard streams, so that a child cannot forge log lines."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)


def _run_call(frame: bytearray) -> bool:
    """Run one call. False if the child must end because it is out of memory."""
    try:
        call = msgspec.msgpack.decode(frame, type=Call)
        function = _function_of(call.function)
        del frame
        value = function.call(*function.decoded(call.arguments))
        send(_parent, Returned(msgspec.Raw(msgspec.msgpack.encode(value))))
    except MemoryError:
        send(_parent, Raised("MemoryError", "out of memory", is_exhausted=True))
        return False
    except Exception as error:  # process boundary: reported to the parent
        send(_parent, Raised(type(error).__name__, str(error)[:MAX_DETAIL_LENGTH], is_exhausted=False))
    return True


class _Function(NamedTuple):
    """A function for children. `types` are those of its arguments, of which the first `required` have no default."""

    call: Callable[..., object]
    types: tuple[Any, ...]
    required: int

    def decoded(self, arguments: msgspec.Raw) -> list[Any]:
        """Raises msgspec.ValidationError."""
        found = msgspec.msgpack.decode(arguments, type=list[msgspec.Raw])
        if not self.required <= len(found) <= len(self.types):
            raise msgspec.ValidationError(f"the function takes {len(self.types)} arguments, not {len(found)}")
        return [msgspec.msgpack.decode(one, type=expected) for one, expected in zip(found, self.types, strict=False)]


@cache
def _function_of(function: str) -> _Function:
    module, _, name = function.partition(":")
    found: Callable[..., object] = getattr(import_module(module), name)
    hints = get_type_hints(found)
    hints.pop("return", None)
    required = [one for one in signature(found).parameters.values() if one.default is one.empty]
    return _Function(found, tuple(hints.values()), len(required))
