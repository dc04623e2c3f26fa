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


def train_gate(plan: Plan, contents: Contents) -> None:
    """Makes gate.pt in the run's folder; how often it is right on renderings it never saw is in gate.json."""
    if (plan.folder / "gate.json").exists():
        return
    torch.manual_seed(plan.seed + 4)
    net = _new().to(plan.device)
    rate = RATE if plan.cuda else RATE / 2
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    budget = Budget("gate", plan.seconds_of("gate"))
    pairs = Pairs(plan, contents, plan.pool // 2, as_bytes, (3, SIZE, SIZE), torch.uint8)
    vae = load_vae(plan)
    pairs.fill()
    batch = 128 if plan.cuda else 16
    for step, share in enumerate(budget.turns(), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate * max(0.01, 1 - share)
        which = pairs.any(batch)
        x = _seen(vae, pairs.styled[which].float() / 255)
        style, mood = answers(net, x)
        loss = F.cross_entropy(style, pairs.style[which]) + F.cross_entropy(mood, pairs.mood[which])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % REFRESH_EVERY == 0:
            pairs.refresh()
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


def _new() -> Any:
    layers: list[Any] = []
    for before, after in pairwise(CHANNELS):
        layers += [torch.nn.Conv2d(before, after, 3, 2, 1, bias=False), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
        layers += [torch.nn.Conv2d(after, after, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
    return torch.nn.ModuleList(
        [torch.nn.Sequential(*layers), torch.nn.Linear(2 * CHANNELS[-1], len(STYLES) + len(MOODS))]
    )


def _seen(vae: Any, x: Tensor) -> Tensor:
    """As a model might show it: through the autoencoder, blurred, noisy, or cut."""
    with torch.no_grad():
        half = len(x) // 2
        x = torch.cat([decoded(vae, encoded(vae, x[:half])), x[half:]])
        kind = float(torch.rand(()))
        if kind < 0.25:
            x = F.avg_pool2d(x, 3, 1, 1)
        elif kind < 0.45:
            x = F.interpolate(
                F.interpolate(x, scale_factor=0.6, mode="bilinear", antialias=True), size=SIZE, mode="bilinear"
            )
        return x + torch.randn_like(x) * float(torch.rand(())) * 0.06


def _rightness(plan: Plan, net: Any, contents: Contents) -> dict[str, Any]:
    """Shares of right answers on fresh renderings, over all and for each name."""
    pairs = Pairs(plan, contents, plan.chunk * (1 if plan.small else 4), as_bytes, (3, SIZE, SIZE), torch.uint8)
    pairs.fill()
    with torch.no_grad():
        found = [answers(net, part.float() / 255) for part in pairs.styled.split(32)]
    style = torch.cat([part[0] for part in found]).argmax(1) == pairs.style
    mood = torch.cat([part[1] for part in found]).argmax(1) == pairs.mood
    each = {name: round(float(style[pairs.style == number].float().mean()), 3) for number, name in enumerate(STYLES)}
    each_mood = {
        name: round(float(mood[pairs.mood == number].float().mean()), 3)
        for number, name in enumerate(MOODS)
        if bool((pairs.mood == number).any())
    }
    return {
        "style": float(style.float().mean()),
        "mood": float(mood.float().mean()),
        "styles": each,
        "moods": each_mood,
    }
