"""How long a Triton lives: as long as its process, whatever becomes of the thread that started it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from car_analyzer import CarAnalyzer
from car_analyzer_server import Server, Settings

if TYPE_CHECKING:
    from pathlib import Path

ANY_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}


def test_a_triton_outlives_the_thread_that_started_it(repository: Path, sample_photos: list[Path]) -> None:
    server = Server(Settings(repository, **ANY_PORTS))
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        # One that was told to stop takes no photos any more.
        assert server.wait(1) is None
        with CarAnalyzer(server.grpc_url) as analyzer:
            assert analyzer.analyze(sample_photos[0]).heads
    finally:
        server.stop()
