"""Before and after, side by side: one row a picture, one column a prompt."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE: Final = 232
GAP: Final = 10
MARGIN: Final = 36
HEAD: Final = 116
PAPER, INK, FAINT = "#f6f2ea", "#231f1a", "#8d8478"


def contact_sheet(rows: Mapping[Path, Sequence[Path | None]], prompts: Sequence[str], subtitle: str) -> Image.Image:
    """A sheet from each picture to its results, in the order of `prompts`; None leaves a tile empty."""
    columns = 1 + len(prompts)
    width = 2 * MARGIN + columns * TILE + (columns - 1) * GAP + GAP
    height = HEAD + len(rows) * (TILE + GAP) - GAP + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 22), "sfumato", INK, ImageFont.load_default(34))
    draw.text((MARGIN + 160, 38), subtitle, FAINT, ImageFont.load_default(17))
    for column, label in enumerate(("before", *prompts)):
        middle = _left(column) + TILE // 2
        draw.text((middle, HEAD - 14), label, FAINT if column == 0 else INK, ImageFont.load_default(19), anchor="ms")
    for row, (before, results) in enumerate(rows.items()):
        top = HEAD + row * (TILE + GAP)
        for column, file in enumerate((before, *results)):
            if file is None:
                draw.rectangle((_left(column), top, _left(column) + TILE - 1, top + TILE - 1), outline=FAINT)
            else:
                sheet.paste(_tile(file), (_left(column), top))
    return sheet


def _left(column: int) -> int:
    # The pictures as they came stand a little apart from what was made of them.
    return MARGIN + column * (TILE + GAP) + (GAP if column else 0)


def _tile(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    return ImageOps.fit(upright, (TILE, TILE), Image.Resampling.LANCZOS)
