"""Everything that is measured: how it is started, asked and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable  # noqa: TC003 - mypy and dataclass read it
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .clients import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .materials import Materials

RIVALS = Path(__file__).parent / "rivals"
CORES = len(os.sched_getaffinity(0))
_START_SECONDS = 180


@dataclass(frozen=True)
class System:
    """Something that answers about photos.

    Attributes:
        name: In tables.
        client: How it is asked, a key of `CLIENTS`.
        commands: From a list of free ports to what has to be started.
        url: From the same ports to where it is asked.
        environment: The folder of a rival, whose virtual environment its command runs in; "" for this one.
    """

    name: str
    client: str
    commands: Callable[[list[int]], list[list[str]]]
    url: Callable[[list[int]], str]
    rival: str = ""


@dataclass(frozen=True)
class Running:
    """A started system.

    Attributes:
        url: Where it is asked.
        groups: The process groups of what was started.
        first_answer: Seconds from the start to the first answer.
    """

    url: str
    groups: list[int]
    first_answer: float


def systems(repository: Path) -> list[System]:
    """All of them; the model repository is what car-analyzer serves."""

    def serve(ports: list[int]) -> list[str]:
        listen = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=False)]
        return [sys.executable, "-m", "car_analyzer", "serve", f"--repository={repository}", *listen]

    def gateway(ports: list[int]) -> list[str]:
        flags = [f"--url=grpc://127.0.0.1:{ports[1]}", f"--port={ports[3]}", "--log-level=error"]
        return [sys.executable, "-m", "car_analyzer", "gateway", *flags]

    def upload(ports: list[int]) -> str:
        return f"http://127.0.0.1:{ports[0]}/analyze"

    workers = str(CORES)
    return [
        System("car-analyzer, gRPC", "grpc", lambda p: [serve(p)], lambda p: f"grpc://127.0.0.1:{p[1]}"),
        System("car-analyzer, HTTP", "http", lambda p: [serve(p)], lambda p: f"http://127.0.0.1:{p[0]}"),
        System("car-analyzer, SDK", "sdk", lambda p: [serve(p)], lambda p: f"grpc://127.0.0.1:{p[1]}"),
        System(
            "car-analyzer, gateway",
            "upload",
            lambda p: [serve(p), gateway(p)],
            lambda p: f"http://127.0.0.1:{p[3]}/analyze",
        ),
        System(
            "Flask + PyTorch",
            "upload",
            lambda p: [
                ["gunicorn", "--workers", workers, "--bind", f"127.0.0.1:{p[0]}", "--log-level=error", "app:app"]
            ],
            upload,
            "flask_torch",
        ),
        System(
            "FastAPI + ONNX Runtime",
            "upload",
            lambda p: [["fastapi", "run", "app.py", "--workers", workers, "--host=127.0.0.1", "--port", str(p[0])]],
            upload,
            "fastapi_onnx",
        ),
        System("LitServe", "upload", lambda _: [["python", "app.py"]], upload, "litserve_onnx"),
        System(
            "BentoML",
            "upload",
            lambda p: [["bentoml", "serve", "service:Analyzer", "--host", "127.0.0.1", "--port", str(p[0])]],
            upload,
            "bentoml_onnx",
        ),
        System("Ray Serve", "upload", lambda _: [["python", "run.py"]], upload, "ray_onnx"),
    ]


def environment(materials: Materials, port: int) -> dict[str, str]:
    """What the rivals and the limit read."""
    return os.environ | {
        "BENCHMARK_REPOSITORY": str(materials.repository),
        "BENCHMARK_WEIGHTS": str(materials.weights),
        "BENCHMARK_NETWORK": materials.network,
        "BENCHMARK_WORKERS": str(CORES),
        "BENCHMARK_PORT": str(port),
        # One thread for each worker: libraries must not start more behind its back.
        "OMP_NUM_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@contextlib.contextmanager
def started(system: System, materials: Materials, environments: Path, photo: bytes) -> Iterator[Running]:
    """Starts a system, waits for its first answer, and stops it with everything it started.

    Raises:
        RuntimeError: It gave no answer in three minutes; the message has the end of its output.
    """
    ports = _free_ports(4)
    variables = environment(materials, ports[0])
    if system.rival:
        # Its own interpreter and packages, and none of ours.
        variables["PATH"] = f"{environments / system.rival / 'bin'}:{variables['PATH']}"
        variables["PYTHONPATH"] = str(RIVALS)
    else:
        variables.pop("OMP_NUM_THREADS")
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(_process(command, system, variables, log)) for command in system.commands(ports)
        ]
        url = system.url(ports)
        try:
            _wait_for_answer(system, url, photo, processes)
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{system.name}: {error}\n{log.read()[-2000:]}") from error
        yield Running(url, [process.pid for process in processes], time.perf_counter() - begun)


@contextlib.contextmanager
def _process(
    command: list[str], system: System, variables: dict[str, str], log: object
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        env=variables,
        cwd=RIVALS / system.rival if system.rival else None,
        stdin=subprocess.DEVNULL,
        stdout=log,  # type: ignore[call-overload]
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(40)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_answer(system: System, url: str, photo: bytes, processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.perf_counter() + _START_SECONDS
    client = CLIENTS[system.client](url, [photo])
    while True:
        try:
            client.ask(0)
        except Exception as error:
            if any(process.poll() is not None for process in processes) or time.perf_counter() > deadline:
                raise RuntimeError(f"no answer: {error!r}") from error
            time.sleep(0.05)
        else:
            return


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in sockets]
