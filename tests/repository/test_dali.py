"""The DALI step does what the Pillow step does, within the difference between two JPEG decoders and two resizes.

On the CPU: DALI's operators are the same there, but for the decoder.
"""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.utils
from PIL import Image

from car_analyzer_export import preprocess
from car_analyzer_export.export import export
from car_analyzer_export.planning import plan_export
from car_analyzer_export.preprocess.photo import MAX_BYTES, MAX_PIXELS, Photo
from car_analyzer_export.preprocess.view import View
from car_analyzer_export.spec import Spec
from car_analyzer_server import Server, Settings
from reliability.photos.malformed import without_picture
from tests.repository.test_preprocess import PHOTOS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest.importorskip("nvidia.dali", reason="DALI is not installed (pip install nvidia-dali-cuda130)")

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMITS = {"max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS}
HEADS = ("cleanliness", "condition")


@pytest.fixture(scope="module")
def dali() -> Iterator[Any]:
    """`dali_pipeline` as it runs in Triton: its neighbours are no package there."""
    folder = str(Path(preprocess.__file__).parent)
    sys.path.insert(0, folder)
    import dali_pipeline

    yield dali_pipeline
    sys.path.remove(folder)
    for name in ("dali_pipeline", "jpeg_header", "photo"):
        del sys.modules[name]


def jpeg(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    gradient = Image.linear_gradient("L").resize((width, height))
    Image.merge("RGB", [gradient, gradient.rotate(90), gradient.rotate(180)]).convert(mode).save(
        file, "JPEG", quality=90, **options
    )
    return file.getvalue()


@pytest.mark.parametrize("view", [View(), View(160, 96), View(224, 224, 256)], ids=["squashed", "wide", "cut out"])
def test_its_pixels_are_pillows(dali: Any, view: View, real_photos: list[Path]) -> None:
    decoder = dali.Decoder({"pixels": view}, LIMITS, dali.Settings(8))
    contents = [path.read_bytes() for path in real_photos if path.suffix == ".jpg"]
    jobs = [decoder.job(content) for content in contents]
    assert all(jobs)
    means = []
    for content, found in zip(contents, decoder.decode(jobs), strict=True):
        expected = view.pixels(Photo(content).rgb)
        assert found["pixels"].dtype == np.uint8
        assert found["pixels"].shape == (1, *expected.shape)
        difference = np.abs(found["pixels"][0].astype(int) - expected)
        means.append(difference.mean())
        assert difference.max() <= 24
    assert np.mean(means) < 0.25


def test_what_it_would_decode_otherwise_is_not_for_it(dali: Any) -> None:
    decoder = dali.Decoder({"pixels": View()}, LIMITS, dali.Settings(4))
    whole = jpeg(640, 480)
    assert decoder.job(whole) is not None
    assert decoder.job(jpeg(640, 480, "L")) is not None
    assert decoder.job(jpeg(640, 480, progressive=True)) is not None
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    coloured_otherwise = jpeg(64, 64, keep_rgb=True)
    for other in (png.getvalue(), jpeg(64, 64, "CMYK"), coloured_otherwise, whole[: len(whole) // 2], b"", b"no photo"):
        assert decoder.job(other) is None
    assert not any(
        decoder.job(content) for name, content in without_picture().items() if name.startswith(("png", "apng"))
    )
    small = dali.Decoder({"pixels": View()}, LIMITS | {"max_pixels": 640 * 480 - 1}, dali.Settings(4))
    assert small.job(whole) is None
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = jpeg(64, 32, exif=exif)
    assert decoder.job(turned) is not None
    upright = dali.Decoder({"pixels": View(exif_rotation=True)}, LIMITS, dali.Settings(4))
    assert upright.job(turned) is None
    assert upright.job(whole) is not None


def test_it_goes_on_after_a_failure(dali: Any) -> None:
    decoder = dali.Decoder({"pixels": View()}, LIMITS, dali.Settings(4))
    good = decoder.job(jpeg(64, 64))
    no_photo = dali.Job(b"\xff\xd8\xff\xd9", 1, good.sizes)
    with pytest.raises(dali.DaliError):
        decoder.decode([good, no_photo])
    assert len(decoder.decode([good, good])) == 2


def test_the_first_batch_of_a_pipeline_is_full(dali: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of the JPEG hardware is fixed by the first batch; also after a failure, when the pipeline is new."""
    sizes: list[int] = []
    run = dali.Pipeline.run
    monkeypatch.setattr(
        dali.Pipeline, "run", lambda pipeline, **inputs: sizes.append(len(inputs["jpegs"])) or run(pipeline, **inputs)
    )
    decoder = dali.Decoder({"pixels": View()}, LIMITS, dali.Settings(4))
    decoder.warm_up()
    assert sizes == [4, 1]
    with pytest.raises(dali.DaliError):
        decoder.decode([dali.Job(b"\xff\xd8\xff\xd9", 1, decoder.job(jpeg(64, 64)).sizes)])
    assert sizes == [4, 1, 1, 4]


def test_the_log_says_what_decodes(dali: Any) -> None:
    dali.Decoder({"pixels": View()}, LIMITS, dali.Settings(1))
    assert dali.where(None) == "the CPU"
    # libnvjpeg is loaded without a GPU, too; it then has no hardware.
    assert "JPEG hardware" in dali.where(0)
    assert dali.where(1) == "GPU 1"
    assert dali._jpeg_cores("libnvjpeg.so.missing") is None


def test_large_photos_are_decoded_in_several_runs(dali: Any) -> None:
    decoder = dali.Decoder({"pixels": View()}, LIMITS, dali.Settings(4))
    job = decoder.job(jpeg(64, 64))
    huge = dali.Job(job.content, 60_000_000, job.sizes)
    assert [len(run) for run in dali._in_runs([huge] * 5 + [job], 4)] == [4, 2]
    assert len(decoder.decode([huge] * 5 + [job])) == 6


@pytest.fixture(scope="module")
def infer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """Sends photos as one batch to a Triton that decodes with DALI: head → logits [photos, classes]."""
    repository = tmp_path_factory.mktemp("dali")
    spec = Spec.from_file(EXAMPLES / "demo.toml").model_copy(update={"preprocess": "dali"})
    export(plan_export(spec), repository)
    log = tmp_path_factory.mktemp("log") / "triton.log"
    settings = Settings(repository, http_port=0, grpc_port=0, metrics_port=0, arguments=(f"--log-file={log}",))
    with Server(settings) as server:
        assert log.read_text().count("DALI decodes on the CPU") == 2
        client = tritonclient.grpc.InferenceServerClient(server.grpc_url.partition("://")[2])

        def send(*photos: bytes) -> dict[str, Any]:
            image = tritonclient.grpc.InferInput("image", [len(photos), 1], "BYTES")
            image.set_data_from_numpy(np.array(photos, dtype=object).reshape(-1, 1))
            answer = client.infer("car_analyzer", [image])
            return {head: answer.as_numpy(f"{head}_logits") for head in HEADS}

        yield send
        client.close()


def assert_close(logits: Any, expected: list[float]) -> None:
    """The demo networks make of a few 255ths, on photos of a kind that they do not know, some hundredths of a logit."""
    np.testing.assert_allclose(logits, expected, atol=0.2 * max(1, np.abs(expected).max()))


def test_its_answers_are_pytorchs(
    infer: Any, sample_photos: list[Path], real_photos: list[Path], reference: Any
) -> None:
    changed = 0
    for photo in [*sample_photos, *real_photos]:
        expected = reference(photo.read_bytes())
        for head, logits in infer(photo.read_bytes()).items():
            assert_close(logits[0], expected[head])
            changed += int(np.argmax(logits[0]) != np.argmax(expected[head]))
    assert changed <= 1


def test_a_batch_of_one_request(infer: Any, sample_photos: list[Path], reference: Any) -> None:
    answers = infer(*(photo.read_bytes() for photo in sample_photos))
    for position, photo in enumerate(sample_photos):
        for head, expected in reference(photo.read_bytes()).items():
            assert_close(answers[head][position], expected)


@pytest.mark.parametrize("name", PHOTOS)
def test_other_formats_are_pillows(infer: Any, name: str, reference: Any) -> None:
    for head, logits in infer(PHOTOS[name]).items():
        np.testing.assert_allclose(logits[0], reference(PHOTOS[name])[head], atol=0.1)


def test_bad_photos_do_not_touch_their_neighbours(infer: Any, sample_photos: list[Path], reference: Any) -> None:
    good = sample_photos[0].read_bytes()
    # The first gets as far as DALI, which fails on the whole batch.
    bad = {
        good[: good.index(b"\xff\xda") + 2] + bytes(50) + b"\xff\xd9": "damaged",
        good[: len(good) // 2]: "image file is truncated",
        b"no photo": "not a photo that can be read",
        b"": "0 bytes",
        without_picture()["png without IDAT"]: "has a header, but no picture",
    }

    def ask(content: bytes) -> dict[str, Any] | str:
        try:
            return dict(infer(content))
        except tritonclient.utils.InferenceServerException as error:
            return str(error)

    with ThreadPoolExecutor(12) as pool:
        contents = [*bad, good] * 12
        for content, answer in zip(contents, pool.map(ask, contents), strict=True):
            if content == good:
                assert isinstance(answer, dict), answer
                for head, expected in reference(good).items():
                    assert_close(answer[head][0], expected)
            else:
                assert bad[content] in str(answer)
                assert "INVALID_ARGUMENT" in str(answer)
