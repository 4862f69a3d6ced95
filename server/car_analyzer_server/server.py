"""Starts a Triton, waits until it is ready, and stops it with all its processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from . import shared_memory
from .access import KEY_HEADER, hide_in_process_list
from .capacity import PREPROCESS, network_threads, set_decoding_processes, thread_pool_arguments
from .child import start_child
from .errors import ModelControlError, StartError
from .gpus import engines_on_one_gpu, unsuitable_for_gpu
from .installation import find_installation
from .log import Log
from .repository import check_repository, read_config, read_networks
from .settings import DRAIN_SECONDS, Settings, in_url, reachable, triton_arguments, with_ports
from .stale import remove_stale_resources
from .stubs import Stubs

if TYPE_CHECKING:
    from types import TracebackType

    from .installation import Installation

# Large networks load slowly.
_LOAD_SECONDS = 300
# Unloading takes a second or two.
_UNLOAD_SECONDS = 5
_CONFIG_SECONDS = 2
_REPLACED_SECONDS = 5
# How Triton ends after a race between its starting processes; errors have other exit codes.
_ABORTS = (-signal.SIGABRT, -signal.SIGSEGV)
_ABORTED_BY = "boost::interprocess::lock_exception"


class _AbortedError(StartError):
    """Triton aborted before it was ready; another start may succeed."""


class Server:
    """A Triton that runs as a child of this process.

    A context manager: starts Triton and waits until it is ready; stops it at the end.

    Attributes:
        settings: Its settings, with the chosen ports instead of 0.
        models: The served models with their versions.
        origin: The origin of the tritonserver, for messages.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models: list[str] = []
        self.origin = ""
        self._process: subprocess.Popen[str] | None = None
        self._log = self._new_log()
        self._cleanup = contextlib.ExitStack()

    @property
    def pid(self) -> int:
        """The process id of Triton itself."""
        return self._started().pid

    @property
    def http_url(self) -> str:
        """Its URL for the SDK over HTTP."""
        return f"http://{in_url(reachable(self.settings.http_host))}:{self.settings.http_port}"

    @property
    def grpc_url(self) -> str:
        """Its URL for the SDK over gRPC."""
        scheme = "grpc" if self.settings.tls is None else "grpcs"
        return f"{scheme}://{in_url(reachable(self.settings.host))}:{self.settings.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """Its URL for Prometheus."""
        return f"http://{in_url(reachable(self.settings.host))}:{self.settings.metrics_port}/metrics"

    def start(self, timeout: float = 300) -> None:
        """Starts Triton and waits until every model is ready.

        Args:
            timeout: In seconds. Large models load slowly.

        Raises:
            ServingError: It did not start; everything is cleaned up.
        """
        try:
            self._try_to_start(timeout)
        except _AbortedError as error:
            print(f"warning: {str(error).splitlines()[0]} Starting it once more.", file=sys.stderr)
            self._try_to_start(timeout)

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until Triton stops by itself.

        Args:
            timeout: In seconds; None for as long as it takes.

        Returns:
            Its exit code, negative for the signal that killed it; None if it still runs.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._started().wait(timeout)
        return None

    def is_alive(self, timeout: float) -> bool:
        """Checks whether Triton answers at all, ready or not.

        Args:
            timeout: In seconds.
        """
        # With thousands of callers HTTP can be slow to answer; the metrics have a separate port and thread.
        for port, path in ((self.settings.metrics_port, "/metrics"), (self.settings.http_port, "/v2/health/live")):
            with contextlib.suppress(OSError, http.client.HTTPException):
                return bool(self._request("GET", path, timeout / 2, port=port)[0])
        return False

    def stop(self, *, at_once: bool = False) -> None:
        """Stops Triton and removes its processes, shared memory and files.

        Args:
            at_once: Do not wait for requests in flight; otherwise they have 20 s.
        """
        process = self._process
        if process is not None:
            self._log.hide()
            if not at_once:
                self._drain(process)
            # The stubs of the Python backend are in Triton's process group, and survive it if it is killed.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._log.close()
            self._process = None
        self._cleanup.close()

    def renew(self, model: str) -> bool:
        """Gives a model new instances, which in the Python backend are new processes. No request is lost.

        `load` has no effect if the repository is unchanged, even if all processes of the model are dead.

        Returns:
            Whether the model is served; if not, nothing is done.

        Raises:
            RepositoryError: The model's configuration cannot be read, or the repository is not as it was signed.
            ModelControlError: Triton rejected it; the previous instances remain.
        """
        if model not in self._served():
            return False
        config = self._config(model)
        # Triton reloads a model if its configuration changed. Backends ignore this parameter.
        config.parameters["renewed"].string_value = str(time.time_ns())
        self._load(model, config)
        del config.parameters["renewed"]
        if (changed := self._config(model)) != config:
            # The repository was changed meanwhile, and the load above may have replaced that newer version.
            self._load(model, changed)
        return True

    def instances(self, model: str, version: str = "") -> int:
        """The number of instances in a served model's configuration; 0 if it is not loaded, or Triton does not answer.

        Args:
            model: The model.
            version: Its version; the newest one by default.
        """
        path = f"/v2/models/{model}/versions/{version}/config" if version else f"/v2/models/{model}/config"
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            status, answer = self._request("GET", path, _CONFIG_SECONDS)
            if status == 200:
                return sum(group.get("count", 1) for group in json.loads(answer).get("instance_group", ()))
        return 0

    def load(self, model: str) -> None:
        """Loads a model from the repository if it changed there, and every ensemble of which it is a step.

        No request is lost.

        Raises:
            RepositoryError: The repository is not as it was signed.
            ModelControlError: Triton rejected it; what was served before still is.
        """
        self._control(model, "load")
        if model == PREPROCESS:
            self._start_decoding_processes()

    def unload(self, model: str) -> None:
        """Unloads a model.

        Raises:
            ModelControlError: Triton rejected it.
        """
        self._control(model, "unload")

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _try_to_start(self, timeout: float) -> None:
        try:
            installation = self._start()
            self._wait_until_ready(timeout)
            self._start_decoding_processes()
            # The wheel's Triton uses our backend, which passes the GPU to TensorRT.
            if not installation.wheel and (advice := engines_on_one_gpu(self.settings.repository, self._version())):
                print(f"warning: {advice}", file=sys.stderr)
            if advice := unsuitable_for_gpu(self.settings.repository):
                print(f"warning: {advice}", file=sys.stderr)
        except BaseException:
            self.stop()
            raise
        self._log.show()

    def _start_decoding_processes(self) -> None:
        """Starts the processes of the preprocess step, if the repository leaves their number open."""
        # Triton takes it from a configuration only, and the repository may be shared or read-only.
        if (self.settings.repository / PREPROCESS / "config.pbtxt").exists():
            config = read_config(self.settings.repository, PREPROCESS)
            if set_decoding_processes(config, self.settings.cores):
                self._load(PREPROCESS, config)
                self._wait_for_replaced_process(sum(group.count for group in config.instance_group))

    def _wait_for_replaced_process(self, count: int) -> None:
        # It ends when its last request is answered; whoever counts processes, or reads the log, need not see it.
        deadline = time.monotonic() + _REPLACED_SECONDS
        stubs = Stubs(self.pid, self.instances)
        while time.monotonic() < deadline:
            stubs.look()
            if stubs.alive(PREPROCESS) <= count:
                return
            time.sleep(0.05)

    def _config(self, model: str) -> Any:
        config = read_config(self.settings.repository, model)
        set_decoding_processes(config, self.settings.cores)
        return config

    def _load(self, model: str, config: Any) -> None:
        self._control(model, "load", {"parameters": {"config": json_format.MessageToJson(config)}})

    def _start(self) -> Installation:
        installation = find_installation(self.settings.tritonserver)
        self.origin = installation.describe()
        self._verify()
        self.models = check_repository(self.settings.repository)
        self.settings = with_ports(self.settings)
        remove_stale_resources()
        folder = Path(tempfile.mkdtemp(prefix="car-analyzer-"))
        self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        prefix = shared_memory.new_prefix()
        self._cleanup.callback(shared_memory.remove, prefix)
        self._log = self._new_log()
        networks, cores = read_networks(self.settings.repository), self.settings.cores
        self._process = start_child(
            [
                str(installation.binary),
                *installation.prepare(folder),
                f"--backend-config=python,shm-region-prefix-name={prefix}",
                *thread_pool_arguments(networks, cores, self.settings.arguments),
                *triton_arguments(self.settings),
            ],
            installation.environment()
            | {
                "CAR_ANALYZER_SUPERVISED": str(int(self.settings.supervised)),
                "CAR_ANALYZER_LOG_PHOTOS": str(int(self.settings.log_photos)),
                "CAR_ANALYZER_THREADS": str(network_threads(cores, len(networks))),
                "CAR_ANALYZER_METRICS_URL": self.metrics_url if self._has_metrics() else "",
            },
        )
        self._log.follow(self._process)
        return installation

    def _verify(self) -> None:
        if self.settings.verify is not None and self.settings.repository.is_dir():
            from . import signing

            signing.verify(self.settings.repository, self.settings.verify)

    def _wait_until_ready(self, timeout: float) -> None:
        process = self._started()
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if process.poll() is not None:
                self._log.close()
                aborted = process.returncode in _ABORTS or self._log.mentions(_ABORTED_BY)
                raise (_AbortedError if aborted else StartError)(
                    f"Triton stopped with exit code {process.returncode}.{self._log.errors()}{shared_memory.shortage()}"
                )
            if time.monotonic() > deadline:
                raise StartError(f"Triton was not ready after {timeout:g} s.{self._log.errors()}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            ready = self._request("GET", "/v2/health/ready", timeout=5)[0] == 200
            # Triton opens the port of the metrics last. Only then: one that ends meanwhile may crash.
            if ready and self._has_metrics():
                socket.create_connection((reachable(self.settings.host), self.settings.metrics_port), timeout=5).close()
        except (OSError, http.client.HTTPException):
            return False
        return ready

    def _has_metrics(self) -> bool:
        return not any(argument.startswith("--allow-metrics") for argument in self.settings.arguments)

    def _version(self) -> str:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
            return str(json.loads(self._request("GET", "/v2", _CONFIG_SECONDS)[1])["version"])
        return "of an unknown version"

    def _served(self) -> set[str]:
        try:
            status, answer = self._request("POST", "/v2/repository/index", timeout=30)
            if status == 200:
                return {entry["name"] for entry in json.loads(answer) if entry.get("state") == "READY"}
        except (OSError, http.client.HTTPException) as error:
            reason = error or type(error).__name__
            raise ModelControlError(f"Triton does not report its models: {reason}.") from error
        raise ModelControlError(f"Triton does not report its models: {answer.decode('utf-8', 'replace')}")

    def _control(self, model: str, action: str, body: dict[str, Any] | None = None) -> None:
        if action == "load":
            self._verify()
        path = f"/v2/repository/models/{urllib.parse.quote(model, safe='')}/{action}"
        try:
            status, answer = self._request("POST", path, _LOAD_SECONDS, json.dumps(body or {}))
        except (OSError, http.client.HTTPException) as error:
            raise ModelControlError(f"Triton did not {action} '{model}': {error or type(error).__name__}.") from error
        if status != 200:
            raise ModelControlError(f"Triton did not {action} '{model}': {answer.decode('utf-8', 'replace')}")

    def _request(
        self, method: str, path: str, timeout: float, body: str | None = None, port: int | None = None
    ) -> tuple[int, bytes]:
        address = reachable(self.settings.http_host), port or self.settings.http_port
        with contextlib.closing(http.client.HTTPConnection(*address, timeout=timeout)) as connection:
            connection.request(method, path, body, headers={KEY_HEADER: self.settings.admin_key})
            response = connection.getresponse()
            return response.status, response.read()

    def _drain(self, process: subprocess.Popen[str]) -> None:
        """Lets Triton complete the requests in flight.

        After that, Triton waits for its own exit timeout if a model cannot be unloaded: because a process of it died
        during a request, or because a request arrived at the moment of stopping. This is cut short.
        """
        process.terminate()
        deadline = time.monotonic() + DRAIN_SECONDS + 5
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
                return
            if self._log.drained.is_set():
                deadline = min(deadline, time.monotonic() + _UNLOAD_SECONDS)
                self._log.drained.clear()

    def _new_log(self) -> Log:
        return Log(visible=self.settings.verbose, on_first_line=self._hide_key)

    def _hide_key(self) -> None:
        if not hide_in_process_list(self.pid, self.settings.admin_key):
            print(
                "warning: the administrator's key cannot be hidden from the list of processes on this system; anyone "
                "who can list processes here can load models.",
                file=sys.stderr,
            )

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise StartError("The server is not running.")
        return self._process
