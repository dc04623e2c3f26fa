"""Styles of brush and pen: watercolor, oil, pencil, ink, comic, neon, blueprint; and photographs of two kinds."""

from functools import cache
from typing import Final

import numpy as np
import torch

from training.filters import (
    Tensor,
    blur,
    difference,
    from_hue,
    gradient,
    gradient_map,
    grey,
    grid,
    hue,
    kuwahara,
    local_contrast,
    mix,
    saturate,
    step,
)

__all__ = ["blueprint", "bw", "comic", "ink", "neon", "oil", "pencil", "sepia", "watercolor"]

PERIOD: Final = 32
# Layers of brush strokes: pixels between two, their length and width, and how strong an edge must be to get one.
BRUSHES: Final = ((8, 34.0, 12.0, -1.0), (8, 22.0, 8.0, 0.002), (4, 13.0, 5.0, 0.006))
SEPIA: Final = ((38, 22, 12), (112, 76, 46), (178, 138, 96), (226, 196, 152), (250, 236, 208))


def _color(x: Tensor, *values: float) -> Tensor:
    return torch.tensor(values, device=x.device).view(1, 3, 1, 1)


@cache
def _grain(height: int, width: int, sigma: float, seed: int, device: str) -> Tensor:
    """Paper's tooth, [1, 1, h, w] of mean 0, the same every PERIOD pixels."""
    tile = torch.tensor(np.random.RandomState(seed).rand(1, 1, PERIOD, PERIOD), dtype=torch.float32, device=device)
    smooth = blur(tile.repeat(1, 1, 3, 3), sigma)[..., PERIOD : 2 * PERIOD, PERIOD : 2 * PERIOD]
    smooth = (smooth - smooth.mean()) / smooth.std()
    return smooth.repeat(1, 1, -(-height // PERIOD), -(-width // PERIOD))[..., :height, :width]


def watercolor(x: Tensor) -> Tensor:
    """Few pale washes with dark rims, white paper between them and all around."""
    height, width = x.shape[-2:]
    flat = saturate(kuwahara(kuwahara(x, 6), 4), 1.9)
    tone = grey(flat).clamp(0.03, 1)
    bands = tone * 4
    whole = bands.floor()
    washed = ((whole + step(bands - whole, 0.35, 0.65)) / 4).clamp(0.12, 1)
    at = 1 - (1 - (flat * (washed / tone)).clamp(0, 1)) * 0.68
    rim = (blur(washed, 2.5) - washed).clamp(0, 1)
    at = at * (1 - (rim * 3.2).clamp(0, 0.6))
    grain = _grain(height, width, 1.6, 3, str(x.device))
    at = at * (1 + 0.035 * grain)
    dry = step(difference(grey(x), 1.5, 2.2).abs(), 0.03, 0.08) + step(washed, 0.72, 0.97) * 0.8
    at = mix(at, torch.ones_like(at), blur(dry.clamp(0, 1), 0.8).clamp(0, 1) * 0.8)
    rows, columns = grid(x)
    wobble = 4 * torch.sin(rows * (6.2832 / 64)) + 4 * torch.sin(columns * (6.2832 / 64)) + 2 * grain[0, 0]
    rim_of_paper = torch.minimum(torch.minimum(rows, height - 1 - rows), torch.minimum(columns, width - 1 - columns))
    paper = step(rim_of_paper + wobble, 15, 9)[None, None]
    return mix(at, _color(x, 0.985, 0.98, 0.96).expand_as(at), paper).clamp(0, 1)


def oil(x: Tensor) -> Tensor:
    """Strokes along the forms, thick at their ridges, coarse ones first."""
    rich = saturate((x - 0.5) * 1.1 + 0.5, 1.5)
    right, down = gradient(blur(grey(x), 1.5))
    xx, yy, xy = blur(right * right, 4.0), blur(down * down, 4.0), blur(right * down, 4.0)
    angle = 0.5 * torch.atan2(2 * xy, xx - yy) + torch.pi / 2
    strength = ((xx - yy) ** 2 + 4 * xy**2).sqrt()
    angle = torch.where(strength > 2e-5, angle, torch.full_like(angle, 0.7))
    at, height = blur(rich, 2.0), torch.zeros_like(x[:, :1])
    for number, (pitch, length, width, floor) in enumerate(BRUSHES):
        source = blur(rich, max(0.8, width / 4))
        drawn = strength.sqrt() > floor * 10 if floor > 0 else torch.ones_like(strength, dtype=torch.bool)
        at, height = _strokes(at, height, source, angle, drawn, (pitch, length, width), number)
    lit = (height - torch.roll(height, (1, 1), (2, 3))).clamp(-1, 1)
    return (at * (1 + 0.42 * lit) + 0.07 * lit).clamp(0, 1)


def _strokes(
    at: Tensor, height: Tensor, source: Tensor, angle: Tensor, drawn: Tensor, brush: tuple[int, float, float], seed: int
) -> tuple[Tensor, Tensor]:
    """A layer over `at`: each pixel shows the topmost of the strokes that may reach it."""
    pitch, length, width = brush
    rows, columns = grid(at)
    dice, side = np.random.RandomState(seed + 5), PERIOD // pitch
    move = torch.tensor((dice.rand(side, side, 2) - 0.5) * pitch * 0.8, dtype=torch.float32, device=at.device)
    order = torch.tensor(dice.permutation(side * side).reshape(side, side), dtype=torch.float32, device=at.device)
    tone = torch.tensor((dice.rand(side, side) - 0.5) * 0.14, dtype=torch.float32, device=at.device)
    i, j = (rows // pitch).long(), (columns // pitch).long()
    reach = int(length / 2 / pitch + 0.99)
    best = torch.full_like(height, -1.0)
    color, ridge = at, height
    size = at.shape[-2:]
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            a, b = (i + down) % side, (j + across) % side
            y = ((i + down + 0.5) * pitch + move[a, b, 0]).clamp(0, size[0] - 1)
            x = ((j + across + 0.5) * pitch + move[a, b, 1]).clamp(0, size[1] - 1)
            yi, xi = y.long(), x.long()
            turn = angle[:, :, yi, xi]
            u = (columns - x) * torch.cos(turn) + (rows - y) * torch.sin(turn)
            v = (rows - y) * torch.cos(turn) - (columns - x) * torch.sin(turn)
            half = width / 2 * (1 - (2 * u / length).clamp(-1, 1) ** 4)
            across_it = v / half.clamp(min=0.01)
            top = (across_it.abs() < 1) & drawn[:, :, yi, xi] & (order[a, b] > best)
            best = torch.where(top, order[a, b], best)
            color = torch.where(top, source[:, :, yi, xi] + tone[a, b], color)
            bristles = (1 - across_it**2) + 0.35 * torch.cos(across_it * 8 + a + b)
            ridge = torch.where(top, bristles, ridge)
    return color, ridge


def pencil(x: Tensor) -> Tensor:
    """Graphite on paper: outlines, and two directions of hatching that thicken where it is dark."""
    tone = grey(x)
    line = (1 - blur(tone, 0.8) / (blur(tone, 4.0) + 0.04)).clamp(0, 1)
    line = torch.maximum(line * 2.4, difference(tone, 1.0).abs() * 9).clamp(0, 1)
    dark = blur(local_contrast(tone), 1.5)
    rows, columns = grid(x)
    first = ((columns + rows) % 8 - 4).abs()[None, None]
    second = ((columns - rows) % 8 - 4).abs()[None, None]
    at = 0.965 - 0.5 * step(first - 4.2 * step(dark, 0.85, 0.15), 0.6, -0.6) * step(dark, 0.70, 0.52)
    at = at - 0.4 * step(second - 3.6 * step(dark, 0.5, 0.05), 0.6, -0.6) * step(dark, 0.40, 0.24)
    at = at - 0.75 * line
    at = at + 0.02 * _grain(*x.shape[-2:], 0.7, 7, str(x.device))
    return at.clamp(0.14, 1) * _color(x, 1.0, 0.995, 0.98)


def ink(x: Tensor) -> Tensor:
    """Black lines and black masses, nothing between (XDoG, Winnemöller 2011)."""
    tone = 0.5 * local_contrast(grey(blur(x, 0.7)), 1.0) + 0.5 * grey(x)
    edge = blur(tone, 1.1) - 0.97 * blur(tone, 2.4)
    white = torch.where(edge > 0.008, torch.ones_like(edge), 1 + torch.tanh(70 * (edge - 0.008)))
    white = torch.minimum(white, step(blur(tone, 1.6), 0.24, 0.30))
    return (step(blur(white, 0.6), 0.35, 0.7) * 0.97 + 0.02).expand(-1, 3, -1, -1)


def comic(x: Tensor) -> Tensor:
    """Three levels of loud colours, dots in the shadows and thick outlines."""
    flat = saturate(kuwahara(kuwahara(x, 5), 4), 2.2)
    flat = ((flat - 0.5) * 1.4 + 0.58).clamp(0, 1)
    tone = grey(flat)
    few = ((flat * 2).round() / 2 * 0.9 + flat * 0.1).clamp(0, 1)
    rows, columns = grid(x)
    far = torch.hypot(columns % 8 - 3.5, rows % 8 - 3.5)
    size = ((0.74 - blur(tone, 2.0)) * 7).clamp(0, 3.4)
    few = few * (1 - 0.5 * step(far - size, 0.6, -0.4) * (size > 0.8))
    few = (few + 0.1).clamp(0, 1)
    plain = grey(kuwahara(x, 3))
    line = step(-difference(plain, 1.8, 1.9), 0.012, 0.03)
    line = torch.maximum(line, step(blur(plain, 1.2), 0.12, 0.06))
    return few * (1 - step(blur(line, 0.8), 0.2, 0.55))


def neon(x: Tensor) -> Tensor:
    """Glowing tubes along the edges, in the dark."""
    tone = 0.6 * local_contrast(blur(grey(x), 0.7), 1.0) + 0.4 * grey(x)
    warm = x[:, :1] - x[:, 2:]
    edge = blur(difference(tone, 1.6, 1.8).abs() * 9 + difference(warm, 1.6, 1.8).abs() * 5, 0.6)
    edge = step(edge, 0.16, 0.55)
    wide = blur(x, 5.0)
    high, low = wide.amax(1, keepdim=True), wide.amin(1, keepdim=True)
    colored = step((high - low) / (high + 0.05), 0.10, 0.25) > 0.5
    tint = torch.where(colored, hue(wide), 0.833 - 0.333 * step(high, 0.25, 0.8))
    tube = edge * blur(from_hue(tint), 1.5) * 1.15
    at = _color(x, 0.015, 0.01, 0.04) + blur(tube, 1.0) + 1.1 * blur(tube, 3.5) + 0.9 * blur(tube, 9.0)
    return (at + 0.55 * edge**2 * blur(tube, 0.6).amax(1, keepdim=True)).clamp(0, 1)


def blueprint(x: Tensor) -> Tensor:
    """White lines on blue paper with a grid."""
    tone = local_contrast(grey(blur(x, 0.8)), 0.9)
    warm = x[:, :1] - x[:, 2:]
    line = step(difference(tone, 1.4, 1.8).abs() + 0.8 * difference(warm, 1.4, 1.8).abs(), 0.022, 0.065)
    line = blur(line, 0.5)
    rows, columns = grid(x)
    fine = ((rows % 16 == 0) | (columns % 16 == 0)).float() * 0.16
    coarse = ((rows % 32 == 0) | (columns % 32 == 0)).float() * 0.10
    at = _color(x, 0.06, 0.22, 0.56) * (0.85 + 0.3 * blur(tone, 3.0)) + (fine + coarse) * _color(x, 0.7, 0.85, 1.0)
    return mix(at, _color(x, 0.93, 0.97, 1.0).expand_as(at), line).clamp(0, 1)


def sepia(x: Tensor) -> Tensor:
    return gradient_map((grey(x) - 0.5) * 1.05 + 0.5, SEPIA)


def bw(x: Tensor) -> Tensor:
    return ((grey(x) - 0.5) * 1.25 + 0.5).clamp(0, 1).expand(-1, 3, -1, -1)
