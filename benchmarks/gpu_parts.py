"""What runs without a server: the bare networks, PyTorch, and the bare decoder. Each part is a process of its own.

`python -m benchmarks.gpu_parts PART JSON` prints a JSON list of figures, or a sentence that says what is missing.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADS = ("cleanliness", "condition")
SIDE = 224
PROFILE = 128
_MISSING = 3


class MissingError(Exception):
    """This machine lacks what the part needs; the message says what."""


def main() -> int:
    """Runs one part."""
    part, arguments = sys.argv[1], json.loads(sys.argv[2])
    # Libraries write on stdout, too.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        found = list(PARTS[part](**arguments))
    except MissingError as error:
        print(error, file=answer, flush=True)
        return _MISSING
    print(json.dumps(found), file=answer, flush=True)
    return 0


def networks(repository: str, accelerator: str, batches: list[int], seconds: float, engines: str) -> Iterator[Any]:
    """Both heads with ONNX Runtime, inputs and outputs on the device: no server, no decoding, no copies."""
    import onnxruntime

    providers, device = _providers(onnxruntime, accelerator, engines)
    sessions = []
    for head in HEADS:
        file = Path(repository) / head / "1" / "model.onnx"
        sessions.append(onnxruntime.InferenceSession(file, providers=providers))
        used = sessions[-1].get_providers()[0]
        if used != providers[0][0]:
            raise MissingError(f"ONNX Runtime takes {used} in place of {providers[0][0]}")
    for batch in batches:
        pixels = np.random.default_rng(0).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)
        bindings = []
        for session in sessions:
            binding = session.io_binding()
            binding.bind_ortvalue_input("pixels", onnxruntime.OrtValue.ortvalue_from_numpy(pixels, device, 0))
            binding.bind_output("logits", device, 0)
            bindings.append(binding)

        def run(bindings: list[Any] = bindings) -> None:
            for session, binding in zip(sessions, bindings, strict=True):
                session.run_with_iobinding(binding)

        yield {"batch": batch} | _timed(run, batch, seconds)


def _providers(onnxruntime: Any, accelerator: str, engines: str) -> tuple[list[Any], str]:
    if accelerator == "cpu":
        return [("CPUExecutionProvider", {})], "cpu"
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    wanted = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[accelerator]
    if wanted not in onnxruntime.get_available_providers():
        raise MissingError(f"this ONNX Runtime has no {wanted}")
    cuda = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"})
    if accelerator == "cuda":
        return [cuda], "cuda"
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt_libs")  # finds TensorRT where it came as a Python package
    smallest, largest = (f"pixels:{batch}x{SIDE}x{SIDE}x3" for batch in (1, PROFILE))
    options = {
        "trt_fp16_enable": "1" if "fp16" in engines else "0",
        "trt_int8_enable": "1" if "int8" in engines else "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": engines,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": engines,
        "trt_profile_min_shapes": smallest,
        "trt_profile_opt_shapes": f"pixels:32x{SIDE}x{SIDE}x3",
        "trt_profile_max_shapes": largest,
    }
    Path(engines).mkdir(parents=True, exist_ok=True)
    return [("TensorrtExecutionProvider", options), cuda], "cuda"


def pytorch(network: str, batches: list[int], seconds: float, device: str, compiled: bool) -> Iterator[Any]:
    """Plain PyTorch with the same arithmetic, fp16 on a GPU: pixels on the device in, logits out."""
    import torch

    from .rivals.networks import NETWORKS

    if device == "cuda" and not torch.cuda.is_available():
        raise MissingError("PyTorch sees no CUDA")
    kind = torch.float16 if device == "cuda" else torch.float32
    mean, std = (
        torch.tensor(part, device=device, dtype=kind).reshape(3, 1, 1)
        for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    heads: list[Any] = [NETWORKS[network]().eval().to(device, kind) for _ in HEADS]

    def infer(pixels: Any) -> Any:
        images = (pixels.permute(0, 3, 1, 2).to(kind) / 255 - mean) / std
        return [head(images) for head in heads]

    step: Any = torch.compile(infer, dynamic=False) if compiled else infer
    for batch in batches:
        pixels = torch.randint(0, 256, (batch, SIDE, SIDE, 3), dtype=torch.uint8, device=device)

        def run(pixels: Any = pixels) -> None:
            with torch.inference_mode():
                step(pixels)
            if device == "cuda":
                torch.cuda.synchronize()

        yield {"batch": batch} | _timed(run, batch, seconds)


def decoder(photos: str, seconds: float, device: int | None, batch: int) -> Iterator[Any]:
    """The DALI step without Triton: its checks of the headers alone, and its decoding alone."""
    dali = _dali()
    from view import View

    contents = _photos(photos)
    limits = {"max_bytes": 20_000_000, "max_pixels": 64_000_000}
    for fancy in (True, False) if device is not None else (True,):
        settings = dali.Settings(batch, device, fancy_upsampling=fancy)
        try:
            found = dali.Decoder({"pixels": View()}, limits, settings)
            found.warm_up()
        except RuntimeError as error:
            raise MissingError(f"DALI does not work here: {dali.reason(error)}") from error
        jobs = [found.job(contents[number % len(contents)]) for number in range(batch)]
        what = "interpolated colours" if fancy else "repeated colours"
        yield {"what": f"decoding, {what}"} | _timed(partial(found.decode, jobs), batch, seconds)
        if fancy:
            yield {"what": "checking headers"} | _timed(partial(_check, found, contents), len(contents), seconds)


def parity(photos: str, repository: str, device: int | None, folder: str | None) -> Iterator[Any]:
    """How far the DALI step's pixels are off Pillow's, and how many answers that changes."""
    dali = _dali()
    import onnxruntime
    from photo import InvalidPhotoError, Photo
    from view import View

    view = View()
    contents = _photos(photos)
    if folder is not None:
        contents = [path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    sessions = [
        onnxruntime.InferenceSession(Path(repository) / head / "1" / "model.onnx", providers=["CPUExecutionProvider"])
        for head in HEADS
    ]
    for fancy in (True, False) if device is not None else (True,):
        settings = dali.Settings(8, device, fancy_upsampling=fancy)
        try:
            found = dali.Decoder({"pixels": view}, {"max_bytes": 20_000_000, "max_pixels": 64_000_000}, settings)
        except RuntimeError as error:
            raise MissingError(f"DALI does not work here: {dali.reason(error)}") from error
        means, worst, changed = [], 0, 0
        for content in contents:
            job = found.job(content)
            if job is None:
                continue
            with contextlib.suppress(InvalidPhotoError):
                expected = view.pixels(Photo(content).rgb)[None]
                pixels = found.decode([job])[0]["pixels"]
                pixels = pixels if isinstance(pixels, np.ndarray) else np.array(pixels.as_cpu())
                difference = np.abs(pixels.astype(int) - expected)
                means.append(float(difference.mean()))
                worst = max(worst, int(difference.max()))
                changed += any(_label(session, pixels) != _label(session, expected) for session in sessions)
        yield {
            "what": "interpolated colours" if fancy else "repeated colours",
            "photos": len(means),
            "mean_difference": float(np.mean(means)) if means else None,
            "worst_difference": worst,
            "changed_answers": changed,
        }


def _check(decoder: Any, contents: list[bytes]) -> None:
    for content in contents:
        decoder.job(content)


def _label(session: Any, pixels: Any) -> int:
    return int(session.run(None, {"pixels": pixels})[0].argmax())


def _dali() -> Any:
    """`dali_pipeline`, which lies beside the preprocess step and is no part of a package there."""
    import car_analyzer_export

    sys.path.insert(0, str(Path(car_analyzer_export.__file__).parent / "preprocess"))
    try:
        return importlib.import_module("dali_pipeline")
    except ImportError as error:
        raise MissingError(f"DALI cannot be imported: {error}") from error


def _photos(file: str) -> list[bytes]:
    import pickle

    found: list[bytes] = pickle.load(io.BytesIO(Path(file).read_bytes()))  # noqa: S301 - our own
    return found


def _timed(run: Callable[[], Any], photos: int, seconds: float) -> dict[str, float]:
    """Runs it again and again; photos a second, and milliseconds a run."""
    run()
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    ordered = sorted(times)
    return {
        "rate": photos * len(times) / sum(times),
        "p50": ordered[len(ordered) // 2] * 1000,
        "p99": ordered[int(len(ordered) * 0.99)] * 1000,
    }


PARTS: dict[str, Callable[..., Iterator[Any]]] = {
    "networks": networks,
    "pytorch": pytorch,
    "decoder": decoder,
    "parity": parity,
}

if __name__ == "__main__":
    sys.exit(main())
