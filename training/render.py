"""A picture's target: its mood's light, then its style. Batches are [n, 3, h, w] float32, 0 to 1; sides of 32."""

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812

from training import lattice, painting
from training.filters import Tensor, blur, gradient_map, grey, mix, saturate, step
from training.words import MOODS, STYLES

__all__ = ["render", "render_mixed"]

PALETTES: Final = {
    "sunset": ((38, 12, 80), (150, 35, 120), (245, 95, 75), (255, 160, 80), (255, 225, 150)),
    "night": ((3, 5, 24), (10, 22, 70), (28, 58, 140), (80, 125, 215), (190, 215, 255)),
    "autumn": ((50, 16, 8), (150, 52, 16), (222, 108, 30), (240, 182, 98), (252, 240, 214)),
    "winter": ((45, 70, 110), (110, 150, 185), (175, 210, 230), (222, 240, 248), (255, 255, 255)),
    "pastel": ((140, 125, 185), (215, 165, 205), (250, 195, 205), (225, 240, 215), (255, 252, 240)),
    "golden": ((35, 18, 4), (110, 70, 10), (205, 150, 30), (245, 205, 90), (255, 247, 205)),
    "blue": ((3, 12, 55), (15, 50, 140), (50, 115, 215), (130, 190, 245), (230, 244, 255)),
    "green": ((3, 30, 16), (15, 85, 45), (60, 155, 80), (150, 215, 140), (236, 252, 225)),
    "vivid": ((60, 0, 110), (210, 0, 130), (255, 70, 40), (255, 190, 0), (250, 255, 190)),
}
# How far a mood's palette replaces the picture's own colours.
SHARE: Final = {
    "sunset": 0.8,
    "autumn": 0.68,
    "winter": 0.78,
    "pastel": 0.62,
    "golden": 0.88,
    "blue": 0.88,
    "green": 0.88,
}
# Styles without colours of their own are tinted after, not lit before.
COLORLESS: Final = ("pencil", "ink", "blueprint", "sepia", "bw")
FUNCTIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "photo": lambda x: x,
    "watercolor": painting.watercolor,
    "oil": painting.oil,
    "pencil": painting.pencil,
    "ink": painting.ink,
    "pixel": lattice.pixel,
    "mosaic": lattice.mosaic,
    "stained": lattice.stained,
    "comic": painting.comic,
    "lowpoly": lattice.lowpoly,
    "neon": painting.neon,
    "crossstitch": lattice.crossstitch,
    "pointillism": lattice.pointillism,
    "blueprint": painting.blueprint,
    "sepia": painting.sepia,
    "bw": painting.bw,
}


def render(x: Tensor, style: str, mood: str) -> Tensor:
    if style not in COLORLESS:
        return FUNCTIONS[style](lit(x, mood)).clamp(0, 1)
    drawn = FUNCTIONS[style](x)
    return drawn if mood == "none" else gradient_map(grey(drawn), PALETTES[mood])


def render_mixed(x: Tensor, style: Tensor, mood: Tensor) -> Tensor:
    """Each picture in its own style and mood, by their numbers [n]."""
    found = torch.empty_like(x)
    lights = x.clone()
    for number, name in enumerate(MOODS):
        chosen = (mood == number).nonzero()[:, 0]
        if len(chosen) and name != "none":
            lights[chosen] = lit(x[chosen], name)
    for number, name in enumerate(STYLES):
        chosen = (style == number).nonzero()[:, 0]
        if len(chosen) == 0:
            continue
        found[chosen] = FUNCTIONS[name]((x if name in COLORLESS else lights)[chosen]).clamp(0, 1)
        if name in COLORLESS:
            for tint in set(mood[chosen].tolist()) - {0}:
                tinted = chosen[mood[chosen] == tint]
                found[tinted] = gradient_map(grey(found[tinted]), PALETTES[MOODS[tint]])
    return found


def lit(x: Tensor, mood: str) -> Tensor:
    """The picture's colours at that time, in that weather, or in that palette."""
    if mood == "none":
        return x
    if mood == "vivid":
        return ((saturate(x, 2.4) - 0.5) * 1.2 + 0.52).clamp(0, 1)
    tone = grey(x)
    if mood != "night":
        return mix(x, gradient_map(tone, PALETTES[mood]), torch.tensor(SHARE[mood], device=x.device)).clamp(0, 1)
    dark = 0.9 * gradient_map(tone**1.15 * 0.84, PALETTES[mood]) + 0.04 * x
    # Small bright things are lamps: what an opening of 11 pixels removes.
    opened = -F.max_pool2d(F.max_pool2d(-tone, 11, 1, 5).neg(), 11, 1, 5).neg()
    lamps = blur(step(tone - opened, 0.15, 0.35) * step(tone, 0.55, 0.8), 0.7)
    lamp = torch.tensor([1.0, 0.85, 0.35], device=x.device).view(1, 3, 1, 1)
    glow = torch.tensor([1.0, 0.68, 0.14], device=x.device).view(1, 3, 1, 1) * 0.55 * blur(lamps, 4.0)
    return (mix(dark, lamp.expand_as(dark), 0.9 * lamps) + glow).clamp(0, 1)
