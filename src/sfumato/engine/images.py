"""From a stranger's bytes to the pixels a model runs on, and back to an encoded picture.

Formats: PNG, JPEG and WebP; only their decoders are ever loaded. An animated picture is refused, because nobody could
say which of its frames is meant. The first picture of a multi-picture JPEG (what phones write) is taken.

A picture keeps its aspect: it is scaled to fit inside the shape, the rest is filled by its own reflection, and the
result is cropped back. When the caller asked for the shape itself (`params.exact`), all of it is kept, and
`params.resize_mode` says how the picture gets into it.

Nothing but pixels goes through: Exif orientation and colour profile are applied and, with all other metadata, dropped.
Results carry one mark, that they are AI-edited: IPTC Photo Metadata Standard 2023.1, Digital Source Type, as XMP.
"""

import io
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from sfumato.core.errors import PermanentError
from sfumato.core.params import OutputFormat, Params, ResizeMode, Shape

__all__ = ["XMP", "Box", "Encoded", "Pixels", "Prepared", "finish", "prepare", "preview"]

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Left, upper, right, lower, in pixels."""

FORMATS: Final = ("PNG", "JPEG", "WEBP")
SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
XMP: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    f' Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)

# Pillow's own limit is one for the process and only warns at first; `prepare` has its own, by call and before decoding.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Exif 2.32's orientation → what makes the picture upright; from 5 on width and height change places."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """`pixels` [params.height, params.width, 3] for the model, and `area`, the part of them that the result shows."""

    pixels: Pixels
    area: Box


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as a file; `width` and `height` in pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


def prepare(data: bytes, params: Params, max_pixels: int) -> Prepared:
    """Decode an input picture and bring it to `params.shape`.

    Raises:
        PermanentError: it is no still PNG, JPEG or WebP, has more than `max_pixels` pixels (known from its header,
            before any is decoded), or its data are damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image, max_pixels)
            return _prepared(image, params)
    except (PermanentError, MemoryError):
        raise
    except Exception as error:
        # A decoder tells of damage in a dozen ways (OSError, SyntaxError, struct.error …); all of them mean this.
        why = "it is no PNG, JPEG or WebP" if isinstance(error, UnidentifiedImageError) else str(error)
        detail = f"the picture can't be decoded: {why}. Send it whole, as PNG, JPEG or WebP."
        raise PermanentError(detail, slug="undecodable-picture") from error


def finish(pixels: Pixels, prepared: Prepared, params: Params) -> Encoded:
    """Crop the model's result [params.height, params.width, 3] back to the picture's aspect and encode it."""
    picture = Image.fromarray(pixels).crop(prepared.area)
    file = io.BytesIO()
    if params.output_format is OutputFormat.PNG:
        mark = PngImagePlugin.PngInfo()
        mark.add_itxt("XML:com.adobe.xmp", XMP)
        picture.save(file, "PNG", compress_level=1, pnginfo=mark)
    elif params.output_format is OutputFormat.JPEG:
        picture.save(file, "JPEG", quality=95, xmp=XMP.encode())
    else:
        picture.save(file, "WEBP", quality=90, xmp=XMP.encode())
    return Encoded(file.getvalue(), params.output_format.media_type, picture.width, picture.height)


def preview(pixels: Pixels, prepared: Prepared, params: Params) -> bytes:
    """A job's preview [height / n, width / n, 3] as a small JPEG, cropped as its result will be."""
    scale = pixels.shape[1] / params.width
    picture = Image.fromarray(pixels).crop(tuple(round(side * scale) for side in prepared.area))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85, xmp=XMP.encode())
    return file.getvalue()


def _check(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height}"
        raise PermanentError(f"the picture has {size} pixels; at most {max_pixels} are taken.", slug="too-many-pixels")
    # JPEGs with further pictures behind the first (format MPO) count frames too, but do not move.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise PermanentError("the picture is animated; send one of its frames.", slug="animated-picture")


def _prepared(image: Image.Image, params: Params) -> Prepared:
    width, height = image.size
    # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; twice the shape leaves the scaling below enough to work on.
    side = 2 * max(params.shape)
    image.draft(None, (side, side))
    image.load()
    turn = _turn(image.info.get("exif", b""))
    shape, area = params.shape, _area(_turned(Shape(width, height), turn), params)
    covered = _turned(Shape(area[2] - area[0], area[3] - area[1]), turn)
    cropped = params.exact and params.resize_mode is ResizeMode.CROP
    scaled = _scalable(image).resize(
        covered, Image.Resampling.LANCZOS, box=_window(image.size, covered) if cropped else None, reducing_gap=3.0
    )
    picture = _srgb_on_white(scaled, image.info.get("icc_profile"))
    upright = np.asarray(picture if turn is None else picture.transpose(turn))
    margins = ((area[1], shape.height - area[3]), (area[0], shape.width - area[2]), (0, 0))
    shown = (0, 0, shape.width, shape.height) if params.exact else area
    return Prepared(np.pad(upright, margins, mode="reflect"), shown)


def _turn(exif: bytes) -> Image.Transpose | None:
    read = Image.Exif()
    try:
        read.load(exif)
        return _UPRIGHT.get(read.get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return None  # broken Exif is no reason to fail; the picture is taken as stored


def _turned(size: Shape, turn: Image.Transpose | None) -> Shape:
    sideways = turn in (_UPRIGHT[5], _UPRIGHT[6], _UPRIGHT[7], _UPRIGHT[8])
    return Shape(size.height, size.width) if sideways else size


def _area(picture: Shape, params: Params) -> Box:
    """Where the picture lies within `params.shape`: centred, as large as its aspect lets, or all over it."""
    width, height = params.shape
    if not params.exact or params.resize_mode is ResizeMode.FILL:
        scale = min(width / picture.width, height / picture.height)
        width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    left, upper = (params.width - width) // 2, (params.height - height) // 2
    return left, upper, left + width, upper + height


def _window(size: tuple[int, int], target: Shape) -> tuple[float, float, float, float]:
    """The largest part of `size`, in its middle, that has the aspect of `target`."""
    scale = min(size[0] / target.width, size[1] / target.height)
    left, upper = (size[0] - target.width * scale) / 2, (size[1] - target.height * scale) / 2
    return left, upper, min(size[0], left + target.width * scale), min(size[1], upper + target.height * scale)


def _scalable(image: Image.Image) -> Image.Image:
    """In a mode whose values can be averaged: L, RGB, RGBA or CMYK, 8 bits a channel."""
    if image.mode.startswith("I"):  # 16 bits of grey; Pillow's own conversion would clip instead of scale
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert({"1": "L", "P": "RGB"}.get(image.mode, image.mode))


def _srgb_on_white(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode != "RGBA":
        return _srgb(image, profile)
    white = Image.new("RGB", image.size, "white")
    white.paste(_srgb(image.convert("RGB"), profile), mask=image.getchannel("A"))
    return white


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # broken, or of another colour space than the picture: as good as none
        if converted is not None:
            return converted
    return image.convert("RGB")
