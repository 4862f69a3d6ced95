"""What a command imports: for one photo, most of its time is imports."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = "import sys; from car_analyzer._cli.main import main; code = main(sys.argv[1:]); "
NEVER = {
    "aiohttp",
    "ml_dtypes",
    "numpy",
    "PIL",
    "sqlite3",
    "tqdm",
    "tritonclient.grpc",
    "tritonclient.utils",
    "urllib3",
}


def modules_after(*words: Any) -> set[str]:
    """The modules that a command has imported when it ends."""
    code = f"{COMMAND} assert code == 0, code; print(*sys.modules, file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return set(result.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["analyze", "--help"]])
def test_help_imports_no_protocol(words: list[str]) -> None:
    assert not modules_after(*words) & (NEVER | {"asyncio", "google.protobuf", "grpc", "ssl", "tritonclient"})


def test_a_photo_needs_only_its_protocol(url: str, sample_photos: list[Path]) -> None:
    unneeded = NEVER if url.startswith("grpc") else NEVER | {"google.protobuf", "grpc", "tritonclient"}
    assert not modules_after("analyze", sample_photos[0], "--url", url) & unneeded
    assert not modules_after("health", "--url", url) & unneeded


def test_tritonclient_stays_whole() -> None:
    """It can be used beside the SDK, also by a thread that imports it at the same moment."""
    code = """
import importlib.abc, sys, threading
started, found = threading.Event(), []

def use():
    import tritonclient.grpc as package
    started.set()
    found.append(package.InferenceServerClient)
    from tritonclient.grpc import InferInput
    found.append(InferInput)

class Meanwhile(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "tritonclient.grpc.service_pb2_grpc" and not found and not started.is_set():
            threading.Thread(target=use).start()
            started.wait()

sys.meta_path.insert(0, Meanwhile())
from car_analyzer._transports import stubs
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join()
import tritonclient.grpc
assert found == [tritonclient.grpc.InferenceServerClient, tritonclient.grpc.InferInput], found
assert tritonclient.grpc.service_pb2 is stubs.service_pb2
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)
