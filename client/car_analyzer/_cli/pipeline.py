"""Runs a function on many items in threads, without ever holding all items or all results."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_concurrently(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, *, ordered: bool
) -> Iterator[tuple[Item, Result]]:
    """Call a function for each item, in several threads.

    The items are iterated in the worker threads, so an iterable that blocks does not hold back finished results.

    Args:
        function: Called once for each item.
        items: Each is taken when a worker is free.
        workers: How many calls run at once.
        ordered: Yield the results in the order of the items; otherwise as soon as each is complete.

    Yields:
        Each item with its result.

    Raises:
        BaseException: Whatever the function or the iterable raised first.
    """
    early: dict[int, tuple[Item, Result]] = {}
    due = 0
    for number, item, result in _map_unordered(function, items, workers):
        if not ordered:
            yield item, result
            continue
        early[number] = item, result
        while due in early:
            yield early.pop(due)
            due += 1


def _map_unordered(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[int, Item, Result]]:
    numbered, taking, stopped = enumerate(items), threading.Lock(), threading.Event()
    # Bounded: workers wait while nobody takes results.
    results: queue.Queue[tuple[int, Item, Result] | BaseException | None] = queue.Queue(workers)

    def take() -> tuple[int, Item] | None:
        with taking:
            return None if stopped.is_set() else next(numbered, None)

    def work() -> None:
        try:
            while (task := take()) is not None:
                results.put((*task, function(task[1])))
            results.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            results.put(error)

    # Daemons: after Ctrl-C the process must not wait for calls in flight.
    for _ in range(workers):
        threading.Thread(target=work, daemon=True).start()
    try:
        running = workers
        while running:
            result = results.get()
            if result is None:
                running -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        stopped.set()
