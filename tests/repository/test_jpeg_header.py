"""The quick look at a JPEG's header accepts nothing that Pillow's check rejects, and agrees with it on the rest."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from car_analyzer_export import preprocess
from car_analyzer_export.preprocess.photo import MAX_BYTES, MAX_PIXELS, InvalidPhotoError, header
from reliability.photos.bombs import BOMBS
from reliability.photos.build import jpeg_segment, progressive
from reliability.photos.corpus import malformed
from reliability.photos.mutations import mutate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Pillow warns about damaged photos that it accepts, and the server ignores that.
pytestmark = pytest.mark.filterwarnings("ignore")

SIZE = (64, 48)
RESOURCES = b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\2ab" + b"8BIM\4\4\3abc\0\0\0\3xyz\0"


@pytest.fixture(scope="module")
def plain_header() -> Iterator[Callable[..., Any]]:
    """The function as it is imported in Triton: its neighbours are no package there."""
    folder = str(Path(preprocess.__file__).parent)
    sys.path.insert(0, folder)
    import jpeg_header

    yield jpeg_header.plain_header
    sys.path.remove(folder)
    for name in ("jpeg_header", "photo"):
        del sys.modules[name]


def encoded(mode: str = "RGB", file_format: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(SIZE).convert(mode).save(file, file_format, **options)
    return file.getvalue()


def with_segment(marker: int, data: bytes, photo: bytes | None = None) -> bytes:
    photo = photo or encoded()
    return photo[:2] + jpeg_segment(marker, data) + photo[2:]


def exif(orientation: int | None) -> bytes:
    tags = Image.Exif()
    tags[0x010F], tags[0x011A], tags[0x0128] = "maker", 72.0, 2
    if orientation is not None:
        tags[0x0112] = orientation
    return tags.tobytes()


def xmp(orientation: int) -> bytes:
    return f'<rdf:Description tiff:Orientation="{orientation}"/>'.encode()


def without_jfif(photo: bytes) -> bytes:
    """Then Pillow reads the resolution from the EXIF data."""
    return photo[:2] + photo[4 + int.from_bytes(photo[4:6], "big") :]


PLAIN = {
    "colours": encoded(),
    "grey": encoded("L"),
    "not subsampled": encoded(subsampling=0),
    "progressive": encoded(progressive=True),
    "progressive grey": encoded("L", progressive=True),
    "optimized": encoded(optimize=True),
    "restart markers": encoded(restart_marker_blocks=2),
    "comment": encoded(comment=b"a comment"),
    "profile": encoded(icc_profile=bytes(3000)),
    "exif": encoded(exif=exif(1)),
    "exif without orientation": encoded(exif=exif(None)),
    "exif without jfif": without_jfif(encoded(exif=exif(1))),
    "upright by xmp": encoded(xmp=xmp(1)),
    "photoshop": with_segment(0xED, RESOURCES),
    "adobe, ycbcr": with_segment(0xEE, b"Adobe\0\x64\0\0\0\0\1"),
    "adobe, grey": with_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0", encoded("L")),
    "two pictures": encoded(file_format="MPO", save_all=True, append_images=[Image.new("RGB", SIZE)]),
}
TURNED = {
    "exif": encoded(exif=exif(6)),
    "exif without jfif": without_jfif(encoded(exif=exif(8))),
    "xmp": encoded(xmp=xmp(3)),
}


def frame_of(photo: bytes) -> int:
    return photo.index(b"\xff\xc0")


def patched(at: int, data: bytes, photo: bytes | None = None) -> bytes:
    photo = photo or encoded()
    return photo[:at] + data + photo[at + len(data) :]


FRAME = frame_of(encoded())
SCAN = encoded().index(b"\xff\xda") + 14
SECOND_SCAN = encoded(progressive=True).rindex(b"\xff\xda") + 10
UNUSUAL = {
    "empty": b"",
    "no photo": b"no photo",
    "png": encoded(file_format="PNG"),
    "cmyk": encoded("CMYK"),
    "rgb": encoded(keep_rgb=True),
    "adobe, rgb": with_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"),
    "12 bits": patched(FRAME + 4, b"\x0c"),
    "without height": patched(FRAME + 5, b"\0\0"),
    "without width": patched(FRAME + 7, b"\0\0"),
    "extended": patched(FRAME, b"\xff\xc1"),
    "lossless": patched(FRAME, b"\xff\xc3"),
    "arithmetic": patched(FRAME, b"\xff\xc9"),
    "without frame": patched(FRAME, b"\xff\xfe"),
    "two frames": with_segment(0xC0, encoded()[FRAME + 4 : FRAME + 21]),
    "without scan": encoded()[: encoded().index(b"\xff\xda")],
    "without data": encoded()[:SCAN],
    "without end": encoded()[:-2],
    "a marker in the data": patched(SCAN + 20, b"\xff\xc0"),
    "tables in the data": patched(SCAN + 20, b"\xff\xc4"),
    "progressive, without end": encoded(progressive=True)[:-2],
    "progressive, a marker in the data": patched(SECOND_SCAN + 2, b"\xff\xc0", encoded(progressive=True)),
    "restart marker in the header": patched(2, b"\xff\xd0\xff\xd0"),
    "padded": encoded()[:2] + b"\xff" + encoded()[2:],
    "junk between segments": encoded()[:2] + b"\0" + encoded()[2:],
    "a segment without length": patched(4, b"\0\0"),
    "a segment past the end": patched(4, b"\xff\xff"),
    "tables of 16 bits": patched(encoded().index(b"\xff\xdb") + 4, b"\x10"),
    "short tables": with_segment(0xDB, bytes(64)),
    "short jfif": with_segment(0xE0, b"JFIF"),
    "short adobe": with_segment(0xEE, b"Adobe"),
    "short profile": with_segment(0xE2, b"ICC_PROFILE\0"),
    "short photoshop": with_segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
    "two exifs": with_segment(0xE1, exif(1), encoded(exif=exif(1))),
    "exif in another place": with_segment(0xE5, exif(1)),
    "exif without byte order": with_segment(0xE1, b"Exif\0\0Exif\0\0"),
    "exif with an empty resolution": without_jfif(
        encoded(exif=exif(1).replace(b"\x01\x1a\0\5\0\0\0\1", b"\x01\x1a\0\5\0\0\0\0"))
    ),
    "many segments": b"\xff\xd8" + jpeg_segment(0xFE, b"") * 10_000 + encoded()[2:],
    "many scans": progressive(*SIZE, 400_000),
    "a heic, too": with_segment(0xE0, bytes(0x6674 - 2))[:6] + b"ypheic" + with_segment(0xE0, bytes(0x6674 - 2))[12:],
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_jpegs_are_accepted(plain_header: Any, name: str) -> None:
    assert plain_header(PLAIN[name], MAX_BYTES, MAX_PIXELS) == (*SIZE, True)


@pytest.mark.parametrize("name", TURNED)
def test_an_orientation_is_found(plain_header: Any, name: str) -> None:
    assert plain_header(TURNED[name], MAX_BYTES, MAX_PIXELS) == (*SIZE, False)


@pytest.mark.parametrize("name", UNUSUAL)
def test_the_rest_is_left_to_pillow(plain_header: Any, name: str) -> None:
    assert plain_header(UNUSUAL[name], MAX_BYTES, MAX_PIXELS) is None


def test_the_limits_are_pillows(plain_header: Any) -> None:
    pixels = SIZE[0] * SIZE[1]
    for photo, most in ((PLAIN["colours"], pixels), (PLAIN["progressive"], pixels * 5 // 4)):
        assert plain_header(photo, len(photo), most)
        assert plain_header(photo, len(photo) - 1, most) is None
        assert plain_header(photo, len(photo), most - 1) is None
        header(photo, len(photo), most)
        with pytest.raises(InvalidPhotoError):
            header(photo, len(photo), most - 1)


def test_all_photographs_are_plain(plain_header: Any, real_photos: list[Path], sample_photos: list[Path]) -> None:
    for path in [*real_photos, *sample_photos]:
        content = path.read_bytes()
        found = plain_header(content, MAX_BYTES, MAX_PIXELS)
        assert (found is not None) == (path.suffix == ".jpg"), path
        assert_pillow_agrees(found, content, MAX_PIXELS)


def test_nothing_hostile_is_accepted_that_pillow_rejects(plain_header: Any) -> None:
    jpegs = [make() for name, make in BOMBS.items() if name.startswith("jpeg")]
    for content in [*jpegs, *(photo.content for photo in malformed())]:
        assert_pillow_agrees(plain_header(content, MAX_BYTES, MAX_PIXELS), content, MAX_PIXELS)


def test_no_mutant_is_accepted_that_pillow_rejects(plain_header: Any) -> None:
    valid = [*PLAIN.values(), *TURNED.values(), *UNUSUAL.values()]
    valid = [each for each in valid if 0 < len(each) < 10_000]
    accepted = 0
    for number in range(3000):
        random = Random(number)
        content = mutate(valid[number % len(valid)], random.choice(valid), random)
        pixels = random.choice((SIZE[0] * SIZE[1], MAX_PIXELS))
        found = plain_header(content, MAX_BYTES, pixels)
        assert_pillow_agrees(found, content, pixels)
        accepted += found is not None
    assert accepted > 300


def assert_pillow_agrees(found: Any, content: bytes, max_pixels: int) -> None:
    if found is None:
        return
    image: Any = header(content, max_pixels=max_pixels)
    assert image.size == (found.width, found.height)
    assert image.mode in ("L", "RGB")
    assert image.bits == 8
    if image.mode == "RGB":
        assert [layer[0] for layer in image.layer] in ([1, 2, 3], [0, 1, 2])
        assert image.info.get("adobe_transform") != 0
    assert not found.is_upright or image.getexif().get(0x0112, 1) == 1
