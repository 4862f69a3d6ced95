"""Compares a version on a gateway's photos, and kills and slows it: callers get the served version's answers only."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

from car_analyzer import TLS
from car_analyzer.config import Endpoint
from car_analyzer_export.errors import PublishError
from car_analyzer_export.repository.publishing.control import Triton
from car_analyzer_export.repository.publishing.switch import Switch
from car_analyzer_export.repository.version_copy import add_copy
from car_analyzer_export.shadow.gateway import Gateway as Shadowing
from car_analyzer_export.shadow.trial import ShadowTrial

from .harness import Row, announce, export_demo, make_parser, report
from .load import Load, gateway
from .processes import stubs
from .reference import EXAMPLES, LABELS, TOLERANCE, ReferencePhoto, reference_logits
from .service import Gateway, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from car_analyzer_export.shadow.outcome import Outcome

KEY = "a-key-for-the-trial-only"
# Different photos, and on how many of them the planted version gives another label.
PHOTOS, PLANTED = 100, 3
HEAD = "condition"
STEPS = ("preprocess", "cleanliness", "condition")
# Triton 2.51 hangs when it loads a model if a process is killed that has just started and writes its first lines into
# Triton's log. What is served still answers, but no model can be loaded any more.
SETTLED_S = 5.0
# How long a batch takes in the slow network, about, on one core.
SLOW_S = 1.0


class EndedError(PublishError):
    """The comparison has ended; the version is not to be served."""


@dataclass
class Place:
    """What is compared, and where.

    Attributes:
        repository: The model repository; version 1 is served.
        service: `serve` on it.
        gateway: In front of it.
        photos: With the answers of version 1.
        share: The share of the photos that are compared.
        outcomes: The results so far.
    """

    repository: Path
    service: Service
    gateway: Gateway
    photos: Sequence[ReferencePhoto]
    share: float
    outcomes: list[Outcome] = field(default_factory=list)

    def compare(self, version: int, count: int, during: Callable[[threading.Event], None] = lambda _: None) -> Load:
        """Compares a version with version 1, under load; returns the load with its outcomes.

        Args:
            version: The version.
            count: How many photos to compare.
            during: Runs meanwhile, until the event is set.
        """
        ended = threading.Event()
        faults = threading.Thread(target=during, args=[ended])

        def compare(served: str, candidate: str) -> None:
            trial = ShadowTrial(
                [Shadowing(self.gateway.url, KEY)],
                self.share,
                count,
                agree=0,
                timeout=600,
                keep_photos=False,
                done=lambda outcome, _reason: self.outcomes.append(outcome),
            )
            faults.start()
            try:
                trial.run(served, candidate)
            finally:
                ended.set()
                faults.join()
            raise EndedError("It is not to be served.")

        with Load(self.gateway.url, self.photos, workers=4, transport=gateway) as load:
            load.wait_for(20)
            endpoint = Endpoint.parse(self.service.addresses["grpc"])
            with Triton(endpoint, KEY, TLS()) as triton, contextlib.suppress(EndedError):
                Switch(triton, self.repository, 1, version, shadow=compare).run()
            load.wait_for(20)
        for error in load.errors()[:10]:
            print(error, file=sys.stderr)
        return load

    def stubs_of(self, model: str, version: int) -> list[psutil.Process]:
        """The processes of one version of a model."""
        try:
            found = stubs(self.service.triton(), model)
            return [one for one in found if any(f"/{model}/{version}/" in word for word in one.cmdline())]
        except psutil.NoSuchProcess:  # one has just ended; the caller asks again
            return []


def main() -> int:
    """Runs the trial; returns the exit code."""
    parser = make_parser("shadow", __doc__)
    parser.add_argument("--photos", type=int, default=2000, metavar="N", help="to compare; default: %(default)s")
    parser.add_argument("--share", type=float, default=0.5, metavar="X", help="of all photos; default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="car-analyzer-") as folder:
        return report(_trial(Path(folder), arguments.photos, arguments.share))


def _trial(folder: Path, count: int, share: float) -> list[Row]:
    (folder / "key").write_text(KEY)
    key = f"--admin-key-file={folder / 'key'}"
    repository = export_demo(folder / "model_repository")
    photos = _photos()
    planted = _copy(repository, {HEAD: {"threshold": _threshold(photos), "positive": LABELS[HEAD][1]}})
    slow = _slow_copy(repository)
    with Service(repository, key) as service, Gateway(service.addresses["grpc"], key) as front:
        place = Place(repository, service, front, photos, share)
        return [
            _planted_row(place, planted, count),
            _killed_row(replace(place, share=place.share / 10), planted, max(100, count // 10)),
            _row("candidate slow", place, slow, max(10, count // 50)),
        ]


def _planted_row(place: Place, version: int, count: int) -> Row:
    load = place.compare(version, count)
    (outcome,) = place.outcomes
    found, planted = 1 - outcome.heads[HEAD].agreement, PLANTED / PHOTOS
    accepted = max(0.01, 3 * (planted * (1 - planted) / outcome.photos) ** 0.5)
    wrong = abs(found - planted) > accepted or outcome.heads["cleanliness"].agreement < 1
    note = f"{found:.2%} differ of {outcome.photos:,} compared photos, {planted:.0%} planted"
    return announce(Row("difference", len(load.outcomes), load.lost + wrong, note))


def _killed_row(place: Place, version: int, count: int) -> Row:
    """Few photos a second, so that the comparison lasts while processes start again, which takes seconds."""
    row = _row("candidate killed", place, version, count, partial(_kill, place, version))
    if not place.service.said("has new processes"):
        return announce(replace(row, lost=row.lost + 1, note=f"nothing was killed; {row.note}"))
    return row


def _row(
    name: str, place: Place, version: int, count: int, during: Callable[[threading.Event], None] = lambda _: None
) -> Row:
    load = place.compare(version, count, during)
    outcome = place.outcomes[-1]
    counts = ", ".join(f"{number:,} {kind}" for kind, number in outcome.counts.items() if number)
    renewed = len(place.service.said("has new processes"))
    median = outcome.latency("candidate", 50)
    note = (
        f"compared photos: {counts}; the candidate's median {median:.0f} ms; slowest answer to a caller "
        f"{load.slowest:.1f} s; models renewed so far: {renewed}"
    )
    return announce(Row(name, len(load.outcomes), load.lost, note))


def _kill(place: Place, version: int, ended: threading.Event) -> None:
    """Kills the candidate's processes, of one step after the other."""
    for model in itertools.cycle(STEPS):
        while not (found := place.stubs_of(model, version)) or max(map(_started, found)) > time.time() - SETTLED_S:
            if ended.wait(0.2):
                return
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)


def _started(process: psutil.Process) -> float:
    return float(process.create_time())


def _photos() -> list[ReferencePhoto]:
    sys.path.insert(0, str(EXAMPLES))
    from draw_cars import draw_jpeg  # type: ignore[import-not-found]

    contents = [draw_jpeg(11, number) for number in range(PHOTOS)]
    return [ReferencePhoto(f"drawing {number}", one, reference_logits(one)) for number, one in enumerate(contents)]


def _threshold(photos: Sequence[ReferencePhoto]) -> float:
    """The least probability of the second label from which as many photos keep it as planted ones lose it."""
    rows = np.array([photo.logits[HEAD] for photo in photos if photo.logits is not None])
    positive = np.sort(1 / (1 + np.exp(rows[:, 0] - rows[:, 1])))
    kept = positive[positive >= 0.5]
    below, above = kept[PLANTED - 1], kept[PLANTED]
    if above - below < 2 * TOLERANCE:
        raise ValueError(f"no threshold is between the probabilities {below} and {above}")
    return float((below + above) / 2)


def _copy(repository: Path, heads: dict[str, dict[str, object]]) -> int:
    """A version with the same networks and other values of its heads; nothing serves it."""
    return add_copy(repository, 1, heads, {}, deliver=lambda _repository, _version: None).version  # type: ignore[arg-type]


def _slow_copy(repository: Path) -> int:
    """A version whose network of `HEAD` takes `SLOW_S` for each batch, and answers as before."""
    version = _copy(repository, {})
    file = repository / HEAD / str(version) / "model.onnx"
    model = onnx.load(file)
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((512, 512)) / 512**0.5).astype(np.float32)
    seconds = _seconds_of_product(matrix)
    (output,) = (one for one in model.graph.output)
    (last,) = (node for node in model.graph.node if output.name in node.output)
    last.output[list(last.output).index(output.name)] = "fast_logits"
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["slow_state", "slow_matrix"], ["slow_next"]),
            helper.make_node("Identity", ["slow_go_on"], ["slow_still"]),
        ],
        "slow",
        [
            helper.make_tensor_value_info("slow_step", TensorProto.INT64, []),
            helper.make_tensor_value_info("slow_go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("slow_state", TensorProto.FLOAT, [512, 512]),
        ],
        [
            helper.make_tensor_value_info("slow_still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("slow_next", TensorProto.FLOAT, [512, 512]),
        ],
    )
    constants = {
        "slow_matrix": matrix,
        "slow_count": np.array(max(1, round(SLOW_S / seconds)), np.int64),
        "slow_true": np.array(True),
        "slow_zero": np.array(0, np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("Loop", ["slow_count", "slow_true", "slow_matrix"], ["slow_end"], body=body),
            helper.make_node("ReduceMax", ["slow_end"], ["slow_most"], keepdims=0),
            helper.make_node("Mul", ["slow_most", "slow_zero"], ["slow_nothing"]),
            helper.make_node("Add", ["fast_logits", "slow_nothing"], [output.name]),
        ]
    )
    onnx.save(model, file)
    record = repository / "car_analyzer" / str(version) / "export.json"
    facts = json.loads(record.read_text())
    facts["models"][HEAD] = hashlib.sha256(file.read_bytes()).hexdigest()
    record.write_text(json.dumps(facts))
    return version


def _seconds_of_product(matrix: npt.NDArray[np.float32]) -> float:
    start = time.perf_counter()
    for _ in range(20):
        matrix @ matrix
    return (time.perf_counter() - start) / 20


if __name__ == "__main__":
    sys.exit(main())
