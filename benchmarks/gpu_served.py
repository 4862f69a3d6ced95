"""A whole Triton under load: what callers see, and where its steps and its processes spend their time."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import text_format

from car_analyzer_server import InstallationError, Server, Settings
from car_analyzer_server.installation import find_installation
from car_analyzer_server.repository import read_config

from . import perf_analyzer
from .clients import ADMIN_KEY
from .load import Answers, Load, run
from .processor_time import processor_seconds
from .rivals.reading import HEADS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .gpu_variants import Variant

_ENSEMBLE = "car_analyzer"
_OFFICIAL = "libtriton_onnxruntime.so"


class Step(NamedTuple):
    """A step of the ensemble, on average over what it served.

    Attributes:
        batch: Photos in one run.
        queue_ms: Milliseconds that a request waited for its run.
        compute_ms: Milliseconds of the run, with its inputs and outputs.
    """

    batch: float
    queue_ms: float
    compute_ms: float


class Counts(NamedTuple):
    """What Triton counted about a model since its start."""

    requests: int
    photos: int
    runs: int
    queue_ns: int
    compute_ns: int


@dataclass(frozen=True)
class Served:
    """What was measured under one load.

    Attributes:
        answers: What callers see.
        steps: By model.
        cores: Cores in use by kind of process: `Triton`, the models with Python processes, and `load`.
    """

    answers: Answers
    steps: dict[str, Step]
    cores: dict[str, float]


class Loader:
    """Sends photos with perf_analyzer, or from processes of our own where that does not run."""

    def __init__(self, environments: Path, processes: int) -> None:
        self._program = perf_analyzer.find_program(environments)
        self._environments = environments
        self._processes = processes

    def __str__(self) -> str:
        if self._program:
            return "load by perf_analyzer"
        return "load by benchmarks.load: perf_analyzer does not run here"

    def send(self, server: Server, load: Load, timeout: float) -> Served:
        """Measures one load.

        Raises:
            RuntimeError: No request was answered, or perf_analyzer took longer than `timeout` seconds.
        """
        load = replace(load, url=server.grpc_url)
        counts, seconds = read_counts(server.http_url), processor_seconds(server.pid)
        # perf_analyzer asks one model, and knows no pixels for both heads at once.
        if self._program and load.client == "grpc":
            answers = perf_analyzer.measure(self._program, self._environments, load, timeout)
        else:
            number = min(self._processes, load.clients)
            rate = load.rate and load.rate / number
            answers = run(replace(load, clients=load.clients // number, rate=rate), number)
        spent = processor_seconds(server.pid) - seconds
        counts = counted(counts, read_counts(server.http_url))
        photos = max((count.photos for count in counts.values()), default=0)
        # By photo: the time of the warm-up counts, too.
        cores = {kind: second / photos * answers.rate for kind, second in spent.items() if photos}
        cores["load"] = answers.cpu_ms / 1000 * answers.rate
        return Served(answers, as_steps(counts), cores)


def read_counts(url: str) -> dict[str, Counts]:
    """The counts of each model, of all its versions together, from Triton's statistics."""
    with urllib.request.urlopen(f"{url}/v2/models/stats", timeout=30) as response:  # noqa: S310 - HTTP
        return parse_counts(json.load(response))


def parse_counts(statistics: dict[str, Any]) -> dict[str, Counts]:
    """The same from the JSON."""
    found: dict[str, Counts] = {}
    for model in statistics["model_stats"]:
        times = model["inference_stats"]
        compute = sum(times[part]["ns"] for part in ("compute_input", "compute_infer", "compute_output"))
        numbers = (times["success"]["count"], model["inference_count"], model["execution_count"], times["queue"]["ns"])
        before = found.get(model["name"], (0,) * 5)
        found[model["name"]] = Counts(*map(sum, zip(before, (*numbers, compute), strict=True)))
    return found


def counted(before: dict[str, Counts], after: dict[str, Counts]) -> dict[str, Counts]:
    """What was counted in between, about models that served anything."""
    differences = {
        model: Counts(*(late - early for early, late in zip(before.get(model, (0,) * 5), counts, strict=True)))
        for model, counts in after.items()
    }
    return {model: counts for model, counts in differences.items() if counts.requests and counts.runs}


def as_steps(counts: dict[str, Counts]) -> dict[str, Step]:
    """The averages of each model but the ensemble, which has no time of its own."""
    return {
        model: Step(each.photos / each.runs, *(ns / each.requests / 1e6 for ns in (each.queue_ns, each.compute_ns)))
        for model, each in counts.items()
        if model != _ENSEMBLE
    }


def tritonserver() -> str:
    """The server that is measured."""
    try:
        return find_installation().describe()
    except InstallationError:
        return "no tritonserver"


@contextlib.contextmanager
def served(repository: Path, variant: Variant, official: Path | None, timeout: float) -> Iterator[Server]:
    """Serves a copy of a repository on free ports.

    Args:
        repository: It is not written to.
        variant: How it is served.
        official: A folder with the official ONNX Runtime backend, for the variants that need it.
        timeout: Seconds that the start may take.

    Raises:
        RuntimeError: The variant needs the official backend, which is not there.
        ServingError: It does not start.
    """
    with tempfile.TemporaryDirectory() as temporary:
        copy = shutil.copytree(repository, Path(temporary) / "model_repository")
        config = read_config(copy, "preprocess")
        if "pixels_on" in config.parameters:
            config.parameters["pixels_on"].string_value = json.dumps(variant.pixels_on)
        if variant.processes:
            config.instance_group[0].count = variant.processes
        (copy / "preprocess" / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
        if variant.official:
            if official is None or not (official / _OFFICIAL).is_file():
                raise RuntimeError(f"there is no {_OFFICIAL}: give its folder with --official-backend")
            # Triton prefers a backend in the folder of a model.
            for head in HEADS:
                shutil.copytree(official, copy / head, dirs_exist_ok=True)
        server = Server(Settings(copy, http_port=0, grpc_port=0, metrics_port=0, admin_key=ADMIN_KEY))
        try:
            server.start(timeout)
            print(f"  {server.origin}", file=sys.stderr)
            yield server
        finally:
            server.stop()
