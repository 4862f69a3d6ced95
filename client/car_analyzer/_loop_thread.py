"""An event loop on its own thread, with which blocking code runs the asyncio client."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

    from ._client import AsyncCarAnalyzer

T = TypeVar("T")


class LoopThread:
    """Runs the coroutines of one client, submitted from any thread.

    The thread is a daemon: a program that does not close its client can still exit.
    """

    def __init__(self, client: AsyncCarAnalyzer) -> None:
        self.client = client
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="car-analyzer", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the loop.

        Raises:
            RuntimeError: The loop is stopped.
        """
        # With the lock, nothing can be queued after the stop, where it would never run.
        with self._lock:
            if not self._stopped:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise RuntimeError("this client is closed")

    def stop(self) -> None:
        """Start to cancel what runs, close the client, and end the thread."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        """Wait for the thread to end."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        # Not asyncio.run: it starts a thread when it ends, which fails while the interpreter shuts down.
        try:
            self._loop.run_until_complete(self._wait_and_close())
        finally:
            self._loop.close()

    async def _wait_and_close(self) -> None:
        await self._stop.wait()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self.client.close()
        await self._loop.shutdown_asyncgens()
