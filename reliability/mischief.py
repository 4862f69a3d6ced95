"""The faults that are done to a running service, each while photos are on their way."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .service import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from .proxy import Proxy

CUT_S = 5.0
_PRIVATE_SHARED_MEMORY = 'mount -t tmpfs -o size=128m tmpfs /dev/shm && exec "$@"'


@dataclass
class Trial:
    """One fault being tried over one protocol.

    Attributes:
        service: It may be replaced by another one on the same ports.
        folder: For files of the trial; the repository is in it.
        proxy: Between the photos and the service, if the fault is done to that.
    """

    service: Service
    folder: Path
    proxy: Proxy | None = None

    @property
    def network(self) -> Proxy:
        """The proxy, for faults that have one."""
        assert self.proxy is not None  # noqa: S101 - such faults say so
        return self.proxy


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        name: For `--only`.
        what: One line on it.
        do: Has it go wrong, and right again where the service cannot mend it itself.
        idle: Send one photo at a time, with pauses.
        proxied: Put a proxy between the photos and the service.
        prepare: What `serve` is started with: a command that runs it, and variables. Raises `SkipError`.
    """

    name: str
    what: str
    do: Callable[[Trial], None]
    idle: bool = False
    proxied: bool = False
    prepare: Callable[[Path], tuple[list[str], dict[str, str]]] = lambda _: ([], {})


class SkipError(Exception):
    """The fault cannot be tried on this machine; the message says why."""


def kill_stub(model: str) -> Callable[[Trial], None]:
    """Kills a process of a model, and waits until `serve` gave it a new one."""

    def do(trial: Trial) -> None:
        done = len(trial.service.said(f"'{model}' has new processes"))
        os.kill(trial.service.stub(model), signal.SIGKILL)
        trial.service.wait_for(f"'{model}' has new processes", done + 1)

    return do


def kill_triton(number: signal.Signals) -> Callable[[Trial], None]:
    """Sends Triton a signal that ends it, and waits until `serve` started it again."""

    def do(trial: Trial) -> None:
        done = len(trial.service.said("ready again"))
        os.kill(trial.service.triton(), number)
        trial.service.wait_for("ready again", done + 1)

    return do


def pause_triton(trial: Trial) -> None:
    """Stops Triton for some seconds, as a machine that runs out of memory does."""
    triton = trial.service.triton()
    os.kill(triton, signal.SIGSTOP)
    try:
        time.sleep(CUT_S)
    finally:
        os.kill(triton, signal.SIGCONT)


def hang_triton(trial: Trial) -> None:
    """Stops Triton for good: `serve` has to notice."""
    kill_triton(signal.SIGSTOP)(trial)


def replace_service(trial: Trial) -> None:
    """Has `serve` stop as platforms do, and starts another one on its ports."""
    ports = trial.service.ports
    code = trial.service.stop()
    if code:
        raise RuntimeError(f"serve ended with exit code {code}: {trial.service.said()}")
    trial.service = Service(trial.folder / "model_repository", ports=ports)
    trial.service.start()


def refuse(trial: Trial) -> None:
    """Cuts every connection and refuses new ones."""
    trial.network.refuse()
    time.sleep(CUT_S)
    trial.network.listen()


def swallow(trial: Trial) -> None:
    """Lets no byte through, and then all that waited."""
    trial.network.freeze()
    time.sleep(CUT_S)
    trial.network.thaw()


def swallow_and_cut(trial: Trial) -> None:
    """Lets no byte through, and then cuts every connection."""
    trial.network.freeze()
    time.sleep(CUT_S)
    trial.network.refuse()
    trial.network.thaw()
    trial.network.listen()


def private_shared_memory(_folder: Path) -> tuple[list[str], dict[str, str]]:
    """Gives `serve` a small /dev/shm that nobody else sees and that goes when it goes."""
    return [*unshare(), "--mount", "sh", "-c", _PRIVATE_SHARED_MEMORY, "sh"], {}


def fill_shared_memory(trial: Trial) -> None:
    """Fills the service's own /dev/shm for some seconds, and kills a process that then cannot be replaced."""
    file = Path(f"/proc/{trial.service.pid}/root/dev/shm/filler")
    if file.parent.stat().st_dev == Path("/dev/shm").stat().st_dev:  # noqa: S108 - to keep away from it
        raise RuntimeError("the service has no /dev/shm of its own")
    try:
        with contextlib.suppress(OSError), file.open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1 << 20))
        with contextlib.suppress(OSError), file.open("ab", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        done = len(trial.service.said("ready again"))
        os.kill(trial.service.stub("condition"), signal.SIGKILL)
        time.sleep(CUT_S)
    finally:
        file.unlink()
    trial.service.wait_for("ready again", done + 1)


def adjustable_clock(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Gives `serve` and its Triton a clock of their own; nobody else's is touched."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SkipError("there is no C compiler (Debian: apt install gcc libc6-dev)")
    library = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-pthread", "-o", library, source],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise SkipError(f"the C compiler cannot build {source.name}: {built.stderr.strip()[:200]}")
    _set_clock(folder, 0)
    return [], {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(folder / "offset")}


def jump(trial: Trial) -> None:
    """Sets the service's clock six hours forwards, then twelve backwards, then right."""
    for hours in (6, -6, 0):
        _set_clock(trial.folder, hours * 3600)
        time.sleep(CUT_S)


def _set_clock(folder: Path, seconds: int) -> None:
    # The service sees the file's very memory: it is written in place, and in one go.
    with (folder / "offset").open("r+b" if (folder / "offset").exists() else "wb", buffering=0) as file:
        file.write(struct.pack("=q", seconds))


def unshare() -> list[str]:
    """The command that gives a process mounts of its own."""
    program = shutil.which("unshare")
    if program is None:
        raise SkipError("there is no `unshare` (Debian: apt install util-linux)")
    for command in ([program], [program, "--user", "--map-root-user"]):
        if not subprocess.run([*command, "--mount", "true"], capture_output=True, check=False).returncode:
            return command
    raise SkipError("this system does not let a process have mounts of its own")


FAULTS = (
    Fault("stub-idle", "kill -9 of a preprocess process between photos", kill_stub("preprocess"), idle=True),
    Fault("stub-busy", "kill -9 of a preprocess process at work", kill_stub("preprocess")),
    Fault("stub-model", "kill -9 of the process that runs a head's ONNX model", kill_stub("condition")),
    Fault("triton-killed", "kill -9 of Triton", kill_triton(signal.SIGKILL)),
    Fault("triton-crashed", "segmentation fault of Triton", kill_triton(signal.SIGSEGV)),
    Fault("triton-paused", f"Triton stands still for {CUT_S:g} s", pause_triton),
    Fault("triton-hung", "Triton stands still for good", hang_triton),
    Fault("replaced", "SIGTERM to serve, and another serve on the same ports", replace_service),
    Fault("network-refused", f"connections cut, and refused for {CUT_S:g} s", refuse, proxied=True),
    Fault("network-frozen", f"nothing gets through for {CUT_S:g} s", swallow, proxied=True),
    Fault(
        "network-lost", f"nothing gets through for {CUT_S:g} s, then connections are cut", swallow_and_cut, proxied=True
    ),
    Fault(
        "memory-full",
        f"shared memory full for {CUT_S:g} s, and a process dies",
        fill_shared_memory,
        prepare=private_shared_memory,
    ),
    Fault("clock", "the clock jumps by hours, forwards and backwards", jump, prepare=adjustable_clock),
)
