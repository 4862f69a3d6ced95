"""Publications and rollbacks under load: no request fails, and every answer comes whole from one version."""

from __future__ import annotations

import contextlib
import copy
import itertools
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

from car_analyzer_server import Server, Settings

from .harness import Row, make_parser, report
from .load import Load
from .reference import EXAMPLES, HEADS, TOLERANCE, ReferencePhoto, demo_network, reference_logits, reference_photos

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from car_analyzer import Analysis

KEY = "a-key-for-the-trial-only"
# Labels differ from version to version, too.
LABELS = {
    version: {
        "cleanliness": [f"clean {version}", f"dirty {version}"],
        "condition": [f"intact {version}", f"damaged {version}"],
    }
    for version in range(1, 7)
}
# Each publishes the next version, or goes back, where possible to a version that was not the last one.
_THERE_AND_BACK = ("publish", "rollback")
COMMANDS = ("publish", *_THERE_AND_BACK * 2, "rollback", *_THERE_AND_BACK * 2)


@dataclass(frozen=True)
class VersionAnswer:
    """One version's answer to a photo: logits, and labels in logit order, of each head."""

    logits: Mapping[str, Sequence[float]]
    labels: Mapping[str, Sequence[str]]

    def matches(self, analysis: Analysis) -> bool:
        """Whether every part of an analysis is from this version."""
        return all(
            list(head.probabilities) == list(self.labels[name])
            and head.label == self.labels[name][int(np.argmax(self.logits[name]))]
            and np.allclose(head.logits, self.logits[name], rtol=0, atol=TOLERANCE)
            for name, head in analysis.heads.items()
        )


@dataclass(frozen=True)
class VersionedPhoto(ReferencePhoto):
    """A photo with each version's answer."""

    answers: Mapping[int, VersionAnswer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one, other in itertools.combinations(self.answers.values(), 2):
            for head in one.logits:
                if np.abs(np.subtract(one.logits[head], other.logits[head])).max() < 10 * TOLERANCE:
                    raise ValueError(f"{self.name}: two versions have the same logits of {head}")


@dataclass
class VersionedLoad(Load):
    """Accepts the answer of any version, if it is whole.

    Attributes:
        versions: How many answers came from each version.
    """

    versions: Counter[int] = field(default_factory=Counter)

    def _is_correct(self, photo: ReferencePhoto, answer: Any) -> bool:
        assert isinstance(photo, VersionedPhoto)  # noqa: S101 - what this load is made with
        found = [version for version, expected in photo.answers.items() if expected.matches(answer)]
        if len(found) != 1:
            return False
        self.versions[found[0]] += 1
        return True


def main() -> int:
    """Runs the trial; returns the exit code."""
    parser = make_parser("publishing", __doc__)
    parser.add_argument("--requests", type=int, default=5000, metavar="N", help="at least; default: %(default)s")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="for each protocol; default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="car-analyzer-") as folder:
        return report(_trial(Path(folder), arguments.requests, arguments.workers))


def _trial(folder: Path, requests: int, workers: int) -> list[Row]:
    (folder / "key").write_text(KEY)
    specs = {version: _write_spec(folder, version) for version in LABELS}
    photos = [_versioned(photo) for photo in reference_photos()]
    repository = folder / "model_repository"
    _run("export", specs[1], "--repository", repository)
    published, rows = 1, []
    with Server(Settings(repository, http_port=0, grpc_port=0, metrics_port=0, admin_key=KEY)) as server:
        flags = ("--repository", repository, "--url", server.grpc_url, "--admin-key-file", folder / "key", "--json")
        loads = [VersionedLoad(url, photos, workers=workers) for url in (server.grpc_url, server.http_url)]
        with contextlib.ExitStack() as stack:
            for load in loads:
                stack.enter_context(load)
            for command in COMMANDS:
                published += command == "publish"
                sent, lost, start = _sent(loads), _lost(loads), time.monotonic()
                done = _run(command, *([specs[published]] if command == "publish" else []), *flags)
                for load in loads:
                    load.wait_for(20)
                note = f"version {done['before']} -> {done['served']} in {time.monotonic() - start:.0f} s"
                rows.append(Row(command, _sent(loads) - sent, _lost(loads) - lost, note))
                print(f"{command}: {note}", file=sys.stderr)
            sent, lost = _sent(loads), _lost(loads)
            for load in loads:
                load.wait_for(max(20, (requests - sent) // len(loads)), timeout=600)
        rows.append(Row("afterwards", _sent(loads) - sent, _lost(loads) - lost))
    for protocol, load in zip(("gRPC", "HTTP"), loads, strict=True):
        versions = ", ".join(f"{count} of version {version}" for version, count in sorted(load.versions.items()))
        print(f"{protocol}: {versions}", file=sys.stderr)
        for error in load.errors()[:10]:
            print(f"{protocol}: {error}", file=sys.stderr)
    return rows


def _sent(loads: Sequence[Load]) -> int:
    return sum(len(load.outcomes) for load in loads)


def _lost(loads: Sequence[Load]) -> int:
    return sum(load.lost for load in loads)


def _network(head: str, version: int) -> Any:
    """The demo network with other weights, so that each version has logits of its own."""
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
        # Otherwise each export decides by its network's answers, and the reference cannot know how.
        lines += ['decoding = "exact"', 'resampling = "exact"']
    file = folder / f"version{version}.toml"
    file.write_text("\n".join([*lines, "[limits]", "max_queue_seconds = 2"]))
    return file


def _versioned(photo: ReferencePhoto) -> VersionedPhoto:
    answers = {
        version: VersionAnswer(reference_logits(photo.content, partial(_network, version=version), exact=True), labels)
        for version, labels in LABELS.items()
    }
    return VersionedPhoto(photo.name, photo.content, photo.logits, answers)


def _run(command: str, *arguments: object) -> Any:
    program = [sys.executable, "-m", "car_analyzer", command, *map(str, arguments)]
    if command == "export":
        program.append("--json")
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
