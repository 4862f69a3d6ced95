"""Everything that is measured: how each system is started, asked and stopped."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .clients import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .clients import Client
    from .materials import Materials

RIVALS = Path(__file__).parent / "rivals"
CORES = len(os.sched_getaffinity(0))
_START_SECONDS = 60
_PORTS = ("port", "http", "grpc", "metrics")


@dataclass(frozen=True)
class System:
    """A service that analyses photos. Its commands and its URL have names of ports, and others, in braces.

    Attributes:
        name: In tables.
        client: A key of `CLIENTS`.
        url: Where it is asked.
        commands: What is started.
        rival: The folder of a rival, and of the virtual environment that its command runs in; "" for car-analyzer.
        spec: Keys of car-analyzer's spec that are not at their defaults.
    """

    name: str
    client: str
    url: str
    commands: tuple[str, ...]
    rival: str = ""
    spec: dict[str, str] = field(default_factory=dict)


_SERVE = (
    "{python} -m car_analyzer serve --repository={repository} --http-port={http} --grpc-port={grpc} "
    "--metrics-port={metrics}"
)
_GATEWAY = "{python} -m car_analyzer gateway --url=grpc://127.0.0.1:{grpc} --port={port} --log-level=error"
_GUNICORN = "gunicorn --workers {cores} --threads 4 --bind 127.0.0.1:{port} --log-level=error app:app"
_FASTAPI = "fastapi run app.py --workers {cores} --host=127.0.0.1 --port {port}"
_BENTOML = "bentoml serve service:Analyzer --host 127.0.0.1 --port {port}"
_GRPC, _ANALYZE = "grpc://127.0.0.1:{grpc}", "http://127.0.0.1:{port}/analyze"
SYSTEMS = (
    System("limit", "limit", "{repository}", ()),
    System("car-analyzer, gRPC", "grpc", _GRPC, (_SERVE,)),
    System("car-analyzer, gRPC, exact resize", "grpc", _GRPC, (_SERVE,), spec={"resampling": "exact"}),
    System("car-analyzer, HTTP", "http", "http://127.0.0.1:{http}", (_SERVE,)),
    System("car-analyzer, SDK", "sdk", _GRPC, (_SERVE,)),
    System("car-analyzer, gateway", "upload", _ANALYZE, (_SERVE, _GATEWAY)),
    System("Flask + PyTorch", "upload", _ANALYZE, (_GUNICORN,), "flask_torch"),
    System("Flask + ONNX Runtime", "upload", _ANALYZE, (_GUNICORN,), "flask_onnx"),
    System("FastAPI + ONNX Runtime", "upload", _ANALYZE, (_FASTAPI,), "fastapi_onnx"),
    System("LitServe", "upload", _ANALYZE, ("python app.py",), "litserve_onnx"),
    System("BentoML", "upload", _ANALYZE, (_BENTOML,), "bentoml_onnx"),
    System("Ray Serve", "upload", _ANALYZE, ("python run.py",), "ray_onnx"),
)


def prepare(rival: str, folder: Path) -> bool:
    """Makes a rival's virtual environment, once; returns whether it is there. Says what cannot be installed."""
    requirements = RIVALS / rival / "requirements.txt"
    digest, made_of = hashlib.sha256(requirements.read_bytes()).hexdigest(), folder / rival / "made_of"
    if made_of.is_file() and made_of.read_text() == digest:
        return True
    print(f"Installing {rival} ...", file=sys.stderr)
    pip = [str(folder / rival / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder / rival)],
        [*pip, "--requirement", str(requirements)],
    ):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            print(f"left out: {rival} cannot be installed: {ended.stderr.strip()[-300:]}", file=sys.stderr)
            return False
    made_of.write_text(digest)
    return True


def environment(materials: Materials, port: int = 0) -> dict[str, str]:
    """The environment variables that the rivals read."""
    return os.environ | {
        "BENCHMARK_REPOSITORY": str(materials.repository),
        "BENCHMARK_WEIGHTS": str(materials.weights),
        "BENCHMARK_NETWORK": materials.network,
        "BENCHMARK_WORKERS": str(CORES),
        "BENCHMARK_PORT": str(port),
        # One thread for each worker: libraries must not start more.
        "OMP_NUM_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(RIVALS),
    }


@contextlib.contextmanager
def started(
    system: System, materials: Materials, environments: Path, photo: bytes
) -> Iterator[tuple[str, list[int], float]]:
    """Starts a system, waits for its first answer, and stops it with everything it started.

    Gives its URL, its process groups, and the seconds from the start to the first answer.

    Raises:
        RuntimeError: It gave no answer within a minute; the message has the end of its output.
    """
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in _PORTS]
        ports = {name: listener.getsockname()[1] for name, listener in zip(_PORTS, sockets, strict=True)}
    values = {"python": sys.executable, "repository": materials.repository, "cores": CORES, **ports}
    variables, folder = dict(os.environ), None
    if system.rival:
        # Its own interpreter and packages.
        variables, folder = environment(materials, ports["port"]), RIVALS / system.rival
        variables["PATH"] = f"{environments / system.rival / 'bin'}:{variables['PATH']}"
    begun, url = time.perf_counter(), system.url.format(**values)
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        processes = []
        for template in system.commands:
            command = [part.format(**values) for part in template.split()]
            process = subprocess.Popen(
                command,
                env=variables,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            stack.callback(_stop, process)
            processes.append(process)
        try:
            _wait_for_answer(CLIENTS[system.client](url, [photo]), processes)
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{error}\n{log.read()[-2000:]}") from error
        yield url, [process.pid for process in processes], time.perf_counter() - begun


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(40)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_for_answer(ask: Client, processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.perf_counter() + _START_SECONDS
    while True:
        try:
            ask(0)
        except Exception as error:
            if any(process.poll() is not None for process in processes) or time.perf_counter() > deadline:
                raise RuntimeError(f"no answer: {error!r}") from error
            time.sleep(0.05)
        else:
            return
