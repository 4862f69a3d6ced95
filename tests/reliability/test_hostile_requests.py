"""Wrong requests get a client error, and affect no other request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from reliability.processes import stubs
from reliability.reference import reference_photos
from reliability.triton_client import TritonClient
from reliability.triton_requests import INFERENCES, RequestTrial

if TYPE_CHECKING:
    from types import SimpleNamespace


def test_wrong_requests_to_triton(server: SimpleNamespace) -> None:
    before = [process.pid for process in stubs(server.pid)]
    trial = RequestTrial(server, each=20)
    trial.run()
    assert trial.complaints == []
    assert all(row.tried > 40 for row in trial.rows)
    assert [process.pid for process in stubs(server.pid)] == before


def test_wrong_and_slow_requests_to_the_gateway(server: SimpleNamespace) -> None:
    # Its requests are made at the import, and are large: only the worker that sends them needs them.
    from reliability import gateway_requests

    rows, complaints = gateway_requests.trials(server.grpc_url)
    assert complaints == []
    assert not any(row.broken for row in rows)


def test_a_request_that_cannot_be_read_does_not_touch_its_neighbours(server: SimpleNamespace) -> None:
    """The Python backend fails all requests that it was given together with one whose string is cut short."""
    photo = reference_photos()[0]
    cut_short = INFERENCES["a string of 4 GB"]
    with TritonClient(server) as client:

        def send(number: int) -> bool:
            if number % 4 == 3:
                return client.send("grpc", cut_short).status == "INVALID_ARGUMENT"
            answer = client.infer("grpc", photo.content)
            return not isinstance(answer, str) and photo.matches(answer[0])

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(send, range(160))) == [True] * 160
