"""What judges: a classifier of styles by patterns, and one of moods by colours (moodgate.py).

Both learn from renderings alone, never from the model's own pictures.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812

from training import checkpoint
from training.data import Contents, Pairs, as_bytes, exactly
from training.filters import Tensor
from training.moodgate import colorful, new_mood_net, train_moods
from training.plan import SIZE, Plan
from training.render import render
from training.stage import Budget
from training.vae import decoded, encoded, load_vae
from training.words import STYLES

__all__ = ["load_gate", "style_scores", "train_gate"]

CHANNELS: Final = (3, 32, 64, 96, 128, 160)
RATE: Final = 3e-3
REFRESH_EVERY: Final = 12
SAVE_EVERY: Final = 40  # steps
MOODS_SHARE: Final = 0.25  # of the stage's time


def train_gate(plan: Plan, contents: Contents) -> None:
    """Makes gate.pt and moods.pt in the run's folder; how often they are right on unseen contents is in gate.json."""
    if (plan.folder / "gate.json").exists():
        return
    torch.manual_seed(plan.seed + 4)
    seconds = plan.seconds_of("gate")
    if not (plan.folder / "gate.pt").exists():
        _train_styles(plan, contents, seconds * (1 - MOODS_SHARE))
    moods, told = train_moods(plan, contents, Budget("gate of moods", seconds * MOODS_SHARE))
    checkpoint.save(plan.folder / "moods.pt", moods.state_dict())
    styles, _ = load_gate(plan.folder)
    checkpoint.write_json(plan.folder / "gate.json", _rightness(plan, styles, contents) | told)


def _train_styles(plan: Plan, contents: Contents, seconds: float) -> None:
    net = _new().to(plan.device)
    rate = RATE if plan.cuda else RATE / 2
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    file = plan.folder / "state" / "gate.pt"
    budget = Budget("gate of styles", seconds)
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
        clear = _clear(pairs.plain[which], pairs.style[which]).float()
        scores = style_scores(net, _seen(pairs.styled[which].float() / 255))
        losses = F.cross_entropy(scores, pairs.style[which], reduction="none")
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
    checkpoint.save(plan.folder / "gate.pt", net.state_dict())


def load_gate(folder: Path) -> tuple[Any, Any]:
    """The networks of styles and of moods, on the CPU."""
    styles, moods = _new(), new_mood_net()
    styles.load_state_dict(checkpoint.load(folder / "gate.pt"))
    moods.load_state_dict(checkpoint.load(folder / "moods.pt"))
    return styles.eval(), moods.eval()


def style_scores(net: Any, x: Tensor) -> Tensor:
    """Scores [n, styles] of pictures [n, 3, h, w], 0 to 1."""
    body, head = net
    y = body(x * 2 - 1)
    found: Tensor = head(torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1))
    return found


def _new() -> Any:
    layers: list[Any] = []
    for before, after in pairwise(CHANNELS):
        layers += [torch.nn.Conv2d(before, after, 3, 2, 1, bias=False), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
        layers += [torch.nn.Conv2d(after, after, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
    return torch.nn.ModuleList([torch.nn.Sequential(*layers), torch.nn.Linear(2 * CHANNELS[-1], len(STYLES))])


def _clear(plain: Tensor, style: Tensor) -> Tensor:
    """Which renderings can be told at all: a grey picture's photo, sepia and black and white ones can not."""
    toned = torch.tensor([STYLES.index(name) for name in ("photo", "sepia", "bw")], device=plain.device)
    return colorful(plain.float() / 255) | ~torch.isin(style, toned)


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
    """Shares of right answers on renderings, in no mood, of contents that it never saw; over all and for each style."""
    right = {}
    with torch.no_grad(), exactly():
        for number, style in enumerate(STYLES):
            x = contents.sample(8 if plan.small else 48, unseen=True).cpu()
            x = render(x[colorful(x)], style, "none")
            right[style] = style_scores(net, x).argmax(1) == number
    every = torch.cat(list(right.values())).float()
    each = {name: round(float(hits.float().mean()), 3) for name, hits in right.items() if len(hits)}
    return {"style": round(float(every.mean()), 4), "renderings": len(every), "styles": each}
