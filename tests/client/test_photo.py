from __future__ import annotations

import functools
import http.server
import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from tritonclient.grpc import service_pb2

from car_analyzer import ConfigurationError, PhotoError
from car_analyzer._photo import to_bytes
from car_analyzer._transports.grpc import add_photo

PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def decode(data: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


async def test_bytes_go_as_they_are(tmp_path: Path) -> None:
    data = b"\x00whatever\x00"
    path = tmp_path / "photo"
    path.write_bytes(data)
    assert await to_bytes(data) == data
    assert await to_bytes(bytearray(data)) == data
    assert await to_bytes(memoryview(data)) == data
    assert await to_bytes(memoryview(b"_" + data)[1:]) == data
    assert await to_bytes(str(path)) == data
    assert await to_bytes(path) == data
    assert await to_bytes(io.BytesIO(data)) == data
    with path.open("rb") as file:
        assert file.read(1) == data[:1]
        assert await to_bytes(file) == data[1:]


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    """The address of a web server with the files in a folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_urls(website: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    (tmp_path / "empty.jpg").touch()
    assert await to_bytes(f"{website}/photo.jpg") == b"photo"
    assert await to_bytes((tmp_path / "photo.jpg").as_uri()) == b"photo"
    for name, words, code in [
        ("none.jpg", "cannot read .*/none.jpg: No such file", "photo.unreadable"),
        ("empty.jpg", "empty.jpg is empty", "photo.empty"),
    ]:
        with pytest.raises(PhotoError, match=words) as caught:
            await to_bytes(f"{website}/{name}")
        assert caught.value.code == code


async def test_urls_need_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'car-analyzer\[bulk\]'"):
        await to_bytes("https://example.com/car.jpg")


async def test_the_orientation_of_a_pillow_image_arrives() -> None:
    """As ImageOps.exif_transpose, in a training script, would turn it; nothing else of its metadata does."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "the camera's maker"
    for form in ("PNG", "TIFF"):  # Pillow turns a TIFF itself
        file = io.BytesIO()
        Image.fromarray(PIXELS).save(file, form, exif=exif)
        with Image.open(file) as image, Image.open(io.BytesIO(await to_bytes(image))) as sent:
            np.testing.assert_array_equal(ImageOps.exif_transpose(sent), np.rot90(PIXELS, -1))
            assert set(sent.getexif()) <= {0x0112}


async def test_pixels_arrive_unchanged() -> None:
    assert (decode(await to_bytes(PIXELS)) == PIXELS).all()
    assert (decode(await to_bytes(PIXELS[::-1, ::2])) == PIXELS[::-1, ::2]).all()
    assert (decode(await to_bytes(Image.fromarray(PIXELS))) == PIXELS).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16", "LA", "YCbCr"])
async def test_images_of_other_modes_become_what_pillow_makes_of_them(mode: str) -> None:
    image = Image.new("I;16", (7, 5), 300) if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)
    assert (decode(await to_bytes(image)) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (PIXELS.astype(np.float32), "float32 of 5 x 7 x 3"),
        (PIXELS[..., 0], "uint8 of 5 x 7"),
        (PIXELS[None], "uint8 of 1 x 5 x 7 x 3"),
        (PIXELS.transpose(2, 0, 1), "uint8 of 3 x 5 x 7"),
        (np.zeros((5, 7, 4), np.uint8), "uint8 of 5 x 7 x 4"),
        (np.uint8(3) + np.zeros((), np.uint8)[None][0:1].reshape(()), r"uint8 of \(\)"),
        (np.zeros((0, 7, 3), np.uint8), "empty"),
    ],
)
async def test_other_arrays_are_refused_by_name(array: Any, words: str) -> None:
    with pytest.raises(PhotoError, match=words):
        await to_bytes(np.asarray(array))


@pytest.mark.parametrize("nothing", [b"", bytearray(), io.BytesIO()])
async def test_nothing_is_no_photo(nothing: Any) -> None:
    with pytest.raises(PhotoError, match="is empty"):
        await to_bytes(nothing)


async def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"absent\.jpg: No such file"):
        await to_bytes(tmp_path / "absent.jpg")
    with pytest.raises(PhotoError, match="Is a directory"):
        await to_bytes(str(tmp_path))
    with pytest.raises(PhotoError, match="null"):
        await to_bytes("a\0b")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(PhotoError, match=r"empty\.jpg is empty"):
        await to_bytes(tmp_path / "empty.jpg")


async def test_file_names_need_not_be_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.jpg"
    with open(path, "wb") as file:  # noqa: ASYNC230, PTH123
        file.write(b"x")
    assert await to_bytes(os.fsdecode(path)) == b"x"


class Broken(io.RawIOBase):
    def read(self, _size: int = -1) -> bytes:
        raise RuntimeError("the cable is out")


async def test_files_that_are_no_binary_files_are_refused() -> None:
    with pytest.raises(PhotoError, match="'rb'"):
        await to_bytes(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(PhotoError, match="the cable is out"):
        await to_bytes(Broken())  # type: ignore[arg-type]
    with io.BytesIO(b"x") as closed:
        pass
    with pytest.raises(PhotoError, match="closed"):
        await to_bytes(closed)


@pytest.mark.parametrize("thing", [3, None, ["a.jpg"], {"a": 1}, object()])
async def test_other_things_are_refused(thing: Any) -> None:
    with pytest.raises(PhotoError, match="a photo is a path"):
        await to_bytes(thing)


async def test_broken_pillow_images_are_photo_errors() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(buffer, "PNG")
    with Image.open(io.BytesIO(buffer.getvalue()[:2000])) as cut, pytest.raises(PhotoError, match="Pillow image"):
        await to_bytes(cut)


@pytest.mark.parametrize("size", [1, 123, 124, 16_379, 16_380, 2_097_147, 2_097_148])
def test_a_photo_in_a_grpc_request(size: int) -> None:
    request = service_pb2.ModelInferRequest(model_name="car_analyzer", id="order-7")
    photo = b"\x01" * size
    read = service_pb2.ModelInferRequest.FromString(add_photo(request, photo))
    request.raw_input_contents.append(size.to_bytes(4, "little") + photo)
    assert read == request
