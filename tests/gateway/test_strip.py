"""Metadata is removed from collected photos, and not one pixel changes."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from car_analyzer_gateway._collection.metadata import UnreadableError
from car_analyzer_gateway._collection.strip import strip

SECRET = b"SECRET"
XMP = b"<x:xmpmeta xmlns:tiff='t'><rdf:Description tiff:Orientation=\"6\">SECRET</rdf:Description></x:xmpmeta>"


def exif_with(orientation: int | None) -> Image.Exif:
    """EXIF with a camera, a place, a time, and an orientation."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    exif[0x010F] = "SECRET camera"
    exif[0x0132] = "2026:11:27 10:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.0)
    exif.get_ifd(0x8769)[0x9286] = "SECRET comment"
    return exif


def drawn(form: str, orientation: int | None, **options: Any) -> bytes:
    """A photo with all the metadata that Pillow can write."""
    picture = Image.effect_noise((67, 43), 80).convert("RGB")
    picture.putpixel((1, 1), (255, 0, 0))
    buffer = io.BytesIO()
    if form == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Comment", "SECRET")
        texts.add_text("Author", "SECRET", zip=True)
        texts.add_itxt("Title", "SECRET")
        texts.add(b"tIME", b"SECRET!")
        options["pnginfo"] = texts
    picture.save(buffer, form, exif=exif_with(orientation), **options)
    return buffer.getvalue()


def open_photo(photo: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(photo))
    image.load()
    return image


def check(photo: bytes) -> Image.Image:
    """Strip a photo: the same pixels, the same orientation, and nothing else is left."""
    stripped, _ = strip(photo)
    before, after = open_photo(photo), open_photo(stripped)
    assert (after.size, after.mode) == (before.size, before.mode)
    assert after.convert("RGBA").tobytes() == before.convert("RGBA").tobytes()
    orientation = before.getexif().get(0x0112, 1)
    kept = dict(after.getexif())
    assert kept == ({0x0112: orientation} if orientation in range(2, 9) else {})
    assert not after.getexif().get_ifd(0x8825)
    assert after.info.get("icc_profile") == before.info.get("icc_profile")
    assert not {"xmp", "comment", "photoshop", "Comment", "mp", "XML:com.adobe.xmp"} & set(after.info)
    assert SECRET not in stripped
    assert strip(stripped)[0] == stripped
    return after


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_only_the_orientation_stays(form: str, orientation: int | None) -> None:
    photo = drawn(form, orientation)
    assert SECRET in photo
    check(photo)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {"progressive": True, "xmp": XMP, "comment": b"SECRET", "quality": 95, "subsampling": 0}),
        ("JPEG", {"icc_profile": b"profile" * 20_000, "xmp": XMP, "restart_marker_blocks": 1}),
        ("WEBP", {"xmp": XMP, "lossless": True, "icc_profile": b"profile"}),
        ("PNG", {"icc_profile": b"profile", "interlace": 1}),
    ],
)
def test_profiles_stay_and_xmp_goes(form: str, options: dict[str, Any]) -> None:
    for orientation in (None, 3):
        check(drawn(form, orientation, **options))


def test_an_orientation_in_xmp_counts_as_it_does_for_pillow() -> None:
    for form in ("JPEG", "WEBP"):
        assert check(drawn(form, None, xmp=XMP)).getexif()[0x0112] == 6


def test_other_modes() -> None:
    for form, mode in (("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "I;16"), ("PNG", "1")):
        buffer = io.BytesIO()
        Image.linear_gradient("L").convert(mode).save(buffer, form, exif=exif_with(8), dpi=(300, 300))
        stripped, _ = strip(buffer.getvalue())
        before, after = open_photo(buffer.getvalue()), open_photo(stripped)
        assert (before.mode, before.tobytes()) == (after.mode, after.tobytes())
        assert dict(after.getexif()) == {0x0112: 8}


def test_an_animation_and_its_comment() -> None:
    frames = [Image.linear_gradient("L").rotate(90 * turn) for turn in range(3)]
    for form in ("GIF", "WEBP", "PNG"):
        buffer = io.BytesIO()
        options = {"comment": SECRET} if form == "GIF" else {"exif": exif_with(6)}
        frames[0].save(buffer, form, save_all=True, append_images=frames[1:], loop=3, **options)
        stripped, _ = strip(buffer.getvalue())
        assert SECRET not in stripped
        before, after = Image.open(io.BytesIO(buffer.getvalue())), Image.open(io.BytesIO(stripped))
        assert after.n_frames == before.n_frames == 3
        assert after.info.get("loop") == before.info.get("loop")
        for frame in range(3):
            before.seek(frame)
            after.seek(frame)
            assert before.convert("RGB").tobytes() == after.convert("RGB").tobytes()


def test_previews_and_what_follows_the_picture_go() -> None:
    photo = drawn("JPEG", 6)
    preview = drawn("JPEG", None)
    jfxx = b"JFXX\0\x10" + preview
    second = b"\xff\xe0" + struct.pack(">H", len(jfxx) + 2) + jfxx
    jfif = photo.index(b"JFIF") - 4 if b"JFIF" in photo else 2
    end = jfif + 2 + int.from_bytes(photo[jfif + 2 : jfif + 4], "big") if b"JFIF" in photo else 2
    stripped, _ = strip(photo[:end] + second + photo[end:] + preview + SECRET)
    assert stripped == strip(photo)[0]
    assert stripped.count(b"\xff\xd8\xff") == 1
    buffer = io.BytesIO()
    picture = open_photo(photo)
    picture.save(buffer, "MPO", save_all=True, append_images=[picture])
    assert open_photo(buffer.getvalue()).format == "MPO"
    assert open_photo(strip(buffer.getvalue())[0]).format == "JPEG"


def test_exif_as_imagemagick_writes_it_into_png() -> None:
    data = exif_with(5).tobytes()
    text = b"\nexif\n" + f"{len(data):8}\n".encode() + data.hex().encode() + b"\n"
    chunk = b"zTXtRaw profile type exif\0\0" + zlib.compress(text)
    buffer = io.BytesIO()
    Image.linear_gradient("L").save(buffer, "PNG")
    photo = buffer.getvalue()
    added = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    assert check(photo[:33] + added + photo[33:]).getexif()[0x0112] == 5


@pytest.mark.parametrize("form", ["TIFF", "AVIF"])
def test_formats_that_cannot_be_stripped(form: str) -> None:
    with pytest.raises(UnreadableError):
        strip(drawn(form, 1))


def test_bmp_has_no_metadata() -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").save(buffer, "BMP")
    assert strip(buffer.getvalue()) == (buffer.getvalue(), "bmp")
    with pytest.raises(UnreadableError):
        strip(buffer.getvalue() + SECRET)


def test_damaged_files_are_refused_and_nothing_else_happens() -> None:
    chance = random.Random(1)
    gif = io.BytesIO()
    Image.linear_gradient("L").save(gif, "GIF", comment=SECRET)
    photos = [drawn(form, 6) for form in ("JPEG", "PNG", "WEBP")] + [gif.getvalue()]
    for photo in photos:
        pieces = [photo[:size] for size in range(0, len(photo) - 1, 7)]
        for _ in range(400):
            changed = bytearray(photo)
            for _ in range(chance.randint(1, 8)):
                changed[chance.randrange(len(changed))] = chance.choice((0, 0xFF, 0xD8, chance.randrange(256)))
            pieces.append(bytes(changed))
        for piece in pieces:
            try:
                stripped, _ = strip(piece)
            except UnreadableError:
                continue
            assert len(stripped) <= len(piece) + 60


@pytest.mark.parametrize(
    "photo",
    [
        b"",
        b"\xff\xd8\xff",
        b"\xff\xd8" + b"\xff" * 2_000_000,
        b"\xff\xd8" + b"\xff\xe1\x00\x02" * 500_000,
        b"\xff\xd8\xff\xe1\xff\xff" + b"Exif\0\0II*\0\x08\0\0\0\xff\xff" * 100_000,
        b"\x89PNG\r\n\x1a\n" + (b"\0\0\0\0tEXt\0\0\0\0" * 200_000),
        b"RIFF\xff\xff\xff\x0fWEBP" + b"EXIF\0\0\0\0" * 200_000,
        b"RIFF\x04\0\0\0WEBP",
        b"GIF89a\x01\0\x01\0\0\0\0" + b"!\xfe" + b"\x01a" * 500_000,
        b"GIF89a\x01\0\x01\0\0\0\0" + b"!\xfe\0" * 500_000,
        b"GIF89a",
    ],
    ids=range(11),
)
def test_hostile_files(photo: bytes) -> None:
    with pytest.raises(UnreadableError):
        strip(photo)


def test_real_photos(real_photos: list[Path]) -> None:
    for path in real_photos:
        before = path.read_bytes()
        stripped, _ = strip(before)
        assert open_photo(stripped).tobytes() == open_photo(before).tobytes(), path.name
        exif = dict(open_photo(stripped).getexif())
        assert set(exif) <= {0x0112}
        turned = open_photo(before).getexif().get(0x0112)
        assert exif.get(0x0112) == (turned if turned in range(2, 9) else None)  # one camera writes 0
