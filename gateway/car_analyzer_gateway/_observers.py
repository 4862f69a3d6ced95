"""What looks at photos after they were answered, such as the collection."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from car_analyzer import Analysis


@dataclass(frozen=True)
class AnsweredPhoto:
    """A photo and its answer.

    Attributes:
        request_id: The request's id; from the second photo of a request on, with the photo's number: `abc-2`.
        photo: The bytes that were analysed.
        analysis: The answer.
        time: When it was given, in seconds since 1970.
    """

    request_id: str
    photo: bytes
    analysis: Analysis
    time: float = field(default_factory=time.time)


class Observer(Protocol):
    """Sees each answered photo. Nothing that it does may delay an answer, or make it fail."""

    async def open(self) -> None:
        """Start, on the event loop. What is missing is logged, and tried again later."""

    def see(self, answered: AnsweredPhoto) -> None:
        """Take note of a photo, before its answer is sent.

        Returns at once: what takes time is done elsewhere, and within bounds.
        """

    async def close(self) -> None:
        """Complete what is begun, within a few seconds, and end."""
