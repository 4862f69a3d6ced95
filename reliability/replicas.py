"""Several Tritons behind one name and behind Envoy: their shares of the photos, and losses when one goes or comes.

Every answer is compared with PyTorch's.
"""

from __future__ import annotations

import contextlib
import operator
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .fleet import Fleet, Replica, envoy, with_private_hosts
from .harness import Row, SkipError, add_repository, announce, export_demo, make_parser, report
from .load import Load, Transport, async_sdk, gateway, sdk
from .reference import reference_photos
from .service import Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

# No replica may get more of the photos.
LARGEST_SHARE = 0.6
FOUND_WITHIN_S = 30.0
# Photos a second on each route, where all routes are used at once.
RATE = 8.0
KINDS = ("name", "gateway", "envoy")


@dataclass(frozen=True)
class Route:
    """One way to reach the fleet."""

    name: str
    transport: Transport
    url: str

    def load(self, rate: float | None = None) -> Load:
        """Photos on this route."""
        return Load(self.url, reference_photos(), workers=2, rate=rate, transport=self.transport)


def main(argv: list[str] | None = None) -> int:
    """Runs the trial; returns the exit code."""
    given = sys.argv[1:] if argv is None else argv
    parser = make_parser("replicas", __doc__)
    parser.add_argument("--photos", type=int, default=100, metavar="N", help="on each route, each time; %(default)s")
    parser.add_argument("--only", action="append", choices=KINDS, help="one kind of route; may be repeated")
    parser.add_argument("--short", action="store_true", help="do each thing once only")
    add_repository(parser)
    arguments = parser.parse_args(given)
    try:
        code = with_private_hosts("reliability.replicas", given)
    except SkipError as reason:
        print(f"No trial here: {reason}.", file=sys.stderr)
        return 2
    if code is not None:
        return code
    with tempfile.TemporaryDirectory(prefix="car-analyzer-replicas-") as folder, Fleet() as fleet:
        old = arguments.repository or export_demo(Path(folder) / "old", 1)
        new = arguments.repository or export_demo(Path(folder) / "new", 2)
        for _ in range(2):
            fleet.add(old)
        with contextlib.ExitStack() as stack:
            trial = Trial(fleet, list(_routes(fleet, arguments.only or KINDS, Path(folder), stack)), arguments.photos)
            rows = trial.run(old, new, "1" if arguments.repository else "2", short=arguments.short)
            return report([announce(row) for row in rows])


def _routes(fleet: Fleet, kinds: tuple[str, ...], folder: Path, stack: contextlib.ExitStack) -> Iterator[Route]:
    for protocol in ("grpc", "http"):
        url = fleet.url(protocol)
        if "name" in kinds:
            yield Route(protocol, sdk, url)
            yield Route(f"{protocol} async", async_sdk, url)
        if "gateway" in kinds:
            yield Route(f"gateway {protocol}", gateway, stack.enter_context(Gateway(url)).url)
    if "envoy" in kinds:
        try:
            address = stack.enter_context(envoy(fleet, folder))
        except SkipError as reason:
            print(f"Envoy is skipped: {reason}.", file=sys.stderr)
            return
        for protocol in ("grpc", "http"):
            yield Route(f"envoy {protocol}", sdk, f"{protocol}://{address}")


@dataclass(frozen=True)
class Trial:
    """Everything that happens to one fleet, on all routes at once.

    Attributes:
        fleet: Two replicas; a third one is added.
        routes: The routes to it.
        photos: How many are sent on each route, each time.
    """

    fleet: Fleet
    routes: list[Route]
    photos: int

    def run(self, old: Path, new: Path, version: str, *, short: bool) -> Iterator[Row]:
        """Runs all of it.

        Args:
            old: The repository that is served.
            new: The repository of the rolling update.
            version: The version in it.
            short: Replace only one replica in the rolling update, and measure the spread over two only.
        """
        yield from map(self._spread, self.routes)
        yield from self._kill()
        third = self.fleet.add(old)
        for route in self.routes:
            yield _find(third, route)
        if not short:
            yield from map(self._spread, self.routes)
        yield from self._update(self.fleet.replicas[: 1 if short else None], new, version)

    def _spread(self, route: Route) -> Row:
        with route.load() as load:
            load.wait_for(10)  # connections are made one after the other
            before = self.fleet.answered()
            load.wait_for(self.photos)
            shares = list(map(operator.sub, self.fleet.answered(), before))
        unfair = max(shares) / max(1, sum(shares)) > LARGEST_SHARE
        parts = zip(self.fleet.replicas, shares, strict=True)
        note = ", ".join(f"{share} to {replica.address}" for replica, share in parts) + load.example()
        return Row(f"{route.name}: spread over {len(shares)}", len(load.outcomes), load.lost + unfair, note)

    def _kill(self) -> Iterator[Row]:
        victim = self.fleet.replicas[1]
        with self._load() as loads:
            _wait(loads, self.photos // 4)
            victim.kill()
            _wait(loads, self.photos // 2)
            victim.revive()
            _wait(loads, self.photos // 4)
        yield from self._rows("one killed, and back", loads)
        yield Row("photos to the one that came back", victim.answered(), 0)

    def _update(self, replicas: list[Replica], new: Path, version: str) -> Iterator[Row]:
        with self._load() as loads:
            _wait(loads, 10)
            for replica in replicas:
                self.fleet.replace(replica, new)
                _wait(loads, 10)
            _wait(loads, self.photos // 2)
            answered = [replica.answered(version) for replica in replicas]
        yield from self._rows("rolling update", loads)
        for replica, count in zip(replicas, answered, strict=True):
            yield Row(f"photos to the new version on {replica.address}", count, 0)

    @contextlib.contextmanager
    def _load(self) -> Iterator[list[Load]]:
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(route.load(RATE)) for route in self.routes]

    def _rows(self, event: str, loads: list[Load]) -> Iterator[Row]:
        for route, load in zip(self.routes, loads, strict=True):
            note = f"slowest photo {load.slowest:.1f} s{load.example()}"
            yield Row(f"{route.name}: {event}", len(load.outcomes), load.lost, note)


def _find(third: Replica, route: Route) -> Row:
    before, start = third.answered(), time.monotonic()
    with route.load(rate=20) as load:
        while third.answered() - before < 5 and time.monotonic() - start < FOUND_WITHIN_S:
            time.sleep(0.2)
    found = third.answered() - before >= 5
    note = f"found after {time.monotonic() - start:.1f} s" if found else "never found"
    return Row(f"{route.name}: third appears", len(load.outcomes), load.lost + (not found), note + load.example())


def _wait(loads: list[Load], count: int) -> None:
    for load in loads:
        load.wait_for(count, timeout=120)


if __name__ == "__main__":
    sys.exit(main())
