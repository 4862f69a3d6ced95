"""Hostile photos get Pillow's own answer or a rejection in a sentence, and no other request is affected."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from car_analyzer_export.preprocess.photo import FORMATS, InvalidPhotoError, Photo
from car_analyzer_export.preprocess.view import View, ViewError
from reliability.load import Load
from reliability.photos.bombs import BOMBS
from reliability.photos.build import progressive
from reliability.photos.corpus import HostilePhoto, malformed, mutants
from reliability.photos.malformed import without_picture
from reliability.photos.mutations import mutate
from reliability.photos.oracle import Oracle
from reliability.photos.photo_trial import PhotoTrial
from reliability.photos.samples import samples
from reliability.processes import stubs
from reliability.reference import reference_photos
from reliability.triton_client import TritonClient, UnexpectedAnswerError

# Each of these once took seconds, hundreds of megabytes, or the process.
REJECTED = {
    "jpeg with millions of comments": "too many small pieces",
    "jpeg padded with FF": "too many small pieces",
    "jpeg with a full exif": "EXIF data has more than 64 parts",
    "jpeg progressive of 32 megapixels, 1,000 scans": "JPEG of more than 32 scans",
    "jpeg progressive of 2 megapixels, 1,000 scans": "JPEG of more than 512 scans",
    "jpeg progressive of 16 pixels, a million scans": "JPEG of more than 10,000 segments",
    "jpeg progressive of 64 megapixels": "at most 51.2 megapixels are accepted of progressive JPEG",
    "jpeg of 64 megapixels, 1,000 scans": "broken data stream",
    "png with profiles of 20 GB": "colour profiles; at most 64",
    "png with a million unknown chunks behind": "too many small pieces",
    "png with iTXt of 20 GB": "Too much memory used in text chunks",
    "png with a profile of 1 GB": "Decompressed data too large",
    "png of 64,000,000 x 1": "at most 65,535 are accepted along a side",
    "webp with a canvas of 64 megapixels": "at most 32 megapixels are accepted of WebP",
    "gif with a comment in millions of pieces": "too many small pieces",
    "bmp rle of one line end in 64,000,000": "at most 8 megapixels are accepted of run-length encoded BMP",
    "tiff in 4 million strips": "cut into 4,900,000 strips or tiles; at most 65,536",
    "tiff in 4 million tiles": "cut into 4,800,000 strips or tiles; at most 65,536",
    "tiff with a million entries": "too many small pieces",
    "tiff of 64 megapixels, all missing": "at most 32 megapixels are accepted of TIFF",
    "avif that claims 64 megapixels": "at most 32 megapixels are accepted of AVIF",
    "heic that claims 64 megapixels": "at most 51.2 megapixels are accepted of HEIC",
    "heic composed of itself": "composed of several pictures",
    "heic of tiles, with alpha": "composed of several pictures",
}


@pytest.mark.filterwarnings("ignore")  # Pillow's, about oddities
@pytest.mark.parametrize("name", REJECTED)
def test_what_costs_much_to_decode_is_rejected(name: str) -> None:
    with pytest.raises(InvalidPhotoError) as rejection:
        Photo(BOMBS[name]())
    assert REJECTED[name] in str(rejection.value)
    assert str(rejection.value).endswith(".")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", without_picture())
def test_a_file_without_a_picture_is_rejected_in_a_sentence_or_is_pillows_answer(name: str) -> None:
    content = without_picture()[name]
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            expected = np.asarray(image.convert("RGB"))
    except Exception:  # noqa: BLE001 - whatever Pillow says, ours is a rejection
        with pytest.raises(InvalidPhotoError, match=r"^The .*\.$"):
            Photo(content)
    else:
        np.testing.assert_array_equal(Photo(content).rgb, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["png without IDAT", "apng of no frames", "jpeg without a scan"])
def test_a_header_without_a_picture_is_named(name: str) -> None:
    with pytest.raises(InvalidPhotoError, match="has a header, but no picture"):
        Photo(without_picture()[name])


def test_16_bits_a_colour() -> None:
    with pytest.raises(InvalidPhotoError, match="at most 32 megapixels are accepted of PNG with 16 bits a colour"):
        Photo(BOMBS["png of 64 megapixels, 16 bit"]())


def test_what_comes_after_a_jpeg_are_not_its_scans() -> None:
    """Phones append videos to photos."""
    content = samples()["jpeg"] + b"\xff\xda\x00\x02" * 100_000
    assert Photo(content, max_pixels=61 * 43).rgb.size == (61, 43)


def test_a_photo_may_have_as_many_scans_as_real_ones() -> None:
    content = samples()["jpeg progressive"]
    assert Photo(content, max_pixels=2 * 61 * 43).rgb.size == (61, 43)
    with pytest.raises(InvalidPhotoError, match="JPEG of more than 32 scans"):
        Photo(progressive(61, 43, 40), max_pixels=2 * 61 * 43)


def test_a_photo_that_would_become_huge_before_it_is_cropped() -> None:
    narrow = Photo(BOMBS["png of 1 x 65,535"]()).rgb
    assert View().pixels(narrow).shape == (224, 224, 3)
    with pytest.raises(ViewError, match="1 x 65535 pixels, which is too narrow"):
        View(shortest_edge=256).pixels(narrow)


@given(st.sampled_from(sorted(samples())), st.sampled_from(sorted(samples())), st.integers(0, 2**32))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_corrupt_photo_is_pillows_answer_or_an_error(name: str, other: str, seed: int) -> None:
    damaged = mutate(samples()[name], samples()[other], Random(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            served = View().pixels(Photo(damaged, max_pixels=8_000_000).rgb)
        except InvalidPhotoError as rejection:
            assert str(rejection).endswith(".")  # noqa: PT017 - that it raises is not promised
            if "at most" in str(rejection) or "JPEG of more than" in str(rejection):
                return
            served = None
        try:
            with Image.open(io.BytesIO(damaged), formats=FORMATS) as image:
                expected = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
        except Exception:  # noqa: BLE001 - whatever Pillow says, ours is a rejection
            assert served is None
        else:
            assert served is not None
            np.testing.assert_array_equal(served, expected)


@pytest.mark.filterwarnings("ignore")
def test_hostile_photos_on_a_real_server(server: SimpleNamespace, tmp_path: Path) -> None:
    before = [process.pid for process in stubs(server.pid)]
    photos = [*malformed(), *mutants(seed=7, count=200)]
    photos += [
        HostilePhoto("bomb", name, BOMBS[name]()) for name in ("png of 1 x 65,535", "webp of 16,384 x 16,384", *_CHEAP)
    ]
    with ThreadPoolExecutor(1) as pool, Load(server.grpc_url, reference_photos(), workers=2, rate=20) as others:
        with PhotoTrial(server, Oracle(pool), tmp_path / "lost") as trial:
            trial.answers("hostile photos", photos)
        others.wait_for(1)
    assert trial.complaints == []
    assert trial.rows[0].tried == len(photos)
    assert others.counts() == {"correct": len(others.outcomes)}
    assert [process.pid for process in stubs(server.pid)] == before


_CHEAP = (
    "jpeg with looping exif",
    "mpo of thousands of pictures",
    "png of 2 billion x 2 billion",
    "gif with a frame of 65,535 x 65,535",
    "bmp of negative size",
    "bmp with 4 billion colours",
    "tiff of 4 billion x 4 billion",
    "tiff whose directory follows itself",
    "tiff with a tile of 16 GB",
    "avif that claims 50,000 x 50,000",
    "heic that claims 50,000 x 50,000",
    "heic of tiles that claim 50 megapixels each",
)


def test_a_decoder_gets_no_more_memory_than_it_may_have(server: SimpleNamespace, tmp_path: Path) -> None:
    """A small tile of a small picture is said to be 2 GB."""
    bomb = BOMBS["tiff with a tile of 2 GB"]()
    with ThreadPoolExecutor(1) as pool, PhotoTrial(server, Oracle(pool), tmp_path / "lost") as trial:
        trial.costs([HostilePhoto("bomb", "tiff with a tile of 2 GB", bomb)] * 2)
    assert trial.complaints == []


def test_an_unforeseen_answer_is_lost(server: SimpleNamespace, tmp_path: Path) -> None:
    """An error of the server, and a rejection for an unforeseen reason."""
    photo = samples()["png"]
    unforeseen = "The photo cannot be processed, for a reason that stands in the server's log; save it again."
    unexpected = UnexpectedAnswerError("grpc StatusCode.INTERNAL: Traceback (most recent call last)")
    with ThreadPoolExecutor(1) as pool, PhotoTrial(server, Oracle(pool), tmp_path) as trial:
        for answer in (unforeseen, unexpected):
            trial._client = SimpleNamespace(infer=partial(_answer, answer), __exit__=lambda *_: None)
            trial.answers("photos", [HostilePhoto("sample", "png", photo)])
    assert [row.lost for row in trial.rows] == [1, 1]


def _answer(answer: str | Exception, *_: object) -> str:
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_the_log_is_not_filled_by_damaged_photos(server: SimpleNamespace, capfd: pytest.CaptureFixture[str]) -> None:
    """libtiff writes a line for each damaged row."""
    damaged = samples()["tiff fax"][:200] + bytes(100) + samples()["tiff fax"][300:]
    with TritonClient(server) as client:
        client.infer("grpc", damaged)
    captured = capfd.readouterr()
    assert "Decode" not in captured.out + captured.err
