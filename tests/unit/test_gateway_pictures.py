"""The header reader agrees with Pillow about real files, and no bytes whatsoever break it."""

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sfumato.gateway.pictures import NotAPicture, PictureHeader, read_header
from tests.sample_pictures import animated, giant_png, picture

KINDS = ("PNG", "JPEG", "WEBP")


def _exif(orientation: int, *, before: int = 0) -> Image.Exif:
    exif = Image.Exif()
    for number in range(before):
        exif[0x0100 + number] = number  # tags below 0x0112 come first
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_picture_held_upright(kind: str, orientation: int) -> None:
    data = picture(kind, (64, 48), exif=_exif(orientation, before=2))
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    header = read_header(data)
    assert header == PictureHeader(f"image/{kind.lower()}", upright.width, upright.height)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    + [("JPEG", mode) for mode in ("L", "RGB", "CMYK")]
    + [("WEBP", mode) for mode in ("RGB", "RGBA")],
)
def test_every_mode_is_read(kind: str, mode: str) -> None:
    image = Image.new("I;16", (70, 30)) if mode == "I;16" else None
    stream = io.BytesIO()
    if image:
        image.save(stream, kind)
    header = read_header(stream.getvalue() or picture(kind, (70, 30), mode))
    assert header is not None
    assert (header.width, header.height, header.moves) == (70, 30, False)


@pytest.mark.parametrize("saving", [{"lossless": True}, {"lossless": False}, {"quality": 10, "exact": True}])
def test_every_kind_of_webp_is_read(saving: dict[str, Any]) -> None:
    header = read_header(picture("WEBP", (300, 17), **saving))
    assert header == PictureHeader("image/webp", 300, 17)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animation_is_seen(kind: str) -> None:
    header = read_header(animated(kind))
    assert header is not None
    assert header.moves


def test_a_phones_multi_picture_jpeg_is_a_jpeg() -> None:
    header = read_header(animated("MPO"))
    assert header == PictureHeader("image/jpeg", 32, 24)


def test_a_giant_is_known_by_its_first_bytes() -> None:
    header = read_header(giant_png())
    assert header is not None
    assert header.pixels == 900_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_is_not_whole_asks_for_more(kind: str) -> None:
    data = picture(kind, exif=_exif(6))
    assert read_header(data[:20]) is None


def test_a_long_profile_before_the_size_is_waited_for() -> None:
    data = picture("JPEG", icc_profile=b"p" * 200_000)
    assert read_header(data[:65_536]) is None
    assert read_header(data) == PictureHeader("image/jpeg", 64, 48)


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a" + bytes(20),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG\r\n\x1a\n" + b"no header at all" * 3,
        b"\xff\xd8\xff\xd9" + bytes(20),
        b"\xff\xd8\xff\xdanothing said its size",
        b"RIFF\0\0\0\0WEBPNOPE" + bytes(20),
        picture("PNG").replace(b"IDAT", b"IEND"),
        giant_png(0, 5),
    ],
    ids=["gif", "svg", "png magic", "jpeg end", "jpeg without size", "webp magic", "png without pixels", "no pixels"],
)
def test_what_is_no_picture_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(NotAPicture):
        read_header(data)


@settings(max_examples=400, deadline=None)
@given(
    data=st.sampled_from([picture(kind, exif=_exif(6)) for kind in KINDS]),
    cut=st.integers(0, 2_000),
    noise=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=12),
)
def test_no_bytes_break_the_reader(data: bytes, cut: int, noise: list[tuple[int, int]]) -> None:
    changed = bytearray(data[:cut])
    for place, value in noise:
        if place < len(changed):
            changed[place] = value
    try:
        header = read_header(bytes(changed))
    except NotAPicture:
        return
    assert header is None or header.pixels > 0
