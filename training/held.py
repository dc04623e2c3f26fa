"""Two dozen pictures that nothing is trained on, the same each time; uint8 [SIZE, SIZE, 3], each with what it shows."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.contents import put_emoji
from training.draw import SIDE
from training.plan import SIZE
from training.scenes import landscape, scene

__all__ = ["ROWS", "held_out"]

# File, noun, and where the cut is: left and top as shares of what is free, and its side as a share of the shorter one.
PHOTOS: Final = (
    ("images-cat", "a cat", 0.45, 0.5, 1.0),
    ("images-coffee", "a cup of coffee", 0.5, 0.5, 1.0),
    ("images-astronaut", "a portrait of a woman", 0.5, 0.1, 0.95),
    ("images-rocket", "a rocket", 0.5, 0.7, 1.0),
    ("images-galaxies", "galaxies", 0.3, 0.5, 1.0),
    ("images-galaxies", "galaxies", 0.9, 0.3, 0.6),
    ("dust-bowl-home-image", "a house", 1.0, 1.0, 0.8),
    ("dust-bowl-home-image", "a house in a field", 0.3, 0.3, 1.0),
    ("allium-oreophilum-image", "a flower", 0.5, 0.1, 1.0),
    ("allium-oreophilum-image", "tulips", 0.4, 0.1, 0.65),
    ("pmndrs-assets-venice", "a city by the sea", 0.2, 0.5, 0.7),
    ("pmndrs-assets-venice", "a palace", 0.75, 0.5, 0.6),
    ("pmndrs-assets-park", "trees in a park", 0.2, 0.5, 0.8),
    ("pmndrs-assets-park", "a path", 0.8, 0.5, 0.7),
)
THINGS: Final = (("1f3e0", "a house"), ("1f431", "a cat"), ("1f34e", "an apple"), ("1f388", "a balloon"))
SCENES: Final = 6
ROWS: Final = (0, 1, 2, 6, 10, 14)  # of the contact sheets: cat, coffee, astronaut, house, Venice, and drawn things


def held_out(pictures: Path) -> list[tuple[npt.NDArray[np.uint8], str]]:
    """From the pictures' folder; the ones that are drawn only, where there are no others."""
    found = [
        (_cut(pictures / "held" / f"{name}.jpg", left, top, side), noun)
        for name, noun, left, top, side in PHOTOS
        if (pictures / "held" / f"{name}.jpg").exists()
    ]
    rng = np.random.default_rng(20_001)
    for number, (name, noun) in enumerate(THINGS):
        file = pictures / "held" / f"{name}.webp"
        if file.exists():
            canvas = Image.fromarray((landscape(rng).clip(0, 1) * 255).astype(np.uint8))
            put_emoji(canvas, file, (150 + 20 * (number % 2), 175), 170, rng)
            found.append((_sized(canvas), noun))
    drawn = (Image.fromarray((scene(rng).clip(0, 1) * 255).astype(np.uint8)) for _ in range(SCENES))
    return found + [(_sized(picture), "a picture") for picture in drawn]


def _cut(file: Path, left: float, top: float, share: float) -> npt.NDArray[np.uint8]:
    whole = Image.open(file).convert("RGB")
    side = int(min(whole.size) * share)
    x, y = int((whole.width - side) * left), int((whole.height - side) * top)
    return _sized(whole.crop((x, y, x + side, y + side)))


def _sized(picture: Image.Image) -> npt.NDArray[np.uint8]:
    if picture.size == (SIDE, SIDE):
        picture = picture.crop((32, 32, 32 + SIZE, 32 + SIZE))
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
