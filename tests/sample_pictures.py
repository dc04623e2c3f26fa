"""Small pictures of every kind, made by Pillow, so that what reads them is checked by something else."""

import io
import struct
import zlib
from typing import Any

from PIL import Image

__all__ = ["animated", "giant_png", "picture"]


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 48), mode: str = "RGB", **saving: Any) -> bytes:
    """A gradient as a file of this kind; `saving` goes to Pillow's save."""
    image = Image.linear_gradient("L").resize(size).convert("RGB").convert(mode)
    return _saved(image, kind, **saving)


def animated(kind: str, size: tuple[int, int] = (32, 24)) -> bytes:
    """Two frames."""
    frames = [Image.new("RGB", size, color) for color in ("red", "blue")]
    return _saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def giant_png(width: int = 30_000, height: int = 30_000) -> bytes:
    """A PNG of few bytes whose header promises very many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"\0" * 100)) + _chunk(b"IEND")
    )


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _saved(image: Image.Image, kind: str, **saving: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **saving)
    return stream.getvalue()
