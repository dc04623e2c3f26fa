"""Styles made of cells. Their patterns repeat every PERIOD pixels from the corner, so four latent cells see one period.

A target that is the same for the same picture is learnt in minutes; one with free phases never is.
"""

from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from training.filters import Tensor, blur, gradient, grey, grid, mix, saturate, step

__all__ = ["cell_means", "crossstitch", "lowpoly", "mosaic", "pixel", "pointillism", "stained"]

PERIOD: Final = 32
STITCH: Final = PERIOD / 3
FACET: Final = 16
PANE: Final = 22.6  # pixels between the middles of two panes of glass


def cell_means(x: Tensor, label: Tensor, count: int) -> Tensor:
    """Mean colours [n, channels, count] of the cells; `label` is [n, h * w] or [h * w], below `count`."""
    flat = x.flatten(2)
    index = label.expand(len(x), -1)[:, None].expand(-1, x.shape[1], -1)
    total = torch.zeros(len(x), x.shape[1], count, device=x.device).scatter_add_(2, index, flat)
    ones = torch.ones_like(flat[:, :1])
    size = torch.zeros(len(x), 1, count, device=x.device).scatter_add_(2, index[:, :1], ones)
    return total / size.clamp(min=1)


def painted(colors: Tensor, label: Tensor, height: int, width: int) -> Tensor:
    """Each pixel in its cell's colour: [n, channels, h, w] of [n, channels, cells]."""
    index = label.expand(len(colors), -1)[:, None].expand(-1, colors.shape[1], -1)
    return colors.gather(2, index).view(len(colors), colors.shape[1], height, width)


def pixel(x: Tensor) -> Tensor:
    """Blocks of 8 pixels in few colours, those between two dithered as on a chessboard."""
    small = F.avg_pool2d(x, 8)
    small = saturate((small - 0.5) * 1.3 + 0.52, 1.6)
    rows, columns = grid(small)
    chess = ((rows + columns) % 2 - 0.5) * 0.25
    levels = 5
    small = ((small * (levels - 1) + chess).round() / (levels - 1)).clamp(0, 1)
    return F.interpolate(small, scale_factor=8, mode="nearest")


class _Tiles(NamedTuple):
    label: Tensor  # [h * w]
    edge: Tensor  # [1, 1, h, w]: 0 in a tile's middle, 1 at its rim
    tilt: Tensor  # [1, 1, h, w]: light falls from the upper left
    tone: Tensor  # [1, 3, cells]
    cells: int


@cache
def _tiles(height: int, width: int, device: str) -> _Tiles:
    """Tiles turned and moved a little, three by three in a period."""
    dice = np.random.RandomState(11)
    move, turn = (dice.rand(3, 3, 2) - 0.5) * 1.6, (dice.rand(3, 3) - 0.5) * 0.34
    tone = (dice.rand(3, 3, 3) - 0.5) * 0.06 + (dice.rand(3, 3, 1) - 0.5) * 0.16
    down, across = height * 3 // PERIOD, width * 3 // PERIOD
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    best, label, tilt = np.full((height, width), 9.0), np.zeros((height, width), np.int64), np.zeros((height, width))
    tones = np.zeros((3, down * across), np.float32)
    for i in range(down):
        for j in range(across):
            y, x = (np.array((i, j)) + 0.5) * STITCH + move[i % 3, j % 3]
            cos, sin = np.cos(turn[i % 3, j % 3]), np.sin(turn[i % 3, j % 3])
            part = slice(max(0, int(y - 12)), int(y + 13)), slice(max(0, int(x - 12)), int(x + 13))
            v, u = rows[part] - y, columns[part] - x
            right, below = cos * u + sin * v, cos * v - sin * u
            far = np.maximum(abs(right), abs(below)) / (STITCH / 2)
            nearer = far < best[part]
            best[part][nearer], label[part][nearer] = far[nearer], i * across + j
            tilt[part][nearer] = ((right + below) / STITCH)[nearer]
            tones[:, i * across + j] = tone[i % 3, j % 3]
    edge = torch.tensor(best, dtype=torch.float32, device=device)[None, None]
    tilted = torch.tensor(tilt, dtype=torch.float32, device=device)[None, None]
    flat = torch.tensor(label, device=device).flatten()
    return _Tiles(flat, edge, tilted, torch.tensor(tones, device=device)[None], down * across)


def mosaic(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    tiles = _tiles(height, width, str(x.device))
    colors = saturate(cell_means(x, tiles.label, tiles.cells)[..., None], 1.4)[..., 0] + tiles.tone
    at = painted(colors, tiles.label, height, width)
    at = (at * (1 - 0.24 * tiles.tilt) + 0.04).clamp(0, 1)
    grout = torch.tensor([0.90, 0.87, 0.80], device=x.device).view(1, 3, 1, 1)
    return mix(at, grout, step(tiles.edge, 0.74, 0.90))


def crossstitch(x: Tensor) -> Tensor:
    """Two crossed threads a cell on cloth with holes at the corners."""
    height, width = x.shape[-2:]
    rows, columns = grid(x)
    across = -(-width * 3 // PERIOD)
    i, j = ((rows + 0.5) / STITCH).long(), ((columns + 0.5) / STITCH).long()
    label = (i * across + j).flatten()
    colors = cell_means(saturate((x - 0.5) * 1.15 + 0.5, 1.5), label, int(label.max()) + 1)
    thread = painted((colors * 6).round() / 6, label, height, width)
    u, v = columns + 0.5 - (j + 0.5) * STITCH, rows + 0.5 - (i + 0.5) * STITCH
    under, over = (u - v).abs() / 2**0.5, (u + v).abs() / 2**0.5
    hole = torch.hypot(STITCH / 2 - u.abs(), STITCH / 2 - v.abs())
    at = torch.tensor([0.95, 0.92, 0.85], device=x.device).view(1, 3, 1, 1) * (1 - 0.6 * step(hole, 2.2, 0.8))
    at = mix(at, thread * (0.64 + 0.14 * torch.cos(under * 1.5)), step(under, 2.5, 1.6))
    shadow = step(over, 3.8, 2.4) * (1 - step(over, 2.5, 1.6))
    return mix(
        at * (1 - 0.35 * shadow), (thread * (1.04 + 0.1 * torch.cos(over * 2)) + 0.04).clamp(0, 1), step(over, 2.5, 1.6)
    ).clamp(0, 1)


class _Dots(NamedTuple):
    cover: Tensor  # [1, 1, h, w]
    source: Tensor  # [h * w]: the pixel in a dot's middle
    tone: Tensor  # [1, 3, h, w]


@cache
def _dots(height: int, width: int, device: str) -> _Dots:
    """Dots of many sizes, one over another, five by five in a period and moved so far that no grid is left."""
    dice, side = np.random.RandomState(41), 5
    pitch = PERIOD / side
    move, radius = (dice.rand(side, side, 2) - 0.5) * 5.5, 2.4 + dice.rand(side, side) * 2.2
    order, tone = dice.permutation(side * side).reshape(side, side), (dice.rand(side, side, 3) - 0.5) * 0.42
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    best, cover = np.full((height, width), -1), np.zeros((height, width), np.float32)
    source, tones = np.zeros((height, width), np.int64), np.zeros((3, height, width), np.float32)
    for i in range(-1, height * side // PERIOD + 2):
        for j in range(-1, width * side // PERIOD + 2):
            a, b = i % side, j % side
            y, x = (i + 0.5) * pitch + move[a, b, 0], (j + 0.5) * pitch + move[a, b, 1]
            part = slice(max(0, int(y - 6)), max(0, int(y + 7))), slice(max(0, int(x - 6)), max(0, int(x + 7)))
            inside = np.clip(radius[a, b] + 0.5 - np.hypot(rows[part] - y, columns[part] - x), 0, 1)
            over = (inside > 0.3) & (order[a, b] >= best[part])
            best[part][over], cover[part][over] = order[a, b], inside[over]
            source[part][over] = int(np.clip(y, 0, height - 1)) * width + int(np.clip(x, 0, width - 1))
            tones[(slice(None), *part)][:, over] = tone[a, b][:, None]
    as_tensor: Callable[[object], Tensor] = lambda array: torch.tensor(array, device=device)  # noqa: E731
    return _Dots(as_tensor(cover)[None, None], as_tensor(source).flatten(), as_tensor(tones)[None])


def pointillism(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    dots = _dots(height, width, str(x.device))
    at = saturate((blur(x, 1.5) - 0.5) * 1.05 + 0.53, 1.7)
    at = (painted(at.flatten(2), dots.source, height, width) + dots.tone).clamp(0, 1)
    paper = torch.tensor([0.96, 0.94, 0.88], device=x.device).view(1, 3, 1, 1)
    return mix(paper.expand_as(at), at, dots.cover)


class _Seeds(NamedTuple):
    points: Tensor  # [cells, 2]: row, column
    near: Tensor  # [h * w, 9]: the cells that a pixel may belong to


@cache
def _seeds(height: int, width: int, device: str) -> _Seeds:
    dice = np.random.RandomState(21)
    move = (dice.rand(2, 2, 2) - 0.5) * 8
    down, across = height // 16 + 2, width // 32 + 3
    at = [
        (i * 16 - 8 + move[i % 2, j % 2, 0], j * 32 - 32 + (24 if i % 2 else 8) + move[i % 2, j % 2, 1] * 0.8)
        for i in range(down)
        for j in range(across)
    ]
    points = torch.tensor(np.array(at, np.float32), device=device)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([rows, columns], -1).reshape(-1, 2).float().to(device)
    return _Seeds(points, torch.cdist(pixels, points).topk(9, largest=False).indices)


def _panes(x: Tensor, rounds: int = 4) -> tuple[Tensor, int]:
    """Labels [n, h * w] of cells that keep near their seeds and follow colours (SLIC, Achanta et al. 2012)."""
    height, width = x.shape[-2:]
    seeds = _seeds(height, width, str(x.device))
    rows, columns = grid(x)
    places = torch.stack([rows.expand(height, width), columns.expand(height, width)]).flatten(1) / PANE
    features = torch.cat([x.flatten(2) * 1.5, places.expand(len(x), -1, -1)], 1)  # [n, 5, h * w]
    count = len(seeds.points)
    nearest = seeds.near[:, :1].T.expand(len(x), -1)
    for _ in range(rounds):
        centres = cell_means(features, nearest, count)  # [n, 5, cells]
        fixed = (seeds.points / PANE).T[None]
        centres[:, 3:] = centres[:, 3:].clamp(fixed - 7 / PANE, fixed + 7 / PANE)
        best = torch.full_like(features[:, 0], 1e9)
        for k in range(seeds.near.shape[1]):
            candidate = seeds.near[:, k]
            far = (features - centres[:, :, candidate]).square().sum(1)
            nearest = torch.where(far < best, candidate[None], nearest)
            best = torch.minimum(best, far)
    return nearest, count


def _rims(label: Tensor, height: int, width: int) -> Tensor:
    """1 where a neighbour has another label, [n, 1, h, w]."""
    at = label.view(-1, 1, height, width)
    rim = torch.zeros(at.shape, device=label.device)
    rim[..., :, 1:] += (at[..., :, 1:] != at[..., :, :-1]).float()
    rim[..., 1:, :] += (at[..., 1:, :] != at[..., :-1, :]).float()
    return rim.clamp(max=1)


def stained(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    label, count = _panes(blur(x, 1.5))
    colors = cell_means(x, label, count)[..., None]
    colors = saturate((colors - 0.45) * 1.3 + 0.5, 2.2)[..., 0]
    rim = _rims(label, height, width)
    glow = 0.74 + 0.42 * step(blur(rim, 3.0), 0.25, 0.03)
    lead = step(F.max_pool2d(rim, 3, 1, 1) + 2 * blur(rim, 1.3), 0.75, 1.25)
    at = (painted(colors, label, height, width) * glow).clamp(0, 1)
    return mix(at, torch.tensor([0.04, 0.04, 0.05], device=x.device).view(1, 3, 1, 1).expand_as(at), lead)


def _corners(x: Tensor) -> Tensor:
    """A mesh [n, 2, i + 1, j + 1] of corners (row, column), FACET pixels apart, each moved onto the edge beside it."""
    n, _, height, width = x.shape
    right, down = gradient(blur(grey(x), 1.5))
    steep = torch.hypot(right, down).flatten(1)
    rows, columns = torch.arange(0, height + 1, FACET), torch.arange(0, width + 1, FACET)
    corners = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).float().to(x.device)
    offsets = torch.arange(-FACET // 3, FACET // 3 + 1, 2, device=x.device)
    moves = torch.cartesian_prod(offsets, offsets)
    places = corners.flatten(1).T[:, None] + moves  # [points, moves, 2]
    index = places[..., 0].clamp(0, height - 1).long() * width + places[..., 1].clamp(0, width - 1).long()
    best = (steep[:, index] - 0.01 * moves.float().square().sum(1) / FACET**2).argmax(-1)  # [n, points]
    moved = (corners.flatten(1) + moves[best].permute(0, 2, 1)).view(n, 2, *corners.shape[1:])
    # The picture's own rim stays where it is.
    moved[:, 0, 0], moved[:, 0, -1] = 0, height
    moved[:, 1, :, 0], moved[:, 1, :, -1] = 0, width
    return moved


def lowpoly(x: Tensor) -> Tensor:
    """Two flat triangles a cell of FACET pixels, divided to and fro by turns, each lit by where it leans."""
    n, _, height, width = x.shape
    corners = _corners(x)
    down, across = corners.shape[-2] - 1, corners.shape[-1] - 1
    around = [corners[:, :, :-1, :-1], corners[:, :, :-1, 1:], corners[:, :, 1:, 1:], corners[:, :, 1:, :-1]]
    rows, columns = (part.expand(height, width) for part in grid(x))
    cell_row, cell_column = (rows // FACET).long(), (columns // FACET).long()
    label = ((cell_row * across + cell_column) * 2).flatten().expand(n, -1)
    for move_row in (0, -1, 1):
        for move_column in (0, -1, 1):
            i, j = (cell_row + move_row).clamp(0, down - 1), (cell_column + move_column).clamp(0, across - 1)
            corner = [part[:, :, i, j] for part in around]
            turned = ((i + j) % 2 == 1)[None, None]
            for half in (0, 1):
                a, b, c = (torch.where(turned, corner[(k + 1) % 4], corner[k]) for k in ((0, 1, 2), (0, 2, 3))[half])
                inside = _inside(rows, columns, a, b, c)
                label = torch.where(inside.flatten(1), ((i * across + j) * 2 + half).flatten()[None], label)
    number = torch.arange(down * across, device=x.device)
    odd = ((number // across + number % across) % 2).float()
    lean = torch.stack([0.11 - 0.16 * odd, -0.11 + 0.20 * odd], 1).flatten()
    colors = saturate(cell_means(x, label, down * across * 2)[..., None], 1.4)[..., 0]
    colors = (colors * (1 + lean) + lean * 0.35).clamp(0, 1)
    return painted(colors, label, height, width)


def _inside(rows: Tensor, columns: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Which pixels lie in the triangle given for each, [n, h, w]; corners are [n, 2, h, w]."""

    def side(p: Tensor, q: Tensor) -> Tensor:
        return (columns - p[:, 1]) * (q[:, 0] - p[:, 0]) - (rows - p[:, 0]) * (q[:, 1] - p[:, 1])

    first, second, third = side(a, b), side(b, c), side(c, a)
    return ((first >= 0) & (second >= 0) & (third >= 0)) | ((first <= 0) & (second <= 0) & (third <= 0))
