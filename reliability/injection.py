"""Fault injection: what can go wrong with a running service, each done while photos are on their way."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .harness import SkipError
from .service import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from .proxy import Proxy

OUTAGE_S = 5.0
_PRIVATE_SHARED_MEMORY = 'mount -t tmpfs -o size=128m tmpfs /dev/shm && exec "$@"'


@dataclass
class Target:
    """The service that a fault is injected into.

    Attributes:
        service: May be replaced by another one on the same ports.
        folder: For files; the repository is in it.
        proxy: Between the photos and the service, for faults of the network.
    """

    service: Service
    folder: Path
    proxy: Proxy | None = None

    @property
    def network(self) -> Proxy:
        """The proxy, for faults that have one."""
        assert self.proxy is not None  # noqa: S101 - such faults are marked as `proxied`
        return self.proxy


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        name: For `--only`.
        what: One line on it.
        inject: Makes it go wrong, and right again where the service cannot recover by itself.
        idle: Send one photo at a time, with pauses.
        proxied: Put a proxy between the photos and the service.
        prepare: What `serve` is started with: a command that runs it, and variables. Raises `SkipError`.
    """

    name: str
    what: str
    inject: Callable[[Target], None]
    idle: bool = False
    proxied: bool = False
    prepare: Callable[[Path], tuple[list[str], dict[str, str]]] = lambda _: ([], {})


def kill_stub(model: str, target: Target) -> None:
    """Kills a process of a model, and waits until `serve` has replaced it."""
    service = target.service
    service.wait_for_another(f"'{model}' has new processes", lambda: os.kill(service.stub(model), signal.SIGKILL))


def signal_triton(number: signal.Signals, target: Target) -> None:
    """Sends Triton a signal that ends or stops it, and waits until `serve` has started it again."""
    service = target.service
    service.wait_for_another("ready again", lambda: os.kill(service.triton(), number))


def pause_triton(target: Target) -> None:
    """Stops Triton for some seconds, as a machine that runs out of memory does."""
    triton = target.service.triton()
    os.kill(triton, signal.SIGSTOP)
    try:
        time.sleep(OUTAGE_S)
    finally:
        os.kill(triton, signal.SIGCONT)


def replace_service(target: Target) -> None:
    """Stops `serve` as platforms do, and starts another one on its ports."""
    stopped = target.service
    code = stopped.stop()
    # In any case: the photos wait for it.
    target.service = Service(target.folder / "model_repository", ports=stopped.ports)
    target.service.start()
    if code:
        raise RuntimeError(f"serve ended with exit code {code}: {stopped.said()}")


def refuse(target: Target) -> None:
    """Cuts every connection and refuses new ones."""
    target.network.refuse()
    time.sleep(OUTAGE_S)
    target.network.listen()


def freeze(target: Target) -> None:
    """Holds back every byte, then delivers them."""
    target.network.freeze()
    time.sleep(OUTAGE_S)
    target.network.thaw()


def freeze_and_cut(target: Target) -> None:
    """Holds back every byte, then cuts every connection."""
    target.network.freeze()
    time.sleep(OUTAGE_S)
    target.network.refuse()
    target.network.thaw()
    target.network.listen()


def private_shared_memory(_folder: Path) -> tuple[list[str], dict[str, str]]:
    """A small /dev/shm for `serve` alone, which disappears with it."""
    return [*unshare(), "--mount", "sh", "-c", _PRIVATE_SHARED_MEMORY, "sh"], {}


def fill_shared_memory(target: Target) -> None:
    """Fills the service's own /dev/shm for some seconds, and kills a process that then cannot be replaced."""
    service = target.service
    file = Path(f"/proc/{service.pid}/root/dev/shm/filler")
    if file.parent.stat().st_dev == Path("/dev/shm").stat().st_dev:  # noqa: S108 - to keep away from it
        raise RuntimeError("the service has no /dev/shm of its own")

    def fill_and_kill() -> None:
        try:
            for block in (1 << 20, 4096):
                with contextlib.suppress(OSError), file.open("ab", buffering=0) as filler:
                    while True:
                        filler.write(bytes(block))
            os.kill(service.stub("condition"), signal.SIGKILL)
            time.sleep(OUTAGE_S)
        finally:
            file.unlink()

    service.wait_for_another("ready again", fill_and_kill)


def adjustable_clock(folder: Path) -> tuple[list[str], dict[str, str]]:
    """A clock for `serve` and its Triton alone."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SkipError("there is no C compiler (Debian: apt install gcc libc6-dev)")
    library, source = folder / "clock.so", Path(__file__).with_name("clock.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-pthread", "-o", str(library), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise SkipError(f"the C compiler cannot build {source.name}: {built.stderr.strip()[:200]}")
    _set_clock(folder, 0)
    return [], {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(folder / "offset")}


def jump_clock(target: Target) -> None:
    """Sets the service's clock six hours forwards, then twelve backwards, then right."""
    for hours in (6, -6, 0):
        _set_clock(target.folder, hours * 3600)
        time.sleep(OUTAGE_S)


def _set_clock(folder: Path, seconds: int) -> None:
    # The service has the file mapped into memory: it is written in place, and in one go.
    with (folder / "offset").open("r+b" if (folder / "offset").exists() else "wb", buffering=0) as file:
        file.write(struct.pack("=q", seconds))


def unshare() -> list[str]:
    """The command that gives a process a mount namespace of its own.

    Raises:
        SkipError: This machine does not allow it.
    """
    program = shutil.which("unshare")
    if program is None:
        raise SkipError("there is no `unshare` (Debian: apt install util-linux)")
    for command in ([program], [program, "--user", "--map-root-user"]):
        if not subprocess.run([*command, "--mount", "true"], capture_output=True, check=False).returncode:
            return command
    raise SkipError("this system does not allow mount namespaces")


_kill_preprocess = functools.partial(kill_stub, "preprocess")

FAULTS = (
    Fault("stub-idle", "kill -9 of a preprocess process between photos", _kill_preprocess, idle=True),
    Fault("stub-busy", "kill -9 of a preprocess process at work", _kill_preprocess),
    Fault(
        "stub-model", "kill -9 of the process that runs a head's ONNX model", functools.partial(kill_stub, "condition")
    ),
    Fault("triton-killed", "kill -9 of Triton", functools.partial(signal_triton, signal.SIGKILL)),
    Fault("triton-crashed", "segmentation fault of Triton", functools.partial(signal_triton, signal.SIGSEGV)),
    Fault("triton-paused", f"Triton is stopped for {OUTAGE_S:g} s", pause_triton),
    Fault("triton-hung", "Triton is stopped for good", functools.partial(signal_triton, signal.SIGSTOP)),
    Fault("replaced", "SIGTERM to serve, and another serve on the same ports", replace_service),
    Fault("network-refused", f"connections cut, and refused for {OUTAGE_S:g} s", refuse, proxied=True),
    Fault("network-frozen", f"nothing gets through for {OUTAGE_S:g} s", freeze, proxied=True),
    Fault(
        "network-lost",
        f"nothing gets through for {OUTAGE_S:g} s, then connections are cut",
        freeze_and_cut,
        proxied=True,
    ),
    Fault(
        "memory-full",
        f"shared memory full for {OUTAGE_S:g} s, and a process dies",
        fill_shared_memory,
        prepare=private_shared_memory,
    ),
    Fault("clock", "the clock jumps by hours, forwards and backwards", jump_clock, prepare=adjustable_clock),
)
