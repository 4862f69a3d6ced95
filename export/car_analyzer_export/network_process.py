"""Runs networks in a separate process: checkpoints, factories and forward passes are third-party code.

    the command                              this process
    plan()   ── the spec ──────────────────> plan_export
             <─ the plan, without networks ─
    write()  ── the staging folder ────────> write_networks
             <─ the records ────────────────

The process can crash (a segmentation fault, `os._exit`, out of memory) or hang; the command reports or kills it. So a
crafted checkpoint that crashes PyTorch's reader, or keeps it busy for hours, is rejected in a sentence. The command
owns everything that must be cleaned up: the staging folder, the repository, a running Triton. This protects against
faults, not against malicious code: the process has all permissions of its user.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from car_analyzer_server.child import end_with_parent

from .errors import ExportError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .checking.outcome import Checked
    from .repository.staging import Staging, Written
    from .spec import Plan, Spec


# Importing PyTorch and exporting create millions of objects that stay. By default, Python looks through them for
# garbage so often that this takes a sixth of the time.
_START = f"""
import gc
import sys
gc.set_threshold(50_000, 20, 100)
descriptor, *sys.path = sys.argv[1:]
del sys.argv[1:]
from {__name__} import serve
serve(int(descriptor))
"""


class NetworkProcess:
    """Plans an export and writes its networks in a separate process, which ends with the `with` block.

    Args:
        spec: What to export.
        trust_pickle: See `planning.plan_export`.
        progress: Called with a few words at the start of each step.
        step_timeout: Seconds that a step of the planning may take.
    """

    def __init__(
        self, spec: Spec, *, trust_pickle: bool, progress: Callable[[str], None], step_timeout: float = 1800
    ) -> None:
        self._spec = spec
        self._step_timeout = step_timeout
        self._trust_pickle = trust_pickle
        self._progress = progress
        self._step = ""

    def __enter__(self) -> NetworkProcess:
        self._connection, theirs = Pipe()
        with theirs:
            # A new interpreter: a fork of a process with threads, such as gRPC's, can hang.
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-c", _START, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=2,  # stdout is for the command's result, not for what networks print
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the command
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._connection.close()

    def plan(self) -> Plan:
        """Decides everything about the export. The networks of the plan are None here.

        Raises:
            ExportError: See `planning.plan_export`; or a network ended the process, which holds for every method
                here; or a step took too long.
        """
        plan: Plan = self._ask((os.getpid(), self._spec, self._trust_pickle), self._step_timeout)
        return plan

    def check_labelled(self, source: Path, minimum: float | None) -> Checked:
        """Checks the networks on labelled photos; see `checking.planned.check_plan`."""
        checked: Checked = self._ask(("check_labelled", source, minimum))
        return checked

    def write(self, staged: Staging) -> Written:
        """Writes the networks into a staging folder; see `networks.write_networks`."""
        written: Written = self._ask(("write", staged.folder))
        return written

    def _ask(self, question: object, step_timeout: float | None = None) -> Any:
        with self._connected():
            self._connection.send(question)
        while True:
            with self._connected():
                # The first step comes once PyTorch is imported.
                if not self._connection.poll(step_timeout if self._step else None):
                    raise NetworkError(self._overdue(step_timeout))
                message = self._connection.recv()
            if isinstance(message, Exception):
                raise message
            if not isinstance(message, str):
                return message
            self._step = message
            self._progress(message)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            raise self._ended() from None

    def _ended(self) -> ExportError:
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else (signal.strsignal(-code) or f"signal {-code}").lower()
        if code == -signal.SIGKILL:
            how += ", as Linux does when memory runs out"
        if not self._step:
            return NetworkError(f"The process that runs the networks ended before it loaded one ({how}).")
        network, doing = self._current()
        if not network:
            return NetworkError(f"The process that runs the networks ended while {doing} ({how}).")
        return NetworkError(f"{network}: the network ended the process that ran it ({how}) while {doing}.")

    def _overdue(self, seconds: float | None) -> str:
        network, doing = self._current()
        return (
            f"{network or 'The networks'}: stopped while {doing}, which took longer than {seconds:g} seconds; the "
            "checkpoint is damaged or crafted, or the network's code does not end."
        )

    def _current(self) -> tuple[str, str]:
        """The network that the current step is about, if any, and the step itself."""
        name, _, doing = self._step.partition(": ")
        if not doing:
            return "", name
        return f"{'Head' if name in self._spec.heads else 'Network'} '{name}'", doing


def serve(descriptor: int) -> None:
    """Serves the command's requests, in the process that it started.

    Args:
        descriptor: The file descriptor of the connection.
    """
    end_with_parent(signal.SIGKILL)
    connection = Connection(descriptor)
    os.set_inheritable(descriptor, False)  # processes that a network starts must not keep it open
    from .planning import plan_export

    command, spec, trust_pickle = connection.recv()
    if os.getppid() != command:  # it was killed before `end_with_parent`
        return
    try:
        plan = plan_export(spec, trust_pickle=trust_pickle, progress=connection.send)
        connection.send(plan)
        while True:
            question, *details = connection.recv()
            connection.send(_answer(plan, question, details, connection.send))
    except EOFError:
        return  # the command has closed the connection
    except (ExportError, OSError) as error:
        connection.send(error)


def _answer(plan: Plan, question: str, details: list[Any], progress: Callable[[str], None]) -> Any:
    from .checking.planned import check_before_publishing
    from .networks import write_networks
    from .repository.staging import Staging

    if question == "check_labelled":
        source, minimum = details
        return check_before_publishing(plan, source, minimum, progress)
    (folder,) = details
    tempfile.tempdir = str(folder)  # temporary files of a killed process are removed with the folder
    return write_networks(plan, Staging(folder, [network.name for network in plan.networks]), progress)
