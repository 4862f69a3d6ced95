"""Several Tritons behind one name and behind Envoy: who gets the photos, and what is lost when one goes or comes.

Every answer is compared with PyTorch's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from car_analyzer import AsyncCarAnalyzer, CarAnalyzerError
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.spec import Spec

from .fleet import Fleet, Replica, envoy, with_private_names
from .gateway_stream import GatewayStream, gateway
from .known import EXAMPLES, Known, known_photos
from .mischief import SkipError
from .stream import Outcome, Stream
from .table import Row, report

if TYPE_CHECKING:
    from collections.abc import Iterator

# No replica may get more of the photos.
LARGEST_SHARE = 0.6
FOUND_WITHIN_S = 30.0
# Photos a second on each way, where all ways are used at once.
RATE = 8.0


@dataclass
class AsyncStream(Stream):
    """The same through `AsyncCarAnalyzer`: tasks in the place of threads."""

    def __enter__(self) -> AsyncStream:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def _join(self) -> None:
        self._stop.set()
        self._thread.join()

    def __exit__(self, *_: object) -> None:
        self._join()

    async def _run(self) -> None:
        async with AsyncCarAnalyzer(self.url, timeout=self.timeout, headers=self.headers) as self._client:
            await self._client.wait_until_ready()
            await asyncio.gather(*(self._turn() for _ in range(self.workers)))

    async def _turn(self) -> None:
        pause = 0 if self.rate is None else self.workers / self.rate
        while not self._stop.is_set():
            outcome = await self._ask(next(self._turns))
            self.outcomes.append(outcome)
            await asyncio.sleep(max(0.0, outcome.start + pause - time.monotonic()) if pause else 0)

    async def _ask(self, known: Known) -> Outcome:
        start = time.monotonic()
        try:
            analysis = await self._client.analyze(known.photo)
        except CarAnalyzerError as error:
            return Outcome(start, time.monotonic() - start, "failed", f"{type(error).__name__}: {error}")
        seconds = time.monotonic() - start
        logits = {name: head.logits for name, head in analysis.heads.items()}
        if known.agrees(logits):
            return Outcome(start, seconds, "right")
        return Outcome(start, seconds, "wrong", f"{known.name}: {logits}, not {known.logits}")


@dataclass(frozen=True)
class Way:
    """One way to the fleet."""

    name: str
    kind: type[Stream]
    url: str

    def stream(self, rate: float | None = None) -> Stream:
        """Photos on this way."""
        return self.kind(self.url, known_photos(), workers=2, rate=rate)


def main(argv: list[str] | None = None) -> int:
    """Runs the trial; returns the exit code."""
    given = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m reliability.replicas", description=__doc__)
    parser.add_argument("--photos", type=int, default=100, metavar="N", help="on each way, each time; %(default)s")
    parser.add_argument("--only", action="append", choices=("name", "gateway", "envoy"), help="one kind of way")
    parser.add_argument("--short", action="store_true", help="do each thing once only")
    parser.add_argument(
        "--repository", type=Path, metavar="DIR", help="one with the demo models; default: export them to a folder"
    )
    arguments = parser.parse_args(given)
    kinds = arguments.only or ["name", "gateway", "envoy"]
    try:
        code = with_private_names("reliability.replicas", given)
    except SkipError as reason:
        print(f"No trial here: {reason}.", file=sys.stderr)
        return 2
    if code is not None:
        return code
    with tempfile.TemporaryDirectory(prefix="car-analyzer-replicas-") as folder:
        trial = try_all(Path(folder), kinds, arguments.photos, arguments.repository, short=arguments.short)
        return report(list(trial))


def try_all(
    folder: Path, kinds: list[str], photos: int, repository: Path | None = None, *, short: bool = False
) -> Iterator[Row]:
    """Does everything to one fleet, on all ways at once.

    Args:
        folder: For files.
        kinds: The kinds of ways.
        photos: How many are sent on each way, each time.
        repository: Of the demo models; the new version, too, comes from there. By default both are exported.
        short: Replace but one in the rolling update, and measure the spread over two only.
    """
    old = repository or _export(folder / "old", 1)
    new = repository or _export(folder / "new", 2)
    with Fleet() as fleet, contextlib.ExitStack() as stack:
        for _ in range(2):
            fleet.add(old)
        ways = list(_ways(fleet, kinds, folder, stack))
        for way in ways:
            yield _spread(fleet, way, photos)
        yield from _kill(fleet, ways, photos)
        third = fleet.add(old)
        for way in ways:
            yield _find(third, way)
        if not short:
            for way in ways:
                yield _spread(fleet, way, photos)
        yield from _update(fleet, fleet.replicas[: 1 if short else None], ways, photos, new, "1" if repository else "2")


def _ways(fleet: Fleet, kinds: list[str], folder: Path, stack: contextlib.ExitStack) -> Iterator[Way]:
    for protocol in ("grpc", "http"):
        url = fleet.url(protocol)
        if "name" in kinds:
            yield Way(f"{protocol}", Stream, url)
            yield Way(f"{protocol} async", AsyncStream, url)
        if "gateway" in kinds:
            yield Way(f"gateway {protocol}", GatewayStream, stack.enter_context(gateway(url)))
    if "envoy" in kinds:
        try:
            address = stack.enter_context(envoy(fleet, folder))
        except SkipError as reason:
            print(f"Envoy is skipped: {reason}.", file=sys.stderr)
            return
        for protocol in ("grpc", "http"):
            yield Way(f"envoy {protocol}", Stream, f"{protocol}://{address}")


def _spread(fleet: Fleet, way: Way, photos: int) -> Row:
    with way.stream() as stream:
        stream.wait_for(10)  # connections are made one after the other
        shares = fleet.shares(lambda: stream.wait_for(photos))
    sent = len(stream.outcomes)
    largest = max(shares) / max(1, sum(shares))
    where = ", ".join(f"{share} to {replica.address}" for replica, share in zip(fleet.replicas, shares, strict=True))
    lost = sent - stream.counts()["right"]
    unfair = largest > LARGEST_SHARE
    return _say(Row(f"{way.name}: spread over {len(shares)}", sent, lost + unfair, where + _errors([stream])))


def _find(third: Replica, way: Way) -> Row:
    before, start = third.answered(), time.monotonic()
    with way.stream(rate=20) as stream:
        while third.answered() - before < 5 and time.monotonic() - start < FOUND_WITHIN_S:
            time.sleep(0.2)
    found, lost = third.answered() - before >= 5, len(stream.outcomes) - stream.counts()["right"]
    note = f"found after {time.monotonic() - start:.1f} s" if found else "never found"
    return _say(Row(f"{way.name}: third appears", len(stream.outcomes), lost + (not found), note + _errors([stream])))


def _kill(fleet: Fleet, ways: list[Way], photos: int) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(way.stream(rate=RATE)) for way in ways]
        _wait(streams, photos // 4)
        fleet.replicas[1].kill()
        _wait(streams, photos // 2)
        fleet.replicas[1].revive()
        _wait(streams, photos // 4)
    back = fleet.replicas[1].answered()
    for way, stream in zip(ways, streams, strict=True):
        note = f"slowest photo {max(outcome.seconds for outcome in stream.outcomes):.1f} s" + _errors([stream])
        lost = len(stream.outcomes) - stream.counts()["right"]
        yield _say(Row(f"{way.name}: one killed, and back", len(stream.outcomes), lost, note))
    yield _say(Row("photos to the one that came back", back, 0))


def _update(
    fleet: Fleet, replicas: list[Replica], ways: list[Way], photos: int, new: Path, version: str
) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(way.stream(rate=RATE)) for way in ways]
        _wait(streams, 10)
        for replica in replicas:
            fleet.replace(replica, new)
            _wait(streams, 10)
        _wait(streams, photos // 2)
        answered = [replica.answered(version) for replica in replicas]
    for way, stream in zip(ways, streams, strict=True):
        note = f"slowest photo {max(outcome.seconds for outcome in stream.outcomes):.1f} s" + _errors([stream])
        lost = len(stream.outcomes) - stream.counts()["right"]
        yield _say(Row(f"{way.name}: rolling update", len(stream.outcomes), lost, note))
    for replica, count in zip(replicas, answered, strict=True):
        yield _say(Row(f"photos to the new version on {replica.address}", count, 0))


def _wait(streams: list[Stream], count: int) -> None:
    for stream in streams:
        stream.wait_for(count, timeout=120)


def _errors(streams: list[Stream]) -> str:
    errors = sorted({error for stream in streams for error in stream.errors()})
    return f"; {len(errors)} kinds of errors, such as {errors[0][:200]}" if errors else ""


def _say(row: Row) -> Row:
    print(f"{row.name}: {row.tried} photos, {row.lost} lost; {row.note}", file=sys.stderr, flush=True)
    return row


def _export(folder: Path, version: int) -> Path:
    export(plan_export(Spec.from_file(EXAMPLES / "demo.toml")), folder, version=version)
    return folder


if __name__ == "__main__":
    sys.exit(main())
