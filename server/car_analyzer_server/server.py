"""One running Triton: started, watched until it is ready, and stopped with everything it started."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from .access import KEY_HEADER, hide_in_process_list
from .errors import ControlError, StartError
from .installation import find_installation
from .log import Log
from .repository import check_repository
from .settings import DRAIN_SECONDS, Settings, reachable, triton_arguments, with_ports

if TYPE_CHECKING:
    from types import TracebackType

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
_PR_SET_PDEATHSIG = 1
# Large networks take their time.
_LOAD_SECONDS = 300


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
        self._log = Log(visible=settings.verbose, on_first_line=self._hide_key)
        self._cleanup = contextlib.ExitStack()

    @property
    def pid(self) -> int:
        """The process id of Triton itself."""
        return self._started().pid

    @property
    def http_url(self) -> str:
        """Where the SDK finds it over HTTP."""
        return f"http://{reachable(self.settings.http_host)}:{self.settings.http_port}"

    @property
    def grpc_url(self) -> str:
        """Where the SDK finds it over gRPC."""
        scheme = "grpc" if self.settings.tls is None else "grpcs"
        return f"{scheme}://{reachable(self.settings.host)}:{self.settings.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds it."""
        return f"http://{reachable(self.settings.http_host)}:{self.settings.metrics_port}/metrics"

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
                process.wait(DRAIN_SECONDS + 5)
            # The stubs of the Python backend are in Triton's process group, and survive it if it is killed.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._log.close()
        self._cleanup.close()

    def load(self, model: str) -> None:
        """Loads a model again from the repository, and every ensemble of which it is a step. No request is lost.

        Raises:
            ControlError: Triton refused; what it served before is served on.
        """
        self._control(model, "load")

    def unload(self, model: str) -> None:
        """Takes a model out of service.

        Raises:
            ControlError: Triton refused.
        """
        self._control(model, "unload")

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
        self.settings = with_ports(self.settings)
        folder = Path(tempfile.mkdtemp(prefix="car-analyzer-"))
        self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        shared_memory = f"car_analyzer_{os.getpid()}_{secrets.token_hex(4)}_"
        self._cleanup.callback(_remove_shared_memory, shared_memory)
        self._process = subprocess.Popen(  # noqa: S603 - this is what the class is for
            [
                str(installation.binary),
                *installation.prepare(folder),
                f"--backend-config=python,shm-region-prefix-name={shared_memory}",
                *triton_arguments(self.settings),
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
        try:
            return self._request("GET", "/v2/health/ready", timeout=5)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _control(self, model: str, action: str) -> None:
        path = f"/v2/repository/models/{urllib.parse.quote(model, safe='')}/{action}"
        try:
            status, answer = self._request("POST", path, timeout=_LOAD_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(f"Triton did not {action} '{model}': {error or type(error).__name__}.") from error
        if status != 200:
            raise ControlError(f"Triton did not {action} '{model}': {answer.decode('utf-8', 'replace')}")

    def _request(self, method: str, path: str, timeout: float) -> tuple[int, bytes]:
        address = reachable(self.settings.http_host), self.settings.http_port
        with contextlib.closing(http.client.HTTPConnection(*address, timeout=timeout)) as connection:
            connection.request(method, path, headers={KEY_HEADER: self.settings.admin_key})
            response = connection.getresponse()
            return response.status, response.read()

    def _hide_key(self) -> None:
        if not hide_in_process_list(self.pid, self.settings.admin_key):
            print(
                "warning: this system does not let the administrator's key be hidden from the list of processes; "
                "who can list them here can load models.",
                file=sys.stderr,
            )

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise StartError("The server is not running.")
        return self._process


def _remove_shared_memory(prefix: str) -> None:
    for region in _SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def _die_with_parent() -> None:
    """Has the kernel send SIGTERM to Triton if this process is killed and cannot stop it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
