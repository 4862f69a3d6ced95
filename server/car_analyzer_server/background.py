"""Servers in the background, for `serve --detach` and `car-analyzer stop`.

Each one holds a lock on a file of its own for as long as it runs. The kernel releases the lock when the process ends,
however that happens, and names the process that holds it: a recycled process id is never taken for a server.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SettingsError, StartError, StopError
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG_LINES = 25
# `struct flock` on 64-bit Linux: type, whence, start, length, process id.
_FLOCK = "hhqqi"


class Background:
    """The server in the background with this gRPC port, whether it runs or not.

    Attributes:
        port: The gRPC port.
        log: The file with what it logs, replaced at each start.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.log = _folder() / f"serve-{port}.log"
        self._lock = self.log.with_suffix(".lock")

    @classmethod
    def running(cls) -> list[Background]:
        """The servers of this user that run, in the order of their ports."""
        names = [file.stem.partition("-")[2] for file in _folder().glob("serve-*.lock")]
        servers = map(cls, sorted(int(name) for name in names if name.isdecimal()))
        return [server for server in servers if server.pid() is not None]

    @property
    def stop_command(self) -> str:
        """The command that stops it."""
        return "car-analyzer stop" + ("" if self.port == Settings.grpc_port else f" --grpc-port {self.port}")

    def pid(self) -> int | None:
        """The id of its process, which supervises Triton; None if it does not run."""
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            with self._lock.open("rb") as file:
                kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, question))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if kind == fcntl.F_UNLCK else pid

    def check_stopped(self) -> None:
        """Makes sure that it does not run.

        Raises:
            StartError: It does.
        """
        if (pid := self.pid()) is not None:
            raise StartError(
                f"A server with gRPC port {self.port} runs in the background already (pid {pid}); stop it with "
                f"`{self.stop_command}`, or choose other ports."
            )

    def start(self, serve: Callable[[Callable[[str], None]], int]) -> str:
        """Forks this process, runs `serve` in the new one, and waits until it is ready.

        Args:
            serve: Called in a new session, with stdout and stderr in the log. Calls its argument with a text when the
                server is ready, and returns the exit code of the process.

        Returns:
            The text.

        Raises:
            SettingsError: The log cannot be written.
            StartError: It runs already, or ended before it was ready.
        """
        self.check_stopped()
        try:
            self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self._lock.open("ab")
            log = self.log.open("ab")
        except OSError as error:
            raise SettingsError(
                f"The log {self.log} cannot be written ({error.strerror}); set $XDG_STATE_HOME to a writable folder."
            ) from error
        reader, writer = os.pipe()
        sys.stdout.flush()
        with lock, log, open(reader, encoding="utf-8") as report:  # noqa: PTH123 - a descriptor has no path
            process = os.fork()
            if process == 0:
                try:
                    os._exit(self._run(serve, lock.fileno(), log.fileno(), writer))
                except BaseException:  # noqa: BLE001 - the new process must not continue in the caller
                    traceback.print_exc()
                    os._exit(1)
            try:
                os.close(writer)
                ready = report.read()
            except KeyboardInterrupt:
                os.kill(process, signal.SIGTERM)
                os.waitpid(process, 0)
                raise
        if not ready:
            os.waitpid(process, 0)
            self.check_stopped()  # another start may have been faster
            lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
            end = "".join(f"\n  {line}" for line in lines)
            raise StartError(f"The server ended before it was ready. The end of its log, {self.log}:{end}")
        return ready

    def stop(self, timeout: float) -> int | None:
        """Stops it with SIGTERM, and waits until its process has ended.

        Args:
            timeout: In seconds.

        Returns:
            The id that its process had; None if it did not run.

        Raises:
            StopError: It still runs after the timeout.
        """
        if (pid := self.pid()) is None:
            return None
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return pid
        try:
            if self.pid() == pid:  # otherwise it ended, and the id may be another process's
                signal.pidfd_send_signal(process, signal.SIGTERM)
                if not select.select([process], [], [], timeout)[0]:
                    raise StopError(f"The server (pid {pid}) still runs {timeout:g} s after SIGTERM; see {self.log}.")
        finally:
            os.close(process)
        return pid

    def _run(self, serve: Callable[[Callable[[str], None]], int], lock: int, log: int, writer: int) -> int:
        """What the new process does; returns its exit code."""
        os.setsid()
        try:
            # Only now, because a lock belongs to one process and is not inherited.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another start was faster
            return 1
        os.ftruncate(log, 0)
        for stream, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
            os.dup2(source, stream)

        def ready(text: str) -> None:
            with open(writer, "w", encoding="utf-8") as report:
                report.write(text)

        return serve(ready)


def _folder() -> Path:
    if state := os.environ.get("XDG_STATE_HOME"):
        return Path(state) / "car-analyzer"
    try:
        return Path.home() / ".local" / "state" / "car-analyzer"
    except RuntimeError as error:
        raise SettingsError("This user has no home folder; set $XDG_STATE_HOME to a writable folder.") from error
