"""A network that learns: float32 master weights, their running mean, AdamW, and how to go on after a kill."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training import checkpoint
from training.data import Contents, Pairs
from training.plan import Plan
from training.stage import Budget

__all__ = ["Course", "Learner", "learn"]

MEMORY = 0.998
"""How much of itself the running mean keeps at a step."""


class Learner:
    """`net` computes in `dtype`; `mean` is the same network with the running mean of the weights, in float32."""

    def __init__(self, net: Any, dtype: torch.dtype, rate: float, betas: tuple[float, float], decay: float) -> None:
        self.mean = copy.deepcopy(net).eval().requires_grad_(False)
        net = net.to(memory_format=torch.channels_last)
        # Weights and gradients of one layout: the fused optimizer takes no others.
        self._master = [parameter.detach().clone() for parameter in net.parameters()]
        for master in self._master:
            master.grad = torch.zeros_like(master)
        self.net = net.to(dtype=dtype).train()
        self._weights = list(self.net.parameters())
        on_cuda = self._master[0].is_cuda
        self._optimizer = torch.optim.AdamW(self._master, lr=rate, betas=betas, weight_decay=decay, fused=on_cuda)
        self._rate = rate
        self.step = 0

    def learn(self, loss: torch.Tensor, rate: float, memory: float) -> None:
        """One step at `rate` of the full rate; the running mean keeps `memory` of itself."""
        loss.backward()
        for master, weight in zip(self._master, self._weights, strict=True):
            master.grad.copy_(weight.grad)
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self._master, 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * rate * min(1.0, (self.step + 1) / 100)
        self._optimizer.step()
        self.step += 1
        # At the start the mean would be of weights that know nothing.
        memory = min(memory, 1 - 1 / (self.step / 8 + 1))
        with torch.no_grad():
            torch._foreach_copy_(self._weights, self._master)
            torch._foreach_lerp_(list(self.mean.parameters()), self._master, 1 - memory)

    def save(self, file: Path, spent_s: float) -> None:
        state = {
            "master": self._master,
            "mean": self.mean.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "spent_s": spent_s,
        }
        checkpoint.save(file, state)

    def restore(self, file: Path) -> float:
        """Go on from what `save` wrote, if anything; gives the seconds that had been spent."""
        kept = checkpoint.load(file, str(self._master[0].device))
        if kept is None:
            return 0.0
        with torch.no_grad():
            for master, found in zip(self._master, kept["master"], strict=True):
                master.copy_(found)
            torch._foreach_copy_(self._weights, self._master)
        self.mean.load_state_dict(kept["mean"])
        self._optimizer.load_state_dict(kept["optimizer"])
        self.step = kept["step"]
        return float(kept["spent_s"])


@dataclass(frozen=True)
class Course:
    """The full rate for `hold` of the time, then down by half a cosine to `floor` of it; pairs are drawn anew every
    `refresh_every` steps."""

    hold: float
    floor: float
    refresh_every: int

    def rate(self, share: float) -> float:
        """The share of the full rate, once `share` of the time is gone."""
        if share < self.hold:
            return 1.0
        return max(self.floor, 0.5 * (1 + math.cos((share - self.hold) / (1 - self.hold) * math.pi)))


def learn(
    learner: Learner,
    course: Course,
    loss_of: Callable[[], torch.Tensor],
    pairs: Pairs,
    contents: Contents,
    plan: Plan,
    budget: Budget,
    file: Path,
) -> None:
    """Learn until the budget is spent, keeping what was learnt in `file` now and then."""
    saved_s = budget.used_s
    for share in budget.turns():
        loss = loss_of()
        learner.learn(loss, course.rate(share), MEMORY)
        if learner.step % course.refresh_every == 0:
            contents.look()
            pairs.refresh()
        if learner.step % 10 == 0:
            budget.words = f"step {learner.step}, loss {float(loss.detach()):.4f}"
        if budget.used_s - saved_s > plan.save_every_s:
            learner.save(file, budget.used_s)
            saved_s = budget.used_s
