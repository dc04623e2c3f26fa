"""Contact sheets: a row a picture, a column a prompt."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["sheet"]

TILE: Final = 168
HEAD: Final = 26


def sheet(
    rows: Sequence[npt.NDArray[np.uint8]],
    names: Sequence[str],
    columns: Sequence[Sequence[npt.NDArray[np.uint8]]],
    title: str,
) -> Image.Image:
    """`columns[j][i]` is what `names[j]` made of `rows[i]`."""
    made = Image.new("RGB", (TILE * (len(columns) + 1), HEAD + TILE * len(rows)), "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(15)
    for number, (name, column) in enumerate(zip((title, *names), (rows, *columns), strict=True)):
        draw.text((TILE * number + 4, 5), name, "black", font)
        for row, picture in enumerate(column):
            tile = Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.LANCZOS)
            made.paste(tile, (TILE * number, HEAD + TILE * row))
    return made
