"""A TCP proxy in front of a real server, for faults of the network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl


class Proxy:
    """Relays TCP connections to a port on this machine.

    Attributes:
        cut: How many of the next connections are closed as soon as they are accepted.
        replies: For each of the next connections, the response in place of the server's.
        connections: How many have been accepted.
        stalled: Set as soon as a frozen proxy holds back data.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self.cut = 0
        self.replies: list[bytes] = []
        self.connections = 0
        self.stalled = threading.Event()
        self._target = target
        self._tls = tls
        self._socket = _bind(0)
        self.port = int(self._socket.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def listen(self) -> Proxy:
        """Accept connections."""
        self._do(self._listen())
        return self

    def refuse(self) -> None:
        """Refuse new connections and cut the open ones."""
        self._do(self._refuse())

    def retarget(self, target: int) -> None:
        """Relay the next connections to another port."""
        self._target = target

    def freeze(self) -> None:
        """Hold back all data, and keep the connections open."""
        self.stalled.clear()
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def thaw(self) -> None:
        """Relay again, first the data that was held back."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def close(self) -> None:
        """Cut all connections and stop."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._closing.wait())
            self._loop.run_until_complete(self._refuse())
            self._loop.run_until_complete(self._end())
        finally:
            self._loop.close()

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._socket.dup(), ssl=self._tls)

    async def _refuse(self) -> None:
        if self._server is not None:
            # A server that is closed before an accepted connection has its transport leaves it open.
            for listener in self._server.sockets:
                self._loop.remove_reader(listener.fileno())
            await asyncio.sleep(0)
            self._server.close()
            self._server = None
            # Every duplicate of a listening socket goes on listening: a new socket takes over the port.
            self._socket.close()
            self._socket = _bind(self.port)
        await asyncio.sleep(0)  # connections that were just accepted get their tasks
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self) -> None:
        # A connection that was just accepted gets its task only a few rounds later, and a closed loop leaves it open.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(others, timeout=0.1)
        await asyncio.sleep(0)  # aborted connections close in the next round

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs in one
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._answer(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            self.cut -= 1
        elif self.replies:
            reply = self.replies.pop(0)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
            await reader.read()
        else:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                ways = [asyncio.ensure_future(self._relay(*way)) for way in ((reader, back), (there, writer))]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
            finally:
                back.transport.abort()

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if not self._flowing.is_set():
                self.stalled.set()
            await self._flowing.wait()
            sink.write(data)
            await sink.drain()


def _bind(port: int) -> socket.socket:
    """A bound socket that does not listen: the port is ours, and connections to it are refused."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound
