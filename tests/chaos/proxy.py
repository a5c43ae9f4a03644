"""A TCP link that can delay, drop, reset, throttle or half-close connections without telling the peers."""

import asyncio
import contextlib
import socket
import struct
import threading

PIECE = 64 * 1024
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset
STORAGE_FULL = (
    b"HTTP/1.1 507 Insufficient Storage\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: 87\r\n\r\n"
    b"<?xml version='1.0'?><Error><Code>StorageFull</Code><Message>full</Message></Error>    "
)
GIVEN_UP_AFTER = 11.0  # seconds until a server's keepalive ends a connection whose client is mute
KINDS = ("delay", "drop", "reset", "half-open", "throttle")


class Link:
    """Between clients of `address` and `upstream` ("host:port", or the path of a socket). One thread serves it; calls are from any other.

    delay     each piece waits 50 to 300 ms, each way
    drop      nothing passes, as if each packet were lost; what waited goes on afterwards
    reset     connections are reset in the middle of what they carry, new ones too
    half-open connections go mute for ever for the client, and the server gives them up in time; new ones are mute while it lasts
    throttle  8 KiB a second
    full      an HTTP server that says that it is full
    cut       a body is passed in part, then the connection is reset
    """

    def __init__(self, name, upstream, *, chance, port=0):
        self.name, self._upstream, self._chance = name, upstream, chance
        self._kind, self._mended = None, asyncio.Event()
        self._mended.set()
        self._open = set()
        self._loop = asyncio.new_event_loop()
        self._listening = socket.create_server(("127.0.0.1", port), backlog=256)
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, name=f"link {name}", daemon=True)
        self._thread.start()

    def spoil(self, kind):
        """Until `mend`; connections under way when it begins: how many."""
        return asyncio.run_coroutine_threadsafe(self._spoil(kind), self._loop).result(5)

    def mend(self):
        asyncio.run_coroutine_threadsafe(self._spoil(None), self._loop).result(5)

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _spoil(self, kind):
        self._kind = kind
        under_way = len(self._open)
        if kind is None:
            self._mended.set()
            return under_way
        self._mended.clear()
        for pair in list(self._open):
            if kind == "half-open":
                pair.mute = True
                self._loop.call_later(GIVEN_UP_AFTER, pair.give_up)
            if kind == "reset":
                pair.reset()
        return under_way

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(asyncio.start_server(self._serve, sock=self._listening))
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._listening.close()
        self._loop.close()

    async def _serve(self, reader, writer):
        pair, ways = Pair(writer, mute=self._kind == "half-open"), []
        self._open.add(pair)
        try:
            if self._kind == "reset":
                pair.reset()
                return
            there, here = await self._connected()
            pair.writers.append(here)
            if pair.mute:
                self._loop.call_later(GIVEN_UP_AFTER, pair.give_up)
            ways += [asyncio.ensure_future(self._carry(pair, *way)) for way in ((reader, here, True), (there, writer, False))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if pair.mute:
                await _never()  # until the link is closed: the client must not be told
            await asyncio.wait(ways, timeout=1.0)
        except OSError:
            pair.reset()  # the server behind is away
        except asyncio.CancelledError:
            return  # the link is closed; asyncio's streams would make a traceback of it
        finally:
            for way in ways:
                way.cancel()
            self._open.discard(pair)
            pair.close()

    async def _connected(self):
        if self._upstream.startswith("/"):
            return await asyncio.open_unix_connection(self._upstream)
        host, _, port = self._upstream.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _carry(self, pair, reader, writer, outward):
        passed = 0
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                passed += len(piece)
                if not await self._passes(pair, piece, passed, outward):
                    return
                if self._kind == "throttle":
                    await self._throttled(piece, writer)
                    continue
                writer.write(piece)
                await writer.drain()
            if pair.mute:
                return  # the other end is not told
            if writer.can_write_eof():
                writer.write_eof()

    async def _passes(self, pair, piece, passed, outward):
        """Whether it may go on: what is swallowed is swallowed here."""
        if pair.mute:
            return await _never()
        match self._kind:
            case "delay":
                await asyncio.sleep(self._chance.uniform(0.05, 0.3))
            case "drop":
                await self._mended.wait()
            case "half-open":
                return await _never()
            case "full" if outward and piece.startswith((b"PUT ", b"POST ")):
                pair.writers[0].write(STORAGE_FULL)
                await pair.writers[0].drain()
                return False
            case "cut" if outward and passed > 6000:
                pair.writers[1].write(piece[: len(piece) // 2])
                await pair.writers[1].drain()
                pair.reset()
                return False
        return not pair.gone

    async def _throttled(self, piece, writer):
        for at in range(0, len(piece), 1024):
            writer.write(piece[at : at + 1024])
            await writer.drain()
            if self._kind == "throttle":
                await asyncio.sleep(0.125)


class Pair:
    """A client's connection and ours to the server."""

    def __init__(self, writer, *, mute):
        self.writers, self.mute, self.gone = [writer], mute, False

    def reset(self):
        self.gone = True
        for writer in self.writers:
            with contextlib.suppress(OSError, AttributeError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            writer.transport.abort()

    def give_up(self):
        """As the server's end does; the client's stays open."""
        for writer in self.writers[1:]:
            writer.transport.abort()

    def close(self):
        for writer in self.writers:
            with contextlib.suppress(Exception):
                writer.close()


async def _never():
    await asyncio.Event().wait()
