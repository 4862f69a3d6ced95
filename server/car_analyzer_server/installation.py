"""Finds a tritonserver, and completes the one in the Python wheel.

NVIDIA's image is complete. The wheel `nvidia-pytriton` has the same server and its Python backend, in other folders and
without an ONNX Runtime backend. So the parts are copied into one backend directory; Triton rejects symbolic links that
lead out of it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import InstallationError

IMAGE_BINARY = Path("/opt/tritonserver/bin/tritonserver")
_NO_CACHES = shutil.ignore_patterns("__pycache__")
_PYTHON_BACKENDS = Path(__file__).parent / "backends"


@dataclass(frozen=True)
class Installation:
    """A tritonserver that can be started.

    Attributes:
        binary: The executable.
        wheel: The folder of the server in the wheel; None for other installations.
    """

    binary: Path
    wheel: Path | None = None

    def describe(self) -> str:
        """The origin of the server, for messages."""
        return "the nvidia-pytriton wheel" if self.wheel else str(self.binary)

    def prepare(self, folder: Path) -> list[str]:
        """Assembles the backends of the wheel in a folder, which must exist as long as the server.

        Returns:
            Arguments for the server.

        Raises:
            InstallationError: The wheel has no Python stub for the running Python, or the folder's programs cannot run.
        """
        if self.wheel is None:
            return []
        stub = self.wheel / "python_backend_stubs" / _python_version() / "triton_python_backend_stub"
        if not stub.is_file():
            raise InstallationError(
                f"The Triton of the nvidia-pytriton wheel cannot run models under Python {_python_version()}; "
                "use Python 3.10, 3.11 or 3.12."
            )
        self._check_stub(stub)
        shutil.copytree(self.wheel / "backends", folder, ignore=_NO_CACHES, dirs_exist_ok=True)
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            raise InstallationError(
                f"No program can run in {folder.parent}, which is mounted with noexec, and the backends of the wheel's "
                "Triton are put there; mount it with exec (Docker: --tmpfs /tmp:exec), or set TMPDIR to another folder."
            )
        shutil.copy(stub, folder / "python")
        shutil.copytree(_PYTHON_BACKENDS, folder, ignore=_NO_CACHES, dirs_exist_ok=True)
        return ["--backend-directory", str(folder)]

    def _check_stub(self, stub: Path) -> None:
        """Makes sure that the stub finds its libraries: Triton would wait minutes for one that does not start."""
        loaded = subprocess.run([stub], env=self.environment(), capture_output=True, text=True, check=False)  # noqa: S603
        if "error while loading shared libraries" in loaded.stderr:
            raise InstallationError(
                f"Triton's Python stub cannot start: {loaded.stderr.strip().rpartition('libraries: ')[2]}. "
                "It needs a Python with a shared library (built with --enable-shared, as Linux distributions do)."
            )

    def environment(self) -> dict[str, str]:
        """The environment variables of the server."""
        variables = dict(os.environ)
        if self.wheel is not None:
            libraries = str(self.wheel.parents[1] / "nvidia_pytriton.libs")
            variables["LD_LIBRARY_PATH"] = _joined(libraries, variables.get("LD_LIBRARY_PATH"))
            # The stub uses the packages of the first `python3` on the path.
            variables["PATH"] = _joined(str(Path(sys.executable).parent), variables.get("PATH"))
        return variables


def find_installation(binary: Path | None = None) -> Installation:
    """Finds tritonserver: `binary`, on the PATH, at its place in NVIDIA's image, or in the wheel.

    Raises:
        InstallationError: There is none; the message says how to install one.
    """
    if binary is not None:
        if not os.access(binary, os.X_OK) or binary.is_dir():
            raise InstallationError(f"{binary} is not an executable program.")
        return Installation(binary.absolute())
    if on_path := shutil.which("tritonserver"):
        return Installation(Path(on_path))
    if os.access(IMAGE_BINARY, os.X_OK):
        return Installation(IMAGE_BINARY)
    # Not imported: that would take a second and start threads.
    wheel = importlib.util.find_spec("pytriton")
    if wheel is not None and wheel.origin is not None:
        folder = Path(wheel.origin).parent / "tritonserver"
        if os.access(folder / "bin" / "tritonserver", os.X_OK):
            return Installation(folder / "bin" / "tritonserver", wheel=folder)
    raise InstallationError(
        "No tritonserver was found. Install one with: pip install 'car-analyzer[server]' "
        "(Linux, Python 3.10 to 3.12), run inside NVIDIA's Triton image, or name one with --tritonserver."
    )


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _joined(first: str, rest: str | None) -> str:
    return f"{first}{os.pathsep}{rest}" if rest else first
