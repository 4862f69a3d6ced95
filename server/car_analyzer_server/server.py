"""One running Triton: started, watched until it is ready, and stopped with everything it started."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import StartError
from .installation import find_installation
from .repository import check_repository

if TYPE_CHECKING:
    from types import TracebackType

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
_GPU_DRIVER = Path("/dev/nvidiactl")
# Triton's errors that only say that there is no GPU.
_SAID_WITHOUT_GPU = ("CUDA driver version is insufficient", "CudaDriverHelper", "NVML")
_DRAIN_SECONDS = 30
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Settings:
    """How to start a Triton.

    Attributes:
        repository: The model repository.
        host: The address to listen at.
        http_port: For HTTP; 0 takes any free port, as for the other two.
        grpc_port: For gRPC.
        metrics_port: For Prometheus.
        tritonserver: The executable; without it, one is looked for.
        arguments: More arguments for Triton, as they are.
        verbose: Show Triton's log from the start, not only once it is ready.
    """

    repository: Path = Path("model_repository")
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    tritonserver: Path | None = None
    arguments: tuple[str, ...] = ()
    verbose: bool = False


class Server:
    """A Triton that runs as a child of this process.

    A context manager: ready when it is entered, gone when it is left.

    Attributes:
        settings: With the ports that were really taken.
        models: The models that are served, with their versions.
        origin: Which tritonserver this is, for people.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models: list[str] = []
        self.origin = ""
        self._process: subprocess.Popen[str] | None = None
        self._log = _Log(visible=settings.verbose)
        self._cleanup = contextlib.ExitStack()

    @property
    def pid(self) -> int:
        """The process id of Triton itself."""
        return self._started().pid

    @property
    def http_url(self) -> str:
        """Where the SDK finds it over HTTP."""
        return f"http://{_reachable(self.settings.host)}:{self.settings.http_port}"

    @property
    def grpc_url(self) -> str:
        """Where the SDK finds it over gRPC."""
        return f"grpc://{_reachable(self.settings.host)}:{self.settings.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds it."""
        return f"http://{_reachable(self.settings.host)}:{self.settings.metrics_port}/metrics"

    def start(self, timeout: float = 300) -> None:
        """Starts Triton and waits until every model is ready.

        Args:
            timeout: In seconds. Large models take their time to load.

        Raises:
            ServerError: It did not start; nothing of it is left then.
        """
        try:
            self._start()
            self._wait_until_ready(timeout)
        except BaseException:
            self.stop()
            raise
        self._log.show()

    def wait(self) -> int:
        """Waits until Triton stops by itself; returns its exit code."""
        return self._started().wait()

    def stop(self) -> None:
        """Lets Triton finish what is in flight, for at most 30 s, and removes whatever it leaves behind."""
        process, self._process = self._process, None
        if process is not None:
            self._log.hide()
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_DRAIN_SECONDS + 5)
            # The stubs of the Python backend are in Triton's process group, and survive it if it is killed.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._log.close()
        self._cleanup.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        installation = find_installation(self.settings.tritonserver)
        self.origin = installation.describe()
        self.models = check_repository(self.settings.repository)
        self.settings = _with_ports(self.settings)
        folder = Path(tempfile.mkdtemp(prefix="car-analyzer-"))
        self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        shared_memory = f"car_analyzer_{os.getpid()}_{secrets.token_hex(4)}_"
        self._cleanup.callback(_remove_shared_memory, shared_memory)
        self._process = subprocess.Popen(  # noqa: S603 - this is what the class is for
            [
                str(installation.binary),
                *installation.prepare(folder),
                *_arguments(self.settings),
                f"--backend-config=python,shm-region-prefix-name={shared_memory}",
                *self.settings.arguments,
            ],
            env=installation.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C in a terminal reaches the whole group: Triton must get its signal from `stop`, once.
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self._log.follow(self._process)

    def _wait_until_ready(self, timeout: float) -> None:
        process = self._started()
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if process.poll() is not None:
                self._log.close()
                raise StartError(f"Triton stopped with exit code {process.returncode}.{self._log.errors()}")
            if time.monotonic() > deadline:
                raise StartError(f"Triton was not ready after {timeout:g} s.{self._log.errors()}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(_reachable(self.settings.host), self.settings.http_port, timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise StartError("The server is not running.")
        return self._process


class _Log:
    """Triton's log: held back while it starts, unless it fails; passed on to stderr afterwards."""

    def __init__(self, *, visible: bool) -> None:
        self._always = visible
        self._visible = visible
        self._lines: collections.deque[str] = collections.deque(maxlen=1000)
        self._reader: threading.Thread | None = None

    def follow(self, process: subprocess.Popen[str]) -> None:
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    def show(self) -> None:
        self._visible = True

    def hide(self) -> None:
        self._visible = self._always

    def close(self) -> None:
        if self._reader is not None:
            self._reader.join(timeout=5)

    def errors(self) -> str:
        """The lines that say what went wrong, if there are any."""
        found = [line for line in self._lines if line.startswith(("E", "error:", "Unexpected"))]
        if not _GPU_DRIVER.exists():
            found = [line for line in found if not any(word in line for word in _SAID_WITHOUT_GPU)]
        return "".join(f"\n  {line}" for line in (found or list(self._lines))[-20:])

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
        with process.stdout as lines:
            for line in lines:
                self._lines.append(line.rstrip())
                if self._visible:
                    sys.stderr.write(line)


def _arguments(settings: Settings) -> list[str]:
    return [
        f"--model-repository={settings.repository}",
        f"--http-address={settings.host}",
        f"--grpc-address={settings.host}",
        f"--metrics-address={settings.host}",
        f"--http-port={settings.http_port}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-port={settings.metrics_port}",
        f"--exit-timeout-secs={_DRAIN_SECONDS}",
        # Our configurations are complete; completing them would start every Python model twice.
        "--disable-auto-complete-config",
    ]


def _with_ports(settings: Settings) -> Settings:
    """Replaces 0 by free ports, and makes sure that the others are free."""
    with contextlib.ExitStack() as held:
        chosen = {}
        for name in ("http_port", "grpc_port", "metrics_port"):
            wanted = getattr(settings, name)
            try:
                listener = held.enter_context(socket.create_server((settings.host, wanted)))
            except OSError as error:
                flag = f"--{name.replace('_', '-')}"
                raise StartError(
                    f"Port {wanted} on {settings.host} cannot be used ({os.strerror(error.errno or 0)}); "
                    f"stop what listens there, or choose another with {flag}."
                ) from error
            chosen[name] = listener.getsockname()[1]
    return replace(settings, **chosen)


def _reachable(host: str) -> str:
    """Where to connect to a server that listens at `host`."""
    return "127.0.0.1" if host in ("0.0.0.0", "") else host  # noqa: S104 - compared, not bound


def _remove_shared_memory(prefix: str) -> None:
    for region in _SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def _die_with_parent() -> None:
    """Has the kernel send SIGTERM to Triton if this process is killed and cannot stop it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
