"""Publications and rollbacks under load: no request fails, and every answer comes whole from one version."""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from car_analyzer import CarAnalyzerError
from car_analyzer_server import Server, Settings

from .known import EXAMPLES, HEADS, TOLERANCE, Known, demo_network, known_photos, reference
from .stream import Outcome, Stream
from .table import Row, report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from car_analyzer import Analysis

KEY = "a-key-for-the-trial-only"
# Every version has its own words for the labels, too.
LABELS = {
    version: {
        "cleanliness": [f"clean {version}", f"dirty {version}"],
        "condition": [f"intact {version}", f"damaged {version}"],
    }
    for version in range(1, 7)
}
# Each publishes the next version, or goes back, at best to a version that was not the last one.
COMMANDS = (
    "publish",
    "publish",
    "rollback",
    "publish",
    "rollback",
    "rollback",
    "publish",
    "rollback",
    "publish",
    "rollback",
)


@dataclass(frozen=True)
class VersionAnswer:
    """What one version says of a photo: logits and labels in logit order, of each head."""

    logits: Mapping[str, Sequence[float]]
    labels: Mapping[str, Sequence[str]]

    def is_in(self, analysis: Analysis) -> bool:
        """Whether an answer is this one, in all its parts."""
        return all(
            list(head.probabilities) == list(self.labels[name])
            and head.label == self.labels[name][int(np.argmax(self.logits[name]))]
            and np.allclose(head.logits, self.logits[name], rtol=0, atol=TOLERANCE)
            for name, head in analysis.heads.items()
        )


@dataclass(frozen=True)
class VersionedPhoto(Known):
    """A photo, and what each version says of it."""

    answers: Mapping[int, VersionAnswer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        answers = list(self.answers.values())
        for index, one in enumerate(answers):
            for other in answers[index + 1 :]:
                for head in one.logits:
                    difference = np.abs(np.subtract(one.logits[head], other.logits[head])).max()
                    if difference < 10 * TOLERANCE:
                        raise ValueError(f"{self.name}: two versions cannot be told apart by {head}")


@dataclass
class VersionStream(Stream):
    """A stream whose answers may be those of any version, but of one.

    Attributes:
        versions: How many answers came from each version.
    """

    versions: Counter[int] = field(default_factory=Counter)

    def _send(self, known: Known) -> Outcome:
        assert isinstance(known, VersionedPhoto)  # noqa: S101 - what this stream is made with
        start = time.monotonic()
        try:
            analysis = self._analyzer.analyze(known.photo)
        except CarAnalyzerError as error:
            return Outcome(start, time.monotonic() - start, "failed", f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - that there is none is what is tried here
            return Outcome(start, time.monotonic() - start, "untyped", repr(error))
        seconds = time.monotonic() - start
        found = [version for version, answer in known.answers.items() if answer.is_in(analysis)]
        if len(found) != 1:
            return Outcome(start, seconds, "wrong", f"{known.name}: {analysis.heads} is of no one version")
        self.versions[found[0]] += 1
        return Outcome(start, seconds, "right")


def main() -> int:
    """Runs the trial; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reliability.publishing", description=__doc__)
    parser.add_argument("--requests", type=int, default=5000, metavar="N", help="at least; default: %(default)s")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="for each protocol; default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="car-analyzer-") as folder:
        return report(_trial(Path(folder), arguments.requests, arguments.workers))


def _trial(folder: Path, requests: int, workers: int) -> list[Row]:
    (folder / "key").write_text(KEY)
    specs = {version: _write_spec(folder, version) for version in LABELS}
    photos = [_versioned(known) for known in known_photos()]
    repository = folder / "model_repository"
    _run("export", specs[1], "--repository", repository)
    published, rows = 1, []
    with Server(Settings(repository, http_port=0, grpc_port=0, metrics_port=0, admin_key=KEY)) as server:
        flags = ("--repository", repository, "--url", server.grpc_url, "--admin-key-file", folder / "key", "--json")
        streams = [VersionStream(url, photos, workers=workers) for url in (server.grpc_url, server.http_url)]
        with contextlib.ExitStack() as stack:
            for stream in streams:
                stack.enter_context(stream)
            for command in COMMANDS:
                published += command == "publish"
                sent, lost, start = _sent(streams), _lost(streams), time.monotonic()
                done = _run(command, *([specs[published]] if command == "publish" else []), *flags)
                for stream in streams:
                    stream.wait_for(20)
                note = f"version {done['before']} -> {done['served']} in {time.monotonic() - start:.0f} s"
                rows.append(Row(command, _sent(streams) - sent, _lost(streams) - lost, note))
                print(f"{command}: {note}", file=sys.stderr)
            sent, lost = _sent(streams), _lost(streams)
            for stream in streams:
                stream.wait_for(max(20, (requests - sent) // len(streams)), timeout=600)
        rows.append(Row("afterwards", _sent(streams) - sent, _lost(streams) - lost))
    for protocol, stream in zip(("gRPC", "HTTP"), streams, strict=True):
        versions = ", ".join(f"{count} of version {version}" for version, count in sorted(stream.versions.items()))
        print(f"{protocol}: {versions}", file=sys.stderr)
        for error in stream.errors()[:10]:
            print(f"{protocol}: {error}", file=sys.stderr)
    return rows


def _sent(streams: Sequence[Stream]) -> int:
    return sum(len(stream.outcomes) for stream in streams)


def _lost(streams: Sequence[Stream]) -> int:
    return sum(outcome.kind != "right" for stream in streams for outcome in list(stream.outcomes))


def _network(head: str, version: int) -> Any:
    """The demo network with other weights, whose answers are different enough to be told apart."""
    network = copy.deepcopy(demo_network(head))
    generator = torch.Generator().manual_seed(version)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return network


def _write_spec(folder: Path, version: int) -> Path:
    lines = []
    for head in HEADS:
        torch.save(_network(head, version).state_dict(), folder / f"{head}{version}.pth")
        lines += [f"[heads.{head}]", f'weights = "{head}{version}.pth"']
        lines += [f'architecture = "{EXAMPLES}/demo_network.py:build"', f"labels = {json.dumps(LABELS[version][head])}"]
    file = folder / f"version{version}.toml"
    file.write_text("\n".join([*lines, "[limits]", "max_queue_seconds = 2"]))
    return file


def _versioned(known: Known) -> VersionedPhoto:
    answers = {
        version: VersionAnswer(reference(known.photo, partial(_network, version=version)), labels)
        for version, labels in LABELS.items()
    }
    return VersionedPhoto(known.name, known.photo, known.logits, answers)


def _run(command: str, *arguments: object) -> Any:
    program = [sys.executable, "-m", "car_analyzer", command, *map(str, arguments)]
    if command == "export":
        program.append("--json")
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
