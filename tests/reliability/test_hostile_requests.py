"""Requests that no client should send are blamed on the client, and harm nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reliability.processes import stubs
from reliability.requests import gateway as hostile
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
