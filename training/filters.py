"""Image filters on batches: pictures are [n, 3, height, width] float32, 0 to 1; grey ones have one channel."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = [
    "Tensor",
    "blur",
    "difference",
    "from_hue",
    "gradient",
    "gradient_map",
    "grey",
    "grid",
    "hue",
    "kuwahara",
    "local_contrast",
    "mix",
    "saturate",
    "step",
]


def grey(x: Tensor) -> Tensor:
    """Luma (ITU-R BT.601), [n, 1, h, w]."""
    return (x * torch.tensor([0.299, 0.587, 0.114], device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian, `sigma` in pixels; edges are repeated."""
    if sigma > 4:  # A wide one is made at half size, which nobody can see and takes an eighth of the time.
        small = blur(F.avg_pool2d(x, 2), sigma / 2)
        return F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)
    reach = max(1, int(sigma * 2.7 + 0.5))
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-(at**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    n, channels, height, width = x.shape
    flat = x.reshape(n * channels, 1, height, width)
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="replicate"), weights.view(1, 1, 1, -1))
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"), weights.view(1, 1, -1, 1))
    return flat.view(n, channels, height, width)


def difference(x: Tensor, sigma: float, ratio: float = 1.6) -> Tensor:
    """Difference of Gaussians: negative on the dark side of an edge."""
    return blur(x, sigma) - blur(x, sigma * ratio)


def gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's, to the right and down, per pixel."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    tall = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    wide = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return (tall[..., 2:] - tall[..., :-2]) / 8, (wide[..., 2:, :] - wide[..., :-2, :]) / 8


def step(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between; the other way round where low > high."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def saturate(x: Tensor, strength: float) -> Tensor:
    base = grey(x)
    return (base + (x - base) * strength).clamp(0, 1)


def mix(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return one + (other - one) * share


def gradient_map(x: Tensor, stops: Sequence[tuple[int, int, int]]) -> Tensor:
    """Grey [n, 1, h, w] to colours: the stops, 0 to 255, lie at equal distances from black to white."""
    table = torch.tensor(stops, device=x.device, dtype=x.dtype) / 255
    at = x.clamp(0, 1) * (len(stops) - 1)
    low = at.floor().clamp(max=len(stops) - 2).long()
    share = (at - low)[:, 0, ..., None]
    return (table[low[:, 0]] * (1 - share) + table[low[:, 0] + 1] * share).permute(0, 3, 1, 2)


def hue(x: Tensor) -> Tensor:
    """0 to 1, [n, 1, h, w]; grey is 0."""
    high, which = x.max(1, keepdim=True)
    chroma = (high - x.amin(1, keepdim=True)).clamp(min=1e-5)
    red, green, blue = x.split(1, 1)
    found = torch.where(
        which == 0,
        (green - blue) / chroma,
        torch.where(which == 1, (blue - red) / chroma + 2, (red - green) / chroma + 4),
    )
    return (found / 6) % 1


def from_hue(x: Tensor) -> Tensor:
    """Full colours of hues [n, 1, h, w]."""
    shift = torch.tensor([5.0, 3.0, 1.0], device=x.device).view(1, 3, 1, 1)
    sector = (shift + x * 6) % 6
    return 1 - torch.minimum(sector, 4 - sector).clamp(0, 1)


def local_contrast(x: Tensor, strength: float = 0.5) -> Tensor:
    """Grey whose neighbourhoods use the whole range, mixed with the plain one by `strength`."""
    mean = blur(x, 24)
    deviation = (blur((x - mean) ** 2, 24)).clamp(min=0).sqrt()
    stretched = (0.5 + (x - mean) / (4 * deviation + 0.16)).clamp(0, 1)
    return x * (1 - strength) + stretched * strength


def kuwahara(x: Tensor, reach: int) -> Tensor:
    """Flat patches with sharp edges: each pixel takes the mean of its calmest quarter (Kuwahara et al. 1976)."""
    size = reach + 1
    padded = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    mean = F.avg_pool2d(padded, size, 1)
    spread = (F.avg_pool2d(padded**2, size, 1) - mean**2).sum(1, keepdim=True)
    height, width = x.shape[-2:]
    corners = [(0, 0), (0, reach), (reach, 0), (reach, reach)]
    spreads = torch.stack([spread[..., top : top + height, left : left + width] for top, left in corners])
    calmest = spreads.argmin(0)
    found = torch.zeros_like(x)
    for number, (top, left) in enumerate(corners):
        found = torch.where(calmest == number, mean[..., top : top + height, left : left + width], found)
    return found


def grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel, [h, 1] and [1, w]."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device, dtype=torch.float32)[:, None]
    return rows, torch.arange(width, device=x.device, dtype=torch.float32)[None]
