"""What runs without a server: the bare networks, PyTorch, and the bare decoder. Each part is a process of its own.

`python -m benchmarks.gpu_parts PART JSON` prints a JSON list of figures, or a sentence that says what is missing. The
part `pytorch` may run in another Python, which has PyTorch, numpy and Pillow and nothing else of ours.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .rivals.reading import HEADS, SIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MISSING = 3
_LIMITS = {"max_bytes": 20_000_000, "max_pixels": 64_000_000}


class MissingError(Exception):
    """This machine lacks what the part needs; the message says what."""


def main() -> int:
    """Runs one part."""
    part, arguments = sys.argv[1], json.loads(sys.argv[2])
    # Libraries also write on stdout.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        print(json.dumps(list(PARTS[part](**arguments))), file=answer, flush=True)
    except MissingError as error:
        print(error, file=answer, flush=True)
        return MISSING
    return 0


def networks(device: int | None, repository: str, batches: list[int], seconds: float) -> Iterator[Any]:
    """Both heads with ONNX Runtime, inputs and outputs on the device: no server, no decoding, no copies."""
    import onnxruntime

    sessions = [_session(onnxruntime, Path(repository), head, device, max(batches)) for head in HEADS]
    place = "cpu" if device is None else "cuda"
    for batch in batches:
        pixels = np.random.default_rng(0).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)
        bindings = []
        for session in sessions:
            binding = session.io_binding()
            binding.bind_ortvalue_input("pixels", onnxruntime.OrtValue.ortvalue_from_numpy(pixels, place, device or 0))
            binding.bind_output("logits", place, device or 0)
            bindings.append(partial(session.run_with_iobinding, binding))

        def run(bindings: list[Any] = bindings) -> None:
            for bound in bindings:
                bound()

        yield {"batch": batch} | _timed(run, batch, seconds)


def _session(onnxruntime: Any, repository: Path, head: str, device: int | None, largest: int) -> Any:
    """A session of the providers that the server chooses for this configuration."""
    from google.protobuf.json_format import MessageToDict

    import car_analyzer_server
    from car_analyzer_server.repository import read_config

    backend = Path(car_analyzer_server.__file__).parent / "backends" / "onnxruntime"
    config = MessageToDict(read_config(repository, head), preserving_proto_field_name=True)
    if device is not None and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt_libs")  # loads TensorRT where it came as a Python package
    choice = _neighbour(backend, "accelerators").choose(config, device, onnxruntime.get_available_providers())
    if choice.warnings:
        raise MissingError(choice.warnings[0])
    if "trt_engine_cache_path" in (options := choice.providers[0][1]):
        # Larger batches than the served engine's, so engines of its own.
        engines = options["trt_engine_cache_path"] + "-bare"
        Path(engines).mkdir(parents=True, exist_ok=True)
        options["trt_engine_cache_path"] = options["trt_timing_cache_path"] = engines
        options["trt_profile_max_shapes"] = f"pixels:{largest}x{SIDE}x{SIDE}x3"
    session = onnxruntime.InferenceSession(repository / head / "1" / "model.onnx", providers=choice.providers)
    if (used := session.get_providers()[0]) != choice.best:
        raise MissingError(f"ONNX Runtime takes {used} in place of {choice.best}")
    return session


def pytorch(device: int | None, network: str, compiled: bool, batches: list[int], seconds: float) -> Iterator[Any]:
    """Plain PyTorch with the same arithmetic, fp16 on a GPU: pixels on the device in, logits out."""
    try:
        import torch
    except ImportError:
        raise MissingError("there is no PyTorch") from None

    from .rivals.networks import NETWORKS

    if device is not None and not torch.cuda.is_available():
        raise MissingError("PyTorch sees no CUDA")
    place, kind = ("cpu", torch.float32) if device is None else ("cuda", torch.float16)
    statistics = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], device=place, dtype=kind)
    mean, std = statistics[..., None, None]
    heads: list[Any] = [NETWORKS[network]().eval().to(place, kind) for _ in HEADS]

    def infer(pixels: Any) -> Any:
        images = (pixels.permute(0, 3, 1, 2).to(kind) / 255 - mean) / std
        return [head(images) for head in heads]

    step: Any = torch.compile(infer, dynamic=False) if compiled else infer
    for batch in batches:
        pixels = torch.randint(0, 256, (batch, SIDE, SIDE, 3), dtype=torch.uint8, device=place)

        def run(pixels: Any = pixels) -> None:
            with torch.inference_mode():
                step(pixels)
            if device is not None:
                torch.cuda.synchronize()

        yield {"batch": batch} | _timed(run, batch, seconds)


def decoder(device: int | None, photos: str, batch: int, seconds: float) -> Iterator[Any]:
    """The DALI step without Triton: its checks of the headers alone, and its decoding alone."""
    contents = _read(photos)
    for what, found, _ in _decoders(batch, device):
        jobs = [found.job(contents[number % len(contents)]) for number in range(batch)]
        yield {"what": f"decoding, {what}"} | _timed(partial(found.decode, jobs), batch, seconds)
    yield {"what": "checking headers"} | _timed(lambda: list(map(found.job, contents)), len(contents), seconds)


def parity(device: int | None, photos: str, repository: str) -> Iterator[Any]:
    """How far the DALI step's pixels are from Pillow's, and how many answers that changes."""
    import onnxruntime

    models = [Path(repository) / head / "1" / "model.onnx" for head in HEADS]
    sessions = [onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]) for model in models]
    for what, found, view in _decoders(8, device):
        from photo import InvalidPhotoError, Photo

        means, worst, changed = [], 0, 0
        for content in _read(photos):
            job = found.job(content)
            if job is None:
                continue
            with contextlib.suppress(InvalidPhotoError):
                expected = view.pixels(Photo(content).rgb)[None]
                pixels = found.decode([job], on_gpu=False)[0]["pixels"]
                difference = np.abs(pixels.astype(int) - expected)
                means.append(float(difference.mean()))
                worst = max(worst, int(difference.max()))
                labels = [[_label(session, each) for session in sessions] for each in (pixels, expected)]
                changed += labels[0] != labels[1]
        yield {
            "what": what,
            "photos": len(means),
            "mean_difference": float(np.mean(means)) if means else None,
            "worst_difference": worst,
            "changed_answers": changed,
        }


def _label(session: Any, pixels: Any) -> int:
    return int(session.run(None, {"pixels": pixels})[0].argmax())


def _decoders(batch: int, device: int | None) -> Iterator[tuple[str, Any, Any]]:
    """The DALI step's decoder in each way to treat colours that this device has: the way, the decoder, its view."""
    import car_analyzer_export

    folder = Path(car_analyzer_export.__file__).parent / "preprocess"
    try:
        dali = _neighbour(folder, "dali_pipeline")
    except ImportError as error:
        raise MissingError(f"DALI cannot be imported: {error}") from error
    view = _neighbour(folder, "view").View()
    for what in ("interpolated colours", "repeated colours") if device is not None else ("interpolated colours",):
        settings = dali.Settings(batch, device, fancy_upsampling=what.startswith("interpolated"))
        try:
            found = dali.Decoder({"pixels": view}, _LIMITS, settings)
            found.warm_up()
        except RuntimeError as error:
            raise MissingError(f"DALI does not work here: {dali.reason(error)}") from error
        yield what, found, view


def _neighbour(folder: Path, name: str) -> Any:
    """A module that Triton runs by its plain name, from its folder."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def _read(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()]


def _timed(run: Callable[[], Any], photos: int, seconds: float) -> dict[str, float]:
    """Runs it again and again; photos a second, and milliseconds of a run."""
    run()
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begun = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - begun))
    p50, p99 = np.percentile(times, (50, 99))
    return {"rate": 1000 * photos * len(times) / sum(times), "p50": float(p50), "p99": float(p99)}


PARTS: dict[str, Callable[..., Iterator[Any]]] = {
    "networks": networks,
    "pytorch": pytorch,
    "decoder": decoder,
    "parity": parity,
}

if __name__ == "__main__":
    sys.exit(main())
