"""What scenes are drawn with: noise, colours, skies, spheres; arrays are [height, width, 3] float32, 0 to 1."""

import colorsys
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

__all__ = [
    "SIDE",
    "Array",
    "Color",
    "as_array",
    "as_picture",
    "blurred",
    "color",
    "ink",
    "mixed",
    "noise",
    "sky",
    "sphere",
]

Array = npt.NDArray[np.float32]
Color = tuple[int, int, int]
SIDE: Final = 320  # pixels of a finished scene; it is drawn at twice that, so that edges are smooth

SKIES: Final = (
    ((0.15, 0.4, 0.85), (0.75, 0.88, 0.97)),
    ((0.35, 0.6, 0.9), (0.95, 0.95, 0.9)),
    ((0.25, 0.2, 0.45), (0.98, 0.65, 0.4)),
    ((0.5, 0.55, 0.62), (0.85, 0.86, 0.88)),
    ((0.05, 0.08, 0.2), (0.25, 0.3, 0.5)),
    ((0.4, 0.75, 0.85), (1.0, 0.92, 0.75)),
)


def noise(rng: np.random.Generator, cell: int, octaves: int = 4, side: int = SIDE) -> Array:
    """Fractal value noise [side, side], 0 to 1; `cell` is the coarsest grain in pixels."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        grain = max(2, cell >> octave)
        points = rng.random((side // grain + 2,) * 2, dtype=np.float32)
        smooth = Image.fromarray(points).resize((side, side), Image.Resampling.BICUBIC)
        total += np.asarray(smooth) * 0.55**octave
    spread: Array = (total - total.min()) / (np.float32(np.ptp(total)) + np.float32(1e-6))
    return spread


def color(
    rng: np.random.Generator, saturation: tuple[float, float] = (0.2, 1), value: tuple[float, float] = (0.2, 1)
) -> Array:
    """A colour of any hue, [3]."""
    found = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(found, np.float32)


def ink(values: Array | tuple[float, float, float]) -> Color:
    """A colour as Pillow draws with it."""
    red, green, blue = (int(255 * min(1.0, max(0.0, float(value)))) for value in values)
    return red, green, blue


def mixed(one: Array, other: Array, share: Array) -> Array:
    return one + (other - one) * share[..., None]


def as_picture(array: Array) -> Image.Image:
    """At twice the size, for drawing on."""
    picture = Image.fromarray((array.clip(0, 1) * 255).astype(np.uint8))
    return picture.resize((2 * array.shape[1], 2 * array.shape[0]), Image.Resampling.BILINEAR)


def as_array(picture: Image.Image) -> Array:
    """Back at the finished size."""
    return np.asarray(picture.reduce(2), np.float32) / np.float32(255)


def blurred(array: Array, radius: float) -> Array:
    picture = Image.fromarray((array.clip(0, 1) * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), np.float32) / np.float32(255)


def sky(rng: np.random.Generator) -> Array:
    """A sky with or without clouds, over the whole picture."""
    kind = int(rng.integers(len(SKIES)))
    top, bottom = (np.clip(np.array(end) + rng.normal(size=3) * 0.06, 0, 1).astype(np.float32) for end in SKIES[kind])
    fall = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None] ** rng.uniform(0.6, 1.6)
    found = mixed(top, bottom, np.repeat(fall, SIDE, 1).astype(np.float32))
    if rng.random() < 0.75:
        clouds = noise(rng, int(rng.choice([60, 80, 120])), 5)
        cover = np.clip((clouds - rng.uniform(0.4, 0.65)) * rng.uniform(3, 7), 0, 1) * rng.uniform(0.5, 1)
        shade = np.clip(np.roll(clouds, -7, 0) - clouds + 0.5, 0, 1)
        white = np.array((1, 0.75, 0.6) if kind == 2 else (0.97, 0.97, 0.98), np.float32)
        found = mixed(found, white * (0.75 + 0.3 * shade[..., None]), cover.astype(np.float32))
    return found.astype(np.float32)


def sphere(at: Array, x: float, y: float, width: float, height: float, tint: Array) -> Array:
    """`at` with a lit ellipsoid over it; x, y and the half axes in pixels."""
    rows, columns = np.mgrid[: at.shape[0], : at.shape[1]].astype(np.float32)
    across, down = (columns - x) / width, (rows - y) / height
    reach = across**2 + down**2
    depth = np.sqrt(np.clip(1 - reach, 0, 1))
    light = np.clip(-0.5 * across - 0.6 * down + 0.62 * depth, 0, 1)
    shine = np.clip(-0.45 * across - 0.5 * down + 0.74 * depth, 0, 1) ** 30
    lit = np.clip(tint * (0.25 + 0.85 * light[..., None]) + shine[..., None] * 0.7, 0, 1)
    inside = np.clip((1 - np.sqrt(reach)) * min(width, height) + 0.5, 0, 1)
    return mixed(at, lit.astype(np.float32), inside.astype(np.float32))
