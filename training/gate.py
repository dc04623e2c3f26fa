"""A classifier of styles and moods that learns from renderings alone, never from the model's own pictures."""

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812

from training import checkpoint
from training.data import Contents, Pairs, as_bytes
from training.filters import Tensor
from training.plan import SIZE, Plan
from training.stage import Budget
from training.vae import decoded, encoded, load_vae
from training.words import MOODS, STYLES

__all__ = ["answers", "load_gate", "train_gate"]

CHANNELS: Final = (3, 32, 64, 96, 128, 160)
RATE: Final = 3e-3
REFRESH_EVERY: Final = 12
GREY: Final = 0.05  # mean chroma below which a picture is as good as black and white
SAVE_EVERY: Final = 40


def train_gate(plan: Plan, contents: Contents) -> None:
    """Makes gate.pt in the run's folder; how often it is right on renderings it never saw is in gate.json."""
    if (plan.folder / "gate.json").exists():
        return
    torch.manual_seed(plan.seed + 4)
    net = _new().to(plan.device)
    rate = RATE if plan.cuda else RATE / 2
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    file = plan.folder / "state" / "gate.pt"
    budget = Budget("gate", plan.seconds_of("gate"))
    if kept := checkpoint.load(file, plan.device):
        net.load_state_dict(kept["net"])
        budget.spent_s = kept["spent_s"]
    vae = load_vae(plan)
    shape, shown = (3, SIZE, SIZE), lambda x: as_bytes(_through(vae, x))
    pairs = Pairs(plan, contents, plan.pool // 2, as_bytes, shape, torch.uint8, make_styled=shown)
    pairs.fill()
    batch = 128 if plan.cuda else 16
    for step, share in enumerate(budget.turns(), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate * max(0.01, 1 - share)
        which = pairs.any(batch)
        x = _seen(pairs.styled[which].float() / 255)
        style, mood = answers(net, x)
        clear = _clear(pairs.plain[which], pairs.style[which], pairs.mood[which]).float()
        losses = _losses(style, pairs.style[which]) + _losses(mood, pairs.mood[which])
        loss = (losses * clear).sum() / clear.sum().clamp(min=1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % REFRESH_EVERY == 0:
            pairs.refresh()
        if step % SAVE_EVERY == 0:
            checkpoint.save(file, {"net": net.state_dict(), "spent_s": budget.used_s})
        if step % 4 == 0:
            budget.words = f"step {step}, loss {float(loss.detach()):.3f}"
    net.eval()
    checkpoint.save(plan.folder / "gate.pt", net.state_dict())
    checkpoint.write_json(plan.folder / "gate.json", _rightness(plan, net, contents))


def load_gate(file: Path) -> Any:
    net = _new()
    net.load_state_dict(checkpoint.load(file))
    return net.eval()


def answers(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the styles [n, styles] and of the moods [n, moods] of pictures 0 to 1."""
    body, head = net
    y = body(x * 2 - 1)
    scores = head(torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1))
    return scores[:, : len(STYLES)], scores[:, len(STYLES) :]


def _clear(plain: Tensor, style: Tensor, mood: Tensor) -> Tensor:
    """Which renderings can be told at all: a grey picture's photo, sepia, black and white and vivid ones can not."""
    x = plain.float() / 255
    colored = (x - x.mean(1, keepdim=True)).abs().mean((1, 2, 3)) > GREY
    toned = torch.tensor([STYLES.index(name) for name in ("photo", "sepia", "bw")], device=plain.device)
    return colored | ~(torch.isin(style, toned) | (mood == MOODS.index("vivid")))


def _losses(scores: Tensor, wanted: Tensor) -> Tensor:
    found: Tensor = F.cross_entropy(scores, wanted, reduction="none")
    return found


def _new() -> Any:
    layers: list[Any] = []
    for before, after in pairwise(CHANNELS):
        layers += [torch.nn.Conv2d(before, after, 3, 2, 1, bias=False), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
        layers += [torch.nn.Conv2d(after, after, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
    return torch.nn.ModuleList(
        [torch.nn.Sequential(*layers), torch.nn.Linear(2 * CHANNELS[-1], len(STYLES) + len(MOODS))]
    )


def _through(vae: Any, x: Tensor) -> Tensor:
    """Half of the pictures through the autoencoder, as all of a model's are."""
    half = torch.arange(len(x), device=x.device) // len(STYLES) % 2 == 0
    x[half] = torch.cat([decoded(vae, encoded(vae, part)) for part in x[half].split(32)])
    return x


def _seen(x: Tensor) -> Tensor:
    """As a model might show it: blurred, coarse, noisy, or as it is."""
    kind = float(torch.rand(()))
    if kind < 0.25:
        x = F.avg_pool2d(x, 3, 1, 1)
    elif kind < 0.45:
        small = F.interpolate(x, scale_factor=0.6, mode="bilinear", antialias=True)
        x = F.interpolate(small, size=SIZE, mode="bilinear")
    return x + torch.randn_like(x) * float(torch.rand(())) * 0.06


def _rightness(plan: Plan, net: Any, contents: Contents) -> dict[str, Any]:
    """Shares of right answers on renderings of contents it never saw, over all and for each name."""
    count = plan.chunk * (1 if plan.small else 10)
    pairs = Pairs(plan, contents, count, as_bytes, (3, SIZE, SIZE), torch.uint8, unseen=True)
    pairs.fill()
    with torch.no_grad():
        found = [answers(net, part.float() / 255) for part in pairs.styled.split(32)]
    clear = torch.cat(
        [_clear(*parts) for parts in zip(*(x.split(32) for x in (pairs.plain, pairs.style, pairs.mood)), strict=True)]
    )
    right: dict[str, Any] = {"renderings": int(clear.sum())}
    for kind, names, wanted, number in (("style", STYLES, pairs.style, 0), ("mood", MOODS, pairs.mood, 1)):
        hit = torch.cat([part[number] for part in found]).argmax(1) == wanted
        right[kind] = round(float(hit[clear].float().mean()), 4)
        each = ((name, hit[clear & (wanted == at)]) for at, name in enumerate(names))
        right[f"{kind}s"] = {name: round(float(hits.float().mean()), 3) for name, hits in each if len(hits)}
    return right
