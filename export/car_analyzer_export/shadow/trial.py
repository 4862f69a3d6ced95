"""Has gateways send a share of their photos to a version that is loaded beside the served one."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from car_analyzer_server import signals

from ..checking.text import count
from ..errors import PublishError
from ..repository.publishing.control import TRIAL
from .gateway import GatewayUnreachableError
from .outcome import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .gateway import Gateway
    from .outcome import Outcome

POLL_S = 1.0
# Less than the time after which a gateway ends the comparison.
PATIENCE_S = 30.0


@dataclass
class ShadowTrial:
    """A comparison on real photos.

    Attributes:
        gateways: At least one.
        share: The share of their photos that the version gets, too.
        photos: How many photos to compare, of all gateways together.
        agree: The share of photos that must get the same label from both versions, for each head.
        timeout: How long to wait for so many photos, in seconds.
        keep_photos: Whether to read the photos that got different labels.
        done: Called with the outcome and the reason to reject the version, or None.
        watch: Called with the number of photos so far.
        outcome: The last result.
    """

    gateways: Sequence[Gateway]
    share: float
    photos: int
    agree: float
    timeout: float
    keep_photos: bool
    done: Callable[[Outcome, str | None], None]
    watch: Callable[[int], object] = lambda _photos: None
    outcome: Outcome | None = None
    _seen: dict[str, float] = field(default_factory=dict)

    def check(self, served: str | None) -> None:
        """Makes sure that all gateways can compare; see `Gateway.check`."""
        for gateway in self.gateways:
            gateway.check(served)

    def run(self, served: str | None, candidate: str | None) -> None:
        """Compares the version that is loaded as `TRIAL`.

        Args:
            served: The export id of the served version.
            candidate: That of the new one.

        Raises:
            PublishError: The answers differ too often, or it could not be found out.
        """
        order: dict[str, Any] = {"model": TRIAL, "exportId": candidate, "servedExportId": served}
        order |= {"share": self.share, "photos": self.photos}
        with self._running(order):
            late = not self._wait()
            self.outcome = outcome = self._read()
        reason = self._reason(outcome, late=late)
        self.done(outcome, reason)
        if reason is not None:
            raise PublishError(reason)

    @contextlib.contextmanager
    def _running(self, order: dict[str, Any]) -> Iterator[None]:
        started: list[Gateway] = []
        try:
            for gateway in self.gateways:
                gateway.start(order)
                started.append(gateway)
            yield
        finally:
            with signals.deferred():
                for gateway in started:
                    with contextlib.suppress(GatewayUnreachableError):  # it ends by itself
                        gateway.stop()

    def _wait(self) -> bool:
        """Waits for enough photos, or until the outcome is certain; returns False if the time is over."""
        deadline = time.monotonic() + self.timeout
        states: dict[str, dict[str, Any]] = {}
        while True:
            for gateway in self.gateways:
                if (state := self._state(gateway)) is not None:
                    states[gateway.url] = state
            outcome = merge(list(states.values()))
            self.watch(outcome.photos)
            # The same division as for the agreement, so that both round alike.
            highest = (self.photos - outcome.misses()) / self.photos
            if outcome.photos >= self.photos or highest < self.agree:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)

    def _state(self, gateway: Gateway) -> dict[str, Any] | None:
        """A gateway's counts; None if it does not answer at the moment."""
        now = time.monotonic()
        try:
            state = gateway.state()
        except GatewayUnreachableError:
            if now > self._seen.setdefault(gateway.url, now) + PATIENCE_S:
                raise
            return None
        self._seen[gateway.url] = now
        return state

    def _read(self) -> Outcome:
        states = [gateway.state(is_full=True) for gateway in self.gateways]
        photos: list[dict[int, bytes]] = [{} for _ in states]
        for gateway, state, kept in zip(self.gateways, states, photos, strict=True):
            numbers = [one["photo"] for one in state["differences"]] if self.keep_photos else []
            for number in numbers:
                if number is not None and (content := gateway.photo(number)) is not None:
                    kept[number] = content
        return merge(states, photos)

    def _reason(self, outcome: Outcome, *, late: bool) -> str | None:
        if late:
            return (
                f"Only {count(outcome.photos, 'photo')} of {self.photos:,} came through the gateway within "
                f"{self.timeout:g} s, so the new version was not judged. Raise --shadow or --shadow-timeout, or lower "
                "--shadow-photos."
            )
        below = [head for head in outcome.heads.values() if head.agreement < self.agree]
        sentences = [f"{head.name}: {head.summary}, below {self.agree:.1%}." for head in below]
        if outcome.errors:
            codes = ", ".join(f"{code} ({number:,})" for code, number in outcome.errors.most_common())
            sentences.append(f"{count(outcome.errors.total(), 'photo')} got no answer from the new version: {codes}.")
        if below or (outcome.errors and not outcome.heads):
            return " ".join(["On real photos, the new version answers otherwise than the served one.", *sentences])
        if not outcome.heads:
            return "The new version has no head of the served one, so there is nothing to compare on real photos."
        return None
