"""The JSON of explained answers, with pictures that a web page lays over the photo."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any

import anyio

from car_analyzer import DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from car_analyzer import Analysis

    from ._upload import Upload


class Turns:
    """Lets so many photos be explained at once; further ones wait."""

    def __init__(self, at_once: int) -> None:
        self._free = asyncio.Semaphore(at_once)

    @contextlib.asynccontextmanager
    async def take(self, upload: Upload) -> AsyncIterator[None]:
        """Wait for a turn, within the time that the upload's answer has left.

        Raises:
            DeadlineExceededError: There was no turn in time.
        """
        try:
            with anyio.fail_after(upload.time_left):
                await self._free.acquire()
        except TimeoutError:
            raise DeadlineExceededError("other photos were being explained until the deadline") from None
        try:
            yield
        finally:
            self._free.release()


def explanations(analysis: Analysis, *, with_maps: bool) -> dict[str, Any]:
    """Each head's explanation. This draws pictures, which takes milliseconds.

    Args:
        analysis: An analysis with explanations.
        with_maps: Add each label's map, from which the pictures are drawn.
    """
    found = {}
    for name, head in analysis.heads.items():
        if head.explanation is not None:
            heat_map = base64.b64encode(head.explanation.heat_map()).decode()
            found[name] = head.explanation.to_dict() | {"overlay": f"data:image/png;base64,{heat_map}"}
            if with_maps:
                found[name]["maps"] = {label: values.tolist() for label, values in head.explanation.maps.items()}
    return found
