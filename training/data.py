"""Contents on the device, and the pairs that are made of them while the networks learn.

A pair is a picture and its rendering, or the latents of both. Pools are refreshed all the time, so that hardly any pair
is seen twice, while rendering takes a small part of the time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from training.contents import shards
from training.filters import Tensor, from_hue, grey, hue
from training.plan import SIZE, Plan
from training.render import render_mixed
from training.words import MOODS, STYLES

__all__ = ["Contents", "Pairs", "as_bytes", "chosen_styles", "exactly"]

RARE: Final = 0.12  # how often a content's hues are turned


def exactly() -> torch.backends.cudnn.flags:
    """For filters: no rounding to TF32, and no timing of every new shape."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False)


class Contents:
    """All contents made so far, uint8 [n, 3, SIDE, SIDE] on the device; every tenth shard is kept for tests."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._folder = plan, plan.folder / "contents"
        self._seen: set[Path] = set()
        self.pictures = torch.empty(0, dtype=torch.uint8, device=plan.device)
        self.unseen = self.pictures
        self.look()

    def look(self) -> None:
        """Take in shards that are new."""
        new = [file for file in shards(self._folder) if file not in self._seen]
        self._seen.update(new)
        held = [file for file in new if int(file.stem) % 10 == 9]
        self.pictures = self._with(self.pictures, [file for file in new if file not in held])
        self.unseen = self._with(self.unseen, held)

    def _with(self, pictures: Tensor, files: list[Path]) -> Tensor:
        parts = [torch.from_numpy(np.load(file)).permute(0, 3, 1, 2).to(self._plan.device) for file in files]
        first = [pictures] if len(pictures) else []
        return torch.cat([*first, *parts]) if parts else pictures

    def sample(self, count: int, unseen: bool = False) -> Tensor:
        """Random parts of random contents, seen a little differently each time: [count, 3, SIZE, SIZE], 0 to 1."""
        device = self._plan.device
        pictures = self.unseen if unseen and len(self.unseen) else self.pictures
        x = pictures[torch.randint(len(pictures), (count,), device=device)].float() / 255
        zoom = 0.66 + 0.34 * torch.rand(count, device=device)
        turn = (torch.rand(count, device=device) - 0.5) * 0.3 * (torch.rand(count, device=device) < 0.3)
        flip = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
        shift = (torch.rand(count, 2, device=device) * 2 - 1) * (1 - zoom)[:, None]
        cos, sin = zoom * torch.cos(turn), zoom * torch.sin(turn)
        matrix = torch.stack([cos * flip, -sin, shift[:, 0], sin * flip, cos, shift[:, 1]], 1).view(count, 2, 3)
        at = F.affine_grid(matrix, [count, 3, SIZE, SIZE], align_corners=False)
        return _relit(F.grid_sample(x, at, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1))


def _relit(x: Tensor) -> Tensor:
    """Other exposure, contrast, white balance, saturation and, rarely, hues; a part is left as it is."""
    n = len(x)

    def dice(low: float, high: float, channels: int = 1) -> Tensor:
        drawn = low + (high - low) * torch.rand(n, channels, 1, 1, device=x.device)
        return torch.where(torch.rand(n, 1, 1, 1, device=x.device) < 0.6, drawn, (low + high) / 2)

    base = grey(x)
    y = base + (x - base) * dice(0.6, 1.4)
    y = ((y - 0.5) * dice(0.72, 1.28) + 0.5 + dice(-0.12, 0.12)) * dice(0.9, 1.1, 3)
    y = y.clamp(0, 1)
    turned = from_hue((hue(y) + torch.rand(n, 1, 1, 1, device=x.device)) % 1)
    chroma, low = y.amax(1, keepdim=True) - y.amin(1, keepdim=True), y.amin(1, keepdim=True)
    rare = torch.rand(n, 1, 1, 1, device=x.device) < RARE
    return torch.where(rare, low + turned * chroma, y)


def chosen_styles(count: int, device: str) -> tuple[Tensor, Tensor]:
    """Style and mood numbers [count]: every style equally often, four of ten without a mood.

    Sepia and black and white have none: in another colour neither would be left.
    """
    style = torch.arange(count, device=device) % len(STYLES)
    mood = torch.randint(len(MOODS), (count,), device=device) * (torch.rand(count, device=device) > 0.35)
    toned = (style == STYLES.index("sepia")) | (style == STYLES.index("bw"))
    return style, mood * ~toned


class Pairs:
    """A pool of `count` pairs, each `shape`; `make` turns pictures [n, 3, SIZE, SIZE] into what is kept of them.

    `make_styled` does so with the renderings, if they are to be kept otherwise."""

    def __init__(
        self,
        plan: Plan,
        contents: Contents,
        count: int,
        make: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        unseen: bool = False,
        make_styled: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._plan, self._contents, self._make, self._next, self._unseen = plan, contents, make, 0, unseen
        self.count, self._make_styled = count, make_styled or make
        self.plain = torch.empty((count, *shape), dtype=dtype, device=plan.device)
        self.styled = torch.empty_like(self.plain)
        self.style, self.mood = (torch.zeros(count, dtype=torch.long, device=plan.device) for _ in range(2))

    def fill(self, tell: Callable[[int], None] = lambda done: None) -> None:
        for done in range(0, self.count, self._plan.chunk):
            self.refresh()
            tell(done)

    def refresh(self) -> None:
        """Make the oldest chunk of pairs anew."""
        size = min(self._plan.chunk, self.count - self._next)
        with torch.no_grad(), exactly():
            pictures = self._contents.sample(size, self._unseen)
            style, mood = chosen_styles(size, self._plan.device)
            rendered = render_mixed(pictures, style, mood)
        part = slice(self._next, self._next + size)
        with torch.no_grad():
            self.plain[part], self.styled[part] = self._make(pictures), self._make_styled(rendered)
        self.style[part], self.mood[part] = style, mood
        self._next = (self._next + size) % self.count

    def any(self, size: int) -> Tensor:
        """Indices of `size` random pairs."""
        return torch.randint(self.count, (size,), device=self._plan.device)


def as_bytes(x: Tensor) -> Tensor:
    return (x * 255 + 0.5).to(torch.uint8)
