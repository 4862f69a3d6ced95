"""Requests that no client should send are blamed on the client, and harm nobody."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc

from reliability.known import known_photos
from reliability.photos.ask import Asker
from reliability.processes import stubs
from reliability.requests import gateway as hostile
from reliability.requests import grpc_cases
from reliability.requests.trial import Requests

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace


def test_wrong_requests_to_triton(server: SimpleNamespace) -> None:
    before = [process.pid for process in stubs(server.pid)]
    requests = Requests(server, each=20)
    requests.run()
    assert requests.complaints == []
    assert all(row.tried > 50 for row in requests.rows)
    assert [process.pid for process in stubs(server.pid)] == before


def test_wrong_and_slow_requests_to_the_gateway(server: SimpleNamespace, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, hostile.running(server.grpc_url, log) as address:
        rows, complaints = hostile.trials(address)
    assert complaints == []
    assert {row.name: row.tried > 0 for row in rows} == dict.fromkeys((row.name for row in rows), True)


def test_a_request_that_cannot_be_read_does_not_touch_its_neighbours(server: SimpleNamespace) -> None:
    """The Python backend fails all requests that it was given together with one whose string is cut short."""
    known = known_photos()[0]
    cut_short = grpc_cases.INFERENCES["a string of 4 GB"].SerializeToString()
    with Asker(server) as asker, grpc.insecure_channel(server.grpc_url.partition("://")[2]) as channel:

        def send(number: int) -> bool:
            if number % 4 == 3:
                return grpc_cases.call(channel, "ModelInfer", cut_short)[0] == "INVALID_ARGUMENT"
            answer = asker.ask("grpc", known.photo)
            return not isinstance(answer, str) and known.agrees(answer[0])

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(send, range(160))) == [True] * 160
