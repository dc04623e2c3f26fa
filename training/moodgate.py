"""A classifier of moods by colours alone: what colours a picture's darks, middles and lights have."""

from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812

from training.data import Contents, exactly
from training.filters import Tensor, grey
from training.plan import Plan
from training.render import lit
from training.stage import Budget
from training.words import MOODS

__all__ = ["colorful", "mood_scores", "new_mood_net", "train_moods"]

TONES: Final = 8
GREY: Final = 0.05  # mean chroma below which nothing can be made vivid
LOUD: Final = 0.11  # above which a picture can't be told from one made vivid
BATCH: Final = 60
KEPT: Final = 400  # batches


def new_mood_net() -> Any:
    features = TONES * 7 + 6
    layers = (
        torch.nn.LayerNorm(features),
        torch.nn.Linear(features, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, len(MOODS)),
    )
    return torch.nn.Sequential(*layers)


def mood_scores(net: Any, x: Tensor) -> Tensor:
    """Scores [n, moods] of pictures [n, 3, h, w], 0 to 1."""
    found: Tensor = net(colors_of(x))
    return found


def colors_of(x: Tensor) -> Tensor:
    """How much of a picture each of TONES of luminance has, and the colours' means and spreads there, [n, features]."""
    small = F.avg_pool2d(x, 4).clamp(0, 1)
    tone = grey(small)
    off = (small - tone).flatten(2)
    at = (tone.flatten(2) * (TONES - 1))[:, :, None]
    steps = torch.arange(TONES, device=x.device).view(1, 1, -1, 1)
    weight = (1 - (at - steps).abs()).clamp(min=0)[:, 0]  # [n, TONES, cells]
    share = weight.mean(2) + 1e-3
    mean = torch.einsum("ntk,nck->nct", weight, off) / weight.shape[2] / share[:, None]
    square = torch.einsum("ntk,nck->nct", weight, off**2) / weight.shape[2] / share[:, None]
    spread = (square - mean**2).clamp(min=1e-6).sqrt()
    whole = torch.cat([off.mean(2), off.std(2)], 1)
    return torch.cat([share.log() * 0.1, mean.flatten(1) * 4, spread.flatten(1) * 4, whole * 4], 1)


def train_moods(plan: Plan, contents: Contents, budget: Budget) -> tuple[Any, dict[str, Any]]:
    """The network, and how often it is right on contents that it never saw."""
    net = new_mood_net().to(plan.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    kept: list[tuple[Tensor, Tensor]] = []
    for share in budget.turns():
        if share < 0.7 and len(kept) < KEPT:
            kept.append(_batch(plan, contents, BATCH, unseen=False))
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * max(0.01, min(1.0, 3 * (1 - share)))
        for _ in range(8):
            features, mood = kept[int(torch.randint(len(kept), ()))]
            loss = F.cross_entropy(net(features + 0.03 * torch.randn_like(features)), mood, label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        budget.words = f"{len(kept) * BATCH} pictures, loss {float(loss.detach()):.3f}"
    net.cpu().eval()
    tests = [_batch(plan, contents, BATCH, unseen=True) for _ in range(2 if plan.small else 20)]
    with torch.no_grad():
        right = torch.cat([net(features.cpu()).argmax(1) == mood.cpu() for features, mood in tests])
    mood = torch.cat([mood.cpu() for _, mood in tests])
    each = ((name, right[mood == at]) for at, name in enumerate(MOODS))
    return net, {
        "mood": round(float(right.float().mean()), 4),
        "moods": {name: round(float(hits.float().mean()), 3) for name, hits in each if len(hits)},
    }


def colorful(x: Tensor) -> Tensor:
    """Which of the pictures have colours of their own, [n]."""
    return _chroma(x) > GREY


def _chroma(x: Tensor) -> Tensor:
    return (x - x.mean(1, keepdim=True)).abs().mean((1, 2, 3))


def _batch(plan: Plan, contents: Contents, count: int, unseen: bool) -> tuple[Tensor, Tensor]:
    """Features and moods of pictures that have some colour of their own; every mood about equally often.

    A loud picture is neither shown as it is nor made vivid, for nobody could tell which.
    """
    with torch.no_grad(), exactly():
        x = contents.sample(count, unseen)
        x = x[colorful(x)]
        mood = torch.arange(len(x), device=plan.device) % len(MOODS)
        alike = (mood == MOODS.index("none")) | (mood == MOODS.index("vivid"))
        clear = ~(alike & (_chroma(x) > LOUD))
        x, mood = x[clear], mood[clear]
        lights = [lit(x[number : number + 1], MOODS[int(mood[number])]) for number in range(len(x))]
        return colors_of(torch.cat(lights)), mood
