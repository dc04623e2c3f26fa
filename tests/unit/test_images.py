"""What goes in may be any odd picture; what comes out has its aspect and nothing of its metadata."""

import contextlib
import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from sfumato.core.errors import PermanentError
from sfumato.core.params import OutputFormat, Params, ResizeMode
from sfumato.engine.images import SOURCE_TYPE, XMP, Encoded, Prepared, finish, prepare
from tests.support import make_params

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
LIMIT = 50_000_000


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def prepared(image: Image.Image, format: str = "PNG", params: Params | None = None, **options: Any) -> Prepared:
    return prepare(encoded(image, format, **options), params or make_params(), LIMIT)


def through(data: bytes, **params: Any) -> Encoded:
    """As a worker does it, with a model that changes nothing."""
    asked = make_params(**params)
    ready = prepare(data, asked, LIMIT)
    return finish(ready.pixels, ready, asked)


def opened(result: Encoded) -> Image.Image:
    image = Image.open(io.BytesIO(result.data))
    image.load()
    return image


def middle(ready: Prepared) -> tuple[int, ...]:
    height, width, _ = ready.pixels.shape
    return tuple(int(value) for value in ready.pixels[height // 2, width // 2])


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is this large and has next to no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def refusal(data: bytes, max_pixels: int = LIMIT) -> PermanentError:
    with pytest.raises(PermanentError) as caught:
        prepare(data, make_params(), max_pixels)
    return caught.value


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str = "RGB", size: tuple[int, int] = (80, 40)) -> Any:
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, size[0], size[1]))
    return image


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_every_allowed_format_becomes_rgb_pixels_of_the_shape(format: str) -> None:
    ready = prepared(Image.new("RGB", (300, 200), RED), format, make_params(width=96, height=64))

    assert ready.pixels.shape == (64, 96, 3)
    assert ready.pixels.dtype == np.uint8
    assert np.abs(ready.pixels[32, 48].astype(int) - RED).max() <= 2


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "PPM"])
def test_every_other_format_is_refused(format: str) -> None:
    error = refusal(encoded(Image.new("RGB", (8, 8)), format))

    assert error.case == "undecodable-picture"
    assert "PNG, JPEG or WebP" in error.detail


@pytest.mark.parametrize(
    ("mode", "color", "seen"),
    [
        ("1", 1, WHITE),
        ("L", 128, (128, 128, 128)),
        ("LA", (0, 255), (0, 0, 0)),
        ("LA", (0, 0), WHITE),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("I;16", 0x8000, (128, 128, 128)),
        ("I;16", 0xFFFF, WHITE),
    ],
)
def test_png_modes_are_seen_as_on_white_paper(mode: str, color: Any, seen: tuple[int, ...]) -> None:
    assert middle(prepared(Image.new(mode, (20, 20), color))) == seen


def test_palette_picture_keeps_its_colors() -> None:
    image = Image.new("RGB", (20, 20), RED).quantize()

    assert middle(prepared(image)) == RED


def test_transparent_palette_color_becomes_white() -> None:
    image = Image.new("P", (20, 20), 3)
    image.putpalette([0, 0, 0] * 4)

    assert middle(prepared(image, transparency=3)) == WHITE


def test_transparent_rgb_color_becomes_white() -> None:
    assert middle(prepared(Image.new("RGB", (20, 20), BLUE), transparency=BLUE)) == WHITE


def test_hidden_colors_do_not_bleed_over_the_edge_of_what_is_seen() -> None:
    image = halves((0, 255, 0, 0), (255, 255, 255, 255), "RGBA", (400, 400))

    assert (prepared(image).pixels == 255).all()


@pytest.mark.parametrize("inks", [(0, 255, 255, 0), (0, 0, 0, 255), (0, 0, 0, 0)])
def test_cmyk_jpeg_is_printed_on_screen(inks: tuple[int, ...]) -> None:
    cyan, magenta, yellow, black = inks
    expected = [255 - min(255, ink + black) for ink in (cyan, magenta, yellow)]

    seen = middle(prepared(Image.new("CMYK", (32, 32), inks), "JPEG", quality=100))

    assert np.abs(np.subtract(seen, expected)).max() <= 3


def test_color_profile_is_applied() -> None:
    other = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (20, 20), (200, 100, 50))

    assert middle(prepared(image, icc_profile=srgb)) == (200, 100, 50)
    assert middle(prepared(image, icc_profile=other)) == (200, 100, 50)
    assert middle(prepared(image, icc_profile=b"no profile at all")) == (200, 100, 50)
    assert middle(prepared(image, icc_profile=_with_gamma_one(srgb))) != (200, 100, 50)


def _with_gamma_one(srgb: bytes) -> bytes:
    """sRGB's primaries with a linear curve: mid tones must come out lighter."""
    count = struct.unpack_from(">I", srgb, 128)[0]
    tags = [struct.unpack_from(">4sII", srgb, 132 + 12 * number) for number in range(count)]
    profile = bytearray(srgb)
    for name, offset, _ in tags:
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            # ICC.1:2022, curveType with no entries: the identity.
            profile[offset : offset + 12] = b"curv" + struct.pack(">II", 0, 0)
    return bytes(profile)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied_and_dropped(orientation: int, format: str) -> None:
    upright = halves(RED, BLUE, size=(128, 64))
    stored = _stored_as(upright, orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation

    result = opened(through(encoded(stored, format, exif=exif), width=128, height=64))

    assert result.size == (128, 64)
    assert np.abs(np.asarray(result).astype(int) - np.asarray(upright)).mean() < 8
    assert not result.getexif()


def _stored_as(upright: Image.Image, orientation: int) -> Image.Image:
    """The pixels a camera would store so that this orientation shows `upright`."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return upright.transpose(back[orientation]) if orientation in back else upright


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0"])
def test_broken_exif_does_not_stop_a_picture(exif: bytes) -> None:
    assert prepared(Image.new("RGB", (30, 20), RED), "JPEG", exif=exif).area == (0, 10, 64, 53)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_animated_picture_is_refused(format: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in (RED, BLUE)]

    error = refusal(encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100))

    assert error.case == "animated-picture"


def test_first_picture_of_a_phones_multi_picture_jpeg_is_taken() -> None:
    image = Image.new("RGB", (32, 32), RED)
    data = encoded(image, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32), BLUE)])

    assert np.abs(np.subtract(middle(prepare(data, make_params(), LIMIT)), RED)).max() <= 2


def test_huge_picture_of_few_bytes_is_refused_by_its_header() -> None:
    error = refusal(png_header(30_000, 30_000))

    assert error.case == "too-many-pixels"
    assert "30000 x 30000" in error.detail


def test_pixel_limit_is_the_callers_not_pillows() -> None:
    data = encoded(Image.new("1", (10_000, 10_000)))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepare(data, make_params(), 100_000_000).pixels.shape == (64, 64, 3)
    assert refusal(data, 99_999_999).case == "too-many-pixels"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_picture_says_so(format: str, part: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format)

    error = refusal(data[: int(len(data) * part)])

    assert error.case == "undecodable-picture"
    assert "decoded" in error.detail


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"<svg/>"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    assert refusal(data).case == "undecodable-picture"


@given(data=st.binary(max_size=200), kind=st.sampled_from(["PNG", "JPEG", "WEBP"]), at=st.integers(0, 400))
def test_damaged_bytes_are_a_picture_or_a_permanent_error(data: bytes, kind: str, at: int) -> None:
    whole = encoded(Image.linear_gradient("L").resize((40, 30)), kind)
    damaged = whole[:at] + data + whole[at + len(data) :]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(PermanentError):
            assert prepare(damaged, make_params(), LIMIT).pixels.shape == (64, 64, 3)


@given(width=st.integers(1, 900), height=st.integers(1, 900), shape=st.sampled_from([(64, 64), (96, 32), (32, 96)]))
def test_result_has_the_inputs_aspect_within_a_pixel(width: int, height: int, shape: tuple[int, int]) -> None:
    result = through(encoded(Image.new("L", (width, height))), width=shape[0], height=shape[1])

    scale = min(shape[0] / width, shape[1] / height)
    assert abs(result.width - width * scale) < 1
    assert abs(result.height - height * scale) < 1
    assert opened(result).size == (result.width, result.height)


@given(width=st.integers(1, 900), height=st.integers(1, 900), shape=st.sampled_from([(64, 64), (96, 32), (32, 96)]))
def test_exact_shape_is_kept_whatever_the_input(width: int, height: int, shape: tuple[int, int]) -> None:
    result = through(encoded(Image.new("L", (width, height))), width=shape[0], height=shape[1], exact=True)

    assert (result.width, result.height) == shape


def test_exact_shape_shows_the_middle_undistorted() -> None:
    image = Image.new("RGB", (300, 100), RED)
    image.paste(BLUE, (100, 0, 200, 100))

    ready = prepared(image, params=make_params(exact=True))

    assert (ready.pixels[:, 8:-8] == BLUE).all()
    assert np.abs(ready.pixels.astype(int) - BLUE).mean() < 4


def test_a_stretched_picture_shows_all_of_itself_and_nothing_else() -> None:
    image = Image.new("RGB", (300, 100), RED)
    image.paste(BLUE, (0, 0, 100, 100))

    ready = prepared(image, params=make_params(exact=True, resize_mode=ResizeMode.STRETCH))

    assert ready.area == (0, 0, 64, 64)
    assert (ready.pixels[:, :16] == BLUE).all()
    assert (ready.pixels[:, 26:] == RED).all()


def test_a_filled_picture_shows_all_of_itself_and_its_reflection_in_the_result_too() -> None:
    image = Image.new("RGB", (64, 32), RED)
    image.paste(BLUE, (0, 16, 64, 32))

    params = make_params(exact=True, resize_mode=ResizeMode.FILL)
    ready = prepared(image, params=params)

    assert ready.area == (0, 0, 64, 64)
    assert (ready.pixels[20:28] == RED).all()
    assert (ready.pixels[36:44] == BLUE).all()
    assert (ready.pixels[8:15] == RED).all()
    assert finish(ready.pixels, ready, params).height == 64


def test_without_a_size_there_is_nothing_to_resize_to() -> None:
    plain, filled = (
        through(encoded(Image.new("L", (64, 32))), resize_mode=mode) for mode in ResizeMode if mode != "crop"
    )

    assert (plain.width, plain.height) == (filled.width, filled.height) == (64, 32)


def test_margins_are_the_pictures_own_reflection() -> None:
    ready = prepared(Image.linear_gradient("L").resize((64, 32)))

    left, upper, right, lower = ready.area
    assert (left, upper, right, lower) == (0, 16, 64, 48)
    assert (ready.pixels[upper - 1] == ready.pixels[upper + 1]).all()
    assert (ready.pixels[lower] == ready.pixels[lower - 2]).all()


@pytest.mark.parametrize("format", list(OutputFormat))
def test_result_says_that_it_is_ai_edited_and_nothing_else(format: OutputFormat) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    data = encoded(Image.new("RGB", (64, 64), RED), "JPEG", exif=exif, comment="secret", xmp=b"<secret/>")

    result = through(data, output_format=format)
    image = opened(result)

    assert result.media_type == Image.MIME[str(image.format)] == format.media_type
    assert SOURCE_TYPE.encode() in result.data
    assert image.info["xmp"].decode() == XMP
    assert not image.getexif()
    assert "icc_profile" not in image.info
    for leak in (b"home", b"secret", b"Exif"):
        assert leak not in result.data


def test_png_result_is_the_models_pixels_exactly() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ready = prepared(Image.new("RGB", (64, 32)))

    result = finish(pixels, ready, make_params())

    assert (np.asarray(opened(result)) == pixels[16:48]).all()


def test_large_jpeg_is_decoded_small_and_looks_the_same() -> None:
    gradient = Image.linear_gradient("L").resize((2048, 1536)).convert("RGB")

    small = prepared(gradient, "JPEG", quality=95).pixels.astype(int)
    whole = prepared(gradient, "PNG").pixels.astype(int)

    assert np.abs(small - whole).max() <= 4
