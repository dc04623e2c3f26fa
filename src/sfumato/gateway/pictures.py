"""What a picture's first bytes say: its type, its upright size, and whether it moves. No pixel is ever decoded here.

Why not Pillow: merely opening a PNG inflates its text chunks and opening a WebP allocates its canvas, which is more
than a stranger's bytes should get from the process that takes everyone's requests. Formats: PNG (W3C PNG, 3rd edition),
JPEG (ITU T.81, annex B), WebP (RFC 9649), orientation by Exif 2.32 (tag 0x0112).
"""

import struct
import zlib
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["MEDIA_TYPES", "NotAPicture", "PictureHeader", "media_type_of", "read_header"]

MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_ORIENTATION: Final = 0x0112


class NotAPicture(ValueError):
    """The bytes begin like a picture and are none; the message says where they stop making sense."""


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """`width` and `height` are pixels as the picture is meant to be seen, its Exif orientation applied."""

    media_type: str
    width: int
    height: int
    moves: bool = False

    @property
    def pixels(self) -> int:
        return self.width * self.height


def media_type_of(head: bytes) -> str | None:
    """The media type that the first 12 bytes announce, if it is one of MEDIA_TYPES."""
    if head.startswith(_PNG):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return None


def read_header(head: bytes) -> PictureHeader | None:
    """The header of the picture that begins with `head`; None when more bytes are needed to know it.

    A WebP keeps its orientation behind its pixels: until those bytes are there its size is given as stored.

    Raises:
        NotAPicture: more bytes won't help.
    """
    reader = {"image/png": _png, "image/jpeg": _jpeg, "image/webp": _webp}.get(media_type_of(head) or "")
    if reader is None:
        raise NotAPicture("it does not begin like a PNG, JPEG or WebP.")
    try:
        header = reader(head)
    except (struct.error, IndexError):
        return None
    if not header.pixels:
        raise NotAPicture("its header says that it has no pixels.")
    return header


def _png(head: bytes) -> PictureHeader:
    length, kind, width, height = struct.unpack_from(">I4sII", head, 8)
    (checksum,) = struct.unpack_from(">I", head, 29)
    if (length, kind) != (13, b"IHDR") or zlib.crc32(head[12:29]) != checksum:
        raise NotAPicture("its PNG header is broken.")
    header = PictureHeader("image/png", width, height)
    at = 33
    while True:
        length, kind = struct.unpack_from(">I4s", head, at)
        if kind == b"IDAT":
            return header
        if length > 2**31 - 1 or not kind.isalpha() or kind == b"IEND":
            raise NotAPicture("its PNG has no pixels behind its header.")
        if kind == b"acTL":
            header = replace(header, moves=True)
        if kind == b"eXIf":
            header = _upright(header, _whole(head, at + 8, length))
        at += 12 + length


def _jpeg(head: bytes) -> PictureHeader:
    size, exif, at = None, b"", 2
    while True:
        if head[at] != 0xFF:
            raise NotAPicture("its JPEG header is broken.")
        marker = head[at + 1]
        if marker == 0xFF:  # fill bytes may stand before any marker
            at += 1
            continue
        (length,) = struct.unpack_from(">H", head, at + 2)
        if marker == 0xDA:  # the scan begins: everything about the picture was said
            break
        if marker == 0xD9 or length < 2:
            raise NotAPicture("its JPEG has no pixels behind its header.")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", head, at + 5)
            size = (width, height)
        if marker == 0xE1 and head[at + 4 : at + 10] == b"Exif\0\0":
            exif = exif or _whole(head, at + 10, length - 8)
        at += 2 + length
    if size is None:
        raise NotAPicture("its JPEG header does not say its size.")
    return _upright(PictureHeader("image/jpeg", *size), exif)


def _webp(head: bytes) -> PictureHeader:
    kind = head[12:16]
    if kind == b"VP8 ":
        code, width, height = struct.unpack_from("<3sHH", head, 23)
        if code != b"\x9d\x01\x2a":
            raise NotAPicture("its WebP header is broken.")
        return PictureHeader("image/webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        code, bits = struct.unpack_from("<BI", head, 20)
        if code != 0x2F:
            raise NotAPicture("its WebP header is broken.")
        return PictureHeader("image/webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind != b"VP8X" and len(head) >= 16:
        raise NotAPicture("its WebP header is broken.")
    flags, width, high_width, height, high_height = struct.unpack_from("<B3xHBHB", head, 20)
    size = (width | high_width << 16) + 1, (height | high_height << 16) + 1
    header = PictureHeader("image/webp", *size, moves=bool(flags & 0x02))
    return _upright(header, _webp_chunk(head, b"EXIF")) if flags & 0x08 else header


def _webp_chunk(data: bytes, wanted: bytes) -> bytes:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == wanted:
            return data[at + 8 : at + 8 + length]
        at += 8 + length + (length & 1)
    return b""


def _whole(head: bytes, begin: int, length: int) -> bytes:
    if begin + length > len(head):
        raise IndexError
    return head[begin : begin + length]


def _upright(header: PictureHeader, exif: bytes) -> PictureHeader:
    if _orientation(exif.removeprefix(b"Exif\0\0")) < 5:
        return header
    return replace(header, width=header.height, height=header.width)


def _orientation(tiff: bytes) -> int:
    """1 to 8; from 5 on, width and height change places. 1 (as stored) when the Exif block is silent or broken."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, first)
        for number in range(entries):
            tag, _kind, _count, value = struct.unpack_from(order + "HHIH", tiff, first + 2 + 12 * number)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
